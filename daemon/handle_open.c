/*
 * open: the way of a request from a name to descriptors (architecture, section 8).
 *
 *     catalog -> rights -> recipe, layout -> key known? -> store -> reply          (warm: nothing is allocated)
 *     not yet: struct opening waits for the catalog, the pool (strict) or a job, and starts again.
 *
 * What is not there in a packed layout is made from the portable artifact, which is made from the source where that is
 * not there either: a job each. Whom portable is good enough for (auto) is answered as soon as that is there, and the
 * rest is done in the background.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/store.h"
#include "daemon/background.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/imatrix.h"
#include "daemon/launcher.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "daemon/sent.h"
#include "daemon/stamp.h"
#include "kernels/core/cleanup.h"
#include "kernels/cpu.h"

enum {
    PROGRESS_INTERVAL_MS = 100, /* ten a second */
    BEHIND_MAX = 8,             /* a file whose stat is never twice the same */
    AGAIN_MAX = 3,              /* a portable artifact that is never there when it is to be packed */
    CATALOG_PATIENCE_MS = 3000  /* for what is not known while folders are being scanned */
};

/* What a request asks for; strings are borrowed. */
struct ask {
    const char *model;
    struct recipe recipe; /* its scheme may be auto */
    struct layout_wish layout;
    bool no_build, strict, background;
    int source_fd;                  /* -1: by name */
    char source_name[NAME_MAX + 1]; /* that the descriptor was opened by, or "model" */
    uint64_t source_bytes;
    struct imatrix imatrix; /* its descriptor is owned */
    struct bytes have;      /* print of an envelope; borrows the packet: for an answer at once only */
};

/* What it comes to. */
struct target {
    const char *model, *first_file; /* borrow the catalog */
    struct file_stamp stamp;        /* of the first file, as rights were judged; by name only */
    uint64_t calibration;           /* as the catalog's */
    struct recipe recipe;
    enum qd_layout layout;
    bool portable_will_do; /* until what @layout says is there */
    char why[POLICY_WHY_MAX], layout_why[POLICY_WHY_MAX];
    struct digest key;
    bool known; /* key is */
};

/* An open that could not be answered at once. */
struct opening {
    struct pending pending; /* first: abandon() casts back */
    struct daemon *daemon;
    struct ask ask; /* model owned; descriptors owned */
    struct target target;
    struct job_waiter waiter;
    bool joined;            /* a job has @waiter */
    bool on_pool;           /* strict check or digest under way */
    struct digest checked;  /* strict check of this artifact passed, or is under way */
    struct digest portable; /* what is being packed for it */
    unsigned n_again;       /* how often all had to begin again */
    bool waits_for_catalog, due;
    unsigned n_behind; /* how often the catalog was behind the file */
    bool finished;
    struct opening *next, *prev; /* of those that wait for the catalog */
    uint64_t started_ms, progress_ms;
    enum job_state progress_state;
    uv_timer_t timer; /* of wait_ms */
    bool has_timer;
    struct store_verify verify;
};

static void opening_step(struct opening *o);
static void go_on_from_portable(struct opening *o, struct lease *lease, bool built);

/* ---- answering --------------------------------------------------------------------------------------- */

static bool features_present(const struct daemon *d, const struct manifest *m)
{
    uint64_t needed;
    if (m->features[0] == '\0')
        return true;
    return cpu_features_parse(m->features, &needed) == 0 && (needed & ~d->hardware->feature_bits) == 0;
}

static void say_damaged(struct daemon *d, const struct digest *key, const struct target *t, enum qd_layout layout,
                        const char *reason)
{
    log_line(LOG_AT_WARNING, "store", "damaged artifact is built again%s%s", log_field("model", t->model),
             log_field("reason", reason));
    serving_artifact_changed(d, key, t->model, scheme_name(t->recipe.scheme), qd_layout_info(layout)->name, "damaged");
}

