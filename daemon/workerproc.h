/*
 * One worker process: started with a control socket and nothing else, spoken to by requests, one
 * at a time, watched until it is reaped. Everything here runs on the loop thread; every callback
 * comes from the loop, never from inside a call.
 */
#ifndef QUANTD_DAEMON_WORKERPROC_H
#define QUANTD_DAEMON_WORKERPROC_H

#include <uv.h>

#include "ipc/codec.h"
#include "ipc/packet.h"
#include "kernels/core/error.h"

enum { WORKER_STDERR_MAX = 2048 }; /* bytes kept of what it said last */

struct workerproc_options {
    const char *path;
    uint64_t memory_bytes; /* ceiling; 0: none */
    bool idle;
    bool sandbox;
    const char *cpu; /* its QUANTD_CPU; NULL: ours */
};

struct workerproc_hooks {
    /* The answer to the request. @in->failed: an error reply. Both live during the call. */
    void (*replied)(void *data, struct incoming *in, struct packet *packet);
    void (*progress)(void *data, const struct msg_w_progress *p);
    /*
     * Reaped; once, the last callback; @p is gone after it. @why: how it ended, QD_E_WORKER_DIED unless it ended well
     * (code 0).
     */
    void (*ended)(void *data, const struct qd_error *why);
};

struct workerproc;

/* After a failure no callback comes. */
int workerproc_start(uv_loop_t *loop, const struct workerproc_options *o, const struct workerproc_hooks *hooks,
                     void *data, struct workerproc **ret, struct qd_error *err);

/*
 * Sends a request; @fds stay the caller's. When neither an answer nor progress comes for
 * @stall_ms, the worker is killed and ended() says that it was stuck.
 */
int workerproc_request(struct workerproc *p, const char *method, enum message type, const void *params, const int *fds,
                       size_t n_fds, unsigned stall_ms, struct qd_error *err);

/* Shuts our side: an idle worker ends, a running one stops at the next unit and ends. */
void workerproc_stop(struct workerproc *p);
void workerproc_kill(struct workerproc *p);

/* Sets the size of files it can write, for good; before, it is TABLE_BYTES_MAX. A worker that has ended is no error. */
int workerproc_limit_file(struct workerproc *p, uint64_t bytes, struct qd_error *err);

/* Out of idle scheduling; false where the system does not allow it (RLIMIT_NICE). */
bool workerproc_promote(struct workerproc *p);

pid_t workerproc_pid(const struct workerproc *p);

#endif
