/* Packing and unpacking, from plan to bytes: files of ours, made by a run, packed by one and unpacked by another. */
#include "tests/test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "kernels/layout/packed.h"
#include "quant/limits.h"
#include "quant/packed.h"
#include "quant/plan_pack.h"
#include "quant/run.h"
#include "tests/unit/quant/fixture.h"

/* A file of a run, read again: what the next step starts from. */
struct made {
    int fd;
    struct source *source;
    struct model *model;
    struct plan *plan;
    struct run_result *result;
};

static const struct run_options quick = {.n_threads = 2, .journal_fd = -1, .journal_tag = ""};

/* Runs @plan over @source, and reads the file that comes out. Takes @plan. */
static void make(struct source *source, struct plan *plan, const struct run_options *how, struct made *ret)
{
    struct qd_error err = {0};
    struct run_options o = *how;
    *ret = (struct made){.fd = memfd_create("made", MFD_CLOEXEC), .plan = plan};
    o.ops = o.ops ? o.ops : ops_native();
    o.out_fd = ret->fd;
    if (plan_run(source, plan, &o, &ret->result, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(source_from_fd(dup(ret->fd), "made.gguf", &ret->source, NULL), 0);
    if (model_read(ret->source, LIMIT_HEADER_BUDGET_BYTES, &ret->model, &err) < 0)
        fail_msg("%s", err.message);
}

static void made_clear(struct made *m)
{
    (void)run_result_free(m->result);
    (void)plan_free(m->plan);
    (void)model_free(m->model);
    (void)source_free(m->source);
    (void)close(m->fd);
}

static uint8_t *bytes_of(const struct made *m)
{
    uint8_t *data = malloc(m->plan->file_bytes);
    assert_int_equal(pread_whole(m->fd, data, m->plan->file_bytes, 0), m->plan->file_bytes);
    return data;
}

static void make_portable(struct fixture *f, enum scheme scheme, struct made *ret)
{
    struct plan *plan = NULL;
    struct recipe recipe = {.scheme = scheme, .pure = true};
    assert_int_equal(plan_build(&f->model, &recipe, NULL, &plan, NULL), 0);
    make(f->source, plan, &quick, ret);
}

static void make_packed(const struct made *portable, enum qd_layout layout, const struct run_options *how,
                        struct made *ret)
{
    struct plan *plan = NULL;
    assert_int_equal(plan_pack(portable->model, layout, NULL, &plan, NULL), 0);
    make(portable->source, plan, how, ret);
}

static void make_unpacked(const struct made *packed, const struct run_options *how, struct made *ret)
{
    struct plan *plan = NULL;
    assert_int_equal(plan_unpack(packed->model, &plan, NULL), 0);
    make(packed->source, plan, how, ret);
}

/* Rows that fill groups, rows that do not, fewer than a group, experts, a fourth dimension, what has no packed form. */
static void make_small(struct fixture *f)
{
    fixture_init(f, "safetensors", "llama");
    fixture_tensor(f, "full.weight", QD_TYPE_F16, 0, 0, 2, 512, 64, 1);
    fixture_tensor(f, "left.weight", QD_TYPE_F16, 0, 3, 2, 256, 47, 1);
    fixture_tensor(f, "few.weight", QD_TYPE_F16, 0, 0, 2, 256, 3, 1);
    fixture_tensor(f, "most.weight", QD_TYPE_F16, 0, 0, 2, 256, 15, 1);
    fixture_tensor(f, "one.weight", QD_TYPE_F16, 0, 0, 2, 256, 16, 1);
    fixture_tensor(f, "norm.weight", QD_TYPE_F32, 0, 0, 1, 100, 1, 1);
    fixture_tensor(f, "experts.weight", QD_TYPE_BF16, 0, 0, 3, 256, 21, 5);
    struct tensor *t = fixture_tensor(f, "whole_experts.weight", QD_TYPE_BF16, 0, 0, 3, 256, 32, 6);
    t->n_dims = 4;
    t->shape[2] = 3;
    t->shape[3] = 2;
    fixture_tensor(f, "odd.weight", QD_TYPE_F16, 0, 0, 2, 33, 20, 1); /* no blocks in rows of 33 */
    fixture_source(f, 1);
}

static const enum scheme schemes[] = {SCHEME_Q8_0,   SCHEME_Q4_0,   SCHEME_Q2_K, SCHEME_Q3_K_M,
                                      SCHEME_Q4_K_M, SCHEME_Q5_K_M, SCHEME_Q6_K, SCHEME_Q5_1};
enum { N_SCHEMES_TRIED = sizeof schemes / sizeof schemes[0] };

/* One matrix as docs/formats/packed.md has it: byte by byte, by its formula. */
static void pack_by_formula(enum qd_layout layout, enum qd_type type, uint64_t n_rows, uint64_t n_blocks,
                            const uint8_t *src, uint8_t *dst)
{
    const struct packed_field *fields;
    const size_t n_fields = packed_fields(type, &fields), block_bytes = qd_type_info(type)->block_bytes;
    const size_t rows = qd_layout_info(layout)->rows, row_bytes = n_blocks * block_bytes;
    const size_t panel = qd_layout_info(layout)->panel / fields[0].bytes;
    memcpy(dst, src, n_rows * row_bytes); /* the rows that are left */
    for (size_t r = 0; r < n_rows / rows * rows; r++)
        for (size_t b = 0; b < n_blocks; b++) {
            const size_t first = b / panel * panel, n = n_blocks - first < panel ? n_blocks - first : panel;
            for (size_t f = 0, before = 0; f < n_fields; before += fields[f++].bytes)
                for (size_t i = 0; i < fields[f].bytes; i++) {
                    const size_t run = fields[f].run ? fields[f].run : qd_layout_info(layout)->run;
                    dst[r / rows * rows * row_bytes + rows * first * block_bytes +
                        rows * (n * before + (b - first) * fields[f].bytes) + (i / run * rows + r % rows) * run +
                        i % run] = src[r * row_bytes + b * block_bytes + fields[f].offset + i];
                }
        }
}

/* Every tensor of @packed at its planned place, by the formula from @portable; any other byte behind the header 0. */
static uint8_t *expected_of(const struct made *portable, const struct made *packed, enum qd_layout layout)
{
    uint8_t *from = bytes_of(portable), *want = calloc(1, packed->plan->file_bytes);
    memcpy(want, packed->plan->header.data, packed->plan->header.n);
    for (size_t i = 0; i < packed->plan->n_tensors; i++) {
        const struct plan_tensor *pt = &packed->plan->tensors[i];
        const struct tensor *t = pt->source;
        const uint8_t *src = from + t->offset;
        uint8_t *dst = want + pt->offset;
        const uint64_t row_bytes = qd_type_row_bytes(t->type, t->shape[0]);
        memcpy(dst, src, t->bytes);
        for (uint64_t m = 0; layout_packs(layout, t->type, t->shape[1]) && m < t->shape[2] * t->shape[3]; m++)
            pack_by_formula(layout, t->type, t->shape[1], t->shape[0] / qd_type_info(t->type)->block_elements,
                            src + m * t->shape[1] * row_bytes, dst + m * t->shape[1] * row_bytes);
    }
    free(from);
    return want;
}

static void assert_same_file(const struct made *a, const struct made *b)
{
    uint8_t *x = bytes_of(a), *y = bytes_of(b);
    assert_int_equal(a->plan->file_bytes, b->plan->file_bytes);
    assert_memory_equal(x, y, a->plan->file_bytes);
    free(x);
    free(y);
}

static void check_packed(const struct made *portable, enum qd_layout layout, unsigned n_threads)
{
    struct made packed, back;
    struct run_options how = quick;
    how.n_threads = n_threads;
    make_packed(portable, layout, &how, &packed);
    uint8_t *got = bytes_of(&packed), *want = expected_of(portable, &packed, layout);
    assert_memory_equal(got, want, packed.plan->file_bytes);
    free(got);
    free(want);
    make_unpacked(&packed, &how, &back);
    assert_same_file(&back, portable);
    made_clear(&packed);
    made_clear(&back);
}

static void plan_pack__any_type_layout_and_rows__puts_every_byte_in_its_place_and_back(void **state)
{
    (void)state;
    struct fixture f;
    make_small(&f);
    for (size_t s = 0; s < N_SCHEMES_TRIED; s++) {
        struct made portable;
        make_portable(&f, schemes[s], &portable);
        for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++)
            check_packed(&portable, (enum qd_layout)layout, 1 + (unsigned)layout % 3);
        made_clear(&portable);
    }
    fixture_clear(&f);
}

/* Over five shards: groups that straddle granules and shards, rows that are left on a border, a group of 3 granules. */
static void make_large(struct fixture *f)
{
    fixture_init(f, "safetensors", "llama");
    fixture_tensor(f, "first.weight", QD_TYPE_F16, 0, 100, 2, 4096, 3855, 1);
    fixture_tensor(f, "experts.weight", QD_TYPE_F16, 0, 0, 3, 2048, 999, 11);
    fixture_tensor(f, "norm.weight", QD_TYPE_F32, 0, 0, 1, 1000, 1, 1);
    fixture_tensor(f, "wide.weight", QD_TYPE_F16, 0, 0, 2, 196608, 33, 1);
    fixture_tensor(f, "last.weight", QD_TYPE_F16, 0, 0, 2, 256, 7, 1);
    fixture_source(f, 0);
}

static struct fixture large_source;
static struct made large; /* of it, q8_0; by all tests that only read it */

static int setup_large(void **state)
{
    (void)state;
    make_large(&large_source);
    make_portable(&large_source, SCHEME_Q8_0, &large);
    return 0;
}

static int teardown_large(void **state)
{
    (void)state;
    made_clear(&large);
    fixture_clear(&large_source);
    return 0;
}

/* Does the first border of shards lie in the rows that are left of the first tensor? */
static bool border_is_in_the_rest(const struct made *m, uint64_t rows)
{
    const struct plan_tensor *pt = &m->plan->tensors[0];
    const uint64_t row_bytes = pt->bytes / pt->source->shape[1], at = SHARD_BYTES - pt->offset;
    return at > pt->source->shape[1] / rows * rows * row_bytes && at < pt->bytes;
}

static void plan_pack__many_shards_and_threads__gives_the_same_bytes_and_back(void **state)
{
    (void)state;
    assert_true(large.plan->file_bytes > 2u * SHARD_BYTES);
    assert_true(border_is_in_the_rest(&large, 16) && border_is_in_the_rest(&large, 4));
    for (unsigned n_threads = SLOW ? 4 : 1; n_threads <= 4; n_threads++)
        check_packed(&large, QD_LAYOUT_R16K4P128, n_threads);
    check_packed(&large, QD_LAYOUT_R4K8P128, 3);
}

static void plan_pack__any_kernels__give_the_same_bytes(void **state)
{
    (void)state;
    struct made native, scalar;
    struct run_options how = quick;
    make_packed(&large, QD_LAYOUT_R8K4P128, &how, &native);
    how.ops = ops_for(0);
    make_packed(&large, QD_LAYOUT_R8K4P128, &how, &scalar);
    assert_same_file(&native, &scalar);
    made_clear(&native);
    made_clear(&scalar);
}

static void plan_pack__witness__is_the_digest_of_the_portable_file(void **state)
{
    (void)state;
    struct made packed;
    struct digest want;
    source_set_witness(large.source, 1);
    make_packed(&large, QD_LAYOUT_R16K4P128, &quick, &packed);
    source_set_witness(large.source, 0);
    assert_int_equal(packed.result->n_witness, 1);
    assert_int_equal(digest_file(large.fd, large.plan->file_bytes, 1, &want, NULL, NULL, NULL, NULL), 0);
    assert_true(digest_equal(&want, &packed.result->witness[0].digest));
    made_clear(&packed);
}

/* --- continuing --- */

/* One attempt in a process of its own that is killed after @us microseconds; true when it had finished before. */
static bool run_and_kill(struct source *s, const struct plan *p, const struct run_options *o, unsigned us)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct run_result *result = NULL;
        _exit(plan_run(s, p, o, &result, NULL) == 0 ? 0 : 1);
    }
    (void)usleep(us);
    (void)kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/*
 * Kills until a run gets through, each a while later than the one before, however slow the build; then runs once more
 * over what is there: *resumed counts what it found done.
 */
