/*
 * A file that appears whole or not at all: written without a name (O_TMPFILE), or under a hidden
 * one where the file system has no such thing, synced, then linked or renamed to its name. Killed
 * at any moment it leaves nothing under the final name.
 */
#ifndef QUANTD_WORKER_OUTFILE_H
#define QUANTD_WORKER_OUTFILE_H

#include <stdbool.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

struct outfile {
    int fd;
    int folder_fd;
    char *path;   /* owned: as the user gave it */
    char *name;   /* owned: last component */
    char *hidden; /* owned: ".NAME.PID.part"; in use when @named */
    bool named;
    bool replace; /* may take the place of a file that is there */
};

/* Where @path is there and @replace is not said: QD_E_EXISTS, before any work. */
int outfile_open(struct outfile *f, const char *path, bool replace, struct qd_error *err);

/* Syncs and gives it its name; then outfile_close() leaves it. */
int outfile_publish(struct outfile *f, struct qd_error *err);

/* Removes what was not published. Accepts a zeroed one. */
void outfile_close(struct outfile *f);

static inline void outfile_close_cleanup(struct outfile *f)
{
    outfile_close(f);
}

#endif
