/* artifacts, show, verify, remove, prune, pin, unpin: what the store holds and how it is kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <quantd/dtype.h>

#include "artifact/tables.h"
#include "cache/store.h"
#include "daemon/background.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/lease_tensors.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "kernels/core/arena.h"
#include "kernels/core/cleanup.h"
#include "quant/format/onnx.h"
#include "quant/recipe.h"

enum { LIST_ARENA_BYTES = 64 << 20, KEY_PREFIX_MIN = 8, PROBLEMS_MAX = 256 };

/* ---- lists of artifacts: strings are copied out of the store ----------------------------------------- */

struct item {
    struct msg_artifact m;
    struct digest key, source;
    enum qd_layout layout; /* QD_N_LAYOUTS: one of another quantd */
    uint64_t last_use_s;
    bool keep; /* pinned or in use */
};

struct listing {
    const struct peer *peer;
    struct arena *arena; /* owned */
    struct item *items;  /* owned */
    size_t n, room;
    bool no_memory;
};

static void listing_clear_cleanup(struct listing *l)
{
    (void)arena_free(l->arena);
    free(l->items);
}

static const char *copy_text(struct listing *l, const char *text)
{
    text = text ? text : "";
    const char *copy = arena_text(l->arena, (struct bytes){(const uint8_t *)text, strlen(text)});
    l->no_memory |= !copy;
    return copy;
}

static const char *copy_hex(struct listing *l, const uint8_t *bytes, size_t n)
{
    char text[DIGEST_HEX_BYTES];
    for (size_t i = 0; i < n; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return copy_text(l, text);
}

static void fill_item(struct listing *l, const struct store_entry *e, struct item *it)
{
    const struct manifest *m = e->manifest;
    const struct quality *q = &m->quality;
    int layout = qd_layout_by_name(m->layout);
    it->key = m->key;
    it->source = m->source;
    it->layout = layout < 0 ? QD_N_LAYOUTS : (enum qd_layout)layout;
    it->last_use_s = e->last_use_s;
    it->keep = e->pinned || e->n_leases > 0;
    it->m = (struct msg_artifact){
        .key = copy_hex(l, m->key.bytes, DIGEST_BYTES),
        .model = copy_text(l, m->model),
        .scheme = copy_text(l, m->scheme),
        .recipe = copy_text(l, m->recipe),
        .layout = copy_text(l, m->layout),
        .features = copy_text(l, m->features),
        .source = copy_hex(l, m->source.bytes, DIGEST_BYTES),
        .digest = copy_hex(l, m->files[0].digest.bytes, DIGEST_BYTES),
        .signer = copy_hex(l, e->signer.bytes, KEY_ID_BYTES),
        .bytes = e->bytes,
        .created = m->created,
        .has_last_used = true,
        .last_used = e->last_use_s,
        .pinned = e->pinned,
        .has_leases = true,
        .leases = e->n_leases,
        .encoder_revision = m->encoder_revision,
        .n_files = (uint32_t)m->n_files,
        .sqnr_db = q->sqnr_db,
        .rel_rmse = q->rel_rmse,
        .max_abs = q->max_abs,
        .worst = copy_text(l, q->worst),
        .has_worst_sqnr_db = true,
        .worst_sqnr_db = q->worst_sqnr_db,
    };
}

static int take_entry(const struct store_entry *e, void *data)
{
    struct listing *l = data;
    if (!e->trusted || (l->peer && !may_see_artifact(l->peer, e->manifest)))
        return 0;
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        struct item *grown = reallocarray(l->items, room, sizeof *grown);
        if (!grown)
            return QD_E_NO_MEMORY;
        l->items = grown;
        l->room = room;
    }
    fill_item(l, e, &l->items[l->n++]);
    return l->no_memory ? QD_E_NO_MEMORY : 0;
}

