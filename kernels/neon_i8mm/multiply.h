/*
 * kernels/neon/multiply.h with the 8-bit matrix products: r4k8p128, a register holds 8 codes of each of 2 rows. Two
 * columns are taken at once; v[0] has their sums with rows 0 and 1 (column 0, then column 1), v[1] those with rows 2
 * and 3. Of one column both are that one.
 */
#ifndef QUANTD_KERNELS_NEON_I8MM_MULTIPLY_H
#define QUANTD_KERNELS_NEON_I8MM_MULTIPLY_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/layout/blocks.h"

#define KERNEL_NAME(type) matmul_##type##_r4k8p128__neon_i8mm

enum { STEP = 2 };

static inline void turn(float32x4_t v[STEP])
{
    const float64x2_t a = vreinterpretq_f64_f32(v[0]), b = vreinterpretq_f64_f32(v[1]);
    v[0] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
    v[1] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
}

static inline float32x4_t columns_f32(const float *p, size_t width)
{
    if (width == 1)
        return vdupq_n_f32(*p);
    const float32x4_t two = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    return vzip1q_f32(two, two);
}

static inline int32x4_t columns_s32(const int32_t *p, size_t width)
{
    if (width == 1)
        return vdupq_n_s32(*p);
    const int32x4_t two = vcombine_s32(vld1_s32(p), vdup_n_s32(0));
    return vzip1q_s32(two, two);
}

static inline __attribute__((always_inline)) void multiply(int32x4_t sum[STEP], const int8x16_t *w, const size_t n,
                                                           const size_t fits, const int8_t *x, const size_t width)
{
    (void)fits; /* sums are of 32 bits */
    for (size_t i = 0; i < n; i += 4) {
        const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(x + 4 * i));
        const int64x2_t b = width == 1 ? a : vreinterpretq_s64_s8(vld1q_s8(x + BLOCK_32 + 4 * i));
        const int8x16_t eight = vreinterpretq_s8_s64(vzip1q_s64(a, b)), next = vreinterpretq_s8_s64(vzip2q_s64(a, b));
        sum[0] = vmmlaq_s32(sum[0], eight, w[i]);
        sum[1] = vmmlaq_s32(sum[1], eight, w[i + 1]);
        sum[0] = vmmlaq_s32(sum[0], next, w[i + 2]);
        sum[1] = vmmlaq_s32(sum[1], next, w[i + 3]);
    }
}

#endif
