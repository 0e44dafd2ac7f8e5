#include "daemon/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/config.h"
#include "daemon/hardware.h"
#include "daemon/launch.h"
#include "daemon/log.h"
#include "daemon/stamp.h"
#include "kernels/core/io.h"
#include "kernels/core/processors.h"
#include "kernels/layout/packed.h"
#include "quant/calib/dataset.h"
#include "quant/format/onnx.h"
#include "quant/run.h"

enum {
    RUN_STALL_MS = 10 * 60 * 1000, /* progress comes every 100 ms; ten minutes of nothing is stuck */
    PROGRESS_MS = 200,             /* of hashing and sealing; a run reports by itself */
    TAG_MAX = DIGEST_HEX_BYTES + 64,
    PLAN_BYTES_MAX = TABLE_BYTES_MAX,
};

/* ---- memory ------------------------------------------------------------------------------- */

static struct launch *launch_free(struct launch *l)
{
    if (!l)
        return NULL;
    for (size_t i = 0; i < l->n_files; i++) {
        free(l->files[i].role);
        free(l->files[i].name);
        (void)fd_close(l->files[i].fd); /* only read */
    }
    (void)lease_release(l->lease); /* returns NULL by convention */
    (void)fd_close(l->folder_fd);
    (void)fd_close(l->imatrix_fd);
    (void)fd_close(l->plan_fd);
    free(l->files);
    free(l->model);
    free(l->first_path);
    free(l->boot_id);
    free(l->tensors_raw);
    free(l->metadata_raw);
    free(l);
    return NULL;
}
DEFINE_CLEANUP(launch_free, struct launch *)

/* ---- the way on, and the way out ----------------------------------------------------------- */

/* Remembers the first failure; what follows from it is noise. */
void launch_fail(struct launch *l, int result, const struct qd_error *err)
{
    if (l->result < 0)
        return;
    l->result = result;
    l->err = *err;
}

static int check_cancel(struct launch *l)
{
    if (l->cancel && l->result == 0)
        launch_fail(l, QD_E_CANCELLED, &(struct qd_error){.code = QD_E_CANCELLED, .message = "cancelled"});
    return l->result;
}

/* Every answer ends here: the next step, or the way out. */
void launch_go_on(struct launch *l, step_fn *step)
{
    if (check_cancel(l) < 0)
        launch_finish(l);
    else
        step(l);
}

static int on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    return l->pool_run(l, err);
}

static void on_pool_done(void *data, int result, const struct qd_error *err)
{
    struct launch *l = data;
    l->n_busy--;
    (void)uv_timer_stop(&l->ticker);
    if (result < 0)
        launch_fail(l, result, err);
    launch_go_on(l, l->pool_next);
}

static void on_tick(uv_timer_t *t)
{
    struct launch *l = t->data;
    l->hooks.progress(l->data, NULL, l->done_bytes, l->total_bytes);
}

