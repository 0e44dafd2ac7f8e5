#include "daemon/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "daemon/scan.h"
#include "daemon/watch.h"
#include "kernels/core/cleanup.h"

enum {
    SETTLE_DEBOUNCE_MS = 50, /* events come in bursts; one look for all */
    SCAN_PAUSE_MS = 100,     /* between two scans of a root, and ten times as long as one takes: */
    SCAN_DUTY = 10           /* a tenth of a core at most, however busy the folder is */
};
#define NEVER UINT64_MAX

struct entry {
    struct catalog_model m;
    const struct scan_model *seen; /* borrows the root's scan */
    uint64_t print;
    uint64_t since_ms; /* loop time when this print was first seen */
    bool fresh;        /* never seen to change */
    bool announced;    /* somebody heard of it */
    bool clashes;      /* bad only because another has its name */
    size_t rank;       /* of its root: the earlier root keeps a name, whichever scan was done first */
    char *name;        /* owned: a name other than the scan's, NULL mostly */
    char *format;      /* owned */
    char *note;        /* owned: why a worker refused it */
};

struct root {
    struct catalog *catalog;
    char *path; /* owned */
    uint32_t rescan_s;
    struct scan *scan;     /* owned; NULL before the first */
    struct entry *entries; /* owned; one per model of the scan, same order */
    int *wds;              /* owned; sorted */
    size_t n_wds;
    uint64_t due_ms; /* when to scan, NEVER: nothing due */
    uint64_t not_before_ms;
    uint64_t started_ms;
    bool scanning, gone;
    char said[256]; /* problem logged last */
};

struct catalog {
    struct daemon *daemon;
    catalog_listener *listener;
    void *data;
    void (*scanned)(void *data);
    void *scanned_data;
    struct watch *watch; /* owned */
    uv_timer_t timer;
    struct root **roots; /* owned, and what they point to */
    size_t n_roots;
    struct entry **names; /* owned array; entries sorted by name */
    size_t n_names;
    unsigned n_scanning;
    uint64_t generation;
    bool stopping, timer_closed;
};

struct scan_job {
    struct root *root;
    struct watch *watch;
    const char *path;
    struct scan *scan;
};

static void schedule(struct catalog *c);

/* ---- memory ------------------------------------------------------------------------------------ */

static void entries_free(struct entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(entries[i].name);
        free(entries[i].format);
        free(entries[i].note);
    }
    free(entries);
}

static size_t n_entries(const struct root *r)
{
    return r->scan ? r->scan->n_models : 0;
}

static struct root *root_free(struct root *r)
{
    if (!r)
        return NULL;
    entries_free(r->entries, n_entries(r));
    (void)scan_free(r->scan);
    free(r->wds);
    free(r->path);
    free(r);
    return NULL;
}
DEFINE_CLEANUP(root_free, struct root *)

static void finish_if_stopped(struct catalog *c)
{
    if (!c->stopping || c->n_scanning > 0 || !c->timer_closed)
        return;
    for (size_t i = 0; i < c->n_roots; i++)
        (void)root_free(c->roots[i]);
    (void)watch_free(c->watch);
    free(c->roots);
    free(c->names);
    free(c);
}

/* ---- names --------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    int r = strcmp(x->m.name, y->m.name);
    if (!r)
        r = (x->rank > y->rank) - (x->rank < y->rank);
    return r ? r
             : (x->m.generation > y->m.generation) - (x->m.generation < y->m.generation); /* the first keeps the name */
}

static bool collect(struct catalog *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_roots; i++)
        n += n_entries(c->roots[i]);
    struct entry **names = reallocarray(c->names, n + 1, sizeof(struct entry *));
    if (!names)
        return false;
    c->names = names;
    c->n_names = n;
    for (size_t i = 0; i < c->n_roots; i++)
        for (size_t k = 0; k < n_entries(c->roots[i]); k++) {
            c->roots[i]->entries[k].rank = i;
            *names++ = &c->roots[i]->entries[k];
        }
    qsort(c->names, n, sizeof *c->names, by_name);
    return true;
}

static void rename_after_root(struct entry *e)
{
    const char *slash = strrchr(e->m.root, '/');
    if (!e->name && asprintf(&e->name, "%s/%s", slash + 1, e->seen->name) < 0)
        e->name = NULL;
    if (e->name)
        e->m.name = e->name;
}

static void turn_bad(struct entry *e, const char *problem)
{
    e->m.state = MODEL_BAD;
    e->m.problem = problem;
}

