/* plan: what an open would build. A worker plans; its table stays here for the pages that follow. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/handlers.h"
#include "daemon/imatrix.h"
#include "daemon/layouts.h"
#include "daemon/pool.h"
#include "daemon/sent.h"
#include "daemon/profile.h"
#include "ipc/records.h"
#include "kernels/core/arena.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "quant/format/onnx.h"

enum { PLAN_PAGE_BYTES = 64 << 20 /* of a table; a million tensors need a hundred bytes each */ };

/* What a request asks for; strings are borrowed. */
struct plan_ask {
    const char *model;
    struct recipe recipe; /* its scheme may be auto */
    uint32_t from;
    struct imatrix imatrix; /* its descriptor is owned */
    struct layout_wish layout;
    bool elsewhere; /* for the machine of @profile, not for this one */
    struct profile profile;
};

/* What it comes to, and why. */
struct decision {
    struct recipe recipe;
    enum qd_layout layout;
    char why[POLICY_WHY_MAX], layout_why[POLICY_WHY_MAX];
    char features[HARDWARE_TEXT_MAX]; /* of the profile; "" for this machine */
};

struct planning {
    struct pending pending; /* first: abandon() casts back */
    struct daemon *daemon;
    struct job_waiter waiter;
    char *model; /* owned */
    uint64_t generation;
    struct decision decision;
    uint32_t from;
};

static void planning_free(struct planning *g)
{
    pending_done(&g->pending);
    g->daemon->serving->n_openings--;
    free(g->model);
    free(g);
}

static void on_abandon(struct pending *pending)
{
    struct planning *g = (struct planning *)pending;
    job_leave(g->daemon->jobs, &g->waiter);
    planning_free(g);
}

/* ---- kept plans ---- */

static struct kept_plan *find_plan(struct serving *s, const char *model, uint64_t generation,
                                   const struct recipe *recipe)
{
    for (size_t i = 0; i < PLANS_KEPT; i++) {
        struct kept_plan *k = &s->plans[i];
        bool same = k->model && strcmp(k->model, model) == 0 && k->generation == generation;
        if (same && recipe_equal(&k->recipe, recipe))
            return k;
    }
    return NULL;
}

static struct kept_plan *keep_plan(struct serving *s, struct planning *g, const struct job_plan *plan,
                                   struct qd_error *err)
{
    struct kept_plan *slot = &s->plans[0];
    for (size_t i = 1; i < PLANS_KEPT; i++)
        if (s->plans[i].used < slot->used)
            slot = &s->plans[i];
    int fd = fcntl(plan->table_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        (void)err_new(err, QD_E_SYSTEM, "descriptor of the plan");
        return NULL;
    }
    (void)fd_close(slot->table_fd);
    free(slot->model);
    *slot = (struct kept_plan){.model = steal(&g->model),
                               .generation = g->generation,
                               .recipe = g->decision.recipe,
                               .table_fd = fd,
                               .file_bytes = plan->file_bytes,
                               .source_bytes = plan->source_bytes,
                               .n_tensors = plan->n_tensors,
                               .used = ++s->clock};
    return slot;
}

/* ---- a page ---- */

static int read_table(int fd, struct buffer *dst, struct qd_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size > PLAN_PAGE_BYTES)
        return err_new(err, QD_E_LIMIT, "the plan is larger than %d bytes", PLAN_PAGE_BYTES);
    buffer_put_zeros(dst, (size_t)st.st_size);
    if (dst->failed || pread_whole(fd, dst->data, dst->n, 0) != (ssize_t)dst->n)
        return err_new(err, QD_E_NO_MEMORY, "the plan's table");
    return 0;
}

/* Strings of the records borrow the reader until its next record: each is copied. */
static int copy_record(struct arena *arena, const struct msg_tensor_plan *from, struct msg_tensor_plan *to)
{
    const char *const texts[] = {from->name, from->shape, from->from, from->to, from->reason};
    const char **const copies[] = {&to->name, &to->shape, &to->from, &to->to, &to->reason};
    *to = *from;
    for (size_t i = 0; i < 5; i++)
        if (!(*copies[i] = arena_text(arena, (struct bytes){(const uint8_t *)texts[i], strlen(texts[i])})))
            return QD_E_NO_MEMORY;
    return 0;
}

static int read_page(struct bytes table, uint32_t from, struct arena *arena, struct msg_planned *m,
                     struct qd_error *err)
{
    CLEANUP(record_reader_clear) struct record_reader reader = {0};
    struct msg_tensor_plan *items = arena_alloc(arena, LIST_ITEMS_MAX, sizeof *items), item;
    if (!items)
        return err_new(err, QD_E_NO_MEMORY, "page of a plan");
    int r = record_reader_open(table, &reader, err);
    if (r == 0)
        r = (int)record_skip(&reader, from, err);
    while (r >= 0 && m->tensors_n < LIST_ITEMS_MAX && (r = record_read(&reader, MSG_tensor_plan, &item, err)) > 0)
        r = copy_record(arena, &item, &items[m->tensors_n++]);
    m->tensors = items;
    return r < 0 ? r : 0;
}