/* 1 and @ret: served from the store. 0: to be built. QD_E_CORRUPT is told to all and then to be built. */
static int look_up(struct daemon *d, const struct digest *key, const struct target *t, enum qd_layout layout,
                   struct lease **ret, struct qd_error *err)
{
    CLEANUP(lease_release) struct lease *lease = NULL;
    int r = store_lookup_in_turn(d->store, key, d->turn, &lease, err);
    if (r == QD_E_CORRUPT) {
        say_damaged(d, key, t, layout, err->message);
        return 0;
    }
    if (r == QD_E_NOT_FOUND || r == QD_E_UNTRUSTED)
        return 0;
    if (r < 0)
        return r;
    if (!features_present(d, lease->manifest))
        return 0;
    *ret = steal(&lease);
    return 1;
}

static uint32_t count_payload(const struct manifest *m)
{
    uint32_t n = 0;
    while (n < m->n_files && m->files[n].role == MANIFEST_PAYLOAD)
        n++;
    return n;
}

/* What auto decided by, and why it is this layout. @dst[LAYOUT_WHY_MAX]. */
static const char *say_why(const struct target *t, enum qd_layout served, bool nothing_to_pack, char *dst)
{
    const char *asked = qd_layout_info(t->layout)->name;
    int n = snprintf(dst, LAYOUT_WHY_MAX, "%s", t->why); /* all of it fits */
    char *rest = dst + n;
    size_t room = LAYOUT_WHY_MAX - (size_t)n;
    if (served == t->layout && t->layout_why[0])
        (void)snprintf(rest, room, "; layout %s: %s", asked, t->layout_why);
    else if (served != t->layout && nothing_to_pack)
        (void)snprintf(rest, room, "; layout portable: no tensor of it is packed in %s", asked);
    else if (served != t->layout)
        (void)snprintf(rest, room, "; layout portable for now: %s is not made yet (%s)", asked, t->layout_why);
    return dst[0] ? dst : NULL;
}

/* Takes @lease. A caller that has this very envelope, by its print @have, is given the payload alone. */
static void reply_opened(struct peer *p, uint32_t id, const struct target *t, struct bytes have, struct lease *lease,
                         bool built)
{
    char key[DIGEST_HEX_BYTES], why[LAYOUT_WHY_MAX];
    struct qd_error err;
    const struct kept_envelope *e;
    struct serving *s = p->daemon->serving;
    const struct manifest *made = lease->manifest;
    if (envelope_keep(s, &made->key, lease->envelope, &e, &err) < 0) {
        (void)lease_release(lease);
        peer_fail(p, id, &err);
        return;
    }
    digest_hex(&made->key, key);
    bool known = have.n == DIGEST_BYTES && memcmp(have.data, e->print.bytes, DIGEST_BYTES) == 0;
    int layout = qd_layout_by_name(made->layout); /* one of ours: it was found by it */
    struct msg_opened m = {
        .key = key,
        .built = built,
        .why = say_why(t, (enum qd_layout)layout, unpacked_get(&s->unpacked, &made->key, t->layout), why),
        .payload_only = known,
        .layout = made->layout};
    m.n_files = known ? count_payload(lease->manifest) : (uint32_t)lease->n_fds;
    peer_reply_lease(p, id, MESSAGE(opened, &m), known ? -1 : e->fd, lease, m.n_files);
    touch_now_and_then(s);
}

/*
 * The portable artifact @lease is there and the packed one is not: is it the answer? Then the packed one is made in the
 * background, if there is anything to pack and the request may cause work.
 */
static bool portable_answers(struct daemon *d, const struct ask *a, const struct target *t, const struct lease *lease)
{
    if (t->layout == QD_LAYOUT_PORTABLE || unpacked_get(&d->serving->unpacked, &lease->manifest->key, t->layout))
        return true;
    if (t->portable_will_do && !a->no_build)
        pack_in_background(d, lease->manifest, t->layout);
    return t->portable_will_do;
}

/* ---- from ask to target --------------------------------------------------------------------------------- */

/* The file at the model's path is not the one that the catalog saw. */
static bool is_behind(const struct catalog_model *m)
{
    struct stat st;
    if (stat(m->first_file, &st) < 0)
        return true;
    struct file_stamp is = stamp_of(&st);
    return !stamp_equal(&is, &m->stamp);
}

