/*
 * qd_matmul: one number for each type of weights, whatever the layout, the instruction set, the threads, and the
 * architecture (kernels.h: every variant gives the same bits). Where packed.c tries kernels one by one, this goes the
 * way that applications go: tiles of all widths, rows that fill no group, kernels as the CPU at hand has them. Codes
 * alone also in both orders: the same matrix, so one number again.
 * Prints TAP. No library but libc, so that it builds for any target.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quantd/matmul.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/layout/codes.h"
#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"

/* Two groups of 16 rows and 5 more; columns of products in every width of a tile. */
enum { N_ROWS = 37, N_COLS = 1024, MAX_N = 31, N_THREADS = 3 };
/* Of codes alone one more: those of 4 bits stand side by side. */
enum { CODE_ROWS = N_ROWS + 1, SCALE_BYTES = CODE_ROWS * N_COLS / 32 * sizeof(float) };

static const size_t column_counts[] = {1, 2, 7, MAX_N};

/* The last two have no packed form: they are decoded to f32. */
static const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_0, QD_TYPE_Q2_K,   QD_TYPE_Q3_K, QD_TYPE_Q4_K,
                                     QD_TYPE_Q5_K, QD_TYPE_Q6_K, QD_TYPE_IQ4_NL, QD_TYPE_BF16};

/* What ONNX models have. */
static const struct code_form {
    enum qd_type type;
    size_t block;
    bool has_zeros;
} forms[] = {{QD_TYPE_I8, 0, false}, {QD_TYPE_I4, 32, false}, {QD_TYPE_U4, 64, true}};

/* Weights that are codes alone, and what belongs to them. */
struct code_arrays {
    uint8_t codes[CODE_ROWS * N_COLS], scales[SCALE_BYTES], zeros[SCALE_BYTES];
};

static struct {
    float w[N_ROWS * N_COLS], x[MAX_N * N_COLS], y[MAX_N * CODE_ROWS];
    uint8_t portable[N_ROWS * N_COLS * 2], packed[N_ROWS * N_COLS * 2];
    struct code_arrays portable_codes, packed_codes;
    uint8_t rows[CODE_ROWS * N_COLS]; /* of a group */
} mem;

/* Rows of weights as models have them, and columns of all sizes, which meet every rounding. */
static void make_operands(void)
{
    static const enum data_kind kinds[] = {DATA_gaussian,  DATA_heavy_tails,    DATA_runs_of_any_size,
                                           DATA_one_spike, DATA_some_runs_zero, DATA_alternating_signs,
                                           DATA_uniform};
    for (size_t r = 0; r < N_ROWS; r++)
        data_fill(r % 8 ? DATA_gaussian_small : DATA_heavy_tails, mem.w + r * N_COLS, N_COLS, r);
    for (size_t c = 0; c < MAX_N; c++)
        data_fill(kinds[c % COUNT(kinds)], mem.x + c * N_COLS, N_COLS, 1000 + c);
}

/* The rows as an artifact of @layout has them. */
static void pack(enum qd_layout layout, enum qd_type type)
{
    const size_t row_bytes = (size_t)qd_type_row_bytes(type, N_COLS), step = qd_layout_info(layout)->rows;
    const size_t n_blocks = N_COLS / qd_type_info(type)->block_elements;
    size_t r = 0;
    for (; layout_packs(layout, type, N_ROWS) && r + step <= N_ROWS; r += step)
        layout_pack_group(ops_native(), layout, type, mem.packed + r * row_bytes, mem.portable + r * row_bytes,
                          n_blocks);
    memcpy(mem.packed + r * row_bytes, mem.portable + r * row_bytes, (N_ROWS - r) * row_bytes);
}

/* Digest of the products with 1, 2, 7 and 31 columns; 0 where one could not be made. */
static uint64_t digest_of(const struct qd_matrix *w, struct qd_team *team)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < COUNT(column_counts); i++) {
        const size_t n = column_counts[i], scratch_bytes = qd_matmul_scratch_bytes(w, n, team);
        void *scratch = aligned_alloc(64, scratch_bytes);
        struct qd_error err;
        if (!scratch || qd_matmul(w, mem.x, n, mem.y, team, scratch, scratch_bytes, &err) < 0)
            hash = 0;
        free(scratch);
        if (!hash)
            return 0;
        hash = data_hash(hash, mem.y, n * w->n_rows * sizeof mem.y[0]);
    }
    return hash;
}

static void check_layout(enum qd_layout layout, enum qd_type type, struct qd_team *team)
{
    char op[64], how[64];
    const struct qd_matrix w = {mem.packed, N_ROWS, N_COLS, type, layout};
    (void)snprintf(op, sizeof op, "qd_matmul_%s", qd_type_info(type)->name); /* names are short */
    (void)snprintf(how, sizeof how, "%s, %u thread%s", qd_layout_info(layout)->name, qd_team_threads(team),
                   team ? "s" : "");
    check_golden(op, how, digest_of(&w, team));
}

static void check_type(enum qd_type type, struct qd_team *team)
{
    ops_for(0)->quantize[type](mem.portable, mem.w, N_ROWS * N_COLS);
    for (int layout = 0; layout < QD_N_LAYOUTS; layout++) {
        if (layout != QD_LAYOUT_PORTABLE && !layout_packs((enum qd_layout)layout, type, N_ROWS))
            continue;
        pack((enum qd_layout)layout, type);
        check_layout((enum qd_layout)layout, type, NULL);
        check_layout((enum qd_layout)layout, type, team);
    }
}

