#include "kernels/variants.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"

enum { QUARTETS = BLOCK_32 / 4 };

static inline void load_block(float32x4_t x[QUARTETS], const char *src)
{
    for (int i = 0; i < QUARTETS; i++)
        x[i] = vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)src + 16 * i));
}

static inline float largest_of(const float32x4_t x[QUARTETS])
{
    float32x4_t largest = vdupq_n_f32(0);
    for (int i = 0; i < QUARTETS; i++)
        largest = vmaxq_f32(largest, vabsq_f32(x[i]));
    return vmaxvq_f32(largest);
}

/* 8 elements to 16-bit integers; the conversion rounds halves away from zero. */
static inline int16x8_t codes_of(const float32x4_t x[2], float inverse)
{
    int32x4_t low = vcvtaq_s32_f32(vmulq_n_f32(x[0], inverse));
    int32x4_t high = vcvtaq_s32_f32(vmulq_n_f32(x[1], inverse));
    return vcombine_s16(vmovn_s32(low), vmovn_s32(high));
}

void quantize_q8_0__neon(void *dst, const float *src, size_t n_elements)
{
    struct block_q8_0 *b = dst;
    const char *at = (const char *)src;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, at += BLOCK_32 * 4) {
        float32x4_t x[QUARTETS];
        load_block(x, at);
        const float d = largest_of(x) / 127;
        float inverse = 1 / d;
        if (!(inverse < INFINITY))
            inverse = 0;
        b->d = f16_of_f32(d);
        vst1q_s8(b->q, vcombine_s8(vmovn_s16(codes_of(x, inverse)), vmovn_s16(codes_of(x + 2, inverse))));
        vst1q_s8(b->q + 16, vcombine_s8(vmovn_s16(codes_of(x + 4, inverse)), vmovn_s16(codes_of(x + 6, inverse))));
    }
}

void dequantize_q8_0__neon(float *dst, const void *src, size_t n_elements)
{
    const struct block_q8_0 *b = src;
    uint8_t *y = (uint8_t *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++) {
        const float d = f32_of_f16(b->d);
        for (int j = 0; j < BLOCK_32; j += 8, y += 32) {
            int16x8_t q = vmovl_s8(vld1_s8(b->q + j));
            float32x4_t low = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), d);
            float32x4_t high = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(q))), d);
            vst1q_u8(y, vreinterpretq_u8_f32(low));
            vst1q_u8(y + 16, vreinterpretq_u8_f32(high));
        }
    }
}
