#include <quantd/matmul.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/compute/team.h"
#include "kernels/kernels.h"
#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/test.h"

enum { GUARD_BYTES = 64, GUARD = 0x5a, N_MAX = 40 };

/* Rows that are no whole number of groups in any layout; rows longer than what is met at a time; more than a band. */
enum { ROWS = 165, COLS = 2304 };

static const enum qd_type packed_types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_0, QD_TYPE_Q2_K, QD_TYPE_Q3_K,
                                            QD_TYPE_Q4_K, QD_TYPE_Q5_K, QD_TYPE_Q6_K};
static const enum qd_type decoded_types[] = {QD_TYPE_F32, QD_TYPE_F16, QD_TYPE_BF16, QD_TYPE_Q5_1, QD_TYPE_IQ4_NL};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static float *x; /* [N_MAX][COLS] */

/* ---- making and calling ----------------------------------------------------------------------------------------- */

static struct qd_matrix make_matrix(enum qd_type type, uint64_t n_rows, uint64_t n_cols)
{
    const uint64_t row_bytes = qd_type_row_bytes(type, n_cols);
    uint8_t *data = malloc(n_rows * row_bytes);
    float *row = malloc(n_cols * sizeof *row);
    assert_non_null(data);
    assert_non_null(row);
    for (uint64_t r = 0; r < n_rows; r++) {
        data_fill(DATA_gaussian_small, row, n_cols, r);
        if (ops_native()->quantize[type])
            ops_native()->quantize[type](data + r * row_bytes, row, n_cols);
        else
            data_fill_blocks(data + r * row_bytes, n_cols / qd_type_info(type)->block_elements, type, 1, r);
    }
    free(row);
    return (struct qd_matrix){.data = data, .n_rows = n_rows, .n_cols = n_cols, .type = type};
}

/* As docs/formats/packed.md: whole groups, and the rows that are left as they are. */
static struct qd_matrix packed_of(const struct qd_matrix *w, enum qd_layout layout)
{
    const size_t row_bytes = qd_type_row_bytes(w->type, w->n_cols), step = qd_layout_info(layout)->rows;
    const uint8_t *src = w->data;
    uint8_t *dst = malloc(w->n_rows * row_bytes);
    struct qd_matrix packed = *w;
    assert_non_null(dst);
    memcpy(dst, src, w->n_rows * row_bytes);
    for (size_t r = 0; r + step <= w->n_rows; r += step)
        layout_pack_group(ops_native(), layout, w->type, dst + r * row_bytes, src + r * row_bytes,
                          w->n_cols / qd_type_info(w->type)->block_elements);
    packed.data = dst;
    packed.layout = layout;
    return packed;
}

static void free_matrix(struct qd_matrix *w)
{
    free((void *)(uintptr_t)w->data); /* of make_matrix or packed_of */
}

/* @bytes at a 64-byte boundary, and guards behind them. */
static uint8_t *guarded(size_t bytes)
{
    uint8_t *p = aligned_alloc(64, (bytes + GUARD_BYTES + 63) / 64 * 64);
    assert_non_null(p);
    memset(p + bytes, GUARD, GUARD_BYTES);
    return p;
}

static void check_guard(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < GUARD_BYTES; i++)
        assert_int_equal(p[bytes + i], GUARD);
}

