/*
 * qd_matmul: one number for each type of weights, whatever the layout, the instruction set, the threads, and the
 * architecture (kernels.h: every variant gives the same bits). Where packed.c tries kernels one by one, this goes the
 * way that applications go: tiles of all widths, rows that fill no group, kernels as the CPU at hand has them.
 * Prints TAP. No library but libc, so that it builds for any target.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quantd/matmul.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"

/* Two groups of 16 rows and 5 more; columns of products in every width of a tile. */
enum { N_ROWS = 37, N_COLS = 1024, MAX_N = 31, N_THREADS = 3 };

static const size_t column_counts[] = {1, 2, 7, MAX_N};

/* The last two have no packed form: they are decoded to f32. */
static const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_0, QD_TYPE_Q2_K,   QD_TYPE_Q3_K, QD_TYPE_Q4_K,
                                     QD_TYPE_Q5_K, QD_TYPE_Q6_K, QD_TYPE_IQ4_NL, QD_TYPE_BF16};

static struct {
    float w[N_ROWS * N_COLS], x[MAX_N * N_COLS], y[MAX_N * N_ROWS];
    uint8_t portable[N_ROWS * N_COLS * 2], packed[N_ROWS * N_COLS * 2];
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
        hash = data_hash(hash, mem.y, n * N_ROWS * sizeof mem.y[0]);
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
    qd_team_free(team);
    return report_end();
}
