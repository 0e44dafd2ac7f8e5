#include "daemon/job.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/failures.h"
#include "daemon/key_memo.h"
#include "daemon/known.h"
#include "daemon/launcher.h"
#include "daemon/log.h"
#include "daemon/stamp.h"
#include "quant/policy.h"

enum {
    BOOT_ID_MAX = 64,
    REMEMBERED_MAX = 256, /* jobs kept without a worker: paused and failed ones */
    JOBS_AT_ONCE_MAX = 4, /* a job uses every core: more at once only share them */
    RATE_MS = 1000,       /* the rate is over the last second at least */
};

#define BIT(state) (1u << (state))
#define ANY_END    (BIT(JOB_FAILED) | BIT(JOB_CANCELLED) | BIT(JOB_PAUSED) | BIT(JOB_QUEUED))

/*
 * PLANNING at once: from a portable artifact. QUEUED again: promoted by a new launch, preempted, or asked for again
 * while it was pausing.
 */
static const unsigned job_next[JOB_STATES] = {
    [JOB_QUEUED] = BIT(JOB_PROBING) | BIT(JOB_PLANNING) | BIT(JOB_FAILED) | BIT(JOB_CANCELLED) | BIT(JOB_PAUSED),
    [JOB_PROBING] = BIT(JOB_HASHING) | ANY_END,
    [JOB_HASHING] = BIT(JOB_PLANNING) | BIT(JOB_READY) | ANY_END,
    [JOB_PLANNING] = BIT(JOB_CALIBRATING) | BIT(JOB_RUNNING) | BIT(JOB_READY) | ANY_END, /* READY: for the plan alone */
    [JOB_CALIBRATING] = BIT(JOB_RUNNING) | BIT(JOB_READY) | ANY_END,
    [JOB_RUNNING] = BIT(JOB_COMPARING) | BIT(JOB_SEALING) | ANY_END,
    [JOB_COMPARING] = BIT(JOB_SEALING) | ANY_END,
    [JOB_SEALING] = BIT(JOB_READY) | BIT(JOB_FAILED), /* past cancelling: a finished file is kept */
    [JOB_PAUSED] = BIT(JOB_QUEUED) | BIT(JOB_CANCELLED),
    [JOB_FAILED] = BIT(JOB_QUEUED) | BIT(JOB_CANCELLED),
};

static const char *const state_names[JOB_STATES] = {
    [JOB_QUEUED] = "queued",     [JOB_PROBING] = "probing",         [JOB_HASHING] = "hashing",
    [JOB_PLANNING] = "planning", [JOB_CALIBRATING] = "calibrating", [JOB_COMPARING] = "comparing",
    [JOB_RUNNING] = "running",   [JOB_SEALING] = "sealing",         [JOB_READY] = "ready",
    [JOB_FAILED] = "failed",     [JOB_CANCELLED] = "cancelled",     [JOB_PAUSED] = "paused",
};

/* What becomes of a launch that was told to stop. */
enum intent { INTENT_RUN, INTENT_PAUSE, INTENT_CANCEL, INTENT_REQUEUE, INTENT_MERGED };

struct job {
    struct jobs *owner;
    struct job *next; /* oldest first */
    uint32_t number;
    enum job_state state;
    enum intent intent;
    char *model, *first_file; /* owned; first_file NULL: by descriptor, or from an artifact */
    int source_fd;            /* owned; -1: by path, or from an artifact */
    int imatrix_fd;           /* owned; -1: none, or given back until somebody asks again */
    struct file_stamp stamp;
    uint64_t calibration;
    struct recipe recipe;
    enum qd_layout layout;
    struct digest portable; /* what it packs; where @layout is a packed one */
    bool interactive, plan_only;
    uid_t uid;
    struct job_waiter *waiters;
    struct launch *launch; /* NULL: none runs */
    bool has_key;
    struct digest key;
    struct job_progress progress;
    char tensor[128];
    uint64_t rate_from_bytes, rate_from_ms;
    uv_timer_t *grace; /* owned by the loop; NULL: not running */
    struct qd_error err;
    unsigned n_failures;
    uint64_t retry_at; /* seconds since 1970; of a failed one */
};

struct jobs {
    struct daemon *d;
    struct job *list; /* owned */
    uint32_t n_numbers;
    struct known *known;       /* owned */
    struct failures *failures; /* owned; of earlier runs of the daemon, too */
    char boot_id[BOOT_ID_MAX];
    struct recent_key {   /* the answer given last, good for one turn of the loop */
        char *first_file; /* owned */
        char recipe[RECIPE_TEXT_MAX];
        struct file_stamp stamp; /* of it */
        uint64_t calibration;
        enum qd_layout layout;
        struct digest key;
        uint64_t turn;
    } recent;
    struct key_memo key_memo;
    uv_timer_t *kick; /* schedules from the loop, never from inside a call */
    uv_timer_t *stop_timer;
    bool stopping;
    void (*stopped)(void *);
    void *stopped_data;
    void (*changed)(const struct job_view *, void *);
    void *changed_data;
};