/* The product as it is asked for: exactly the scratch that is said, nothing touched behind it or behind y. */
static float *multiply_of(const struct qd_matrix *w, const float *from, size_t n, struct qd_team *team)
{
    const size_t scratch_bytes = qd_matmul_scratch_bytes(w, n, team), y_bytes = n * w->n_rows * sizeof(float);
    uint8_t *scratch = guarded(scratch_bytes), *y = guarded(y_bytes);
    struct qd_error err = {.message = ""};
    assert_true(scratch_bytes > 0 && scratch_bytes % 64 == 0);
    memset(scratch, 0xff, scratch_bytes);
    memset(y, 0xff, y_bytes);
    const int r = qd_matmul(w, from, n, (float *)(void *)y, team, scratch, scratch_bytes, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(r, 0);
    check_guard(scratch, scratch_bytes);
    check_guard(y, y_bytes);
    free(scratch);
    return (float *)(void *)y;
}

static float *multiply(const struct qd_matrix *w, size_t n, struct qd_team *team)
{
    return multiply_of(w, x, n, team);
}

static void assert_product(const struct qd_matrix *w, size_t n, struct qd_team *team, const float *wanted)
{
    float *y = multiply(w, n, team);
    assert_memory_equal(y, wanted, n * w->n_rows * sizeof *y);
    free(y);
}

static struct qd_team *team_of(unsigned n_threads)
{
    struct qd_team *team;
    assert_int_equal(qd_team_new(n_threads, &team, NULL), 0);
    assert_int_equal(qd_team_threads(team), n_threads);
    return team;
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

static void qd_matmul__packed_in_any_layout__gives_the_bits_of_portable_weights(void **state)
{
    (void)state;
    static const size_t ns[] = {1, 31}; /* 31: tiles of every width */
    for (size_t t = 0; t < COUNT(packed_types); t++) {
        struct qd_matrix w = make_matrix(packed_types[t], ROWS, COLS);
        float *wanted = multiply(&w, ns[COUNT(ns) - 1], NULL); /* a column's bits do not depend on the others */
        for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++) {
            struct qd_matrix packed = packed_of(&w, (enum qd_layout)layout);
            for (size_t i = 0; i < COUNT(ns); i++)
                assert_product(&packed, ns[i], NULL, wanted);
            free_matrix(&packed);
        }
        free(wanted);
        free_matrix(&w);
    }
}

static void qd_matmul__any_number_of_columns__gives_each_the_bits_it_has_alone(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(packed_types) + COUNT(decoded_types); t++) {
        struct qd_matrix w =
            make_matrix(t < COUNT(packed_types) ? packed_types[t] : decoded_types[t - COUNT(packed_types)], 21, COLS);
        float *alone = malloc(N_MAX * w.n_rows * sizeof *alone);
        for (size_t c = 0; c < N_MAX; c++) {
            float *y = multiply_of(&w, x + c * COLS, 1, NULL);
            memcpy(alone + c * w.n_rows, y, w.n_rows * sizeof *y);
            free(y);
        }
        for (size_t n = 1; n <= N_MAX; n += n < 20 ? 1 : 7)
            assert_product(&w, n, NULL, alone);
        free(alone);
        free_matrix(&w);
    }
}

static void qd_matmul__teams_of_any_size__give_the_bits_of_one_thread(void **state)
{
    (void)state;
    static const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_K, QD_TYPE_F16};
    for (size_t t = 0; t < COUNT(types); t++) {
        struct qd_matrix w = make_matrix(types[t], ROWS, 512);
        float *wanted = multiply(&w, 19, NULL);
        for (unsigned n_threads = 1; n_threads <= 4; n_threads++) {
            struct qd_team *team = team_of(n_threads);
            for (int i = 0; i < 20; i++)
                assert_product(&w, 19, team, wanted);
            qd_team_free(team);
        }
        free(wanted);
        free_matrix(&w);
    }
}

static void qd_matmul__fewer_rows_than_a_group__are_all_there(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(packed_types); t++) {
        struct qd_matrix w = make_matrix(packed_types[t], 17, 256);
        float *all = multiply(&w, 5, NULL);
        for (uint64_t rows = 1; rows < 17; rows++) {
            struct qd_matrix few = w;
            few.n_rows = rows;
            float *y = multiply(&few, 5, NULL);
            for (size_t c = 0; c < 5; c++)
                assert_memory_equal(y + c * rows, all + c * 17, rows * sizeof *y);
            free(y);
        }
        free(all);
        free_matrix(&w);
    }
}

