/*
 * Hardware: the CPU features in use, compared with those of the look before (a file "hardware" in the state folder): at
 * start, on SIGHUP and on `rescan`, which a unit calls after a resume. Artifacts that need features now missing are not
 * served; layouts follow (daemon/relayout.h). What this process does by itself needs no features; workers are told.
 */
#ifndef QUANTD_DAEMON_HARDWARE_H
#define QUANTD_DAEMON_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#include <quantd/layout.h>

#include "daemon/config.h"
#include "kernels/core/error.h"

enum { HARDWARE_TEXT_MAX = 256 };

struct hardware {
    char features[HARDWARE_TEXT_MAX]; /* in use: canonical string */
    char detected[HARDWARE_TEXT_MAX]; /* of the hardware alone */
    char stored[HARDWARE_TEXT_MAX];   /* at the look before; "" at the first */
    char filter[HARDWARE_TEXT_MAX];   /* those in use as a QUANTD_CPU of workers */
    uint64_t feature_bits;
    enum qd_layout native;
    uint32_t superseded;   /* bits of layouts that were native before and are to go, kept in the file */
    uint64_t memory_bytes; /* MemTotal or the cgroup limit */
    uint32_t cores;        /* allowed to this process */
    bool changed;          /* features differ from stored */
};

/*
 * Looks anew, compares, logs a change and stores the new set. A profile (config.hardware_path) takes features away,
 * never adds one, and says how much memory there is. Blocks on small files: at start, SIGHUP and rescan only.
 */
int hardware_look(const struct config *config, struct hardware *ret, struct qd_error *err);

/* Stores @h, whose layouts that are to go have become fewer. Blocks as above. */
int hardware_store(const struct config *config, const struct hardware *h, struct qd_error *err);

/* What encloses a worker here: "seccomp+landlock" "seccomp" "none" "off". Static storage. */
const char *hardware_sandbox(const struct config *config);

/* fs-verity works in @folder, which holds @file (a regular file). */
bool hardware_verity(const char *folder, const char *file);

#endif