static void schedule_soon(struct jobs *j);

/* ---- timers: allocated, because the loop keeps them a turn longer than we --------------------- */

static void on_timer_closed(uv_handle_t *h)
{
    free(h);
}

static uv_timer_t *timer_new(uv_loop_t *loop, void *data)
{
    uv_timer_t *t = calloc(1, sizeof *t);
    if (t) {
        (void)uv_timer_init(loop, t); /* cannot fail */
        t->data = data;
    }
    return t;
}

static uv_timer_t *timer_free(uv_timer_t *t)
{
    if (t)
        uv_close((uv_handle_t *)t, on_timer_closed);
    return NULL;
}

/* ---- views ----------------------------------------------------------------------------------------- */

const char *job_state_name(enum job_state s)
{
    return state_names[s];
}

static bool is_active(const struct job *job)
{
    return job->launch || job->state == JOB_QUEUED;
}

static bool packs(const struct job *job)
{
    return job->layout != QD_LAYOUT_PORTABLE;
}

/* Gone with its descriptor. */
static bool is_by_descriptor(const struct job *job)
{
    return !job->first_file && !packs(job);
}

static uint32_t count_waiters(const struct job *job)
{
    uint32_t n = 0;
    for (const struct job_waiter *w = job->waiters; w; w = w->next)
        n++;
    return n;
}

static struct job_view view_of(const struct job *job)
{
    return (struct job_view){.progress = job->progress,
                             .interactive = job->interactive,
                             .n_waiters = count_waiters(job),
                             .uid = job->uid,
                             .err = job->state == JOB_FAILED ? &job->err : NULL,
                             .retry_at = job->retry_at};
}

size_t jobs_n(const struct jobs *j)
{
    size_t n = 0;
    for (const struct job *job = j->list; job; job = job->next)
        n++;
    return n;
}

struct job_view jobs_at(const struct jobs *j, size_t i)
{
    const struct job *job = j->list;
    while (i-- > 0)
        job = job->next;
    return view_of(job);
}

unsigned jobs_running(const struct jobs *j)
{
    unsigned n = 0;
    for (const struct job *job = j->list; job; job = job->next)
        n += job->launch != NULL;
    return n;
}

unsigned jobs_queued(const struct jobs *j)
{
    unsigned n = 0;
    for (const struct job *job = j->list; job; job = job->next)
        n += !job->launch && job->state == JOB_QUEUED;
    return n;
}

void jobs_set_listener(struct jobs *j, void (*changed)(const struct job_view *v, void *data), void *data)
{
    j->changed = changed;
    j->changed_data = data;
}

/* ---- states: one writer -------------------------------------------------------------------------------- */

static uint64_t now_s(void)
{
    return (uint64_t)time(NULL);
}

static void log_state(const struct job *job)
{
    char number[16];
    (void)snprintf(number, sizeof number, "%" PRIu32, job->number); /* fits */
    enum log_level level = job->state == JOB_FAILED  ? LOG_AT_WARNING
                           : job->state == JOB_READY ? LOG_AT_INFO
                                                     : LOG_AT_DEBUG;
    log_line(level, "job", "%s%s%s%s%s%s%s", state_names[job->state], log_field("job", number),
             log_field("model", job->model), log_field("scheme", scheme_name(job->recipe.scheme)),
             packs(job) ? log_field("layout", job->progress.layout) : "",
             job->state == JOB_FAILED ? log_field("error", job->err.message) : "",
             job->state == JOB_FAILED && job->err.hint[0] ? log_field("hint", job->err.hint) : "");
}

