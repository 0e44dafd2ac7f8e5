#include "tests/test.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "quant/page_cache.h"
#include "quant/run.h"
#include "tests/unit/quant/fixture.h"

/* A run of one fixture: its plan, its output, what came of it. */
struct bench {
    struct fixture *f;
    struct plan *plan;
    struct run_options options;
    struct run_result *result;
    struct qd_error err;
    uint8_t *want; /* made when it is needed first */
};

static void bench_open_recipe(struct bench *b, struct fixture *f, const struct recipe *recipe)
{
    *b = (struct bench){.f = f,
                        .options = {.ops = ops_native(),
                                    .n_threads = 1,
                                    .out_fd = memfd_create("out", MFD_CLOEXEC),
                                    .journal_fd = -1,
                                    .journal_tag = ""}};
    assert_int_equal(plan_build(&f->model, recipe, NULL, &b->plan, NULL), 0);
}

static void bench_open(struct bench *b, struct fixture *f, enum scheme scheme)
{
    struct recipe recipe = {.scheme = scheme, .pure = true};
    bench_open_recipe(b, f, &recipe);
}

static int bench_run(struct bench *b)
{
    b->result = run_result_free(b->result);
    return plan_run(b->f->source, b->plan, &b->options, &b->result, &b->err);
}

static void bench_close(struct bench *b)
{
    (void)run_result_free(b->result);
    (void)plan_free(b->plan);
    free(b->want);
    (void)close(b->options.out_fd);
    if (b->options.journal_fd >= 0)
        (void)close(b->options.journal_fd);
}

static uint8_t *output_of(const struct bench *b)
{
    uint8_t *data = malloc(b->plan->file_bytes);
    assert_int_equal(pread_whole(b->options.out_fd, data, b->plan->file_bytes, 0), b->plan->file_bytes);
    return data;
}

/* Row by row, with the row's mean square and the importance of its matrix. */
static void encode_weighted(const struct plan_tensor *pt, const float *x, uint8_t *dst)
{
    const struct tensor *t = pt->source;
    const struct ops *ops = ops_for(0);
    uint64_t columns = t->shape[0], n_rows = t->n_elements / columns;
    for (uint64_t row = 0; row < n_rows; row++, x += columns, dst += qd_type_row_bytes(pt->type, columns)) {
        const float *importance = pt->importance + row / t->shape[1] * columns;
        float mean_square = ops->sum_squares(0, x, columns) / (float)columns;
        ops->quantize_weighted[pt->type](dst, x, columns, importance, mean_square);
    }
}

/*
 * What the tensor must hold, by the scalar kernels over the whole of it in one call; rows moved as the rotary pairing
 * says.
 */
static uint8_t *expected_of(const struct plan_tensor *pt)
{
    const struct tensor *t = pt->source;
    const struct ops *ops = ops_for(0);
    float *x = malloc(t->n_elements * sizeof *x);
    uint8_t *raw = malloc(t->bytes), *made = malloc(pt->bytes + 1);
    for (uint64_t i = 0; i < t->n_elements; i++) {
        uint64_t to = i;
        if (t->row_order == ROWS_ROPE_PAIRED) {
            uint64_t row_elements =
                t->n_dims == 1 ? 1 : t->shape[0]; /* a bias has an element for each row of its matrix */
            uint64_t row = i / row_elements, half = t->head_rows / 2, in_head = row % t->head_rows;
            to = (row - in_head + 2 * (in_head % half) + in_head / half) * row_elements + i % row_elements;
        }
        x[to] = fixture_value(t, i);
    }
    ops->quantize[t->type](raw, x, t->n_elements);
    ops->dequantize[t->type](x, raw, t->n_elements);
    if (pt->type == t->type && qd_type_info(t->type)->kind == QD_KIND_BLOCK)
        memcpy(made, raw, pt->bytes); /* a copy: encoding once more could give other bytes */
    else if (pt->importance && pt->type != t->type)
        encode_weighted(pt, x, made);
    else
        ops->quantize[pt->type](made, x, t->n_elements);
    free(x);
    free(raw);
    return made;
}

