/*
 * Jobs with real workers, a real store and real signatures, on a loop of our own: what becomes of
 * a request when all goes well, when its worker is killed, its source changes, its disk is full.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/hints.h"
#include "cache/sign.h"
#include "cache/store.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/job.h"
#include "daemon/log.h"
#include "daemon/stamp.h"
#include "daemon/worker/control.h"
#include "ipc/conn.h"
#include "ipc/handler.h"
#include "ipc/records.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "tests/integration/big_model.h"
#include "tests/test.h"

/* The shadow memory of a sanitizer fits no ceiling, its system calls no filter, and it makes an exit of a SEGV. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { WORKER_MEMORY = 0, WORKER_SANDBOXED = false, CRASH = SIGABRT };
#else
enum { WORKER_MEMORY = 256 << 20, WORKER_SANDBOXED = true, CRASH = SIGSEGV };
#endif

enum { WAIT_MS = 60000, N_KILLS = 50 };

/* ---- a daemon without sockets --------------------------------------------------------------------- */

struct fixture {
    char folder[64], model[128], cache[128];
    uv_loop_t loop;
    struct config config;
    struct daemon d;
    uv_timer_t deadline;
    bool late, stopped;
    void (*on_state)(struct fixture *f, enum job_state s); /* a test's hook */
    unsigned n_states[JOB_STATES];
    unsigned char *mapped; /* of the source, for those who change it */
};

static void on_change(const struct job_view *v, void *data)
{
    struct fixture *f = data;
    f->n_states[v->progress.state]++;
    if (f->on_state)
        f->on_state(f, v->progress.state);
}

static char *copy(const char *text)
{
    return strdup(text);
}

static void open_daemon(struct fixture *f)
{
    struct qd_error err;
    struct keyring *keyring = keyring_new();
    assert_int_equal(uv_loop_init(&f->loop), 0);
    (void)uv_timer_init(&f->loop, &f->deadline);
    f->d = (struct daemon){.loop = &f->loop, .config = &f->config};
    assert_int_equal(signing_key_load_or_create(f->folder, NULL, &f->d.key, NULL, &err), 0);
    assert_int_equal(keyring_trust(keyring, signing_key_public(f->d.key), &err), 0);
    const struct store_options o = {.folder = f->cache, .keyring = keyring};
    assert_int_equal(store_open(&o, &f->d.store, NULL, &err), 0);
    char hints[160];
    (void)snprintf(hints, sizeof hints, "%s/hints", f->folder);
    assert_int_equal(hints_open(hints, &f->d.hints, &err), 0);
    assert_int_equal(jobs_new(&f->d, &f->d.jobs, &err), 0);
    jobs_set_listener(f->d.jobs, on_change, f);
}

static void on_stopped(void *data)
{
    ((struct fixture *)data)->stopped = true;
}

static void on_late(uv_timer_t *t)
{
    ((struct fixture *)t->data)->late = true;
}

/* Turns the loop until *@flag, or fails. */
static void run_until(struct fixture *f, const bool *flag)
{
    f->deadline.data = f;
    f->late = false;
    (void)uv_timer_start(&f->deadline, on_late, WAIT_MS, 0);
    while (!*flag && !f->late)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    (void)uv_timer_stop(&f->deadline);
    assert_false(f->late);
}

static void run_for(struct fixture *f, unsigned ms)
{
    f->deadline.data = f;
    f->late = false;
    (void)uv_timer_start(&f->deadline, on_late, ms, 0);
    while (!f->late)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
}

static void close_daemon(struct fixture *f)
{
    f->stopped = false;
    jobs_stop(f->d.jobs, 500, on_stopped, f);
    run_until(f, &f->stopped);
    f->d.jobs = jobs_free(f->d.jobs);
    uv_close((uv_handle_t *)&f->deadline, NULL);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* every handle was closed */
    f->d.store = store_close(f->d.store);
    f->d.hints = hints_close(f->d.hints);
    f->d.key = signing_key_free(f->d.key);
}

static const char *worker_path;

static int make_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    (void)snprintf(f->folder, sizeof f->folder, "/tmp/quantd-jobs-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    (void)snprintf(f->model, sizeof f->model, "%s/model.gguf", f->folder);
    (void)snprintf(f->cache, sizeof f->cache, "%s/cache", f->folder);
    f->config = (struct config){.state_dir = f->folder,
                                .cache_dir = f->cache,
                                .worker_path = copy(worker_path),
                                .worker_memory = WORKER_MEMORY,
                                .threads = 2,
                                .leave_grace_ms = 50,
                                .backoff_s = 10,
                                .backoff_max_s = 3600,
                                .jobs_per_uid = 16,
                                .sandbox = WORKER_SANDBOXED};
    big_model_write(f->model, 1);
    open_daemon(f);
    *state = f;
    return 0;
}