static void job_set_state(struct job *job, enum job_state s)
{
    struct jobs *j = job->owner;
    if (job->state == s)
        return;
    if (!(job_next[job->state] & BIT(s)))
        log_line(LOG_AT_ERROR, "job", "a step that the table does not know: %s after %s", state_names[s],
                 state_names[job->state]);
    job->state = s;
    job->progress.state = s;
    job->progress.done_bytes = job->progress.total_bytes = 0;
    job->progress.bytes_per_s = 0;
    job->progress.seconds_left = -1;
    job->progress.tensor = NULL;
    job->rate_from_ms = 0;
    log_state(job);
    if (j->changed) {
        struct job_view v = view_of(job);
        j->changed(&v, j->changed_data);
    }
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static struct job *job_free(struct job *job)
{
    if (!job)
        return NULL;
    job->grace = timer_free(job->grace);
    (void)fd_close(job->source_fd); /* only read */
    (void)fd_close(job->imatrix_fd);
    free(job->model);
    free(job->first_file);
    free(job);
    return NULL;
}
DEFINE_CLEANUP(job_free, struct job *)

static void take_out(struct job *job)
{
    struct job **at = &job->owner->list;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
}

static void job_drop(struct job *job)
{
    take_out(job);
    (void)job_free(job); /* returns NULL by convention */
}

/* Room for one more: the oldest that nobody waits for and nothing runs for goes. */
static void forget_oldest(struct jobs *j)
{
    size_t n = 0;
    struct job *oldest = NULL;
    for (struct job *job = j->list; job; job = job->next)
        if (!is_active(job)) {
            oldest = oldest ? oldest : job;
            n++;
        }
    if (n > REMEMBERED_MAX)
        job_drop(oldest);
}

/* ---- waiters ---------------------------------------------------------------------------------------------------- */

static void tell_progress(struct job *job)
{
    for (struct job_waiter *w = job->waiters, *next; w; w = next) {
        next = w->next;
        if (w->progress)
            w->progress(w, &job->progress);
    }
}

/* The list is taken first: a waiter that is answered may ask again at once. */
static void answer(struct job *job, const struct job_outcome *o)
{
    struct job_waiter *list = job->waiters;
    job->waiters = NULL;
    while (list) {
        struct job_waiter *w = list;
        list = w->next;
        w->next = NULL;
        w->job = NULL;
        w->done(w, o);
    }
}

static void answer_error(struct job *job, const struct qd_error *err)
{
    answer(job, &(struct job_outcome){.result = err->code, .err = err});
}

static void end_grace(struct job *job)
{
    job->grace = timer_free(job->grace);
}

static void add_waiter(struct job *job, struct job_waiter *w)
{
    struct job_waiter **at = &job->waiters;
    while (*at)
        at = &(*at)->next;
    *at = w;
    w->next = NULL;
    w->job = job;
    end_grace(job);
}

/* ---- the launch's hooks --------------------------------------------------------------------------------------------
 */

static void on_launch_state(void *data, enum job_state s)
{
    struct job *job = data;
    job_set_state(job, s);
    tell_progress(job);
}

static uint64_t loop_ms(const struct job *job)
{
    return uv_now(job->owner->d->loop) + 1; /* never 0 */
}

static void on_launch_progress(void *data, const char *tensor, uint64_t done_bytes, uint64_t total_bytes)
{
    struct job *job = data;
    struct job_progress *p = &job->progress;
    uint64_t now = loop_ms(job);
    (void)snprintf(job->tensor, sizeof job->tensor, "%s", tensor ? tensor : ""); /* cut: it is for people */
    p->tensor = job->tensor[0] ? job->tensor : NULL;
    p->done_bytes = done_bytes;
    p->total_bytes = total_bytes;
    if (job->rate_from_ms == 0 || done_bytes < job->rate_from_bytes) {
        job->rate_from_ms = now;
        job->rate_from_bytes = done_bytes;
    } else if (now - job->rate_from_ms >= RATE_MS) {
        double rate = (double)(done_bytes - job->rate_from_bytes) * 1000 / (double)(now - job->rate_from_ms);
        p->bytes_per_s = p->bytes_per_s > 0 ? 0.5 * (p->bytes_per_s + rate) : rate;
        job->rate_from_ms = now;
        job->rate_from_bytes = done_bytes;
    }
    p->seconds_left = p->bytes_per_s > 0 ? (double)(total_bytes - done_bytes) / p->bytes_per_s : -1;
    tell_progress(job);
}

/* Another name of the same content may be under way already: its job takes our waiters. */
static bool on_launch_keyed(void *data, const struct digest *key)
{
    struct job *job = data;
    for (struct job *other = job->owner->list; other; other = other->next) {
        if (other == job || !other->has_key || !other->launch || other->intent != INTENT_RUN ||
            !digest_equal(&other->key, key))
            continue;
        struct job_waiter *list = job->waiters;
        job->waiters = NULL;
        while (list) {
            struct job_waiter *w = list;
            list = w->next;
            add_waiter(other, w);
        }
        job->intent = INTENT_MERGED;
        return false;
    }
    job->key = *key;
    job->has_key = true;
    return true;
}

/* Not what is cheap to try again, what is gone with its descriptor, nor what is first to be made again to be packed. */
static bool is_remembered(const struct job *job)
{
    return !job->plan_only && !is_by_descriptor(job) &&
           !(packs(job) && (job->err.code == QD_E_CORRUPT || job->err.code == QD_E_NOT_FOUND));
}

static void job_failed(struct job *job, const struct qd_error *err)
{
    struct jobs *j = job->owner;
    const struct config *c = j->d->config;
    job->err = *err;
    job->n_failures++;
    job->imatrix_fd = fd_close(job->imatrix_fd); /* whoever asks again brings one */
    uint64_t wait = c->backoff_s;
    for (unsigned i = 1; i < job->n_failures && wait < c->backoff_max_s; i++)
        wait *= 2;
    if (wait > c->backoff_max_s)
        wait = c->backoff_max_s;
    job->retry_at = now_s() + wait;
    job_set_state(job, JOB_FAILED);
    if (!is_remembered(job)) { /* out first: who is answered may ask again at once */
        take_out(job);
        answer_error(job, err);
        (void)job_free(job); /* returns NULL by convention */
        return;
    }
    failures_put(j->failures, &(struct failure){.model = job->model,
                                                .recipe = job->recipe,
                                                .layout = job->layout,
                                                .stamp = job->stamp,
                                                .n_failures = job->n_failures,
                                                .retry_at = job->retry_at,
                                                .err = job->err});
    answer_error(job, err);
}

static void job_ready(struct job *job, const struct job_outcome *o)
{
    failures_drop(job->owner->failures, job->model, &job->recipe, job->layout);
    job_set_state(job, JOB_READY);
    answer(job, o);
    job_drop(job);
}

static void job_stopped(struct job *job, const struct qd_error *err)
{
    enum intent intent = job->intent;
    job->intent = INTENT_RUN;
    switch (intent) {
    case INTENT_RUN: /* cancelled by nobody: a failure */
        job_failed(job, err);
        break;
    case INTENT_REQUEUE:
        job_set_state(job, JOB_QUEUED);
        break;
    case INTENT_PAUSE:
        job->imatrix_fd = fd_close(job->imatrix_fd); /* as above */
        job_set_state(job, JOB_PAUSED);
        break;
    case INTENT_CANCEL:
    case INTENT_MERGED:
        job_set_state(job, JOB_CANCELLED);
        answer_error(job, err);
        job_drop(job);
        break;
    }
}

static void tell_stopped(struct jobs *j)
{
    if (!j->stopping || jobs_running(j) > 0 || !j->stopped)
        return;
    void (*stopped)(void *) = j->stopped;
    j->stopped = NULL;
    j->stop_timer = timer_free(j->stop_timer);
    stopped(j->stopped_data);
}

static void on_launch_done(void *data, const struct job_outcome *o)
{
    struct job *job = data;
    struct jobs *j = job->owner;
    job->launch = NULL;
    job->has_key = false;
    if (o->result == 0)
        job_ready(job, o);
    else if (o->result == QD_E_CANCELLED || job->intent == INTENT_CANCEL || job->intent == INTENT_PAUSE)
        job_stopped(job, o->err);
    else if (job->intent == INTENT_REQUEUE)
        job_stopped(job, o->err);
    else
        job_failed(job, o->err);
    forget_oldest(j);
    schedule_soon(j);
    tell_stopped(j);
}

/*
 * ---- the queue
 * --------------------------------------------------------------------------------------------------------
 */

static unsigned most_at_once(const struct jobs *j)
{
    const struct config *c = j->d->config;
    uint64_t ceiling = c->worker_memory > c->calibration_memory ? c->worker_memory : c->calibration_memory;
    uint64_t by_memory =
        c->worker_memory && c->calibration_memory ? policy_memory_bytes() / 2 / ceiling : JOBS_AT_ONCE_MAX;
    uint64_t most = c->jobs_max ? c->jobs_max : (uv_available_parallelism() + 1) / 2;
    if (!c->jobs_max && most > JOBS_AT_ONCE_MAX)
        most = JOBS_AT_ONCE_MAX;
    most = by_memory < most ? by_memory : most;
    return most > 0 ? (unsigned)most : 1;
}

/* Interactive ones first, then by age. */
static struct job *next_queued(const struct jobs *j)
{
    struct job *best = NULL;
    for (struct job *job = j->list; job; job = job->next)
        if (job->state == JOB_QUEUED && !job->launch && (!best || (job->interactive && !best->interactive)))
            best = job;
    return best;
}

static void job_stop_for(struct job *job, enum intent intent)
{
    job->intent = intent;
    launch_cancel(job->launch, false);
}

/* A background job that holds the place of an interactive one goes back to the queue; its journal stays. */
static void preempt(struct jobs *j)
{
    struct job *victim = NULL;
    for (struct job *job = j->list; job; job = job->next) {
        if (job->launch && job->intent != INTENT_RUN)
            return; /* a place will be free soon */
        if (job->launch && !job->interactive && job->state != JOB_SEALING)
            victim = job;
    }
    if (victim)
        job_stop_for(victim, INTENT_REQUEUE);
}

static void job_start(struct job *job)
{
    static const struct launch_hooks hooks = {
        .state = on_launch_state, .progress = on_launch_progress, .keyed = on_launch_keyed, .done = on_launch_done};
    struct jobs *j = job->owner;
    struct qd_error err = {0};
    int fd = job->source_fd >= 0 ? fcntl(job->source_fd, F_DUPFD_CLOEXEC, 0) : -1; /* kept for another launch */
    int imatrix_fd = job->imatrix_fd >= 0 ? fcntl(job->imatrix_fd, F_DUPFD_CLOEXEC, 0) : -1;
    const struct launch_spec spec = {.model = job->model,
                                     .first_file = job->first_file,
                                     .source_fd = fd,
                                     .imatrix_fd = imatrix_fd,
                                     .stamp = job->stamp,
                                     .calibration = job->calibration,
                                     .recipe = job->recipe,
                                     .layout = job->layout,
                                     .portable = job->portable,
                                     .idle = !job->interactive,
                                     .plan_only = job->plan_only,
                                     .boot_id = j->boot_id,
                                     .known = j->known};
    bool lost = (job->source_fd >= 0 && fd < 0) || (job->imatrix_fd >= 0 && imatrix_fd < 0);
    int r = lost ? err_sys(&err, errno, "keep the descriptor") : 0;
    if (r == 0)
        r = launch_start(j->d, &spec, &hooks, job, &job->launch, &err);
    if (r == 0)
        return;
    (void)fd_close(fd); /* only read */
    (void)fd_close(imatrix_fd);
    job_failed(job, &err);
}

static void schedule(struct jobs *j)
{
    struct job *job;
    while (!j->stopping && jobs_running(j) < most_at_once(j) && (job = next_queued(j)))
        job_start(job);
    job = j->stopping ? NULL : next_queued(j);
    if (job && job->interactive)
        preempt(j);
}

static void on_kick(uv_timer_t *t)
{
    schedule(t->data);
}

static void schedule_soon(struct jobs *j)
{
    if (j->kick)
        (void)uv_timer_start(j->kick, on_kick, 0, 0); /* cannot fail with a callback */
}

/*
 * ---- submit
 * ----------------------------------------------------------------------------------------------------------------
 */

/* What is made from an artifact has no file that could change: its key is all that tells it from others. */
static struct file_stamp stamp_of_artifact(const struct digest *key)
{
    struct file_stamp s = {0};
    memcpy(&s.dev, key->bytes, sizeof s.dev);
    memcpy(&s.ino, key->bytes + 8, sizeof s.ino);
    memcpy(&s.bytes, key->bytes + 16, sizeof s.bytes);
    return s;
}

static int stamp_request(const struct job_request *r, struct file_stamp *ret, struct qd_error *err)
{
    struct stat st;
    if (r->layout != QD_LAYOUT_PORTABLE) {
        *ret = stamp_of_artifact(&r->portable);
        return 0;
    }
    if (r->first_file ? stat(r->first_file, &st) < 0 : fstat(r->source_fd, &st) < 0)
        return err_sys(err, errno, "stat '%s'", r->first_file ? r->first_file : "the descriptor");
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_CORRUPT, "'%s' is not a regular file",
                       r->first_file ? r->first_file : "the descriptor");
    *ret = stamp_of(&st);
    if (!r->stamp || stamp_equal(r->stamp, ret))
        return 0;
    (void)err_new(err, QD_E_SOURCE_CHANGED, "'%s' was changed just now",
                  r->first_file ? r->first_file : "the descriptor");
    return err_hint(err, QD_E_SOURCE_CHANGED, "ask again when its writer is done");
}