static void run_with_deaths(struct source *s, struct plan *p, unsigned us, uint64_t *resumed, struct made *ret)
{
    struct run_options o = quick;
    *ret = (struct made){.fd = memfd_create("made", MFD_CLOEXEC), .plan = p};
    o.ops = ops_native();
    o.out_fd = ret->fd;
    o.journal_fd = memfd_create("journal", MFD_CLOEXEC);
    o.journal_tag = "key 1, boot 1";
    for (int attempt = 0; attempt < 25 && !run_and_kill(s, p, &o, us); attempt++)
        us = us * 7 / 5 + 300;
    assert_int_equal(plan_run(s, p, &o, &ret->result, NULL), 0);
    *resumed += ret->result->resumed_bytes;
    (void)close(o.journal_fd);
}

static void plan_pack__killed_at_many_points__ends_with_the_same_bytes(void **state)
{
    (void)state;
    struct made whole;
    uint64_t resumed = 0;
    make_packed(&large, QD_LAYOUT_R16K4P128, &quick, &whole);
    for (unsigned round = 0; round < (SLOW ? 1 : 4); round++) {
        struct plan *pack = NULL, *unpack = NULL;
        struct made packed, back;
        assert_int_equal(plan_pack(large.model, QD_LAYOUT_R16K4P128, NULL, &pack, NULL), 0);
        run_with_deaths(large.source, pack, 300 + 2900 * round, &resumed, &packed);
        assert_same_file(&packed, &whole);
        assert_int_equal(plan_unpack(whole.model, &unpack, NULL), 0);
        run_with_deaths(whole.source, unpack, 300 + 2900 * round, &resumed, &back);
        assert_same_file(&back, &large);
        made_clear(&packed);
        made_clear(&back);
    }
    assert_true(resumed > 0);
    made_clear(&whole);
}