/* All artifacts that @peer may see (NULL: all), in the store's order. */
static int list_all(struct daemon *d, const struct peer *peer, struct listing *ret, struct qd_error *err)
{
    *ret = (struct listing){.peer = peer, .arena = arena_new(LIST_ARENA_BYTES)};
    if (!ret->arena || store_list(d->store, take_entry, ret) < 0)
        return err_new(err, QD_E_NO_MEMORY, "list of artifacts");
    return 0;
}

int handle_artifacts(struct peer *peer, struct request *rq, const struct msg_page *p, struct qd_error *err)
{
    CLEANUP(listing_clear) struct listing l = {0};
    int r = list_all(peer->daemon, peer, &l, err);
    if (r < 0)
        return r;
    CLEANUP(free) struct msg_artifact *items = calloc(LIST_ITEMS_MAX, sizeof *items);
    if (!items)
        return err_new(err, QD_E_NO_MEMORY, "list of artifacts");
    struct msg_artifact_list list = {.artifacts = items};
    for (size_t i = p->from; i < l.n && list.artifacts_n < LIST_ITEMS_MAX; i++)
        items[list.artifacts_n++] = l.items[i].m;
    (void)message_page(MSG_artifact_list, &list, p->from, l.n);
    peer_reply(peer, rq->id, MESSAGE(artifact_list, &list));
    return 0;
}

/* ---- one artifact by what people type -------------------------------------------------------------------- */

static bool is_part(const char *whole, const char *from, size_t n)
{
    return strlen(whole) == n && strncmp(whole, from, n) == 0;
}

/* MODEL:SCHEME of a layout; a model's name may hold colons. */
static bool is_named_so(const struct item *it, const char *text, size_t n, const char *layout)
{
    const char *colon = memrchr(text, ':', n);
    return colon && strcmp(it->m.layout, layout) == 0 && is_part(it->m.model, text, (size_t)(colon - text)) &&
           is_part(it->m.scheme, colon + 1, n - (size_t)(colon + 1 - text));
}

static bool is_named(const struct item *it, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t n = strlen(text);
    if (!colon)
        return n >= KEY_PREFIX_MIN && strncmp(it->m.key, text, n) == 0;
    if (qd_layout_by_name(colon + 1) >= 0)
        return is_named_so(it, text, (size_t)(colon - text), colon + 1);
    return is_named_so(it, text, n, qd_layout_info(QD_LAYOUT_PORTABLE)->name);
}

/* Several of one model, scheme and layout (the source changed, or pure and not): the one made last. */
static const struct item *pick(const struct listing *l, const char *text, size_t *ret_n)
{
    const struct item *found = NULL;
    *ret_n = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (!is_named(&l->items[i], text))
            continue;
        ++*ret_n;
        if (!found || l->items[i].m.created > found->m.created)
            found = &l->items[i];
    }
    return found;
}

static int find_item(const struct listing *l, const char *text, const struct item **ret, struct qd_error *err)
{
    size_t n;
    const struct item *it = pick(l, text, &n);
    if (!it) {
        (void)err_new(err, QD_E_NOT_FOUND, "no artifact '%s'", text);
        return err_hint(err, QD_E_NOT_FOUND,
                        "a key, %d of its first digits or more, or MODEL:SCHEME[:LAYOUT]; `quantctl ls` lists them",
                        KEY_PREFIX_MIN);
    }
    if (n > 1 && !strrchr(text, ':')) {
        (void)err_new(err, QD_E_INVALID, "'%s' begins the keys of %zu artifacts", text, n);
        return err_hint(err, QD_E_INVALID, "give more digits");
    }
    *ret = it;
    return 0;
}

int find_artifact(struct peer *p, const char *text, struct digest *ret_key, struct qd_error *err)
{
    CLEANUP(listing_clear) struct listing l = {0};
    const struct item *it;
    int r = list_all(p->daemon, p, &l, err);
    if (r == 0)
        r = find_item(&l, text, &it, err);
    if (r == 0)
        *ret_key = it->key;
    return r;
}

/* ---- work on the pool for one request ---------------------------------------------------------------------- */

enum op_kind { OP_REMOVE, OP_PIN, OP_UNPIN, OP_PRUNE, OP_SHOW, OP_VERIFY };