static bool same_name(const struct catalog *c, size_t i)
{
    return i > 0 && strcmp(c->names[i]->m.name, c->names[i - 1]->m.name) == 0;
}

static void judge_clash(struct entry *e, bool clashes)
{
    if (clashes) {
        turn_bad(e, "another model has this name");
    } else if (e->clashes) { /* the other one is gone */
        e->m.state = e->seen->bad ? MODEL_BAD : MODEL_READY;
        e->m.problem = e->seen->problem;
    }
    e->clashes = clashes;
}

static void settle_names(struct catalog *c)
{
    if (!collect(c))
        return;
    for (size_t i = 1; i < c->n_names; i++)
        if (same_name(c, i))
            rename_after_root(c->names[i]);
    qsort(c->names, c->n_names, sizeof *c->names, by_name);
    for (size_t i = 0; i < c->n_names; i++)
        judge_clash(c->names[i], same_name(c, i));
}

static struct entry *find_entry(const struct catalog *c, const char *name)
{
    size_t low = 0, high = c->n_names;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(c->names[middle]->m.name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->n_names && strcmp(c->names[low]->m.name, name) == 0 ? c->names[low] : NULL;
}

/* ---- from a scan to entries ------------------------------------------------------------------------ */

static void announce(struct catalog *c, struct entry *e, enum catalog_change change)
{
    static const char *const words[] = {
        [MODEL_ADDED] = "added", [MODEL_CHANGED] = "changed", [MODEL_REMOVED] = "removed", [MODEL_TURNED_BAD] = "bad"};
    log_line(LOG_AT_INFO, "catalog", "model %s%s%s%s", words[change], log_field("model", e->m.name),
             log_field("path", e->m.path), change == MODEL_TURNED_BAD ? log_field("problem", e->m.problem) : "");
    e->announced = change != MODEL_REMOVED;
    c->listener(&e->m, change, c->data);
}

static int64_t age_ms(struct timespec then)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    return ((int64_t)now.tv_sec - then.tv_sec) * 1000 + (now.tv_nsec - then.tv_nsec) / 1000000;
}

/* At rest: unchanged for the quiet time as we saw it, or, never seen to change, by its files' own change times. */
static bool is_at_rest(const struct catalog *c, const struct entry *e)
{
    uint64_t quiet = c->daemon->config->quiet_ms;
    return uv_now(c->daemon->loop) - e->since_ms >= quiet || (e->fresh && age_ms(e->seen->newest) >= (int64_t)quiet);
}

static void fill(struct entry *e, const struct root *r, const struct scan_model *seen)
{
    e->seen = seen;
    e->m.name = e->name ? e->name : seen->name;
    e->m.path = seen->path;
    e->m.first_file = seen->first_file;
    e->m.files = seen->files;
    e->m.root = r->path;
    e->m.bytes = seen->bytes;
    e->m.stamp = seen->stamp;
    e->m.calibration = seen->calibration;
    e->m.format = e->format ? e->format : "";
}

/* What changes a model's state: its files changed, or they have rested long enough. */
static void judge(struct catalog *c, struct entry *e)
{
    const struct scan_model *seen = e->seen;
    if (e->m.generation == 0 || seen->print != e->print) {
        e->fresh = e->m.generation == 0;
        e->m.generation = ++c->generation;
        e->m.state = MODEL_SETTLING;
        e->since_ms = uv_now(c->daemon->loop);
        e->print = seen->print;
        free(steal(&e->note));
    }
    e->m.problem = e->note ? e->note : seen->problem;
    bool incomplete = seen->problem && !seen->bad; /* more files may come */
    if (e->m.state == MODEL_SETTLING && !incomplete && is_at_rest(c, e))
        e->m.state = seen->bad ? MODEL_BAD : MODEL_READY;
}

/* The entry of the same path, out of the old ones; both lists are sorted by path. */
static struct entry *take_old(struct root *r, size_t *at, const char *path)
{
    while (*at < n_entries(r)) {
        struct entry *old = &r->entries[*at];
        int order = strcmp(old->m.path, path);
        if (order > 0)
            return NULL;
        ++*at;
        if (order == 0)
            return old;
    }
    return NULL;
}

/* Moves what is remembered of @old into @e. */
static void carry_over(struct entry *e, struct entry *old)
{
    *e = *old;
    old->name = old->format = old->note = NULL;
    old->seen = NULL; /* taken */
}

static void announce_removed(struct catalog *c, struct root *r)
{
    for (size_t i = 0; i < n_entries(r); i++)
        if (r->entries[i].seen && r->entries[i].announced)
            announce(c, &r->entries[i], MODEL_REMOVED);
}