/* The layout of the source stands in its header alone, which a continued run does not read again. */
static void plan_unpack__journal_of_another_layout__is_not_believed(void **state)
{
    (void)state;
    struct made a, b, back = {.fd = memfd_create("made", MFD_CLOEXEC)};
    struct run_options o = quick;
    o.ops = ops_native();
    o.out_fd = back.fd;
    o.journal_fd = memfd_create("journal", MFD_CLOEXEC);
    o.journal_tag = "x";
    make_packed(&large, QD_LAYOUT_R4K4P128, &quick, &a);
    make_packed(&large, QD_LAYOUT_R4K8P128, &quick, &b);
    assert_int_equal(plan_unpack(a.model, &back.plan, NULL), 0);
    assert_int_equal(plan_run(a.source, back.plan, &o, &back.result, NULL), 0);
    back.plan = plan_free(back.plan);
    back.result = run_result_free(back.result);
    assert_int_equal(plan_unpack(b.model, &back.plan, NULL), 0);
    assert_int_equal(plan_run(b.source, back.plan, &o, &back.result, NULL), 0);
    assert_int_equal(back.result->resumed_bytes, 0);
    assert_same_file(&back, &large);
    (void)close(o.journal_fd);
    made_clear(&a);
    made_clear(&b);
    made_clear(&back);
}

