/* Decoders of the K types: super-blocks of 256. (docs/formats/blocks.md) */
#include "kernels/layout/pack.h"
#include "kernels/scalar/decode.h"

static inline void decode_q2_k(float_at *restrict x, const struct block_q2_k *restrict b)
{
    const float d = f32_of_f16(b->d), dmin = f32_of_f16(b->dmin);
    for (int j = 0; j < 16; j++) { /* sub-blocks of 16 */
        const float step = d * (float)(b->scales[j] & 15), low = dmin * (float)(b->scales[j] >> 4);
        const uint8_t *q = b->q + 32 * (j / 8) + 16 * (j % 2);
        const int shift = j / 2 % 4 * 2;
        for (int l = 0; l < 16; l++)
            x[16 * j + l] = step * (float)(q[l] >> shift & 3) - low;
    }
}
DECODER_SCALAR(q2_k, 256)

static inline void decode_q3_k(float_at *restrict x, const struct block_q3_k *restrict b)
{
    const float d = f32_of_f16(b->d);
    uint64_t packed[2];
    uint8_t scales[16];
    unpack_scales_q3(b->scales, packed);
    memcpy(scales, packed, sizeof scales);
    for (int j = 0; j < 16; j++) {
        const float step = d * (float)(scales[j] - 32);
        const uint8_t *q = b->q + 32 * (j / 8) + 16 * (j % 2), *high = b->high + 16 * (j % 2);
        for (int l = 0; l < 16; l++)
            x[16 * j + l] = step * (float)((q[l] >> j / 2 % 4 * 2 & 3) + (high[l] >> j / 2 & 1) * 4 - 4);
    }
}
DECODER_SCALAR(q3_k, 256)

/* The steps and minima of 8 sub-blocks of 32: x = step * code - low */
struct k4_steps {
    float steps[8], lows[8];
};

static inline void unpack_steps_k4(uint16_t d, uint16_t dmin, const uint8_t packed[12], struct k4_steps *ret)
{
    uint8_t scales[8], mins[8];
    unpack_scales_k4(packed, scales, mins);
    for (int j = 0; j < 8; j++) {
        ret->steps[j] = f32_of_f16(d) * scales[j];
        ret->lows[j] = f32_of_f16(dmin) * mins[j];
    }
}

static inline void decode_q4_k(float_at *restrict x, const struct block_q4_k *restrict b)
{
    struct k4_steps s;
    unpack_steps_k4(b->d, b->dmin, b->scales, &s);
    for (int p = 0; p < 4; p++) { /* pairs of sub-blocks: low and high nibbles */
        for (int l = 0; l < 32; l++)
            x[64 * p + l] = s.steps[2 * p] * (float)(b->q[32 * p + l] & 15) - s.lows[2 * p];
        for (int l = 0; l < 32; l++)
            x[64 * p + 32 + l] = s.steps[2 * p + 1] * (float)(b->q[32 * p + l] >> 4) - s.lows[2 * p + 1];
    }
}
DECODER_SCALAR(q4_k, 256)

static inline void decode_q5_k(float_at *restrict x, const struct block_q5_k *restrict b)
{
    struct k4_steps s;
    unpack_steps_k4(b->d, b->dmin, b->scales, &s);
    for (int p = 0; p < 4; p++) {
        const uint8_t *q = b->q + 32 * p, bit = (uint8_t)(1 << 2 * p), next_bit = (uint8_t)(2 << 2 * p);
        for (int l = 0; l < 32; l++)
            x[64 * p + l] = s.steps[2 * p] * (float)((q[l] & 15) + (b->high[l] & bit ? 16 : 0)) - s.lows[2 * p];
        for (int l = 0; l < 32; l++)
            x[64 * p + 32 + l] =
                s.steps[2 * p + 1] * (float)((q[l] >> 4) + (b->high[l] & next_bit ? 16 : 0)) - s.lows[2 * p + 1];
    }
}
DECODER_SCALAR(q5_k, 256)

static inline void decode_q6_k(float_at *restrict x, const struct block_q6_k *restrict b)
{
    const float d = f32_of_f16(b->d);
    float steps[16];
    for (int j = 0; j < 16; j++)
        steps[j] = d * b->scales[j];
    for (int r = 0; r < 4; r++) { /* runs of 16: bytes of upper bits, each shared by four elements 32 apart */
        const uint8_t *low = b->low + 64 * (r / 2) + 16 * (r % 2), *high = b->high + 16 * r;
        const float *s = steps + 8 * (r / 2) + r % 2;
        float_at *to = x + 128 * (r / 2) + 16 * (r % 2);
        for (int l = 0; l < 16; l++) {
            to[l] = s[0] * (float)((low[l] & 15) + (high[l] & 3) * 16 - 32);
            to[l + 32] = s[2] * (float)((low[l + 32] & 15) + (high[l] >> 2 & 3) * 16 - 32);
            to[l + 64] = s[4] * (float)((low[l] >> 4) + (high[l] >> 4 & 3) * 16 - 32);
            to[l + 96] = s[6] * (float)((low[l + 32] >> 4) + (high[l] >> 6) * 16 - 32);
        }
    }
}
DECODER_SCALAR(q6_k, 256)
