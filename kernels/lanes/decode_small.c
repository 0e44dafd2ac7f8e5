/* Decoders of types with one scale for the whole block, and of nibbles into a table. */
#include "kernels/lanes/decode.h"
#include "kernels/layout/codebooks.h"

static inline void decode_q4_1(float_at *x, const struct block_q4_1 *b)
{
    const vf d = vf_set1_f16(b->d), m = vf_set1_f16(b->m);
    const vb q = vb_load(b->q);
    decode_affine(x, vb_field(q, 0, 15), d, m);
    decode_affine(x + 16, vb_field(q, 4, 15), d, m);
}
DECODER_LANES(q4_1, 32)

/* Bit 4 of 16 codes. */
static inline vb fifth_bits(uint32_t high)
{
    return vb_and(vb_of_bits(high & 0xffff), vb_set1(16));
}

static inline void decode_q5_0(float_at *x, const struct block_q5_0 *b)
{
    const vf d = vf_set1_f16(b->d);
    const vb q = vb_load(b->q), zero = vb_set1(16);
    const uint32_t high = load_u32(b->high);
    decode_scaled(x, vb_sub(vb_or(vb_field(q, 0, 15), fifth_bits(high)), zero), d);
    decode_scaled(x + 16, vb_sub(vb_or(vb_field(q, 4, 15), fifth_bits(high >> 16)), zero), d);
}
DECODER_LANES(q5_0, 32)

static inline void decode_q5_1(float_at *x, const struct block_q5_1 *b)
{
    const vf d = vf_set1_f16(b->d), m = vf_set1_f16(b->m);
    const vb q = vb_load(b->q);
    const uint32_t high = load_u32(b->high);
    decode_affine(x, vb_or(vb_field(q, 0, 15), fifth_bits(high)), d, m);
    decode_affine(x + 16, vb_or(vb_field(q, 4, 15), fifth_bits(high >> 16)), d, m);
}
DECODER_LANES(q5_1, 32)

/* 1 where the bit is set, else -1 */
static inline void decode_q1_0(float_at *x, const struct block_q1_0 *b)
{
    const vf d = vf_set1_f16(b->d);
    UNROLLED
    for (size_t i = 0; i < 8; i++)
        decode_scaled(x + 16 * i, vb_sub(vb_and(vb_of_bits(load_u16(b->q + 2 * i)), vb_set1(2)), vb_set1(1)), d);
}
DECODER_LANES(q1_0, 128)

/* 16 codes of 2 bits, four consecutive ones in a byte: each place of all four bytes in a word, then transposed. */
static inline vb codes_of_2_bits(uint32_t q)
{
    const uint64_t mask = UINT64_C(0x0303030303030303), two = q | (uint64_t)q >> 2 << 32;
    const vb by_place = vb_of_u64(two & mask, two >> 4 & mask);
    return vb_look_up(by_place, vb_of_u64(0x0d0905010c080400, 0x0f0b07030e0a0602));
}

static inline void decode_q2_0(float_at *x, const struct block_q2_0 *b)
{
    const vf d = vf_set1_f16(b->d);
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        decode_scaled(x + 16 * i, vb_sub(codes_of_2_bits(load_u32(b->q + 4 * i)), vb_set1(1)), d);
}
DECODER_LANES(q2_0, 64)

/* The first trit of each fraction, less 1: fraction * 3 reaches 256 from 86 on, and 512 from 171 on. */
static inline vb first_trits(vb fractions)
{
    const vb ones = vb_ge(fractions, vb_set1(86)), twos = vb_ge(fractions, vb_set1(171));
    return vb_sub(vb_sub(vb_set1(-1), ones), twos); /* a mask is -1 */
}

/* Trits of 16 bytes: @n in each, the first of all bytes, then the second .. @stride apart. */
static inline void decode_trits(float_at *x, vb q, size_t n, size_t stride, vf d)
{
    UNROLLED
    for (size_t i = 0; i < n; i++, q = vb_add(q, vb_add(q, q)))
        decode_scaled(x + i * stride, first_trits(q), d);
}

static inline void decode_tq1_0(float_at *x, const struct block_tq1_0 *b)
{
    const vf d = vf_set1_f16(b->d);
    uint8_t last[16];
    for (size_t j = 0; j < 4; j++) {
        last[j] = b->high[j];
        last[j + 4] = (uint8_t)(b->high[j] * 3);
        last[j + 8] = (uint8_t)(b->high[j] * 9);
        last[j + 12] = (uint8_t)(b->high[j] * 27);
    }
    decode_trits(x, vb_load(b->q), 5, 32, d);
    decode_trits(x + 16, vb_load(b->q + 16), 5, 32, d);
    decode_trits(x + 160, vb_load(b->q + 32), 5, 16, d);
    decode_trits(x + 240, vb_load(last), 1, 16, d);
}
DECODER_LANES(tq1_0, 256)

static inline void decode_tq2_0(float_at *x, const struct block_tq2_0 *b)
{
    const vf d = vf_set1_f16(b->d);
    for (size_t r = 0; r < 4; r++) { /* 16 bytes: four runs, 32 elements apart */
        const vb q = vb_load(b->q + 16 * r);
        float_at *to = x + 128 * (r / 2) + 16 * (r % 2);
        UNROLLED
        for (int k = 0; k < 4; k++)
            decode_scaled(to + 32 * k, vb_sub(vb_field(q, 2 * k, 3), vb_set1(1)), d);
    }
}
DECODER_LANES(tq2_0, 256)