/* 1: ready; 0: worth waiting for; negative: no. */
static int find_ready_model(struct peer *p, const char *name, const struct catalog_model **ret, struct qd_error *err)
{
    struct catalog *catalog = p->daemon->catalog;
    const struct catalog_model *m = catalog_find(catalog, name);
    bool busy = !m && catalog_busy(catalog);
    int r = find_model(p, name, ret, err);
    if (r == QD_E_DENIED && m && is_behind(m)) { /* replaced just now: judged when it was looked at */
        catalog_look_again(catalog, m);
        return 0;
    }
    if (r < 0)
        return r == QD_E_NOT_FOUND && busy ? 0 : r;
    switch ((*ret)->state) {
    case MODEL_READY:
        return 1;
    case MODEL_SETTLING:
        if (!(*ret)->problem)
            return 0;
        (void)err_new(err, QD_E_BUSY, "model '%s' is not whole: %s", name, (*ret)->problem);
        return err_hint(err, QD_E_BUSY, "put the missing files beside the others");
    case MODEL_BAD:
        return err_new(err, QD_E_CORRUPT, "model '%s': %s", name, (*ret)->problem);
    }
    return QD_E_INTERNAL;
}

static struct job_request job_request_of(const struct peer *p, const struct ask *a, const struct target *t)
{
    return (struct job_request){.model = t->model,
                                .first_file = t->first_file,
                                .source_fd = a->source_fd,
                                .imatrix_fd = a->imatrix.fd,
                                .calibration = t->calibration,
                                .recipe = t->recipe,
                                .layout = t->layout,
                                .stamp = a->source_fd >= 0 ? NULL : &t->stamp,
                                .interactive = !a->background,
                                .uid = p->who.uid};
}

/* 1: @ret is filled, its key perhaps known; 0: wait for the catalog; negative: no. */
static int aim(struct peer *p, const struct ask *a, struct target *ret, struct qd_error *err)
{
    const struct catalog_model *m = NULL;
    int r = a->source_fd >= 0 ? 1 : find_ready_model(p, a->model, &m, err);
    if (r <= 0)
        return r;
    ret->model = m ? m->name : "fd";
    ret->first_file = m ? m->first_file : NULL;
    ret->stamp = m ? m->stamp : (struct file_stamp){0};
    ret->calibration = m ? m->calibration : 0;
    const struct policy_facts facts =
        policy_facts_here(p->daemon, m ? m->first_file : a->source_name, m ? m->bytes : a->source_bytes);
    policy_resolve(&a->recipe, &facts, &ret->recipe, ret->why);
    imatrix_weigh(&a->imatrix, &ret->recipe);
    sent_weigh(p->daemon->sent, ret->first_file, &ret->stamp, &ret->recipe);
    r = layout_wish_resolve(&a->layout, &ret->recipe, &facts, &ret->layout, ret->layout_why, err);
    if (r < 0)
        return r;
    ret->portable_will_do = a->layout.kind == WISH_AUTO;
    struct job_request rq = job_request_of(p, a, ret);
    ret->known = jobs_known_key(p->daemon->jobs, &rq, &ret->key) == 1;
    return 1;
}

/* The key of the portable artifact that a packed one is made from, where that of the packed one is known. */
static bool portable_key(struct peer *p, const struct ask *a, const struct target *t, struct digest *ret)
{
    struct job_request rq = job_request_of(p, a, t);
    rq.layout = QD_LAYOUT_PORTABLE;
    return t->known && jobs_known_key(p->daemon->jobs, &rq, ret) == 1;
}

/* ---- life of an opening ------------------------------------------------------------------------------------- */

static void wait_for_catalog(struct opening *o, bool wait)
{
    struct serving *s = o->daemon->serving;
    if (wait == o->waits_for_catalog)
        return;
    o->waits_for_catalog = wait;
    if (wait) {
        o->prev = NULL;
        o->next = s->waiting;
        if (o->next)
            o->next->prev = o;
        s->waiting = o;
        return;
    }
    if (o->prev)
        o->prev->next = o->next;
    else
        s->waiting = o->next;
    if (o->next)
        o->next->prev = o->prev;
}

static void opening_free(struct opening *o)
{
    o->daemon->serving->n_openings--;
    free((char *)o->ask.model);
    imatrix_clear(&o->ask.imatrix);
    (void)fd_close(o->ask.source_fd);
    free(o);
}

