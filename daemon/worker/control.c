#include "daemon/worker/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/ioprio.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>

#include "daemon/worker/control_onnx.h"
#include "daemon/worker/sandbox.h"
#include "ipc/codec.h"
#include "ipc/conn.h"
#include "ipc/handler.h"
#include "ipc/records.h"
#include "kernels/core/io.h"
#include "kernels/cpu.h"
#include "quant/limits.h"
#include "quant/pack_onnx.h"
#include "quant/packed.h"
#include "quant/plan_pack.h"
#include "quant/run.h"

enum {
    REQUEST_FDS_MAX = 3, /* a request carries three at most: two files of the output, and the journal */
    HANGUP_MS = 200,     /* how soon a step that says nothing notices that quantd has shut its side */
    THREAD_STACK_BYTES =
        512 << 10, /* stacks count against the ceiling; the default of 8 MiB is for programs that recurse */
    FILES_BESIDE_SOURCE = 32,
};

/* The options, and what a conversation holds; filled from top to bottom. */
struct session {
    uint64_t memory_bytes; /* 0: no ceiling */
    bool idle, no_sandbox;
    struct source *source; /* owned, as all below */
    bool is_onnx;
    struct onnx_job *onnx;       /* all of a job on an ONNX model; NULL: none is planned */
    struct onnx_pack *onnx_pack; /* of an ONNX artifact that is packed; NULL: none is */
    struct model *model;
    struct importance *importance;   /* NULL: the recipe has none */
    struct portable_table *portable; /* of what is packed; NULL: nothing is */
    struct plan *plan;
    struct buffer message; /* being sent */
    _Atomic int cancel;
    bool over; /* quantd is gone */
};

#define HANDLER_OWNER struct session
WORKER_METHODS(HANDLER_DECLARE)
WORKER_METHODS(HANDLER_THUNK)
static const struct handler handlers[] = {WORKER_METHODS(HANDLER_ROW)};

/*
 * fstat as a system call of its own: glibc 2.36 makes it a newfstatat, which takes a path and so
 * is not allowed behind the door. The kernel's struct stat is the C library's on 64-bit machines.
 */
int fstat(int fd, struct stat *st)
{
    return (int)syscall(SYS_fstat, fd, st);
}

/* ---- sending ------------------------------------------------------------------------------ */

/* Waits for room; a peer that is gone ends the session. */
static void send_message(struct session *s, const int *fds, size_t n_fds)
{
    struct qd_error err;
    int r;
    while ((r = conn_send(CONTROL_FD, buffer_span(&s->message), fds, n_fds, &err)) == QD_E_WOULD_BLOCK)
        (void)poll(&(struct pollfd){CONTROL_FD, POLLOUT, 0}, 1, -1); /* EINTR: tried again */
    if (r < 0)
        s->over = true;
}

static int reply(struct session *s, const struct request *rq, enum message type, const void *result, const int *fds,
                 size_t n_fds, struct qd_error *err)
{
    s->message.n = 0;
    int r = reply_encode(&s->message, rq->id, type, result, err);
    if (r == 0)
        send_message(s, fds, n_fds);
    return r;
}

