/*
 * qd_matmul and qd_get_rows with codes alone (i8, i4, u4), whose scales stand apart: both orders, blocks, whole rows,
 * zero points, lengths that fill no block, rows that fill no group; packed and portable.
 */
#include <quantd/matmul.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/layout/codes.h"
#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/test.h"

enum { ROWS_MAX = 165, COLS_MAX = 2304, N_MAX = 23 };
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static float *x; /* [N_MAX][COLS_MAX] */

/* A matrix that owns its arrays. */
struct weights {
    struct qd_matrix m;
    struct code_shape shape;
    uint8_t *codes, *scales, *zeros;
};

static struct weights make_weights(enum qd_type type, enum qd_order order, size_t n_rows, size_t n_cols, size_t block,
                                   bool has_zeros)
{
    struct weights w = {.shape = {type, order == QD_ORDER_COLUMNS, n_rows, n_cols, block}};
    const size_t n_scales = n_rows * codes_n_scales(&w.shape);
    uint64_t seed = n_rows * 7 + n_cols * 3 + block + order;
    w.codes = malloc(codes_bytes(&w.shape));
    w.scales = malloc(n_scales * sizeof(float) + 1);
    w.zeros = malloc(codes_zero_bytes(&w.shape));
    assert_true(w.codes && w.scales && w.zeros);
    for (size_t i = 0; i < codes_bytes(&w.shape); i++)
        w.codes[i] = (uint8_t)(data_random(&seed) >> 40);
    for (size_t i = 0; i < codes_zero_bytes(&w.shape); i++)
        w.zeros[i] = (uint8_t)(data_random(&seed) >> 40);
    w.scales++; /* as they may stand in a file: at any byte */
    for (size_t i = 0; i < n_scales; i++) {
        const float scale = 0.01f * (float)(1 + (data_random(&seed) >> 44) % 1000) * (i % 5 ? 1.0f : -1.0f);
        memcpy(w.scales + i * sizeof scale, &scale, sizeof scale);
    }
    w.m = (struct qd_matrix){.data = w.codes,
                             .n_rows = n_rows,
                             .n_cols = n_cols,
                             .type = type,
                             .scales = w.scales,
                             .zero_points = has_zeros ? w.zeros : NULL,
                             .block = block,
                             .order = order};
    return w;
}

static void free_weights(struct weights *w)
{
    free(w->codes);
    free(w->scales - 1);
    free(w->zeros);
}

static struct weights packed_of(const struct weights *w, enum qd_layout layout)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, n_rows = w->shape.n_rows, n_scales = codes_n_scales(&w->shape),
                 zero_row = codes_zero_row(&w->shape),
                 row_bytes = codes_n_blocks(&w->shape) * packed_block_bytes(w->shape.type);
    struct weights p = *w;
    uint8_t *rows = malloc(n_lanes * row_bytes);
    p.codes = malloc(codes_bytes(&w->shape));
    p.scales = (uint8_t *)malloc(n_rows * n_scales * sizeof(float) + 1) + 1;
    p.zeros = malloc(codes_zero_bytes(&w->shape));
    memcpy(p.scales, w->scales, n_rows * n_scales * sizeof(float));
    memcpy(p.zeros, w->zeros, codes_zero_bytes(&w->shape));
    size_t r = 0;
    for (; r + n_lanes <= n_rows; r += n_lanes) {
        codes_pack_group(ops_native(), layout, &w->shape, p.codes + r * row_bytes, w->codes, r, n_lanes, rows);
        if (codes_moves_scales(&w->shape))
            codes_pack_scales(&w->shape, 32, p.scales + r * n_scales * sizeof(float), w->scales, r, n_lanes, n_lanes);
        if (codes_moves_zeros(&w->shape))
            codes_pack_scales(&w->shape, 4, p.zeros + r * zero_row / 2, w->zeros, r, n_lanes, n_lanes);
    }
    codes_get_rows(&w->shape, p.codes + r * row_bytes, w->codes, r, n_rows - r);
    free(rows);
    p.m.data = p.codes;
    p.m.scales = p.scales;
    p.m.zero_points = w->m.zero_points ? p.zeros : NULL;
    p.m.layout = layout;
    return p;
}

/* ---- the definition, element by element ----------------------------------------------------------------------- */

static unsigned nibble(const uint8_t *p, size_t i)
{
    return p[i / 2] >> (i % 2 * 4) & 15u;
}

