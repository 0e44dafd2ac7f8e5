/* quantd: start, signals, stop. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/envelope.h"
#include "cache/hints.h"
#include "cache/sign.h"
#include "cache/store.h"
#include "daemon/background.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/job.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/pool.h"
#include "daemon/relayout.h"
#include "daemon/sent.h"
#include "kernels/core/cleanup.h"

struct options {
    bool user_mode, check_config;
    const char *config_file;
    const char *socket_path;
    const char *hardware_path;
};

enum { N_SIGNALS = 3, STUCK_MS = 600000 };

struct run {
    struct options options;
    struct daemon daemon;
    uv_loop_t loop;
    uv_signal_t signals[N_SIGNALS];
    uv_prepare_t turns;
    uv_timer_t watchdog, scrub, teardown;
    bool bound;   /* the socket file is ours to remove */
    bool started; /* the catalog looked at every root once */
    bool stopping, reloading;
    struct keyring *new_keyring; /* on its way to the store */
    size_t n_to_scrub;
    struct digest scrub_key;
    struct store_verify scrub_found;
    uint64_t moved_ms, moved_print; /* of the pool's work for jobs */
};

/* ---- options -------------------------------------------------------------------------------------- */

static int usage(FILE *to, int code)
{
    (void)fputs("usage: quantd [--user] [--config FILE] [--socket PATH] [--hardware FILE]\n"
                "              [--check-config] [--version] [--help]\n\n"
                "  --user          run for one user: XDG folders, socket in $XDG_RUNTIME_DIR/quantd\n"
                "  --config FILE   read FILE after quantd.conf and its drop-ins\n"
                "  --socket PATH   listen there instead\n"
                "  --hardware FILE be the machine of that profile as far as this one can (quantctl(1))\n"
                "  --check-config  read the configuration, say what is wrong, exit 0 or 78\n\n"
                "Manual: quantd(8), quantd.conf(5), quantctl(1).\n",
                to);
    return code;
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *ret)
{
    static const struct option longs[] = {
        {"user", no_argument, NULL, 'u'},         {"config", required_argument, NULL, 'c'},
        {"socket", required_argument, NULL, 's'}, {"hardware", required_argument, NULL, 'p'},
        {"check-config", no_argument, NULL, 'k'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) >= 0;) {
        switch (c) {
        case 'u':
            ret->user_mode = true;
            break;
        case 'c':
            ret->config_file = optarg;
            break;
        case 's':
            ret->socket_path = optarg;
            break;
        case 'p':
            ret->hardware_path = optarg;
            break;
        case 'k':
            ret->check_config = true;
            break;
        case 'V':
            return puts("quantd " QUANTD_VERSION) < 0;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 64);
        }
    }
    return optind < argc ? usage(stderr, 64) : -1;
}

static void set_path(char **path, const char *option)
{
    char *copy = option ? strdup(option) : NULL;
    if (!copy)
        return;
    free(*path);
    *path = copy;
}

static int load_config(const struct options *o, struct config **ret, struct qd_error *err)
{
    CLEANUP(free) struct config_warning *warnings = NULL;
    struct config *config = NULL;
    size_t n = 0;
    int r = config_load(o->user_mode, o->config_file, &config, &warnings, &n, err);
    if (r < 0)
        return r;
    set_path(&config->socket_path, o->socket_path);
    set_path(&config->hardware_path, o->hardware_path);
    log_open(config->log_level);
    for (size_t i = 0; i < n; i++)
        log_line(LOG_AT_WARNING, "config", "%s", warnings[i].text);
    *ret = config;
    return 0;
}

/* ---- before the loop --------------------------------------------------------------------------------- */

static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_line(LOG_AT_WARNING, "daemon", "the limit of open files stays low: %s", strerror(errno));
}

/* A daemon's standard descriptors are open, so that no file of ours ever gets their numbers. */
static void fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    (void)fd_close(fd);
}

