/* Activations: kernels/scalar/activate.c over Advanced SIMD. */
#include "kernels/variants.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernels/layout/blocks.h"

enum { QUARTETS = 4, QUARTET_BYTES = 16, INFINITE = 0x7f800000 };

/* Magnitudes as bits, which order as the magnitudes do: NaN above Inf above all numbers. */
struct extremes {
    uint32_t positive, negative;
};

static inline struct extremes extremes_of(const uint8_t *x, size_t n)
{
    int32x4_t high = vdupq_n_s32(0);
    uint32x4_t low = vdupq_n_u32(0); /* with the sign bit, which puts negative ones on top */
    for (size_t i = 0; i < n; i += 4) {
        const uint8x16_t v = vld1q_u8(x + 4 * i);
        high = vmaxq_s32(high, vreinterpretq_s32_u8(v));
        low = vmaxq_u32(low, vreinterpretq_u32_u8(v));
    }
    const uint32_t lowest = vmaxvq_u32(low);
    return (struct extremes){(uint32_t)vmaxvq_s32(high), lowest >> 31 ? lowest & 0x7fffffff : 0};
}

static inline uint32_t largest_of(struct extremes e)
{
    return e.positive > e.negative ? e.positive : e.negative;
}

static inline float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The first x whose magnitude is @largest, above 0. */
static float first_of_magnitude(const uint8_t *x, uint32_t largest)
{
    uint32_t bits;
    do {
        memcpy(&bits, x, sizeof bits);
        x += sizeof bits;
    } while ((bits & 0x7fffffff) != largest);
    return float_of(bits);
}

static inline float extreme_of(struct extremes e, const uint8_t *x)
{
    if (e.positive == e.negative)
        return e.positive ? first_of_magnitude(x, e.positive) : 0;
    return e.positive > e.negative ? float_of(e.positive) : -float_of(e.negative);
}

static inline float through_f16(float f)
{
    return vgetq_lane_f32(vcvt_f32_f16(vcvt_f16_f32(vdupq_n_f32(f))), 0);
}

/* 16 codes; conversion rounds to the nearest, ties to even, and makes 0 of NaN (x is NaN or Inf, @inverse 0). */
static inline int8x16_t codes_of(const uint8_t *x, float inverse)
{
    int32x4_t q[QUARTETS];
    for (size_t i = 0; i < QUARTETS; i++)
        q[i] = vcvtnq_s32_f32(vmulq_n_f32(vreinterpretq_f32_u8(vld1q_u8(x + QUARTET_BYTES * i)), inverse));
    const int16x8_t low = vqmovn_high_s32(vqmovn_s32(q[0]), q[1]), high = vqmovn_high_s32(vqmovn_s32(q[2]), q[3]);
    return vqmovn_high_s16(vqmovn_s16(low), high);
}

/* Codes of block @b (of 32) of column @c and the sums of its units. Returns the sum of all codes. */
static inline int16_t make_codes(struct activation_tile *t, const struct activation_source *src, const uint8_t *x,
                                 size_t b, size_t c, float inverse)
{
    const int8x16_t low = codes_of(x, inverse), high = codes_of(x + BLOCK_32 / 2 * 4, inverse);
    int8_t *q = t->q + (b * src->width + c) * BLOCK_32;
    vst1q_s8(q, low);
    vst1q_s8(q + BLOCK_32 / 2, high);
    const int16_t first = vaddlvq_s8(low), last = vaddlvq_s8(high), sum = (int16_t)(first + last);
    int32_t *sums = t->sums + b * (BLOCK_32 / src->unit) * src->width + c;
    if (src->unit == BLOCK_32) {
        sums[0] = -src->offset * sum;
    } else {
        sums[0] = -src->offset * first;
        sums[src->width] = -src->offset * last;
    }
    return sum;
}

void activate_32__neon(struct activation_tile *dst, const struct activation_source *src)
{
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++) {
            const uint8_t *x = (const uint8_t *)(src->x + c * src->stride + b * BLOCK_32);
            const uint32_t bits = largest_of(extremes_of(x, BLOCK_32));
            const float largest = float_of(bits);
            float inverse = 127.0f / largest, scale = through_f16(largest / 127.0f);
            if (!(inverse < INFINITY) || bits >= INFINITE)
                inverse = 0;
            if (bits >= INFINITE)
                scale = NAN;
            dst->scale[b * src->width + c] = scale;
            (void)make_codes(dst, src, x, b, c, inverse); /* 32 has no pairs */
        }
}

void activate_256__neon(struct activation_tile *dst, const struct activation_source *src)
{
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++) {
            const uint8_t *x = (const uint8_t *)(src->x + c * src->stride + b * BLOCK_256);
            const struct extremes e = extremes_of(x, BLOCK_256);
            const bool is_finite = largest_of(e) < INFINITE;
            float inverse = is_finite ? -127.0f / extreme_of(e, x) : 0;
            if (!(fabsf(inverse) < INFINITY))
                inverse = 0;
            const float scale = inverse != 0 ? 1.0f / inverse : 0;
            dst->scale[b * src->width + c] = is_finite ? scale : NAN;
            int16_t *pairs = dst->pairs + (b * src->width + c) * 8;
            for (size_t i = 0; i < 8; i++)
                pairs[i] = make_codes(dst, src, x + i * BLOCK_32 * 4, b * 8 + i, c, inverse);
        }
}