static const char *text_or_null(const char *text)
{
    return text[0] ? text : NULL;
}

static int reply_page(struct peer *p, uint32_t id, const struct kept_plan *k, const struct decision *d, uint32_t from,
                      struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(16 << 20);
    CLEANUP(buffer_clear) struct buffer table = {0};
    char recipe[RECIPE_TEXT_MAX];
    recipe_text(&k->recipe, recipe);
    struct msg_planned m = {.scheme = scheme_name(k->recipe.scheme),
                            .recipe = recipe,
                            .why = text_or_null(d->why),
                            .layout = qd_layout_info(d->layout)->name,
                            .layout_why = text_or_null(d->layout_why),
                            .hardware = text_or_null(d->features),
                            .source_bytes = k->source_bytes,
                            .file_bytes = k->file_bytes,
                            .n_tensors = k->n_tensors};
    if (!arena)
        return err_new(err, QD_E_NO_MEMORY, "page of a plan");
    int r = read_table(k->table_fd, &table, err);
    if (r == 0)
        r = read_page(buffer_span(&table), from, arena, &m, err);
    if (r < 0)
        return r;
    (void)message_page(MSG_planned, &m, from, k->n_tensors);
    peer_reply(p, id, MESSAGE(planned, &m));
    return 0;
}

/* ---- the request ---- */

static void on_done(struct job_waiter *w, const struct job_outcome *o)
{
    struct planning *g = w->data;
    struct qd_error err;
    int r = o->result;
    if (r == 0) {
        const struct kept_plan *k = keep_plan(g->daemon->serving, g, o->plan, &err);
        r = k ? reply_page(g->pending.peer, g->pending.id, k, &g->decision, g->from, &err) : err.code;
    }
    if (r < 0)
        peer_fail(g->pending.peer, g->pending.id, o->result < 0 ? o->err : &err);
    planning_free(g);
}

static int start_planning(struct peer *p, uint32_t id, const struct catalog_model *m, struct plan_ask *a,
                          const struct decision *decision, struct qd_error *err)
{
    struct planning *g = calloc(1, sizeof *g);
    if (!g || !(g->model = strdup(m->name))) {
        free(g);
        return err_new(err, QD_E_NO_MEMORY, "plan");
    }
    g->daemon = p->daemon;
    g->generation = m->generation;
    g->decision = *decision;
    g->from = a->from;
    g->pending.abandon = on_abandon;
    g->waiter = (struct job_waiter){.done = on_done, .data = g};
    p->daemon->serving->n_openings++;
    int r = peer_pend(p, &g->pending, id, err);
    struct job_request request = {.model = m->name,
                                  .first_file = m->first_file,
                                  .source_fd = -1,
                                  .imatrix_fd = a->imatrix.fd,
                                  .stamp = &m->stamp,
                                  .calibration = m->calibration,
                                  .recipe = decision->recipe,
                                  .interactive = true,
                                  .plan_only = true,
                                  .uid = p->who.uid};
    if (r == 0)
        r = jobs_submit(p->daemon->jobs, &request, &g->waiter, err);
    if (r < 0)
        planning_free(g);
    else
        (void)steal_fd(&a->imatrix.fd); /* the job has it */
    return r;
}

/* The budget of a cache elsewhere is not known: none. */
static struct policy_facts facts_of(const struct daemon *d, const struct plan_ask *a, const struct catalog_model *m)
{
    if (!a->elsewhere)
        return policy_facts_here(d, m->first_file, m->bytes);
    return (struct policy_facts){.memory_bytes = a->profile.memory_bytes,
                                 .model_bytes = m->bytes,
                                 .cpu_features = a->profile.features,
                                 .is_onnx = onnx_is_named(m->first_file)};
}

static int decide(const struct daemon *d, const struct plan_ask *a, const struct catalog_model *m, struct decision *ret,
                  struct qd_error *err)
{
    const struct policy_facts facts = facts_of(d, a, m);
    *ret = (struct decision){.layout = QD_LAYOUT_PORTABLE};
    if (a->elsewhere)
        (void)cpu_features_string_of(a->profile.architecture, a->profile.features, ret->features, sizeof ret->features);
    policy_resolve(&a->recipe, &facts, &ret->recipe, ret->why);
    imatrix_weigh(&a->imatrix, &ret->recipe);
    sent_weigh(d->sent, m->first_file, &m->stamp, &ret->recipe);
    return layout_wish_resolve(&a->layout, &ret->recipe, &facts, &ret->layout, ret->layout_why, err);
}

