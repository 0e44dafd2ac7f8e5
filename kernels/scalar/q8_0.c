#include "kernels/variants.h"

#include <math.h>
#include <string.h>

#include "kernels/scalar/decode.h"

/*
 * Nearest integer, halves away from zero, for |x| < 2^22. The addend is the float below 0.5: with
 * 0.5 itself the sum for x = 0.49999997 would round up to 1; with this one exact halves still do.
 */
static int round_half_away(float x)
{
    return (int)(x + copysignf(0x1.fffffep-2f, x));
}

static void quantize_block(struct block_q8_0 *b, const float x[BLOCK_32])
{
    float largest = 0;
    for (int j = 0; j < BLOCK_32; j++)
        if (fabsf(x[j]) > largest)
            largest = fabsf(x[j]);

    const float d = largest / 127;
    float inverse = 1 / d;
    if (!(inverse < INFINITY)) /* a zero block, or one so small that 1/d overflows: all codes 0 */
        inverse = 0;

    b->d = f16_of_f32(d);
    for (int j = 0; j < BLOCK_32; j++)
        b->q[j] = (int8_t)round_half_away(x[j] * inverse);
}

void quantize_q8_0__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q8_0 *b = dst;
    for (size_t i = 0; i < n_elements / BLOCK_32; i++) {
        float x[BLOCK_32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_block(&b[i], x);
    }
}

static inline void decode_q8_0(float_at *restrict x, const struct block_q8_0 *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < BLOCK_32; j++)
        x[j] = (float)b->q[j] * d;
}
DECODER_SCALAR(q8_0, BLOCK_32)
