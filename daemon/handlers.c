#include "daemon/handlers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/store.h"
#include "daemon/config.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "daemon/rights.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "quant/format/onnx.h"

/* ---- dispatch ---------------------------------------------------------------------------------- */

static int check_hello(const struct peer *p, const struct request *rq, struct qd_error *err)
{
    if (p->version != 0 || strcmp(rq->method, "hello") == 0)
        return 0;
    (void)err_new(err, QD_E_PROTOCOL, "'%s' before hello", rq->method);
    return err_hint(err, QD_E_PROTOCOL, "the first request of a connection is hello");
}

/* The thunks of handler.h, with the one rule for all methods in front. */
#define THUNK(method, params, result, doc)                                                                \
    static int thunk_##method(void *owner, struct request *rq, const void *params_, struct qd_error *err) \
    {                                                                                                     \
        int r = check_hello(owner, rq, err);                                                              \
        return r < 0 ? r : handle_##method(owner, rq, params_, err);                                      \
    }
METHODS(THUNK)
static const struct handler handlers[] = {METHODS(HANDLER_ROW)};

int handlers_serve(struct peer *p, struct packet *packet, struct buffer *ret_reply, struct qd_error *err)
{
    return request_serve(handlers, sizeof handlers / sizeof handlers[0], p, packet, ret_reply, err);
}

/* ---- shared ------------------------------------------------------------------------------------- */

int need_admin(const struct peer *p, const char *what, struct qd_error *err)
{
    if (p->admin)
        return 0;
    (void)err_new(err, QD_E_DENIED, "%s: uid %u is no administrator of quantd", what, (unsigned)p->who.uid);
    return err_hint(err, QD_E_DENIED, "ask root, or to be named in `admins` of [daemon] in quantd.conf");
}

bool may_see(const struct peer *p, const char *model)
{
    if (p->admin)
        return true;
    const struct catalog_model *m = catalog_find(p->daemon->catalog, model);
    return m && rights_may_open(p->daemon->config, &p->who, m);
}

bool may_see_artifact(const struct peer *p, const struct manifest *artifact)
{
    struct digest source;
    if (p->admin)
        return true;
    const struct catalog_model *m = catalog_find(p->daemon->catalog, artifact->model);
    return m && rights_may_open(p->daemon->config, &p->who, m) && jobs_known_source(p->daemon->jobs, m, &source) &&
           digest_equal(&source, &artifact->source);
}

int find_model(struct peer *p, const char *name, const struct catalog_model **ret, struct qd_error *err)
{
    const struct daemon *d = p->daemon;
    const struct catalog_model *m = catalog_find(d->catalog, name);
    if (!m) {
        const char *near = catalog_nearest(d->catalog, name);
        (void)err_new(err, QD_E_NOT_FOUND, "no model '%s'", name);
        if (near && may_see(p, near))
            return err_hint(err, QD_E_NOT_FOUND, "did you mean '%s'?", near);
        return err_hint(err, QD_E_NOT_FOUND, "`quantctl models` lists those there are");
    }
    if (!rights_may_open(d->config, &p->who, m)) {
        (void)err_new(err, QD_E_DENIED, "model '%s': uid %u may not read its files", name, (unsigned)p->who.uid);
        return err_hint(err, QD_E_DENIED,
                        "a model may be opened by whoever may read its source; `allow` of its [root] grants more");
    }
    *ret = m;
    return 0;
}

static int refuse_rule(const char *line, struct qd_error *err)
{
    return err_new(err, QD_E_INVALID, "rule '%.80s' is neither tensor=REGEX=TYPE nor keep=REGEX", line);
}

/* What a line of rules may set; each but the first two is of ONNX models. */
static const char *const rule_keys[] = {"tensor", "keep", "bits", "block", "asymmetric", "method"};

static bool is_rule(const char *line)
{
    const size_t n = strcspn(line, "=");
    bool is = false;
    for (size_t i = 0; line[n] && i < sizeof rule_keys / sizeof rule_keys[0]; i++)
        is = is || (strlen(rule_keys[i]) == n && strncmp(line, rule_keys[i], n) == 0);
    return is;
}

/* "tensor=REGEX=TYPE", "keep=REGEX", "method=mse", a line each. */
static int add_rules(struct recipe *r, const char *rules, struct qd_error *err)
{
    CLEANUP(free) char *copy = strdup(rules);
    char *rest = copy;
    if (!copy)
        return err_new(err, QD_E_NO_MEMORY, "rules");
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *value = strchr(line, '=');
        if (!line[0])
            continue;
        if (!is_rule(line))
            return refuse_rule(line, err);
        *value++ = '\0';
        int done = recipe_set(r, line, value, err);
        if (done < 0)
            return done;
    }
    return 0;
}