/* All is known: the answer, or a job for it. */
static int plan_now(struct peer *peer, uint32_t id, struct plan_ask *a, struct qd_error *err)
{
    const struct catalog_model *m;
    struct decision decision;
    int r = find_model(peer, a->model, &m, err);
    if (r < 0)
        return r;
    if (m->state == MODEL_BAD)
        return err_new(err, QD_E_CORRUPT, "model '%s': %s", m->name, m->problem);
    if (m->state == MODEL_SETTLING)
        return err_new(err, QD_E_BUSY, "model '%s' is still being written", m->name);
    r = decide(peer->daemon, a, m, &decision, err);
    if (r < 0)
        return r;
    const struct kept_plan *k = find_plan(peer->daemon->serving, m->name, m->generation, &decision.recipe);
    return k ? reply_page(peer, id, k, &decision, a->from, err) : start_planning(peer, id, m, a, &decision, err);
}

/* ---- an importance matrix that is new here: digested on the pool, then all starts ---- */

struct digesting {
    struct pending pending; /* first: abandon() casts back */
    struct daemon *daemon;
    struct plan_ask ask; /* all owned */
    bool abandoned;
};

static void digesting_free(struct digesting *g)
{
    g->daemon->serving->n_openings--;
    imatrix_clear(&g->ask.imatrix);
    free((char *)g->ask.model);
    free(g);
}

/* The pool still has it. */
static void on_abandon_digest(struct pending *pending)
{
    struct digesting *g = (struct digesting *)pending;
    g->abandoned = true;
}

static int digest_work(void *data, struct qd_error *err)
{
    struct digesting *g = data;
    return imatrix_digest(g->daemon, &g->ask.imatrix, err);
}

static void digest_done(void *data, int result, const struct qd_error *err)
{
    struct digesting *g = data;
    if (!g->abandoned) {
        struct peer *peer = g->pending.peer;
        uint32_t id = g->pending.id;
        struct qd_error why = result < 0 ? *err : (struct qd_error){0};
        pending_done(&g->pending);
        if (!peer->closing && (result < 0 || plan_now(peer, id, &g->ask, &why) < 0))
            peer_fail(peer, id, &why);
    }
    digesting_free(g);
}

static int start_digesting(struct peer *p, uint32_t id, struct plan_ask *a, struct qd_error *err)
{
    struct digesting *g = calloc(1, sizeof *g);
    if (!g)
        return err_new(err, QD_E_NO_MEMORY, "plan");
    g->daemon = p->daemon;
    g->ask = *a;
    g->ask.imatrix.fd = steal_fd(&a->imatrix.fd);
    g->ask.model = strdup(a->model);
    g->pending.abandon = on_abandon_digest;
    p->daemon->serving->n_openings++;
    int r = g->ask.model ? 0 : err_new(err, QD_E_NO_MEMORY, "plan");
    if (r == 0)
        r = peer_pend(p, &g->pending, id, err);
    if (r == 0 && (r = pool_submit_long(p->daemon->loop, digest_work, digest_done, g, err)) < 0)
        pending_done(&g->pending);
    if (r < 0)
        digesting_free(g);
    return r;
}

/* What the message says, but for its descriptor. */
static int read_ask(const struct msg_plan *p, struct plan_ask *ret, struct qd_error *err)
{
    *ret = (struct plan_ask){.model = p->model, .from = p->has_from ? p->from : 0, .imatrix.fd = -1};
    int r = recipe_of_words(&RECIPE_WORDS(p), &ret->recipe, err);
    if (r == 0)
        r = layout_wish_parse(p->layout && p->layout[0] ? p->layout : "auto", &ret->layout, err);
    if (r == 0 && p->hardware && p->hardware[0]) {
        ret->elsewhere = true;
        r = profile_parse(p->hardware, &ret->profile, err);
        if (r < 0)
            return err_in(err, r, "hardware profile");
    }
    return r;
}

int handle_plan(struct peer *peer, struct request *rq, const struct msg_plan *p, struct qd_error *err)
{
    struct plan_ask a;
    int r = read_ask(p, &a, err);
    if (r < 0)
        return r;
    r = p->imatrix ? imatrix_take(peer->daemon, rq, 0, &a.imatrix, err) : 0;
    if (r == 0)
        r = imatrix_is_open(&a.imatrix) ? start_digesting(peer, rq->id, &a, err) : plan_now(peer, rq->id, &a, err);
    imatrix_clear(&a.imatrix);
    return r;
}