static void qd_matmul__operands_at_odd_addresses__give_the_same_bits(void **state)
{
    (void)state;
    const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q6_K, QD_TYPE_F32, QD_TYPE_IQ4_NL};
    for (size_t t = 0; t < COUNT(types); t++) {
        struct qd_matrix w = make_matrix(types[t], 37, 512), moved = w;
        const size_t bytes = 37 * qd_type_row_bytes(types[t], 512), x_bytes = 3 * 512 * sizeof(float);
        float *wanted = multiply(&w, 3, NULL);
        for (size_t at = 1; at < 9; at += 2) {
            uint8_t *weights = malloc(bytes + at), *floats = malloc(x_bytes + at);
            moved.data = memcpy(weights + at, w.data, bytes);
            float *y = multiply_of(&moved, memcpy(floats + at, x, x_bytes), 3, NULL);
            assert_memory_equal(y, wanted, 3 * 37 * sizeof *y);
            free(y);
            free(weights);
            free(floats);
        }
        free(wanted);
        free_matrix(&w);
    }
}

/* Kernels may write what no cache holds past them all: aligned or not, by one thread or several. */
static void qd_matmul__results_larger_than_caches__have_the_bits_of_small_ones(void **state)
{
    (void)state;
    enum { LARGE = 520, PART = 20 };
    static const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_K};
    static const uint64_t rows[] = {2048, 2053}; /* times LARGE: above 2^20 */
    float *columns = malloc(LARGE * 256 * sizeof *columns);
    data_fill(DATA_gaussian, columns, LARGE * 256, 9);
    struct qd_team *team = team_of(3);
    for (size_t t = 0; t < COUNT(types) * COUNT(rows); t++) {
        struct qd_matrix w = make_matrix(types[t % COUNT(types)], rows[t / COUNT(types)], 256);
        float *alone = multiply_of(&w, columns, LARGE, NULL), *shared = multiply_of(&w, columns, LARGE, team);
        assert_memory_equal(shared, alone, LARGE * w.n_rows * sizeof *alone);
        for (size_t c = 0; c < LARGE; c += PART) {
            float *part = multiply_of(&w, columns + c * 256, PART, NULL);
            assert_memory_equal(part, alone + c * w.n_rows, PART * w.n_rows * sizeof *part);
            free(part);
        }
        free(alone);
        free(shared);
        free_matrix(&w);
    }
    qd_team_free(team);
    free(columns);
}

static void qd_matmul__nan_in_a_column__leaves_the_others_as_they_are(void **state)
{
    (void)state;
    float *spoilt = malloc(5 * 512 * sizeof *spoilt);
    for (size_t t = 0; t < COUNT(packed_types); t++) {
        struct qd_matrix w = make_matrix(packed_types[t], 37, 512);
        float *wanted = multiply(&w, 5, NULL);
        memcpy(spoilt, x, 5 * 512 * sizeof *spoilt);
        spoilt[3 * 512 + 77] = t % 2 ? NAN : INFINITY;
        float *y = multiply_of(&w, spoilt, 5, NULL);
        for (size_t i = 0; i < 5 * 37; i++)
            assert_true(i / 37 == 3 ? !isfinite(y[i]) : memcmp(&y[i], &wanted[i], sizeof *y) == 0);
        free(y);
        free(wanted);
        free_matrix(&w);
    }
    free(spoilt);
}

/* A number for each type, whatever this CPU has: meson runs this under several QUANTD_CPU. */
static void qd_matmul__any_cpu__gives_the_bits_of_every_other(void **state)
{
    (void)state;
    static const struct {
        enum qd_type type;
        uint64_t digest;
    } golden[] = {
        {QD_TYPE_Q8_0, UINT64_C(0x7da09870084de6c0)}, {QD_TYPE_Q4_0, UINT64_C(0xd9e984da0077284c)},
        {QD_TYPE_Q2_K, UINT64_C(0xdb3266776a6cb410)}, {QD_TYPE_Q3_K, UINT64_C(0x2ecfd568f1d0149e)},
        {QD_TYPE_Q4_K, UINT64_C(0x554322f9dc4cc125)}, {QD_TYPE_Q5_K, UINT64_C(0x44152fd83ef0f650)},
        {QD_TYPE_Q6_K, UINT64_C(0x16b3a3361fd78a82)}, {QD_TYPE_F32, UINT64_C(0x00fdc9116009e704)},
        {QD_TYPE_F16, UINT64_C(0x5a8ce508efc8fc68)},  {QD_TYPE_IQ4_NL, UINT64_C(0x1b2c7ede1fe77a13)},
    };
    for (size_t t = 0; t < COUNT(golden); t++) {
        struct qd_matrix w = make_matrix(golden[t].type, 50, 1280);
        float *y = multiply(&w, 21, NULL);
        const uint64_t digest = data_hash(HASH_START, y, 21 * 50 * sizeof *y);
        if (digest != golden[t].digest)
            fail_msg("%s: 0x%016llx", qd_type_info(golden[t].type)->name, (unsigned long long)digest);
        free(y);
        free_matrix(&w);
    }
}