int recipe_of_words(const struct recipe_words *w, struct recipe *ret, struct qd_error *err)
{
    const struct {
        const char *key, *value;
    } choices[] = {{"scheme", w->scheme}, {"output", w->output}, {"embedding", w->embedding}};
    struct recipe r = {.pure = w->pure, .leave_output = w->leave_output, .requantize = w->requantize};
    int done = 0;
    for (size_t i = 0; done == 0 && i < sizeof choices / sizeof choices[0]; i++)
        if (choices[i].value && choices[i].value[0])
            done = recipe_set(&r, choices[i].key, choices[i].value, err);
    if (done == 0 && w->rules)
        done = add_rules(&r, w->rules, err);
    if (done == 0)
        *ret = r;
    return done;
}

struct policy_facts policy_facts_here(const struct daemon *d, const char *name, uint64_t model_bytes)
{
    const struct hardware *h = d->hardware;
    return (struct policy_facts){.memory_bytes = h->memory_bytes,
                                 .model_bytes = model_bytes,
                                 .is_onnx = onnx_is_named(name),
                                 .cpu_features = h->feature_bits,
                                 .cache_bytes = d->config->cache_budget};
}

/* ---- envelopes as descriptors ---------------------------------------------------------------------- */

static int sealed_memfd(struct bytes content)
{
    CLEANUP(fd_close) int fd = memfd_create("quantd-envelope", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write_whole(fd, content.data, content.n) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -1;
    return steal_fd(&fd);
}

/* The slot that holds @key, or the one used least lately. */
static struct kept_envelope *slot_for(struct serving *s, const struct digest *key)
{
    struct kept_envelope *slot = &s->envelopes[0];
    for (size_t i = 0; i < ENVELOPES_KEPT; i++) {
        struct kept_envelope *e = &s->envelopes[i];
        if (e->fd >= 0 && digest_equal(&e->key, key))
            return e;
        if (e->used < slot->used)
            slot = e;
    }
    return slot;
}

static void envelope_forget(struct kept_envelope *e)
{
    buffer_clear(&e->content);
    e->fd = fd_close(e->fd);
}

int envelope_keep(struct serving *s, const struct digest *key, struct bytes envelope, const struct kept_envelope **ret,
                  struct qd_error *err)
{
    struct kept_envelope *slot = slot_for(s, key);
    slot->used = ++s->clock;
    if (slot->fd < 0 || slot->content.n != envelope.n || memcmp(slot->content.data, envelope.data, envelope.n) != 0) {
        envelope_forget(slot);
        buffer_put(&slot->content, envelope.data, envelope.n);
        int r = envelope_print(envelope, &slot->print, err);
        if (r < 0)
            return r;
        slot->key = *key;
        slot->fd = slot->content.failed ? -1 : sealed_memfd(envelope);
        if (slot->fd < 0)
            return err_sys(err, errno, "descriptor of the envelope");
    }
    *ret = slot;
    return 0;
}

/* ---- last use ------------------------------------------------------------------------------------------ */

static int touch_work(void *data, struct qd_error *err)
{
    struct serving *s = data;
    (void)err;
    store_touch(s->daemon->store);
    return 0;
}

static void touch_done(void *data, int result, const struct qd_error *err)
{
    struct serving *s = data;
    (void)result; /* a lost last use only ages an artifact */
    (void)err;
    s->n_ops--;
}

void touch_now_and_then(struct serving *s)
{
    uint64_t now = uv_now(s->daemon->loop);
    if (now - s->touched_ms < TOUCH_INTERVAL_MS)
        return;
    s->touched_ms = now;
    if (pool_submit(s->daemon->loop, touch_work, touch_done, s, NULL) == 0)
        s->n_ops++;
}

/* ---- life --------------------------------------------------------------------------------------------------- */

int serving_new(struct daemon *d, struct qd_error *err)
{
    CLEANUP(free) struct serving *s = calloc(1, sizeof *s);
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "daemon");
    s->daemon = d;
    s->started_ms = s->touched_ms = uv_now(d->loop);
    for (size_t i = 0; i < ENVELOPES_KEPT; i++)
        s->envelopes[i].fd = -1;
    for (size_t i = 0; i < PLANS_KEPT; i++)
        s->plans[i].table_fd = -1;
    int r = hardware_look(d->config, &s->hardware, err);
    if (r < 0)
        return r;
    d->hardware = &s->hardware;
    d->serving = steal(&s);
    return 0;
}

struct serving *serving_free(struct serving *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < ENVELOPES_KEPT; i++)
        envelope_forget(&s->envelopes[i]);
    for (size_t i = 0; i < PLANS_KEPT; i++) {
        (void)fd_close(s->plans[i].table_fd);
        free(s->plans[i].model);
    }
    free(s);
    return NULL;
}