static int drop_fixture(void **state)
{
    struct fixture *f = *state;
    char command[128];
    if (f->mapped)
        (void)munmap(f->mapped, 4096);
    close_daemon(f);
    free(f->config.worker_path);
    (void)umount2(f->cache, MNT_DETACH); /* only one test has mounted */
    (void)snprintf(command, sizeof command, "rm -rf %s", f->folder);
    int r = system(command);
    free(f);
    return r;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

struct waiting {
    struct job_waiter w;
    bool done;
    struct job_outcome o;
    struct qd_error err;
    unsigned n_tensors;
    uint64_t file_bytes;
};

static void on_done(struct job_waiter *w, const struct job_outcome *o)
{
    struct waiting *q = w->data;
    assert_false(q->done); /* exactly once */
    q->done = true;
    q->o = *o;
    if (o->err)
        q->err = *o->err;
    if (o->plan) {
        struct stat st;
        q->n_tensors = o->plan->n_tensors;
        q->file_bytes = o->plan->file_bytes;
        assert_int_equal(fstat(o->plan->table_fd, &st), 0);
        assert_true(st.st_size > 0);
    }
}

static struct job_request request_for(const struct fixture *f, const char *name)
{
    return (struct job_request){.model = name,
                                .first_file = f->model,
                                .source_fd = -1,
                                .recipe = {.scheme = SCHEME_Q8_0, .pure = true},
                                .interactive = true,
                                .uid = 1000};
}

static int submit(struct fixture *f, const struct job_request *r, struct waiting *q)
{
    *q = (struct waiting){0};
    q->w = (struct job_waiter){.done = on_done, .data = q};
    int rc = jobs_submit(f->d.jobs, r, &q->w, &q->err);
    assert_false(q->done); /* never from inside */
    return rc;
}

static void ask(struct fixture *f, struct waiting *q)
{
    struct job_request r = request_for(f, "model");
    assert_int_equal(submit(f, &r, q), 0);
    run_until(f, &q->done);
}

/* What an undisturbed run makes of the model; the same in every test. */
static struct digest first_digest;

static struct digest payload_of(struct fixture *f, const struct digest *key)
{
    struct lease *lease = NULL;
    struct qd_error err;
    assert_int_equal(store_lookup(f->d.store, key, &lease, &err), 0);
    struct digest d = lease->manifest->files[0].digest;
    (void)lease_release(lease);
    return d;
}

static void assert_good(struct fixture *f, const struct waiting *q)
{
    if (q->o.result < 0)
        print_error("%s\n", q->err.message);
    assert_int_equal(q->o.result, 0);
    struct digest d = payload_of(f, &q->o.key);
    static bool have;
    if (!have)
        first_digest = d;
    have = true;
    assert_memory_equal(&d, &first_digest, sizeof d);
}

/* Descriptors of this process on a file of the fixture's folder, also when it is removed. */
static size_t count_open(const struct fixture *f, const char *name)
{
    char want[256], link[300], is[512];
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;
    (void)snprintf(want, sizeof want, "%s/%s", f->folder, name);
    for (struct dirent *e; (e = readdir(dir));) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%s", e->d_name);
        ssize_t bytes = readlink(link, is, sizeof is - 1);
        is[bytes > 0 ? bytes : 0] = '\0';
        n += strncmp(is, want, strlen(want)) == 0;
    }
    (void)closedir(dir);
    return n;
}

static size_t count_files(const struct fixture *f, const char *folder)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", f->cache, folder);
    DIR *dir = opendir(path);
    size_t n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        (void)closedir(dir);
    return n;
}

/* The worker of this process, 0 where none runs. */
static pid_t worker_pid(void)
{
    char path[64], text[64] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *file = fopen(path, "re");
    if (file && !fgets(text, sizeof text, file))
        text[0] = '\0';
    if (file)
        (void)fclose(file);
    return (pid_t)atoi(text);
}

/* ---- tests: the good way ---------------------------------------------------------------------------------- */

static void job__good_model__is_stored_and_signed(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    ask(f, &q);
    assert_good(f, &q);
    assert_true(q.o.built);
    assert_int_equal(worker_pid(), 0);
    assert_int_equal(count_files(f, "work"), 0);
    const enum job_state way[] = {JOB_PROBING, JOB_HASHING, JOB_PLANNING, JOB_RUNNING, JOB_SEALING, JOB_READY};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(f->n_states[way[i]], 1);
    assert_int_equal(jobs_n(f->d.jobs), 0);
}