/* Makes the folder and what is missing above it; an existing last one must be a folder of ours. */
static int make_folder(const char *path, mode_t mode, struct qd_error *err)
{
    char above[PATH_MAX];
    struct stat st;
    if (snprintf(above, sizeof above, "%s", path) >= (int)sizeof above)
        return err_new(err, QD_E_CONFIG, "path '%.64s...' is too long", path);
    for (char *slash = strchr(above + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(above, 0755) < 0 && errno != EEXIST)
            return err_sys(err, errno, "make folder '%s'", above);
        *slash = '/';
    }
    if (mkdir(path, mode) == 0)
        return chmod(path, mode) < 0 ? err_sys(err, errno, "mode of '%s'", path) : 0;
    if (errno != EEXIST || stat(path, &st) < 0)
        return err_sys(err, errno, "make folder '%s'", path);
    if (!S_ISDIR(st.st_mode))
        return err_new(err, QD_E_CONFIG, "'%s' is no folder", path);
    if (st.st_uid != geteuid() && geteuid() != 0)
        return err_new(err, QD_E_DENIED, "folder '%s' belongs to uid %u", path, (unsigned)st.st_uid);
    if ((st.st_mode & 0077 & ~mode) && st.st_uid == geteuid() && chmod(path, mode) < 0)
        return err_sys(err, errno, "mode of '%s'", path);
    return 0;
}

static int make_folders(const struct config *c, struct qd_error *err)
{
    int r = make_folder(c->state_dir, 0700, err);
    if (r == 0)
        r = make_folder(c->cache_dir, 0700, err);
    if (r == 0)
        r = make_folder(c->runtime_dir, 0755, err);
    return r;
}

/* The folders of trusted and revoked keys: the configuration's, and the daemon's own retired keys. */
static int load_keyring(const struct daemon *d, struct keyring **ret, struct qd_error *err)
{
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    char path[PATH_MAX];
    if (!k)
        return err_new(err, QD_E_NO_MEMORY, "keyring");
    int r = d->key ? keyring_trust(k, signing_key_public(d->key), err) : 0;
    (void)snprintf(path, sizeof path, "%s/retired", d->config->state_dir);
    if (r >= 0)
        r = keyring_trust_folder(k, path, err);
    (void)snprintf(path, sizeof path, "%s/trusted.d", d->config->config_dir);
    if (r >= 0)
        r = keyring_trust_folder(k, path, err);
    if (r > 0)
        log_line(LOG_AT_WARNING, "key", "%s", err->message);
    (void)snprintf(path, sizeof path, "%s/revoked.d", d->config->config_dir);
    if (r >= 0)
        r = keyring_revoke_folder(k, path, err);
    if (r < 0)
        return r;
    *ret = steal(&k);
    return 0;
}

/* The public key as published at an earlier start keeps what it signed served while the key itself is damaged. */
static void trust_published(const struct daemon *d, struct keyring *k)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/quantd.pub", d->config->state_dir);
    if (!d->key && keyring_trust_file(k, path, NULL) < 0)
        log_line(LOG_AT_WARNING, "key", "nothing in the cache can be trusted without '%s'", path);
}

static void load_key(struct daemon *d)
{
    struct qd_error err;
    bool created = false;
    char path[PATH_MAX];
    int r = signing_key_load_or_create(d->config->state_dir, getenv("CREDENTIALS_DIRECTORY"), &d->key, &created, &err);
    if (r < 0) {
        (void)snprintf(d->key_problem, sizeof d->key_problem, "%.500s", err.message);
        log_line(LOG_AT_ERROR, "key", "signing is stopped: %s", err.message);
        return;
    }
    if (created)
        log_line(LOG_AT_NOTICE, "key", "made a new signing key%s", log_field("folder", d->config->state_dir));
    const char *const folders[] = {d->config->state_dir, d->config->runtime_dir};
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/quantd.pub", folders[i]);
        if (signing_key_publish(d->key, path, "quantd", &err) < 0)
            log_error("key", &err);
    }
}

