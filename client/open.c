#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "client/artifact.h"
#include "client/client.h"

struct qd_open_request {
    struct qd_client *client;
    struct call call;
    struct msg_open params;
    char *model, *scheme, *layout, *output, *embedding, *rules; /* owned; params borrow them */
    int imatrix_fd;                                             /* owned; -1: none */
    enum qd_verify verify;
    qd_progress_fn *progress;
    void *progress_data;
    struct shared *hint; /* what we may have already; ended by the answer */
    bool answered;
};

static int copy_text(const char *text, char **dst, struct qd_error *err)
{
    if (!text)
        return 0;
    *dst = strdup(text);
    return *dst ? 0 : err_new(err, QD_E_NO_MEMORY, "request");
}

static int copy_texts(struct qd_open_request *r, const struct qd_open_options *o, struct qd_error *err)
{
    const char *const texts[] = {o->model, o->scheme, o->layout, o->output_type, o->embedding_type, o->tensor_rules};
    char **const copies[] = {&r->model, &r->scheme, &r->layout, &r->output, &r->embedding, &r->rules};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof texts / sizeof texts[0]; i++)
        result = copy_text(texts[i], copies[i], err);
    return result;
}

/* The descriptors that go with the request, in the protocol's order. */
static int add_descriptors(struct qd_open_request *r, const struct qd_open_options *o, struct qd_error *err)
{
    if (o->use_source_fd)
        r->call.fds[r->call.n_fds++] = o->source_fd;
    if (!o->imatrix)
        return 0;
    r->imatrix_fd = open(o->imatrix, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a fifo must not hold us */
    if (r->imatrix_fd < 0)
        return err_sys(err, errno, "open '%s'", o->imatrix);
    r->call.fds[r->call.n_fds++] = r->imatrix_fd;
    return 0;
}

static int fill(struct qd_open_request *r, const struct qd_open_options *o, struct qd_error *err)
{
    if (!o->model && !o->use_source_fd)
        return err_new(err, QD_E_INVALID, "an open needs a model's name or a source's descriptor");
    int result = copy_texts(r, o, err);
    r->params = (struct msg_open){
        .model = r->model,
        .scheme = r->scheme,
        .layout = r->layout,
        .pure = o->pure,
        .output = r->output,
        .embedding = r->embedding,
        .rules = r->rules,
        .leave_output = o->leave_output,
        .requantize = o->allow_requantize,
        .no_build = o->no_build,
        .strict = o->strict,
        .by_fd = o->use_source_fd,
        .imatrix = o->imatrix != NULL,
        .has_wait_ms = o->wait_ms > 0,
        .wait_ms = o->wait_ms,
    };
    r->hint = result == 0 && !o->use_source_fd && !o->strict ? shared_hint(r->model, r->scheme, r->layout) : NULL;
    if (r->hint)
        r->params.have = (struct bytes){r->hint->print.bytes, DIGEST_BYTES};
    r->call = (struct call){.method = "open", .type = MSG_open, .params = &r->params};
    r->verify = o->verify;
    r->progress = o->progress;
    r->progress_data = o->progress_data;
    return result < 0 ? result : add_descriptors(r, o, err);
}

static void request_free(struct qd_open_request *r)
{
    (void)shared_drop_hint(r->hint);
    free(r->model);
    free(r->scheme);
    free(r->layout);
    free(r->output);
    free(r->embedding);
    free(r->rules);
    (void)fd_close(r->imatrix_fd); /* only read */
    free(r);
}

static inline void request_free_cleanup(struct qd_open_request **r)
{
    if (*r)
        request_free(*r);
}

int qd_open_start(struct qd_client *c, const struct qd_open_options *o, struct qd_open_request **ret,
                  struct qd_error *err)
{
    CLEANUP(request_free) struct qd_open_request *r = calloc(1, sizeof *r);
    if (!r)
        return err_new(err, QD_E_NO_MEMORY, "request");
    r->client = c;
    r->imatrix_fd = -1;
    int result = fill(r, o, err);
    if (result == 0)
        result = call_send(c, &r->call, err);
    if (result < 0)
        return result;
    *ret = steal(&r);
    return 0;
}

static int tell_progress(struct qd_open_request *r, struct incoming *in, struct qd_error *err)
{
    struct msg_progress m;
    if (!r->progress || strcmp(in->name, "progress") != 0)
        return 0;
    int result = incoming_decode(in, INTO(progress, &m), err);
    if (result < 0 || m.id != r->call.id)
        return result;
    struct qd_progress p = {
        .model = m.model,
        .scheme = m.scheme,
        .state = m.state,
        .tensor = m.tensor ? m.tensor : "",
        .done_bytes = m.done_bytes,
        .total_bytes = m.total_bytes,
        .bytes_per_s = m.bytes_per_s,
        .seconds_left = m.has_seconds_left ? m.seconds_left : -1,
        .layout = m.layout ? m.layout : "portable",
    };
    return r->progress(&p, r->progress_data) ? err_new(err, QD_E_CANCELLED, "stopped by the caller") : 0;
}

/* The files that came fit no envelope of ours (built again meanwhile): ask for all of them. */
static int ask_for_all(struct qd_open_request *r, struct qd_error *err)
{
    packet_reset(&r->client->packet);
    r->answered = false;
    r->params.have = (struct bytes){0};
    return call_send(r->client, &r->call, err);
}

static int take_answer(struct qd_open_request *r, struct incoming *in, struct qd_artifact **ret, struct qd_error *err)
{
    struct qd_client *c = r->client;
    struct msg_opened opened;
    CLEANUP(shared_put) struct shared *shared = NULL;
    r->answered = true;
    if (in->failed)
        return incoming_error(in, err);
    int result = incoming_decode(in, INTO(opened, &opened), err);
    if (result == 0 && opened.payload_only && !r->hint)
        result = err_new(err, QD_E_PROTOCOL, "the answer leaves out what we never said to have");
    else if (result == 0 && opened.payload_only)
        result = shared_open_again(c->trust, opened.key, &c->packet, steal(&r->hint), &shared, err);
    if (result == QD_E_CORRUPT && opened.payload_only)
        return ask_for_all(r, err);
    if (result == 0 && !opened.payload_only)
        result = shared_open(c->trust, opened.key, &c->packet, &shared, err);
    packet_reset(&c->packet); /* what was not taken */
    if (result == 0)
        result = artifact_new(&shared, r->verify, opened.why, ret, err);
    return result < 0 ? err_in(err, result, "open '%s'", r->model ? r->model : "source") : 1;
}

/* One message, or a lost connection. 1: *ret; 0: go on. @ret_more: something came. */
static int take_one(struct qd_open_request *r, int wait_ms, bool *ret_more, struct qd_artifact **ret,
                    struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int result = client_receive(r->client, wait_ms, &in, err);
    *ret_more = result != 0;
    if (result == QD_E_UNAVAILABLE)
        return call_again(r->client, &r->call, result, err);
    if (result <= 0)
        return result;
    if (in.kind == INCOMING_EVENT)
        return tell_progress(r, &in, err);
    return in.kind == INCOMING_REPLY && in.id == r->call.id ? take_answer(r, &in, ret, err) : 0;
}

/* Until an answer (1), a failure, or nothing more comes within @wait_ms (0). */
static int step(struct qd_open_request *r, int wait_ms, struct qd_artifact **ret, struct qd_error *err)
{
    bool more = true;
    int result = 0;
    if (r->answered)
        return err_new(err, QD_E_INVALID, "this open was answered already");
    while (result == 0 && more)
        result = take_one(r, wait_ms, &more, ret, err);
    return result;
}

int qd_open_step(struct qd_open_request *r, struct qd_artifact **ret, struct qd_error *err)
{
    return step(r, 0, ret, err);
}

void qd_open_cancel(struct qd_open_request *r)
{
    if (!r)
        return;
    if (!r->answered)
        client_disconnect(r->client); /* the daemon learns from it that nobody waits any more */
    request_free(r);
}

static inline void qd_open_cancel_cleanup(struct qd_open_request **r)
{
    qd_open_cancel(*r);
}

int qd_open(struct qd_client *c, const struct qd_open_options *o, struct qd_artifact **ret, struct qd_error *err)
{
    CLEANUP(qd_open_cancel) struct qd_open_request *r = NULL;
    int result = qd_open_start(c, o, &r, err);
    if (result == 0)
        result = step(r, -1, ret, err);
    return result < 0 ? result : 0;
}
