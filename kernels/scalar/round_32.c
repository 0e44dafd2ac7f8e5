/* q4_1, q5_0 and q5_1 without importance: 32 elements rounded in even steps between their ends. */
#include <math.h>
#include <string.h>

#include "kernels/layout/pack.h"
#include "kernels/scalar/ends.h"
#include "kernels/variants.h"

/* 1 / d; 0 where that is infinite: the field's encoder then leaves code 0, and so do 0 * x + 0.5 and its like. */
static float inverse_of(float d)
{
    const float inverse = 1 / d;
    return fabsf(inverse) < INFINITY ? inverse : 0;
}

/* codes[j] = trunc((x[j] - low) * inverse + bias), at most @n_max. NaN (an infinite range) gives 0. */
static void codes_of(const float x[32], float low, float inverse, float bias, int n_max, uint8_t codes[32])
{
    for (int j = 0; j < 32; j++) {
        const float level = (x[j] - low) * inverse + bias;
        const int code = (int)(level >= 1 ? level : 0);
        codes[j] = (uint8_t)(code < n_max ? code : n_max);
    }
}

void quantize_q4_1__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_1 *b = dst;
    for (size_t i = 0; i < n_elements / 32; i++, b++) {
        float x[32];
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        const struct ends e = ends_of(32, x);
        const float d = fabsf(e.highest - e.lowest) / 15;
        codes_of(x, e.lowest, inverse_of(d), 0.5f, 15, codes);
        b->d = f16_of_f32(d);
        b->m = f16_of_f32(e.lowest);
        pack_nibbles_32(b->q, codes);
    }
}

void quantize_q5_0__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q5_0 *b = dst;
    for (size_t i = 0; i < n_elements / 32; i++, b++) {
        float x[32];
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        const float d = extreme_of(32, x) / -16, inverse = inverse_of(d);
        const float bias = d != 0 && inverse == 0 ? 0.5f : 16.5f; /* an infinite inverse: code 0 */
        codes_of(x, 0, inverse, bias, 31, codes);
        b->d = f16_of_f32(d);
        pack_nibbles_32(b->q, codes);
        pack_fifth_bits_32(b->high, codes);
    }
}

void quantize_q5_1__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q5_1 *b = dst;
    for (size_t i = 0; i < n_elements / 32; i++, b++) {
        float x[32];
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        const struct ends e = ends_of(32, x);
        const float d = fabsf(e.highest - e.lowest) / 31;
        codes_of(x, e.lowest, inverse_of(d), 0.5f, 31, codes);
        b->d = f16_of_f32(d);
        b->m = f16_of_f32(e.lowest);
        pack_nibbles_32(b->q, codes);
        pack_fifth_bits_32(b->high, codes);
    }
}