/* --- memory --- */

static void make_wide(struct fixture *f, uint64_t columns)
{
    fixture_init(f, "gguf", "llama");
    fixture_tensor(f, "wide.weight", QD_TYPE_Q8_0, 0, 0, 2, columns, 17, 1);
    fixture_source(f, 0);
}

static void plan_pack__group_as_long_as_a_shard__is_packed(void **state)
{
    (void)state;
    enum { COLUMNS = SHARD_BYTES / 16 / 34 * 32 };
    struct fixture f;
    struct made portable, packed;
    make_wide(&f, COLUMNS);
    make_portable(&f, SCHEME_Q8_0, &portable);
    make_packed(&portable, QD_LAYOUT_R16K4P128, &quick, &packed);
    uint8_t *got = bytes_of(&packed), *want = expected_of(&portable, &packed, QD_LAYOUT_R16K4P128);
    assert_memory_equal(got, want, packed.plan->file_bytes);
    free(got);
    free(want);
    made_clear(&packed);
    made_clear(&portable);
    fixture_clear(&f);
}

static void plan_pack__group_longer_than_a_shard__is_refused_by_name(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err;
    make_wide(&f, SHARD_BYTES / 16 / 34 * 32 + 32);
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R16K4P128, NULL, &p, &err), QD_E_LIMIT);
    assert_non_null(strstr(err.message, "'wide.weight': 16 rows of"));
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R8K4P128, NULL, &p, &err), 0);
    (void)plan_free(p);
    fixture_clear(&f);
}