static uint8_t *expected_output(const struct bench *b)
{
    uint8_t *want = calloc(1, b->plan->file_bytes);
    memcpy(want, b->plan->header.data, b->plan->header.n);
    for (size_t i = 0; i < b->plan->n_tensors; i++) {
        uint8_t *made = expected_of(&b->plan->tensors[i]);
        memcpy(want + b->plan->tensors[i].offset, made, b->plan->tensors[i].bytes);
        free(made);
    }
    return want;
}

/* Every byte of the output: header, tensors, zeros between. */
static void assert_output_right(struct bench *b)
{
    uint8_t *got = output_of(b);
    if (!b->want)
        b->want = expected_output(b);
    assert_memory_equal(got, b->want, b->plan->file_bytes);
    free(got);
}

/* Three files; one tensor over three shards whose blocks straddle them, one that begins in the last bytes of a shard.
 */
static void make_large(struct fixture *f, int witness)
{
    fixture_init(f, "safetensors", "llama");
    fixture_tensor(f, "first.weight", QD_TYPE_F32, 0, 100, 2, 1024, 9000, 1);
    fixture_tensor(f, "norm.weight", QD_TYPE_F32, 0, 0, 1, 1000, 1, 1);
    fixture_tensor(f, "odd.weight", QD_TYPE_BF16, 0, 1, 2, 33, 40, 1);
    uint64_t left = 3u * SHARD_BYTES - f->file_bytes[0];
    fixture_tensor(f, "edge.weight", QD_TYPE_F16, 0, left - 30, 2, 64, 512, 1);
    fixture_tensor(f, "half.weight", QD_TYPE_F16, 1, 17, 2, 2048, 4100, 1);
    fixture_tensor(f, "brain.weight", QD_TYPE_BF16, 2, 0, 3, 96, 10, 3);
    struct tensor *t = fixture_tensor(f, "paired.weight", QD_TYPE_F16, 2, 6, 2, 256, 128, 1);
    t->row_order = ROWS_ROPE_PAIRED;
    t->head_rows = 32;
    const enum qd_type bias_types[] = {QD_TYPE_F32, QD_TYPE_F16};
    for (int i = 0; i < 2; i++) { /* copied, and from safetensors widened */
        t = fixture_tensor(f, i ? "paired.bias" : "paired_copy.bias", bias_types[i], 2, 3, 1, 64, 1, 1);
        t->row_order = ROWS_ROPE_PAIRED;
        t->head_rows = 16;
    }
    fixture_source(f, witness);
}

/* A file of @n_bytes on a disk, none of it in the page cache; -1 where the file system cannot tell. */
static int cold_file(size_t n_bytes)
{
    int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CLEANUP(free) char *zeros = calloc(1, n_bytes);
    if (fd < 0 || !zeros || pwrite_whole(fd, zeros, n_bytes, 0) < 0 || fsync(fd) < 0)
        return fd_close(fd);
    (void)posix_fadvise(fd, 0, (off_t)n_bytes, POSIX_FADV_DONTNEED); /* not by what is tested; it is seen next */
    return page_cache_has(fd, 0, n_bytes) ? fd_close(fd) : fd;
}

static void page_cache__dropped_and_fetched__is_told_apart(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    CLEANUP(fd_close) int fd = cold_file(BYTES);
    char byte[BYTES / 64];
    if (fd < 0) {
        printf("# left out: page_cache: this file system does not tell what is cached\n");
        return;
    }
    bool cached = false;
    for (int i = 0; !cached && i < 20; i++) { /* on a busy disk "it would wait" is also said of a page that is there */
        for (size_t at = 0; at < BYTES; at += sizeof byte)
            assert_int_equal(pread_whole(fd, byte, sizeof byte, at), sizeof byte);
        cached = page_cache_has(fd, 0, BYTES);
    }
    assert_true(cached);
    for (int i = 0; cached && i < 20; i++) { /* advice: the kernel leaves pages that another processor is busy with */
        page_cache_drop(fd, 0, BYTES);
        cached = page_cache_has(fd, 0, BYTES);
    }
    assert_false(cached);
}

static struct fixture large; /* by all tests that only read it */

static int setup_large(void **state)
{
    (void)state;
    make_large(&large, 1);
    return 0;
}

static int teardown_large(void **state)
{
    (void)state;
    fixture_clear(&large);
    return 0;
}

