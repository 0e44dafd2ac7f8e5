/* Decoders of types with one scale for the whole block. (docs/formats/blocks.md) */
#include "kernels/scalar/decode.h"

static inline void decode_q4_1(float_at *restrict x, const struct block_q4_1 *restrict b)
{
    const float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    for (int j = 0; j < 16; j++)
        x[j] = (float)(b->q[j] & 15) * d + m;
    for (int j = 0; j < 16; j++)
        x[j + 16] = (float)(b->q[j] >> 4) * d + m;
}
DECODER_SCALAR(q4_1, 32)

/* Codes of 5 bits: 4 in nibbles, bit 4 of code j in bit j of @high. */
static inline void unpack_5_bits(const uint8_t high[4], const uint8_t q[16], uint8_t codes[32])
{
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 8; j++)
            codes[8 * i + j] = high[i] & 1 << j ? 16 : 0;
    for (int j = 0; j < 16; j++)
        codes[j] |= q[j] & 15;
    for (int j = 0; j < 16; j++)
        codes[j + 16] |= q[j] >> 4;
}

static inline void decode_q5_0(float_at *restrict x, const struct block_q5_0 *restrict b)
{
    const float d = f32_of_f16(b->d);
    uint8_t codes[32];
    unpack_5_bits(b->high, b->q, codes);
    for (int j = 0; j < 32; j++)
        x[j] = (float)(codes[j] - 16) * d;
}
DECODER_SCALAR(q5_0, 32)

static inline void decode_q5_1(float_at *restrict x, const struct block_q5_1 *restrict b)
{
    const float d = f32_of_f16(b->d), m = f32_of_f16(b->m);
    uint8_t codes[32];
    unpack_5_bits(b->high, b->q, codes);
    for (int j = 0; j < 32; j++)
        x[j] = (float)codes[j] * d + m;
}
DECODER_SCALAR(q5_1, 32)

static inline void decode_q1_0(float_at *restrict x, const struct block_q1_0 *restrict b)
{
    const float values[2] = {-f32_of_f16(b->d), f32_of_f16(b->d)};
    for (int j = 0; j < 128; j++)
        x[j] = values[b->q[j / 8] >> j % 8 & 1];
}
DECODER_SCALAR(q1_0, 128)

static inline void decode_q2_0(float_at *restrict x, const struct block_q2_0 *restrict b)
{
    const float d = f32_of_f16(b->d), values[4] = {-1 * d, 0 * d, 1 * d, 2 * d};
    for (int j = 0; j < 64; j++)
        x[j] = values[b->q[j / 4] >> j % 4 * 2 & 3];
}
DECODER_SCALAR(q2_0, 64)

/*
 * A byte of trits is the fraction 0.t1 t2 t3 t4 t5 in base 3, in 256ths, rounded up: times 3^n, less the integer part,
 * it begins with trit n + 1.
 */
static inline void decode_trits(float_at *restrict x, const uint8_t *restrict q, int n_bytes, uint8_t power, float d)
{
    for (int m = 0; m < n_bytes; m++) {
        const uint8_t fraction = (uint8_t)(q[m] * power);
        x[m] = (float)((fraction * 3 >> 8) - 1) * d;
    }
}

static inline void decode_tq1_0(float_at *restrict x, const struct block_tq1_0 *restrict b)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    const float d = f32_of_f16(b->d);
    for (int n = 0; n < 5; n++)
        decode_trits(x + 32 * n, b->q, 32, powers[n], d);
    for (int n = 0; n < 5; n++)
        decode_trits(x + 160 + 16 * n, b->q + 32, 16, powers[n], d);
    for (int n = 0; n < 4; n++)
        decode_trits(x + 240 + 4 * n, b->high, 4, powers[n], d);
}
DECODER_SCALAR(tq1_0, 256)

static inline void decode_tq2_0(float_at *restrict x, const struct block_tq2_0 *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < 32; l++)
            x[32 * k + l] = (float)((b->q[32 * (k / 4) + l] >> k % 4 * 2 & 3) - 1) * d;
}
DECODER_SCALAR(tq2_0, 256)
