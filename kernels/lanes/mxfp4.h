/* The nearest of the values of E2M1. */
#ifndef QUANTD_KERNELS_LANES_MXFP4_H
#define QUANTD_KERNELS_LANES_MXFP4_H

#include "kernels/lanes/vec.h"
#include "kernels/layout/mxfp4.h"

/*
 * The code for @x * @scale, which is below 16 in magnitude; @scale is a power of two. The values are 0 1 2 3 4 6 8 12,
 * half-way is down. From 2 on they have one bit of mantissa, and rounding the bits to that gives the code. Below, two
 * comparisons count, and the rounding is no larger than their count. Products that lose bits are far below 0.5.
 * (tests/kernels/nearest.c)
 */
static inline vi mxfp4_code(vf x, vf scale)
{
    const vf y = vf_mul(vf_abs(x), scale);
    const vi rounded = vi_shift_right(vi_add(vi_bits(y), vi_set1(0x1fffff)), 22);
    const vi from_two = vi_add(rounded, vi_set1(2 - (0x40000000 >> 22)));
    const vm nonzero = vf_gt(y, vf_set1(0.5f));
    const vi up_to_two =
        vi_add_where(nonzero, vi_add_where(vf_gt(y, vf_set1(1.5f)), vi_set1(0), vi_set1(1)), vi_set1(1));
    const vi code = vi_min(vi_max(from_two, up_to_two), vi_set1(7));
    return vi_add_where(nonzero, code, vi_and(vi_shift_right(vi_bits(x), 28), vi_set1(8))); /* no sign for code 0 */
}

#endif