static void plan_run__any_scheme_and_threads__gives_the_whole_tensor_bytes(void **state)
{
    (void)state;
    /* Cells of one element, of blocks of 32 and of 256; what a type's bytes are is the kernels' business. */
    static const enum scheme schemes[] = {SCHEME_F16, SCHEME_BF16, SCHEME_Q8_0, SCHEME_Q4_0, SCHEME_Q6_K};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i += SLOW ? 3 : 1) {
        struct bench b;
        bench_open(&b, &large, schemes[i]);
        for (b.options.n_threads = SLOW ? 3 : 1; b.options.n_threads <= 3; b.options.n_threads++) {
            assert_int_equal(bench_run(&b), 0);
            assert_output_right(&b);
        }
        bench_close(&b);
    }
}

static void plan_run__any_threads_and_kernels__gives_the_same_quality(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q4_0);
    b.options.ops = ops_for(0);
    assert_int_equal(bench_run(&b), 0);
    struct run_result *first = b.result;
    b.result = NULL;
    b.options.ops = ops_native();
    for (b.options.n_threads = SLOW ? 4 : 1; b.options.n_threads <= 4; b.options.n_threads++) {
        assert_int_equal(bench_run(&b), 0);
        for (size_t i = 0; i < first->tensors.n; i++) {
            const struct tensor_entry *x = &first->tensors.tensors[i], *y = &b.result->tensors.tensors[i];
            assert_memory_equal(&x->sqnr_db, &y->sqnr_db, sizeof x->sqnr_db);
            assert_memory_equal(&x->rel_rmse, &y->rel_rmse, sizeof x->rel_rmse);
            assert_memory_equal(&x->max_abs, &y->max_abs, sizeof x->max_abs);
        }
    }
    (void)run_result_free(first);
    bench_close(&b);
}

static void plan_run__quality__is_the_error_over_all_elements(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q8_0);
    assert_int_equal(bench_run(&b), 0);
    const struct plan_tensor *pt = &b.plan->tensors[0];
    uint8_t *made = expected_of(pt);
    float *y = malloc(pt->source->n_elements * sizeof *y);
    ops_for(0)->dequantize[pt->type](y, made, pt->source->n_elements);
    double noise = 0, signal = 0, top = 0;
    for (uint64_t i = 0; i < pt->source->n_elements; i++) {
        double x = (double)fixture_value(pt->source, i), e = fabs(x - (double)y[i]);
        noise += e * e;
        signal += x * x;
        top = e > top ? e : top;
    }
    const struct tensor_entry *entry = &b.result->tensors.tensors[0];
    assert_true(fabs(entry->sqnr_db - 10 * log10(signal / noise)) < 0.001);
    assert_true(fabs(entry->rel_rmse - sqrt(noise / signal)) < 1e-9);
    assert_true(fabs(entry->max_abs - top) < 1e-7);
    assert_true(isinf(b.result->tensors.tensors[1].sqnr_db)); /* the copied norm */
    free(made);
    free(y);
    bench_close(&b);
}

static void plan_run__block_over_two_shards__counts_in_the_quality(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    struct tensor *t = fixture_tensor(&f, "over.weight", QD_TYPE_F32, 0, 100, 2, 1024, 5000, 1);
    fixture_source(&f, 0);
    fixture_poke(&f, t, (SHARD_BYTES - t->offset) / 4 - 1,
                 1000.0f); /* its neighbours are below 1: their error is the block's scale */
    fixture_reopen(&f);
    struct bench b;
    bench_open(&b, &f, SCHEME_Q8_0);
    assert_int_equal(bench_run(&b), 0);
    assert_true(b.result->tensors.tensors[0].max_abs > 0.5);
    assert_true(b.result->quality.max_abs > 0.5);
    bench_close(&b);
    fixture_clear(&f);
}

static void plan_run__witness__is_the_digest_of_every_file(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q8_0);
    b.options.n_threads = 2;
    assert_int_equal(bench_run(&b), 0);
    assert_int_equal(b.result->n_witness, large.n_files);
    for (size_t i = 0; i < large.n_files; i++) {
        struct digest want;
        assert_int_equal(digest_file(source_fd(large.source, i), large.file_bytes[i], 1, &want, NULL, NULL, NULL, NULL),
                         0);
        assert_true(digest_equal(&want, &b.result->witness[i].digest));
        assert_string_equal(b.result->witness[i].name, source_name(large.source, i));
    }
    bench_close(&b);
}

