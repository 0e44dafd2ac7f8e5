#include "kernels/variants.h"

#include <arm_neon.h>

enum { LANES_4 = 4, VECTORS = 16, STEP = VECTORS * LANES_4 };

/* 64 lanes to one: those of the same place in the upper half are added, again and again. */
static float fold(float32x4_t v[VECTORS])
{
    for (size_t half = VECTORS / 2; half; half /= 2)
        for (size_t k = 0; k < half; k++)
            v[k] = vaddq_f32(v[k], v[k + half]);
    const float32x2_t s2 = vadd_f32(vget_low_f32(v[0]), vget_high_f32(v[0]));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

/* The last @n elements, at most 64, each on its lane. */
static void add_tail(float32x4_t v[VECTORS], const float *x, const float *y, size_t n)
{
    float lanes[STEP];
    for (size_t k = 0; k < VECTORS; k++)
        vst1q_f32(lanes + k * LANES_4, v[k]);
    for (size_t i = 0; i < n; i++)
        lanes[i] = __builtin_fmaf(x[i], y[i], lanes[i]);
    for (size_t k = 0; k < VECTORS; k++)
        v[k] = vld1q_f32(lanes + k * LANES_4);
}

float dot__neon(const void *a, const void *b, size_t n)
{
    const float *x = a, *y = b;
    float32x4_t v[VECTORS];
    for (size_t k = 0; k < VECTORS; k++)
        v[k] = vdupq_n_f32(0);
    for (; n >= STEP; n -= STEP, x += STEP, y += STEP)
        for (size_t k = 0; k < VECTORS; k++)
            v[k] = vfmaq_f32(v[k], vld1q_f32(x + k * LANES_4), vld1q_f32(y + k * LANES_4));
    if (n)
        add_tail(v, x, y, n);
    return fold(v);
}