static void qd_matmul__no_columns__does_nothing(void **state)
{
    (void)state;
    struct qd_matrix w = make_matrix(QD_TYPE_Q8_0, 37, 256);
    free(multiply(&w, 0, NULL)); /* guards begin where y does */
    free_matrix(&w);
}

/* ---- in two steps ------------------------------------------------------------------------------------------------ */

struct prepared {
    struct qd_matrix w;
    void *memory;
    const struct qd_activations *a;
    float *y, *wanted;
    size_t n;
};

static struct prepared prepare(enum qd_type type, uint64_t n_rows, size_t n)
{
    struct prepared p = {.w = make_matrix(type, n_rows, 512), .n = n};
    const size_t n_bytes = qd_activations_bytes(&p.w, n);
    p.wanted = multiply(&p.w, n, NULL);
    p.memory = guarded(n_bytes);
    p.y = malloc(n * n_rows * sizeof *p.y);
    memset(p.y, 0xff, n * n_rows * sizeof *p.y);
    assert_int_equal(qd_activations_prepare(&p.w, x, n, p.memory, n_bytes, &p.a, NULL), 0);
    check_guard(p.memory, n_bytes);
    return p;
}

static void release(struct prepared *p)
{
    free(p->memory);
    free(p->y);
    free(p->wanted);
    free_matrix(&p->w);
}

static void rows(const struct prepared *p, uint64_t first, uint64_t end)
{
    const size_t n_bytes = qd_rows_scratch_bytes(&p->w);
    uint8_t *scratch = guarded(n_bytes);
    assert_int_equal(qd_matmul_rows(&p->w, p->a, first, end, p->y, scratch, n_bytes, NULL), 0);
    check_guard(scratch, n_bytes);
    free(scratch);
}

static void qd_matmul_rows__any_split_of_the_rows__gives_the_bits_of_one_call(void **state)
{
    (void)state;
    static const enum qd_type types[] = {QD_TYPE_Q4_0, QD_TYPE_Q6_K, QD_TYPE_BF16};
    for (size_t t = 0; t < COUNT(types); t++)
        for (uint64_t steps = 1; steps < 12; steps += 3) {
            struct prepared p = prepare(types[t], 165, 7);
            const uint64_t part = steps * qd_rows_step(&p.w);
            for (uint64_t end = 165, first; end > 0; end = first) { /* the last ones first */
                first = (end - 1) / part * part;
                rows(&p, first, end);
                rows(&p, first, first); /* none */
            }
            assert_memory_equal(p.y, p.wanted, p.n * 165 * sizeof *p.y);
            release(&p);
        }
}

struct share {
    const struct prepared *p;
    uint64_t first, end;
    pthread_t thread;
};

static void *share_main(void *data)
{
    const struct share *s = data;
    const size_t n_bytes = qd_rows_scratch_bytes(&s->p->w);
    void *scratch = aligned_alloc(64, n_bytes ? n_bytes : 64);
    for (int i = 0; i < 20; i++)
        (void)qd_matmul_rows(&s->p->w, s->p->a, s->first, s->end, s->p->y, scratch, n_bytes, NULL); /* seen in y */
    free(scratch);
    return NULL;
}