static void on_timer_closed(uv_handle_t *handle)
{
    opening_free(handle->data);
}

/* The request is answered, or nobody is left to answer to. */
static void opening_end(struct opening *o)
{
    if (o->finished)
        return;
    o->finished = true;
    wait_for_catalog(o, false);
    if (o->joined)
        job_leave(o->daemon->jobs, &o->waiter);
    o->joined = false;
    pending_done(&o->pending);
    if (o->on_pool)
        return; /* check_done frees */
    if (o->has_timer)
        uv_close((uv_handle_t *)&o->timer, on_timer_closed);
    else
        opening_free(o);
}

static void opening_fail(struct opening *o, const struct qd_error *err)
{
    if (o->pending.peer)
        peer_fail(o->pending.peer, o->pending.id, err);
    opening_end(o);
}

static void on_abandon(struct pending *pending)
{
    opening_end((struct opening *)pending);
}

static const char *shown_model(const struct opening *o)
{
    return o->ask.model ? o->ask.model : "fd";
}

static void on_wait_over(uv_timer_t *timer)
{
    struct opening *o = timer->data;
    struct qd_error err;
    (void)err_new(&err, QD_E_TIMEOUT, "model '%s': not ready in the time given", shown_model(o));
    (void)err_hint(&err, QD_E_TIMEOUT, "ask again or wait longer: what was done of it is kept");
    opening_fail(o, &err);
}

/* ---- on the pool ---- */

static void start_on_pool(struct opening *o, pool_work *work, pool_done *done)
{
    struct qd_error err;
    if (pool_submit_long(o->daemon->loop, work, done, o, &err) < 0)
        opening_fail(o, &err);
    else
        o->on_pool = true;
}

/* True where the answer is for nobody: the opening is gone. */
static bool ended_on_pool(struct opening *o)
{
    o->on_pool = false;
    if (!o->finished && !o->pending.peer->closing) /* abandoned meanwhile, or about to be */
        return false;
    o->finished = false;
    opening_end(o);
    return true;
}

/*
 * ---- strict: every byte on the pool
 * ----------------------------------------------------------------------------------
 */

static int check_work(void *data, struct qd_error *err)
{
    struct opening *o = data;
    return store_verify(o->daemon->store, &o->checked, &o->daemon->serving->stopping, NULL, &o->verify, err);
}

static void check_done(void *data, int result, const struct qd_error *err)
{
    struct opening *o = data;
    if (ended_on_pool(o))
        return;
    bool is_portable = !o->target.known || !digest_equal(&o->checked, &o->target.key);
    if (result == QD_E_CORRUPT)
        say_damaged(o->daemon, &o->checked, &o->target, is_portable ? QD_LAYOUT_PORTABLE : o->target.layout,
                    o->verify.bad);
    if (result < 0)
        o->checked = (struct digest){0};
    if (result < 0 && result != QD_E_CORRUPT && result != QD_E_NOT_FOUND)
        opening_fail(o, err);
    else
        opening_step(o);
}

/* ---- the digest of an importance matrix, on the pool ---- */

static int digest_work(void *data, struct qd_error *err)
{
    struct opening *o = data;
    return imatrix_digest(o->daemon, &o->ask.imatrix, err);
}

static void digest_done(void *data, int result, const struct qd_error *err)
{
    struct opening *o = data;
    if (ended_on_pool(o))
        return;
    if (result < 0)
        opening_fail(o, err);
    else
        opening_step(o);
}

/* ---- job --------------------------------------------------------------------------------------------------------- */

static void on_progress(struct job_waiter *w, const struct job_progress *g)
{
    struct opening *o = w->data;
    uint64_t now = uv_now(o->daemon->loop);
    if (!o->pending.peer || (g->state == o->progress_state && now - o->progress_ms < PROGRESS_INTERVAL_MS))
        return;
    o->progress_state = g->state;
    o->progress_ms = now;
    struct msg_progress e = {
        .id = o->pending.id,
        .model = g->model,
        .scheme = g->scheme,
        .layout = g->layout,
        .state = job_state_name(g->state),
        .tensor = g->tensor && g->tensor[0] ? g->tensor : NULL,
        .done_bytes = g->done_bytes,
        .total_bytes = g->total_bytes,
        .has_bytes_per_s = true,
        .bytes_per_s = g->bytes_per_s,
        .has_seconds_left = true,
        .seconds_left = g->seconds_left,
    };
    peer_event(o->pending.peer, "progress", MESSAGE(progress, &e));
}