/* Code less zero point. */
static int value_of(const struct weights *w, size_t r, size_t k)
{
    const struct code_shape *s = &w->shape;
    const size_t n_scales = s->block ? (s->n_cols + s->block - 1) / s->block : 1, b = s->block ? k / s->block : 0;
    const size_t row = s->block ? n_scales * s->block : s->n_cols;
    const size_t at = s->by_columns ? k * s->n_rows + r : r * row + k;
    if (s->type == QD_TYPE_I8)
        return (int8_t)w->codes[at];
    const int code = (int)nibble(w->codes, at);
    if (s->type == QD_TYPE_I4)
        return code >= 8 ? code - 16 : code;
    if (!w->m.zero_points)
        return code - 8;
    return code - (int)nibble(w->zeros, s->by_columns ? b * s->n_rows + r : r * ((n_scales + 1) / 2 * 2) + b);
}

static float scale_of(const struct weights *w, size_t r, size_t k)
{
    const struct code_shape *s = &w->shape;
    const size_t n_scales = s->block ? (s->n_cols + s->block - 1) / s->block : 1, b = s->block ? k / s->block : 0;
    float scale;
    memcpy(&scale, w->scales + (s->by_columns ? b * s->n_rows + r : r * n_scales + b) * sizeof scale, sizeof scale);
    return scale;
}

/* docs/formats/compute.md */
static float product_of(const struct weights *w, size_t r, const float *column)
{
    const bool per_row = w->shape.type == QD_TYPE_I8 && !w->shape.block;
    float acc = 0;
    for (size_t k = 0; k < w->shape.n_cols; k += 32) {
        float block[32] = {0}, xs;
        int8_t q[32];
        int32_t sums, whole = 0;
        const size_t n = w->shape.n_cols - k < 32 ? w->shape.n_cols - k : 32;
        struct activation_tile tile = {q, &xs, &sums, NULL};
        memcpy(block, column + k, n * sizeof *block);
        ops_for(0)->activate_32(
            &tile, &(struct activation_source){.x = block, .stride = 32, .width = 1, .n_blocks = 1, .unit = 32});
        for (size_t j = 0; j < n; j++)
            whole += value_of(w, r, k + j) * q[j];
        acc = fmaf((float)whole, per_row ? xs : scale_of(w, r, k) * xs, acc);
    }
    return per_row ? acc * scale_of(w, r, 0) : acc;
}

static float *multiply(const struct qd_matrix *m, size_t n, struct qd_team *team)
{
    struct qd_error err = {.message = ""};
    const size_t n_bytes = qd_matmul_scratch_bytes(m, n, team);
    void *scratch = aligned_alloc(64, n_bytes);
    float *y = malloc(n * m->n_rows * sizeof *y);
    memset(scratch, 0xff, n_bytes);
    const int r = qd_matmul(m, x, n, y, team, scratch, n_bytes, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(r, 0);
    free(scratch);
    return y;
}

static void assert_product(const struct weights *w, size_t n)
{
    float *y = multiply(&w->m, n, NULL);
    for (size_t c = 0; c < n; c++)
        for (size_t r = 0; r < w->shape.n_rows; r++) {
            const float wanted = product_of(w, r, x + c * w->shape.n_cols);
            if (memcmp(&y[c * w->shape.n_rows + r], &wanted, sizeof wanted) != 0)
                fail_msg("%s, order %d, %zu x %zu, block %zu%s: row %zu, column %zu of %zu: %a, not %a",
                         qd_type_info(w->shape.type)->name, w->shape.by_columns, w->shape.n_rows, w->shape.n_cols,
                         w->shape.block, w->m.zero_points ? ", zero points" : "", r, c, n,
                         (double)y[c * w->shape.n_rows + r], (double)wanted);
        }
    free(y);
}

/* What ONNX models have: per channel in either order, and blocks. */
static const struct form {
    enum qd_type type;
    size_t block;
    bool zeros;
} forms[] = {
    {QD_TYPE_I8, 0, false},  {QD_TYPE_I8, 64, false}, {QD_TYPE_I4, 32, false}, {QD_TYPE_I4, 128, false},
    {QD_TYPE_U4, 32, false}, {QD_TYPE_U4, 64, false}, {QD_TYPE_U4, 32, true},  {QD_TYPE_U4, 128, true},
    {QD_TYPE_U4, 0, true},   {QD_TYPE_I4, 0, false},
};

static void qd_matmul__codes_of_any_form__are_what_the_definition_says(void **state)
{
    (void)state;
    static const size_t cols[] = {32, 64, 96, 288, 2304, 20, 150, 1002}, rows[] = {2, 16, 38, 6};
    for (size_t f = 0; f < COUNT(forms); f++)
        for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++)
            for (size_t c = 0; c < COUNT(cols); c++)
                for (size_t r = 0; r < COUNT(rows); r++) {
                    struct weights w = make_weights(forms[f].type, (enum qd_order)order, rows[r], cols[c],
                                                    forms[f].block, forms[f].zeros);
                    assert_product(&w, 1 + (r + c) % 4 * 5);
                    free_weights(&w);
                }
}