void launch_on_pool(struct launch *l, pool_work *run, step_fn *next, bool with_progress)
{
    struct qd_error err;
    l->pool_run = run;
    l->pool_next = next;
    int r = pool_submit(l->d->loop, on_pool, on_pool_done, l, &err);
    if (r < 0) {
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    l->n_busy++;
    if (with_progress)
        (void)uv_timer_start(&l->ticker, on_tick, PROGRESS_MS, PROGRESS_MS); /* cannot fail with a callback */
}

void launch_ask(struct launch *l, const char *method, enum message type, const void *params, const int *fds,
                size_t n_fds, unsigned stall_ms, void (*on_reply)(struct launch *, struct incoming *, struct packet *))
{
    struct qd_error err;
    l->on_reply = on_reply;
    int r = l->worker ? workerproc_request(l->worker, method, type, params, fds, n_fds, stall_ms, &err)
                      : err_new(&err, QD_E_WORKER_DIED, "the worker is gone");
    if (r < 0 && !(r == QD_E_UNAVAILABLE && l->worker)) { /* unavailable: it died, and ended() says how */
        launch_fail(l, r, &err);
        launch_finish(l);
    }
}

/* ---- commit ---------------------------------------------------------------------------------- */

static int commit_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    char recipe[RECIPE_TEXT_MAX];
    int r = l->lease ? packing_check_tables(l, err) : 0;
    if (r < 0) {
        l->discard = true;
        return r;
    }
    recipe_text(&l->recipe, recipe);
    const struct manifest manifest = {.key = l->key,
                                      .model = l->model,
                                      .scheme = scheme_name(l->recipe.scheme),
                                      .recipe = recipe,
                                      .layout = qd_layout_info(l->layout)->name,
                                      .features = layout_features(l->layout),
                                      .encoder_revision = l->encoder_revision,
                                      .source = l->source_id,
                                      .quality = l->quality};
    struct store_commit commit = {.manifest = &manifest,
                                  .tensors = {(const uint8_t *)l->tensors_raw, l->tensors_bytes},
                                  .metadata = {(const uint8_t *)l->metadata_raw, l->metadata_bytes},
                                  .key = l->d->key,
                                  .n_threads = l->n_threads,
                                  .done_bytes = &l->done_bytes};
    memcpy(commit.parts, l->parts, sizeof commit.parts);
    r = store_commit(l->d->store, l->work, &commit, err);
    if (r == 0 || r == QD_E_EXISTS) {
        if (r == 0)
            l->work = NULL; /* taken */
        else
            l->discard = true; /* somebody was faster; ours is the same */
        return 0;
    }
    l->discard = r == QD_E_CORRUPT; /* what it made is of no use to another run */
    return r;
}

static void after_commit(struct launch *l)
{
    l->built = true;
    launch_finish(l);
}

static void step_commit(struct launch *l)
{
    if (!l->d->key) {
        struct qd_error err;
        (void)err_new(&err, QD_E_UNAVAILABLE, "signing has stopped: %s", l->d->key_problem);
        launch_fail(l, err.code, &err);
        launch_finish(l);
        return;
    }
    l->committing = true;
    l->hooks.state(l->data, JOB_SEALING);
    l->done_bytes = 0;
    l->total_bytes = l->plan.file_bytes;
    launch_on_pool(l, commit_on_pool, after_commit, true);
}

/* ---- run --------------------------------------------------------------------------------------- */

/* A copy of a table that the worker handed over: it may be anything, so its size is bounded first. */
static int copy_table(int fd, const char *what, char **ret, size_t *ret_bytes, struct qd_error *err)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_new(err, QD_E_PROTOCOL, "the worker handed over no %s table", what);
    if (st.st_size > TABLE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "the %s table has %lld bytes", what, (long long)st.st_size);
    CLEANUP(free) char *copy = malloc((size_t)st.st_size + 1);
    if (!copy)
        return err_new(err, QD_E_NO_MEMORY, "%s table", what);
    ssize_t n = pread_whole(fd, copy, (size_t)st.st_size, 0);
    if (n != (ssize_t)st.st_size)
        return err_new(err, QD_E_PROTOCOL, "the %s table cannot be read", what);
    *ret = steal(&copy);
    *ret_bytes = (size_t)n;
    return 0;
}

static const struct launch_file *find_file(const struct launch *l, const char *role, const char *name)
{
    for (size_t i = 0; i < l->n_files; i++)
        if (l->files[i].fd >= 0 && strcmp(l->files[i].role, role) == 0 && strcmp(l->files[i].name, name) == 0)
            return &l->files[i];
    return NULL;
}

static int check_bytes(const struct msg_w_file *w, const char *name, uint64_t bytes, const struct digest *digest,
                       struct qd_error *err)
{
    if (w->has_bytes && w->bytes == bytes && w->digest.n == DIGEST_BYTES &&
        memcmp(w->digest.data, digest->bytes, DIGEST_BYTES) == 0)
        return 0;
    (void)err_new(err, QD_E_SOURCE_CHANGED, "'%s' was changed while it was quantized", name);
    return err_hint(err, QD_E_SOURCE_CHANGED, "nothing was signed; ask again when its writer is done");
}