static void job__same_again__is_known_without_work_also_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct digest key;
    struct job_request r = request_for(f, "model");
    run_for(f, 200); /* a file younger than 100 ms is not remembered */
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 0);
    ask(f, &q);
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 1);
    assert_memory_equal(&key, &q.o.key, sizeof key);
    close_daemon(f);
    open_daemon(f);
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 1);
    assert_memory_equal(&key, &q.o.key, sizeof key);
    r.recipe.scheme = SCHEME_Q4_0;
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 1);
    assert_memory_not_equal(&key, &q.o.key, sizeof key);
    big_model_write(f->model, 2);
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 0);
}

static void job__eight_requesters__one_worker_serves_all(void **state)
{
    struct fixture *f = *state;
    struct waiting q[8];
    struct job_request r = request_for(f, "model");
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(submit(f, &r, &q[i]), 0);
    for (size_t i = 0; i < 8; i++) {
        run_until(f, &q[i].done);
        assert_good(f, &q[i]);
    }
    assert_int_equal(f->n_states[JOB_RUNNING], 1);
}

static void job__two_names_of_one_content__are_quantized_once(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b;
    struct job_request ra = request_for(f, "model"), rb = request_for(f, "other");
    f->config.jobs_max = 2;
    assert_int_equal(submit(f, &ra, &a), 0);
    assert_int_equal(submit(f, &rb, &b), 0);
    run_until(f, &a.done);
    run_until(f, &b.done);
    assert_good(f, &a);
    assert_good(f, &b);
    assert_memory_equal(&a.o.key, &b.o.key, sizeof a.o.key);
    assert_int_equal(f->n_states[JOB_RUNNING], 1);
}

static void job__plan_only__gives_the_plan_and_stores_nothing(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    r.plan_only = true;
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, 0);
    assert_int_equal(q.n_tensors, BIG_TENSORS);
    assert_true(q.file_bytes > (uint64_t)BIG_TENSORS * BIG_ROWS * BIG_COLS / 32 * 34);
    assert_int_equal(count_files(f, "refs"), 0);
}

static void job__descriptor_instead_of_a_path__same_artifact(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "fd");
    r.first_file = NULL;
    r.source_fd = open(f->model, O_RDONLY | O_CLOEXEC);
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_good(f, &q);
}

/* ---- tests: leaving ------------------------------------------------------------------------------------------ */

