#include "daemon/relayout.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/store.h"
#include "daemon/background.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "daemon/watch.h"
#include "kernels/core/cleanup.h"
#include "kernels/cpu.h"
#include "kernels/layout/packed.h"

enum { LEASED_PAUSE_MS = 1000 }; /* a lease lasts as long as a reply is on its way, or a job */

/* One that is superseded and to be collected. */
struct leaving {
    struct leaving *next;
    struct digest key;
    char *model, *scheme, *layout_name; /* owned */
    enum qd_layout layout;
    int probe; /* owned; -1: not known to be in use */
    int wd;    /* of the watch on it; -1: none */
    bool due;  /* to be tried */
};

struct relayout {
    struct daemon *d;
    struct leaving *leaving;  /* owned */
    struct watch *watch;      /* owned; NULL: nothing was ever in use */
    struct leaving *on_pool;  /* being collected; NULL: none */
    uv_timer_t *pause;        /* owned by the loop */
    size_t n_outdated;        /* at the last look, those that wait for a successor included */
    bool stopped, look_again; /* a look is due behind the pool's work */
};

static void collect_next(struct relayout *r);

/* ---- those that are to go ----------------------------------------------------------------------- */

static void leaving_free(struct relayout *r, struct leaving *l)
{
    if (l->wd >= 0 && r->watch)
        watch_remove(r->watch, l->wd);
    (void)fd_close(l->probe); /* only read */
    free(l->model);
    free(l->scheme);
    free(l->layout_name);
    free(l);
}

static void take_out(struct relayout *r, struct leaving *l)
{
    struct leaving **at = &r->leaving;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    leaving_free(r, l);
}

static struct leaving *find_leaving(const struct relayout *r, const struct digest *key)
{
    struct leaving *l = r->leaving;
    while (l && !digest_equal(&l->key, key))
        l = l->next;
    return l;
}

/* ---- collecting ----------------------------------------------------------------------------------- */

static void on_closed(int wd, bool is_folder, const char *name, void *data)
{
    struct relayout *r = data;
    (void)is_folder, (void)name;
    for (struct leaving *l = r->leaving; l; l = l->next)
        l->due |= wd < 0 || l->wd == wd;
    collect_next(r);
}

/* It is tried once more behind that: who closed it before was not heard. */
static void wait_for_closing(struct relayout *r, struct leaving *l)
{
    struct qd_error err;
    if (!r->watch && watch_new(r->d->loop, on_closed, r, &r->watch, &err) < 0) {
        log_error("store", &err); /* the next look tries again */
        return;
    }
    l->wd = watch_add_closing(r->watch, l->probe);
    l->due = l->wd >= 0;
}

static void on_pause_over(uv_timer_t *timer)
{
    struct relayout *r = timer->data;
    for (struct leaving *l = r->leaving; l; l = l->next)
        if (l != r->on_pool) /* whose probe is the pool's */
            l->due |= l->probe < 0;
    collect_next(r);
}

static int collect_work(void *data, struct qd_error *err)
{
    struct relayout *r = data;
    return store_collect(r->d->store, &r->on_pool->key, &r->on_pool->probe, err);
}

static void collect_done(void *data, int result, const struct qd_error *err)
{
    struct relayout *r = data;
    struct leaving *l = r->on_pool;
    r->on_pool = NULL;
    r->d->serving->n_ops--;
    if (r->stopped)
        return;
    if (result == 0)
        serving_artifact_changed(r->d, &l->key, l->model, l->scheme, l->layout_name, "evicted");
    else if (result != QD_E_BUSY && result != QD_E_NOT_FOUND && result != QD_E_DENIED)
        log_error("store", err);
    if (result != QD_E_BUSY)
        take_out(r, l);
    else if (l->probe < 0)
        (void)uv_timer_start(r->pause, on_pause_over, LEASED_PAUSE_MS, 0); /* fails on a closing handle only */
    else if (l->wd < 0)
        wait_for_closing(r, l);
    if (r->look_again || result != QD_E_BUSY)
        relayout_look(r);
    collect_next(r);
}

/* One at a time: each takes the store's writer lock. */
static void collect_next(struct relayout *r)
{
    struct leaving *l = r->leaving;
    while (l && !l->due)
        l = l->next;
    if (!l || r->on_pool || r->stopped)
        return;
    l->due = false;
    r->on_pool = l; /* before the pool looks at it */
    if (pool_submit(r->d->loop, collect_work, collect_done, r, NULL) < 0)
        r->on_pool = NULL; /* the next look tries again */
    else
        r->d->serving->n_ops++;
}

/* ---- looking: copies, since the store is not called from within its list --------------------------- */