static void plan_run__many_tiny_tensors_and_threads__gives_the_same_bytes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    for (int i = 0; i < 500; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "t%d.weight", i);
        fixture_tensor(&f, name, i % 2 ? QD_TYPE_F16 : QD_TYPE_F32, 0, (uint64_t)(i % 3), 2, 32, (uint64_t)(i % 5 + 1),
                       1);
    }
    fixture_source(&f, 0);
    struct bench b;
    bench_open(&b, &f, SCHEME_Q4_0);
    b.options.n_threads = 16;
    assert_int_equal(bench_run(&b), 0);
    assert_output_right(&b);
    assert_int_equal(b.result->n_witness, 0);
    bench_close(&b);
    fixture_clear(&f);
}

/* --- failures --- */

static void assert_refused(struct fixture *f, enum scheme scheme, const char *message, const char *hint)
{
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct bench b;
        bench_open(&b, f, scheme);
        b.options.n_threads = threads;
        assert_int_equal(bench_run(&b), QD_E_UNSUPPORTED);
        assert_non_null(strstr(b.err.message, message));
        assert_non_null(strstr(b.err.hint, hint));
        bench_close(&b);
    }
}

/*
 * Rows that straddle granules and shards, experts with an importance each, rows longer than a granule: what looks at a
 * whole row sees it, wherever it lies.
 */
static void make_weighted(struct fixture *f)
{
    fixture_init(f, "gguf", "llama");
    fixture_tensor(f, "rows.weight", QD_TYPE_F16, 0, SHARD_BYTES - 100001, 2, 1600, 100, 1);
    fixture_tensor(f, "experts.weight", QD_TYPE_F32, 0, 1, 3, 512, 30, 12);
    fixture_tensor(f, "wide.weight", QD_TYPE_F32, 0, SHARD_BYTES - 9 * (1 << 20), 2, 1572864, 2, 1);
    fixture_source(f, 1);
}

/* Importances for every tensor of the plan; the caller frees the one block. */
static float *give_importance(struct plan *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_tensors; i++)
        n += p->tensors[i].source->shape[0] * p->tensors[i].source->shape[2];
    float *all = malloc(n * sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = (float)(i * 2654435761u % 1021) / 64;
    float *at = all;
    for (size_t i = 0; i < p->n_tensors; i++) {
        p->tensors[i].importance = at;
        at += p->tensors[i].source->shape[0] * p->tensors[i].source->shape[2];
    }
    return all;
}

static void plan_run__importance_and_threads__weighs_whole_rows_of_the_right_expert(void **state)
{
    (void)state;
    static const enum scheme schemes[] = {SCHEME_Q4_0, SCHEME_Q8_0}; /* by the row; importance makes no difference */
    struct fixture f;
    make_weighted(&f);
    for (size_t s = 0; s < sizeof schemes / sizeof schemes[0]; s++) {
        struct bench b;
        bench_open(&b, &f, schemes[s]);
        float *importance = give_importance(b.plan);
        for (size_t i = 0; i < b.plan->n_tensors && !ops_for(0)->quantize_weighted[b.plan->tensors[i].type]; i++)
            b.plan->tensors[i].importance = NULL;
        for (b.options.n_threads = 1; b.options.n_threads <= 3; b.options.n_threads++) {
            assert_int_equal(bench_run(&b), 0);
            assert_output_right(&b);
        }
        bench_close(&b);
        free(importance);
    }
    fixture_clear(&f);
}

