/* Decoders of types whose codes are rows of a grid. (docs/formats/blocks.md, "iq2 and iq3", "iq1") */
#include "kernels/layout/codebooks.h"
#include "kernels/scalar/decode.h"

/* x = scale * row for 8 elements, negative where @signs has a bit */
static inline void decode_row(float_at *restrict x, uint64_t row, unsigned signs, float scale)
{
    uint8_t values[8];
    memcpy(values, &row, sizeof values);
    for (int j = 0; j < 8; j++) {
        const uint32_t sign = signs & 1u << j ? 0x80000000 : 0;
        x[j] = f32_of_bits(f32_bits(scale * (float)values[j]) ^ sign);
    }
}

static inline void decode_iq2_xxs(float_at *restrict x, const struct block_iq2_xxs *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 8; j++) { /* runs of 32 */
        const uint8_t *q = b->q + 8 * j;
        const uint32_t signs = load_u32(q + 4);
        const float scale = d * (0.5f + (float)(signs >> 28)) * 0.25f;
        for (int l = 0; l < 4; l++)
            decode_row(x + 32 * j + 8 * l, grid_iq2_xxs[q[l]], signs_of_7(signs >> 7 * l), scale);
    }
}
DECODER_SCALAR(iq2_xxs, 256)

static inline void decode_iq2_xs(float_at *restrict x, const struct block_iq2_xs *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 32; j++) { /* rows of 8 */
        const float scale = d * (0.5f + (float)(b->scales[j / 4] >> j % 4 / 2 * 4 & 15)) * 0.25f;
        decode_row(x + 8 * j, grid_iq2_xs[b->q[j] & 511], signs_of_7(b->q[j] >> 9), scale);
    }
}
DECODER_SCALAR(iq2_xs, 256)

static inline void decode_iq2_s(float_at *restrict x, const struct block_iq2_s *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 32; j++) {
        const float scale = d * (0.5f + (float)(b->scales[j / 4] >> j % 4 / 2 * 4 & 15)) * 0.25f;
        const unsigned high = b->high[j / 4] >> j % 4 * 2 & 3;
        decode_row(x + 8 * j, grid_iq2_s[b->q[j] | high << 8], b->signs[j], scale);
    }
}
DECODER_SCALAR(iq2_s, 256)

/* Two rows of 4 as one of 8. */
static inline uint64_t joined(uint32_t first, uint32_t second)
{
    return first | (uint64_t)second << 32;
}

static inline void decode_iq3_xxs(float_at *restrict x, const struct block_iq3_xxs *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b->q + 8 * j;
        const uint32_t signs = load_u32(b->signs + 4 * j);
        const float scale = d * (0.5f + (float)(signs >> 28)) * 0.5f;
        for (int l = 0; l < 4; l++)
            decode_row(x + 32 * j + 8 * l, joined(grid_iq3_xxs[q[2 * l]], grid_iq3_xxs[q[2 * l + 1]]),
                       signs_of_7(signs >> 7 * l), scale);
    }
}
DECODER_SCALAR(iq3_xxs, 256)

static inline void decode_iq3_s(float_at *restrict x, const struct block_iq3_s *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 32; j++) {
        const float scale = d * (float)(1 + 2 * (b->scales[j / 8] >> j / 4 % 2 * 4 & 15));
        const unsigned high = (unsigned)b->high[j / 4] >> j % 4 * 2; /* bit 8 of two indices */
        const uint32_t first = grid_iq3_s[b->q[2 * j] | (high & 1) << 8];
        const uint32_t second = grid_iq3_s[b->q[2 * j + 1] | (high & 2) << 7];
        decode_row(x + 8 * j, joined(first, second), b->signs[j], scale);
    }
}
DECODER_SCALAR(iq3_s, 256)

/* 1/8, or -1/8 where the bit is set */
static inline float shift_of(unsigned bit)
{
    static const float shifts[2] = {0.125f, -0.125f};
    return shifts[bit];
}

/* x = scale * (row + shift) */
static inline void decode_shifted(float_at *restrict x, uint64_t row, float shift, float scale)
{
    int8_t values[8];
    memcpy(values, &row, sizeof values);
    for (int j = 0; j < 8; j++)
        x[j] = scale * ((float)values[j] + shift);
}

static inline void decode_iq1_s(float_at *restrict x, const struct block_iq1_s *restrict b)
{
    const float d = f32_of_f16(b->d);
    for (int j = 0; j < 8; j++) {
        const unsigned high = b->high[j];
        const float scale = d * (float)(2 * (high >> 12 & 7) + 1), shift = shift_of(high >> 15);
        for (int l = 0; l < 4; l++)
            decode_shifted(x + 32 * j + 8 * l, grid_iq1[b->q[4 * j + l] | (high >> 3 * l & 7) << 8], shift, scale);
    }
}
DECODER_SCALAR(iq1_s, 256)

static inline void decode_iq1_m(float_at *restrict x, const struct block_iq1_m *restrict b)
{
    const float d = f32_of_f16(scale_of_iq1_m(b));
    for (int w = 0; w < 4; w++) /* words of four scales, each for a pair of rows */
        for (int k = 0; k < 4; k++) {
            const int j = 4 * w + k;
            const unsigned high = b->high[j];
            const float scale = d * (float)(2 * (b->scales[w] >> 3 * k & 7) + 1);
            decode_shifted(x + 16 * j, grid_iq1[b->q[2 * j] | (high & 7) << 8], shift_of(high >> 3 & 1), scale);
            decode_shifted(x + 16 * j + 8, grid_iq1[b->q[2 * j + 1] | (high >> 4 & 7) << 8], shift_of(high >> 7),
                           scale);
        }
}
DECODER_SCALAR(iq1_m, 256)
