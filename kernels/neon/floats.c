#include "kernels/variants.h"

#include <arm_neon.h>

/* 4 f32 to f16; the instruction keeps a NaN's payload, the definition does not. */
static inline uint16x4_t f16_of(float32x4_t x)
{
    uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(x));
    uint16x4_t number = vmovn_u32(vceqq_f32(x, x));
    uint16x4_t quiet = vorr_u16(vand_u16(h, vdup_n_u16(0x8000)), vdup_n_u16(0x7e00));
    return vbsl_u16(number, h, quiet);
}

void quantize_f16__neon(void *dst, const float *src, size_t n_elements)
{
    uint8_t *y = dst;
    const uint8_t *x = (const uint8_t *)src;
    for (; n_elements >= 4; n_elements -= 4, x += 16, y += 8)
        vst1_u8(y, vreinterpret_u8_u16(f16_of(vreinterpretq_f32_u8(vld1q_u8(x)))));
    quantize_f16__scalar(y, (const float *)(const void *)x, n_elements);
}

void dequantize_f16__neon(float *dst, const void *src, size_t n_elements)
{
    uint8_t *y = (uint8_t *)dst;
    const uint8_t *x = src;
    for (; n_elements >= 4; n_elements -= 4, x += 8, y += 16)
        vst1q_u8(y, vreinterpretq_u8_f32(vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(x)))));
    dequantize_f16__scalar((float *)(void *)y, x, n_elements);
}

/* 4 f32 rounded to bf16: add 0x7fff and the last kept bit; NaN: set the quiet bit. */
static inline uint16x4_t bf16_of(uint32x4_t bits)
{
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t nan = vcgtq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffffff)), vdupq_n_u32(0x7f800000));
    return vshrn_n_u32(vbslq_u32(nan, vorrq_u32(bits, vdupq_n_u32(0x400000)), rounded), 16);
}

void quantize_bf16__neon(void *dst, const float *src, size_t n_elements)
{
    uint8_t *y = dst;
    const uint8_t *x = (const uint8_t *)src;
    for (; n_elements >= 4; n_elements -= 4, x += 16, y += 8)
        vst1_u8(y, vreinterpret_u8_u16(bf16_of(vreinterpretq_u32_u8(vld1q_u8(x)))));
    quantize_bf16__scalar(y, (const float *)(const void *)x, n_elements);
}

void dequantize_bf16__neon(float *dst, const void *src, size_t n_elements)
{
    uint8_t *y = (uint8_t *)dst;
    const uint8_t *x = src;
    for (; n_elements >= 4; n_elements -= 4, x += 8, y += 16)
        vst1q_u8(y, vreinterpretq_u8_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(x)), 16)));
    dequantize_bf16__scalar((float *)(void *)y, x, n_elements);
}
