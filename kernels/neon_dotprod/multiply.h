/* kernels/neon/multiply.h with the dot product instructions: r4k4p128. */
#ifndef QUANTD_KERNELS_NEON_DOTPROD_MULTIPLY_H
#define QUANTD_KERNELS_NEON_DOTPROD_MULTIPLY_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_NAME(type) matmul_##type##_r4k4p128__neon_dotprod

enum { STEP = 1 };

static inline void turn(float32x4_t v[STEP])
{
    (void)v; /* lanes are rows already */
}

static inline float32x4_t columns_f32(const float *p, size_t width)
{
    (void)width;
    return vdupq_n_f32(*p);
}

static inline int32x4_t columns_s32(const int32_t *p, size_t width)
{
    (void)width;
    return vdupq_n_s32(*p);
}

static inline __attribute__((always_inline)) void multiply(int32x4_t sum[STEP], const int8x16_t *w, const size_t n,
                                                           const size_t fits, const int8_t *x, size_t width)
{
    (void)fits; /* sums are of 32 bits */
    (void)width;
    for (size_t i = 0; i < n; i += 4) {
        const int8x16_t codes = vld1q_s8(x + 4 * i);
        sum[0] = vdotq_laneq_s32(sum[0], w[i], codes, 0);
        sum[0] = vdotq_laneq_s32(sum[0], w[i + 1], codes, 1);
        sum[0] = vdotq_laneq_s32(sum[0], w[i + 2], codes, 2);
        sum[0] = vdotq_laneq_s32(sum[0], w[i + 3], codes, 3);
    }
}

#endif
