/*
 * 16-bit floats from and to f32, in integer steps: the definition that every variant equals.
 * Edge rules: docs/formats/blocks.md, "f16" and "bf16".
 */
#ifndef QUANTD_KERNELS_HALF_H
#define QUANTD_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Nearest f16, ties to even; Inf from 65520 on; any NaN becomes the one quiet NaN of its sign. */
static inline uint16_t f16_of_f32(float f)
{
    uint32_t bits = f32_bits(f);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* 65520: half way from 65504 to the next power */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude >= 0x38800000) { /* 2^-14 and up, normal: drop 13 bits, move the exponent by 112 */
        uint32_t half_less_one = 0xfff + (magnitude >> 13 & 1);
        return (uint16_t)(sign | (magnitude - 0x38000000 + half_less_one) >> 13);
    }
    /* Subnormal, a multiple of 2^-24: one ulp of 0.5, so the addition rounds as wanted. */
    float aligned = f32_of_bits(magnitude) + 0.5f;
    return (uint16_t)(sign | (f32_bits(aligned) - 0x3f000000));
}

/* Exact; a signalling NaN becomes quiet and keeps its payload. */
static inline float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 0x1f;
    uint32_t mantissa = h & 0x3ff;
    if (exponent == 0x1f)
        return f32_of_bits(sign | 0x7f800000 | (mantissa ? 0x400000 : 0) | mantissa << 13);
    if (exponent == 0)
        return f32_of_bits(sign | f32_bits((float)mantissa * 0x1p-24f));
    return f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Nearest bf16, ties to even, subnormals kept; a NaN is made quiet and keeps its upper payload. */
static inline uint16_t bf16_of_f32(float f)
{
    uint32_t bits = f32_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float f32_of_bf16(uint16_t h)
{
    return f32_of_bits((uint32_t)h << 16);
}

#endif
