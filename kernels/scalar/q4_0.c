#include "kernels/variants.h"

#include <math.h>
#include <string.h>

#include "kernels/scalar/decode.h"
#include "kernels/scalar/ends.h"

enum { HALF = BLOCK_32 / 2 };

/* Code 0..15 of a quotient in -8 .. 8: the extreme has -8 and code 0, its opposite 16 capped to 15. */
static uint8_t code_of(float quotient)
{
    int code = (int)(quotient + 8.5f);
    return (uint8_t)(code > 15 ? 15 : code);
}

static void quantize_block(struct block_q4_0 *b, const float x[BLOCK_32])
{
    const float d = extreme_of(BLOCK_32, x) / -8;
    const float inverse = d != 0 ? 1 / d : 0; /* a zero block has code 8 everywhere, d = -0 */

    b->d = f16_of_f32(d);
    if (isinf(inverse)) { /* |d| <= 2^-128: the field's encoder leaves code 0 */
        memset(b->q, 0, sizeof b->q);
        return;
    }
    for (int j = 0; j < HALF; j++)
        b->q[j] = (uint8_t)(code_of(x[j] * inverse) | code_of(x[j + HALF] * inverse) << 4);
}

void quantize_q4_0__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_0 *b = dst;
    for (size_t i = 0; i < n_elements / BLOCK_32; i++) {
        float x[BLOCK_32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_block(&b[i], x);
    }
}

static inline void decode_q4_0(float_at *restrict x, const struct block_q4_0 *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < HALF; j++)
        x[j] = (float)((b->q[j] & 15) - 8) * d;
    for (int j = 0; j < HALF; j++)
        x[j + HALF] = (float)((b->q[j] >> 4) - 8) * d;
}
DECODER_SCALAR(q4_0, BLOCK_32)