static int open_store(struct daemon *d, struct qd_error *err)
{
    struct keyring *keyring = NULL;
    struct store_report report;
    int r = load_keyring(d, &keyring, err);
    if (r < 0)
        return err_in(err, r, "keys");
    trust_published(d, keyring);
    struct store_options o = {
        .folder = d->config->cache_dir, .keyring = keyring, .budget_bytes = d->config->cache_budget};
    r = store_open(&o, &d->store, &report, err);
    if (r < 0) {
        (void)keyring_free(keyring);
        return err_in(err, r, "cache '%s'", d->config->cache_dir);
    }
    d->keyring = keyring; /* the store's own now */
    log_line(LOG_AT_INFO, "store",
             "open artifacts=%zu bytes=%llu swept=%zu quarantined=%zu untrusted=%zu unread=%zu unfinished=%zu",
             report.n_artifacts, (unsigned long long)report.bytes,
             report.n_swept_objects + report.n_swept_work + report.n_swept_tmp, report.n_quarantined,
             report.n_untrusted, report.n_unread, report.n_work);
    return 0;
}

static int open_hints(struct daemon *d, struct qd_error *err)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/hints", d->config->state_dir);
    return hints_open(path, &d->hints, err);
}

/* ---- the socket -------------------------------------------------------------------------------------------- */