struct op {
    struct pending pending; /* first */
    struct daemon *daemon;
    enum op_kind kind;
    struct listing list; /* of verify, prune and show: what it is about */
    size_t at;           /* verify: item under way */
    bool no_rebuild;
    uint64_t target_bytes; /* prune */
    uint32_t from;         /* show: page */
    struct lease *lease;   /* owned; show */
    struct arena *arena;   /* owned; show */
    struct tensor_table table;
    struct arena *meta_arena; /* owned; show, of an ONNX model */
    struct meta_table meta;
    struct store_verify verify;
    _Atomic uint64_t done_bytes;
    uint64_t before_bytes, total_bytes; /* of artifacts checked; of all to check */
    uv_timer_t timer;                   /* verify: progress */
    bool has_timer;
    struct msg_verified verified;
    struct msg_problem *problems; /* owned; strings in list.arena */
};

static void op_free(struct op *op)
{
    pending_done(&op->pending);
    op->daemon->serving->n_ops--;
    listing_clear_cleanup(&op->list);
    (void)lease_release(op->lease);
    (void)arena_free(op->arena);
    (void)arena_free(op->meta_arena);
    free(op->problems);
    free(op);
}

static int op_new(struct peer *p, struct request *rq, enum op_kind kind, struct op **ret, struct qd_error *err)
{
    struct op *op = calloc(1, sizeof *op);
    if (!op)
        return err_new(err, QD_E_NO_MEMORY, "%s", rq->method);
    op->daemon = p->daemon;
    op->kind = kind;
    p->daemon->serving->n_ops++;
    int r = peer_pend(p, &op->pending, rq->id, err);
    if (r < 0) {
        op_free(op);
        return r;
    }
    *ret = op;
    return 0;
}

static int op_start(struct op *op, pool_work *work, pool_done *done, struct qd_error *err)
{
    int r = pool_submit(op->daemon->loop, work, done, op, err);
    if (r < 0)
        op_free(op);
    return r;
}

/* ---- remove, pin, unpin --------------------------------------------------------------------------------------- */

static int keep_work(void *data, struct qd_error *err)
{
    struct op *op = data;
    const struct digest *key = &op->list.items[0].key;
    switch (op->kind) {
    case OP_REMOVE:
        return store_remove(op->daemon->store, key, err);
    case OP_PIN:
        return store_pin(op->daemon->store, key, err);
    case OP_UNPIN:
        return store_unpin(op->daemon->store, key, err);
    case OP_PRUNE:
    case OP_SHOW:
    case OP_VERIFY:
        break;
    }
    return QD_E_INTERNAL;
}

static void keep_done(void *data, int result, const struct qd_error *err)
{
    struct op *op = data;
    const struct item *it = &op->list.items[0];
    if (result == 0 && op->kind == OP_REMOVE)
        serving_artifact_changed(op->daemon, &it->key, it->m.model, it->m.scheme, it->m.layout, "removed");
    if (op->pending.peer && result < 0)
        peer_fail(op->pending.peer, op->pending.id, err);
    else if (op->pending.peer)
        peer_reply(op->pending.peer, op->pending.id, MESSAGE(nothing, &(struct msg_nothing){}));
    op_free(op);
}

/* Leaves in the listing only the artifact that @text names. */
static int narrow(struct listing *l, const char *text, struct qd_error *err)
{
    const struct item *it;
    int r = find_item(l, text, &it, err);
    if (r < 0)
        return r;
    l->items[0] = *it;
    l->n = 1;
    return 0;
}

static int keep(struct peer *peer, struct request *rq, enum op_kind kind, const char *artifact, struct qd_error *err)
{
    struct op *op = NULL;
    int r = need_admin(peer, rq->method, err);
    if (r == 0)
        r = op_new(peer, rq, kind, &op, err);
    if (r < 0)
        return r;
    r = list_all(peer->daemon, peer, &op->list, err);
    if (r == 0)
        r = narrow(&op->list, artifact, err);
    if (r < 0) {
        op_free(op);
        return r;
    }
    return op_start(op, keep_work, keep_done, err);
}

