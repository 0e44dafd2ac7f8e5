/* tq1_0 and tq2_0. */
#include "kernels/lanes/ternary.h"

#include <math.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"
#include "kernels/variants.h"

enum { BLOCK_BYTES = 256 * 4 };

static inline float largest_of_block(const char *x)
{
    vf largest[4];
    for (size_t i = 0; i < 4; i++)
        largest[i] = vf_abs(vf_load(x + 4 * LANES * i));
    for (size_t j = 4 * LANES; j < 256; j += 4 * LANES)
        for (size_t i = 0; i < 4; i++)
            largest[i] = vf_max(largest[i], vf_abs(vf_load(x + 4 * (j + LANES * i))));
    return vf_largest(vf_max(vf_max(largest[0], largest[1]), vf_max(largest[2], largest[3])));
}

/* 1 / d; 0 where that is infinite. */
static inline float inverse_of(float d)
{
    const float inverse = 1 / d;
    return inverse < INFINITY ? inverse : 0;
}

/* LANES bytes of five elements each, @stride elements apart. */
static inline void encode_five(const char *x, size_t stride, vf inverse, uint8_t *q)
{
    vf levels[5];
    for (size_t n = 0; n < 5; n++)
        levels[n] = ternary_level(vf_load(x + 4 * stride * n), inverse);
    vi_store_bytes(q, ternary_byte(levels));
}

/* The last 16 elements: four bytes of four elements each, the fifth digit is 0. */
static inline void encode_last(const char *x, vf inverse, uint8_t high[4])
{
    float levels[16], numbers[LANES] = {0};
    uint8_t bytes[LANES];
    for (size_t j = 0; j < 16; j += LANES)
        vf_store(levels + j, ternary_level(vf_load(x + 4 * j), inverse));
    for (size_t m = 0; m < 4; m++)
        numbers[m] = (levels[m] * 27 + levels[m + 4] * 9) + (levels[m + 8] * 3 + levels[m + 12]);
    const vf none = vf_set1(0), five[5] = {none, none, none, vf_load(numbers), vf_set1(-1)};
    vi_store_bytes(bytes, ternary_byte(five));
    memcpy(high, bytes, 4);
}

void VARIANT(quantize_tq1_0)(void *dst, const float *src, size_t n_elements)
{
    struct block_tq1_0 *b = dst;
    const char *x = (const char *)src;
    for (size_t n = n_elements / 256; n > 0; n--, b++, x += BLOCK_BYTES) {
        const float d = largest_of_block(x);
        const vf inverse = vf_set1(inverse_of(d));
        for (size_t m = 0; m < 32; m += LANES)
            encode_five(x + 4 * m, 32, inverse, b->q + m);
        for (size_t m = 0; m < 16; m += LANES)
            encode_five(x + 4 * (160 + m), 16, inverse, b->q + 32 + m);
        encode_last(x + 4 * 240, inverse, b->high);
        b->d = f16_of_f32(d);
    }
}

void VARIANT(quantize_tq2_0)(void *dst, const float *src, size_t n_elements)
{
    struct block_tq2_0 *b = dst;
    const char *x = (const char *)src;
    for (size_t n = n_elements / 256; n > 0; n--, b++, x += BLOCK_BYTES) {
        const float d = largest_of_block(x);
        const vf inverse = vf_set1(inverse_of(d));
        for (size_t at = 0; at < 64; at += LANES) {
            const char *first = x + 4 * (128 * (at / 32) + at % 32);
            vf number = vf_set1(0);
            for (size_t k = 4; k > 0; k--)
                number = vf_add(vf_mul(number, vf_set1(4)), ternary_level(vf_load(first + 4 * 32 * (k - 1)), inverse));
            vi_store_bytes(b->q + at, vi_trunc(vf_add(number, vf_set1(85)))); /* digit = level + 1 */
        }
        b->d = f16_of_f32(d);
    }
}
