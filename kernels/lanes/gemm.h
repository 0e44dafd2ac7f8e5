/*
 * Products of f32 matrices for one instruction set. Its gemm.c defines gemm_vec, GEMM_LANES, gemm_load, gemm_store,
 * gemm_all (a float in every lane), gemm_fma (a * b + c, rounded once) and GEMM_ROWS (rows whose sums fit into the
 * registers beside a row of b), and includes this. A lane is a column: sums grow along k as the definition says.
 */
#ifndef QUANTD_KERNELS_LANES_GEMM_H
#define QUANTD_KERNELS_LANES_GEMM_H

#include <string.h>

enum { GEMM_VECTORS = GEMM_COLUMNS / GEMM_LANES };

/* @n rows, a constant wherever this is called: all sums stay in registers. */
static inline __attribute__((always_inline)) void gemm_rows(const struct gemm_tile *t, float *c, size_t c_stride,
                                                            const float *a, const size_t n)
{
    gemm_vec sum[GEMM_ROWS][GEMM_VECTORS];
    const float *b = t->b;
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++)
#pragma GCC unroll 8
        for (size_t v = 0; v < GEMM_VECTORS; v++)
            sum[i][v] = gemm_load(c + i * c_stride + v * GEMM_LANES);
    for (size_t k = 0; k < t->n_k; k++, b += t->b_stride, a += t->a_step) {
        gemm_vec row[GEMM_VECTORS];
#pragma GCC unroll 8
        for (size_t v = 0; v < GEMM_VECTORS; v++)
            row[v] = gemm_load(b + v * GEMM_LANES);
#pragma GCC unroll 16
        for (size_t i = 0; i < n; i++) {
            const gemm_vec x = gemm_all(a[i * t->a_stride]);
#pragma GCC unroll 8
            for (size_t v = 0; v < GEMM_VECTORS; v++)
                sum[i][v] = gemm_fma(x, row[v], sum[i][v]);
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++)
#pragma GCC unroll 8
        for (size_t v = 0; v < GEMM_VECTORS; v++)
            gemm_store(c + i * c_stride + v * GEMM_LANES, sum[i][v]);
}

/* @n rows, at most GEMM_ROWS, of full width. */
static void gemm_some_rows(const struct gemm_tile *t, float *c, size_t c_stride, const float *a, size_t n)
{
    size_t done = 0;
    if (n == GEMM_ROWS) {
        gemm_rows(t, c, c_stride, a, GEMM_ROWS);
        return;
    }
    for (; done + 4 <= n && GEMM_ROWS > 4; done += 4)
        gemm_rows(t, c + done * c_stride, c_stride, a + done * t->a_stride, GEMM_ROWS > 4 ? 4 : 1);
    for (; done + 2 <= n; done += 2)
        gemm_rows(t, c + done * c_stride, c_stride, a + done * t->a_stride, 2);
    if (done < n)
        gemm_rows(t, c + done * c_stride, c_stride, a + done * t->a_stride, 1);
}

/* Fewer columns than a row of b has: sums of full width beside c, of which the columns that are wanted go back. */
static void gemm_narrow_rows(const struct gemm_tile *t, float *c, const float *a, size_t n)
{
    float wide[GEMM_ROWS * GEMM_COLUMNS] = {0};
    for (size_t i = 0; i < n; i++)
        memcpy(wide + i * GEMM_COLUMNS, c + i * t->c_stride, t->n_columns * sizeof *c);
    gemm_some_rows(t, wide, GEMM_COLUMNS, a, n);
    for (size_t i = 0; i < n; i++)
        memcpy(c + i * t->c_stride, wide + i * GEMM_COLUMNS, t->n_columns * sizeof *c);
}

static void gemm_tile_rows(const struct gemm_tile *t)
{
    for (size_t i = 0; i < t->n_rows; i += GEMM_ROWS) {
        const size_t n = t->n_rows - i < GEMM_ROWS ? t->n_rows - i : GEMM_ROWS;
        float *c = t->c + i * t->c_stride;
        if (t->n_columns == GEMM_COLUMNS)
            gemm_some_rows(t, c, t->c_stride, t->a + i * t->a_stride, n);
        else
            gemm_narrow_rows(t, c, t->a + i * t->a_stride, n);
    }
}

#endif