/* A sealed memfd with @b's bytes. */
static int table_fd(const char *name, const struct buffer *b, int *ret_fd, struct qd_error *err)
{
    if (b->failed)
        return err_new(err, QD_E_NO_MEMORY, "table '%s'", name);
    CLEANUP(fd_close) int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(err, errno, "memory for table '%s'", name);
    int r = pwrite_whole(fd, b->data, b->n, 0);
    if (r < 0)
        return err_sys(err, -r, "write table '%s'", name);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return err_sys(err, errno, "seal table '%s'", name);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int out_of_turn(const char *what, struct qd_error *err)
{
    return err_new(err, QD_E_PROTOCOL, "%s out of turn", what);
}

/* ---- probe, add --------------------------------------------------------------------------- */

int handle_w_probe(struct session *s, struct request *rq, const struct msg_w_probe *p, struct qd_error *err)
{
    if (s->source)
        return out_of_turn("w_probe", err);
    int r = source_from_fd(packet_steal_fd(rq->packet, 0), p->name, &s->source, err);
    if (r < 0)
        return r;
    source_set_witness(s->source, 1);
    CLEANUP(probe_free) struct probe *probe = NULL;
    r = model_probe(s->source, &probe, err);
    if (r < 0)
        return r;
    source_set_role(s->source, 0, probe->role);
    s->is_onnx = strcmp(probe->format, "onnx") == 0;

    CLEANUP(free) struct msg_w_file *files = calloc(probe->n_files + 1, sizeof *files);
    if (!files)
        return err_new(err, QD_E_NO_MEMORY, "probe");
    for (size_t i = 0; i < probe->n_files; i++)
        files[i] = (struct msg_w_file){
            .role = probe->files[i].role, .name = probe->files[i].name, .required = probe->files[i].required != 0};
    const struct msg_w_probed result = {
        .format = probe->format, .role = probe->role, .files = files, .files_n = probe->n_files};
    return reply(s, rq, MESSAGE(w_probed, &result), NULL, 0, err);
}

int handle_w_add(struct session *s, struct request *rq, const struct msg_w_add *p, struct qd_error *err)
{
    if (!s->source || s->model || s->onnx)
        return out_of_turn("w_add", err);
    int r = source_add(s->source, packet_steal_fd(rq->packet, 0), p->role, p->name, err);
    const struct msg_nothing taken = {};
    return r < 0 ? r : reply(s, rq, MESSAGE(nothing, &taken), NULL, 0, err);
}

/* ---- plan --------------------------------------------------------------------------------- */

/* "4096x32000": row length first. */
static void dims_text(const struct tensor *t, char *dst, size_t n_bytes)
{
    size_t used = 0;
    dst[0] = '\0';
    for (uint32_t d = 0; d < t->n_dims && used < n_bytes; d++)
        used += (size_t)snprintf(dst + used, n_bytes - used, "%s%" PRIu64, d ? "x" : "", t->shape[d]);
}

static int plan_table(const struct plan *plan, struct buffer *dst, struct qd_error *err)
{
    int r = records_begin(dst, (uint32_t)plan->n_tensors, err);
    for (size_t i = 0; r == 0 && i < plan->n_tensors; i++) {
        const struct plan_tensor *t = &plan->tensors[i];
        char shape[MODEL_DIMS_MAX * 24];
        dims_text(t->source, shape, sizeof shape);
        const struct msg_tensor_plan row = {
            .name = t->source->name,
            .shape = shape,
            .from = qd_type_info(t->source->type)->name,
            .to = qd_type_info(t->type)->name,
            .offset = t->offset,
            .bytes = t->bytes,
            .reason = t->reason ? t->reason : "",
        };
        r = record_encode(dst, MESSAGE(tensor_plan, &row), err);
    }
    return r;
}

/* What the recipe is weighted by came as a companion; more than half of the ceiling is not for it. */
static int read_importance(struct session *s, const struct recipe *recipe, struct qd_error *err)
{
    int file = importance_file(s->source);
    if (recipe->weighted != (file >= 0))
        return err_new(err, QD_E_PROTOCOL, "a recipe without its importance matrix, or the reverse");
    if (!recipe->weighted)
        return 0;
    uint64_t budget = s->memory_bytes ? s->memory_bytes / 2 : LIMIT_IMPORTANCE_BYTES;
    int r = importance_read(s->source, (size_t)file, (size_t)budget, &s->importance, err);
    if (r < 0)
        return r;
    if (!digest_equal(&s->importance->digest, &recipe->importance)) {
        r = err_new(err, QD_E_SOURCE_CHANGED, "the importance matrix was changed since it was asked for");
        return err_hint(err, r, "ask again when its writer is done");
    }
    return importance_check(s->importance, s->model, err);
}

static int plan_recipe(struct session *s, const char *text, struct qd_error *err)
{
    struct recipe recipe;
    int r = recipe_parse(text, &recipe, err);
    if (r == 0)
        r = read_importance(s, &recipe, err);
    return r < 0 ? r : plan_build(s->model, &recipe, s->importance, &s->plan, err);
}

/* The table came as a companion; more than half of the ceiling is not for it. */
static int plan_layout(struct session *s, const char *name, struct qd_error *err)
{
    enum qd_layout layout;
    int r = layout_parse(name, &layout, err), file = portable_table_file(s->source);
    if (r < 0)
        return r;
    if (file < 0)
        return err_new(err, QD_E_PROTOCOL, "w_plan: a layout without the artifact's tensor table");
    uint64_t budget = s->memory_bytes ? s->memory_bytes / 2 : LIMIT_HEADER_BUDGET_BYTES;
    r = portable_table_read(s->source, (size_t)file, s->model, (size_t)budget, &s->portable, err);
    return r < 0 ? r : plan_pack(s->model, layout, s->portable, &s->plan, err);
}

/* ---- progress, cancelling --------------------------------------------------------------------- */

static void look_for_hangup(struct session *s, int timeout_ms)
{
    struct pollfd control = {CONTROL_FD, POLLRDHUP, 0};
    if (poll(&control, 1, timeout_ms) > 0 && (control.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        s->cancel = 1;
}

/* An event that finds no room is left out: the next one says more. */
static void tell(void *data, uint64_t done_bytes, uint64_t total_bytes, const char *what, const char *step)
{
    struct session *s = data;
    struct qd_error err;
    const struct msg_w_progress event = {
        .done_bytes = done_bytes, .total_bytes = total_bytes, .tensor = what, .step = step};
    s->message.n = 0;
    if (event_encode(&s->message, "w_progress", MESSAGE(w_progress, &event), &err) == 0 &&
        conn_send(CONTROL_FD, buffer_span(&s->message), NULL, 0, &err) == QD_E_UNAVAILABLE)
        s->cancel = 1;
    look_for_hangup(s, 0);
}

static void on_progress(const struct run_progress *p, void *data)
{
    tell(data, p->done_bytes, p->total_bytes, p->tensor, NULL);
}

/* Beside steps that may say nothing for long: a sample of a large model. */
struct hangup_watch {
    struct session *session;
    pthread_t thread;
    _Atomic int over;
};

static void *watch_hangup(void *data)
{
    struct hangup_watch *w = data;
    while (!w->over && !w->session->cancel)
        look_for_hangup(w->session, HANGUP_MS);
    return NULL;
}

static int hangup_watch_begin(struct hangup_watch *w, struct session *s, struct qd_error *err)
{
    *w = (struct hangup_watch){.session = s};
    const int r = pthread_create(&w->thread, NULL, watch_hangup, w);
    return r ? err_sys(err, r, "a thread") : 0;
}

static void hangup_watch_end(struct hangup_watch *w)
{
    w->over = 1;
    (void)pthread_join(w->thread, NULL); /* it is there and ends */
}

/* ---- ONNX models ---------------------------------------------------------------------------------- */

static struct onnx_job_env onnx_env(struct session *s, uint32_t n_threads)
{
    return (struct onnx_job_env){.source = s->source,
                                 .memory_bytes = s->memory_bytes,
                                 .n_threads = n_threads ? n_threads : 1,
                                 .cancel = &s->cancel,
                                 .progress = tell,
                                 .data = s};
}

static int plan_onnx(struct session *s, const char *recipe, uint32_t n_threads, struct qd_error *err)
{
    const struct onnx_job_env env = onnx_env(s, n_threads);
    struct hangup_watch watch;
    int r = hangup_watch_begin(&watch, s, err);
    if (r < 0)
        return r;
    r = onnx_job_plan(&env, recipe, &s->onnx, err);
    hangup_watch_end(&watch);
    return r;
}

/* ---- plan, answered --------------------------------------------------------------------------------- */

static int reply_plan(struct session *s, const struct request *rq, const struct buffer *table,
                      struct msg_w_planned *result, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = -1;
    for (size_t i = 0; i < result->files_n; i++)
        result->file_bytes += result->files[i].bytes;
    int r = table_fd("plan", table, &fd, err);
    return r < 0 ? r : reply(s, rq, MESSAGE(w_planned, result), &fd, 1, err);
}

static struct msg_w_file planned_file(const char *name, uint64_t bytes)
{
    return (struct msg_w_file){.role = "payload", .name = name, .has_bytes = true, .bytes = bytes};
}

static int reply_onnx_plan(struct session *s, const struct request *rq, struct qd_error *err)
{
    const struct onnx_plan *plan = s->onnx->made.plan;
    CLEANUP(buffer_clear) struct buffer table = {0};
    struct msg_w_file files[] = {planned_file(ONNX_MODEL_NAME, plan->output->model.n),
                                 planned_file(ONNX_DATA_NAME, plan->output->data_bytes)};
    struct msg_w_planned result = {.files = files,
                                   .files_n = plan->output->data_bytes ? 2 : 1,
                                   .source_bytes = plan->source_bytes,
                                   .n_tensors = (uint32_t)plan->weights.n};
    int r = onnx_job_table(s->onnx, &table, err);
    return r < 0 ? r : reply_plan(s, rq, &table, &result, err);
}

static int plan_onnx_pack(struct session *s, const struct request *rq, const char *layout_name, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer table = {0};
    enum qd_layout layout;
    int r = layout_parse(layout_name, &layout, err);
    if (r == 0)
        r = onnx_pack_plan(s->source, layout, s->memory_bytes ? s->memory_bytes / 2 : LIMIT_HEADER_BUDGET_BYTES,
                           &s->onnx_pack, err);
    if (r == 0)
        r = records_begin(&table, 0, err); /* types and shapes are those of the portable artifact */
    if (r < 0)
        return r;
    struct msg_w_file file = planned_file("model.gguf", s->onnx_pack->file_bytes);
    struct msg_w_planned result = {.files = &file, .files_n = 1, .source_bytes = s->onnx_pack->bytes};
    return reply_plan(s, rq, &table, &result, err);
}

int handle_w_plan(struct session *s, struct request *rq, const struct msg_w_plan *p, struct qd_error *err)
{
    if (!s->source || s->model || s->onnx || s->onnx_pack)
        return out_of_turn("w_plan", err);
    if (!p->layout && !p->recipe)
        return err_new(err, QD_E_PROTOCOL, "w_plan: neither a recipe nor a layout");
    if (s->is_onnx && !p->recipe)
        return plan_onnx_pack(s, rq, p->layout, err);
    if (s->is_onnx) {
        int r = plan_onnx(s, p->recipe, p->threads, err);
        return r < 0 ? r : reply_onnx_plan(s, rq, err);
    }
    int r = model_read(s->source, LIMIT_HEADER_BUDGET_BYTES, &s->model, err);
    if (r == 0)
        r = p->layout ? plan_layout(s, p->layout, err) : plan_recipe(s, p->recipe, err);
    if (r < 0)
        return r;
    CLEANUP(buffer_clear) struct buffer table = {0};
    struct msg_w_file file = planned_file(s->plan->file_name, s->plan->file_bytes);
    struct msg_w_planned result = {
        .files = &file, .files_n = 1, .source_bytes = s->plan->source_bytes, .n_tensors = (uint32_t)s->plan->n_tensors};
    r = plan_table(s->plan, &table, err);
    return r < 0 ? r : reply_plan(s, rq, &table, &result, err);
}

/* ---- run ---------------------------------------------------------------------------------- */

/* What a run came to; borrows all of it. */
struct done {
    const struct tensor_table *tensors;
    const struct meta_table *meta;
    const struct quality_sums *quality;
    const struct source_file_id *witness;
    size_t n_witness;
    uint64_t resumed_bytes;
};

static int send_done(struct session *s, const struct request *rq, const struct done *d, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer tensors = {0}, metadata = {0};
    CLEANUP(fd_close) int tensors_fd = -1;
    CLEANUP(fd_close) int metadata_fd = -1;
    CLEANUP(free) struct msg_w_file *witness = calloc(d->n_witness + 1, sizeof *witness);
    if (!witness)
        return err_new(err, QD_E_NO_MEMORY, "witness");
    for (size_t i = 0; i < d->n_witness; i++)
        witness[i] = (struct msg_w_file){.role = d->witness[i].role,
                                         .name = d->witness[i].name,
                                         .required = true,
                                         .has_bytes = true,
                                         .bytes = d->witness[i].bytes,
                                         .digest = {d->witness[i].digest.bytes, DIGEST_BYTES}};
    int r = tensor_table_encode(d->tensors, &tensors, err);
    if (r == 0)
        r = meta_table_encode(d->meta, &metadata, err);
    if (r == 0)
        r = table_fd("tensors", &tensors, &tensors_fd, err);
    if (r == 0)
        r = table_fd("metadata", &metadata, &metadata_fd, err);
    if (r < 0)
        return r;
    const struct quality_sums *q = d->quality;
    const struct msg_w_done done = {.witness = witness,
                                    .witness_n = d->n_witness,
                                    .resumed_bytes = d->resumed_bytes,
                                    .n_tensors = q->n_tensors,
                                    .sqnr_db = q->sqnr_db,
                                    .rel_rmse = q->rel_rmse,
                                    .max_abs = q->max_abs,
                                    .worst = q->worst,
                                    .worst_sqnr_db = q->worst_sqnr_db};
    return reply(s, rq, MESSAGE(w_done, &done), (const int[]){tensors_fd, metadata_fd}, 2, err);
}

/* The packet carries the output's files, then a journal that stays empty. */
static int run_onnx(struct session *s, struct request *rq, const struct msg_w_run *p, struct qd_error *err)
{
    const struct onnx_job_env env = onnx_env(s, p->threads);
    const bool has_data = s->onnx->made.plan->output->data_bytes > 0;
    struct hangup_watch watch;
    int r = hangup_watch_begin(&watch, s, err);
    if (r < 0)
        return r;
    r = onnx_job_run(s->onnx, &env, packet_steal_fd(rq->packet, 0), has_data ? packet_steal_fd(rq->packet, 1) : -1,
                     err);
    hangup_watch_end(&watch);
    if (r < 0)
        return r;
    const struct onnx_tables *t = s->onnx->tables;
    const struct done done = {.tensors = &t->tensors,
                              .meta = &t->meta,
                              .quality = &t->quality,
                              .witness = s->onnx->witness,
                              .n_witness = s->onnx->n_witness};
    return send_done(s, rq, &done, err);
}

static int tell_packed(void *data, uint64_t done_bytes, uint64_t total_bytes, const char *what)
{
    struct session *s = data;
    tell(s, done_bytes, total_bytes, what, NULL);
    return s->cancel ? QD_E_CANCELLED : 0;
}

/* The packet carries the output, then a journal that stays empty. Quality is the portable artifact's, quantd has it. */
static int run_onnx_pack(struct session *s, struct request *rq, struct qd_error *err)
{
    static const struct quality_sums no_quality = {.worst = ""};
    const struct onnx_pack *p = s->onnx_pack;
    CLEANUP(fd_close) int fd = packet_steal_fd(rq->packet, 0);
    const size_t n = source_n_files(s->source);
    CLEANUP(free) struct source_file_id *witness = calloc(n, sizeof *witness);
    if (!witness)
        return err_new(err, QD_E_NO_MEMORY, "witness");
    int r = onnx_pack_run(p, s->source, fd, tell_packed, s, err);
    if (r == 0)
        r = source_testify(s->source, &s->cancel, witness, err);
    if (r < 0)
        return s->cancel ? err_new(err, QD_E_CANCELLED, "cancelled") : r;
    const struct done done = {
        .tensors = &p->tensors, .meta = &p->meta, .quality = &no_quality, .witness = witness, .n_witness = n};
    return send_done(s, rq, &done, err);
}

int handle_w_run(struct session *s, struct request *rq, const struct msg_w_run *p, struct qd_error *err)
{
    if (s->onnx)
        return run_onnx(s, rq, p, err);
    if (s->onnx_pack)
        return run_onnx_pack(s, rq, err);
    if (!s->plan)
        return out_of_turn("w_run", err);
    CLEANUP(fd_close) int out_fd = packet_steal_fd(rq->packet, 0);
    CLEANUP(fd_close) int journal_fd = packet_steal_fd(rq->packet, 1);
    unsigned n_threads = p->threads > 0 ? p->threads : 1;
    const struct run_ceiling ceiling = {
        .bytes = s->memory_bytes, .stack_bytes = THREAD_STACK_BYTES, .name = "the ceiling of a job"};
    int r = s->memory_bytes ? run_fit_threads(s->model, s->plan, &ceiling, n_threads, &n_threads, err) : 0;
    if (r < 0)
        return r;
    if (p->cache > RUN_CACHE_DROP)
        return err_new(err, QD_E_PROTOCOL, "w_run: page cache mode %u", p->cache);
    const struct run_options options = {.ops = ops_native(),
                                        .cache = (enum run_cache)p->cache,
                                        .n_threads = n_threads,
                                        .out_fd = out_fd,
                                        .journal_fd = journal_fd,
                                        .journal_tag = p->journal_tag,
                                        .progress = on_progress,
                                        .progress_data = s,
                                        .cancel = &s->cancel};
    CLEANUP(run_result_free) struct run_result *res = NULL;
    r = plan_run(s->source, s->plan, &options, &res, err);
    if (r < 0)
        return r;
    const struct done done = {.tensors = &res->tensors,
                              .meta = &s->plan->meta,
                              .quality = &res->quality,
                              .witness = res->witness,
                              .n_witness = res->n_witness,
                              .resumed_bytes = res->resumed_bytes};
    return send_done(s, rq, &done, err);
}

/* ---- the conversation ------------------------------------------------------------------------ */

/* 0: served. Negative: the conversation is over; @err says why when it is not the ordinary end. */
static int serve_one(struct session *s, struct packet *packet, struct qd_error *err)
{
    int r = conn_recv(CONTROL_FD, REQUEST_FDS_MAX, packet, err);
    if (r == QD_E_WOULD_BLOCK) {
        (void)poll(&(struct pollfd){CONTROL_FD, POLLIN, 0}, 1, -1); /* EINTR: tried again */
        return 0;
    }
    if (r == 0)
        s->over = true;
    if (r <= 0)
        return r;
    CLEANUP(buffer_clear) struct buffer failure = {0};
    r = request_serve(handlers, sizeof handlers / sizeof handlers[0], s, packet, &failure, err);
    if (r <= 0)
        return r;
    s->message.n = 0;
    buffer_put(&s->message, failure.data, failure.n);
    send_message(s, NULL, 0);
    return 0;
}

static int converse(struct session *s, struct qd_error *err)
{
    CLEANUP(packet_clear) struct packet packet = {0};
    int r = 0;
    while (r == 0 && !s->over)
        r = serve_one(s, &packet, err);
    return s->over ? 0 : r;
}

/* ---- start ------------------------------------------------------------------------------------- */

static int parse_options(struct session *s, int argc, char **argv, struct qd_error *err)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--idle") == 0)
            s->idle = true;
        else if (strcmp(argv[i], "--no-sandbox") == 0)
            s->no_sandbox = true;
        else if (strcmp(argv[i], "--memory") == 0 && i + 1 < argc)
            s->memory_bytes = strtoull(argv[++i], NULL, 10);
        else
            return err_new(err, QD_E_INVALID, "unknown option '%s'", argv[i]);
    }
    return 0;
}

/* A background job gives way to everything. What the system does not allow is left: it is courtesy. */
static void give_way(void)
{
    (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

/* What libraries do at first use and would be forbidden behind the door: look at the CPU, at files, at locks. */
static int warm_up(struct qd_error *err)
{
    (void)cpu_features();
    (void)ops_native();
    struct digest d;
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    if (!h)
        return err_new(err, QD_E_NO_MEMORY, "hasher");
    int r = leaf_hasher_start(h, 0, err);
    if (r == 0)
        r = leaf_hasher_finish(h, &d, err);
    return r < 0 ? r : digest_message("warm", (struct bytes){(const uint8_t *)"", 0}, &d, err);
}

static int set_memory_habits(struct qd_error *err)
{
    (void)mallopt(M_ARENA_MAX, 1);              /* every arena keeps what it once used */
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 10); /* fixed: large blocks go back when freed */
    pthread_attr_t attr;
    int r = pthread_attr_init(&attr);
    if (r == 0)
        r = pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    if (r == 0)
        r = pthread_setattr_default_np(&attr);
    return r ? err_sys(err, r, "size of thread stacks") : 0;
}

static int close_door(const struct session *s, struct qd_error *err)
{
    unsigned layers;
    const struct sandbox sandbox = {
        .required = s->no_sandbox ? 0 : SANDBOX_SECCOMP,
        .optional = s->no_sandbox ? 0 : SANDBOX_LANDLOCK,
        .first_closed_fd = CONTROL_FD + 1,
        .memory_bytes = s->memory_bytes,
        .file_bytes = TABLE_BYTES_MAX, /* the plan's table is all it writes before quantd knows the output's size */
        .n_files = SOURCE_FILES_MAX + FILES_BESIDE_SOURCE,
    };
    return sandbox_enter(&sandbox, &layers, err);
}

static int session_run(struct session *s, int argc, char **argv, struct qd_error *err)
{
    int r = parse_options(s, argc, argv, err);
    if (r < 0)
        return r;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* quantd is killed: so are we, before another quantd opens the work */
        return err_sys(err, errno, "tie to the daemon");
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error that is told */
    if (s->idle)
        give_way();
    r = warm_up(err);
    if (r == 0)
        r = set_memory_habits(err);
    if (r == 0)
        r = close_door(s, err);
    return r < 0 ? r : converse(s, err);
}

int control_main(int argc, char **argv)
{
    struct session s = {0};
    struct qd_error err = {0};
    int r = session_run(&s, argc, argv, &err);
    if (r < 0)
        (void)fprintf(stderr, "%s%s%s\n", err.message, err.hint[0] ? "; " : "", err.hint);
    (void)onnx_job_free(s.onnx); /* these return NULL by convention */
    (void)onnx_pack_free(s.onnx_pack);
    (void)plan_free(s.plan);
    (void)importance_free(s.importance);
    (void)portable_table_free(s.portable);
    (void)model_free(s.model);
    (void)source_free(s.source);
    buffer_clear(&s.message);
    return r < 0 ? qd_error_exit_code(r) : EX_OK;
}