static void qd_matmul_rows__threads_of_the_caller__share_one_preparation(void **state)
{
    (void)state;
    struct prepared p = prepare(QD_TYPE_Q4_K, 165, 9);
    struct share shares[4];
    for (size_t i = 0; i < 4; i++) {
        shares[i] = (struct share){.p = &p, .first = i * 48, .end = i == 3 ? 165 : i * 48 + 48};
        assert_int_equal(pthread_create(&shares[i].thread, NULL, share_main, &shares[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(shares[i].thread, NULL), 0);
    assert_memory_equal(p.y, p.wanted, p.n * 165 * sizeof *p.y);
    release(&p);
}

static void qd_matmul_rows__same_kind_of_weights__take_the_same_activations(void **state)
{
    (void)state;
    struct prepared p = prepare(QD_TYPE_Q4_K, 64, 9);
    struct qd_matrix other = make_matrix(QD_TYPE_Q6_K, 64, 512); /* q4_k_m models mix the two */
    float *wanted = multiply(&other, 9, NULL);
    free_matrix(&p.w);
    p.w = other;
    rows(&p, 0, 64);
    assert_memory_equal(p.y, wanted, 9 * 64 * sizeof *p.y);
    free(wanted);
    release(&p);
}

/* ---- what does not fit ------------------------------------------------------------------------------------------- */

static struct qd_error last;

static void assert_invalid(int r, const char *word)
{
    assert_int_equal(r, QD_E_INVALID);
    assert_int_equal(last.code, QD_E_INVALID);
    assert_non_null(strstr(last.message, word));
}

static void qd_matmul__matrices_that_do_not_fit__say_what_is_wrong(void **state)
{
    (void)state;
    struct qd_matrix w = make_matrix(QD_TYPE_Q4_K, 16, 256), bad;
    _Alignas(64) static uint8_t scratch[1 << 20];
    static float y[16];
#define REFUSED(word, ...)                                                                               \
    do {                                                                                                 \
        bad = w;                                                                                         \
        __VA_ARGS__;                                                                                     \
        assert_invalid(qd_matmul(&bad, x, 1, y, NULL, scratch, sizeof scratch, &last), word);            \
        assert_int_equal(qd_matmul(&bad, x, 1, y, NULL, scratch, sizeof scratch, NULL), QD_E_INVALID);   \
        assert_true(qd_matmul_scratch_bytes(&bad, 1, NULL) == 0 && qd_activations_bytes(&bad, 1) == 0 && \
                    qd_rows_scratch_bytes(&bad) == 0 && qd_rows_step(&bad) == 0);                        \
        assert_invalid(qd_dequantize_row(&bad, 0, y, &last), word);                                      \
    } while (0)
    REFUSED("rows", bad.n_rows = 0);
    REFUSED("rows", bad.n_cols = 0);
    REFUSED("rows of 255", bad.n_cols = 255);
    REFUSED("rows", bad.n_rows = UINT64_MAX / 2);
    REFUSED("rows", bad.n_cols = UINT64_MAX / 256 * 256);
    REFUSED("type", bad.type = QD_N_TYPES);
    REFUSED("layout", bad.layout = QD_N_LAYOUTS);
    REFUSED("r16k4p128", bad.layout = QD_LAYOUT_R16K4P128; bad.n_rows = 15);
    REFUSED("f16", bad.layout = QD_LAYOUT_R16K4P128; bad.type = QD_TYPE_F16);
#undef REFUSED
    free_matrix(&w);
}

static void qd_matmul__memory_that_does_not_fit__is_refused_and_y_left_alone(void **state)
{
    (void)state;
    struct qd_matrix w = make_matrix(QD_TYPE_Q4_0, 37, 256);
    const size_t n_bytes = qd_matmul_scratch_bytes(&w, 3, NULL);
    uint8_t *scratch = guarded(n_bytes);
    float y[3 * 37], before[3 * 37];
    memset(y, 0xff, sizeof y);
    memset(before, 0xff, sizeof before);
    assert_invalid(qd_matmul(&w, x, 3, y, NULL, scratch, n_bytes - 1, &last), "scratch");
    assert_invalid(qd_matmul(&w, x, 3, y, NULL, scratch + 32, n_bytes, &last), "aligned");
    assert_invalid(qd_matmul(&w, x, 3, y, NULL, NULL, n_bytes, &last), "aligned");
    assert_invalid(qd_matmul(&w, x, SIZE_MAX / 8, y, NULL, scratch, n_bytes, &last), "columns");
    assert_true(qd_matmul_scratch_bytes(&w, SIZE_MAX / 8, NULL) == 0);
    assert_memory_equal(y, before, sizeof y);
    free(scratch);
    free_matrix(&w);
}

static void qd_matmul_rows__ranges_that_do_not_fit__are_refused(void **state)
{
    (void)state;
    struct prepared p = prepare(QD_TYPE_Q8_0, 37, 3);
    const size_t n_bytes = qd_rows_scratch_bytes(&p.w);
    uint8_t *scratch = guarded(n_bytes);
    assert_invalid(qd_matmul_rows(&p.w, p.a, 1, 37, p.y, scratch, n_bytes, &last), "multiples");
    assert_invalid(qd_matmul_rows(&p.w, p.a, 0, 36 + 2, p.y, scratch, n_bytes, &last), "37 rows");
    assert_invalid(qd_matmul_rows(&p.w, p.a, 0, 35, p.y, scratch, n_bytes, &last), "multiples");
    assert_invalid(qd_matmul_rows(&p.w, p.a, 37, 0, p.y, scratch, n_bytes, &last), "rows");
    assert_invalid(qd_matmul_rows(&p.w, p.a, 0, 37, p.y, scratch, n_bytes - 1, &last), "scratch");
    free(scratch);
    release(&p);
}

static void qd_matmul_rows__activations_of_other_weights__are_refused(void **state)
{
    (void)state;
    static const enum qd_type others[] = {QD_TYPE_Q4_0, QD_TYPE_Q4_K, QD_TYPE_F16};
    struct prepared p = prepare(QD_TYPE_Q8_0, 37, 3);
    _Alignas(64) static uint8_t scratch[1 << 20];
    for (size_t i = 0; i < COUNT(others); i++) {
        struct qd_matrix other = make_matrix(others[i], 37, 512);
        assert_invalid(qd_matmul_rows(&other, p.a, 0, 37, p.y, scratch, sizeof scratch, &last), "prepared");
        free_matrix(&other);
    }
    struct qd_matrix longer = make_matrix(QD_TYPE_Q8_0, 37, 544);
    assert_invalid(qd_matmul_rows(&longer, p.a, 0, 37, p.y, scratch, sizeof scratch, &last), "prepared");
    free_matrix(&longer);
    release(&p);
}

struct visits {
    _Atomic unsigned of_task[64], n;
};

/* Takes a while, so that those who come first have to wait for the others. */
static void visit(void *data, size_t task, unsigned thread)
{
    struct visits *v = data;
    const struct timespec pause = {.tv_nsec = 300000 * (long)(thread + task % 3)};
    (void)nanosleep(&pause, NULL); /* shorter will do */
    v->of_task[task]++;
    v->n++;
}

static void team_run__tasks_of_any_length__are_each_done_once_when_it_returns(void **state)
{
    (void)state;
    static const size_t numbers[] = {0, 1, 2, 3, 4, 64};
    for (unsigned n_threads = 1; n_threads <= 4; n_threads++) {
        struct qd_team *team = team_of(n_threads);
        for (size_t i = 0; i < COUNT(numbers); i++) {
            struct visits v = {.n = 0};
            team_run(team, numbers[i], visit, &v);
            assert_int_equal(v.n, numbers[i]);
            for (size_t task = 0; task < numbers[i]; task++)
                assert_int_equal(v.of_task[task], 1);
        }
        qd_team_free(team);
    }
}

static void qd_team_new__no_threads_or_far_too_many__is_refused(void **state)
{
    (void)state;
    struct qd_team *team;
    assert_invalid(qd_team_new(0, &team, &last), "threads");
    assert_invalid(qd_team_new(1u << 30, &team, &last), "threads");
    assert_int_equal(qd_team_threads(NULL), 1);
    qd_team_free(NULL);
}

/* ---- rows as f32 ------------------------------------------------------------------------------------------------- */

static void qd_get_rows__packed_or_portable__gives_what_the_decoder_does(void **state)
{
    (void)state;
    static const uint32_t wanted[] = {0, 164, 3, 3, 15, 16, 159, 160, 1};
    static float got[COUNT(wanted) * COLS], row[COLS];
    for (size_t t = 0; t < COUNT(packed_types) + COUNT(decoded_types); t++) {
        const enum qd_type type = t < COUNT(packed_types) ? packed_types[t] : decoded_types[t - COUNT(packed_types)];
        struct qd_matrix w = make_matrix(type, ROWS, COLS);
        for (int layout = 0; layout < (t < COUNT(packed_types) ? QD_N_LAYOUTS : 1); layout++) {
            struct qd_matrix m = layout ? packed_of(&w, (enum qd_layout)layout) : w;
            assert_int_equal(qd_get_rows(&m, wanted, COUNT(wanted), got, NULL), 0);
            for (size_t i = 0; i < COUNT(wanted); i++) {
                ops_for(0)->dequantize[type](row, (const uint8_t *)w.data + wanted[i] * qd_type_row_bytes(type, COLS),
                                             COLS);
                assert_memory_equal(got + i * COLS, row, sizeof row);
            }
            assert_int_equal(qd_dequantize_row(&m, 164, got, NULL), 0);
            assert_memory_equal(got, got + COLS, sizeof row);
            if (layout)
                free_matrix(&m);
        }
        free_matrix(&w);
    }
}

static void qd_get_rows__row_that_is_not_there__is_refused(void **state)
{
    (void)state;
    struct qd_matrix w = make_matrix(QD_TYPE_Q8_0, 37, 64);
    static const uint32_t rows_wanted[] = {36, 37};
    float dst[2 * 64];
    assert_invalid(qd_get_rows(&w, rows_wanted, 2, dst, &last), "row 37");
    assert_invalid(qd_dequantize_row(&w, UINT64_MAX, dst, &last), "37 rows");
    free_matrix(&w);
}

static int make_x(void **state)
{
    (void)state;
    x = malloc(N_MAX * COLS * sizeof *x);
    if (x)
        data_fill(DATA_gaussian, x, N_MAX * COLS, 5);
    return x ? 0 : -1;
}

static int free_x(void **state)
{
    (void)state;
    free(x);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qd_matmul__packed_in_any_layout__gives_the_bits_of_portable_weights),
        cmocka_unit_test(qd_matmul__any_number_of_columns__gives_each_the_bits_it_has_alone),
        cmocka_unit_test(qd_matmul__teams_of_any_size__give_the_bits_of_one_thread),
        cmocka_unit_test(qd_matmul__fewer_rows_than_a_group__are_all_there),
        cmocka_unit_test(qd_matmul__operands_at_odd_addresses__give_the_same_bits),
        cmocka_unit_test(qd_matmul__results_larger_than_caches__have_the_bits_of_small_ones),
        cmocka_unit_test(qd_matmul__nan_in_a_column__leaves_the_others_as_they_are),
        cmocka_unit_test(qd_matmul__any_cpu__gives_the_bits_of_every_other),
        cmocka_unit_test(qd_matmul__no_columns__does_nothing),
        cmocka_unit_test(qd_matmul_rows__any_split_of_the_rows__gives_the_bits_of_one_call),
        cmocka_unit_test(qd_matmul_rows__threads_of_the_caller__share_one_preparation),
        cmocka_unit_test(qd_matmul_rows__same_kind_of_weights__take_the_same_activations),
        cmocka_unit_test(qd_matmul__matrices_that_do_not_fit__say_what_is_wrong),
        cmocka_unit_test(qd_matmul__memory_that_does_not_fit__is_refused_and_y_left_alone),
        cmocka_unit_test(qd_matmul_rows__ranges_that_do_not_fit__are_refused),
        cmocka_unit_test(qd_matmul_rows__activations_of_other_weights__are_refused),
        cmocka_unit_test(team_run__tasks_of_any_length__are_each_done_once_when_it_returns),
        cmocka_unit_test(qd_team_new__no_threads_or_far_too_many__is_refused),
        cmocka_unit_test(qd_get_rows__packed_or_portable__gives_what_the_decoder_does),
        cmocka_unit_test(qd_get_rows__row_that_is_not_there__is_refused),
    };
    return cmocka_run_group_tests(tests, make_x, free_x);
}
