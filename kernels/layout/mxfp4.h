/*
 * The exponent of an mxfp4 block. One piece of code for all variants, and without the C library: the field's encoder
 * takes floorf(log2f(largest)), whose logarithm is rounded and so reaches k a few floats below 2^k.
 * (docs/formats/blocks.md, "mxfp4"; tests/kernels/nearest.c holds it to log2f)
 */
#ifndef QUANTD_KERNELS_MXFP4_H
#define QUANTD_KERNELS_MXFP4_H

#include <stdbool.h>

#include "kernels/layout/codebooks.h"

static inline int highest_bit(uint32_t x)
{
    return 31 - __builtin_clz(x);
}

/*
 * How many floats below 2^@k have a logarithm that rounds to k: those nearer than half a step between k and the float
 * below it. That is floor(ln(2) * 2^i) steps of 2^(k - 24), where the logarithm is between 2^i and 2^(i + 1).
 */
static inline uint32_t floats_that_round_to(int k)
{
    static const uint8_t steps[8] = {0, 1, 2, 5, 11, 22, 44, 88};
    const uint32_t magnitude = (uint32_t)(k > 0 ? k - 1 : -k);
    const uint32_t n = magnitude ? steps[highest_bit(magnitude)] : 0;
    return k < -125 ? n >> (-125 - k) : n; /* subnormals are further apart */
}

/* floorf(log2f(x)) of a finite x > 0: -149 .. 128 */
static inline int floor_log2(float x)
{
    const uint32_t bits = f32_bits(x);
    const bool subnormal = bits < 0x00800000;
    const int k = subnormal ? highest_bit(bits) - 148 : (int)(bits >> 23) - 126; /* 2^k is the next power of two */
    const uint32_t next = subnormal ? UINT32_C(1) << (k + 149) : ((bits >> 23) + 1) << 23;
    return next - bits <= floats_that_round_to(k) ? k : k - 1;
}

/*
 * The stored exponent of a block whose largest magnitude is @largest. Below 2^-125 it is negative and wraps around, as
 * the conversion to a byte does on x86-64: such a block decodes to zeros, as all its codes are 0.
 */
static inline uint8_t mxfp4_exponent(float largest)
{
    return largest > 0 ? (uint8_t)(floor_log2(largest) + 125) : 0;
}

#endif
