/* hello, status, models, jobs, cancel, retry, subscribe, rescan, hardware, key; and the events. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifact/envelope.h"
#include "cache/store.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "daemon/relayout.h"
#include "daemon/rights.h"
#include "kernels/core/cleanup.h"
#include "kernels/cpu.h"

#ifndef QUANTD_VERSION
#define QUANTD_VERSION "0"
#endif

enum { PROTOCOL_VERSION = 1, KEY_ID_HEX = 2 * KEY_ID_BYTES + 1 };

static void hex(const uint8_t *bytes, size_t n, char *dst)
{
    for (size_t i = 0; i < n; i++)
        (void)snprintf(dst + 2 * i, 3, "%02x", bytes[i]);
}

int handle_hello(struct peer *peer, struct request *rq, const struct msg_hello *p, struct qd_error *err)
{
    if (p->version < 1)
        return err_new(err, QD_E_PROTOCOL, "protocol version %u: this daemon speaks 1", p->version);
    peer->version = PROTOCOL_VERSION;
    const struct signing_key *key = peer->daemon->key;
    struct bytes public_key =
        key ? (struct bytes){signing_key_public(key)->bytes, PUBLIC_KEY_BYTES} : (struct bytes){(const uint8_t *)"", 0};
    struct msg_welcome m = {.version = peer->version, .daemon = "quantd " QUANTD_VERSION, .public_key = public_key};
    peer_reply(peer, rq->id, MESSAGE(welcome, &m));
    return 0;
}

/* ---- status: the store's usage needs the pool ---- */

struct status_op {
    struct pending pending;
    struct daemon *daemon;
    struct store_usage usage;
};

static int status_work(void *data, struct qd_error *err)
{
    struct status_op *op = data;
    return store_usage(op->daemon->store, &op->usage, err);
}

static void fill_roots(const struct daemon *d, struct msg_root *roots, struct msg_status_report *m)
{
    for (size_t i = 0; i < catalog_n_roots(d->catalog) && i < CONFIG_ROOTS_MAX; i++) {
        struct catalog_root r = catalog_root_at(d->catalog, i);
        roots[i] = (struct msg_root){.path = r.path, .state = r.state, .models = r.n_models};
        m->roots_n = i + 1;
    }
    m->roots = roots;
}

static void answer_status(const struct status_op *op)
{
    const struct daemon *d = op->daemon;
    const struct serving *s = d->serving;
    struct msg_root roots[CONFIG_ROOTS_MAX];
    char key_id[KEY_ID_HEX] = "";
    if (d->key)
        hex(signing_key_id(d->key)->bytes, KEY_ID_BYTES, key_id);
    struct msg_status_report m = {
        .version = QUANTD_VERSION,
        .state = d->key ? "ready" : "signing-stopped",
        .problem = d->key ? NULL : d->key_problem,
        .pid = (uint32_t)getpid(),
        .uptime_s = (uv_now(d->loop) - s->started_ms) / 1000,
        .hardware = s->hardware.features,
        .cpu = cpu_name(),
        .cache = d->config->cache_dir,
        .cache_bytes = op->usage.object_bytes + op->usage.ghost_bytes + op->usage.quarantine_bytes,
        .cache_budget = op->usage.budget_bytes,
        .artifacts = (uint32_t)op->usage.n_artifacts,
        .models = (uint32_t)catalog_n(d->catalog),
        .jobs_running = jobs_running(d->jobs),
        .jobs_queued = jobs_queued(d->jobs),
        .clients = listener_n_peers(d->listener),
        .key_id = d->key ? key_id : NULL,
    };
    fill_roots(d, roots, &m);
    peer_reply(op->pending.peer, op->pending.id, MESSAGE(status_report, &m));
}