/*
 * Same file, content, recipe and want; two names of one file are one job where their folder has no part in it, so by
 * name, too.
 */
static struct job *find_same(struct jobs *j, const struct job_request *r, const struct file_stamp *stamp)
{
    for (struct job *job = j->list; job; job = job->next)
        if (stamp_equal(&job->stamp, stamp) && job->calibration == r->calibration && job->plan_only == r->plan_only &&
            job->layout == r->layout && recipe_equal(&job->recipe, &r->recipe) && strcmp(job->model, r->model) == 0 &&
            !job->first_file == !r->first_file)
            return job;
    return NULL;
}

/* What the daemon builds by itself (warm roots, damage) is nobody's. */
static bool counts(bool interactive, uid_t uid)
{
    return interactive || uid != geteuid();
}

static int check_quota(const struct jobs *j, const struct job_request *r, struct qd_error *err)
{
    unsigned n = 0, most = j->d->config->jobs_per_uid;
    for (const struct job *job = j->list; job; job = job->next)
        n += is_active(job) && job->uid == r->uid && counts(job->interactive, job->uid);
    if (!counts(r->interactive, r->uid) || most == 0 || n < most)
        return 0;
    (void)err_new(err, QD_E_BUSY, "user %u has %u jobs under way, the most that one may", r->uid, n);
    return err_hint(err, QD_E_BUSY, "wait for one of them, or cancel one (quantctl jobs, quantctl cancel)");
}