int handle_remove(struct peer *peer, struct request *rq, const struct msg_which *p, struct qd_error *err)
{
    return keep(peer, rq, OP_REMOVE, p->artifact, err);
}

int handle_pin(struct peer *peer, struct request *rq, const struct msg_which *p, struct qd_error *err)
{
    return keep(peer, rq, OP_PIN, p->artifact, err);
}

int handle_unpin(struct peer *peer, struct request *rq, const struct msg_which *p, struct qd_error *err)
{
    return keep(peer, rq, OP_UNPIN, p->artifact, err);
}

/* ---- prune ------------------------------------------------------------------------------------------------------- */

static int prune_work(void *data, struct qd_error *err)
{
    struct op *op = data;
    struct store_gc gc;
    store_touch(op->daemon->store); /* so that last use is what it was */
    return store_gc(op->daemon->store, op->target_bytes, &gc, err);
}

static bool is_listed(const struct listing *l, const struct digest *key)
{
    for (size_t i = 0; i < l->n; i++)
        if (digest_equal(&l->items[i].key, key))
            return true;
    return false;
}

static void reply_pruned(struct op *op, const struct item *gone, size_t n)
{
    CLEANUP(free) struct msg_artifact *items = calloc(n + 1, sizeof *items);
    struct msg_pruned m = {.removed = (uint32_t)n, .artifacts = items};
    for (size_t i = 0; i < n; i++) {
        m.bytes += gone[i].m.bytes;
        if (items && i < LIST_ITEMS_MAX)
            items[m.artifacts_n++] = gone[i].m;
    }
    (void)message_page(MSG_pruned, &m, 0, n);
    if (op->pending.peer)
        peer_reply(op->pending.peer, op->pending.id, MESSAGE(pruned, &m));
}

static void prune_done(void *data, int result, const struct qd_error *err)
{
    struct op *op = data;
    CLEANUP(listing_clear) struct listing now = {0};
    struct qd_error listed;
    size_t n = 0;
    if (result == 0 && list_all(op->daemon, NULL, &now, &listed) == 0) {
        for (size_t i = 0; i < op->list.n; i++)
            if (!is_listed(&now, &op->list.items[i].key))
                op->list.items[n++] = op->list.items[i];
        for (const struct item *it = op->list.items; it < op->list.items + n; it++)
            serving_artifact_changed(op->daemon, &it->key, it->m.model, it->m.scheme, it->m.layout, "evicted");
        reply_pruned(op, op->list.items, n);
    } else if (op->pending.peer) {
        peer_fail(op->pending.peer, op->pending.id, result < 0 ? err : &listed);
    }
    op_free(op);
}

static int by_last_use(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return (x->last_use_s > y->last_use_s) - (x->last_use_s < y->last_use_s);
}

/* What an eviction down to @target would take: an estimate, objects shared by two artifacts count in both. */
static void dry_run(struct op *op)
{
    struct listing *l = &op->list;
    uint64_t used = 0;
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        used += l->items[i].m.bytes;
    qsort(l->items, l->n, sizeof *l->items, by_last_use);
    for (size_t i = 0; i < l->n && used > op->target_bytes; i++) {
        if (l->items[i].keep)
            continue;
        used -= l->items[i].m.bytes;
        l->items[n++] = l->items[i];
    }
    reply_pruned(op, l->items, n);
    op_free(op);
}

int handle_prune(struct peer *peer, struct request *rq, const struct msg_prune *p, struct qd_error *err)
{
    struct op *op = NULL;
    int r = need_admin(peer, "prune", err);
    if (r == 0)
        r = op_new(peer, rq, OP_PRUNE, &op, err);
    if (r < 0)
        return r;
    uint64_t budget = peer->daemon->config->cache_budget;
    op->target_bytes = p->all ? 0 : p->has_to_bytes ? p->to_bytes : budget ? budget : UINT64_MAX;
    r = list_all(peer->daemon, NULL, &op->list, err);
    if (r < 0) {
        op_free(op);
        return r;
    }
    if (!p->dry_run)
        return op_start(op, prune_work, prune_done, err);
    dry_run(op);
    return 0;
}