/* ---- codes alone ----------------------------------------------------------------------------------------------- */

static void put_nibble(uint8_t *dst, size_t i, unsigned v)
{
    dst[i / 2] = (uint8_t)(i % 2 ? (dst[i / 2] & 15) | v << 4 : (dst[i / 2] & 0xf0) | v);
}

/* Element @i of row @r where rows are @row elements long. */
static size_t place(const struct code_shape *s, size_t r, size_t i, size_t row)
{
    return s->by_columns ? i * CODE_ROWS + r : r * row + i;
}

/* The same numbers in either order: quantd/matmul.h, struct qd_matrix. */
static void make_codes(struct code_arrays *dst, const struct code_shape *s)
{
    uint64_t seed = (uint64_t)s->type;
    for (size_t r = 0; r < CODE_ROWS; r++) {
        for (size_t k = 0; k < N_COLS; k++) {
            const size_t at = place(s, r, k, N_COLS);
            const unsigned code = (unsigned)(data_random(&seed) >> 56);
            if (s->type == QD_TYPE_I8)
                dst->codes[at] = (uint8_t)code;
            else
                put_nibble(dst->codes, at, code & 15);
        }
        for (size_t i = 0; i < codes_n_scales(s); i++) {
            const float d = (float)((int)(data_random(&seed) >> 48) - 32768) * 0x1p-20f;
            memcpy(dst->scales + place(s, r, i, codes_n_scales(s)) * sizeof d, &d, sizeof d);
            put_nibble(dst->zeros, place(s, r, i, codes_zero_row(s)), (unsigned)(data_random(&seed) >> 60));
        }
    }
}

/* The rows as an artifact of @layout has them. */
static void pack_codes(struct code_arrays *dst, const struct code_arrays *src, const struct code_shape *s,
                       enum qd_layout layout)
{
    const size_t step = qd_layout_info(layout)->rows, row_bytes = codes_n_blocks(s) * packed_block_bytes(s->type),
                 scales_bytes = codes_n_scales(s) * sizeof(float), zeros_bytes = codes_zero_row(s) / 2;
    size_t r = 0;
    *dst = *src;
    for (; layout_packs_codes(layout, s->type, CODE_ROWS, N_COLS) && r + step <= CODE_ROWS; r += step) {
        codes_pack_group(ops_native(), layout, s, dst->codes + r * row_bytes, src->codes, r, step, mem.rows);
        if (codes_moves_scales(s))
            codes_pack_scales(s, 32, dst->scales + r * scales_bytes, src->scales, r, step, step);
        if (codes_moves_zeros(s))
            codes_pack_scales(s, 4, dst->zeros + r * zeros_bytes, src->zeros, r, step, step);
    }
    if (r > 0)
        codes_get_rows(s, dst->codes + r * row_bytes, src->codes, r, CODE_ROWS - r);
}

static void check_codes(const struct code_form *f, const struct code_shape *s, enum qd_layout layout,
                        struct qd_team *team)
{
    const struct qd_matrix w = {.data = mem.packed_codes.codes,
                                .n_rows = CODE_ROWS,
                                .n_cols = N_COLS,
                                .type = f->type,
                                .layout = layout,
                                .scales = mem.packed_codes.scales,
                                .zero_points = f->has_zeros ? mem.packed_codes.zeros : NULL,
                                .block = f->block,
                                .order = s->by_columns ? QD_ORDER_COLUMNS : QD_ORDER_ROWS};
    char op[64], how[64];
    (void)snprintf(op, sizeof op, "qd_matmul_%s", qd_type_info(f->type)->name); /* names are short */
    (void)snprintf(how, sizeof how, "by %s, %s, %u thread%s", s->by_columns ? "columns" : "rows",
                   qd_layout_info(layout)->name, qd_team_threads(team), team ? "s" : "");
    check_golden(op, how, digest_of(&w, team));
}

static void check_form(const struct code_form *f, struct qd_team *team)
{
    for (int order = QD_ORDER_ROWS; order <= QD_ORDER_COLUMNS; order++) {
        const struct code_shape s = {f->type, order == QD_ORDER_COLUMNS, CODE_ROWS, N_COLS, f->block};
        make_codes(&mem.portable_codes, &s);
        for (int layout = 0; layout < QD_N_LAYOUTS; layout++) {
            pack_codes(&mem.packed_codes, &mem.portable_codes, &s, (enum qd_layout)layout);
            check_codes(f, &s, (enum qd_layout)layout, NULL);
            check_codes(f, &s, (enum qd_layout)layout, team);
        }
    }
}

/* usage: products [WORD]: only types whose name holds WORD */
int main(int argc, char **argv)
{
    const struct check_options options = check_begin(argc, argv);
    struct qd_team *team = NULL;
    if (qd_team_new(N_THREADS, &team, NULL) < 0)
        return 1;
    char text[256];
    (void)cpu_features_string(cpu_features(), text, sizeof text); /* for people */
    printf("# kernels for %s\n", text);
    make_operands();
    for (size_t i = 0; i < COUNT(types); i++)
        if (strstr(qd_type_info(types[i])->name, options.word))
            check_type(types[i], team);
    for (size_t i = 0; i < COUNT(forms); i++)
        if (strstr(qd_type_info(forms[i].type)->name, options.word))
            check_form(&forms[i], team);
    qd_team_free(team);
    return report_end();
}