struct outdated {
    struct digest key;
    struct artifact_origin origin; /* owned texts */
    char *scheme, *layout_name;    /* owned */
    enum qd_layout layout;
    uint64_t last_use_s;
    bool pinned;
};

struct look {
    const struct relayout *r;
    struct outdated *items; /* owned */
    size_t n, room;
    uint32_t layouts;       /* of the items, bits */
    struct digest *natives; /* owned; keys of what is in the native layout */
    size_t n_natives, natives_room;
};

static void look_clear_cleanup(struct look *k)
{
    for (size_t i = 0; i < k->n; i++) {
        free((char *)(uintptr_t)k->items[i].origin.model);
        free((char *)(uintptr_t)k->items[i].origin.recipe);
        free(k->items[i].scheme);
        free(k->items[i].layout_name);
    }
    free(k->items);
    free(k->natives);
}

/* QD_N_LAYOUTS: one of another quantd. */
static enum qd_layout layout_of(const struct manifest *m)
{
    int layout = qd_layout_by_name(m->layout);
    return layout < 0 ? QD_N_LAYOUTS : (enum qd_layout)layout;
}

static bool is_outdated(const struct hardware *h, enum qd_layout layout)
{
    if (layout == QD_N_LAYOUTS)
        return true;
    return layout != QD_LAYOUT_PORTABLE && layout != h->native &&
           ((layout_needs(layout) & ~h->feature_bits) || (h->superseded >> layout & 1));
}

/* One item more of @item_bytes fits at *@items. */
static bool make_room(void **items, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return true;
    void *grown = reallocarray(*items, *room ? 2 * *room : 16, item_bytes);
    if (!grown)
        return false;
    *items = grown;
    *room = *room ? 2 * *room : 16;
    return true;
}

static int take_native(struct look *k, const struct digest *key)
{
    void *natives = k->natives;
    if (!make_room(&natives, k->n_natives, &k->natives_room, sizeof *k->natives))
        return QD_E_NO_MEMORY;
    k->natives = natives;
    k->natives[k->n_natives++] = *key;
    return 0;
}

static int take_outdated(struct look *k, const struct store_entry *e, enum qd_layout layout)
{
    const struct manifest *m = e->manifest;
    void *items = k->items;
    if (!make_room(&items, k->n, &k->room, sizeof *k->items))
        return QD_E_NO_MEMORY;
    k->items = items;
    struct outdated *o = &k->items[k->n++];
    *o = (struct outdated){.key = m->key,
                           .origin = {strdup(m->model), m->source, strdup(m->recipe), m->encoder_revision},
                           .scheme = strdup(m->scheme),
                           .layout_name = strdup(m->layout),
                           .layout = layout,
                           .last_use_s = e->last_use_s,
                           .pinned = e->pinned};
    k->layouts |= UINT32_C(1) << layout;
    return o->origin.model && o->origin.recipe && o->scheme && o->layout_name ? 0 : QD_E_NO_MEMORY;
}

static int take_entry(const struct store_entry *e, void *data)
{
    struct look *k = data;
    const struct hardware *h = k->r->d->hardware;
    const enum qd_layout layout = layout_of(e->manifest);
    if (!e->trusted)
        return 0;
    if (layout == h->native)
        return take_native(k, &e->manifest->key);
    return is_outdated(h, layout) ? take_outdated(k, e, layout) : 0;
}

static int by_last_use(const void *a, const void *b)
{
    const struct outdated *x = a, *y = b;
    return (x->last_use_s < y->last_use_s) - (x->last_use_s > y->last_use_s);
}

/* ---- deciding ----------------------------------------------------------------------------------------- */

static bool key_in(const struct artifact_origin *o, enum qd_layout layout, struct digest *ret)
{
    return artifact_key(&o->source, o->recipe, qd_layout_info(layout)->name, o->encoder_revision, ret, NULL) == 0;
}

static bool is_there(const struct look *k, const struct digest *key)
{
    size_t i = 0;
    while (i < k->n_natives && !digest_equal(&k->natives[i], key))
        i++;
    return i < k->n_natives;
}

/* Somebody wants what it is made of, it can be packed for this CPU, and it is not there yet. */
static bool has_successor_to_come(const struct look *k, const struct outdated *o)
{
    const struct daemon *d = k->r->d;
    struct digest portable, successor;
    uint64_t age_s = (uint64_t)d->config->repack_h * 3600, now_s = (uint64_t)time(NULL);
    if (d->hardware->native == QD_LAYOUT_PORTABLE || o->last_use_s + age_s <= now_s ||
        !key_in(&o->origin, QD_LAYOUT_PORTABLE, &portable) || !key_in(&o->origin, d->hardware->native, &successor))
        return false;
    return !unpacked_get(&d->serving->unpacked, &portable, d->hardware->native) && !is_there(k, &successor);
}