/* Takes @lease. What was built just now is not read again for the strict. */
static void serve(struct opening *o, struct lease *lease, bool built)
{
    const struct digest key = lease->manifest->key;
    if (o->ask.strict && !built && !digest_equal(&o->checked, &key)) {
        (void)lease_release(lease); /* returns NULL by convention */
        o->checked = key;
        start_on_pool(o, check_work, check_done);
        return;
    }
    if (o->pending.peer)
        reply_opened(o->pending.peer, o->pending.id, &o->target, (struct bytes){0}, lease, built);
    else
        (void)lease_release(lease);
    opening_end(o);
}

/* What a job made, or another request meanwhile; @layout: of it. 0: it is gone again. Negative: the opening is over. */
static int take_made(struct opening *o, const struct digest *key, enum qd_layout layout, struct lease **ret)
{
    struct qd_error err;
    o->target.model = shown_model(o); /* the catalog may have moved on */
    int r = look_up(o->daemon, key, &o->target, layout, ret, &err);
    if (r < 0)
        opening_fail(o, &err);
    return r;
}

static void fail_gone(struct opening *o)
{
    struct qd_error err;
    (void)err_new(&err, QD_E_CORRUPT, "the artifact was built and is gone again");
    opening_fail(o, &err);
}

static void on_built(struct job_waiter *w, const struct job_outcome *outcome)
{
    struct opening *o = w->data;
    struct lease *lease = NULL;
    o->joined = false;
    if (outcome->result < 0) {
        opening_fail(o, outcome->err);
        return;
    }
    if (outcome->built)
        serving_artifact_ready(o->daemon, &outcome->key, shown_model(o), scheme_name(o->target.recipe.scheme),
                               QD_LAYOUT_PORTABLE);
    int r = take_made(o, &outcome->key, QD_LAYOUT_PORTABLE, &lease);
    if (r == 0)
        fail_gone(o);
    else if (r > 0)
        go_on_from_portable(o, lease, outcome->built);
}

/* The portable artifact was gone or damaged, or the CPU is another by now: all again, a few times. */
static bool start_again(struct opening *o)
{
    if (o->n_again == AGAIN_MAX)
        return false;
    o->n_again++;
    opening_step(o);
    return true;
}

static void on_packed(struct job_waiter *w, const struct job_outcome *outcome)
{
    struct opening *o = w->data;
    struct daemon *d = o->daemon;
    struct lease *lease = NULL;
    o->joined = false;
    if (outcome->result == QD_E_CORRUPT)
        say_damaged(d, &o->portable, &o->target, QD_LAYOUT_PORTABLE, outcome->err->message);
    if ((outcome->result == QD_E_CORRUPT || outcome->result == QD_E_NOT_FOUND) && start_again(o))
        return;
    if (outcome->result < 0) {
        opening_fail(o, outcome->err);
        return;
    }
    enum qd_layout layout = outcome->nothing_to_pack ? QD_LAYOUT_PORTABLE : o->target.layout;
    if (outcome->nothing_to_pack)
        serving_nothing_to_pack(d, &o->portable, o->target.layout);
    else if (outcome->built)
        serving_artifact_ready(d, &outcome->key, shown_model(o), scheme_name(o->target.recipe.scheme), layout);
    int r = take_made(o, &outcome->key, layout, &lease);
    if (r > 0)
        serve(o, lease, outcome->built);
    else if (r == 0 && !start_again(o))
        fail_gone(o);
}

/* The file is not the one that rights were judged by: when the catalog has seen it, all starts again. */
static void wait_for_new_look(struct opening *o)
{
    const struct catalog_model *m = catalog_find(o->daemon->catalog, o->ask.model);
    if (m)
        catalog_look_again(o->daemon->catalog, m);
    wait_for_catalog(o, true);
}