static int refuse_for_now(const struct qd_error *why, uint64_t retry_at, struct qd_error *err)
{
    *err = *why;
    uint64_t now = now_s();
    if (!err->hint[0])
        (void)err_hint(err, err->code,
                       "it is tried again in %" PRIu64 " s, when the model changes, or by `quantctl jobs --retry`",
                       retry_at > now ? retry_at - now : 0);
    return err->code;
}

static struct job *job_new(struct jobs *j, const struct job_request *r, const struct file_stamp *stamp)
{
    CLEANUP(job_free) struct job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    *job = (struct job){.owner = j,
                        .number = ++j->n_numbers,
                        .stamp = *stamp,
                        .calibration = r->calibration,
                        .recipe = r->recipe,
                        .layout = r->layout,
                        .portable = r->portable,
                        .interactive = r->interactive,
                        .plan_only = r->plan_only,
                        .uid = r->uid,
                        .source_fd = -1,
                        .imatrix_fd = -1};
    job->model = strdup(r->model);
    job->first_file = r->first_file ? strdup(r->first_file) : NULL;
    if (!job->model || (r->first_file && !job->first_file))
        return NULL;
    job->progress = (struct job_progress){.job = job->number,
                                          .model = job->model,
                                          .scheme = scheme_name(job->recipe.scheme),
                                          .layout = qd_layout_info(job->layout)->name,
                                          .state = JOB_QUEUED,
                                          .seconds_left = -1};
    struct job **at = &j->list;
    while (*at)
        at = &(*at)->next;
    *at = job;
    return steal(&job);
}