static void status_done(void *data, int result, const struct qd_error *err)
{
    CLEANUP(free) struct status_op *op = data;
    op->daemon->serving->n_ops--;
    const struct peer *p = op->pending.peer;
    if (p && !p->closing && result < 0)
        peer_fail(op->pending.peer, op->pending.id, err);
    else if (p && !p->closing) /* else the parts it tells about may be gone */
        answer_status(op);
    pending_done(&op->pending);
}

int handle_status(struct peer *peer, struct request *rq, const struct msg_nothing *p, struct qd_error *err)
{
    (void)p;
    CLEANUP(free) struct status_op *op = calloc(1, sizeof *op);
    if (!op)
        return err_new(err, QD_E_NO_MEMORY, "status");
    op->daemon = peer->daemon;
    int r = peer_pend(peer, &op->pending, rq->id, err);
    if (r < 0)
        return r;
    r = pool_submit(peer->daemon->loop, status_work, status_done, op, err);
    if (r < 0) {
        pending_done(&op->pending);
        return r;
    }
    peer->daemon->serving->n_ops++;
    (void)steal(&op); /* status_done owns it */
    return 0;
}

/* ---- models ---- */

static struct msg_model model_message(const struct catalog_model *m)
{
    static const char *const states[] = {[MODEL_SETTLING] = "settling", [MODEL_READY] = "ready", [MODEL_BAD] = "bad"};
    return (struct msg_model){.name = m->name,
                              .path = m->path,
                              .format = m->format,
                              .state = states[m->state],
                              .problem = m->problem,
                              .bytes = m->bytes};
}

int handle_models(struct peer *peer, struct request *rq, const struct msg_page *p, struct qd_error *err)
{
    const struct daemon *d = peer->daemon;
    CLEANUP(free) struct msg_model *models = calloc(LIST_ITEMS_MAX, sizeof *models);
    if (!models)
        return err_new(err, QD_E_NO_MEMORY, "list of models");
    struct msg_model_list list = {.models = models};
    size_t total = 0;
    for (size_t i = 0; i < catalog_n(d->catalog); i++) {
        const struct catalog_model *m = catalog_at(d->catalog, i);
        if (!peer->admin && !rights_may_open(d->config, &peer->who, m))
            continue;
        if (total >= p->from && list.models_n < LIST_ITEMS_MAX)
            models[list.models_n++] = model_message(m);
        total++;
    }
    (void)message_page(MSG_model_list, &list, p->from, total);
    peer_reply(peer, rq->id, MESSAGE(model_list, &list));
    return 0;
}

/* ---- jobs ---- */

static bool may_see_job(const struct peer *peer, const struct job_view *v)
{
    return peer->admin || v->uid == peer->who.uid || may_see(peer, v->progress.model);
}

static struct msg_job job_message(const struct job_view *v)
{
    const struct job_progress *g = &v->progress;
    return (struct msg_job){
        .job = g->job,
        .model = g->model,
        .scheme = g->scheme,
        .layout = g->layout,
        .state = job_state_name(g->state),
        .class = v->interactive ? "interactive" : "background",
        .tensor = g->tensor && g->tensor[0] ? g->tensor : NULL,
        .has_done_bytes = true,
        .done_bytes = g->done_bytes,
        .has_total_bytes = true,
        .total_bytes = g->total_bytes,
        .has_bytes_per_s = true,
        .bytes_per_s = g->bytes_per_s,
        .has_seconds_left = true,
        .seconds_left = g->seconds_left,
        .has_waiters = true,
        .waiters = v->n_waiters,
        .error = v->err ? v->err->message : NULL,
        .hint = v->err && v->err->hint[0] ? v->err->hint : NULL,
        .has_retry_at = v->retry_at > 0,
        .retry_at = v->retry_at,
    };
}

