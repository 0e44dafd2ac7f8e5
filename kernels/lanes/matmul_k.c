/*
 * Strips of types with blocks of 256: sums of integers times the scales of their sub-blocks become a sum of the block,
 * which both block scales put on top of the column's sum.
 */
#include "kernels/lanes/strip.h"

INLINE void sums_zero(vf *t, size_t width)
{
    EACH_COLUMN(c)
    t[c] = vf_set1(0);
}

/* acc = fma(t, d * xs, acc) */
INLINE void sums_add_block(vf *acc, const vf *t, vf d, const float *scale, size_t width)
{
    EACH_COLUMN(c)
    acc[c] = vf_fma(t[c], vf_mul(d, vf_set1(scale[c])), acc[c]);
}

/* --- q4_k, q5_k --- */

/* Scales and minima of 8 sub-blocks, from 12 bytes of each row (kernels/layout/pack.h, unpack_scales_k4). */
struct scales_k4 {
    vf scale[8];
    vi min[4]; /* two of 16 bits */
};

INLINE void scales_k4_load(struct scales_k4 *k, const uint8_t *p)
{
    const vi a = vi_load(p), b = vi_load(p + STEP_BYTES), c = vi_load(p + 2 * STEP_BYTES);
    uint8_t scales[2 * STEP_BYTES], mins[2 * STEP_BYTES];
    vi_store(scales, vi_and(a, bytes_set1(63)));
    vi_store(mins, vi_and(b, bytes_set1(63)));
    vi_store(scales + STEP_BYTES, vi_or(low_nibbles(c), vi_and(vi_shift_right(a, 2), bytes_set1(0x30))));
    vi_store(mins + STEP_BYTES, vi_or(high_nibbles(c), vi_and(vi_shift_right(b, 2), bytes_set1(0x30))));
    UNROLLED
    for (size_t i = 0; i < 8; i++)
        k->scale[i] = vf_of_vi(vi_load_u8(scales + i * LANES));
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        k->min[i] = vi_pairs_u8(mins + 2 * i * LANES, mins + (2 * i + 1) * LANES);
}

/* t = fma(float(I), scale, t), of 32 elements with codes 0..highest */
INLINE void add_32(vf *t, const vi w[STEPS], const int highest, vf scale, const int8_t *x, size_t width)
{
    EACH_COLUMN(c)
    t[c] = vf_fma(vf_of_vi(dot_codes(0, w, x + c * BLOCK_32, STEPS, highest)), scale, t[c]);
}

/* 64 elements: low nibbles are a sub-block, high ones the next. */
INLINE void add_pair_q4_k(vf *t, const uint8_t *codes, const vf scale[2], const int8_t *x, size_t width)
{
    vi w[STEPS];
    prefetch_stream((const char *)codes, STEPS * STEP_BYTES);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = low_nibbles(vi_load(codes + i * STEP_BYTES));
    add_32(t, w, 15, scale[0], x, width);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = high_nibbles(vi_load(codes + i * STEP_BYTES));
    add_32(t, w, 15, scale[1], x + width * BLOCK_32, width);
}

/* The same with a fifth bit: the lowest two bits of each byte of @high, which are shifted out. */
INLINE void add_pair_q5_k(vf *t, const uint8_t *codes, vi high[STEPS], const vf scale[2], const int8_t *x, size_t width)
{
    vi w[STEPS];
    prefetch_stream((const char *)codes, STEPS * STEP_BYTES);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = vi_or(low_nibbles(vi_load(codes + i * STEP_BYTES)), vi_and(vi_shift_left(high[i], 4), bytes_set1(16)));
    add_32(t, w, 31, scale[0], x, width);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++) {
        w[i] = vi_or(high_nibbles(vi_load(codes + i * STEP_BYTES)), vi_and(vi_shift_left(high[i], 3), bytes_set1(16)));
        high[i] = vi_shift_right(high[i], 2);
    }
    add_32(t, w, 31, scale[1], x + width * BLOCK_32, width);
}

INLINE void add_block_q4_k(vf *t, const uint8_t *codes, const vf scale[8], const int8_t *x, size_t width)
{
    for (size_t p = 0; p < 4; p++)
        add_pair_q4_k(t, codes + p * STEPS * STEP_BYTES, scale + 2 * p, x + p * 2 * width * BLOCK_32, width);
}

INLINE void add_block_q5_k(vf *t, const uint8_t *codes, const uint8_t *high, const vf scale[8], const int8_t *x,
                           size_t width)
{
    vi bits[STEPS];
    prefetch_stream((const char *)high, STEPS * STEP_BYTES);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        bits[i] = vi_load(high + i * STEP_BYTES);
    for (size_t p = 0; p < 4; p++)
        add_pair_q5_k(t, codes + p * STEPS * STEP_BYTES, bits, scale + 2 * p, x + p * 2 * width * BLOCK_32, width);
}

/* acc = fma(-float(M), dmin * xs, acc) */
INLINE void take_minima(vf *acc, const vi min[4], vf dmin, const float *scale, const int16_t *pairs, size_t width)
{
    EACH_COLUMN(c)
    {
        vi low = vi_set1(0);
        UNROLLED
        for (size_t i = 0; i < 4; i++)
            low = vi_dot_2(low, min[i], pairs + c * 8 + 2 * i);
        acc[c] = vf_fnma(vf_of_vi(low), vf_mul(dmin, vf_set1(scale[c])), acc[c]);
    }
}

