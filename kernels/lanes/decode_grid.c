/* Decoders of types whose codes are rows of a grid. */
#include "kernels/lanes/decode.h"
#include "kernels/layout/codebooks.h"

/* x = scale * values for 16 elements, negative where @signs has a bit */
static inline void decode_signed(float_at *x, vb values, uint32_t signs, float scale)
{
    const vb negative = vb_of_bits(signs);
    decode_scaled(x, vb_sub(vb_xor(values, negative), negative), vf_set1(scale));
}

static inline void decode_iq2_xxs(float_at *x, const struct block_iq2_xxs *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 8; j++, x += 32) { /* runs of 32 */
        const uint8_t *q = b->q + 8 * j;
        const uint32_t signs = load_u32(q + 4);
        const float scale = d * (0.5f + (float)(signs >> 28)) * 0.25f;
        for (int i = 0; i < 4; i += 2)
            decode_signed(x + 8 * i, vb_of_u64(grid_iq2_xxs[q[i]], grid_iq2_xxs[q[i + 1]]),
                          signs_of_7(signs >> 7 * i) | signs_of_7(signs >> (7 * i + 7)) << 8, scale);
    }
}
DECODER_LANES(iq2_xxs, 256)

static inline void decode_iq2_xs(float_at *x, const struct block_iq2_xs *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 16; j++, x += 16) { /* pairs of rows */
        const uint32_t first = b->q[2 * j], second = b->q[2 * j + 1];
        const float scale = d * (0.5f + (float)(b->scales[j / 2] >> j % 2 * 4 & 15)) * 0.25f;
        decode_signed(x, vb_of_u64(grid_iq2_xs[first & 511], grid_iq2_xs[second & 511]),
                      signs_of_7(first >> 9) | signs_of_7(second >> 9) << 8, scale);
    }
}
DECODER_LANES(iq2_xs, 256)

static inline void decode_iq2_s(float_at *x, const struct block_iq2_s *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 16; j++, x += 16) {
        const float scale = d * (0.5f + (float)(b->scales[j / 2] >> j % 2 * 4 & 15)) * 0.25f;
        const uint32_t high = (uint32_t)b->high[j / 2] >> j % 2 * 4;
        const uint64_t first = grid_iq2_s[b->q[2 * j] | (high & 3) << 8];
        const uint64_t second = grid_iq2_s[b->q[2 * j + 1] | (high >> 2 & 3) << 8];
        decode_signed(x, vb_of_u64(first, second), load_u16(b->signs + 2 * j), scale);
    }
}
DECODER_LANES(iq2_s, 256)

/* Two rows of 4 as one of 8. */
static inline uint64_t joined(uint32_t first, uint32_t second)
{
    return first | (uint64_t)second << 32;
}

static inline void decode_iq3_xxs(float_at *x, const struct block_iq3_xxs *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 8; j++, x += 32) {
        const uint32_t signs = load_u32(b->signs + 4 * j);
        const float scale = d * (0.5f + (float)(signs >> 28)) * 0.5f;
        for (int i = 0; i < 4; i += 2) {
            const uint8_t *q = b->q + 8 * j + 2 * (size_t)i;
            const uint64_t first = joined(grid_iq3_xxs[q[0]], grid_iq3_xxs[q[1]]);
            const uint64_t second = joined(grid_iq3_xxs[q[2]], grid_iq3_xxs[q[3]]);
            decode_signed(x + 8 * i, vb_of_u64(first, second),
                          signs_of_7(signs >> 7 * i) | signs_of_7(signs >> (7 * i + 7)) << 8, scale);
        }
    }
}
DECODER_LANES(iq3_xxs, 256)

static inline void decode_iq3_s(float_at *x, const struct block_iq3_s *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 16; j++, x += 16) { /* two rows of 8 */
        const uint8_t *q = b->q + 4 * j;
        const uint32_t high = (uint32_t)b->high[j / 2] >> j % 2 * 4; /* bit 8 of four indices */
        const float scale = d * (float)(1 + 2 * (b->scales[j / 4] >> j / 2 % 2 * 4 & 15));
        const uint64_t first = joined(grid_iq3_s[q[0] | (high & 1) << 8], grid_iq3_s[q[1] | (high & 2) << 7]);
        const uint64_t second = joined(grid_iq3_s[q[2] | (high & 4) << 6], grid_iq3_s[q[3] | (high & 8) << 5]);
        decode_signed(x, vb_of_u64(first, second), load_u16(b->signs + 2 * j), scale);
    }
}
DECODER_LANES(iq3_s, 256)

/* x = scale * (rows + 1/8), or - 1/8 where @minus has all bits: eight times that, by an eighth of the scale. */
static inline void decode_shifted(float_at *x, vb rows, vb minus, float scale)
{
    const vb shift = vb_or(minus, vb_set1(1));
    const vb eightfold = vb_field(rows, -3, 0xf8);
    decode_scaled(x, vb_add(eightfold, shift), vf_set1(scale * 0.125f));
}

static inline void decode_iq1_s(float_at *x, const struct block_iq1_s *b)
{
    const float d = f32_of_f16(b->d);
    for (size_t j = 0; j < 8; j++, x += 32) {
        const uint32_t high = b->high[j];
        const uint8_t *q = b->q + 4 * j;
        const float scale = d * (float)(2 * (high >> 12 & 7) + 1);
        const vb minus = vb_set1(high >> 15 ? -1 : 0);
        const uint64_t first = grid_iq1[q[0] | (high & 7) << 8], second = grid_iq1[q[1] | (high >> 3 & 7) << 8];
        const uint64_t third = grid_iq1[q[2] | (high >> 6 & 7) << 8], fourth = grid_iq1[q[3] | (high >> 9 & 7) << 8];
        decode_shifted(x, vb_of_u64(first, second), minus, scale);
        decode_shifted(x + 16, vb_of_u64(third, fourth), minus, scale);
    }
}
DECODER_LANES(iq1_s, 256)

static inline void decode_iq1_m(float_at *x, const struct block_iq1_m *b)
{
    const float d = f32_of_f16(scale_of_iq1_m(b));
    for (size_t j = 0; j < 16; j++, x += 16) { /* pairs of rows */
        const uint32_t high = b->high[j];
        const float scale = d * (float)(2 * (b->scales[j / 4] >> j % 4 * 3 & 7) + 1);
        const uint64_t first = grid_iq1[b->q[2 * j] | (high & 7) << 8];
        const uint64_t second = grid_iq1[b->q[2 * j + 1] | (high >> 4 & 7) << 8];
        const vb minus = vb_of_u64(0 - (uint64_t)(high >> 3 & 1), 0 - (uint64_t)(high >> 7));
        decode_shifted(x, vb_of_u64(first, second), minus, scale);
    }
}
DECODER_LANES(iq1_m, 256)
