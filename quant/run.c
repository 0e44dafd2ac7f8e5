#include "quant/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/core/io.h"
#include "quant/run_worker.h"

enum { RESULT_BASE_BYTES = 1 << 16 };

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "run");
}

int run_fit_threads(const struct model *m, const struct plan *p, const struct run_ceiling *c, unsigned asked,
                    unsigned *ret, struct qd_error *err)
{
    uint64_t fixed =
        RUN_BASE_BYTES + 2 * (uint64_t)arena_used(m->arena) + 2 * (uint64_t)p->header.n + p->borrowed_bytes;
    /* cells: one in hand, two seams, and their parts in the journal's record */
    const uint64_t cells = 5 * layout_cell_bytes_max(p);
    uint64_t a_thread = RUN_THREAD_BYTES + c->stack_bytes + cells + layout_group_bytes_max(p);
    if (fixed + a_thread > c->bytes)
        return err_new(err, QD_E_LIMIT, "the work takes %" PRIu64 " bytes of memory, %s allows %" PRIu64,
                       fixed + a_thread, c->name, c->bytes);
    uint64_t most = (c->bytes - fixed) / a_thread;
    *ret = most < asked ? (unsigned)most : asked;
    return 0;
}

/* --- before: the output file, the journal --- */

/*
 * An output of the right size, all zeros, with its blocks reserved where the file system can: a
 * full disk is met here and not after an hour. Padding between tensors is never written again.
 */
static int output_create(int fd, uint64_t n_bytes, struct qd_error *err)
{
    if (ftruncate(fd, 0) < 0)
        return err_sys(err, errno, "empty the output");
    int r;
    do {
        r = fallocate(fd, 0, 0, (off_t)n_bytes);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return err_sys(err, errno, "reserve %" PRIu64 " bytes for the output", n_bytes);
    if (ftruncate(fd, (off_t)n_bytes) < 0)
        return err_sys(err, errno, "set the output's size to %" PRIu64 " bytes", n_bytes);
    return 0;
}

static bool output_has_size(int fd, uint64_t n_bytes)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (uint64_t)st.st_size == n_bytes;
}

/*
 * Where a tensor's bytes come from and how they are read: a source's header could say it otherwise the next time, and
 * the output's header be the same.
 */
static void put_tensor_shape(const struct tensor *t, struct buffer *b)
{
    buffer_put_u32(b, t->file);
    buffer_put_u64(b, t->offset);
    buffer_put_u32(b, (uint32_t)qd_type_info(t->type)->ggml_id);
    buffer_put_u32(b, t->row_order);
    buffer_put_u64(b, t->head_rows);
}

/*
 * What a journal's records mean: the source files' sizes, what of them becomes which tensor, the whole header of the
 * output, and whether shards are digested.
 */
static int run_shape(const struct run *run, struct digest *ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    const struct layout *l = &run->layout;
    buffer_put_u64(&b, run->plan->file_bytes);
    buffer_put_u64(&b, l->n_files);
    for (size_t i = 0; i < l->n_files; i++)
        buffer_put_u64(&b, l->file_bytes[i]);
    buffer_put_u8(&b, run->witness);
    buffer_put_u8(&b, (uint8_t)run->plan->from);
    for (size_t i = 0; i < l->n_tensors; i++)
        put_tensor_shape(l->tensors[i].planned->source, &b);
    buffer_put(&b, run->plan->header.data, run->plan->header.n);
    return b.failed ? no_memory(err) : digest_message("journal shape", buffer_span(&b), ret, err);
}

/* 1: taken. 0: the record does not make sense, so it and all behind it are forgotten. */
static int resume_one(struct run *run, struct worker *w, const struct journal_record *record, struct qd_error *err)
{
    if (record->unit >= run->layout.n_units || run->done[record->unit])
        return journal_forget(&run->journal, record, err);
    struct unit u = layout_unit(&run->layout, record->unit);
    int r = unit_restore(w, &u, buffer_span(&record->body), err);
    if (r == QD_E_CORRUPT)
        return journal_forget(&run->journal, record, err);
    if (r < 0)
        return r;
    run->leaves[u.index] = record->leaf;
    run->done[u.index] = 1;
    atomic_fetch_add(&run->done_bytes, u.end - u.begin);
    return 1;
}

/* 1: some units were taken, so the output is one of this work; 0: none was. */
static int resume_all(struct run *run, struct qd_error *err)
{
    struct worker w;
    int r = worker_init(&w, run, err);
    while (r >= 0) {
        struct journal_record record = {0};
        r = journal_next(&run->journal, &record, err);
        if (r > 0)
            r = resume_one(run, &w, &record, err);
        buffer_clear(&record.body);
        if (r == 0)
            break;
    }
    worker_clear(&w);
    return r < 0 ? r : atomic_load(&run->done_bytes) > 0;
}