static void run_fit_threads__groups_of_rows__count_against_the_ceiling(void **state)
{
    (void)state;
    struct plan *narrow = NULL, *wide = NULL;
    struct fixture f;
    const struct run_ceiling ceiling = {.bytes = 128 << 20, .name = "--max-memory"};
    unsigned n_narrow, n_wide;
    make_wide(&f, 1 << 19);
    assert_int_equal(plan_pack(large.model, QD_LAYOUT_R4K4P128, NULL, &narrow, NULL), 0);
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R16K4P128, NULL, &wide, NULL), 0);
    assert_int_equal(run_fit_threads(large.model, narrow, &ceiling, 100, &n_narrow, NULL), 0);
    assert_int_equal(run_fit_threads(&f.model, wide, &ceiling, 100, &n_wide, NULL), 0);
    assert_true(n_wide >= 1 && n_wide <= (128u << 20) / (4u * 16 * 34 << 14) && n_wide < n_narrow);
    (void)plan_free(narrow);
    (void)plan_free(wide);
    fixture_clear(&f);
}

/* --- what is said of it --- */

static struct digest digest_of_meta(const struct meta_table *meta)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct digest d;
    struct qd_error err;
    if (meta_table_encode(meta, &b, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(digest_message("x", buffer_span(&b), &d, NULL), 0);
    return d;
}

static void plan_pack__metadata__is_the_portable_one_s(void **state)
{
    (void)state;
    struct made packed, back;
    make_packed(&large, QD_LAYOUT_R16K4P128, &quick, &packed);
    make_unpacked(&packed, &quick, &back);
    struct digest a = digest_of_meta(&large.plan->meta), b = digest_of_meta(&packed.plan->meta),
                  c = digest_of_meta(&back.plan->meta);
    assert_true(digest_equal(&a, &b));
    assert_true(digest_equal(&a, &c));
    made_clear(&packed);
    made_clear(&back);
}

/* The portable artifact's payload and its tensor table, as a worker is given them. */
static void open_artifact(const struct made *m, const struct tensor_table *table, struct source **ret)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    int fd = memfd_create("tensors", MFD_CLOEXEC);
    assert_int_equal(tensor_table_encode(table, &raw, NULL), 0);
    assert_int_equal(pwrite_whole(fd, raw.data, raw.n, 0), 0);
    assert_int_equal(source_from_fd(dup(m->fd), "model.gguf", ret, NULL), 0);
    source_set_witness(*ret, 1);
    assert_int_equal(source_add(*ret, fd, PORTABLE_TABLE_ROLE, "tensors", NULL), 1);
}

static int read_table(struct source *s, struct model **ret_model, struct portable_table **ret, struct qd_error *err)
{
    assert_int_equal(portable_table_file(s), 1);
    assert_int_equal(model_read(s, LIMIT_HEADER_BUDGET_BYTES, ret_model, NULL), 0);
    return portable_table_read(s, 1, *ret_model, 1 << 20, ret, err);
}

static void plan_pack__table_of_the_artifact__stays_but_for_offsets(void **state)
{
    (void)state;
    struct fixture f;
    struct made portable, packed;
    struct source *s = NULL;
    struct model *model = NULL;
    struct portable_table *table = NULL;
    struct plan *plan = NULL;
    make_small(&f);
    make_portable(&f, SCHEME_Q4_K_M, &portable);
    open_artifact(&portable, &portable.result->tensors, &s);
    assert_int_equal(read_table(s, &model, &table, NULL), 0);
    assert_int_equal(plan_pack(model, QD_LAYOUT_R8K4P128, table, &plan, NULL), 0);
    make(s, plan, &quick, &packed);
    assert_int_equal(packed.result->n_witness, 2);
    for (size_t i = 0; i < portable.result->tensors.n; i++) {
        struct tensor_entry want = portable.result->tensors.tensors[i], *got = &packed.result->tensors.tensors[i];
        assert_int_equal(got->offset, packed.model->tensors[i].offset);
        assert_string_equal(got->name, want.name);
        assert_string_equal(got->reason, want.reason);
        want.offset = got->offset;
        want.name = got->name;
        want.reason = got->reason;
        for (uint32_t d = want.n_dims; d < TABLE_DIMS_MAX; d++)
            want.shape[d] = got->shape[d]; /* beyond the dimensions: without meaning */
        assert_memory_equal(got, &want, sizeof want);
    }
    made_clear(&packed);
    (void)portable_table_free(table);
    (void)model_free(model);
    (void)source_free(s);
    made_clear(&portable);
    fixture_clear(&f);
}