/* ---- show ---------------------------------------------------------------------------------------------------------
 */

/* Of an ONNX model the metadata say how far it is from its source; of a GGUF they are its tokenizer. */
static bool says_errors(const struct lease *lease)
{
    enum scheme scheme;
    return onnx_is_named(lease->manifest->files[0].name) || /* or packed */
           (scheme_parse(lease->manifest->scheme, &scheme, NULL) == 0 && !(scheme_families(scheme) & FAMILY_GGUF));
}

static int show_work(void *data, struct qd_error *err)
{
    struct op *op = data;
    int r = lease_tensors(op->lease, &op->arena, &op->table, err);
    return r == 0 && op->from == 0 && says_errors(op->lease)
               ? lease_metadata(op->lease, &op->meta_arena, &op->meta, err)
               : r;
}

/* ---- what the metadata of an ONNX model say (quant/onnx/tables.h): a worker wrote them, so none is believed ---- */

static const char *meta_text(struct op *op, struct bytes text)
{
    bool fits = text.n <= TABLE_NAME_MAX && !(text.n && memchr(text.data, 0, text.n));
    const char *copy = fits ? arena_text(op->meta_arena, text) : NULL;
    return copy ? copy : "";
}

static const struct meta_value *meta_array(const struct op *op, const char *prefix, const char *name,
                                           enum meta_type type)
{
    char key[64];
    (void)snprintf(key, sizeof key, "%s%s", prefix, name); /* ours are shorter */
    const struct meta_value *v = meta_find(&op->meta, key);
    return v && v->type == META_ARRAY && v->item == type ? v : NULL;
}

static double f64_at(const struct meta_value *v, size_t i)
{
    double x;
    memcpy(&x, (const uint8_t *)v->data + i * sizeof x, sizeof x);
    return x;
}

/* Up to @most records into @dst; how many. */
static size_t read_errors(struct op *op, const char *prefix, struct msg_value_error *dst, size_t most)
{
    const struct meta_value *names = meta_array(op, prefix, "name", META_STRING),
                            *operators = meta_array(op, prefix, "operator", META_STRING),
                            *sqnr = meta_array(op, prefix, "sqnr_db", META_F64),
                            *cosine = meta_array(op, prefix, "cosine", META_F64);
    size_t n = 0;
    if (!names || !operators || !sqnr || !cosine || operators->n_items != names->n_items ||
        sqnr->n_items != names->n_items || cosine->n_items != names->n_items)
        return 0;
    for (; n < names->n_items && n < most; n++)
        dst[n] = (struct msg_value_error){.name = meta_text(op, ((const struct bytes *)names->data)[n]),
                                          .op_type = meta_text(op, ((const struct bytes *)operators->data)[n]),
                                          .sqnr_db = f64_at(sqnr, n),
                                          .cosine = f64_at(cosine, n)};
    return n;
}

static const char *meta_string(struct op *op, const char *key)
{
    const struct meta_value *v = meta_find(&op->meta, key);
    return v && v->type == META_STRING ? meta_text(op, *(const struct bytes *)v->data) : NULL;
}

enum { ERRORS_SHOWN = 10 };

static void show_errors(struct op *op, struct msg_value_error outputs[ERRORS_SHOWN],
                        struct msg_value_error operators[ERRORS_SHOWN], struct msg_shown *m)
{
    const struct meta_value *samples = meta_find(&op->meta, "quantd.samples");
    m->form = meta_string(op, "quantd.form");
    m->form_why = meta_string(op, "quantd.form.why");
    m->has_samples = samples && samples->type == META_U64;
    if (m->has_samples)
        memcpy(&m->samples, samples->data, sizeof m->samples);
    m->outputs = outputs;
    m->outputs_n = read_errors(op, "quantd.outputs.", outputs, ERRORS_SHOWN);
    m->operators = operators;
    m->operators_n = read_errors(op, "quantd.worst.", operators, ERRORS_SHOWN);
}