/* Blocks of the source that straddle shards, longer and shorter than those of the output; and into plain floats. */
static void plan_run__quantized_source__is_decoded_and_encoded_again(void **state)
{
    (void)state;
    static const enum scheme schemes[] = {SCHEME_Q4_K_M, SCHEME_Q4_0, SCHEME_Q6_K, SCHEME_F16};
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    fixture_tensor(&f, "small.weight", QD_TYPE_Q8_0, 0, SHARD_BYTES - 20000, 2, 2048, 40, 1);
    fixture_tensor(&f, "large.weight", QD_TYPE_Q6_K, 0, SHARD_BYTES - 90000, 2, 1024, 80, 1);
    fixture_tensor(&f, "short.weight", QD_TYPE_Q5_1, 0, 8, 2, 96, 40, 1);
    fixture_source(&f, 1);
    for (size_t s = 0; s < sizeof schemes / sizeof schemes[0]; s++) {
        struct bench b;
        struct recipe recipe = {.scheme = schemes[s], .pure = true, .requantize = true};
        bench_open_recipe(&b, &f, &recipe);
        for (b.options.n_threads = 1; b.options.n_threads <= 2; b.options.n_threads++) {
            assert_int_equal(bench_run(&b), 0);
            assert_output_right(&b);
        }
        bench_close(&b);
    }
    fixture_clear(&f);
}

/* What is only copied is looked at, too: a norm of one dimension, its bad element across the border of two shards. */
static void plan_run__bad_value_in_a_copy__is_named(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    struct tensor *t = fixture_tensor(&f, "norm.weight", QD_TYPE_F32, 0, SHARD_BYTES - 402, 1, 1000, 1, 1);
    fixture_source(&f, 0);
    fixture_poke(&f, t, 100, INFINITY); /* bytes 400 .. 403 */
    fixture_reopen(&f);
    struct bench b;
    bench_open(&b, &f, SCHEME_Q8_0);
    assert_int_equal(bench_run(&b), QD_E_UNSUPPORTED);
    assert_non_null(strstr(b.err.message, "'norm.weight', element 100 [100]: infinity"));
    bench_close(&b);
    fixture_clear(&f);
}

static void plan_run__row_longer_than_a_shard__cannot_be_weighed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    fixture_tensor(&f, "wide.weight", QD_TYPE_F32, 0, 0, 2, SHARD_BYTES / 4 + 32, 2, 1);
    fixture_source(&f, 0);
    struct bench b;
    bench_open(&b, &f, SCHEME_Q4_0);
    float *importance = give_importance(b.plan);
    assert_int_equal(bench_run(&b), QD_E_LIMIT);
    assert_non_null(strstr(b.err.message, "wide.weight"));
    assert_non_null(strstr(b.err.hint, "q4_k"));
    bench_close(&b);
    free(importance);
    fixture_clear(&f);
}

static void plan_run__several_bad_values__names_the_first_in_the_file(void **state)
{
    (void)state;
    struct fixture f;
    make_large(&f, 0);
    fixture_poke(&f, &f.tensors[0], 9000 * 1024 - 1, NAN);
    assert_refused(&f, SCHEME_Q8_0, "'first.weight', element 9215999 [1023, 8999]: NaN", "damaged");
    fixture_poke(&f, &f.tensors[0], 5 * 1024 + 7, -INFINITY);
    assert_refused(&f, SCHEME_Q8_0, "'first.weight', element 5127 [7, 5]: infinity", "damaged");
    fixture_clear(&f);
}

static void plan_run__bad_value_in_a_seam__is_found_before_later_ones(void **state)
{
    (void)state;
    struct fixture f;
    make_large(&f, 0);
    uint64_t element =
        (SHARD_BYTES - f.tensors[0].offset) / 4 - 1; /* the last whole element before the first shard's end */
    char message[64];
    (void)snprintf(message, sizeof message, "element %llu ", (unsigned long long)element);
    fixture_poke(&f, &f.tensors[0], element, NAN);
    fixture_poke(&f, &f.tensors[0], element + 100000, NAN);
    assert_refused(&f, SCHEME_Q8_0, message, "damaged");
    fixture_clear(&f);
}

static void plan_run__value_beyond_f16__is_refused_with_bf16_as_hint(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "gguf", "llama");
    struct tensor *t = fixture_tensor(&f, "big.weight", QD_TYPE_F32, 0, 0, 2, 64, 64, 1);
    fixture_source(&f, 0);
    fixture_poke(&f, t, 70, 65536.0f);
    assert_refused(&f, SCHEME_F16, "'big.weight', element 70 [6, 1]: 65536 is beyond what f16 can hold", "bf16");
    fixture_reopen(&f);
    struct bench b;
    bench_open(&b, &f, SCHEME_BF16);
    assert_int_equal(bench_run(&b), 0);
    bench_close(&b);
    fixture_poke(&f, t, 70, 65504.0f * 128);
    assert_refused(&f, SCHEME_Q8_0, "'big.weight', element 70 [6, 1]: 8.38451e+06 is beyond what q8_0 can hold",
                   "bf16");
    fixture_clear(&f);
}

