/*
 * Scan: what models a folder and those below it hold, by names and stats alone; no file is opened.
 * Runs on a pool thread and touches nothing but its arguments. Every folder met is watched
 * before it is read, so nothing that is made meanwhile is missed.
 *
 * An ONNX model's data are files of its folder called after it (model.onnx.data, model.onnx_data); a folder MODEL.calib
 * beside MODEL.onnx holds its calibration data, in which no models are looked for.
 *
 * Ignored: hidden names, names that end in .part .tmp .incomplete .crdownload .download ~, symlinks
 * that lead out of the root, symlinks to folders (what lies beneath the root is found there),
 * anything deeper than SCAN_DEPTH_MAX or beyond SCAN_FILES_MAX.
 */
#ifndef QUANTD_DAEMON_SCAN_H
#define QUANTD_DAEMON_SCAN_H

#include <stdbool.h>

#include "daemon/catalog.h"
#include "kernels/core/arena.h"

enum {
    SCAN_DEPTH_MAX = 16,     /* Hugging Face's cache is 5 deep */
    SCAN_FILES_MAX = 200000, /* a scan of that many takes about half a second */
    SCAN_ARENA_BYTES = 64 << 20
};

struct scan_model {
    const char *name;         /* path below the root without suffix */
    const char *path;         /* absolute: file or folder */
    const char *first_file;   /* absolute */
    const char *const *files; /* absolute, NULL-terminated: all that look like its own */
    const char *problem;      /* NULL: looks whole */
    bool bad;                 /* @problem will not go away by waiting */
    uint64_t bytes;           /* of its weights */
    struct file_stamp stamp;  /* of the first file */
    struct timespec newest;   /* latest ctime of its files */
    uint64_t print;           /* of names and stamps of all its files: differs when any was changed */
    uint64_t calibration;     /* the same of its calibration data; 0: there are none */
};

struct scan {
    struct arena *arena;       /* owned; all below */
    struct scan_model *models; /* sorted by path */
    size_t n_models;
    int *wds; /* sorted; folders watched */
    size_t n_wds;
    bool missing;      /* the root is not there; its nearest parent is watched */
    bool unwatched;    /* some folder could not be watched (watch limit) */
    bool cut;          /* a limit was met: not everything was looked at */
    char problem[256]; /* why, for the log; "" */
};

struct watch;

/* @root absolute; @watch may be NULL. Fails for memory only: everything else is an observation. */
int scan_root(const char *root, struct watch *watch, struct scan **ret, struct qd_error *err);
struct scan *scan_free(struct scan *s);
DEFINE_CLEANUP(scan_free, struct scan *)

/*
 * One more entry of a folder of calibration data, @depth 1, or of a folder in it, @depth 2: into the print that becomes
 * scan_model's @calibration, in any order. From 0; @st by lstat. So a job, which lists the folder for itself, knows of
 * which print its list is.
 */
uint64_t scan_print_sample(uint64_t print, const char *name, const struct stat *st, unsigned depth);

/* What the print of a folder that is there is called: never 0. */
uint64_t scan_calibration(uint64_t print);

/* Whether a file of this name can matter to a scan; for events. */
bool scan_cares(const char *name);

#endif
