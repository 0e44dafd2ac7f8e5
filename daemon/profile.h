/*
 * A hardware profile: a machine in a few lines of text, this one or any other, for "what would it get?"
 *
 *     # Raspberry Pi 3 B
 *     name = Raspberry Pi 3 Model B
 *     features = aarch64+neon
 *     memory = 1G
 *     cores = 4
 *
 * `quantctl hw --save FILE` writes one, quantctl(1) says what the keys mean. features and memory are required.
 */
#ifndef QUANTD_DAEMON_PROFILE_H
#define QUANTD_DAEMON_PROFILE_H

#include <stdint.h>

#include "kernels/core/error.h"
#include "kernels/cpu.h"

enum { PROFILE_BYTES = 4096 /* of text: some lines and room for remarks */, PROFILE_NAME_BYTES = 64 };

struct profile {
    char name[PROFILE_NAME_BYTES]; /* "" where it says none */
    enum cpu_architecture architecture;
    uint64_t features; /* with all that they build on */
    uint64_t memory_bytes;
    uint32_t cores; /* 0 where it says none */
};

/* QD_E_INVALID: "line 3: ...", with the next step as hint. Any text is safe. */
int profile_parse(const char *text, struct profile *ret, struct qd_error *err);

/* The same of a regular file; errors name it. Blocks on the file. */
int profile_load(const char *path, struct profile *ret, struct qd_error *err);

#endif
