/*
 * q6_k and q3_k behind the search: what a super-block makes of the scales of its 16 sub-blocks of 16. One piece of code
 * for all variants. (docs/formats/blocks.md, "q6_k", "q3_k")
 */
#ifndef QUANTD_KERNELS_SYMMETRIC_H
#define QUANTD_KERNELS_SYMMETRIC_H

#include "kernels/layout/pack.h"
#include "kernels/scalar/half.h"
#include "kernels/scalar/search.h"

/*
 * The scale of largest magnitude with its sign: the first of equals; NaN is passed over. 0 where none is larger. By the
 * bits, which compilers turn into vector code: integers may be compared in any order.
 */
static inline float extreme_of_16(const float scales[16])
{
    int32_t magnitude[16], largest = 0, first = 15;
    for (int32_t j = 0; j < 16; j++) {
        const int32_t bits = (int32_t)(f32_bits(scales[j]) & 0x7fffffff);
        magnitude[j] = bits > 0x7f800000 ? 0 : bits;
        largest = magnitude[j] > largest ? magnitude[j] : largest;
    }
    for (int32_t j = 0; j < 16; j++) {
        const int32_t at = magnitude[j] == largest ? j : 15;
        first = at < first ? at : first;
    }
    return largest ? scales[first] : 0;
}

/*
 * A scale that sums beyond f32 made NaN is stored as the field's x86-64 stores it, with the sign bit: other CPUs' NaN
 * has none.
 */
static inline uint16_t f16_of_scale(float scale)
{
    return scale == scale ? f16_of_f32(scale) : 0xfe00;
}

/* --- q6_k: the extreme scale has code -128 --- */

struct k6_head {
    uint16_t d;
    int8_t scales[16];
    float steps[16]; /* x ~ step * (code - 32); a step of 0: the search's codes stand */
    bool zero;       /* a super-block of zeros: all its bytes are 0 */
};

static inline void k6_head_of(const float scales[16], struct k6_head *ret)
{
    const float extreme = extreme_of_16(scales);
    ret->zero = f32_of_bits(f32_bits(extreme) & 0x7fffffff) < 1e-15f;
    if (ret->zero)
        return;
    const float inverse = -128.0f / extreme;
    ret->d = f16_of_f32(1 / inverse);
    const float d = f32_of_f16(ret->d);
    for (int j = 0; j < 16; j++) {
        const int code = nearest_int(inverse * scales[j]);
        ret->scales[j] = (int8_t)(code < 127 ? code : 127);
        ret->steps[j] = d * ret->scales[j];
    }
}

/* --- q3_k: the extreme scale has code 0, or 0 and others, by least squares --- */

struct k3_head {
    uint16_t d;
    uint8_t scales[16]; /* codes 0..63 of scales, 32 more than their factor */
    float steps[16];    /* x ~ step * (code - 4); a step of 0: the search's codes stand */
};

static inline void k3_steps(struct k3_head *head)
{
    const float d = f32_of_f16(head->d);
    for (int j = 0; j < 16; j++)
        head->steps[j] = d * (float)(head->scales[j] - 32);
}

/* Without importance. */
static inline void k3_head_of(const float scales[16], struct k3_head *ret)
{
    const float extreme = extreme_of_16(scales), inverse = -32.0f / extreme;
    memset(ret, 0, sizeof *ret);
    if (extreme == 0)
        return;
    for (int j = 0; j < 16; j++)
        ret->scales[j] = (uint8_t)(clamp_int((int8_t)nearest_int(inverse * scales[j]), -32, 31) + 32);
    ret->d = f16_of_f32(1 / inverse);
    k3_steps(ret);
}

static inline void k3_store(struct block_q3_k *b, const struct k3_head *head, const uint8_t codes[256])
{
    pack_bits_256(b->high, codes, 2);
    pack_pairs_256(b->q, codes);
    pack_scales_k3(b->scales, head->scales);
    b->d = head->d;
}

#endif