/* The job takes descriptors of its own. */
static int copy_descriptor(int fd, const char *of, int *ret, struct qd_error *err)
{
    *ret = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    return fd >= 0 && *ret < 0 ? err_sys(err, errno, "descriptor of %s", of) : 0;
}

static int submit_job(struct opening *o, struct job_request *rq, struct qd_error *err)
{
    CLEANUP(fd_close) int source = -1;
    CLEANUP(fd_close) int imatrix = -1;
    int r = copy_descriptor(o->ask.source_fd, "the source", &source, err);
    if (r == 0)
        r = copy_descriptor(o->ask.imatrix.fd, "the importance matrix", &imatrix, err);
    if (r < 0)
        return r;
    rq->source_fd = source;
    rq->imatrix_fd = imatrix;
    r = jobs_submit(o->daemon->jobs, rq, &o->waiter, err);
    if (r == 0) {
        (void)steal_fd(&source); /* the job has them */
        (void)steal_fd(&imatrix);
    }
    return r;
}

/* False, and the opening is over, where nothing new can be signed. */
static bool may_build(struct opening *o)
{
    struct qd_error err;
    if (o->daemon->key)
        return true;
    (void)err_new(&err, QD_E_UNAVAILABLE, "signing is stopped: %s", o->daemon->key_problem);
    (void)err_hint(&err, QD_E_UNAVAILABLE, "what is in the cache is served on; see `quantctl status`");
    opening_fail(o, &err);
    return false;
}

static struct job_waiter waiter_of(struct opening *o, void (*done)(struct job_waiter *, const struct job_outcome *))
{
    o->progress_state = JOB_STATES;
    return (struct job_waiter){.progress = on_progress, .done = done, .data = o};
}

static void build_portable(struct opening *o)
{
    struct qd_error err;
    if (!may_build(o))
        return;
    struct job_request rq = job_request_of(o->pending.peer, &o->ask, &o->target);
    rq.layout = QD_LAYOUT_PORTABLE;
    o->waiter = waiter_of(o, on_built);
    int r = submit_job(o, &rq, &err);
    o->joined = r == 0;
    if (r == QD_E_SOURCE_CHANGED && rq.stamp && o->n_behind++ < BEHIND_MAX)
        wait_for_new_look(o);
    else if (r < 0)
        opening_fail(o, &err);
}

static void pack(struct opening *o)
{
    struct qd_error err;
    if (!may_build(o))
        return;
    const struct job_request rq = {.model = shown_model(o),
                                   .source_fd = -1,
                                   .imatrix_fd = -1,
                                   .recipe = o->target.recipe,
                                   .layout = o->target.layout,
                                   .portable = o->portable,
                                   .interactive = !o->ask.background,
                                   .uid = o->pending.peer->who.uid};
    o->waiter = waiter_of(o, on_packed);
    o->joined = jobs_submit(o->daemon->jobs, &rq, &o->waiter, &err) == 0;
    if (!o->joined)
        opening_fail(o, &err);
}

/*
 * ---- the steps
 * -------------------------------------------------------------------------------------------------------------
 */

static int say_not_built(const struct ask *a, const struct target *t, struct qd_error *err)
{
    bool packed = t->layout != QD_LAYOUT_PORTABLE;
    (void)err_new(err, QD_E_NOT_FOUND, "model '%s' in %s%s%s is not in the cache", a->model ? a->model : "fd",
                  scheme_name(t->recipe.scheme), packed ? ", layout " : "",
                  packed ? qd_layout_info(t->layout)->name : "");
    return err_hint(err, QD_E_NOT_FOUND, "open it without no_build to have it made");
}

static bool has_time(const struct opening *o)
{
    return uv_now(o->daemon->loop) - o->started_ms < CATALOG_PATIENCE_MS;
}

/* A model that settles is waited for; one that is not there only while the folders are looked at. */
static bool is_patient(const struct opening *o)
{
    return catalog_find(o->daemon->catalog, o->ask.model) || has_time(o);
}

/*
 * A model whose key was known and is not: its companions are other ones by now, which the catalog has not seen yet,
 * perhaps. "Not in the cache" would be a guess.
 */
