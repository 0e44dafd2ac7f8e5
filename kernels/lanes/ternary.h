/* Elements in multiples -1, 0, 1 of a scale, and five of these in a byte. */
#ifndef QUANTD_KERNELS_LANES_TERNARY_H
#define QUANTD_KERNELS_LANES_TERNARY_H

#include "kernels/lanes/vec.h"

/*
 * @x * @inverse, up to 1 in magnitude or little more, to the nearest integer, halves away from zero: times the float
 * above 1 a half is above a half, and what was below a half is one at most, which goes to the even 0.
 * (tests/kernels/nearest.c)
 */
static inline vf ternary_level(vf x, vf inverse)
{
    return vf_nearest(vf_mul(vf_mul(x, inverse), vf_set1(1 + 0x1p-23f)));
}

/*
 * Five levels, the first one highest, to the byte ceil(256 / 243 * (their number of base 3 with digits level + 1)). The
 * fractions of the exact quotients are 1 / 243 apart, and half of that is added.
 */
static inline vi ternary_byte(const vf levels[5])
{
    vf number = levels[0];
    for (int n = 1; n < 5; n++)
        number = vf_add(vf_mul(number, vf_set1(3)), levels[n]);
    return vi_trunc(vf_add(vf_mul(number, vf_set1(256.0f / 243)), vf_set1((121 * 256 + 242.5f) / 243)));
}

#endif