/* @high_bytes: of a block's plane of fifth bits, 0 where it has none */
INLINE void strip_affine_k(const struct matmul_strip *s, const size_t high_bytes, size_t width)
{
    const uint8_t *codes = s->w, *high = codes + s->n_blocks * BLOCK_256 / 2 * LANES;
    const uint8_t *scales = high + s->n_blocks * high_bytes * LANES;
    const uint8_t *d = scales + s->n_blocks * 12 * LANES, *dmin = d + s->n_blocks * 2 * LANES;
    vf acc[STRIP_COLUMNS], t[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        const float *xs = s->x.scale + b * width;
        const int8_t *x = s->x.q + b * width * BLOCK_256;
        struct scales_k4 k;
        scales_k4_load(&k, scales + b * 12 * LANES);
        sums_zero(t, width);
        if (high_bytes)
            add_block_q5_k(t, codes + b * BLOCK_256 / 2 * LANES, high + b * high_bytes * LANES, k.scale, x, width);
        else
            add_block_q4_k(t, codes + b * BLOCK_256 / 2 * LANES, k.scale, x, width);
        sums_add_block(acc, t, vf_load_f16(d + b * 2 * LANES), xs, width);
        take_minima(acc, k.min, vf_load_f16(dmin + b * 2 * LANES), xs, s->x.pairs + b * width * 8, width);
    }
    sums_store(acc, s, width);
}

INLINE void strip_q4_k(const struct matmul_strip *s, size_t width)
{
    strip_affine_k(s, 0, width);
}

INLINE void strip_q5_k(const struct matmul_strip *s, size_t width)
{
    strip_affine_k(s, BLOCK_256 / 8, width);
}

void STRIP_OF(q4_k)(const struct matmul_strip *s)
{
    by_width(s, strip_q4_k);
}

void STRIP_OF(q5_k)(const struct matmul_strip *s)
{
    by_width(s, strip_q5_k);
}

/* --- q6_k --- */

/* 16 elements of quarter @q of 128 (kernels/layout/blocks.h): nibbles, and the two bits above them. */
INLINE void load_sixes(vi w[4], const uint8_t *low, const uint8_t *high, size_t q)
{
    UNROLLED
    for (size_t i = 0; i < 4; i++) {
        const vi l = vi_load(low + q % 2 * STEPS * STEP_BYTES + i * STEP_BYTES), h = vi_load(high + i * STEP_BYTES);
        const vi pair = q < 2 ? vi_shift_left(h, 4 - 2 * (int)q) : vi_shift_right(h, 2 * (int)q - 4);
        w[i] = vi_or(q < 2 ? low_nibbles(l) : high_nibbles(l), vi_and(pair, bytes_set1(0x30)));
    }
}

/* t = fma(float(I), scale, t), of 16 elements */
INLINE void add_sixes(vf *t, const vi w[4], vf scale, const int8_t *x, const int32_t *sums, size_t width)
{
    EACH_COLUMN(c)
    t[c] = vf_fma(vf_of_vi(dot_codes(sums[c], w, x + c * BLOCK_32, 4, 63)), scale, t[c]);
}

/* A half of a block: 128 elements in 8 sub-blocks. */
INLINE void add_half_k6(vf *t, const uint8_t *low, const uint8_t *high, const uint8_t *scales, const int8_t *x,
                        const int32_t *sums, size_t width)
{
    prefetch_stream((const char *)low, 2 * STEPS * STEP_BYTES);
    prefetch_stream((const char *)high, STEPS * STEP_BYTES);
    UNROLLED
    for (size_t q = 0; q < 4; q++)
        for (size_t k = 0; k < 2; k++) {
            vi w[4];
            load_sixes(w, low + k * 4 * STEP_BYTES, high + k * 4 * STEP_BYTES, q);
            add_sixes(t, w, vf_of_vi(vi_load_i8(scales + (2 * q + k) * LANES)), x + q * width * BLOCK_32 + k * 16,
                      sums + (2 * q + k) * width, width);
        }
}

INLINE void strip_q6_k(const struct matmul_strip *s, size_t width)
{
    const uint8_t *low = s->w, *high = low + s->n_blocks * BLOCK_256 / 2 * LANES;
    const uint8_t *scales = high + s->n_blocks * BLOCK_256 / 4 * LANES, *d = scales + s->n_blocks * 16 * LANES;
    vf acc[STRIP_COLUMNS], t[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        sums_zero(t, width);
        for (size_t h = 2 * b; h < 2 * b + 2; h++)
            add_half_k6(t, low + h * 64 * LANES, high + h * 32 * LANES, scales + h * 8 * LANES,
                        s->x.q + h * width * BLOCK_128, s->x.sums + h * 8 * width, width);
        sums_add_block(acc, t, vf_load_f16(d + b * 2 * LANES), s->x.scale + b * width, width);
    }
    sums_store(acc, s, width);
}

void STRIP_OF(q6_k)(const struct matmul_strip *s)
{
    by_width(s, strip_q6_k);
}
