/*
 * Exact sums of products of codes, a row of weights in each lane, under one set of names: strips (matmul_32.c,
 * matmul_k.c) are written once and compiled for every instruction set of x86. Each folder's products.h gives the names
 * their meaning, QD_PRODUCTS_HEADER says which is meant. LANES, vf and vi are those of kernels/lanes/vec.h.
 *
 *   STRIP_OF(type)    the function's name in packed.def
 *   vf_fma(a, b, c)   a * b + c, rounded once; vf_fnma: c - a * b
 *   vi_pairs_u8(a, b) LANES bytes of each as 16 bits, side by side in a lane, a in the lower half
 *   vi_of_nibbles(p)  LANES nibbles, the lower one of each byte first
 *   vi_dot_2          sum + two products of the 16 bits in each lane of a with x[0] and x[1]
 *
 * Sums over w, vectors of 4 codes a lane, and as many activations x in order, of @n_columns columns (COLUMNS_AT_ONCE at
 * most) whose x lie COLUMN_BYTES apart:
 *   bytes_of_q8_0     codes as they are stored, as dot_bytes takes them
 *   dot_bytes         32 products of those; @starts: what sums start from if codes are taken unsigned (struct
 *                     activation_tile)
 *   dot_codes         4 * n_steps products of codes 0..highest, on top of @sum; n_steps: a power of two, at most 8
 *   upper_nibbles     high nibbles, times UPPER_NIBBLE, as dot_codes takes codes 0..15
 */
#ifndef QUANTD_KERNELS_LANES_PRODUCTS_H
#define QUANTD_KERNELS_LANES_PRODUCTS_H

#include "kernels/lanes/vec.h"

static inline vi bytes_set1(uint32_t a)
{
    return vi_set1((int)(a * 0x01010101u));
}
static inline vi low_nibbles(vi a)
{
    return vi_and(a, bytes_set1(0x0f));
}
static inline vi high_nibbles(vi a)
{
    return low_nibbles(vi_shift_right(a, 4));
}

enum { COLUMN_BYTES = 32 };

static inline __attribute__((always_inline)) void sums_start(vi *sum, const size_t n_columns, const int32_t *starts)
{
#pragma GCC unroll 8
    for (size_t c = 0; c < n_columns; c++)
        sum[c] = vi_set1(starts[c]);
}

#include QD_PRODUCTS_HEADER

#endif
