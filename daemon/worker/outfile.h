/*
 * A file that appears whole or not at all: written without a name (O_TMPFILE), or under a hidden
 * one where the file system has no such thing, synced, then linked or renamed to its name. Killed
 * at any moment it leaves nothing under the final name.
 *
 * One that takes long is resumable: it is written under ".NAME.part" with ".NAME.journal" beside it, both of
 * which a killed process leaves for the next one, and which one process holds at a time.
 */
#ifndef QUANTD_WORKER_OUTFILE_H
#define QUANTD_WORKER_OUTFILE_H

#include <stdbool.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

struct outfile {
    int fd;
    int folder_fd;
    char *path;     /* owned: as the user gave it */
    char *name;     /* owned: last component */
    char *hidden;   /* owned: ".NAME.PID.part", ".NAME.part"; in use when @named */
    char *journal;  /* owned: ".NAME.journal" of a resumable one, else NULL */
    int journal_fd; /* -1: none */
    bool named;
    bool replace; /* may take the place of a file that is there */
};

/* Where @path is there and @replace is not said: QD_E_EXISTS, before any work. */
int outfile_open(struct outfile *f, const char *path, bool replace, struct qd_error *err);

/*
 * The same, resumable: @f->fd and @f->journal_fd may hold what a killed process left. Held by another process:
 * QD_E_EXISTS.
 */
int outfile_open_resumable(struct outfile *f, const char *path, bool replace, struct qd_error *err);

/* Closes it and leaves what there is of a resumable one for the next process. */
void outfile_leave(struct outfile *f);

/* Syncs and gives it its name; then outfile_close() leaves it. */
int outfile_publish(struct outfile *f, struct qd_error *err);

/* Removes what was not published. Accepts a zeroed one. */
void outfile_close(struct outfile *f);

static inline void outfile_close_cleanup(struct outfile *f)
{
    outfile_close(f);
}

#endif
