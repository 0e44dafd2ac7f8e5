/*
 * The door that a worker closes behind itself, before it has seen a byte of a model: no new
 * privileges, no dump, no descriptor but those it was given, resource limits, Landlock without a
 * single rule (no path can be reached) and a seccomp allow-list (anything else kills the process).
 * What is left: reading, writing and sizing descriptors that arrive through the control socket,
 * memory, own threads, time.
 *
 * Descriptors arrive later through the control socket, so nothing is open but that and stderr.
 * Threads are started after the door is closed: limits and filters are those of the process then.
 */
#ifndef QUANTD_DAEMON_WORKER_SANDBOX_H
#define QUANTD_DAEMON_WORKER_SANDBOX_H

#include <stdint.h>

#include "kernels/core/error.h"

enum sandbox_layer {
    SANDBOX_SECCOMP = 1 << 0,
    SANDBOX_LANDLOCK = 1 << 1,
};

struct sandbox {
    unsigned required;     /* layers without which it is an error */
    unsigned optional;     /* layers that are used where the kernel has them */
    int first_closed_fd;   /* this descriptor and all above are closed */
    uint64_t memory_bytes; /* RLIMIT_DATA; 0: no limit */
    uint64_t file_bytes;   /* RLIMIT_FSIZE, of memfds too: the soft limit, which the filter keeps and who started us may
                              raise */
    uint64_t n_files;      /* RLIMIT_NOFILE */
};

/*
 * Closes the door. One thread only. A missing required layer is QD_E_UNSUPPORTED with a hint; the
 * process is then half closed and has to end. *ret_layers: those in force.
 */
int sandbox_enter(const struct sandbox *s, unsigned *ret_layers, struct qd_error *err);

/* Layers this kernel offers; changes nothing. */
unsigned sandbox_available(void);

/* "seccomp+landlock" "seccomp" "landlock" "off" */
const char *sandbox_name(unsigned layers);

#endif
