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

static float first_of_magnitude(const char *src, float largest)
{
    float x = 0;
    for (int j = 0; j < BLOCK_32; j++) {
        memcpy(&x, src + j * 4, sizeof x);
        if (fabsf(x) == largest)
            break;
    }
    return x;
}

/* The element of largest magnitude with its sign, the first of equals; +0 for a zero block. */
static inline float extreme_of(const float32x4_t x[QUARTETS], const char *src)
{
    float32x4_t high = x[0], low = x[0];
    for (int i = 1; i < QUARTETS; i++) {
        high = vmaxq_f32(high, x[i]);
        low = vminq_f32(low, x[i]);
    }
    float highest = vmaxvq_f32(high), lowest = vminvq_f32(low);
    if (highest > -lowest)
        return highest;
    if (highest < -lowest)
        return lowest;
    return highest == 0 ? 0 : first_of_magnitude(src, highest);
}

/* 16 elements to codes trunc(x / d + bias) capped at 15. */
static inline uint8x16_t codes_of(const float32x4_t x[4], float inverse, float bias)
{
    uint16x4_t w[4];
    for (int i = 0; i < 4; i++)
        w[i] = vmovn_u32(vcvtq_u32_f32(vaddq_f32(vmulq_n_f32(x[i], inverse), vdupq_n_f32(bias))));
    uint8x8_t low = vmovn_u16(vcombine_u16(w[0], w[1])), high = vmovn_u16(vcombine_u16(w[2], w[3]));
    return vminq_u8(vcombine_u8(low, high), vdupq_n_u8(15));
}

void quantize_q4_0__neon(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_0 *b = dst;
    const char *at = (const char *)src;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, at += BLOCK_32 * 4) {
        float32x4_t x[QUARTETS];
        load_block(x, at);
        const float d = extreme_of(x, at) / -8;
        const float quotient = d != 0 ? 1 / d : 0;
        const int overflow = isinf(quotient); /* then every code is 0: trunc(x * 0 + 0.5) */
        const float inverse = overflow ? 0 : quotient, bias = overflow ? 0.5f : 8.5f;
        b->d = f16_of_f32(d);
        vst1q_u8(b->q, vsliq_n_u8(codes_of(x, inverse, bias), codes_of(x + 4, inverse, bias), 4));
    }
}

/* 8 codes to 8 values. */
static inline void decode_eight(uint8_t *y, uint8x8_t codes, float d)
{
    int16x8_t q = vreinterpretq_s16_u16(vsubl_u8(codes, vdup_n_u8(8)));
    float32x4_t low = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), d);
    float32x4_t high = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(q))), d);
    vst1q_u8(y, vreinterpretq_u8_f32(low));
    vst1q_u8(y + 16, vreinterpretq_u8_f32(high));
}

void dequantize_q4_0__neon(float *dst, const void *src, size_t n_elements)
{
    const struct block_q4_0 *b = src;
    uint8_t *y = (uint8_t *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, y += BLOCK_32 * 4) {
        const float d = f32_of_f16(b->d);
        uint8x16_t both = vld1q_u8(b->q);
        uint8x16_t low = vandq_u8(both, vdupq_n_u8(15)), high = vshrq_n_u8(both, 4);
        decode_eight(y, vget_low_u8(low), d);
        decode_eight(y + 32, vget_high_u8(low), d);
        decode_eight(y + 64, vget_low_u8(high), d);
        decode_eight(y + 96, vget_high_u8(high), d);
    }
}
