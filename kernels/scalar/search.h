/*
 * Searches for the scale of a sub-block: the definition, in the field's order of operations
 * (ggml:src/ggml-quants.c), which decides the bytes. Ties, zeros and NaN are as written there.
 */
#ifndef QUANTD_KERNELS_SCALAR_SEARCH_H
#define QUANTD_KERNELS_SCALAR_SEARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/*
 * Nearest integer, ties to even, of |x| <= 2^22, by the field's arithmetic. Beyond, and of NaN, the value is whatever
 * the bits say: files depend on it.
 */
static inline int nearest_int(float x)
{
    float shifted = x + 12582912.0f; /* 1.5 * 2^23: one ulp is 1 */
    int bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}

static inline int clamp_int(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

/* The trials of search_affine: inverse scale (first + step * i + n_max) / range for i = 0 .. n_steps. */
struct affine_trials {
    float first, step;
    int n_steps;
    bool absolute; /* error |x - y| instead of its square */
};

/*
 * Codes 0..@n_max, scale and minimum with x ~ scale * code - *ret_min of least weighted error (make_qkx2_quants and
 * make_qkx3_quants). *ret_min >= 0. Returns the scale; 0 for a run without range.
 */
float search_affine(int n, int n_max, const float *x, const float *weights, const struct affine_trials *trials,
                    uint8_t *codes, float *ret_min);

/*
 * Codes 0..@n_max and a scale with x ~ scale * code of least weighted error, for @x >= 0 (make_qp_quants): scales
 * and minima of sub-blocks.
 */
float search_positive(int n, int n_max, const float *x, const float *weights, uint8_t *codes);

/*
 * Codes 0..2 * @n_max - 1 and a scale with x ~ scale * (code - n_max) of least weighted error (make_qx_quants,
 * rmse_type 1): the extreme has code 0 or nearly so. Returns the scale, of either sign; 0 and codes of 0 for a run
 * without a value from 1e-15.
 */
float search_symmetric(int n, int n_max, const float *x, const float *weights, uint8_t *codes);

/*
 * The same with weights x^2 by another way: from the codes of the plain scale on, single codes are moved while that
 * helps, for five rounds at most (make_q3_quants).
 */
float search_moves(int n, int n_max, const float *x, uint8_t *codes);

#endif
