#include "quant/graph/product.h"

#include <string.h>

#include "kernels/compute/team.h"

enum {
    PANEL_K = 256,           /* rows of b in a panel: 32 KiB, which stays in a first-level cache */
    ROWS_WORTH_PACKING = 12, /* with fewer rows of a, b is read where it stands */
    PANEL_FLOATS = PANEL_K * GEMM_COLUMNS,
    BAND_ROWS = 240, /* of a, for each task: where there are fewer panels than threads */
};

struct task {
    const struct product *p;
    const struct ops *kernels;
    float *scratch; /* a panel for each thread */
    uint64_t n_panels, band_rows;
};

static void pack_plain(const struct product *p, float *panel, uint64_t k, uint64_t n_k, uint64_t j, uint64_t n)
{
    for (uint64_t i = 0; i < n_k; i++, panel += GEMM_COLUMNS) {
        const float *row = p->b + (k + i) * p->b_stride + j * p->b_step;
        if (p->b_step == 1)
            memcpy(panel, row, n * sizeof *panel);
        else
            for (uint64_t x = 0; x < n; x++)
                panel[x] = row[x * p->b_step];
        memset(panel + n, 0, (GEMM_COLUMNS - n) * sizeof *panel);
    }
}

/* Columns that stand apart are read row by row of the transposed b, which is how they lie in memory. */
static void pack_turned(const struct product *p, float *panel, uint64_t k, uint64_t n_k, uint64_t j, uint64_t n)
{
    for (uint64_t x = 0; x < GEMM_COLUMNS; x++) {
        const float *column = x < n ? p->b + (j + x) * p->b_step + k * p->b_stride : NULL;
        for (uint64_t i = 0; i < n_k; i++)
            panel[i * GEMM_COLUMNS + x] = column ? column[i * p->b_stride] : 0.0f;
    }
}

static void run_panel(void *data, size_t task, unsigned thread)
{
    const struct task *t = data;
    const struct product *p = t->p;
    const uint64_t j = task % t->n_panels * GEMM_COLUMNS, first = task / t->n_panels * t->band_rows;
    const uint64_t n = p->n - j < GEMM_COLUMNS ? p->n - j : GEMM_COLUMNS;
    const uint64_t m = p->m - first < t->band_rows ? p->m - first : t->band_rows;
    const bool in_place = !p->pack && p->b_step == 1 && n == GEMM_COLUMNS && m < ROWS_WORTH_PACKING;
    float *panel = t->scratch + (size_t)thread * PANEL_FLOATS;
    struct gemm_tile tile = {.c = p->c + first * p->c_stride + j,
                             .c_stride = p->c_stride,
                             .a_stride = p->a_stride,
                             .a_step = p->a_step,
                             .n_rows = m,
                             .n_columns = n};
    for (uint64_t k = 0; k < p->k; k += PANEL_K) {
        tile.n_k = p->k - k < PANEL_K ? p->k - k : PANEL_K;
        tile.a = p->a + first * p->a_stride + k * p->a_step;
        tile.b = in_place ? p->b + k * p->b_stride + j : panel;
        tile.b_stride = in_place ? p->b_stride : GEMM_COLUMNS;
        if (p->pack)
            p->pack(p->pack_data, panel, k, tile.n_k, j, n);
        else if (!in_place)
            (p->b_step == 1 || p->b_stride != 1 ? pack_plain : pack_turned)(p, panel, k, tile.n_k, j, n);
        t->kernels->gemm(&tile);
    }
}

int product_run(struct op_call *c, const struct product *p)
{
    const unsigned n_threads = qd_team_threads(c->team);
    struct task t = {
        .p = p, .kernels = c->kernels, .n_panels = (p->n + GEMM_COLUMNS - 1) / GEMM_COLUMNS, .band_rows = p->m};
    void *scratch;
    if (p->m == 0 || p->n == 0 || p->k == 0)
        return 0;
    int r = memory_take(c->memory, (uint64_t)n_threads * PANEL_FLOATS * sizeof(float), &scratch, c->err);
    if (r < 0)
        return r;
    t.scratch = scratch;
    if (n_threads > 1 && t.n_panels < 2 * n_threads && p->m > 2 * BAND_ROWS)
        t.band_rows = BAND_ROWS;
    const uint64_t n_bands = (p->m + t.band_rows - 1) / t.band_rows;
    struct qd_team *team = p->m * p->n * p->k < 1 << 16 ? NULL : c->team; /* waking a thread costs more */
    team_run(team, (size_t)(t.n_panels * n_bands), run_panel, &t);
    memory_give(c->memory, scratch);
    return 0;
}