int handle_jobs(struct peer *peer, struct request *rq, const struct msg_page *p, struct qd_error *err)
{
    const struct daemon *d = peer->daemon;
    CLEANUP(free) struct msg_job *items = calloc(LIST_ITEMS_MAX, sizeof *items);
    if (!items)
        return err_new(err, QD_E_NO_MEMORY, "list of jobs");
    struct msg_job_list list = {.jobs = items};
    size_t total = 0;
    for (size_t i = 0; i < jobs_n(d->jobs); i++) {
        struct job_view v = jobs_at(d->jobs, i);
        if (!may_see_job(peer, &v))
            continue;
        if (total >= p->from && list.jobs_n < LIST_ITEMS_MAX)
            items[list.jobs_n++] = job_message(&v);
        total++;
    }
    (void)message_page(MSG_job_list, &list, p->from, total);
    peer_reply(peer, rq->id, MESSAGE(job_list, &list));
    return 0;
}

static void reply_nothing(struct peer *peer, const struct request *rq)
{
    peer_reply(peer, rq->id, MESSAGE(nothing, &(struct msg_nothing){}));
}

int handle_cancel(struct peer *peer, struct request *rq, const struct msg_cancel *p, struct qd_error *err)
{
    int r = jobs_cancel(peer->daemon->jobs, p->job, peer->who.uid, peer->admin, err);
    if (r == 0)
        reply_nothing(peer, rq);
    return r;
}

int handle_retry(struct peer *peer, struct request *rq, const struct msg_retry *p, struct qd_error *err)
{
    int r = need_admin(peer, "retry", err);
    if (r < 0)
        return r;
    unsigned n = jobs_retry(peer->daemon->jobs, p->has_job ? p->job : 0);
    if (n == 0 && p->has_job && p->job > 0)
        return err_new(err, QD_E_NOT_FOUND, "no failed job %u", p->job);
    peer_reply(peer, rq->id, MESSAGE(count, &(struct msg_count){.n = n}));
    return 0;
}

/* ---- rescan, hardware, key ---- */

int handle_rescan(struct peer *peer, struct request *rq, const struct msg_nothing *p, struct qd_error *err)
{
    (void)p;
    int r = need_admin(peer, "rescan", err);
    if (r == 0)
        r = serving_look_at_hardware(peer->daemon, err);
    if (r < 0)
        return r;
    peer_reply(peer, rq->id, MESSAGE(count, &(struct msg_count){.n = catalog_rescan(peer->daemon->catalog)}));
    return 0;
}

int handle_hardware(struct peer *peer, struct request *rq, const struct msg_nothing *p, struct qd_error *err)
{
    (void)p;
    (void)err;
    const struct daemon *d = peer->daemon;
    const struct hardware *h = d->hardware;
    struct msg_hardware_report m = {
        .features = h->features,
        .detected = h->detected,
        .stored = h->stored[0] ? h->stored : NULL,
        .layout = qd_layout_info(h->native)->name,
        .cpu = cpu_name(),
        .cores = h->cores,
        .memory_bytes = h->memory_bytes,
        .sandbox = hardware_sandbox(d->config),
        .verity = hardware_verity(d->config->cache_dir, "format"),
    };
    peer_reply(peer, rq->id, MESSAGE(hardware_report, &m));
    return 0;
}

int handle_key(struct peer *peer, struct request *rq, const struct msg_nothing *p, struct qd_error *err)
{
    (void)p;
    const struct daemon *d = peer->daemon;
    char key_id[KEY_ID_HEX], public_key[2 * PUBLIC_KEY_BYTES + 1], path[4096];
    if (!d->key) {
        (void)err_new(err, QD_E_UNAVAILABLE, "signing is stopped: %s", d->key_problem);
        return err_hint(err, QD_E_UNAVAILABLE,
                        "restore the key file from a backup, or remove it for a new key and restart quantd");
    }
    hex(signing_key_id(d->key)->bytes, KEY_ID_BYTES, key_id);
    hex(signing_key_public(d->key)->bytes, PUBLIC_KEY_BYTES, public_key);
    (void)snprintf(path, sizeof path, "%s/quantd.pub", d->config->runtime_dir);
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    char credential[4096];
    (void)snprintf(credential, sizeof credential, "%s/" SIGNING_KEY_FILE, credentials ? credentials : "/nonexistent");
    struct msg_key_report m = {.key_id = key_id,
                               .public_key = public_key,
                               .origin = access(credential, F_OK) == 0 ? "credential" : "state",
                               .path = path};
    peer_reply(peer, rq->id, MESSAGE(key_report, &m));
    return 0;
}

