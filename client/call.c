#include <string.h>

#include "client/client.h"
#include "client/value.h"
#include "ipc/value.h"

/* Methods that must not happen twice: sent once, they are not repeated after a lost connection. */
static bool is_repeatable(const char *method)
{
    static const char *const once[] = {"remove", "prune", "cancel", "retry"};
    for (size_t i = 0; i < sizeof once / sizeof once[0]; i++)
        if (strcmp(once[i], method) == 0)
            return false;
    return true;
}

static int encode(struct qd_client *c, struct call *call, struct qd_error *err)
{
    c->out.n = 0;
    call->id = ++c->last_id;
    if (call->loose || !call->params)
        return request_encode_params(&c->out, call->id, call->method, call->loose, call->n_loose, err);
    return request_encode(&c->out, call->id, call->method, call->type, call->params, err);
}

static int send_once(struct qd_client *c, struct call *call, struct qd_error *err)
{
    int r = encode(c, call, err);
    return r < 0 ? r : client_send(c, call->fds, call->n_fds, err);
}

int call_send(struct qd_client *c, struct call *call, struct qd_error *err)
{
    int r = send_once(c, call, err);
    if (r == QD_E_UNAVAILABLE && (r = client_reconnect(c, err)) == 0) /* it never arrived: any method may be sent */
        r = send_once(c, call, err);
    call->n_sent++;
    return r;
}

int call_again(struct qd_client *c, struct call *call, int failure, struct qd_error *err)
{
    if (failure != QD_E_UNAVAILABLE || call->n_sent > REPEATS_MAX)
        return failure;
    if (!is_repeatable(call->method)) {
        failure = err_in(err, failure, "'%s' may or may not have been done", call->method);
        return err_hint(err, failure, "look with quantctl before you repeat it");
    }
    int r = client_reconnect(c, err);
    return r < 0 ? r : call_send(c, call, err);
}

int event_deliver(const struct incoming *in, qd_event_fn *event, void *data, struct qd_error *err)
{
    CLEANUP(value_free) struct value *params = NULL;
    if (!event)
        return 0;
    int r = value_of_incoming(in, &params, err);
    if (r < 0)
        return r;
    if (event(in->name, value_public(params), data) == 0)
        return 0;
    return err_new(err, QD_E_CANCELLED, "stopped by the caller");
}

/* 1: @ret is the answer; 0: something else came. */
static int take_one(struct qd_client *c, const struct call *call, qd_event_fn *event, void *data, struct incoming *ret,
                    struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int r = client_receive(c, -1, &in, err);
    if (r < 0)
        return r;
    if (in.kind == INCOMING_EVENT)
        return event_deliver(&in, event, data, err);
    if (in.kind != INCOMING_REPLY || in.id != call->id)
        return 0; /* to a request that was given up */
    if (in.failed)
        return incoming_error(&in, err);
    *ret = in;
    in.zone = NULL;
    return 1;
}

int call_run(struct qd_client *c, struct call *call, qd_event_fn *event, void *data, struct incoming *ret,
             struct qd_error *err)
{
    int r = call_send(c, call, err);
    while (r == 0) {
        r = take_one(c, call, event, data, ret, err);
        if (r == QD_E_CANCELLED)
            client_disconnect(c); /* the daemon learns from it that nobody waits any more */
        if (r == QD_E_UNAVAILABLE && c->fd < 0)
            r = call_again(c, call, r, err);
    }
    return r < 0 ? r : 0;
}
