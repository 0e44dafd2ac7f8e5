/*
 * Client: one connection to quantd. Requests are numbered; an answer to one that was given up is
 * dropped with its descriptors. A lost connection is made anew and what is safe to repeat is repeated.
 * One thread at a time.
 */
#ifndef QUANTD_CLIENT_CLIENT_H
#define QUANTD_CLIENT_CLIENT_H

#include <quantd/quantd.h>

#include "client/trust.h"
#include "ipc/codec.h"
#include "ipc/conn.h"

enum {
    HELLO_WAIT_MS = 5000,
    RECONNECT_MS = 5000, /* a daemon that is restarted is back by then */
    RECONNECT_STEP_MS = 20,
    REPEATS_MAX = 3,  /* of one request, over lost connections */
    CALL_FDS_MAX = 2, /* a source and an importance matrix */
    PROTOCOL_VERSION = 1
};

struct qd_client {
    int fd;     /* -1: not connected */
    char *path; /* owned; of the socket */
    uint32_t last_id;
    struct trust *trust;  /* owned reference */
    struct packet packet; /* received last */
    struct buffer out;
};

/* ---- transport.c ---- */

/* Connects and says hello; drops what was. */
int client_connect(struct qd_client *c, struct qd_error *err);
void client_disconnect(struct qd_client *c);

/* Tries to connect until RECONNECT_MS have passed. */
int client_reconnect(struct qd_client *c, struct qd_error *err);

/*
 * Sends c->out with @fds, which stay the caller's, waiting for room. QD_E_UNAVAILABLE: the connection is gone and c->fd
 * is -1.
 */
int client_send(struct qd_client *c, const int *fds, size_t n_fds, struct qd_error *err);

/*
 * The next message that is there or comes within @wait_ms (negative: for ever; 0: now): 1 and @ret, or
 * 0 when the time is up. QD_E_UNAVAILABLE as above. Descriptors are in c->packet.
 */
int client_receive(struct qd_client *c, int wait_ms, struct incoming *ret, struct qd_error *err);

/* ---- call.c ---- */

/* What to send, made anew for every connection. */
struct call {
    const char *method;
    uint32_t id;           /* of the request under way */
    int fds[CALL_FDS_MAX]; /* go with it; borrowed */
    size_t n_fds;
    enum message type; /* with params */
    const void *params;
    const struct param *loose; /* or these @n_loose */
    size_t n_loose;
    unsigned n_sent;
};

int call_send(struct qd_client *c, struct call *call, struct qd_error *err);

/* May the request be sent once more after @failure? Then it is: 0, else the failure with its reason. */
int call_again(struct qd_client *c, struct call *call, int failure, struct qd_error *err);

/* Sends, waits, repeats. Events are given to @event (may be NULL). The answer, never an error reply, is @ret. */
int call_run(struct qd_client *c, struct call *call, qd_event_fn *event, void *data, struct incoming *ret,
             struct qd_error *err);

/* Gives the params of an event to @event; its result. */
int event_deliver(const struct incoming *in, qd_event_fn *event, void *data, struct qd_error *err);

#endif