/* ---- events ---- */

int handle_subscribe(struct peer *peer, struct request *rq, const struct msg_subscribe *p, struct qd_error *err)
{
    (void)err;
    peer->wants_events = true;
    peer->wants_jobs = p->jobs;
    reply_nothing(peer, rq);
    return 0;
}

static bool may_hear_of_model(const struct peer *p, const void *data)
{
    return p->admin || rights_may_open(p->daemon->config, &p->who, data);
}

static bool may_hear_of_name(const struct peer *p, const void *data)
{
    return may_see(p, data);
}

static bool may_hear_of_job(const struct peer *p, const void *data)
{
    return may_see_job(p, data);
}

void serving_model_changed(struct serving *s, const struct catalog_model *m, enum catalog_change change)
{
    static const char *const words[] = {
        [MODEL_ADDED] = "added", [MODEL_CHANGED] = "changed", [MODEL_REMOVED] = "removed", [MODEL_TURNED_BAD] = "bad"};
    struct msg_model_changed e = {
        .name = m->name, .change = words[change], .problem = change == MODEL_TURNED_BAD ? m->problem : NULL};
    listener_tell(s->daemon->listener, "model_changed", MESSAGE(model_changed, &e), false, may_hear_of_model, m);
}

void serving_artifact_changed(struct daemon *d, const struct digest *key, const char *model, const char *scheme,
                              const char *layout, const char *change)
{
    char text[DIGEST_HEX_BYTES];
    digest_hex(key, text);
    log_line(LOG_AT_INFO, "store", "artifact %s%s%s%s key=%.16s", change, log_field("model", model),
             log_field("scheme", scheme), log_field("layout", layout), text);
    d->serving->announced = (struct digest){0};
    struct msg_artifact_changed e = {.key = text, .model = model, .scheme = scheme, .change = change, .layout = layout};
    listener_tell(d->listener, "artifact_changed", MESSAGE(artifact_changed, &e), false, may_hear_of_name,
                  model ? model : "");
}

void serving_artifact_ready(struct daemon *d, const struct digest *key, const char *model, const char *scheme,
                            enum qd_layout layout)
{
    if (digest_equal(&d->serving->announced, key))
        return;
    serving_artifact_changed(d, key, model, scheme, qd_layout_info(layout)->name, "ready");
    d->serving->announced = *key;
    relayout_made(d->relayout, layout);
}

void serving_nothing_to_pack(struct daemon *d, const struct digest *portable, enum qd_layout layout)
{
    unpacked_put(&d->serving->unpacked, portable, layout);
    relayout_made(d->relayout, layout);
}

int serving_look_at_hardware(struct daemon *d, struct qd_error *err)
{
    struct hardware h;
    int r = hardware_look(d->config, &h, err);
    if (r < 0)
        return r;
    d->serving->hardware = h;
    if (!h.changed)
        return 0;
    struct msg_hardware_changed e = {.from = h.stored, .to = h.features, .layout = qd_layout_info(h.native)->name};
    listener_tell(d->listener, "hardware_changed", MESSAGE(hardware_changed, &e), false, NULL, NULL);
    relayout_look(d->relayout);
    return 0;
}

void serving_job_changed(const struct job_view *v, void *data)
{
    struct daemon *d = data;
    struct msg_job_changed e = {.job = v->progress.job,
                                .model = v->progress.model,
                                .scheme = v->progress.scheme,
                                .state = job_state_name(v->progress.state),
                                .error = v->err ? v->err->message : NULL};
    listener_tell(d->listener, "job_changed", MESSAGE(job_changed, &e), true, may_hear_of_job, v);
}