static void plan_run__source_cut_short__is_source_changed(void **state)
{
    (void)state;
    struct fixture f;
    make_large(&f, 0);
    assert_int_equal(ftruncate(source_fd(f.source, 1), SHARD_BYTES / 2), 0);
    struct bench b;
    bench_open(&b, &f, SCHEME_Q8_0);
    assert_int_equal(bench_run(&b), QD_E_SOURCE_CHANGED);
    bench_close(&b);
    fixture_clear(&f);
}

static void plan_run__no_space__is_told_before_work(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q8_0);
    char name[] = "/tmp/quantd-test-XXXXXX";
    (void)close(b.options.out_fd);
    b.options.out_fd = mkstemp(name);
    (void)unlink(name);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 1 << 20;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int r = bench_run(&b);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(r, QD_E_NO_SPACE);
    bench_close(&b);
}

static void plan_run__cancelled_threads__stop(void **state)
{
    (void)state;
    static _Atomic int cancel = 1;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q8_0);
    b.options.cancel = &cancel;
    assert_int_equal(bench_run(&b), QD_E_CANCELLED);
    bench_close(&b);
}

static void note_progress(const struct run_progress *p, void *data)
{
    uint64_t *last = data;
    assert_true(p->done_bytes >= *last && p->done_bytes <= p->total_bytes);
    *last = p->done_bytes;
}

static void plan_run__progress_of_threads__rises_to_the_total(void **state)
{
    (void)state;
    uint64_t last = 0;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q8_0);
    b.options.progress = note_progress;
    b.options.progress_data = &last;
    assert_int_equal(bench_run(&b), 0);
    assert_int_equal(last, large.file_bytes[0] + large.file_bytes[1] + large.file_bytes[2]);
    bench_close(&b);
}

/* --- the journal --- */

enum { HALF_WAY = 4300 }; /* chunks; 16 granules of 129 make a shard of f32, so two shards are done and a third begun */

static _Atomic int stop_now;
static int measures_left;
static measure_fn *true_measure;

static void measure_and_stop(struct error_sums *sums, const float *x, const float *y, size_t n)
{
    true_measure(sums, x, y, n);
    if (--measures_left <= 0)
        stop_now = 1;
}

/* Runs with a journal until @n_chunks were measured, then stops. */
static int run_some(struct bench *b, int n_chunks)
{
    struct ops ops = *ops_native();
    const struct ops *before = b->options.ops;
    true_measure = ops.measure;
    ops.measure = measure_and_stop;
    measures_left = n_chunks;
    stop_now = 0;
    b->options.ops = &ops;
    b->options.cancel = &stop_now;
    int r = bench_run(b);
    b->options.ops = before;
    b->options.cancel = NULL;
    return r;
}

static void journal_on(struct bench *b)
{
    b->options.journal_fd = memfd_create("journal", MFD_CLOEXEC);
    b->options.journal_tag = "key 1, boot 1";
}

static void assert_same_as_whole_run(struct bench *b)
{
    struct bench whole;
    bench_open(&whole, b->f, b->plan->recipe.scheme);
    assert_int_equal(bench_run(&whole), 0);
    uint8_t *x = output_of(b), *y = output_of(&whole);
    assert_memory_equal(x, y, b->plan->file_bytes);
    for (size_t i = 0; i < whole.result->tensors.n; i++) {
        assert_memory_equal(&whole.result->tensors.tensors[i].sqnr_db, &b->result->tensors.tensors[i].sqnr_db,
                            sizeof(double));
        assert_memory_equal(&whole.result->tensors.tensors[i].max_abs, &b->result->tensors.tensors[i].max_abs,
                            sizeof(double));
    }
    for (size_t i = 0; i < whole.result->n_witness; i++)
        assert_true(digest_equal(&whole.result->witness[i].digest, &b->result->witness[i].digest));
    free(x);
    free(y);
    bench_close(&whole);
}