static void announce_changes(struct catalog *c, struct root *r, const enum model_state *before)
{
    for (size_t i = 0; i < n_entries(r); i++) {
        struct entry *e = &r->entries[i];
        bool heard = e->announced;
        if (e->m.state == MODEL_READY && before[i] != MODEL_READY)
            announce(c, e, heard ? MODEL_CHANGED : MODEL_ADDED);
        else if (e->m.state == MODEL_BAD && before[i] != MODEL_BAD)
            announce(c, e, MODEL_TURNED_BAD);
    }
}

/* Puts @scan in place of the root's; takes it. */
static void merge(struct catalog *c, struct root *r, struct scan *scan)
{
    size_t n = scan->n_models, at = 0;
    struct entry *entries = calloc(n + 1, sizeof *entries);
    CLEANUP(free) enum model_state *before = calloc(n + 1, sizeof *before);
    if (!entries || !before) {
        free(entries);
        (void)scan_free(scan);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct entry *old = take_old(r, &at, scan->models[i].path);
        if (old)
            carry_over(&entries[i], old);
        before[i] = old ? entries[i].m.state : MODEL_SETTLING;
        fill(&entries[i], r, &scan->models[i]);
        judge(c, &entries[i]);
    }
    announce_removed(c, r);
    entries_free(r->entries, n_entries(r));
    (void)scan_free(r->scan);
    r->scan = scan;
    r->entries = entries;
    settle_names(c);
    announce_changes(c, r, before);
}

/* ---- watches --------------------------------------------------------------------------------------- */

static bool has_wd(const int *wds, size_t n, int wd)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (wds[middle] < wd)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && wds[low] == wd;
}

static bool wanted_elsewhere(const struct catalog *c, const struct root *but, int wd)
{
    for (size_t i = 0; i < c->n_roots; i++)
        if (c->roots[i] != but && (c->roots[i]->scanning || has_wd(c->roots[i]->wds, c->roots[i]->n_wds, wd)))
            return true; /* a scan under way may have taken it up just now */
    return false;
}

static void swap_wds(struct catalog *c, struct root *r, const struct scan *scan)
{
    int *wds = malloc((scan->n_wds + 1) * sizeof *wds);
    if (!wds)
        return; /* the old list stays: events of new folders reach every root that is scanning, or none */
    if (scan->n_wds)
        memcpy(wds, scan->wds, scan->n_wds * sizeof *wds);
    for (size_t i = 0; i < r->n_wds; i++)
        if (!has_wd(wds, scan->n_wds, r->wds[i]) && !wanted_elsewhere(c, r, r->wds[i]))
            watch_remove(c->watch, r->wds[i]);
    free(r->wds);
    r->wds = wds;
    r->n_wds = scan->n_wds;
}

static void mark_due(struct root *r, uint64_t when_ms)
{
    if (when_ms < r->not_before_ms)
        when_ms = r->not_before_ms;
    if (when_ms < r->due_ms)
        r->due_ms = when_ms;
}

static void on_event(int wd, bool is_folder, const char *name, void *data)
{
    struct catalog *c = data;
    bool known = false;
    if (c->stopping || (!is_folder && !scan_cares(name)))
        return;
    uint64_t soon = uv_now(c->daemon->loop) + SETTLE_DEBOUNCE_MS;
    for (size_t i = 0; i < c->n_roots; i++) {
        struct root *r = c->roots[i];
        if (wd >= 0 && !has_wd(r->wds, r->n_wds, wd))
            continue;
        known = true;
        mark_due(r, soon);
    }
    for (size_t i = 0; !known && i < c->n_roots; i++)
        if (c->roots[i]->scanning)
            mark_due(c->roots[i], soon); /* a folder that the scan under way has just taken up */
    schedule(c);
}

/* ---- scans ------------------------------------------------------------------------------------------- */

static int scan_work(void *data, struct qd_error *err)
{
    struct scan_job *job = data;
    return scan_root(job->path, job->watch, &job->scan, err);
}

static void say_problem(struct root *r, const struct scan *scan)
{
    const char *problem = scan->problem[0]  ? scan->problem
                          : scan->unwatched ? "not every folder can be watched: raise fs.inotify.max_user_watches"
                                            : "";
    if (strcmp(problem, r->said) == 0)
        return;
    (void)snprintf(r->said, sizeof r->said, "%s", problem);
    if (problem[0])
        log_line(LOG_AT_WARNING, "watch", "%s%s", problem, log_field("root", r->path));
    else
        log_line(LOG_AT_NOTICE, "watch", "all is well again%s", log_field("root", r->path));
}

