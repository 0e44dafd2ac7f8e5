/*
 * iq4_nl and iq4_xs: the values of the codes, and what a super-block of iq4_xs makes of the scales of its 8 sub-blocks.
 * One piece of code for all variants. (docs/formats/blocks.md, "iq4_nl", "iq4_xs")
 */
#ifndef QUANTD_KERNELS_IQ4_H
#define QUANTD_KERNELS_IQ4_H

#include <math.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"
#include "kernels/scalar/search.h"

enum { IQ4_LOWEST = -127, IQ4_HIGHEST = 113, IQ4_STEPS = 7 /* trials to either side of the plain fit */ };

static const float iq4_values[16] = {IQ4_LOWEST, -104, -83, -65, -49, -35, -22, -10,
                                     1,          13,   25,  38,  53,  69,  89,  IQ4_HIGHEST};
/*
 * The number of those after the first that x is not below is its code: half-way between values, where the upper is
 * taken (tests/kernels/nearest.c holds them to the field's comparisons).
 */
static const float iq4_halfway[16] = {-HUGE_VALF, -115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16,
                                      -4.5f,      7,       19,     31.5f, 45.5f, 61,  79,     101};

/*
 * A scale as stored. Sums of squares overflow from magnitudes of 1.8e19 on: the scale is then a NaN, which x86-64 makes
 * with the sign set and other CPUs without.
 */
static inline uint16_t iq4_f16(float scale)
{
    return scale != scale ? 0xfe00 : f16_of_f32(scale);
}

/* A super-block's head, and what the elements of each sub-block are multiplied by to be looked up. */
struct iq4_xs_head {
    uint16_t d, scales_high;
    uint8_t scales_low[4];
    float inverse[8];
};

/* The scale of largest magnitude with its sign: the first of equals; NaN is passed over. 0 where none is larger. */
static inline float iq4_xs_extreme(const float scales[8])
{
    float extreme = 0;
    for (int j = 0; j < 8; j++)
        extreme = fabsf(scales[j]) > fabsf(extreme) ? scales[j] : extreme;
    return extreme;
}

/* @scales: what the search found for the sub-blocks. The scale of largest magnitude has code -32. */
static inline void iq4_xs_head_of(const float scales[8], struct iq4_xs_head *ret)
{
    const float d = -iq4_xs_extreme(scales) / 32;
    const float inverse = d != 0 ? 1 / d : 0;
    memset(ret, 0, sizeof *ret);
    ret->d = f16_of_f32(d);
    for (int j = 0; j < 8; j++) {
        const int code = clamp_int(nearest_int(inverse * scales[j]), -32, 31);
        const float step = d * (float)code; /* of the f32 d, not of the stored one */
        ret->inverse[j] = step != 0 ? 1 / step : 0;
        ret->scales_low[j / 2] |= (uint8_t)(((code + 32) & 15) << 4 * (j % 2));
        ret->scales_high = (uint16_t)(ret->scales_high | (code + 32) >> 4 << 2 * j);
    }
}

#endif