/* An interactive request raises a background job: in the queue, by the scheduler, or by a new launch. */
static void promote(struct job *job)
{
    if (job->interactive)
        return;
    job->interactive = true;
    if (job->launch && job->intent == INTENT_RUN && job->state != JOB_SEALING && !launch_promote(job->launch))
        job_stop_for(job, INTENT_REQUEUE);
}

static int join(struct job *job, const struct job_request *r, struct job_waiter *w, struct qd_error *err)
{
    if (job->state == JOB_FAILED && job->retry_at > now_s())
        return refuse_for_now(&job->err, job->retry_at, err);
    if (!is_active(job)) {
        int q = check_quota(job->owner, r, err);
        if (q < 0)
            return q;
        job_set_state(job, JOB_QUEUED);
        job->uid = r->uid;
    }
    if (job->launch && (job->intent == INTENT_PAUSE || job->intent == INTENT_CANCEL))
        job->intent = INTENT_REQUEUE;
    if (r->interactive)
        promote(job);
    add_waiter(job, w);
    return 0;
}

static int submit_new(struct jobs *j, const struct job_request *r, const struct file_stamp *stamp, struct job_waiter *w,
                      struct qd_error *err)
{
    struct failure old;
    bool failed_before = !r->plan_only && failures_get(j->failures, r->model, &r->recipe, r->layout, stamp, &old);
    if (failed_before && old.retry_at > now_s())
        return refuse_for_now(&old.err, old.retry_at, err);
    int q = check_quota(j, r, err);
    if (q < 0)
        return q;
    struct job *job = job_new(j, r, stamp);
    if (!job)
        return err_new(err, QD_E_NO_MEMORY, "job");
    job->n_failures = failed_before ? old.n_failures : 0;
    job->source_fd = is_by_descriptor(job) ? r->source_fd : -1;
    add_waiter(job, w);
    log_state(job);
    return 0;
}

/* All that ask for the job have one of the same content. */
static void take_imatrix(struct job *job, int fd)
{
    if (job->imatrix_fd < 0)
        job->imatrix_fd = fd;
    else
        (void)fd_close(fd); /* only read */
}

int jobs_submit(struct jobs *j, const struct job_request *r, struct job_waiter *w, struct qd_error *err)
{
    struct file_stamp stamp;
    if (j->stopping)
        return err_new(err, QD_E_UNAVAILABLE, "the daemon is stopping");
    int q = stamp_request(r, &stamp, err);
    if (q < 0)
        return err_in(err, q, "model '%s'", r->model);
    struct job *job = find_same(j, r, &stamp);
    q = job ? join(job, r, w, err) : submit_new(j, r, &stamp, w, err);
    if (q < 0)
        return q;
    if (job && is_by_descriptor(job))
        (void)fd_close(r->source_fd); /* taken, and the job has one */
    if (r->recipe.weighted && r->layout == QD_LAYOUT_PORTABLE)
        take_imatrix(w->job, r->imatrix_fd);
    schedule_soon(j);
    return 0;
}

/*
 * ---- leave, cancel, retry
 * ------------------------------------------------------------------------------------------------------
 */

static void on_grace(uv_timer_t *t)
{
    struct job *job = t->data;
    struct jobs *j = job->owner;
    end_grace(job);
    if (job->launch && job->intent == INTENT_RUN)
        job_stop_for(job, job->plan_only || is_by_descriptor(job) ? INTENT_CANCEL : INTENT_PAUSE);
    else if (!job->launch && job->state == JOB_QUEUED) {
        job_set_state(job, JOB_CANCELLED);
        job_drop(job);
    }
    schedule_soon(j);
}

