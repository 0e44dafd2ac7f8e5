/*
 * Hardware: the CPU features in use, compared with those of the start before (a file "hardware" in
 * the state folder). Artifacts that need features now missing are not served; layouts follow.
 */
#ifndef QUANTD_DAEMON_HARDWARE_H
#define QUANTD_DAEMON_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/config.h"
#include "kernels/core/error.h"

enum { HARDWARE_TEXT_MAX = 256 };

struct hardware {
    char features[HARDWARE_TEXT_MAX]; /* in use: canonical string */
    char detected[HARDWARE_TEXT_MAX]; /* of the hardware alone */
    char stored[HARDWARE_TEXT_MAX];   /* at the start before; "" at the first */
    uint64_t feature_bits;
    uint64_t memory_bytes; /* MemTotal or the cgroup limit */
    uint32_t cores;        /* allowed to this process */
    bool changed;          /* features differ from stored */
};

/*
 * Looks, compares, logs a change and stores the new set. A profile (config.hardware_path) takes features away, never
 * adds one, and says how much memory there is. Blocks on small files: at start, SIGHUP and rescan only.
 */
int hardware_look(const struct config *config, struct hardware *ret, struct qd_error *err);

/* What encloses a worker here: "seccomp+landlock" "seccomp" "none" "off". Static storage. */
const char *hardware_sandbox(const struct config *config);

/* fs-verity works in @folder, which holds @file (a regular file). */
bool hardware_verity(const char *folder, const char *file);

#endif