static void job__cancelled__tells_its_waiter_and_leaves_no_worker(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct qd_error err;
    struct job_request r = request_for(f, "model");
    assert_int_equal(submit(f, &r, &q), 0);
    while (worker_pid() == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(jobs_cancel(f->d.jobs, jobs_at(f->d.jobs, 0).progress.job, 1001, false, &err), QD_E_DENIED);
    assert_int_equal(jobs_cancel(f->d.jobs, jobs_at(f->d.jobs, 0).progress.job, 1000, false, &err), 0);
    assert_true(q.done);
    assert_int_equal(q.o.result, QD_E_CANCELLED);
    while (jobs_n(f->d.jobs) > 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(worker_pid(), 0);
    assert_int_equal(count_files(f, "refs"), 0);
}

static void job__last_waiter_leaves__pauses_and_goes_on_when_asked_again(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    f->config.leave_grace_ms = 0;
    assert_int_equal(submit(f, &r, &q), 0);
    while (f->n_states[JOB_RUNNING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    job_leave(f->d.jobs, &q.w);
    while (jobs_running(f->d.jobs) > 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_false(q.done);
    if (jobs_n(f->d.jobs) > 0) { /* else it was faster than we */
        assert_int_equal(jobs_at(f->d.jobs, 0).progress.state, JOB_PAUSED);
        assert_int_equal(count_files(f, "work"), 2);
    }
    ask(f, &q);
    assert_good(f, &q);
    assert_int_equal(count_files(f, "work"), 0);
}

/* What packs the artifact that @made is. */
static struct job_request packing_of(const struct waiting *made)
{
    return (struct job_request){.model = "model",
                                .source_fd = -1,
                                .imatrix_fd = -1,
                                .recipe = {.scheme = SCHEME_Q8_0, .pure = true},
                                .layout = QD_LAYOUT_R8K4P128, /* made on any CPU */
                                .portable = made->o.key,
                                .interactive = true,
                                .uid = 1000};
}

static void job__packing_that_is_left__pauses_and_goes_on_when_asked_again(void **state)
{
    struct fixture *f = *state;
    struct waiting portable, q;
    ask(f, &portable);
    struct job_request r = packing_of(&portable);
    f->config.leave_grace_ms = 0;
    assert_int_equal(submit(f, &r, &q), 0);
    assert_true(jobs_packing(f->d.jobs, &portable.o.key, QD_LAYOUT_R8K4P128));
    while (f->n_states[JOB_RUNNING] == 1)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    job_leave(f->d.jobs, &q.w);
    while (jobs_running(f->d.jobs) > 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    if (jobs_n(f->d.jobs) > 0) { /* else it was faster than we */
        assert_int_equal(jobs_at(f->d.jobs, 0).progress.state, JOB_PAUSED);
        assert_int_equal(count_files(f, "work"), 2);
    }
    assert_false(jobs_packing(f->d.jobs, &portable.o.key, QD_LAYOUT_R8K4P128));
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, 0);
    assert_memory_not_equal(&q.o.key, &portable.o.key, sizeof q.o.key);
    assert_int_equal(count_files(f, "work"), 0);
}

static void job__packing_whose_worker_dies__is_in_back_off_over_a_restart(void **state)
{
    struct fixture *f = *state;
    struct waiting portable, q;
    ask(f, &portable);
    struct job_request r = packing_of(&portable);
    assert_int_equal(submit(f, &r, &q), 0);
    while (worker_pid() == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(kill(worker_pid(), CRASH), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, QD_E_WORKER_DIED);
    assert_true(jobs_packing(f->d.jobs, &portable.o.key, QD_LAYOUT_R8K4P128));
    close_daemon(f);
    open_daemon(f);
    assert_int_equal(submit(f, &r, &q), QD_E_WORKER_DIED);
    r.layout = QD_LAYOUT_R4K8P128; /* another story */
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, 0);
}

static void job__packing_what_is_gone__says_so_and_is_not_held_against_it(void **state)
{
    struct fixture *f = *state;
    struct waiting portable, q;
    struct qd_error err;
    ask(f, &portable);
    struct job_request r = packing_of(&portable);
    assert_int_equal(store_remove(f->d.store, &portable.o.key, &err), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(submit(f, &r, &q), 0);
        run_until(f, &q.done);
        assert_int_equal(q.o.result, QD_E_NOT_FOUND);
    }
    ask(f, &portable);
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, 0);
}

/* An importance matrix in the older form for the first tensor: its name, one call, all ones. */
static int matrix_of_ones(struct fixture *f, struct digest *ret)
{
    static const char tensor[] = "blk.0.ffn_up.weight";
    CLEANUP(buffer_clear) struct buffer b = {0};
    char path[256];
    buffer_put_u32(&b, 1);
    buffer_put_u32(&b, sizeof tensor - 1);
    buffer_put(&b, tensor, sizeof tensor - 1);
    buffer_put_u32(&b, 1);
    buffer_put_u32(&b, BIG_COLS);
    for (size_t i = 0; i < BIG_COLS; i++)
        buffer_put(&b, &(float){1}, sizeof(float));
    assert_int_equal(digest_of_bytes(buffer_span(&b), ret, NULL), 0);
    (void)snprintf(path, sizeof path, "%s/matrix", f->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write_whole(fd, b.data, b.n) == 0);
    (void)unlink(path);
    return fd;
}

static void submit_weighted(struct fixture *f, struct waiting *q)
{
    struct job_request r = request_for(f, "model");
    r.recipe.weighted = true;
    r.imatrix_fd = matrix_of_ones(f, &r.recipe.importance);
    assert_int_equal(submit(f, &r, q), 0);
}

/* A paused job keeps no file of a client open; who asks again brings the matrix. */
static void job__weighted_one_left_and_asked_again__goes_on_with_the_matrix_that_comes(void **state)
{
    struct fixture *f = *state;
    struct waiting q, other;
    f->config.leave_grace_ms = 0;
    submit_weighted(f, &q);
    submit_weighted(f, &other); /* joins: one matrix is enough */
    while (f->n_states[JOB_RUNNING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    job_leave(f->d.jobs, &q.w);
    job_leave(f->d.jobs, &other.w);
    while (jobs_running(f->d.jobs) > 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    if (jobs_n(f->d.jobs) > 0) { /* else it was faster than we */
        assert_int_equal(jobs_at(f->d.jobs, 0).progress.state, JOB_PAUSED);
        assert_int_equal(count_open(f, "matrix"), 0);
    }
    submit_weighted(f, &q);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, 0);
    assert_int_equal(count_open(f, "matrix"), 0);
    struct digest weighted = payload_of(f, &q.o.key);
    assert_memory_not_equal(&weighted, &first_digest, sizeof weighted); /* it says by what it is weighted */
}

static void job__background_one_that_is_asked_for__is_promoted(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b;
    struct job_request r = request_for(f, "model");
    r.interactive = false;
    assert_int_equal(submit(f, &r, &a), 0);
    while (f->n_states[JOB_HASHING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    r.interactive = true;
    assert_int_equal(submit(f, &r, &b), 0);
    assert_true(jobs_at(f->d.jobs, 0).interactive);
    run_until(f, &a.done);
    run_until(f, &b.done);
    assert_good(f, &a);
    assert_good(f, &b);
}

static void job__background_one_in_the_way__gives_its_place(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b;
    struct job_request r = request_for(f, "model");
    f->config.jobs_max = 1;
    r.interactive = false;
    assert_int_equal(submit(f, &r, &a), 0);
    while (f->n_states[JOB_HASHING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    r.interactive = true;
    r.recipe.scheme = SCHEME_Q4_0;
    assert_int_equal(submit(f, &r, &b), 0);
    run_until(f, &b.done);
    assert_int_equal(b.o.result, 0);
    assert_false(a.done);
    run_until(f, &a.done);
    assert_good(f, &a);
}

static void jobs__stopped__every_waiter_gets_an_answer(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b;
    struct job_request r = request_for(f, "model");
    assert_int_equal(submit(f, &r, &a), 0);
    r.recipe.scheme = SCHEME_Q4_0;
    assert_int_equal(submit(f, &r, &b), 0);
    while (worker_pid() == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    close_daemon(f);
    assert_true(a.done && b.done);
    assert_int_equal(a.o.result, QD_E_UNAVAILABLE);
    assert_int_equal(worker_pid(), 0);
    open_daemon(f);
    ask(f, &a);
    assert_good(f, &a);
}

static void jobs__quota_of_a_user__is_kept(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b, c;
    struct job_request r = request_for(f, "model");
    f->config.jobs_per_uid = 1;
    assert_int_equal(submit(f, &r, &a), 0);
    r.recipe.scheme = SCHEME_Q4_0;
    assert_int_equal(submit(f, &r, &b), QD_E_BUSY);
    r.uid = 1001;
    assert_int_equal(submit(f, &r, &c), 0);
    run_until(f, &a.done);
    run_until(f, &c.done);
    assert_int_equal(c.o.result, 0);
}

static void jobs__background_ones_of_a_stranger__count_and_the_daemons_own_do_not(void **state)
{
    struct fixture *f = *state;
    struct waiting a, b, c, d;
    struct job_request r = request_for(f, "model");
    f->config.jobs_per_uid = 1;
    r.interactive = false;
    r.uid = 1001;
    assert_int_equal(submit(f, &r, &a), 0);
    r.recipe.scheme = SCHEME_Q4_0;
    assert_int_equal(submit(f, &r, &b), QD_E_BUSY);
    r.uid = geteuid();
    assert_int_equal(submit(f, &r, &c), 0);
    r.recipe.scheme = SCHEME_F16;
    assert_int_equal(submit(f, &r, &d), 0);
    run_until(f, &a.done);
    run_until(f, &c.done);
    run_until(f, &d.done);
}

/* Rights were judged by a file; what lies at its path by now may be another's. */
static void job__another_file_than_the_one_judged__is_refused(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct digest key;
    struct job_request r = request_for(f, "model");
    struct stat st;
    assert_int_equal(stat(f->model, &st), 0);
    struct file_stamp stamp = stamp_of(&st);
    r.stamp = &stamp;
    run_for(f, 200); /* a file younger than 100 ms is not remembered */
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 1);
    stamp.ino++;
    assert_int_equal(jobs_known_key(f->d.jobs, &r, &key), 0);
    assert_int_equal(submit(f, &r, &q), QD_E_SOURCE_CHANGED);
}

/* ---- tests: deaths ----------------------------------------------------------------------------------------------- */

static void job__worker_dies_by_a_signal__says_so_and_the_next_works(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    assert_int_equal(submit(f, &r, &q), 0);
    while (f->n_states[JOB_HASHING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(kill(worker_pid(), CRASH), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, QD_E_WORKER_DIED);
    char said[32];
    (void)snprintf(said, sizeof said, "signal %d", CRASH);
    assert_non_null(strstr(q.err.message, said));
    assert_int_equal(submit(f, &r, &q), QD_E_WORKER_DIED); /* in back-off */
    assert_int_equal(jobs_retry(f->d.jobs, 0), 1);
    ask(f, &q);
    assert_good(f, &q);
}

struct killer {
    uv_timer_t timer;
    bool hit;
};

static void on_kill(uv_timer_t *t)
{
    struct killer *k = t->data;
    pid_t pid = worker_pid();
    k->hit = pid > 0 && kill(pid, SIGKILL) == 0;
}

static void job__worker_killed_at_fifty_points__next_request_gives_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 7;
    unsigned n_hit = 0;
    struct killer k = {0};
    (void)uv_timer_init(&f->loop, &k.timer);
    k.timer.data = &k;
    for (unsigned i = 0; i < N_KILLS; i++) {
        struct waiting q;
        struct qd_error err;
        struct job_request r = request_for(f, "model");
        assert_int_equal(submit(f, &r, &q), 0);
        k.hit = false;
        (void)uv_timer_start(&k.timer, on_kill, big_model_random(&seed) % 130, 0);
        run_until(f, &q.done);
        (void)uv_timer_stop(&k.timer);
        if (q.o.result < 0)
            assert_int_equal(q.o.result, QD_E_WORKER_DIED);
        else
            assert_good(f, &q);
        n_hit += q.o.result < 0;
        (void)jobs_retry(f->d.jobs, 0);
        if (i % 5 == 4 || q.o.result == 0) { /* mostly the journal carries over from kill to kill */
            ask(f, &q);
            assert_good(f, &q);
            assert_int_equal(store_remove(f->d.store, &q.o.key, &err), 0);
        }
        assert_int_equal(worker_pid(), 0);
    }
    print_message("# %u of %d workers died in the middle of it\n", n_hit, N_KILLS);
    assert_true(n_hit > N_KILLS / 4);
    uv_close((uv_handle_t *)&k.timer, NULL);
    struct waiting q;
    ask(f, &q);
    assert_good(f, &q);
    assert_int_equal(count_files(f, "work"), 0);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT); /* closes the timer */
}

/*
 * ---- tests: bad sources
 * ----------------------------------------------------------------------------------------------
 */

/* Dirties the page first: from then on a store to it moves neither mtime nor ctime. */
static void map_dirty_page(struct fixture *f)
{
    int fd = open(f->model, O_RDWR | O_CLOEXEC);
    f->mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 40 << 20);
    assert_true(f->mapped != MAP_FAILED);
    ((volatile unsigned char *)f->mapped)[100] = f->mapped[100];
    (void)close(fd);
}

static void flip_after_hashing(struct fixture *f, enum job_state s)
{
    if (s == JOB_PLANNING)
        f->mapped[100] ^= 1;
}

static void job__source_changed_through_a_mapping_after_hashing__is_never_signed(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct stat before, after;
    map_dirty_page(f);
    assert_int_equal(stat(f->model, &before), 0);
    f->on_state = flip_after_hashing;
    ask(f, &q);
    assert_int_equal(stat(f->model, &after), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim,
                        sizeof before.st_mtim); /* else another check would have seen it */
    assert_memory_equal(&before.st_ctim, &after.st_ctim, sizeof before.st_ctim);
    assert_int_equal(q.o.result, QD_E_SOURCE_CHANGED);
    assert_int_equal(count_files(f, "refs"), 0);
    assert_int_equal(count_files(f, "work"), 0);
}

static void truncate_after_hashing(struct fixture *f, enum job_state s)
{
    if (s == JOB_RUNNING)
        assert_int_equal(truncate(f->model, 20 << 20), 0);
}

static void job__source_truncated_under_us__is_an_error(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    f->on_state = truncate_after_hashing;
    ask(f, &q);
    assert_int_equal(q.o.result, QD_E_SOURCE_CHANGED);
    assert_int_equal(count_files(f, "refs"), 0);
}

static void job__no_model__is_refused_once_and_remembered_over_a_restart(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    int fd = open(f->model, O_TRUNC | O_WRONLY | O_CLOEXEC);
    assert_int_equal(write_whole(fd, "\x80\x02}q\x01(X\x05pickle", 14), 0);
    (void)close(fd);
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_int_equal(q.o.result, QD_E_UNSUPPORTED);
    assert_int_equal(submit(f, &r, &q), QD_E_UNSUPPORTED);
    assert_true(q.err.hint[0] != '\0');
    close_daemon(f);
    open_daemon(f);
    assert_int_equal(submit(f, &r, &q), QD_E_UNSUPPORTED);
    big_model_write(f->model, 1); /* another stamp: another story */
    assert_int_equal(submit(f, &r, &q), 0);
    run_until(f, &q.done);
    assert_good(f, &q);
}

static void job__fifo_or_nothing_instead_of_a_file__is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    assert_int_equal(unlink(f->model), 0);
    assert_int_equal(submit(f, &r, &q), QD_E_NOT_FOUND);
    assert_int_equal(mkfifo(f->model, 0600), 0);
    assert_int_equal(submit(f, &r, &q), QD_E_CORRUPT);
}

static void job__model_removed_while_it_runs__is_cancelled(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    struct job_request r = request_for(f, "model");
    assert_int_equal(submit(f, &r, &q), 0);
    while (f->n_states[JOB_HASHING] == 0)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(unlink(f->model), 0);
    jobs_model_changed(f->d.jobs, "model");
    run_until(f, &q.done);
    assert_int_equal(q.o.result, QD_E_SOURCE_CHANGED);
}

/*
 * A worker that was taken over: this program started as one (see main). It plans anything, and hands
 * over a table with the seals that the test asks for.
 */
#define HANDLER_OWNER const struct careless
struct careless {
    unsigned seals;
};

static int answer(const struct request *rq, enum message type, const void *result, const int *fds, size_t n_fds,
                  struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    int r = reply_encode(&message, rq->id, type, result, err);
    return r < 0 ? r : conn_send(CONTROL_FD, buffer_span(&message), fds, n_fds, err);
}

static int handle_w_probe(const struct careless *c, struct request *rq, const struct msg_w_probe *p,
                          struct qd_error *err)
{
    (void)c, (void)p;
    const struct msg_w_probed result = {.format = "gguf", .role = "weights"};
    return answer(rq, MESSAGE(w_probed, &result), NULL, 0, err);
}

static int handle_w_plan(const struct careless *c, struct request *rq, const struct msg_w_plan *p, struct qd_error *err)
{
    (void)p;
    CLEANUP(fd_close) int fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CLEANUP(buffer_clear) struct buffer table = {0};
    int r = records_begin(&table, 0, err);
    if (r < 0 || fd < 0 || pwrite_whole(fd, table.data, table.n, 0) < 0 || fcntl(fd, F_ADD_SEALS, c->seals) < 0)
        return err_new(err, QD_E_INTERNAL, "a plan");
    struct msg_w_file file = {.role = "payload", .name = "model.gguf", .has_bytes = true, .bytes = 4096};
    const struct msg_w_planned result = {.file_bytes = 4096, .files = &file, .files_n = 1, .source_bytes = 4096};
    return answer(rq, MESSAGE(w_planned, &result), &fd, 1, err);
}

HANDLER_THUNK(w_probe, w_probe, w_probed, "")
HANDLER_THUNK(w_plan, w_plan, w_planned, "")
static const struct handler careless_handlers[] = {HANDLER_ROW(w_probe, w_probe, w_probed, "")
                                                       HANDLER_ROW(w_plan, w_plan, w_planned, "")};

static int careless_worker(const char *memory)
{
    if (strcmp(memory, "1") == 0)
        (void)raise(SIGTERM);
    struct careless c = {.seals =
                             (unsigned)atoi(memory)}; /* a worker gets no environment: the test says it by --memory */
    CLEANUP(packet_clear) struct packet packet = {0};
    CLEANUP(buffer_clear) struct buffer failure = {0};
    struct qd_error err;
    for (;;) {
        (void)poll(&(struct pollfd){CONTROL_FD, POLLIN, 0}, 1, -1);
        int r = conn_recv(CONTROL_FD, 2, &packet, &err);
        if (r == 0 || (r < 0 && r != QD_E_WOULD_BLOCK))
            return 0;
        if (r > 0 && request_serve(careless_handlers, 2, &c, &packet, &failure, &err) != 0)
            return 1;
    }
}

static void job__plan_that_its_worker_can_still_change__is_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        unsigned seals;
        int result;
    } cases[] = {{0, QD_E_PROTOCOL},
                 {F_SEAL_SHRINK | F_SEAL_GROW, QD_E_PROTOCOL},
                 {F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, 0}};
    struct job_request r = request_for(f, "model");
    r.plan_only = true;
    free(f->config.worker_path);
    f->config.worker_path = copy("/proc/self/exe");
    for (size_t i = 0; i < 3; i++) {
        struct waiting q;
        f->config.worker_memory = cases[i].seals;
        assert_int_equal(submit(f, &r, &q), 0);
        run_until(f, &q.done);
        if (q.o.result != cases[i].result)
            print_error("seals %u: %d %s\n", cases[i].seals, q.o.result, q.err.message);
        assert_int_equal(q.o.result, cases[i].result);
    }
}

/* Its end is not the socket's error: what was sent lies there unread. */
static void job__worker_dies_before_it_reads__says_by_which_signal(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    free(f->config.worker_path);
    f->config.worker_path = copy("/proc/self/exe");
    f->config.worker_memory = 1;
    ask(f, &q);
    assert_int_equal(q.o.result, QD_E_WORKER_DIED);
    print_message("# %s\n", q.err.message);
    assert_non_null(strstr(q.err.message, "died by signal 15"));
}

static void job__missing_worker_program__is_an_error_that_names_it(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    free(f->config.worker_path);
    f->config.worker_path = copy("/nonexistent/quantd-worker");
    ask(f, &q);
    assert_int_equal(q.o.result, QD_E_CONFIG);
    assert_non_null(strstr(q.err.message, "/nonexistent/quantd-worker"));
}

/* Root only: a cache on a file system of 24 MiB, the artifact has 17 MiB, and 16 MiB are kept free. */
static void job__disk_full__is_told_before_work_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct waiting q;
    close_daemon(f);
    assert_int_equal(mount("quantd-test", f->cache, "tmpfs", 0, "size=24m"), 0);
    open_daemon(f);
    ask(f, &q);
    assert_int_equal(q.o.result, QD_E_NO_SPACE);
    assert_int_equal(f->n_states[JOB_RUNNING], 0);
    assert_int_equal(count_files(f, "work"), 0);
}

static long peak_kib;

/* VmHWM, not ru_maxrss: that one also counts what the child was before its exec. */
static void measure_worker(struct job_waiter *w, const struct job_progress *p)
{
    char path[64], line[128];
    (void)w, (void)p;
    (void)snprintf(path, sizeof path, "/proc/%d/status", worker_pid());
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0 && atol(line + 6) > peak_kib)
            peak_kib = atol(line + 6);
    if (file)
        (void)fclose(file);
}

static void job__peak_memory_of_the_worker__stays_below_the_ceiling(void **state)
{
    struct fixture *f = *state;
    struct waiting q = {.w = {.done = on_done, .progress = measure_worker, .data = &q}};
    struct job_request r = request_for(f, "model");
    assert_int_equal(jobs_submit(f->d.jobs, &r, &q.w, &q.err), 0);
    run_until(f, &q.done);
    assert_good(f, &q);
    print_message("# peak RSS of the worker: %ld KiB\n", peak_kib);
    assert_in_range(peak_kib, 1, 256 << 10);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_fixture, drop_fixture)

int main(int argc, char **argv)
{
    if (argc > 2) /* started as a worker, with a worker's options */
        return careless_worker(argv[3]);
    if (argc != 2)
        return 2;
    worker_path = argv[1];
    log_open(LOG_AT_ERROR);
    const struct CMUnitTest tests[] = {
        T(job__good_model__is_stored_and_signed),
        T(job__same_again__is_known_without_work_also_after_a_restart),
        T(job__eight_requesters__one_worker_serves_all),
        T(job__two_names_of_one_content__are_quantized_once),
        T(job__plan_only__gives_the_plan_and_stores_nothing),
        T(job__descriptor_instead_of_a_path__same_artifact),
        T(job__cancelled__tells_its_waiter_and_leaves_no_worker),
        T(job__last_waiter_leaves__pauses_and_goes_on_when_asked_again),
        T(job__packing_that_is_left__pauses_and_goes_on_when_asked_again),
        T(job__packing_whose_worker_dies__is_in_back_off_over_a_restart),
        T(job__packing_what_is_gone__says_so_and_is_not_held_against_it),
        T(job__weighted_one_left_and_asked_again__goes_on_with_the_matrix_that_comes),
        T(job__background_one_that_is_asked_for__is_promoted),
        T(job__background_one_in_the_way__gives_its_place),
        T(jobs__stopped__every_waiter_gets_an_answer),
        T(jobs__quota_of_a_user__is_kept),
        T(job__another_file_than_the_one_judged__is_refused),
        T(jobs__background_ones_of_a_stranger__count_and_the_daemons_own_do_not),
        T(job__worker_dies_by_a_signal__says_so_and_the_next_works),
        T(job__worker_killed_at_fifty_points__next_request_gives_the_same_bytes),
        T(job__source_changed_through_a_mapping_after_hashing__is_never_signed),
        T(job__source_truncated_under_us__is_an_error),
        T(job__no_model__is_refused_once_and_remembered_over_a_restart),
        T(job__fifo_or_nothing_instead_of_a_file__is_refused_at_once),
        T(job__model_removed_while_it_runs__is_cancelled),
        T(job__plan_that_its_worker_can_still_change__is_refused),
        T(job__worker_dies_before_it_reads__says_by_which_signal),
        T(job__missing_worker_program__is_an_error_that_names_it),
        T(job__peak_memory_of_the_worker__stays_below_the_ceiling),
        T(job__disk_full__is_told_before_work_and_leaves_nothing),
    };
    size_t n = sizeof tests / sizeof tests[0];
    if (geteuid() != 0) {
        printf("# job__disk_full needs root: left out\n");
        n--;
    }
    return _cmocka_run_group_tests("jobs", tests, n, NULL, NULL);
}