void job_leave(struct jobs *j, struct job_waiter *w)
{
    struct job *job = w->job;
    if (!job)
        return;
    struct job_waiter **at = &job->waiters;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->next = NULL;
    w->job = NULL;
    if (job->waiters || !is_active(job))
        return;
    end_grace(job);
    job->grace = timer_new(j->d->loop, job);
    if (job->grace)
        (void)uv_timer_start(job->grace, on_grace, j->d->config->leave_grace_ms, 0); /* cannot fail with a callback */
}

static struct job *find_number(const struct jobs *j, uint32_t number)
{
    struct job *job = j->list;
    while (job && job->number != number)
        job = job->next;
    return job;
}

/* Waiters hear it at once; the worker ends when it can. */
static void cancel_job(struct job *job, const struct qd_error *why)
{
    struct jobs *j = job->owner;
    end_grace(job);
    if (job->launch) {
        job_stop_for(job, INTENT_CANCEL);
        answer_error(job, why);
    } else {
        failures_drop(j->failures, job->model, &job->recipe, job->layout);
        job_set_state(job, JOB_CANCELLED);
        answer_error(job, why);
        job_drop(job);
    }
}

int jobs_cancel(struct jobs *j, uint32_t number, uid_t uid, bool admin, struct qd_error *err)
{
    struct job *job = find_number(j, number);
    if (!job)
        return err_new(err, QD_E_NOT_FOUND, "there is no job %" PRIu32, number);
    if (!admin && job->uid != uid)
        return err_new(err, QD_E_DENIED, "job %" PRIu32 " is another user's", number);
    if (job->state == JOB_SEALING)
        return err_new(err, QD_E_BUSY, "job %" PRIu32 " is being sealed, its artifact is kept", number);
    struct qd_error why;
    (void)err_new(&why, QD_E_CANCELLED, "job %" PRIu32 " was cancelled", number);
    cancel_job(job, &why);
    return 0;
}

/* A failed job is forgotten, so that the next request makes a new one. */
unsigned jobs_retry(struct jobs *j, uint32_t number)
{
    unsigned n = number ? 0 : failures_clear(j->failures), listed = 0;
    for (struct job *job = j->list, *next; job; job = next) {
        next = job->next;
        if (job->state != JOB_FAILED || (number && job->number != number))
            continue;
        failures_drop(j->failures, job->model, &job->recipe, job->layout);
        job_drop(job);
        listed++;
    }
    return listed > n ? listed : n;
}

/*
 * A failed job ends its back-off; one that runs on a file that is gone or another is of no use. A companion's change
 * shows at the end of the run.
 */
static void source_changed(struct job *job)
{
    struct stat st;
    struct file_stamp now = {0};
    if (stat(job->first_file, &st) == 0)
        now = stamp_of(&st);
    bool same = stamp_equal(&now, &job->stamp);
    if (!same)
        failures_drop_outdated(job->owner->failures, job->model, &now);
    if (job->state == JOB_SEALING || (same && job->state != JOB_FAILED))
        return;
    struct qd_error why;
    (void)err_new(&why, QD_E_SOURCE_CHANGED, "model '%s' was changed or removed", job->model);
    cancel_job(job, &why);
}

void jobs_model_changed(struct jobs *j, const char *model)
{
    for (struct job *job = j->list, *next; job; job = next) {
        next = job->next;
        if (job->first_file && strcmp(job->model, model) == 0)
            source_changed(job);
    }
}

/*
 * ---- known keys
 * ------------------------------------------------------------------------------------------------------------------
 */

/*
 * Asked many times a turn, the files are looked at once: whatever those who ask in one turn did before, they did before
 * the turn began.
 */
static bool is_recent(const struct jobs *j, const struct job_request *r, const char *recipe)
{
    return r->first_file && r->stamp && j->recent.first_file && j->d->turn != 0 && j->recent.turn == j->d->turn &&
           j->recent.layout == r->layout && j->recent.calibration == r->calibration &&
           strcmp(j->recent.recipe, recipe) == 0 && stamp_equal(&j->recent.stamp, r->stamp) &&
           strcmp(j->recent.first_file, r->first_file) == 0;
}

static void note_recent(struct jobs *j, const struct job_request *r, const char *recipe, const struct digest *key)
{
    if (!r->first_file || !r->stamp)
        return;
    if (!j->recent.first_file || strcmp(j->recent.first_file, r->first_file) != 0) {
        free(j->recent.first_file);
        j->recent.first_file = strdup(r->first_file); /* NULL: nothing is recent */
    }
    j->recent.stamp = *r->stamp;
    memcpy(j->recent.recipe, recipe, sizeof j->recent.recipe);
    j->recent.calibration = r->calibration;
    j->recent.layout = r->layout;
    j->recent.key = *key;
    j->recent.turn = j->d->turn;
}