static void portable_table__of_another_artifact__is_refused(void **state)
{
    (void)state;
    for (int change = 0; change < 6; change++) {
        struct tensor_entry entries[8];
        struct tensor_table table = {.tensors = entries, .n = large.result->tensors.n};
        struct source *s = NULL;
        struct model *model = NULL;
        struct portable_table *ret = NULL;
        struct qd_error err;
        memcpy(entries, large.result->tensors.tensors, table.n * sizeof *entries);
        if (change == 1)
            entries[0].name = "other.weight";
        if (change == 2)
            entries[1].offset += 4096;
        if (change == 3)
            table.n--;
        if (change == 4) { /* as many bytes */
            entries[0].shape[0] /= 2;
            entries[0].shape[1] *= 2;
        }
        if (change == 5) {
            entries[4] = entries[3];
            entries[3] = large.result->tensors.tensors[4];
        }
        open_artifact(&large, &table, &s);
        int r = read_table(s, &model, &ret, &err);
        assert_int_equal(r, change ? QD_E_CORRUPT : 0);
        assert_true(!change || strstr(err.message, change == 3 ? "lists 4 tensors" : "is not in the table"));
        (void)portable_table_free(ret);
        (void)model_free(model);
        (void)source_free(s);
    }
}

/* --- what is refused --- */