static void plan_run__stopped_and_continued__gives_the_same_bytes_and_quality(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q4_0);
    journal_on(&b);
    assert_int_equal(run_some(&b, HALF_WAY), QD_E_CANCELLED);
    assert_int_equal(bench_run(&b), 0);
    assert_int_equal(b.result->resumed_bytes, 2u * SHARD_BYTES);
    assert_same_as_whole_run(&b);
    assert_int_equal(bench_run(&b), 0); /* once more: all of it is in the journal */
    assert_int_equal(b.result->resumed_bytes, large.file_bytes[0] + large.file_bytes[1] + large.file_bytes[2]);
    assert_same_as_whole_run(&b);
    bench_close(&b);
}

static void plan_run__journal_of_another_tag__starts_afresh(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q4_0);
    journal_on(&b);
    assert_int_equal(run_some(&b, HALF_WAY), QD_E_CANCELLED);
    b.options.journal_tag = "key 1, boot 2";
    assert_int_equal(bench_run(&b), 0);
    assert_int_equal(b.result->resumed_bytes, 0);
    assert_same_as_whole_run(&b);
    bench_close(&b);
}

static void plan_run__torn_or_flipped_journal__keeps_the_records_before(void **state)
{
    (void)state;
    for (int flip = 0; flip < 2; flip++) {
        struct bench b;
        bench_open(&b, &large, SCHEME_Q4_0);
        journal_on(&b);
        assert_int_equal(run_some(&b, HALF_WAY), QD_E_CANCELLED);
        struct stat st;
        assert_int_equal(fstat(b.options.journal_fd, &st), 0);
        uint8_t byte;
        assert_int_equal(pread_whole(b.options.journal_fd, &byte, 1, (uint64_t)st.st_size - 40), 1);
        byte ^= 1;
        if (flip)
            assert_int_equal(pwrite_whole(b.options.journal_fd, &byte, 1, (uint64_t)st.st_size - 40), 0);
        else
            assert_int_equal(ftruncate(b.options.journal_fd, st.st_size - 7), 0);
        assert_int_equal(bench_run(&b), 0);
        assert_int_equal(b.result->resumed_bytes, SHARD_BYTES);
        assert_same_as_whole_run(&b);
        bench_close(&b);
    }
}

static void plan_run__output_gone__does_not_believe_the_journal(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, &large, SCHEME_Q4_0);
    journal_on(&b);
    assert_int_equal(run_some(&b, HALF_WAY), QD_E_CANCELLED);
    assert_int_equal(ftruncate(b.options.out_fd, 0), 0);
    assert_int_equal(bench_run(&b), 0);
    assert_int_equal(b.result->resumed_bytes, 0);
    assert_same_as_whole_run(&b);
    bench_close(&b);
}

/* Two tensors of one shape over three shards; stopped when the first shard is done. */
static void stop_in_the_second_shard(struct fixture *f, struct bench *b)
{
    fixture_init(f, "safetensors", "llama");
    fixture_tensor(f, "one.weight", QD_TYPE_BF16, 0, 0, 2, 2048, 4100, 1);
    fixture_tensor(f, "two.weight", QD_TYPE_BF16, 0, 0, 2, 2048, 4100, 1);
    fixture_source(f, 1);
    bench_open(b, f, SCHEME_Q8_0);
    journal_on(b);
    assert_int_equal(run_some(b, 5000), QD_E_CANCELLED); /* 4096 chunks of 2048 elements make a shard of bf16 */
}

/*
 * The header is read again when a run is continued; the shard that holds it is not: what the header says must be in the
 * shape.
 */
static void plan_run__header_says_other_places_or_types__does_not_believe_the_journal(void **state)
{
    (void)state;
    for (int change = 0; change < 3; change++) {
        struct fixture f;
        struct bench b;
        stop_in_the_second_shard(&f, &b);
        uint64_t offset = f.tensors[0].offset;
        if (change == 0) {
            f.tensors[0].offset = f.tensors[1].offset;
            f.tensors[1].offset = offset;
        } else if (change == 1) {
            f.tensors[0].type = f.tensors[1].type = QD_TYPE_F16;
        } else {
            f.tensors[1].row_order = ROWS_ROPE_PAIRED;
            f.tensors[1].head_rows = 4;
        }
        assert_int_equal(bench_run(&b), 0);
        assert_int_equal(b.result->resumed_bytes, 0);
        assert_same_as_whole_run(&b);
        bench_close(&b);
        fixture_clear(&f);
    }
}