static void supersede(struct relayout *r, struct outdated *o)
{
    struct leaving *l = calloc(1, sizeof *l);
    if (!l)
        return; /* the next look tries again */
    *l = (struct leaving){.next = r->leaving, .key = o->key, .layout = o->layout, .probe = -1, .wd = -1, .due = true};
    l->model = strdup(o->origin.model); /* for people: NULL at worst */
    l->scheme = steal(&o->scheme);
    l->layout_name = steal(&o->layout_name);
    r->leaving = l;
    serving_artifact_changed(r->d, &o->key, l->model, l->scheme, l->layout_name, "superseded");
}

static void decide(struct relayout *r, const struct look *k, struct outdated *o)
{
    struct qd_error err;
    if (find_leaving(r, &o->key))
        return;
    if (!has_successor_to_come(k, o)) {
        if (!o->pinned)
            supersede(r, o);
        return;
    }
    if (make_in_background(r->d, &o->origin, r->d->hardware->native, &err) < 0)
        log_line(LOG_AT_WARNING, "hardware", "not packed for this CPU%s%s", log_field("model", o->origin.model),
                 log_field("reason", err.message));
}

/* The hardware came back: what is outdated no more stays. The rest is tried again, where nothing else would. */
static void let_stay(struct relayout *r)
{
    for (struct leaving *l = r->leaving, *next; l; l = next) {
        next = l->next;
        if (l != r->on_pool && !is_outdated(r->d->hardware, l->layout))
            take_out(r, l);
        else
            l->due |= l->wd < 0;
    }
}

static bool is_being_made(const struct jobs *j, enum qd_layout layout)
{
    for (size_t i = 0; i < jobs_n(j); i++) {
        struct job_view v = jobs_at(j, i);
        if (v.progress.state != JOB_FAILED && strcmp(v.progress.layout, qd_layout_info(layout)->name) == 0)
            return true;
    }
    return false;
}

/* Layouts of which nothing is left are no concern any more: whoever asks for one by name from now on may keep it. */
static void forget_layouts(struct relayout *r, uint32_t present)
{
    struct hardware *h = &r->d->serving->hardware;
    uint32_t before = h->superseded;
    for (int l = 0; l < QD_N_LAYOUTS; l++)
        if ((before >> l & 1) && !(present >> l & 1) && !is_being_made(r->d->jobs, (enum qd_layout)l))
            h->superseded &= ~(UINT32_C(1) << l);
    struct qd_error err;
    if (h->superseded != before && hardware_store(r->d->config, h, &err) < 0)
        log_error("hardware", &err);
}

void relayout_look(struct relayout *r)
{
    CLEANUP(look_clear) struct look k = {.r = r};
    if (r->stopped)
        return;
    r->look_again = r->on_pool != NULL;
    let_stay(r);
    if (store_list(r->d->store, take_entry, &k) < 0)
        log_line(LOG_AT_ERROR, "hardware", "no memory to look at packed artifacts");
    if (k.n > 0)
        qsort(k.items, k.n, sizeof *k.items, by_last_use);
    for (size_t i = 0; i < k.n; i++)
        decide(r, &k, &k.items[i]);
    r->n_outdated = k.n;
    if (r->d->hardware->superseded)
        forget_layouts(r, k.layouts);
    collect_next(r);
}

void relayout_made(struct relayout *r, enum qd_layout layout)
{
    if (r && (r->n_outdated > 0 || r->d->hardware->superseded >> layout & 1))
        relayout_look(r);
}

/* ---- life ------------------------------------------------------------------------------------------------ */

static void on_timer_closed(uv_handle_t *h)
{
    free(h);
}

int relayout_new(struct daemon *d, struct relayout **ret, struct qd_error *err)
{
    CLEANUP(free) struct relayout *r = calloc(1, sizeof *r);
    CLEANUP(free) uv_timer_t *pause = calloc(1, sizeof *pause);
    if (!r || !pause)
        return err_new(err, QD_E_NO_MEMORY, "relayout");
    (void)uv_timer_init(d->loop, pause); /* never fails */
    pause->data = r;
    r->d = d;
    r->pause = steal(&pause);
    *ret = steal(&r);
    return 0;
}

void relayout_stop(struct relayout *r)
{
    if (!r || r->stopped)
        return;
    r->stopped = true;
    uv_close((uv_handle_t *)r->pause, on_timer_closed);
    r->watch = watch_free(r->watch);
}

struct relayout *relayout_free(struct relayout *r)
{
    if (!r)
        return NULL;
    while (r->leaving) {
        struct leaving *l = r->leaving;
        r->leaving = l->next;
        leaving_free(r, l);
    }
    free(r);
    return NULL;
}