/* When to look next by itself: at the end of the quiet time of what settles, and by the interval. */
static void plan_next(struct catalog *c, struct root *r)
{
    uint64_t now = uv_now(c->daemon->loop), took = now - r->started_ms;
    r->not_before_ms = now + SCAN_PAUSE_MS + took * SCAN_DUTY;
    if (r->due_ms < r->not_before_ms)
        r->due_ms = r->not_before_ms; /* events came during the scan */
    for (size_t i = 0; i < n_entries(r); i++) {
        const struct entry *e = &r->entries[i];
        if (e->m.state == MODEL_SETTLING && (!e->seen->problem || e->seen->bad))
            mark_due(r, e->since_ms + c->daemon->config->quiet_ms);
    }
    if (r->rescan_s)
        mark_due(r, now + (uint64_t)r->rescan_s * 1000);
}

static void scan_done(void *data, int result, const struct qd_error *err)
{
    CLEANUP(free) struct scan_job *job = data;
    struct root *r = job->root;
    struct catalog *c = r->catalog;
    r->scanning = false;
    c->n_scanning--;
    if (r->gone || c->stopping) {
        (void)scan_free(job->scan);
        if (r->gone)
            (void)root_free(r);
        finish_if_stopped(c);
        return;
    }
    if (result < 0) {
        log_error("watch", err);
    } else {
        swap_wds(c, r, job->scan);
        say_problem(r, job->scan);
        merge(c, r, job->scan);
    }
    plan_next(c, r);
    schedule(c);
    if (c->scanned)
        c->scanned(c->scanned_data);
}

static void start_scan(struct catalog *c, struct root *r)
{
    struct qd_error err;
    CLEANUP(free) struct scan_job *job = calloc(1, sizeof *job);
    r->due_ms = NEVER;
    r->started_ms = uv_now(c->daemon->loop);
    if (!job) {
        mark_due(r, r->started_ms + 1000);
        return;
    }
    *job = (struct scan_job){.root = r, .watch = c->watch, .path = r->path};
    if (pool_submit(c->daemon->loop, scan_work, scan_done, job, &err) < 0) {
        log_error("watch", &err);
        mark_due(r, r->started_ms + 1000);
        return;
    }
    (void)steal(&job); /* scan_done owns it */
    r->scanning = true;
    c->n_scanning++;
}

static void on_timer(uv_timer_t *timer)
{
    struct catalog *c = timer->data;
    uint64_t now = uv_now(c->daemon->loop);
    for (size_t i = 0; i < c->n_roots; i++)
        if (!c->roots[i]->scanning && c->roots[i]->due_ms <= now)
            start_scan(c, c->roots[i]);
    schedule(c);
}

/* The timer runs only while something is due. */
static void schedule(struct catalog *c)
{
    uint64_t due = NEVER, now = uv_now(c->daemon->loop);
    for (size_t i = 0; i < c->n_roots; i++)
        if (!c->roots[i]->scanning && c->roots[i]->due_ms < due)
            due = c->roots[i]->due_ms;
    if (due == NEVER || c->stopping)
        (void)uv_timer_stop(&c->timer);
    else
        (void)uv_timer_start(&c->timer, on_timer, due > now ? due - now : 0, 0); /* fails on a closing handle only */
}

/* ---- the face ---------------------------------------------------------------------------------------- */

static struct root *root_new(struct catalog *c, const struct config_root *cr)
{
    CLEANUP(root_free) struct root *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(cr->path)))
        return NULL;
    r->catalog = c;
    r->due_ms = uv_now(c->daemon->loop);
    return steal(&r);
}

static struct root *take_root(struct root **roots, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        if (roots[i] && strcmp(roots[i]->path, path) == 0)
            return steal(&roots[i]);
    return NULL;
}

static void drop_root(struct catalog *c, struct root *r)
{
    announce_removed(c, r);
    for (size_t i = 0; i < r->n_wds; i++)
        if (!wanted_elsewhere(c, r, r->wds[i]))
            watch_remove(c->watch, r->wds[i]);
    r->gone = true;
    if (!r->scanning)
        (void)root_free(r);
}