/* Calibration data are witnessed together, as one entry. */
static int check_samples(const struct launch *l, const struct msg_w_done *done, size_t *ret_n, struct qd_error *err)
{
    struct digest together;
    uint64_t bytes;
    int r = samples_identity(l, ret_n, &bytes, &together, err);
    if (r < 0 || *ret_n == 0)
        return r;
    for (size_t i = 0; i < done->witness_n; i++)
        if (strcmp(done->witness[i].role, CALIBRATION_ROLE) == 0 && strcmp(done->witness[i].name, "*") == 0)
            return check_bytes(&done->witness[i], "calibration data", bytes, &together, err);
    return err_new(err, QD_E_PROTOCOL, "the worker did not read the calibration data");
}

/* What the worker read is what we hashed, file by file; both lists have no doubles, so equal counts make equal sets. */
static int check_witness(const struct launch *l, const struct msg_w_done *done, struct qd_error *err)
{
    size_t n = 0, n_samples = 0;
    int r = check_samples(l, done, &n_samples, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < l->n_files; i++)
        n += l->files[i].fd >= 0;
    n = n - n_samples + (n_samples > 0);
    if (done->witness_n != n)
        return err_new(err, QD_E_PROTOCOL, "the worker read %zu files of %zu", done->witness_n, n);
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct msg_w_file *w = &done->witness[i];
        const struct launch_file *f = find_file(l, w->role, w->name);
        if (n_samples && strcmp(w->role, CALIBRATION_ROLE) == 0 && strcmp(w->name, "*") == 0)
            continue;
        if (!f)
            return err_new(err, QD_E_PROTOCOL, "the worker read a file that it was not given");
        for (size_t j = 0; j < i; j++)
            if (find_file(l, done->witness[j].role, done->witness[j].name) == f)
                return err_new(err, QD_E_PROTOCOL, "the worker read a file twice");
        r = check_bytes(w, f->name, (uint64_t)f->st.st_size, &f->digest, err);
    }
    return r;
}

static int take_done(struct launch *l, struct incoming *in, struct packet *p, struct qd_error *err)
{
    struct msg_w_done done;
    CLEANUP(fd_close) int tensors_fd = packet_steal_fd(p, 0);
    CLEANUP(fd_close) int metadata_fd = packet_steal_fd(p, 1);
    int r = incoming_decode(in, INTO(w_done, &done), err);
    if (r == 0)
        r = check_witness(l, &done, err);
    if (r == QD_E_SOURCE_CHANGED)
        l->discard = true; /* encoded from other bytes than the key's */
    if (r == 0)
        r = copy_table(tensors_fd, "tensor", &l->tensors_raw, &l->tensors_bytes, err);
    if (r == 0)
        r = copy_table(metadata_fd, "metadata", &l->metadata_raw, &l->metadata_bytes, err);
    if (r < 0)
        return r;
    if (strlen(done.worst) >= sizeof l->worst)
        return err_new(err, QD_E_PROTOCOL, "the worker's worst tensor has too long a name");
    if (l->lease) { /* nothing was quantized: it is that of what was packed */
        l->quality = l->lease->manifest->quality;
        return 0;
    }
    memcpy(l->worst, done.worst, strlen(done.worst) + 1);
    l->quality = (struct quality){.n_tensors = done.n_tensors,
                                  .sqnr_db = done.sqnr_db,
                                  .rel_rmse = done.rel_rmse,
                                  .max_abs = done.max_abs,
                                  .worst = l->worst,
                                  .worst_sqnr_db = done.worst_sqnr_db};
    return 0;
}