static int open_socket(struct run *run, int *ret_fd, struct qd_error *err)
{
    const struct config *c = run->daemon.config;
    int r = listen_fd_take("quantd.socket", ret_fd, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = conn_listen(c->socket_path, c->user_mode ? 0600 : 0666, ret_fd, err);
    run->bound = r == 0;
    return r;
}

/* ---- what the parts tell ------------------------------------------------------------------------------------- */

static int build_ahead(struct daemon *d, const struct catalog_model *m, const char *scheme, struct qd_error *err)
{
    const struct policy_facts facts = policy_facts_here(d, m->first_file, m->bytes);
    struct recipe recipe = {0};
    char why[POLICY_WHY_MAX];
    int r = recipe_set(&recipe, "scheme", scheme, err);
    if (r < 0)
        return r;
    if (!(scheme_families(recipe.scheme) & (facts.is_onnx ? FAMILY_ONNX : FAMILY_GGUF)))
        return 0; /* a folder of models of both kinds: those that the scheme is for */
    policy_resolve(&recipe, &facts, &recipe, why);
    sent_weigh(d->sent, m->first_file, &m->stamp, &recipe);
    return build_in_background(d, m->name, &recipe, QD_LAYOUT_PORTABLE, err);
}

static void warm_up(struct daemon *d, const struct catalog_model *m)
{
    struct qd_error err;
    for (size_t i = 0; i < d->config->n_roots; i++) {
        const struct config_root *root = &d->config->roots[i];
        if (!root->warm || strcmp(root->path, m->root) != 0)
            continue;
        if (build_ahead(d, m, root->warm, &err) < 0)
            log_line(LOG_AT_WARNING, "catalog", "not built ahead%s%s", log_field("model", m->name),
                     log_field("reason", err.message));
    }
}

static void on_model(const struct catalog_model *m, enum catalog_change change, void *data)
{
    struct run *run = data;
    struct daemon *d = &run->daemon;
    if (run->stopping)
        return;
    serving_model_changed(d->serving, m, change);
    jobs_model_changed(d->jobs, m->name);
    if (change == MODEL_ADDED || change == MODEL_CHANGED)
        warm_up(d, m);
}

static void tell_ready(struct run *run)
{
    struct daemon *d = &run->daemon;
    log_line(LOG_AT_NOTICE, "daemon", "ready models=%zu roots=%zu%s", catalog_n(d->catalog),
             catalog_n_roots(d->catalog), log_field("socket", d->config->socket_path));
    (void)notify_send("READY=1\nMAINPID=%d\nSTATUS=%s%zu models in %zu folders", (int)getpid(),
                      d->key ? "" : "signing is stopped; ", catalog_n(d->catalog),
                      catalog_n_roots(d->catalog)); /* nobody may be listening */
}

/* Every model is known, which packed artifacts may have to be made of. */
static void started(struct run *run)
{
    run->started = true;
    tell_ready(run);
    relayout_look(run->daemon.relayout);
}

static void on_scanned(void *data)
{
    struct run *run = data;
    struct daemon *d = &run->daemon;
    bool all = true;
    for (size_t i = 0; i < catalog_n_roots(d->catalog); i++)
        all &= catalog_root_at(d->catalog, i).scanned;
    if (all && !run->started)
        started(run);
    serving_scanned(d);
}

/* ---- timers: only where the service manager or the configuration asks for them --------------------------------- */

/* What the pool does for jobs (hashing, sealing) must move; a worker that is slow is the worker's own matter. */
static bool is_stuck(struct run *run)
{
    uint64_t print = 0;
    for (size_t i = 0; i < jobs_n(run->daemon.jobs); i++) {
        struct job_progress g = jobs_at(run->daemon.jobs, i).progress;
        if (g.state == JOB_HASHING || g.state == JOB_SEALING)
            print = print * 31 + g.job * 7 + (uint64_t)g.state + g.done_bytes;
    }
    uint64_t now = uv_now(&run->loop);
    if (print != run->moved_print || print == 0)
        run->moved_ms = now;
    run->moved_print = print;
    return now - run->moved_ms > STUCK_MS;
}

static void on_watchdog(uv_timer_t *timer)
{
    struct run *run = timer->data;
    if (!is_stuck(run))
        (void)notify_send("WATCHDOG=1"); /* nobody may be listening */
    else
        log_line(LOG_AT_ERROR, "daemon", "hashing or sealing has not moved for %d minutes", STUCK_MS / 60000);
}

static int scrub_work(void *data, struct qd_error *err)
{
    struct run *run = data;
    return store_scrub_step(run->daemon.store, &run->daemon.serving->stopping, &run->scrub_key, &run->scrub_found, err);
}

static void scrub_next(struct run *run);

static void scrub_done(void *data, int result, const struct qd_error *err)
{
    struct run *run = data;
    run->n_to_scrub--;
    if (result == QD_E_CORRUPT) {
        log_line(LOG_AT_WARNING, "scrub", "damaged artifact in quarantine%s",
                 log_field("reason", run->scrub_found.bad));
        serving_artifact_changed(&run->daemon, &run->scrub_key, NULL, NULL, NULL, "damaged");
    } else if (result < 0 && result != QD_E_CANCELLED) {
        log_error("scrub", err);
    }
    if (result == 0 || result == QD_E_CANCELLED)
        run->n_to_scrub = 0; /* the store is empty, or we stop */
    scrub_next(run);
}

static void scrub_next(struct run *run)
{
    if (run->n_to_scrub > 0 && pool_submit_long(&run->loop, scrub_work, scrub_done, run, NULL) < 0)
        run->n_to_scrub = 0;
}

static int count_entry(const struct store_entry *e, void *data)
{
    (void)e;
    ++*(size_t *)data;
    return 0;
}

static void on_scrub(uv_timer_t *timer)
{
    struct run *run = timer->data;
    size_t n = 0;
    if (run->n_to_scrub > 0)
        return;                                           /* still at the last one */
    (void)store_list(run->daemon.store, count_entry, &n); /* count_entry never stops it */
    run->n_to_scrub = n;
    scrub_next(run);
}

static void start_timers(struct run *run)
{
    uint64_t feed_ms = notify_watchdog_ms(), scrub_ms = (uint64_t)run->daemon.config->scrub_h * 3600000;
    (void)uv_timer_stop(&run->scrub);
    if (feed_ms)
        (void)uv_timer_start(&run->watchdog, on_watchdog, feed_ms, feed_ms); /* fails on a closing handle only */
    if (scrub_ms)
        (void)uv_timer_start(&run->scrub, on_scrub, scrub_ms, scrub_ms);
}

/* ---- reload -------------------------------------------------------------------------------------------------------
 */

static int keyring_work(void *data, struct qd_error *err)
{
    struct run *run = data;
    return store_set_keyring(run->daemon.store, steal(&run->new_keyring), err);
}

static void keyring_done(void *data, int result, const struct qd_error *err)
{
    struct run *run = data;
    if (result < 0)
        log_error("key", err);
    run->reloading = false;
    if (!run->stopping) /* else the parts it tells about may be gone */
        tell_ready(run);
}

static void reload_keys(struct run *run)
{
    struct qd_error err;
    int r = load_keyring(&run->daemon, &run->new_keyring, &err);
    if (r == 0) {
        trust_published(&run->daemon, run->new_keyring);
        run->daemon.keyring = run->new_keyring;
        r = pool_submit(&run->loop, keyring_work, keyring_done, run, &err);
    }
    if (r < 0) { /* a revoked key that cannot be read: what was trusted stays trusted, loudly */
        log_error("key", &err);
        run->reloading = false;
        tell_ready(run);
    }
}

static void reload(struct run *run)
{
    struct daemon *d = &run->daemon;
    struct config *config;
    struct qd_error err;
    if (run->stopping || run->reloading)
        return;
    run->reloading = true;
    (void)notify_reloading(); /* nobody may be listening */
    if (load_config(&run->options, &config, &err) < 0) {
        log_error("config", &err);
        log_line(LOG_AT_WARNING, "config", "the configuration before stays in force");
    } else {
        struct config *old = d->config;
        d->config = config;
        if (catalog_reload(d->catalog, &err) < 0)
            log_error("catalog", &err);
        (void)config_free(old);
        store_set_budget(d->store, d->config->cache_budget);
        listener_look_at_rights(d->listener);
        start_timers(run);
    }
    if (serving_look_at_hardware(d, &err) < 0)
        log_error("hardware", &err);
    (void)catalog_rescan(d->catalog);
    reload_keys(run);
}

/*
 * ---- stop
 * ---------------------------------------------------------------------------------------------------------------
 */

static void on_teardown(uv_timer_t *timer)
{
    struct run *run = timer->data;
    struct daemon *d = &run->daemon;
    serving_stop(d->serving);
    relayout_stop(d->relayout);
    d->jobs = jobs_free(d->jobs);
    d->sent = sent_close(d->sent);
    d->listener = listener_free(d->listener);
    d->catalog = catalog_free(d->catalog);
    for (size_t i = 0; i < N_SIGNALS; i++)
        uv_close((uv_handle_t *)&run->signals[i], NULL);
    uv_close((uv_handle_t *)&run->turns, NULL);
    uv_close((uv_handle_t *)&run->watchdog, NULL);
    uv_close((uv_handle_t *)&run->scrub, NULL);
    uv_close((uv_handle_t *)&run->teardown, NULL);
    if (run->bound)
        (void)unlink(d->config->socket_path); /* the next start replaces it anyway */
}

static void on_jobs_stopped(void *data)
{
    struct run *run = data; /* from a turn of its own: the jobs are still on the stack here */
    (void)uv_timer_start(&run->teardown, on_teardown, 0, 0); /* fails on a closing handle only */
}

static void stop(struct run *run)
{
    if (run->stopping)
        return;
    run->stopping = true;
    log_line(LOG_AT_NOTICE, "daemon", "stopping");
    (void)notify_send("STOPPING=1"); /* nobody may be listening */
    listener_stop(run->daemon.listener);
    serving_stop(run->daemon.serving);
    jobs_stop(run->daemon.jobs, run->daemon.config->stop_grace_ms, on_jobs_stopped, run);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct run *run = handle->data;
    if (number == SIGHUP)
        reload(run);
    else
        stop(run);
}

/*
 * ---- start
 * -----------------------------------------------------------------------------------------------------------------
 */

/* Before each poll: what it finds was sent before anything of it is served. */
static void on_turn(uv_prepare_t *turns)
{
    struct run *run = turns->data;
    run->daemon.turn++;
}

static void count_turns(struct run *run)
{
    run->daemon.turn = 1;
    (void)uv_prepare_init(&run->loop, &run->turns); /* these never fail */
    run->turns.data = run;
    (void)uv_prepare_start(&run->turns, on_turn);
    uv_unref((uv_handle_t *)&run->turns);
}

static int start_loop(struct run *run, struct qd_error *err)
{
    static const int numbers[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    int r = uv_loop_init(&run->loop);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "event loop: %s", uv_strerror(r));
    run->daemon.loop = &run->loop;
    for (size_t i = 0; i < N_SIGNALS; i++) {
        (void)uv_signal_init(&run->loop, &run->signals[i]); /* never fails */
        run->signals[i].data = run;
        r = uv_signal_start(&run->signals[i], on_signal, numbers[i]);
        if (r < 0)
            return err_new(err, QD_E_SYSTEM, "signals: %s", uv_strerror(r));
    }
    count_turns(run);
    uv_timer_t *const timers[] = {&run->watchdog, &run->scrub, &run->teardown};
    for (size_t i = 0; i < 3; i++) {
        (void)uv_timer_init(&run->loop, timers[i]); /* never fails */
        timers[i]->data = run;
    }
    return 0;
}

/* Everything that blocks, before the loop turns. */
static int open_parts(struct run *run, struct qd_error *err)
{
    struct daemon *d = &run->daemon;
    int r = make_folders(d->config, err);
    if (r < 0)
        return r;
    load_key(d);
    r = open_store(d, err);
    return r < 0 ? r : open_hints(d, err);
}

static int start_parts(struct run *run, struct qd_error *err)
{
    struct daemon *d = &run->daemon;
    int fd = -1, r = start_loop(run, err);
    if (r == 0)
        r = serving_new(d, err);
    if (r == 0)
        r = sent_open(d->config->state_dir, &d->sent, err);
    if (r == 0)
        r = jobs_new(d, &d->jobs, err);
    if (r == 0)
        r = relayout_new(d, &d->relayout, err);
    if (r < 0)
        return r;
    jobs_set_listener(d->jobs, serving_job_changed, d);
    r = catalog_new(d, on_model, run, &d->catalog, err);
    if (r == 0)
        r = open_socket(run, &fd, err);
    if (r == 0)
        r = listener_new(d, fd, err);
    if (r < 0)
        return r;
    catalog_on_scanned(d->catalog, on_scanned, run);
    start_timers(run);
    if (catalog_n_roots(d->catalog) == 0)
        started(run);
    return 0;
}

static void close_parts(struct run *run)
{
    struct daemon *d = &run->daemon;
    d->relayout = relayout_free(d->relayout);
    d->serving = serving_free(d->serving);
    if (d->store) {
        store_touch(d->store);
        d->store = store_close(d->store);
    }
    d->hints = hints_close(d->hints);
    d->key = signing_key_free(d->key);
    d->config = config_free(d->config);
}

/* A daemon that could not start leaves to the kernel what it had opened by then. */
static int serve(struct run *run)
{
    struct qd_error err;
    int r = open_parts(run, &err);
    if (r == 0)
        r = start_parts(run, &err);
    if (r < 0) {
        log_error("daemon", &err);
        (void)notify_send("STATUS=%s\nERRNO=%d", err.message, err.sys_errno);
        return qd_error_exit_code(r);
    }
    if (!run->daemon.config->sandbox)
        log_line(LOG_AT_WARNING, "daemon",
                 "sandbox=off: workers run unconfined; a hostile model can do what this daemon can");
    (void)uv_run(&run->loop, UV_RUN_DEFAULT);
    close_parts(run);
    r = uv_loop_close(&run->loop);
    log_line(LOG_AT_NOTICE, "daemon", "stopped");
    return r == 0 ? 0 : 70;
}

int main(int argc, char **argv)
{
    static struct run run;
    struct qd_error err;
    fill_standard_fds();
    log_open(LOG_AT_INFO);
    (void)signal(SIGPIPE, SIG_IGN); /* stderr may be a pipe that nobody reads any more */
    int code = parse_options(argc, argv, &run.options);
    if (code >= 0)
        return code;
    int r = load_config(&run.options, &run.daemon.config, &err);
    if (r < 0) {
        log_error("config", &err);
        return qd_error_exit_code(r);
    }
    if (run.options.check_config) {
        run.daemon.config = config_free(run.daemon.config);
        return puts("configuration is fine") < 0;
    }
    raise_fd_limit();
    return serve(&run);
}