static bool may_be_known_soon(const struct opening *o)
{
    const struct target *t = &o->target;
    return !t->known && t->first_file && jobs_knew_source(o->daemon->jobs, &t->stamp) && has_time(o) &&
           catalog_busy(o->daemon->catalog);
}

static void fail_not_built(struct opening *o)
{
    struct qd_error err;
    (void)say_not_built(&o->ask, &o->target, &err);
    opening_fail(o, &err);
}

/* Takes @lease, of the portable artifact: it is the answer, or what the answer is made from. */
static void go_on_from_portable(struct opening *o, struct lease *lease, bool built)
{
    if (portable_answers(o->daemon, &o->ask, &o->target, lease)) {
        serve(o, lease, built);
        return;
    }
    o->portable = lease->manifest->key;
    (void)lease_release(lease); /* returns NULL by convention */
    if (o->ask.no_build)
        fail_not_built(o);
    else
        pack(o);
}

/* Nothing of it is in the store that answers, as far as is known without work. */
static void step_from_portable(struct opening *o)
{
    struct digest key;
    struct lease *lease = NULL;
    struct qd_error err;
    int r = 0;
    if (o->target.layout != QD_LAYOUT_PORTABLE && portable_key(o->pending.peer, &o->ask, &o->target, &key))
        r = look_up(o->daemon, &key, &o->target, QD_LAYOUT_PORTABLE, &lease, &err);
    if (r > 0)
        go_on_from_portable(o, lease, false);
    else if (r < 0)
        opening_fail(o, &err);
    else if (!o->ask.no_build)
        build_portable(o);
    else if (may_be_known_soon(o))
        wait_for_catalog(o, true);
    else
        fail_not_built(o);
}

/* Looks again from the start: what was true when the request came may have changed. */
static void opening_step(struct opening *o)
{
    struct qd_error err;
    struct lease *lease = NULL;
    if (imatrix_is_open(&o->ask.imatrix)) {
        start_on_pool(o, digest_work, digest_done);
        return;
    }
    int r = aim(o->pending.peer, &o->ask, &o->target, &err);
    if (r == 0 && !is_patient(o))
        r = err.code;
    if (r <= 0) {
        wait_for_catalog(o, r == 0);
        if (r < 0)
            opening_fail(o, &err);
        return;
    }
    wait_for_catalog(o, false);
    r = o->target.known ? look_up(o->daemon, &o->target.key, &o->target, o->target.layout, &lease, &err) : 0;
    if (r > 0)
        serve(o, lease, false);
    else if (r < 0)
        opening_fail(o, &err);
    else
        step_from_portable(o);
}

static struct opening *next_due(const struct serving *s)
{
    for (struct opening *o = s->waiting; o; o = o->next)
        if (o->due)
            return o;
    return NULL;
}

void serving_scanned(void *data)
{
    struct daemon *d = data;
    struct opening *o;
    for (o = d->serving->waiting; o; o = o->next)
        o->due = true;
    while ((o = next_due(d->serving))) { /* from the start each time: a step may end any of them */
        o->due = false;
        opening_step(o);
    }
}

void serving_stop(struct serving *s)
{
    struct qd_error err;
    (void)err_new(&err, QD_E_UNAVAILABLE, "the daemon is stopping");
    s->stopping = 1;
    while (s->waiting)
        opening_fail(s->waiting, &err);
}

static int opening_new(struct peer *p, struct request *rq, struct ask *a, const struct msg_open *m,
                       struct qd_error *err)
{
    struct opening *o = calloc(1, sizeof *o);
    if (!o)
        return err_new(err, QD_E_NO_MEMORY, "open");
    o->daemon = p->daemon;
    o->ask = *a;
    o->ask.have = (struct bytes){0};
    o->ask.source_fd = o->ask.imatrix.fd = -1;
    o->ask.model = a->model ? strdup(a->model) : NULL;
    o->started_ms = uv_now(p->daemon->loop);
    o->pending.abandon = on_abandon;
    p->daemon->serving->n_openings++;
    int r = a->model && !o->ask.model ? err_new(err, QD_E_NO_MEMORY, "open") : peer_pend(p, &o->pending, rq->id, err);
    if (r < 0) {
        opening_free(o);
        return r;
    }
    o->ask.source_fd = steal_fd(&a->source_fd);
    o->ask.imatrix.fd = steal_fd(&a->imatrix.fd);
    if (m->has_wait_ms) {
        (void)uv_timer_init(p->daemon->loop, &o->timer); /* never fails */
        o->timer.data = o;
        o->has_timer = true;
        (void)uv_timer_start(&o->timer, on_wait_over, m->wait_ms, 0); /* fails on a closing handle only */
    }
    opening_step(o);
    return 0;
}