int catalog_reload(struct catalog *c, struct qd_error *err)
{
    const struct config *config = c->daemon->config;
    struct root **roots = calloc(config->n_roots + 1, sizeof(struct root *)), **old = c->roots;
    if (!roots)
        return err_new(err, QD_E_NO_MEMORY, "catalog");
    size_t n = 0, n_old = c->n_roots;
    for (size_t i = 0; i < config->n_roots; i++) {
        struct root *r = take_root(old, n_old, config->roots[i].path);
        if (!r)
            r = root_new(c, &config->roots[i]);
        if (!r)
            continue;
        r->rescan_s = config->roots[i].rescan_s;
        roots[n++] = r;
    }
    c->roots = roots;
    c->n_roots = n;
    settle_names(c); /* first: who hears of a removal may look names up */
    for (size_t i = 0; i < n_old; i++)
        if (old[i])
            drop_root(c, old[i]);
    free(old);
    schedule(c);
    return 0;
}

int catalog_new(struct daemon *d, catalog_listener *listener, void *data, struct catalog **ret, struct qd_error *err)
{
    CLEANUP(free) struct catalog *c = calloc(1, sizeof *c);
    if (!c)
        return err_new(err, QD_E_NO_MEMORY, "catalog");
    *c = (struct catalog){.daemon = d, .listener = listener, .data = data};
    int r = watch_new(d->loop, on_event, c, &c->watch, err);
    if (r < 0)
        return r;
    (void)uv_timer_init(d->loop, &c->timer); /* never fails */
    c->timer.data = c;
    struct catalog *made = steal(&c);
    r = catalog_reload(made, err);
    if (r < 0) {
        (void)catalog_free(made);
        return r;
    }
    *ret = made;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct catalog *c = handle->data;
    c->timer_closed = true;
    finish_if_stopped(c);
}

struct catalog *catalog_free(struct catalog *c)
{
    if (c) {
        c->stopping = true;
        uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    }
    return NULL;
}

void catalog_on_scanned(struct catalog *c, void (*scanned)(void *data), void *data)
{
    c->scanned = scanned;
    c->scanned_data = data;
}

bool catalog_busy(struct catalog *c)
{
    watch_drain(c->watch);
    if (c->n_scanning > 0)
        return true;
    for (size_t i = 0; i < c->n_roots; i++)
        if (!c->roots[i]->scan || (c->roots[i]->due_ms != NEVER && c->roots[i]->rescan_s == 0))
            return true;
    return false;
}

unsigned catalog_rescan(struct catalog *c)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        c->roots[i]->not_before_ms = 0;
        mark_due(c->roots[i], uv_now(c->daemon->loop));
    }
    schedule(c);
    return (unsigned)c->n_roots;
}

void catalog_look_again(struct catalog *c, const struct catalog_model *m)
{
    for (size_t i = 0; i < c->n_roots; i++)
        if (strcmp(c->roots[i]->path, m->root) == 0)
            mark_due(c->roots[i], uv_now(c->daemon->loop));
    schedule(c);
}

const struct catalog_model *catalog_find(const struct catalog *c, const char *name)
{
    const struct entry *e = find_entry(c, name);
    return e ? &e->m : NULL;
}

size_t catalog_n(const struct catalog *c)
{
    return c->n_names;
}

const struct catalog_model *catalog_at(const struct catalog *c, size_t i)
{
    return &c->names[i]->m;
}

const char *catalog_nearest(const struct catalog *c, const char *name)
{
    CLEANUP(free) const char **names = calloc(c->n_names + 1, sizeof *names);
    for (size_t i = 0; names && i < c->n_names; i++)
        names[i] = c->names[i]->m.name;
    return names ? nearest_name(name, names) : NULL;
}

void catalog_note(struct catalog *c, const char *name, const char *format, const char *problem)
{
    struct entry *e = find_entry(c, name);
    if (!e)
        return;
    if (format && format[0]) {
        free(e->format);
        e->format = strdup(format);
        e->m.format = e->format ? e->format : "";
    }
    if (!problem || e->m.state == MODEL_BAD) /* the first reason stays: m.problem borrows it */
        return;
    free(e->note);
    e->note = strdup(problem);
    turn_bad(e, e->note ? e->note : "no model");
    announce(c, e, MODEL_TURNED_BAD);
}

size_t catalog_n_roots(const struct catalog *c)
{
    return c->n_roots;
}

struct catalog_root catalog_root_at(const struct catalog *c, size_t i)
{
    const struct root *r = c->roots[i];
    bool missing = !r->scan || r->scan->missing;
    return (struct catalog_root){.path = r->path,
                                 .n_models = (unsigned)n_entries(r),
                                 .scanned = r->scan != NULL,
                                 .state = missing       ? "missing"
                                          : r->rescan_s ? "polling"
                                                        : "watching"};
}