static void plan_build__packed_file__is_refused_and_named(void **state)
{
    (void)state;
    struct made packed;
    struct plan *p = NULL;
    struct qd_error err;
    struct recipe recipe = {.scheme = SCHEME_Q4_0};
    make_packed(&large, QD_LAYOUT_R8K4P128, &quick, &packed);
    assert_int_equal(plan_build(packed.model, &recipe, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "packed file (layout 'r8k4p128')"));
    assert_non_null(strstr(err.hint, "quantctl unpack"));
    assert_int_equal(plan_pack(packed.model, QD_LAYOUT_R4K4P128, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "packed file (layout 'r8k4p128')"));
    assert_int_equal(plan_unpack(large.model, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no packed file: its architecture is 'llama'"));
    made_clear(&packed);
}

static struct meta_value *value_of(struct model *m, const char *key)
{
    for (size_t i = 0; i < m->meta.n; i++)
        if (strcmp(m->meta.entries[i].key, key) == 0)
            return &m->meta.entries[i].value;
    fail_msg("no key '%s'", key);
    return NULL;
}

static void set_text(struct model *m, const char *key, const char *text)
{
    static struct bytes span;
    span = (struct bytes){(const uint8_t *)text, strlen(text)};
    *value_of(m, key) = (struct meta_value){META_STRING, META_STRING, 1, &span};
}

static void add_u32(struct model *m, const char *key, uint32_t v, enum meta_type type)
{
    static uint32_t value;
    value = v;
    struct meta_entry *more = arena_alloc(m->arena, m->meta.n + 1, sizeof *more);
    memcpy(more, m->meta.entries, m->meta.n * sizeof *more);
    more[m->meta.n++] = (struct meta_entry){key, {type, type, 1, &value}};
    m->meta.entries = more;
}

static void rename_key(struct model *m, const char *key)
{
    for (size_t i = 0; i < m->meta.n; i++)
        if (strcmp(m->meta.entries[i].key, key) == 0)
            m->meta.entries[i].key = "quantd.packed.nothing";
}

static void lay_shape(struct model *m, size_t at, uint64_t v)
{
    ((uint64_t *)(uintptr_t)value_of(m, "quantd.packed.shapes")->data)[at] = v;
}

static void lay_type(struct model *m, size_t at, const char *name)
{
    ((struct bytes *)(uintptr_t)value_of(m, "quantd.packed.types")->data)[at] =
        (struct bytes){(const uint8_t *)name, strlen(name)};
}

/* What is wrong with the file, and the words that say so. */
static const struct damage {
    int number;
    int code;
    const char *words;
} damages[] = {
    {0, QD_E_UNSUPPORTED, "layout 'r32k16', which this version does not know"},
    {1, QD_E_UNSUPPORTED, "layout 'portable', which this version does not know"},
    {2, QD_E_CORRUPT, "'quantd.layout' is missing"},
    {3, QD_E_CORRUPT, "'quantd.packed.types' is missing"},
    {4, QD_E_CORRUPT, "'quantd.packed.shapes' is missing"},
    {5, QD_E_CORRUPT, "'quantd.packed.shapes' does not list"},
    {6, QD_E_CORRUPT, "'quantd.packed.shapes' does not list"},
    {7, QD_E_CORRUPT, "tensor 'first.weight': its shape takes"},
    {8, QD_E_CORRUPT, "tensor 'first.weight' of a packed file has more elements than can be counted"},
    {9, QD_E_CORRUPT, "tensor 'norm.weight': the file is packed from a type that is unknown"},
    {10, QD_E_CORRUPT, "tensor 'wide.weight' of a packed file is no row of bytes"},
    {11, QD_E_CORRUPT, "'quantd.packed.alignment' is no power of two"},
    {12, QD_E_CORRUPT, "'quantd.packed.alignment' is no power of two"},
    {13, QD_E_CORRUPT, "'quantd.packed.alignment' is no u32"},
    {14, QD_E_CORRUPT, "'quantd.packed.architecture' is no text"},
    {15, QD_E_CORRUPT, "'general.alignment' is missing"},
    {16, QD_E_CORRUPT, "'quantd.packed.shapes' lists more"},
};

static void do_damage(struct model *m, int number)
{
    switch (number) {
    case 0:
        return set_text(m, "quantd.layout", "r32k16");
    case 1:
        return set_text(m, "quantd.layout", "portable");
    case 2:
        return rename_key(m, "quantd.layout");
    case 3:
        return rename_key(m, "quantd.packed.types");
    case 4:
        return rename_key(m, "quantd.packed.shapes");
    case 5:
        return lay_shape(m, 0, 5);
    case 6:
        value_of(m, "quantd.packed.shapes")->n_items -= 1;
        return;
    case 7:
        return lay_shape(m, 2, 3856);
    case 8:
        return lay_shape(m, 1, UINT64_MAX / 32 * 32);
    case 9:
        return lay_type(m, 2, "q8_0000000000000000");
    case 10:
        m->tensors[3].type = QD_TYPE_F32;
        return;
    case 11:
        return add_u32(m, "quantd.packed.alignment", 48, META_U32);
    case 12:
        return add_u32(m, "quantd.packed.alignment", 1u << 31, META_U32);
    case 13:
        return add_u32(m, "quantd.packed.alignment", 32, META_I32);
    case 14:
        value_of(m, "quantd.packed.architecture")->type = META_U32;
        return;
    case 15:
        return rename_key(m, "general.alignment");
    default:
        lay_shape(m, 12, 1); /* the last tensor: a dimension fewer, so a number is left */
        lay_shape(m, 13, 256 * 7);
    }
}

static void plan_unpack__keys_that_do_not_fit__are_refused(void **state)
{
    (void)state;
    struct made packed;
    make_packed(&large, QD_LAYOUT_R8K4P128, &quick, &packed);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        struct model *m = NULL;
        struct plan *p = NULL;
        struct qd_error err;
        assert_int_equal(model_read(packed.source, LIMIT_HEADER_BUDGET_BYTES, &m, NULL), 0);
        do_damage(m, damages[i].number);
        int r = plan_unpack(m, &p, &err);
        if (r != damages[i].code || !strstr(err.message, damages[i].words))
            fail_msg("damage %d: %d, %s", damages[i].number, r, err.message);
        (void)model_free(m);
    }
    made_clear(&packed);
}

static void plan_pack__model_with_keys_of_packed_files__is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err;
    fixture_init(&f, "gguf", "llama");
    fixture_meta_text(&f, "quantd.layout", "r8k4p128");
    fixture_tensor(&f, "a.weight", QD_TYPE_Q8_0, 0, 0, 2, 32, 16, 1);
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R8K4P128, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'quantd.layout'"));
    f.model.format = "safetensors";
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R8K4P128, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "only GGUF"));
    fixture_clear(&f);
}