/*
 * ---- the request
 * --------------------------------------------------------------------------------------------------------------
 */

static int check_source_fd(int fd, struct ask *a, struct qd_error *err)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0)
        return err_sys(err, errno, "the descriptor of the source");
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_INVALID, "the descriptor of the source is no regular file");
    if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
        return err_new(err, QD_E_DENIED, "the descriptor of the source is not open for reading");
    a->source_bytes = (uint64_t)st.st_size;
    name_of_descriptor(fd, a->source_name);
    return 0;
}

/* Descriptors go in the order of the protocol: the source, then the importance matrix. */
static int take_descriptors(struct daemon *d, struct request *rq, const struct msg_open *p, struct ask *ret,
                            struct qd_error *err)
{
    if (!p->by_fd && !p->model)
        return err_new(err, QD_E_INVALID, "open: neither a model's name nor a descriptor");
    if (p->by_fd && rq->packet->cut)
        return err_new(err, QD_E_PROTOCOL, "open: descriptors were lost on the way");
    ret->source_fd = p->by_fd ? packet_steal_fd(rq->packet, 0) : -1;
    if (p->by_fd && ret->source_fd < 0)
        return err_new(err, QD_E_INVALID, "open: the packet carries no descriptor");
    int r = p->by_fd ? check_source_fd(ret->source_fd, ret, err) : 0;
    return r == 0 && p->imatrix ? imatrix_take(d, rq, p->by_fd ? 1 : 0, &ret->imatrix, err) : r;
}

static int read_ask(struct daemon *d, struct request *rq, const struct msg_open *p, struct ask *ret,
                    struct qd_error *err)
{
    *ret = (struct ask){.model = p->by_fd ? NULL : p->model,
                        .no_build = p->no_build,
                        .strict = p->strict,
                        .background = p->background,
                        .source_fd = -1,
                        .imatrix.fd = -1,
                        .have = p->have};
    int r = recipe_of_words(&RECIPE_WORDS(p), &ret->recipe, err);
    if (r == 0)
        r = layout_wish_parse(p->layout, &ret->layout, err);
    return r < 0 ? r : take_descriptors(d, rq, p, ret, err);
}

/* The warm way. 1: answered; 0: it takes waiting. */
static int answer_at_once(struct peer *p, uint32_t id, const struct ask *a, struct qd_error *err)
{
    struct target t = {0};
    struct lease *lease = NULL;
    int r = a->strict || imatrix_is_open(&a->imatrix) ? 0 : aim(p, a, &t, err);
    if (r <= 0 || !t.known)
        return r < 0 ? r : 0;
    r = look_up(p->daemon, &t.key, &t, t.layout, &lease, err);
    struct digest key;
    if (r == 0 && t.layout != QD_LAYOUT_PORTABLE && portable_key(p, a, &t, &key)) {
        r = look_up(p->daemon, &key, &t, QD_LAYOUT_PORTABLE, &lease, err);
        if (r > 0 && !portable_answers(p->daemon, a, &t, lease)) {
            (void)lease_release(lease); /* returns NULL by convention */
            r = 0;
        }
    }
    if (r > 0)
        reply_opened(p, id, &t, a->have, lease, false);
    return r;
}

int handle_open(struct peer *peer, struct request *rq, const struct msg_open *p, struct qd_error *err)
{
    struct ask a = {.source_fd = -1, .imatrix.fd = -1};
    int r = read_ask(peer->daemon, rq, p, &a, err);
    if (r == 0)
        r = answer_at_once(peer, rq->id, &a, err);
    if (r == 0)
        r = opening_new(peer, rq, &a, p, err);
    (void)fd_close(a.source_fd);
    imatrix_clear(&a.imatrix);
    return r < 0 ? r : 0;
}