static void qd_matmul__codes_packed_in_any_layout__give_the_bits_of_portable_ones(void **state)
{
    (void)state;
    static const size_t cols[] = {128, 2304};
    for (size_t f = 0; f < COUNT(forms); f++)
        for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++)
            for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++) {
                struct weights w = make_weights(forms[f].type, (enum qd_order)order, 166, cols[layout % 2],
                                                forms[f].block, forms[f].zeros),
                               p = packed_of(&w, (enum qd_layout)layout);
                for (size_t n = 1; n <= N_MAX; n += 22) {
                    float *wanted = multiply(&w.m, n, NULL), *got = multiply(&p.m, n, NULL);
                    assert_memory_equal(got, wanted, n * 166 * sizeof *got);
                    free(wanted);
                    free(got);
                }
                free_weights(&p);
                free_weights(&w);
            }
}

static void qd_matmul__codes_and_teams__give_the_bits_of_one_thread(void **state)
{
    (void)state;
    struct weights w = make_weights(QD_TYPE_U4, QD_ORDER_ROWS, 166, 288, 32, true);
    float *wanted = multiply(&w.m, 19, NULL);
    for (unsigned n_threads = 2; n_threads <= 4; n_threads++) {
        struct qd_team *team;
        assert_int_equal(qd_team_new(n_threads, &team, NULL), 0);
        float *got = multiply(&w.m, 19, team);
        assert_memory_equal(got, wanted, 19 * 166 * sizeof *got);
        free(got);
        qd_team_free(team);
    }
    free(wanted);
    free_weights(&w);
}

static void codes_pack_group__unpacked_again__gives_the_bytes_that_were_packed(void **state)
{
    (void)state;
    for (size_t f = 0; f < COUNT(forms); f++)
        for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++)
            for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++) {
                struct weights w = make_weights(forms[f].type, (enum qd_order)order, 38, 384, forms[f].block, true),
                               p = packed_of(&w, (enum qd_layout)layout);
                const struct code_shape *s = &w.shape;
                const size_t n_lanes = qd_layout_info((enum qd_layout)layout)->rows, n_scales = codes_n_scales(s),
                             row_bytes = codes_n_blocks(s) * packed_block_bytes(s->type);
                uint8_t *codes = calloc(1, codes_bytes(s)), *scales = calloc(38 * n_scales, sizeof(float)),
                        *zeros = calloc(1, codes_zero_bytes(s)), *rows = malloc(n_lanes * row_bytes);
                memcpy(scales, p.scales, 38 * n_scales * sizeof(float));
                memcpy(zeros, p.zeros, codes_zero_bytes(s));
                size_t r = 0;
                for (; r + n_lanes <= 38; r += n_lanes) {
                    codes_unpack_group(ops_native(), (enum qd_layout)layout, s, codes, p.codes + r * row_bytes, r,
                                       rows);
                    if (codes_moves_scales(s))
                        codes_unpack_scales(s, 32, scales, p.scales + r * n_scales * sizeof(float), r, n_lanes);
                    if (codes_moves_zeros(s))
                        codes_unpack_scales(s, 4, zeros, p.zeros + r * codes_zero_row(s) / 2, r, n_lanes);
                }
                codes_put_rows(s, codes, p.codes + r * row_bytes, r, 38 - r);
                assert_memory_equal(codes, w.codes, codes_bytes(s));
                assert_memory_equal(scales, w.scales, 38 * n_scales * sizeof(float));
                assert_memory_equal(zeros, w.zeros, codes_zero_bytes(s));
                free(codes);
                free(scales);
                free(zeros);
                free(rows);
                free_weights(&p);
                free_weights(&w);
            }
}

