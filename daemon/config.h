/*
 * Configuration: built-in defaults, then quantd.conf, then quantd.conf.d/ *.conf in name order
 * (inih). An unknown key is a warning with the nearest known one; a bad value is QD_E_CONFIG with
 * file and line (exit 78). Keys, defaults and units: options.def, from which quantd.conf(5) is
 * printed. System mode: /etc/quantd, STATE_DIRECTORY, CACHE_DIRECTORY, RUNTIME_DIRECTORY (or
 * /var/lib/quantd, /var/cache/quantd, /run/quantd). User mode (--user): XDG directories.
 */
#ifndef QUANTD_DAEMON_CONFIG_H
#define QUANTD_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernels/core/error.h"

enum { CONFIG_ROOTS_MAX = 64, CONFIG_UIDS_MAX = 64 };

struct config_root {
    char *path;                  /* owned; absolute */
    bool grant_all;              /* every local user may open models of this root */
    uid_t uids[CONFIG_UIDS_MAX]; /* users and groups granted by name */
    size_t n_uids;
    gid_t gids[CONFIG_UIDS_MAX];
    size_t n_gids;
    uint32_t rescan_s; /* 0: events only; for file systems without events */
    char *warm;        /* owned; scheme built in the background for every model, NULL: none */
};

struct config {
    bool user_mode;
    char *state_dir, *cache_dir, *runtime_dir, *config_dir; /* owned */
    char *socket_path;                                      /* owned */
    char *worker_path;                                      /* owned; quantd-worker */
    char *hardware_path;                                    /* owned; profile that is believed, NULL: none */
    char *cpu;                                              /* owned; features that are used, NULL: all there are */
    struct config_root *roots;                              /* owned */
    size_t n_roots;
    uint64_t cache_budget;                                   /* bytes; 0: no limit */
    uint64_t keep_free;                                      /* bytes of disk left alone */
    uint64_t worker_memory;                                  /* ceiling of one job, default 256 MiB */
    uint64_t calibration_memory;                             /* of a job on an ONNX model, default 512 MiB */
    uint32_t jobs_max;                                       /* at once; 0: by memory and cores */
    bool keep_page_cache;                                    /* of sources that were not cached before a job */
    uint32_t threads;                                        /* per job; 0: all allowed cores */
    uint32_t quiet_ms;                                       /* a model's files must rest this long, default 1000 */
    uint32_t leave_grace_ms;                                 /* before a job nobody waits for pauses, default 5000 */
    uint32_t backoff_s, backoff_max_s;                       /* of failed jobs: 10, doubled up to 3600 */
    uint32_t stop_grace_ms;                                  /* for workers at SIGTERM, default 2000 */
    uint32_t connections_per_uid, fds_per_uid, jobs_per_uid; /* quotas: 256, 1024, 16 */
    uint64_t bytes_per_uid;                                  /* of messages in flight: 1 MiB */
    uint32_t scrub_h;                                        /* hours between scrubs of the store; 0: never (default) */
    uint32_t repack_h;                                       /* hours that a packed artifact is wanted after its use */
    bool sandbox;                                            /* default true; off is loudly logged */
    int log_level;                                           /* 3 err .. 7 debug, default 6 */
    uid_t admin_uids[CONFIG_UIDS_MAX];                       /* besides root and the daemon's own */
    size_t n_admin_uids;
};

struct config_warning {
    char text[512]; /* file, line, what, nearest */
};

/* @extra_file: --config FILE or NULL. Warnings are collected (owned array) for the log. */
int config_load(bool user_mode, const char *extra_file, struct config **ret, struct config_warning **ret_warnings,
                size_t *ret_n_warnings, struct qd_error *err);
struct config *config_free(struct config *c);

#endif
