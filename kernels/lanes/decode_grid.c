/*
 * Decoders of types whose codes are rows of a grid. All of their steps are odd multiples of a fraction of d, exactly: d
 * has 11 bits, and a subnormal f16 is far from being one in f32.
 */
#include "kernels/lanes/decode.h"
#include "kernels/layout/codebooks.h"

static inline float odd_step(uint32_t scale, float d)
{
    return (float)(int32_t)(2 * scale + 1) * d;
}

static inline void odd_steps(vb scales, float d, float ret[16])
{
    steps_of(vb_or(vb_add(scales, scales), vb_set1(1)), vf_set1(d), ret);
}

/* The nibbles of 8 bytes, in order. */
static inline vb nibbles_of(uint64_t bytes)
{
    const uint64_t mask = UINT64_C(0x0f0f0f0f0f0f0f0f);
    return vb_look_up(vb_of_u64(bytes & mask, bytes >> 4 & mask), vb_of_u64(0x0b030a0209010800, 0x0f070e060d050c04));
}

/* signs_of_7 for 4 times 7 bits, a byte each. */
static inline uint32_t signs_of_28(uint32_t stored)
{
    const uint32_t low = (stored & 0x7f) | (stored & 0x3f80) << 1;
    const uint32_t signs = low | (stored & 0x1fc000) << 2 | (stored & 0xfe00000) << 3;
    uint32_t odd = signs ^ signs >> 4; /* bit 0 of each byte becomes its parity */
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return signs | (odd & 0x01010101) << 7;
}

/* x = step * values for 16 elements, negative where @signs has a bit */
static inline void decode_signed(float_at *x, vb values, uint32_t signs, vf step)
{
    const vb negative = vb_of_bits(signs);
    decode_scaled(x, vb_sub(vb_xor(values, negative), negative), step);
}

static inline void decode_iq2_xxs(float_at *x, const struct block_iq2_xxs *b)
{
    const float d = f32_of_f16(b->d) * 0.125f;
    for (size_t j = 0; j < 8; j++, x += 32) { /* runs of 32 */
        const uint8_t *q = b->q + 8 * j;
        const uint32_t word = load_u32(q + 4), signs = signs_of_28(word);
        const vf step = vf_set1(odd_step(word >> 28, d));
        decode_signed(x, vb_of_u64(grid_iq2_xxs[q[0]], grid_iq2_xxs[q[1]]), signs & 0xffff, step);
        decode_signed(x + 16, vb_of_u64(grid_iq2_xxs[q[2]], grid_iq2_xxs[q[3]]), signs >> 16, step);
    }
}
DECODER_LANES(iq2_xxs, 256)

static inline void decode_iq2_xs(float_at *x, const struct block_iq2_xs *b)
{
    float steps[16];
    odd_steps(nibbles_of(load_u64(b->scales)), f32_of_f16(b->d) * 0.125f, steps);
    for (size_t j = 0; j < 16; j++, x += 16) { /* pairs of rows */
        const uint32_t first = b->q[2 * j], second = b->q[2 * j + 1];
        decode_signed(x, vb_of_u64(grid_iq2_xs[first & 511], grid_iq2_xs[second & 511]),
                      signs_of_7(first >> 9) | signs_of_7(second >> 9) << 8, vf_set1(steps[j]));
    }
}
DECODER_LANES(iq2_xs, 256)

static inline void decode_iq2_s(float_at *x, const struct block_iq2_s *b)
{
    float steps[16];
    odd_steps(nibbles_of(load_u64(b->scales)), f32_of_f16(b->d) * 0.125f, steps);
    for (size_t j = 0; j < 16; j++, x += 16) {
        const uint32_t high = (uint32_t)b->high[j / 2] >> j % 2 * 4;
        const uint64_t first = grid_iq2_s[b->q[2 * j] | (high & 3) << 8];
        const uint64_t second = grid_iq2_s[b->q[2 * j + 1] | (high & 12) << 6];
        decode_signed(x, vb_of_u64(first, second), load_u16(b->signs + 2 * j), vf_set1(steps[j]));
    }
}
DECODER_LANES(iq2_s, 256)

/* Two rows of 4 as one of 8. */
static inline uint64_t joined(uint32_t first, uint32_t second)
{
    return first | (uint64_t)second << 32;
}

/* Four rows of 4. */
static inline vb four_rows(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return vb_of_u64(joined(a, b), joined(c, d));
}

