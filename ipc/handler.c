#include "ipc/handler.h"

#include <string.h>

static const struct handler *handler_of(const struct handler *handlers, size_t n, const char *method)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(handlers[i].method, method) == 0)
            return &handlers[i];
    return NULL;
}

static int unknown_method(const struct handler *handlers, size_t n, const char *method, struct qd_error *err)
{
    enum { NAMES_MAX = 64 };
    const char *names[NAMES_MAX + 1] = {0};
    for (size_t i = 0; i < n && i < NAMES_MAX; i++)
        names[i] = handlers[i].method;
    const char *nearest = nearest_name(method, names);
    int r = err_new(err, QD_E_UNSUPPORTED, "no method '%s'", method);
    return nearest ? err_hint(err, r, "did you mean '%s'?", nearest) : r;
}

static int serve(const struct handler *handlers, size_t n, void *owner, struct packet *packet, struct incoming *in,
                 struct qd_error *err)
{
    const struct handler *h = handler_of(handlers, n, in->name);
    if (!h)
        return unknown_method(handlers, n, in->name, err);
    if (packet->cut)
        return err_new(err, QD_E_LIMIT, "descriptors of the request were lost: too many, or none free in the receiver");
    union any_message params;
    int r = incoming_decode(in, h->params, &params, err);
    if (r < 0)
        return r;
    struct request rq = {.id = in->id, .method = h->method, .packet = packet};
    return h->fn(owner, &rq, &params, err);
}

int request_serve(const struct handler *handlers, size_t n_handlers, void *owner, struct packet *packet,
                  struct buffer *ret_reply, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int r = incoming_parse(packet_span(packet), &in, err);
    if (r == 0 && in.kind != INCOMING_REQUEST)
        r = err_new(err, QD_E_PROTOCOL, "message is not a request");
    if (r < 0) {
        packet_reset(packet);
        return r;
    }
    struct qd_error why = {0};
    r = serve(handlers, n_handlers, owner, packet, &in, &why);
    packet_reset(packet);
    if (r == 0)
        return 0;
    ret_reply->n = 0;
    r = error_encode(ret_reply, in.id, &why, err);
    return r < 0 ? r : 1;
}
