/*
 * The ends of a run of finite elements. Found by the bits, as integers may be compared in any order, which compilers
 * turn into vector code; of elements that a comparison of floats does not tell apart the first is taken.
 */
#ifndef QUANTD_KERNELS_SCALAR_ENDS_H
#define QUANTD_KERNELS_SCALAR_ENDS_H

#include <math.h>

#include "kernels/scalar/half.h"

/* The largest magnitude among @n elements. */
static inline float largest_of(int n, const float *x)
{
    int32_t largest = 0;
    for (int j = 0; j < n; j++) {
        const int32_t magnitude = (int32_t)(f32_bits(x[j]) & 0x7fffffff);
        largest = magnitude > largest ? magnitude : largest;
    }
    return f32_of_bits((uint32_t)largest);
}

/* The element of largest magnitude, with its sign: the first of equals. +0 for a run of zeros. */
static inline float extreme_of(int n, const float *x)
{
    const float largest = largest_of(n, x);
    for (int j = 0; j < n && largest > 0; j++)
        if (fabsf(x[j]) == largest)
            return x[j];
    return 0;
}

struct ends {
    float lowest, highest; /* lowest: of zeros the first; highest: of zeros any */
};

/* Bits of a float and back, so that integers are ordered as the floats; -0 below 0. */
static inline int32_t ordered_of_bits(uint32_t bits)
{
    return (int32_t)(bits ^ (bits >> 31 ? 0x7fffffff : 0));
}

static inline struct ends ends_of(int n, const float *x)
{
    int32_t lowest = INT32_MAX, highest = INT32_MIN;
    for (int j = 0; j < n; j++) {
        const int32_t v = ordered_of_bits(f32_bits(x[j]));
        lowest = v < lowest ? v : lowest;
        highest = v > highest ? v : highest;
    }
    struct ends e = {f32_of_bits((uint32_t)ordered_of_bits((uint32_t)lowest)),
                     f32_of_bits((uint32_t)ordered_of_bits((uint32_t)highest))};
    for (int j = n - 1; j >= 0 && e.lowest == 0; j--)
        e.lowest = x[j] == 0 ? x[j] : e.lowest;
    return e;
}

#endif
