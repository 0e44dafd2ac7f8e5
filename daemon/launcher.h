/*
 * One launch: from an opened source to a committed artifact, by one worker process; or from a portable artifact to a
 * packed one, which begins with what the store knows of it and needs no open, gather and hash.
 *
 *     open      pool    the first file; it must be the one that was asked for
 *     probe     worker  format and companions
 *     gather    pool    companions, beneath the model's folder
 *     add       worker  one packet each; the importance matrix, where the recipe has one, is the last
 *     hash      pool    all files; their digests make the source identity and so the key
 *     plan      worker  what will be written, exact to the byte
 *     prepare   pool    room on the disk, work files (maybe of an earlier run, with journal)
 *     run       worker  the work; then the worker is reaped
 *     commit    pool    digest, sign, store
 *
 * What the worker says is bounded and compared with what quantd knows by itself: sizes, counts,
 * and the digest of every source file as it was read. The steps run one after the other; the
 * owner (job.c) hears of them through the hooks, always from the loop and never from inside a call.
 */
#ifndef QUANTD_DAEMON_LAUNCHER_H
#define QUANTD_DAEMON_LAUNCHER_H

#include <limits.h>

#include "daemon/daemon.h"
#include "daemon/job.h"
#include "daemon/known.h"

struct launch_spec {
    const char *model;       /* for the manifest and the log */
    const char *first_file;  /* absolute path; NULL with @source_fd */
    int source_fd;           /* taken by launch_start when it succeeds; or -1 */
    int imatrix_fd;          /* as @source_fd: what the recipe is weighted by */
    struct file_stamp stamp; /* of the first file as asked for */
    uint64_t calibration;    /* as the catalog's; of an ONNX model the launch looks for itself */
    struct recipe recipe;
    enum qd_layout layout;
    struct digest portable; /* key of what is to be packed, where @layout is a packed one */
    bool idle;
    bool plan_only;
    const char *boot_id; /* of the journal's tag */
    struct known *known;
};

struct launch_hooks {
    void (*state)(void *data, enum job_state s);
    void (*progress)(void *data, const char *tensor, uint64_t done_bytes, uint64_t total_bytes);
    /* The key is known and not in the store. False: somebody else makes it; the launch ends as cancelled. */
    bool (*keyed)(void *data, const struct digest *key);
    /* Once, the last: all is closed, the worker is reaped, the launch is gone. */
    void (*done)(void *data, const struct job_outcome *o);
};

struct launch;

/* The last component of what @fd was opened by, so that its key is the path's; "model" where that is not known. */
void name_of_descriptor(int fd, char dst[NAME_MAX + 1]);

/* Strings of @s are copied. */
int launch_start(struct daemon *d, const struct launch_spec *s, const struct launch_hooks *hooks, void *data,
                 struct launch **ret, struct qd_error *err);

/* Stops before the commit: the worker at its next unit, or at once. The journal is kept. A launch that commits goes on.
 */
void launch_cancel(struct launch *l, bool at_once);

/*
 * Out of idle scheduling; false where the running worker cannot be raised: cancel and launch again, the journal
 * continues.
 */
bool launch_promote(struct launch *l);

#endif
