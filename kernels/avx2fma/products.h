/*
 * kernels/lanes/products.h for AVX2: 8 rows, a group of r8k4p128. vpmaddubsw adds two products of an unsigned byte and
 * a signed one to 16 bits and saturates there. Activations are -127..127 (kernels/kernels.h), so by construction
 * nothing does: see each sum.
 */
#ifndef QUANTD_KERNELS_AVX2FMA_PRODUCTS_H
#define QUANTD_KERNELS_AVX2FMA_PRODUCTS_H

#include "kernels/avx2/products.h"

#define STRIP_OF(type) matmul_##type##_r8k4p128__avx2fma

static inline vi vi_dot_2(vi sum, vi a, const int16_t *x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, vi_set1_4(x)));
}

/* Pairs of 16 bits, added to 32. */
static inline vi widen(vi pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static inline vi bytes_of_q8_0(vi codes)
{
    return codes;
}

/* 16 times their value would not fit. */
enum { UPPER_NIBBLE = 1 };
static inline vi upper_nibbles(vi a)
{
    return high_nibbles(a);
}

/*
 * |w| times x of w's sign: two products are at most 2 * 128 * 127 = 32512 (a file may hold -128), and none is added to
 * them in 16 bits. Codes keep their sign: @starts are of no use.
 */
static inline vi dot_bytes_of_one(const vi w[8], const int8_t *x)
{
    vi sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++)
        sum = _mm256_add_epi32(
            sum, widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(vi_set1_4(x + 4 * i), w[i]))));
    return sum;
}

static inline __attribute__((always_inline)) void dot_bytes(vi *sum, const size_t n_columns, const int32_t *starts,
                                                            const vi w[8], const int8_t *x)
{
    (void)starts;
#pragma GCC unroll 8
    for (size_t c = 0; c < n_columns; c++)
        sum[c] = dot_bytes_of_one(w, x + c * COLUMN_BYTES);
}

/*
 * How many steps 16 bits can add, two products of at most 127 * highest each: 8 with codes to 15, 4 with codes to 31, 2
 * with codes to 63.
 */
static inline size_t steps_that_fit(size_t n_steps, int highest)
{
    size_t fit = n_steps;
    while ((int)fit * 2 * 127 * highest > INT16_MAX)
        fit /= 2;
    return fit;
}

static inline __attribute__((always_inline)) vi dot_codes_of_one(vi sum, const vi *w, const int8_t *x,
                                                                 const size_t n_steps, const int highest)
{
    const size_t fit = steps_that_fit(n_steps, highest);
#pragma GCC unroll 8
    for (size_t i = 0; i < n_steps; i += fit) {
        vi pairs = _mm256_maddubs_epi16(w[i], vi_set1_4(x + 4 * i));
#pragma GCC unroll 8
        for (size_t j = i + 1; j < i + fit; j++)
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[j], vi_set1_4(x + 4 * j)));
        sum = _mm256_add_epi32(sum, widen(pairs));
    }
    return sum;
}

static inline __attribute__((always_inline)) void dot_codes(vi *sum, const size_t n_columns, const vi *w,
                                                            const int8_t *x, const size_t n_steps, const int highest)
{
#pragma GCC unroll 8
    for (size_t c = 0; c < n_columns; c++)
        sum[c] = dot_codes_of_one(sum[c], w, x + c * COLUMN_BYTES, n_steps, highest);
}

enum { COLUMNS_AT_ONCE = 1 }; /* registers are 16 */

#endif