int jobs_known_key(struct jobs *j, const struct job_request *r, struct digest *ret_key)
{
    struct digest source;
    char recipe[RECIPE_TEXT_MAX] = "";
    recipe_text(&r->recipe, recipe);
    if (is_recent(j, r, recipe)) {
        *ret_key = j->recent.key;
        return 1;
    }
    if (!known_identity(j->known, j->d->hints, r->first_file, r->first_file ? -1 : r->source_fd, r->stamp,
                        r->calibration, &source) ||
        key_memo_get(&j->key_memo, &source, recipe, r->layout, recipe_encoder_revision(&r->recipe), ret_key, NULL) < 0)
        return 0;
    note_recent(j, r, recipe, ret_key);
    return 1;
}

bool jobs_packing(const struct jobs *j, const struct digest *portable, enum qd_layout layout)
{
    for (const struct job *job = j->list; job; job = job->next)
        if (job->layout == layout && packs(job) && digest_equal(&job->portable, portable))
            return is_active(job) || (job->state == JOB_FAILED && job->retry_at > now_s());
    return false;
}

bool jobs_known_source(struct jobs *j, const struct catalog_model *m, struct digest *ret)
{
    return known_identity(j->known, j->d->hints, m->first_file, -1, &m->stamp, m->calibration, ret);
}

bool jobs_knew_source(const struct jobs *j, const struct file_stamp *first)
{
    return known_has(j->known, first);
}

/*
 * ---- start, stop
 * -------------------------------------------------------------------------------------------------------------------
 */

/* The journal is believed within one boot: after a power cut, what it says may not have reached the disk. */
static void read_boot_id(char dst[BOOT_ID_MAX])
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && fgets(dst, BOOT_ID_MAX, f))
        dst[strcspn(dst, "\n")] = '\0';
    else /* hidden from us: then within one life of the daemon */
        (void)snprintf(dst, BOOT_ID_MAX, "%d-%lld", getpid(), (long long)time(NULL)); /* fits */
    if (f)
        (void)fclose(f); /* only read */
}

static int open_state_files(struct jobs *j, struct qd_error *err)
{
    char path[4096];
    const char *folder = j->d->config->state_dir;
    if (snprintf(path, sizeof path, "%s/known-sources", folder) >= (int)sizeof path)
        return err_new(err, QD_E_INVALID, "state folder: path too long");
    int r = known_open(path, &j->known, err);
    if (r < 0)
        return r;
    (void)snprintf(path, sizeof path, "%s/failed-jobs", folder); /* shorter than the one before */
    return failures_open(path, &j->failures, err);
}

int jobs_new(struct daemon *d, struct jobs **ret, struct qd_error *err)
{
    struct jobs *j = calloc(1, sizeof *j);
    if (!j)
        return err_new(err, QD_E_NO_MEMORY, "jobs");
    j->d = d;
    read_boot_id(j->boot_id);
    int r = open_state_files(j, err);
    if (r == 0 && !(j->kick = timer_new(d->loop, j)))
        r = err_new(err, QD_E_NO_MEMORY, "jobs");
    if (r < 0) {
        (void)jobs_free(j); /* returns NULL by convention */
        return r;
    }
    *ret = j;
    return 0;
}

static void on_stop_grace(uv_timer_t *t)
{
    struct jobs *j = t->data;
    for (struct job *job = j->list; job; job = job->next)
        if (job->launch)
            launch_cancel(job->launch, true);
}

static void on_stop_now(uv_timer_t *t)
{
    struct jobs *j = t->data;
    (void)uv_timer_stop(t);
    tell_stopped(j);
}

void jobs_stop(struct jobs *j, unsigned grace_ms, void (*stopped)(void *data), void *data)
{
    struct qd_error why;
    (void)err_new(&why, QD_E_UNAVAILABLE, "the daemon is stopping");
    (void)err_hint(&why, QD_E_UNAVAILABLE, "ask again when it runs: what is done of the job is kept");
    j->stopping = true;
    j->stopped = stopped;
    j->stopped_data = data;
    for (struct job *job = j->list; job; job = job->next) {
        end_grace(job);
        if (job->launch && job->state != JOB_SEALING) {
            job_stop_for(job, INTENT_PAUSE);
            answer_error(job, &why);
        } else if (!job->launch)
            answer_error(job, &why);
    }
    j->stop_timer = timer_new(j->d->loop, j);
    if (!j->stop_timer)
        tell_stopped(j);
    else if (jobs_running(j) == 0)
        (void)uv_timer_start(j->stop_timer, on_stop_now, 0, 0); /* cannot fail with a callback */
    else
        (void)uv_timer_start(j->stop_timer, on_stop_grace, grace_ms, 0);
}

struct jobs *jobs_free(struct jobs *j)
{
    if (!j)
        return NULL;
    while (j->list)
        job_drop(j->list);
    j->kick = timer_free(j->kick);
    j->stop_timer = timer_free(j->stop_timer);
    (void)known_close(j->known); /* these return NULL by convention */
    (void)failures_close(j->failures);
    free(j->recent.first_file);
    free(j);
    return NULL;
}
