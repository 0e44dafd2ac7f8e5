/*
 * Handlers: a function per method, typed by protocol.def. The owner (struct peer of the daemon,
 * struct session of the worker) is named before the macros are used:
 *
 *     #define HANDLER_OWNER struct peer
 *     METHODS(HANDLER_DECLARE)     // int handle_open(struct peer *, struct request *, const struct msg_open *, struct
 * qd_error *); METHODS(HANDLER_THUNK)       // in one file static const struct handler handlers[] =
 * {METHODS(HANDLER_ROW)};
 */
#ifndef QUANTD_IPC_HANDLER_H
#define QUANTD_IPC_HANDLER_H

#include "ipc/codec.h"
#include "ipc/packet.h"

/* Lives during the call; a handler that answers later keeps the id. */
struct request {
    uint32_t id;
    const char *method;
    struct packet *packet; /* its descriptors: packet_steal_fd; what is left is closed after the call */
};

/*
 * 0: the handler has answered or will. Negative: it will not; the caller sends @err as the error
 * reply. Strings of @params live during the call.
 */
typedef int handler_fn(void *owner, struct request *rq, const void *params, struct qd_error *err);

struct handler {
    const char *method;
    enum message params, result;
    handler_fn *fn;
};

#define HANDLER_DECLARE(method, params, result, doc) \
    int handle_##method(HANDLER_OWNER *owner, struct request *rq, const struct msg_##params *p, struct qd_error *err);
#define HANDLER_THUNK(method, params, result, doc)                                                  \
    static int thunk_##method(void *owner, struct request *rq, const void *p, struct qd_error *err) \
    {                                                                                               \
        return handle_##method(owner, rq, p, err);                                                  \
    }
#define HANDLER_ROW(method, params, result, doc) {#method, MSG_##params, MSG_##result, thunk_##method},

/*
 * Serves the request in @packet. 0: a handler took it. 1: it failed and @ret_reply (emptied
 * first) holds the error reply to send - unknown method (with the nearest name as hint), bad parameters, lost
 * descriptors, or the handler said so. Negative: no request at all; the connection is not worth keeping. Descriptors
 * that nobody stole are closed on return.
 */
int request_serve(const struct handler *handlers, size_t n_handlers, void *owner, struct packet *packet,
                  struct buffer *ret_reply, struct qd_error *err);

#endif