static void layout_parse__unknown_name__is_told_the_nearest(void **state)
{
    (void)state;
    enum qd_layout layout;
    struct qd_error err;
    assert_int_equal(layout_parse("r16k4p128", &layout, &err), 0);
    assert_int_equal(layout, QD_LAYOUT_R16K4P128);
    assert_int_equal(layout_parse("r16k8p128", &layout, &err), QD_E_INVALID);
    assert_string_equal(err.message, "unknown layout 'r16k8p128'");
    assert_non_null(strstr(err.hint, "did you mean 'r"));
    assert_non_null(strstr(err.hint, "layouts: r4k4p128, r4k8p128, r8k4p128, r16k4p128"));
    assert_int_equal(layout_parse("portable", &layout, &err), QD_E_INVALID);
}

/* --- GGUF files of others: no alignment said, another one, no architecture --- */

static void check_foreign(uint32_t alignment, bool architecture)
{
    struct fixture f;
    struct made packed, back;
    struct plan *plan = NULL;
    fixture_init(&f, "gguf", "llama");
    f.model.meta.n = 0;
    fixture_meta_u32(&f, "a", 1);
    if (architecture)
        fixture_meta_text(&f, "general.architecture", "llama");
    if (alignment)
        fixture_meta_u32(&f, "general.alignment", alignment);
    fixture_meta_u32(&f, "z", 2);
    fixture_tensor(&f, "a.weight", QD_TYPE_Q8_0, 0, 0, 2, 64, 21, 1);
    fixture_tensor(&f, "b.weight", QD_TYPE_F32, 0, 0, 1, 3, 1, 1);
    fixture_tensor(&f, "c.weight", QD_TYPE_Q4_0, 0, 0, 2, 64, 16, 1);
    fixture_source(&f, 0);
    f.model.architecture = architecture ? "llama" : "";
    assert_int_equal(plan_pack(&f.model, QD_LAYOUT_R8K4P128, NULL, &plan, NULL), 0);
    make(f.source, plan, &quick, &packed);
    make_unpacked(&packed, &quick, &back);
    assert_string_equal(back.model->architecture, f.model.architecture);
    assert_int_equal(back.model->meta.n, f.model.meta.n);
    for (size_t i = 0; i < f.model.meta.n; i++)
        assert_string_equal(back.model->meta.entries[i].key, f.model.meta.entries[i].key);
    for (size_t i = 0; i < f.model.n_tensors; i++)
        assert_int_equal(back.model->tensors[i].offset % (alignment ? alignment : 32), 0);
    made_clear(&packed);
    made_clear(&back);
    fixture_clear(&f);
}

static void plan_unpack__file_of_others__has_its_keys_and_alignment_back(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {0, 32, 64, 8192};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        check_foreign(alignments[i], true);
        check_foreign(alignments[i], false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_pack__any_type_layout_and_rows__puts_every_byte_in_its_place_and_back),
        cmocka_unit_test(plan_pack__many_shards_and_threads__gives_the_same_bytes_and_back),
        cmocka_unit_test(plan_pack__any_kernels__give_the_same_bytes),
        cmocka_unit_test(plan_pack__witness__is_the_digest_of_the_portable_file),
        cmocka_unit_test(plan_pack__killed_at_many_points__ends_with_the_same_bytes),
        cmocka_unit_test(plan_unpack__journal_of_another_layout__is_not_believed),
        cmocka_unit_test(plan_pack__group_as_long_as_a_shard__is_packed),
        cmocka_unit_test(plan_pack__group_longer_than_a_shard__is_refused_by_name),
        cmocka_unit_test(run_fit_threads__groups_of_rows__count_against_the_ceiling),
        cmocka_unit_test(plan_pack__metadata__is_the_portable_one_s),
        cmocka_unit_test(plan_pack__table_of_the_artifact__stays_but_for_offsets),
        cmocka_unit_test(portable_table__of_another_artifact__is_refused),
        cmocka_unit_test(plan_build__packed_file__is_refused_and_named),
        cmocka_unit_test(plan_unpack__keys_that_do_not_fit__are_refused),
        cmocka_unit_test(plan_pack__model_with_keys_of_packed_files__is_refused),
        cmocka_unit_test(layout_parse__unknown_name__is_told_the_nearest),
        cmocka_unit_test(plan_unpack__file_of_others__has_its_keys_and_alignment_back),
    };
    fixture_only_threads_under_tsan();
    return cmocka_run_group_tests(tests, setup_large, teardown_large);
}