static void codes_pack_groups__many_at_once__are_those_packed_one_by_one(void **state)
{
    (void)state;
    enum { N_ROWS = 166 }; /* some panels, and groups that fill none */
    for (size_t f = 0; f < COUNT(forms); f++)
        for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++)
            for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++) {
                struct weights w = make_weights(forms[f].type, (enum qd_order)order, N_ROWS, 384, forms[f].block, true),
                               p = packed_of(&w, (enum qd_layout)layout);
                const size_t n_lanes = qd_layout_info((enum qd_layout)layout)->rows, n_groups = N_ROWS / n_lanes,
                             group_bytes = n_lanes * codes_n_blocks(&w.shape) * packed_block_bytes(w.shape.type);
                uint8_t *codes = malloc(n_groups * group_bytes), *rows = malloc(group_bytes);
                for (size_t first = 0; first < 2; first++) {
                    codes_pack_groups(ops_native(), (enum qd_layout)layout, &w.shape, codes, w.codes, first * n_lanes,
                                      n_groups - first, rows);
                    assert_memory_equal(codes, p.codes + first * group_bytes, (n_groups - first) * group_bytes);
                }
                free(codes);
                free(rows);
                free_weights(&p);
                free_weights(&w);
            }
}

static void qd_get_rows__codes_packed_or_portable__are_scale_times_code_less_zero_point(void **state)
{
    (void)state;
    static float row[COLS_MAX];
    for (size_t f = 0; f < COUNT(forms); f++)
        for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++)
            for (int layout = 0; layout < QD_N_LAYOUTS; layout++) {
                struct weights w = make_weights(forms[f].type, (enum qd_order)order, 38, layout ? 384 : 374,
                                                forms[f].block, forms[f].zeros),
                               p = layout ? packed_of(&w, (enum qd_layout)layout) : w;
                for (size_t r = 0; r < 38; r++) {
                    assert_int_equal(qd_dequantize_row(&p.m, r, row, NULL), 0);
                    for (size_t k = 0; k < w.shape.n_cols; k++) {
                        const float wanted = scale_of(&w, r, k) * (float)value_of(&w, r, k);
                        assert_memory_equal(&row[k], &wanted, sizeof wanted);
                    }
                }
                if (layout)
                    free_weights(&p);
                free_weights(&w);
            }
}

static void assert_refused(const struct qd_matrix *m, const char *why)
{
    struct qd_error err = {.message = ""};
    float row[1];
    assert_int_equal(qd_dequantize_row(m, 0, row, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, why));
    assert_int_equal(qd_matmul_scratch_bytes(m, 1, NULL), 0);
}

static void qd_matmul__codes_that_do_not_fit__say_what_is_wrong(void **state)
{
    (void)state;
    struct weights w = make_weights(QD_TYPE_I8, QD_ORDER_ROWS, 38, 100, 0, false);
    struct qd_matrix m = w.m;
    m.zero_points = w.zeros;
    assert_refused(&m, "zero points");
    m = w.m;
    m.scales = NULL;
    assert_refused(&m, "no kernel");
    m = w.m;
    m.block = 48;
    assert_refused(&m, "power of two");
    m = w.m;
    m.order = (enum qd_order)7;
    assert_refused(&m, "order");
    m = w.m;
    m.layout = QD_LAYOUT_R8K4P128; /* rows of 100 */
    assert_refused(&m, "never packed");
    m = w.m;
    m.n_rows = UINT64_MAX / 2;
    assert_refused(&m, "rows of");
    m = w.m;
    m.type = QD_TYPE_U4;
    m.n_cols = 33;
    assert_refused(&m, "odd");
    m = w.m;
    m.type = QD_TYPE_F32;
    assert_refused(&m, "scales within");
    free_weights(&w);
}

static int make_x(void **state)
{
    (void)state;
    x = malloc(N_MAX * COLS_MAX * sizeof *x);
    if (x)
        data_fill(DATA_gaussian, x, N_MAX * COLS_MAX, 5);
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
        cmocka_unit_test(qd_matmul__codes_of_any_form__are_what_the_definition_says),
        cmocka_unit_test(qd_matmul__codes_packed_in_any_layout__give_the_bits_of_portable_ones),
        cmocka_unit_test(qd_matmul__codes_and_teams__give_the_bits_of_one_thread),
        cmocka_unit_test(codes_pack_group__unpacked_again__gives_the_bytes_that_were_packed),
        cmocka_unit_test(codes_pack_groups__many_at_once__are_those_packed_one_by_one),
        cmocka_unit_test(qd_get_rows__codes_packed_or_portable__are_scale_times_code_less_zero_point),
        cmocka_unit_test(qd_matmul__codes_that_do_not_fit__say_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, make_x, free_x);
}