static const char *shape_text(struct arena *arena, const struct tensor_entry *t)
{
    char text[TABLE_DIMS_MAX * 21 + 1] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < t->n_dims && i < TABLE_DIMS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu", i ? "x" : "", (unsigned long long)t->shape[i]);
    const char *copy = arena_text(arena, (struct bytes){(const uint8_t *)text, at});
    return copy ? copy : "";
}

static void show_done(void *data, int result, const struct qd_error *err)
{
    struct op *op = data;
    CLEANUP(free) struct msg_tensor *items = calloc(LIST_ITEMS_MAX, sizeof *items);
    struct msg_value_error outputs[ERRORS_SHOWN], operators[ERRORS_SHOWN];
    struct msg_shown m = {
        .artifacts = &op->list.items[0].m, .artifacts_n = 1, .n_tensors = (uint32_t)op->table.n, .tensors = items};
    for (size_t i = op->from; items && result == 0 && i < op->table.n && m.tensors_n < LIST_ITEMS_MAX; i++) {
        const struct tensor_entry *t = &op->table.tensors[i];
        items[m.tensors_n++] = (struct msg_tensor){
            .name = t->name,
            .shape = shape_text(op->arena, t),
            .from = qd_type_info(t->source_type)->name,
            .to = qd_type_info(t->type)->name,
            .offset = t->offset,
            .bytes = t->bytes,
            .reason = t->reason,
            .sqnr_db = t->sqnr_db,
            .rel_rmse = t->rel_rmse,
            .max_abs = t->max_abs,
        };
    }
    if (op->meta_arena && result == 0)
        show_errors(op, outputs, operators, &m);
    (void)message_page(MSG_shown, &m, op->from, op->table.n);
    if (op->pending.peer && result < 0)
        peer_fail(op->pending.peer, op->pending.id, err);
    else if (op->pending.peer)
        peer_reply(op->pending.peer, op->pending.id, MESSAGE(shown, &m));
    op_free(op);
}

int handle_show(struct peer *peer, struct request *rq, const struct msg_show *p, struct qd_error *err)
{
    struct op *op = NULL;
    int r = op_new(peer, rq, OP_SHOW, &op, err);
    if (r < 0)
        return r;
    op->from = p->has_from ? p->from : 0;
    r = list_all(peer->daemon, peer, &op->list, err);
    if (r == 0)
        r = narrow(&op->list, p->artifact, err);
    if (r == 0)
        r = store_lookup(peer->daemon->store, &op->list.items[0].key, &op->lease, err);
    if (r < 0) {
        op_free(op);
        return r;
    }
    return op_start(op, show_work, show_done, err);
}

/*
 * ---- verify
 * ----------------------------------------------------------------------------------------------------------
 */

static int verify_work(void *data, struct qd_error *err)
{
    struct op *op = data;
    return store_verify(op->daemon->store, &op->list.items[op->at].key, &op->daemon->serving->stopping, &op->done_bytes,
                        &op->verify, err);
}

static void on_op_closed(uv_handle_t *handle)
{
    op_free(handle->data);
}

static void tell_verify_progress(uv_timer_t *timer)
{
    struct op *op = timer->data;
    if (!op->pending.peer || op->at >= op->list.n)
        return;
    const struct item *it = &op->list.items[op->at];
    struct msg_progress e = {.id = op->pending.id,
                             .model = it->m.model,
                             .scheme = it->m.scheme,
                             .state = "verifying",
                             .done_bytes = op->before_bytes + op->done_bytes,
                             .total_bytes = op->total_bytes};
    peer_event(op->pending.peer, "progress", MESSAGE(progress, &e));
}

static void add_problem(struct op *op, const struct item *it, const char *reason)
{
    char what[512];
    bool packed = it->layout != QD_LAYOUT_PORTABLE;
    (void)snprintf(what, sizeof what, "%.200s:%s%s%s %.16s", it->m.model, it->m.scheme, packed ? ":" : "",
                   packed ? it->m.layout : "", it->m.key);
    struct msg_problem p = {.what = copy_text(&op->list, what), .reason = copy_text(&op->list, reason)};
    if (p.what && p.reason && op->verified.problems_n < PROBLEMS_MAX)
        op->problems[op->verified.problems_n++] = p;
}

