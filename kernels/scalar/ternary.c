/* tq1_0 and tq2_0: a super-block of 256 elements in multiples -1, 0, 1 of its largest magnitude. */
#include <math.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/ends.h"
#include "kernels/variants.h"

/* Digits 0, 1, 2 of 256 elements, halves away from zero. Returns the scale as stored. */
static uint16_t digits_of(const float x[256], uint8_t digits[256])
{
    const float d = largest_of(256, x), quotient = 1 / d;
    const float inverse = quotient < INFINITY ? quotient : 0; /* zeros, or too small: digit 1 */
    for (int j = 0; j < 256; j++) {
        const float level = x[j] * inverse;
        digits[j] = (uint8_t)(1 + (level >= 0.5f) - (level <= -0.5f));
    }
    return f16_of_f32(d);
}

/* Five digits, @stride apart, the first one highest, as a fraction of 243 in 256ths, rounded up. */
static uint8_t byte_of_five(const uint8_t *digits, int stride)
{
    int number = 0;
    for (int n = 0; n < 5; n++)
        number = 3 * number + digits[n * stride];
    return (uint8_t)((number * 256 + 242) / 243);
}

static void quantize_tq1(struct block_tq1_0 *b, const float x[256])
{
    uint8_t digits[256 + 4] = {0}; /* the last four bytes have no fifth digit */
    b->d = digits_of(x, digits);
    for (int m = 0; m < 32; m++)
        b->q[m] = byte_of_five(digits + m, 32);
    for (int m = 0; m < 16; m++)
        b->q[32 + m] = byte_of_five(digits + 160 + m, 16);
    for (int m = 0; m < 4; m++)
        b->high[m] = byte_of_five(digits + 240 + m, 4);
}

static void quantize_tq2(struct block_tq2_0 *b, const float x[256])
{
    uint8_t digits[256];
    b->d = digits_of(x, digits);
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *at = digits + 128 * h + l;
            b->q[32 * h + l] = (uint8_t)(at[0] | at[32] << 2 | at[64] << 4 | at[96] << 6);
        }
}

void quantize_tq1_0__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_tq1_0 *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_tq1(&b[i], x);
    }
}

void quantize_tq2_0__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_tq2_0 *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_tq2(&b[i], x);
    }
}