/* Continues from the journal, or starts afresh. */
static int run_prepare(struct run *run, struct qd_error *err)
{
    const struct run_options *o = run->options;
    struct digest shape;
    int r = run_shape(run, &shape, err);
    if (r < 0)
        return r;
    bool kept = output_has_size(o->out_fd, run->plan->file_bytes);
    if (!kept && o->journal_fd >= 0 && ftruncate(o->journal_fd, 0) < 0)
        return err_sys(err, errno, "empty the journal");
    int resumed = journal_start(&run->journal, o->journal_fd, o->journal_tag, &shape, err);
    if (resumed < 0)
        return resumed;
    if (resumed)
        resumed = resume_all(run, err);
    if (resumed < 0)
        return resumed;
    r = resumed ? 0 : output_create(o->out_fd, run->plan->file_bytes, err);
    if (r < 0)
        return r;
    r = pwrite_whole(o->out_fd, run->plan->header.data, run->plan->header.n, 0);
    return r < 0 ? err_sys(err, -r, "write the output's header") : 0;
}

/* --- the work --- */

static void *thread_main(void *data)
{
    worker_loop(data);
    return NULL;
}

static int run_threads(struct run *run, struct qd_error *err)
{
    uint64_t most = run->layout.n_units ? run->layout.n_units : 1;
    unsigned n = run->options->n_threads < most ? run->options->n_threads : (unsigned)most, started = 1;
    CLEANUP(free) struct worker *workers = calloc(n, sizeof *workers);
    CLEANUP(free) pthread_t *threads = calloc(n, sizeof *threads);
    if (!workers || !threads)
        return no_memory(err);
    int r = 0;
    for (unsigned i = 0; i < n && r == 0; i++)
        r = worker_init(&workers[i], run, err);
    while (r == 0 && started < n && pthread_create(&threads[started], NULL, thread_main, &workers[started]) == 0)
        started++; /* fewer threads do the same work */
    if (r == 0)
        worker_loop(&workers[0]);
    for (unsigned i = 1; i < started; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once, by its maker */
    for (unsigned i = 0; i < n; i++)
        worker_clear(&workers[i]);
    return r;
}

static int run_outcome(const struct run *run, struct qd_error *err)
{
    if (atomic_load(&run->failed_at) != UINT64_MAX) {
        if (err)
            *err = run->error;
        return run->error.code;
    }
    if (run->options->cancel && atomic_load(run->options->cancel))
        return err_new(err, QD_E_CANCELLED, "cancelled");
    return source_check_unchanged(run->source, err);
}

/* --- after: tables, quality, witness --- */

static const char *text_in(struct arena *arena, const char *text)
{
    return arena_text(arena, (struct bytes){(const uint8_t *)text, strlen(text)});
}

/* @was: what the portable artifact's table says of a tensor that only changed its place; NULL: nothing. */
static int result_tensor(struct run_result *res, const struct job_tensor *t, const struct error_total *e,
                         const struct tensor_entry *was, struct tensor_entry *ret, struct qd_error *err)
{
    const struct plan_tensor *pt = t->planned;
    if (was)
        *ret = *was;
    ret->name = text_in(res->arena, pt->source->name);
    ret->reason = text_in(res->arena, was ? was->reason : pt->reason);
    if (!ret->name || !ret->reason)
        return no_memory(err);
    ret->offset = pt->offset;
    if (was)
        return 0;
    ret->type = pt->type;
    ret->source_type = pt->source->type;
    ret->n_dims = pt->source->n_dims;
    memcpy(ret->shape, pt->source->shape, sizeof pt->source->shape);
    ret->bytes = pt->bytes;
    ret->sqnr_db = error_sqnr_db(e);
    ret->rel_rmse = error_rel_rmse(e);
    ret->max_abs = e->max_abs;
    return 0;
}

/* Copies, and values widened to f32, are exact: among the sums they would only flatter the rest. */
static bool is_quantized(const struct job_tensor *t)
{
    return t->work == WORK_ENCODE && t->planned->type != QD_TYPE_F32;
}

static int result_tensors(struct run_result *res, const struct run *run, struct qd_error *err)
{
    const struct layout *l = &run->layout;
    struct error_total all = {0};
    res->tensors.tensors = arena_alloc(res->arena, l->n_tensors + 1, sizeof *res->tensors.tensors);
    if (!res->tensors.tensors)
        return no_memory(err);
    res->tensors.n = l->n_tensors;
    res->quality.worst_sqnr_db = INFINITY;
    res->quality.worst = "";
    for (size_t i = 0; i < l->n_tensors; i++) {
        struct tensor_entry *entry = &res->tensors.tensors[i];
        const struct tensor_table *portable = run->plan->portable;
        struct error_total e = layout_error(l, &l->tensors[i]);
        int r = result_tensor(res, &l->tensors[i], &e, portable ? &portable->tensors[i] : NULL, entry, err);
        if (r < 0)
            return r;
        if (!is_quantized(&l->tensors[i]))
            continue;
        error_add(&all, &e);
        res->quality.n_tensors++;
        if (entry->sqnr_db < res->quality.worst_sqnr_db) {
            res->quality.worst_sqnr_db = entry->sqnr_db;
            res->quality.worst = entry->name;
        }
    }
    res->quality.sqnr_db = error_sqnr_db(&all);
    res->quality.rel_rmse = error_rel_rmse(&all);
    res->quality.max_abs = all.max_abs;
    return 0;
}

static int result_witness(struct run_result *res, const struct run *run, struct qd_error *err)
{
    const struct layout *l = &run->layout;
    if (!run->witness)
        return 0;
    res->witness = arena_alloc(res->arena, l->n_files + 1, sizeof *res->witness);
    if (!res->witness)
        return no_memory(err);
    for (size_t i = 0; i < l->n_files; i++) {
        struct source_file_id *id = &res->witness[i];
        id->role = text_in(res->arena, source_role(run->source, i));
        id->name = text_in(res->arena, source_name(run->source, i));
        id->bytes = l->file_bytes[i];
        if (!id->role || !id->name)
            return no_memory(err);
        int r = digest_of_leaves(id->bytes, run->leaves + l->unit_first[i], &id->digest, err);
        if (r < 0)
            return r;
    }
    res->n_witness = l->n_files;
    return 0;
}

static size_t result_budget(const struct run *run)
{
    size_t n = RESULT_BASE_BYTES + run->layout.n_files * (sizeof(struct source_file_id) + 64);
    for (size_t i = 0; i < run->layout.n_files; i++)
        n += strlen(source_name(run->source, i)) + strlen(source_role(run->source, i));
    for (size_t i = 0; i < run->plan->n_tensors; i++) {
        const struct plan_tensor *pt = &run->plan->tensors[i];
        const char *reason = run->plan->portable ? run->plan->portable->tensors[i].reason : pt->reason;
        n += sizeof(struct tensor_entry) + 64 + strlen(pt->source->name) + strlen(reason);
    }
    return n;
}

static int run_result_make(const struct run *run, uint64_t resumed_bytes, struct run_result **ret, struct qd_error *err)
{
    CLEANUP(run_result_free) struct run_result *res = calloc(1, sizeof *res);
    if (!res || !(res->arena = arena_new(result_budget(run))))
        return no_memory(err);
    res->resumed_bytes = resumed_bytes;
    int r = result_tensors(res, run, err);
    if (r == 0)
        r = result_witness(res, run, err);
    if (r < 0)
        return r;
    *ret = steal(&res);
    return 0;
}

struct run_result *run_result_free(struct run_result *r)
{
    if (!r)
        return NULL;
    (void)arena_free(r->arena); /* returns NULL by convention */
    free(r);
    return NULL;
}

/* --- the whole --- */

/* Every type pair of the plan has its kernels. */
static int check_kernels(const struct run *run, struct qd_error *err)
{
    const struct ops *ops = run->options->ops;
    for (size_t i = 0; i < run->layout.n_tensors; i++) {
        const struct job_tensor *t = &run->layout.tensors[i];
        enum qd_type from = t->planned->source->type, to = t->planned->type;
        if (t->work == WORK_ENCODE && (!ops->dequantize[from] || !ops->quantize[to] || !ops->dequantize[to]))
            return err_new(err, QD_E_UNSUPPORTED, "tensor '%s': no encoder from %s to %s", t->name,
                           qd_type_info(from)->name, qd_type_info(to)->name);
    }
    return 0;
}

static int run_init(struct run *run, struct qd_error *err)
{
    int r = layout_build(&run->layout, run->source, run->plan, err);
    if (r == 0)
        r = check_kernels(run, err);
    if (r < 0)
        return r;
    run->leaves = calloc(run->layout.n_units + 1, sizeof *run->leaves);
    run->done = calloc(run->layout.n_units + 1, 1);
    run->cold = calloc(run->layout.n_units + 1, sizeof *run->cold);
    if (!run->leaves || !run->done || !run->cold)
        return no_memory(err);
    for (size_t i = 0; i < run->layout.n_files; i++)
        run->total_bytes += run->layout.file_bytes[i];
    return 0;
}

static int run_all(struct run *run, struct run_result **ret, struct qd_error *err)
{
    int r = run_init(run, err);
    if (r == 0)
        r = run_prepare(run, err);
    uint64_t resumed_bytes = atomic_load(&run->done_bytes);
    if (r == 0)
        r = run_threads(run, err);
    if (r == 0)
        r = run_outcome(run, err);
    if (r == 0 && run->options->progress)
        run->options->progress(&(struct run_progress){run->total_bytes, run->total_bytes, NULL},
                               run->options->progress_data);
    return r < 0 ? r : run_result_make(run, resumed_bytes, ret, err);
}

int plan_run(struct source *s, const struct plan *p, const struct run_options *o, struct run_result **ret,
             struct qd_error *err)
{
    struct run run = {.source = s, .plan = p, .options = o, .failed_at = UINT64_MAX};
    run.witness = source_has_witness(s) != 0;
    pthread_mutex_init(&run.lock, NULL);
    pthread_mutex_init(&run.seam_lock, NULL);
    pthread_mutex_init(&run.progress_lock, NULL);
    int r = run_all(&run, ret, err);
    layout_clear(&run.layout);
    free(run.leaves);
    free(run.done);
    free((void *)run.cold);
    pthread_mutex_destroy(&run.lock);
    pthread_mutex_destroy(&run.seam_lock);
    pthread_mutex_destroy(&run.progress_lock);
    return r;
}