static inline void decode_iq3_xxs(float_at *x, const struct block_iq3_xxs *b)
{
    const uint32_t *grid = grid_iq3_xxs;
    const float d = f32_of_f16(b->d) * 0.25f;
    for (size_t j = 0; j < 8; j++, x += 32) {
        const uint8_t *q = b->q + 8 * j;
        const uint32_t word = load_u32(b->signs + 4 * j), signs = signs_of_28(word);
        const vf step = vf_set1(odd_step(word >> 28, d));
        decode_signed(x, four_rows(grid[q[0]], grid[q[1]], grid[q[2]], grid[q[3]]), signs & 0xffff, step);
        decode_signed(x + 16, four_rows(grid[q[4]], grid[q[5]], grid[q[6]], grid[q[7]]), signs >> 16, step);
    }
}
DECODER_LANES(iq3_xxs, 256)

/* Rows of the indices with bit 8 in @high, of four. */
static inline vb rows_of_iq3_s(const uint8_t *q, uint32_t high)
{
    const uint32_t *grid = grid_iq3_s;
    return four_rows(grid[q[0] | (high & 1) << 8], grid[q[1] | (high & 2) << 7], grid[q[2] | (high & 4) << 6],
                     grid[q[3] | (high & 8) << 5]);
}

static inline void decode_iq3_s(float_at *x, const struct block_iq3_s *b)
{
    float steps[16];
    odd_steps(nibbles_of(load_u32(b->scales)), f32_of_f16(b->d), steps);
    for (size_t j = 0; j < 8; j++, x += 32) {
        const uint8_t *q = b->q + 8 * j;
        const uint32_t high = b->high[j];
        const vf step = vf_set1(steps[j]);
        decode_signed(x, rows_of_iq3_s(q, high), load_u16(b->signs + 4 * j), step);
        decode_signed(x + 16, rows_of_iq3_s(q + 4, high >> 4), load_u16(b->signs + 4 * j + 2), step);
    }
}
DECODER_LANES(iq3_s, 256)

/* x = 8 * step * (rows + 1/8), or - 1/8 where @minus has all bits */
static inline void decode_shifted(float_at *x, vb rows, vb minus, vf step)
{
    const vb eightfold = vb_field(rows, -3, 0xf8), shift = vb_or(minus, vb_set1(1));
    decode_scaled(x, vb_add(eightfold, shift), step);
}

static inline void decode_iq1_s(float_at *x, const struct block_iq1_s *b)
{
    const float d = f32_of_f16(b->d) * 0.125f;
    for (size_t j = 0; j < 8; j++, x += 32) {
        const uint32_t high = b->high[j];
        const uint8_t *q = b->q + 4 * j;
        const vf step = vf_set1(odd_step(high >> 12 & 7, d));
        const vb minus = vb_set1(high >> 15 ? -1 : 0);
        const uint64_t first = grid_iq1[q[0] | (high & 7) << 8], second = grid_iq1[q[1] | (high >> 3 & 7) << 8];
        const uint64_t third = grid_iq1[q[2] | (high >> 6 & 7) << 8], fourth = grid_iq1[q[3] | (high >> 9 & 7) << 8];
        decode_shifted(x, vb_of_u64(first, second), minus, step);
        decode_shifted(x + 16, vb_of_u64(third, fourth), minus, step);
    }
}
DECODER_LANES(iq1_s, 256)

/* Four scales of 3 bits, a byte each. */
static inline uint32_t spread_threes(uint32_t word)
{
    return (word & 7) | (word & 0x38) << 5 | (word & 0x1c0) << 10 | (word & 0xe00) << 15;
}

static inline void decode_iq1_m(float_at *x, const struct block_iq1_m *b)
{
    float steps[16];
    const vb scales = four_rows(spread_threes(b->scales[0]), spread_threes(b->scales[1]), spread_threes(b->scales[2]),
                                spread_threes(b->scales[3]));
    odd_steps(scales, f32_of_f16(scale_of_iq1_m(b)) * 0.125f, steps);
    for (size_t j = 0; j < 16; j++, x += 16) { /* pairs of rows */
        const uint32_t high = b->high[j];
        const uint64_t first = grid_iq1[b->q[2 * j] | (high & 7) << 8];
        const uint64_t second = grid_iq1[b->q[2 * j + 1] | (high & 0x70) << 4];
        const vb minus = vb_of_u64(0 - (uint64_t)(high >> 3 & 1), 0 - (uint64_t)(high >> 7));
        decode_shifted(x, vb_of_u64(first, second), minus, vf_set1(steps[j]));
    }
}
DECODER_LANES(iq1_m, 256)