static void rebuild(struct op *op, const struct item *it)
{
    const struct artifact_origin origin = {it->m.model, it->source, it->m.recipe, it->m.encoder_revision};
    struct qd_error err;
    if (op->no_rebuild || it->layout == QD_N_LAYOUTS)
        return;
    if (make_in_background(op->daemon, &origin, it->layout, &err) == 0)
        op->verified.rebuilding++;
    else
        log_line(LOG_AT_WARNING, "store", "damaged artifact is not built again%s%s", log_field("model", it->m.model),
                 log_field("reason", err.message));
}

static void verify_end(struct op *op, const struct qd_error *err)
{
    op->verified.problems = op->problems;
    op->verified.has_rebuilding = true;
    (void)message_page(MSG_verified, &op->verified, 0, op->verified.problems_n); /* those that fit; the log has all */
    if (op->pending.peer && err)
        peer_fail(op->pending.peer, op->pending.id, err);
    else if (op->pending.peer)
        peer_reply(op->pending.peer, op->pending.id, MESSAGE(verified, &op->verified));
    uv_close((uv_handle_t *)&op->timer, on_op_closed);
}

static void verify_next(struct op *op);

static void verify_done(void *data, int result, const struct qd_error *err)
{
    struct op *op = data;
    const struct item *it = &op->list.items[op->at];
    op->verified.bytes += op->verify.bytes;
    op->before_bytes += it->m.bytes;
    op->done_bytes = 0;
    op->at++;
    if (result == QD_E_CORRUPT) {
        log_line(LOG_AT_WARNING, "store", "damaged artifact in quarantine%s%s", log_field("model", it->m.model),
                 log_field("reason", op->verify.bad));
        serving_artifact_changed(op->daemon, &it->key, it->m.model, it->m.scheme, it->m.layout, "damaged");
        add_problem(op, it, op->verify.bad[0] ? op->verify.bad : err->message);
        rebuild(op, it);
    } else if (result == QD_E_CANCELLED) {
        verify_end(op, err);
        return;
    } else if (result < 0 && result != QD_E_NOT_FOUND) { /* gone meanwhile is fine */
        add_problem(op, it, err->message);
    }
    op->verified.checked += result == 0 || result == QD_E_CORRUPT;
    verify_next(op);
}

static void verify_next(struct op *op)
{
    struct qd_error err;
    memset(&op->verify, 0, sizeof op->verify);
    if (op->at == op->list.n || !op->pending.peer) /* nobody listens any more: enough */
        verify_end(op, NULL);
    else if (pool_submit_long(op->daemon->loop, verify_work, verify_done, op, &err) < 0)
        verify_end(op, &err);
}

int handle_verify(struct peer *peer, struct request *rq, const struct msg_verify *p, struct qd_error *err)
{
    struct op *op = NULL;
    int r = op_new(peer, rq, OP_VERIFY, &op, err);
    if (r < 0)
        return r;
    op->no_rebuild = p->no_rebuild;
    r = list_all(peer->daemon, peer, &op->list, err);
    if (r == 0 && p->artifact)
        r = narrow(&op->list, p->artifact, err);
    if (r == 0 && !(op->problems = calloc(PROBLEMS_MAX, sizeof *op->problems)))
        r = err_new(err, QD_E_NO_MEMORY, "verify");
    if (r < 0) {
        op_free(op);
        return r;
    }
    for (size_t i = 0; i < op->list.n; i++)
        op->total_bytes += op->list.items[i].m.bytes;
    (void)uv_timer_init(peer->daemon->loop, &op->timer); /* never fails */
    op->timer.data = op;
    (void)uv_timer_start(&op->timer, tell_verify_progress, 100, 100); /* while it runs only */
    verify_next(op);
    return 0;
}
