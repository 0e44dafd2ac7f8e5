/*
 * Products of int16 rows for one instruction set. Its dots.c defines dots_vec (sums of int32), DOTS_LANES (int16 of a
 * load), DOTS_ROWS (rows of a whose sums fit into the registers), dots_zero, dots_part, dots_load, dots_add (onto the
 * sums, the products of two loads, in any lanes) and dots_fold (the sum of all lanes, wrapping), and includes this.
 */
#ifndef QUANTD_KERNELS_LANES_DOTS_H
#define QUANTD_KERNELS_LANES_DOTS_H

enum { DOTS_COLUMNS = 4 };

/* What is left of a row behind whole loads. */
static inline uint32_t dots_rest(const int16_t *a, const int16_t *b, size_t n)
{
    uint32_t sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += (uint32_t)(a[k] * b[k]);
    return sum;
}

/* @m rows and @n columns, constants wherever this is called: all sums stay in registers. */
static inline __attribute__((always_inline)) void dots_block(const struct dots_tile *t, size_t i, size_t j,
                                                             const size_t m, const size_t n)
{
    const int16_t *a = t->a + i * t->a_stride, *b = t->b + j * t->b_stride;
    const size_t whole = t->n_k - t->n_k % DOTS_LANES;
    dots_vec sum[DOTS_ROWS][DOTS_COLUMNS];
#pragma GCC unroll 8
    for (size_t r = 0; r < m; r++)
#pragma GCC unroll 4
        for (size_t s = 0; s < n; s++)
            sum[r][s] = dots_zero();
    for (size_t k = 0; k < whole; k += DOTS_LANES) {
        dots_part y[DOTS_COLUMNS];
#pragma GCC unroll 4
        for (size_t s = 0; s < n; s++)
            y[s] = dots_load(b + s * t->b_stride + k);
#pragma GCC unroll 8
        for (size_t r = 0; r < m; r++) {
            const dots_part x = dots_load(a + r * t->a_stride + k);
#pragma GCC unroll 4
            for (size_t s = 0; s < n; s++)
                sum[r][s] = dots_add(sum[r][s], x, y[s]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < m; r++)
#pragma GCC unroll 4
        for (size_t s = 0; s < n; s++) {
            const uint32_t rest = dots_rest(a + r * t->a_stride + whole, b + s * t->b_stride + whole, t->n_k - whole);
            t->c[(i + r) * t->c_stride + j + s] = (int32_t)(dots_fold(sum[r][s]) + rest);
        }
}

static inline __attribute__((always_inline)) void dots_columns(const struct dots_tile *t, size_t i, const size_t m)
{
    size_t j = 0;
    for (; j + DOTS_COLUMNS <= t->n_columns; j += DOTS_COLUMNS)
        dots_block(t, i, j, m, DOTS_COLUMNS);
    for (; j < t->n_columns; j++)
        dots_block(t, i, j, m, 1);
}

static inline void dots_tile(const struct dots_tile *t)
{
    size_t i = 0;
    for (; i + DOTS_ROWS <= t->n_rows; i += DOTS_ROWS)
        dots_columns(t, i, DOTS_ROWS);
    for (; i < t->n_rows; i++)
        dots_columns(t, i, 1);
}

#endif
