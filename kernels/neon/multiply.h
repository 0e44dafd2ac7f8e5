/*
 * Products of codes over Advanced SIMD alone: r4k4p128, a register holds 4 codes of each of 4 rows.
 *
 * multiply.h of an aarch64 folder says how kernels/neon/matmul.c multiplies there:
 *   KERNEL_NAME(type)  the kernel of that type: a layout and a variant
 *   STEP               columns whose sums are made together, in STEP vectors of 4
 *   turn(v)            from sums as they are made to columns (v[c]: lane r is row r) and back
 *   columns_f32(p, width) columns_s32(p, width)
 *                      a value of each column of a step, where the sums of that column are made
 *   multiply(sum, w, n, fits, x, width)
 *                      sum += the products of the codes in w[n] with those of the columns at x, BLOCK_32 bytes apart.
 *                      @fits: how many such products 16 bits can add, whatever the weights hold; codes of columns are
 *                      -127..127
 * @width is the strip's: at 1, there is no second column to read.
 */
#ifndef QUANTD_KERNELS_NEON_MULTIPLY_H
#define QUANTD_KERNELS_NEON_MULTIPLY_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERNEL_NAME(type) matmul_##type##_r4k4p128__neon

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

/* 4 codes of a column, beside every row. */
static inline int8x16_t four_codes(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

static inline __attribute__((always_inline)) void multiply(int32x4_t sum[STEP], const int8x16_t *w, const size_t n,
                                                           const size_t fits, const int8_t *x, size_t width)
{
    (void)width;
    int32x4_t first = vdupq_n_s32(0), last = first; /* of rows 0 1, of rows 2 3: two sums each */
    for (size_t i = 0; i < n; i += fits) {
        int8x16_t four = four_codes(x + 4 * i);
        int16x8_t a = vmull_s8(vget_low_s8(w[i]), vget_low_s8(four)), b = vmull_high_s8(w[i], four);
        for (size_t j = i + 1; j < i + fits; j++) {
            four = four_codes(x + 4 * j);
            a = vmlal_s8(a, vget_low_s8(w[j]), vget_low_s8(four));
            b = vmlal_high_s8(b, w[j], four);
        }
        first = i ? vpadalq_s16(first, a) : vpaddlq_s16(a);
        last = i ? vpadalq_s16(last, b) : vpaddlq_s16(b);
    }
    sum[0] = vaddq_s32(sum[0], vpaddq_s32(first, last));
}

#endif