static void plan_run__killed_before_the_first_record__makes_the_output_afresh(void **state)
{
    (void)state;
    static const uint8_t stale[4096] = {[0 ... 4095] = 0xa5};
    struct bench b;
    bench_open(&b, &large, SCHEME_Q4_0);
    journal_on(&b);
    assert_int_equal(run_some(&b, 1), QD_E_CANCELLED); /* a journal of its head alone */
    for (uint64_t at = 0; at < b.plan->file_bytes; at += sizeof stale)
        assert_int_equal(pwrite_whole(b.options.out_fd, stale, sizeof stale, at), 0);
    assert_int_equal(ftruncate(b.options.out_fd, (off_t)b.plan->file_bytes), 0);
    assert_int_equal(bench_run(&b), 0);
    assert_output_right(&b);
    bench_close(&b);
}

/* One attempt in a process of its own that is killed after @us microseconds; true when it had finished before. */
static bool run_and_kill(struct bench *b, unsigned us)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        b->options.n_threads = 2;
        _exit(bench_run(b) == 0 ? 0 : 1);
    }
    (void)usleep(us);
    (void)kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void plan_run__killed_at_many_points__ends_with_the_same_bytes(void **state)
{
    (void)state;
    unsigned us = 500;
    for (int round = 0; round < 5; round++) {
        struct bench b;
        bench_open(&b, &large, SCHEME_Q8_0);
        journal_on(&b);
        for (int attempt = 0; attempt < 20 && !run_and_kill(&b, us); attempt++)
            us = us * 7 / 5 % 60000 + 500;
        assert_int_equal(bench_run(&b), 0);
        assert_same_as_whole_run(&b);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_cache__dropped_and_fetched__is_told_apart),
        cmocka_unit_test(plan_run__any_scheme_and_threads__gives_the_whole_tensor_bytes),
        cmocka_unit_test(plan_run__any_threads_and_kernels__gives_the_same_quality),
        cmocka_unit_test(plan_run__quality__is_the_error_over_all_elements),
        cmocka_unit_test(plan_run__block_over_two_shards__counts_in_the_quality),
        cmocka_unit_test(plan_run__witness__is_the_digest_of_every_file),
        cmocka_unit_test(plan_run__many_tiny_tensors_and_threads__gives_the_same_bytes),
        cmocka_unit_test(plan_run__importance_and_threads__weighs_whole_rows_of_the_right_expert),
        cmocka_unit_test(plan_run__quantized_source__is_decoded_and_encoded_again),
        cmocka_unit_test(plan_run__bad_value_in_a_copy__is_named),
        cmocka_unit_test(plan_run__row_longer_than_a_shard__cannot_be_weighed),
        cmocka_unit_test(plan_run__several_bad_values__names_the_first_in_the_file),
        cmocka_unit_test(plan_run__bad_value_in_a_seam__is_found_before_later_ones),
        cmocka_unit_test(plan_run__value_beyond_f16__is_refused_with_bf16_as_hint),
        cmocka_unit_test(plan_run__source_cut_short__is_source_changed),
        cmocka_unit_test(plan_run__no_space__is_told_before_work),
        cmocka_unit_test(plan_run__cancelled_threads__stop),
        cmocka_unit_test(plan_run__progress_of_threads__rises_to_the_total),
        cmocka_unit_test(plan_run__stopped_and_continued__gives_the_same_bytes_and_quality),
        cmocka_unit_test(plan_run__journal_of_another_tag__starts_afresh),
        cmocka_unit_test(plan_run__torn_or_flipped_journal__keeps_the_records_before),
        cmocka_unit_test(plan_run__output_gone__does_not_believe_the_journal),
        cmocka_unit_test(plan_run__header_says_other_places_or_types__does_not_believe_the_journal),
        cmocka_unit_test(plan_run__killed_before_the_first_record__makes_the_output_afresh),
        cmocka_unit_test(plan_run__killed_at_many_points__ends_with_the_same_bytes),
    };
    fixture_only_threads_under_tsan();
    return cmocka_run_group_tests(tests, setup_large, teardown_large);
}