/* The worker is reaped before its file is judged. */
static void on_run_reply(struct launch *l, struct incoming *in, struct packet *p)
{
    struct qd_error err;
    int r = in->failed ? incoming_error(in, &err) : take_done(l, in, p, &err);
    if (r < 0) {
        l->discard |= r != QD_E_CANCELLED && r != QD_E_NO_SPACE && r != QD_E_IO;
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    l->next = step_commit;
    workerproc_stop(l->worker);
}

/* Hashing has read the source already: whether it was cached before is known from then. */
static uint32_t page_cache_mode(const struct launch *l)
{
    if (l->lease)
        return l->d->config->keep_page_cache ? RUN_CACHE_KEEP : RUN_CACHE_AS_FOUND;
    if (l->d->config->keep_page_cache || l->found_cached)
        return RUN_CACHE_KEEP;
    return l->hashed_cold ? RUN_CACHE_DROP : RUN_CACHE_AS_FOUND;
}

static void step_run(struct launch *l)
{
    char hex[DIGEST_HEX_BYTES], tag[TAG_MAX];
    digest_hex(&l->key, hex);
    (void)snprintf(tag, sizeof tag, "%s %s", hex, l->boot_id);
    const struct msg_w_run params = {.journal_tag = tag, .threads = l->n_threads, .cache = page_cache_mode(l)};
    int fds[STORE_PARTS_MAX + 1];
    for (size_t i = 0; i < l->n_parts; i++)
        fds[i] = l->work->part_fds[i];
    fds[l->n_parts] = l->work->journal_fd;
    l->hooks.state(l->data, JOB_RUNNING);
    struct qd_error err;
    int r = l->worker ? workerproc_limit_file(l->worker, l->plan.file_bytes + TABLE_BYTES_MAX, &err) : 0;
    if (r < 0) {
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    launch_ask(l, "w_run", MESSAGE(w_run, &params), fds, l->n_parts + 1, RUN_STALL_MS, on_run_reply);
}

/* Evicts what is used least: for the budget, or because the disk is full. */
static void make_room(struct launch *l, uint64_t bytes, bool disk_full)
{
    struct store_usage u;
    struct store_gc gc;
    if (store_usage(l->d->store, &u, NULL) < 0)
        return;
    uint64_t limit = disk_full ? u.object_bytes : u.budget_bytes;
    if (disk_full || (u.budget_bytes && u.object_bytes + bytes > u.budget_bytes))
        (void)store_gc(l->d->store, limit > bytes ? limit - bytes : 0, &gc, NULL); /* whether it helped is seen next */
}

static int prepare_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    int r = store_work_open(l->d->store, &l->key, l->n_parts, &l->work, err);
    if (r < 0)
        return r;
    struct stat st;
    uint64_t have = 0; /* of an earlier run */
    for (size_t i = 0; i < l->n_parts; i++)
        have += fstat(l->work->part_fds[i], &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    uint64_t want = l->plan.file_bytes > have ? l->plan.file_bytes - have : 0;
    make_room(l, l->plan.file_bytes, false);
    r = store_has_room(l->d->store, want, l->keep_free, err);
    if (r == QD_E_NO_SPACE) {
        make_room(l, want + l->keep_free, true);
        r = store_has_room(l->d->store, want, l->keep_free, err);
    }
    l->discard = r < 0 && !l->work->resumed;
    return r;
}

/* ---- plan ---------------------------------------------------------------------------------------- */

/* Kept as it is and read later, also by handle_plan.c: so nobody may be able to change it any more. */
static int check_plan_table(int fd, struct qd_error *err)
{
    enum { FIXED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > PLAN_BYTES_MAX)
        return err_new(err, QD_E_PROTOCOL, "the worker handed over no plan");
    int seals = fcntl(fd, F_GET_SEALS); /* EINVAL for what is no memory file */
    if (seals < 0 || (seals & FIXED) != FIXED)
        return err_new(err, QD_E_PROTOCOL, "the worker handed over a plan that can still be changed");
    return 0;
}

/* What a worker may write, by the format of the source: one list of names, and each but the first may be missing. */
static int take_parts(struct launch *l, const struct msg_w_planned *planned, struct qd_error *err)
{
    static const char *const gguf[STORE_PARTS_MAX] = {"model.gguf"};
    static const char *const onnx[STORE_PARTS_MAX] = {"model.onnx", "model.onnx.data"};
    const char *const *names = strcmp(l->format, "onnx") == 0 ? onnx : gguf;
    uint64_t sum = 0;
    bool fits = planned->files_n > 0 && planned->files_n <= STORE_PARTS_MAX;
    for (size_t i = 0; fits && i < planned->files_n; i++) {
        const struct msg_w_file *f = &planned->files[i];
        fits = names[i] && strcmp(f->name, names[i]) == 0 && f->has_bytes && f->bytes > 0 && f->bytes <= INT64_MAX / 4;
        l->parts[i] = (struct store_part){.name = names[i], .bytes = f->bytes};
        sum += f->bytes;
    }
    l->n_parts = planned->files_n;
    return fits && sum == planned->file_bytes ? 0 : err_new(err, QD_E_PROTOCOL, "the worker plans files that are none");
}

static int take_plan(struct launch *l, struct incoming *in, struct packet *p, struct qd_error *err)
{
    struct msg_w_planned planned;
    int r = incoming_decode(in, INTO(w_planned, &planned), err);
    if (r < 0)
        return r;
    l->plan_fd = packet_steal_fd(p, 0);
    r = check_plan_table(l->plan_fd, err);
    if (r < 0)
        return r;
    if (planned.file_bytes == 0 || planned.file_bytes > INT64_MAX / 2 || planned.n_tensors > TABLE_TENSORS_MAX)
        return err_new(err, QD_E_LIMIT, "the worker plans %" PRIu64 " bytes in %u tensors", planned.file_bytes,
                       planned.n_tensors);
    r = take_parts(l, &planned, err);
    if (r < 0)
        return r;
    l->plan = (struct job_plan){.file_bytes = planned.file_bytes,
                                .source_bytes = planned.source_bytes,
                                .n_tensors = planned.n_tensors,
                                .table_fd = l->plan_fd};
    return 0;
}

static void on_plan_reply(struct launch *l, struct incoming *in, struct packet *p)
{
    struct qd_error err;
    int r = in->failed ? incoming_error(in, &err) : take_plan(l, in, p, &err);
    l->planning = false;
    if (r < 0)
        launch_fail(l, r, &err);
    if (r < 0 || l->plan_only)
        launch_finish(l);
    else
        launch_on_pool(l, prepare_on_pool, step_run, false);
}

void launch_plan(struct launch *l)
{
    char text[RECIPE_TEXT_MAX];
    recipe_text(&l->recipe, text);
    l->hooks.state(l->data, JOB_PLANNING);
    l->planning = true;
    const char *layout = l->lease ? qd_layout_info(l->layout)->name : NULL;
    const struct msg_w_plan params = {.recipe = layout ? NULL : text, .layout = layout, .threads = l->n_threads};
    const bool calibrates = strcmp(l->format, "onnx") == 0;
    launch_ask(l, "w_plan", MESSAGE(w_plan, &params), NULL, 0, calibrates ? RUN_STALL_MS : STEP_STALL_MS,
               on_plan_reply);
}

/* ---- files behind the first ---- */

static void add_next(struct launch *l);

static void on_add_reply(struct launch *l, struct incoming *in, struct packet *p)
{
    struct qd_error err;
    (void)p;
    if (in->failed)
        launch_fail(l, incoming_error(in, &err), &err);
    launch_go_on(l, add_next);
}

static void add_next(struct launch *l)
{
    while (l->n_added < l->n_files && l->files[l->n_added].fd < 0)
        l->n_added++;
    if (l->n_added == l->n_files) {
        l->added(l);
        return;
    }
    const struct launch_file *f = &l->files[l->n_added++];
    const struct msg_w_add params = {.role = f->role, .name = f->name};
    launch_ask(l, "w_add", MESSAGE(w_add, &params), &f->fd, 1, STEP_STALL_MS, on_add_reply);
}

void launch_add(struct launch *l, step_fn *next)
{
    l->added = next;
    l->n_added = 1;
    add_next(l);
}

/* ---- the worker --------------------------------------------------------------------------------------------- */

static void on_worker_reply(void *data, struct incoming *in, struct packet *p)
{
    struct launch *l = data;
    if (check_cancel(l) < 0)
        launch_finish(l);
    else
        l->on_reply(l, in, p);
}

/* Beyond what is planned the worker's word is worth nothing. */
static void on_worker_progress(void *data, const struct msg_w_progress *p)
{
    struct launch *l = data;
    if (l->ending || p->done_bytes > p->total_bytes)
        return;
    if (p->step && strcmp(p->step, "calibrating") == 0 && l->planning)
        l->hooks.state(l->data, JOB_CALIBRATING);
    if (p->step && strcmp(p->step, "comparing") == 0 && !l->planning && l->work)
        l->hooks.state(l->data, JOB_COMPARING);
    l->hooks.progress(l->data, p->tensor, p->done_bytes, p->total_bytes);
}

static void on_worker_ended(void *data, const struct qd_error *why)
{
    struct launch *l = data;
    step_fn *next = l->next;
    l->worker = NULL;
    l->next = NULL;
    if (l->ending)
        launch_finish(l);
    else if (next)
        launch_go_on(l, next); /* it had said all; how it ended is of no interest */
    else {
        (void)check_cancel(l);
        struct qd_error err = *why;
        if (!err.code)
            (void)err_new(&err, QD_E_WORKER_DIED, "the worker ended before its work did");
        launch_fail(l, err.code, &err);
        l->cancel = 1; /* hashing for nobody */
        if (l->n_busy == 0)
            launch_finish(l);
    }
}

void launch_probe(struct launch *l, void (*on_reply)(struct launch *, struct incoming *, struct packet *))
{
    static const struct workerproc_hooks hooks = {
        .replied = on_worker_reply, .progress = on_worker_progress, .ended = on_worker_ended};
    const struct config *c = l->d->config;
    const struct workerproc_options options = {.path = c->worker_path,
                                               .memory_bytes = l->memory_bytes,
                                               .idle = l->idle,
                                               .sandbox = c->sandbox,
                                               .cpu = l->d->hardware ? l->d->hardware->filter : NULL};
    struct qd_error err;
    int r = workerproc_start(l->d->loop, &options, &hooks, l, &l->worker, &err);
    if (r < 0) {
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    const struct launch_file *f = &l->files[0];
    const struct msg_w_probe params = {.name = f->name};
    launch_ask(l, "w_probe", MESSAGE(w_probe, &params), &f->fd, 1, STEP_STALL_MS, on_reply);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void on_ticker_closed(uv_handle_t *h)
{
    struct launch *l = h->data;
    struct job_outcome o = {.result = l->result,
                            .err = l->result < 0 ? &l->err : NULL,
                            .key = l->key,
                            .built = l->built,
                            .nothing_to_pack = l->nothing_to_pack};
    if (l->result == 0 && l->plan_only)
        o.plan = &l->plan;
    l->hooks.done(l->data, &o);
    (void)launch_free(l); /* returns NULL by convention */
}

static int close_work_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    (void)err;
    l->work = l->discard ? store_work_discard(l->d->store, l->work) : store_work_close(l->d->store, l->work);
    return 0;
}

static void on_work_closed(void *data, int result, const struct qd_error *err)
{
    struct launch *l = data;
    (void)result, (void)err; /* it has no failures */
    uv_close((uv_handle_t *)&l->ticker, on_ticker_closed);
}

/* Reaps the worker, waits for the pool, lets go of the work files; comes here again after each. */
void launch_finish(struct launch *l)
{
    l->ending = true;
    l->next = NULL;
    (void)uv_timer_stop(&l->ticker);
    if (l->n_busy > 0)
        return; /* on_pool_done comes */
    if (l->worker) {
        if (l->result < 0 && l->result != QD_E_CANCELLED)
            workerproc_kill(l->worker);
        else
            workerproc_stop(l->worker);
        return; /* on_worker_ended comes */
    }
    if (packing_examine(l))
        return; /* on_pool_done comes */
    if (uv_is_closing((uv_handle_t *)&l->ticker))
        return;
    struct qd_error err;
    if (!l->work || pool_submit(l->d->loop, close_work_on_pool, on_work_closed, l, &err) < 0)
        uv_close((uv_handle_t *)&l->ticker, on_ticker_closed);
}

/* ---- start ---------------------------------------------------------------------------------------------------------
 */

void name_of_descriptor(int fd, char dst[NAME_MAX + 1])
{
    char link[64], path[PATH_MAX];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    const char *slash = strrchr(path, '/');
    (void)snprintf(dst, NAME_MAX + 1, "%s", slash && slash[1] ? slash + 1 : "model"); /* a component: fits */
}

static char *first_name(const struct launch_spec *s)
{
    const char *slash = s->first_file ? strrchr(s->first_file, '/') : NULL;
    if (s->first_file)
        return strdup(slash ? slash + 1 : s->first_file);
    char name[NAME_MAX + 1];
    name_of_descriptor(s->source_fd, name);
    return strdup(name);
}

static unsigned threads_of(const struct config *c)
{
    return c->threads ? c->threads : processors_allowed();
}

static void on_started(uv_timer_t *t)
{
    struct launch *l = t->data;
    if (l->layout == QD_LAYOUT_PORTABLE)
        launch_begin_source(l);
    else
        launch_begin_packing(l);
}

/* Takes the descriptors; cannot fail behind that. */
static int take_first(struct launch *l, const struct launch_spec *s, struct qd_error *err)
{
    l->n_files = 1;
    l->files[0] = (struct launch_file){.role = strdup("weights"), .name = first_name(s), .required = true, .fd = -1};
    if (!l->files[0].role || !l->files[0].name)
        return err_new(err, QD_E_NO_MEMORY, "job");
    l->files[0].fd = s->source_fd;
    l->imatrix_fd = s->imatrix_fd;
    return 0;
}

int launch_start(struct daemon *d, const struct launch_spec *s, const struct launch_hooks *hooks, void *data,
                 struct launch **ret, struct qd_error *err)
{
    CLEANUP(launch_free) struct launch *l = calloc(1, sizeof *l);
    if (!l)
        return err_new(err, QD_E_NO_MEMORY, "job");
    *l = (struct launch){.d = d,
                         .hooks = *hooks,
                         .data = data,
                         .known = s->known,
                         .stamp = s->stamp,
                         .recipe = s->recipe,
                         .encoder_revision = recipe_encoder_revision(&s->recipe),
                         .layout = s->layout,
                         .portable = s->portable,
                         .idle = s->idle,
                         .plan_only = s->plan_only,
                         .calibration = s->calibration,
                         .keep_free = d->config->keep_free,
                         .folder_fd = -1,
                         .imatrix_fd = -1,
                         .plan_fd = -1};
    l->n_threads = threads_of(d->config);
    l->model = strdup(s->model);
    l->boot_id = strdup(s->boot_id);
    l->first_path = s->first_file ? strdup(s->first_file) : NULL;
    l->files = calloc(STORE_PARTS_MAX + 2, sizeof *l->files); /* an artifact and its tables; companions make it more */
    if (!l->files || !l->model || !l->boot_id || (s->first_file && !l->first_path))
        return err_new(err, QD_E_NO_MEMORY, "job");
    int r = s->layout == QD_LAYOUT_PORTABLE ? take_first(l, s, err) : 0;
    if (r < 0)
        return r;
    l->memory_bytes =
        l->n_files && onnx_is_named(l->files[0].name) ? d->config->calibration_memory : d->config->worker_memory;
    (void)uv_timer_init(d->loop, &l->ticker); /* these cannot fail */
    l->ticker.data = l;
    (void)uv_timer_start(&l->ticker, on_started, 0, 0);
    *ret = steal(&l);
    return 0;
}

void launch_cancel(struct launch *l, bool at_once)
{
    if (l->committing)
        return;
    l->cancel = 1;
    if (l->worker && at_once)
        workerproc_kill(l->worker);
    else if (l->worker)
        workerproc_stop(l->worker);
}

bool launch_promote(struct launch *l)
{
    l->idle = l->idle && l->worker && !workerproc_promote(l->worker);
    return !l->idle;
}
