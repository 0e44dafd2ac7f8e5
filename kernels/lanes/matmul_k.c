/*
 * Strips of types with blocks of 256: sums of integers times the scales of their sub-blocks become a sum of the block,
 * which both block scales put on top of the column's sum.
 */
#include "kernels/lanes/strip.h"

INLINE void sums_zero(vf *t, size_t width)
{
    EACH_COLUMN (c)
        t[c] = vf_set1(0);
}

/* acc = fma(t, d * xs, acc) */
INLINE void sums_add_block(vf *acc, const vf *t, vf d, const float *scale, size_t width)
{
    EACH_COLUMN (c)
        acc[c] = vf_fma(t[c], vf_mul(d, vf_set1(scale[c])), acc[c]);
}

/* --- q4_k, q5_k --- */

/* Scales and minima of 8 sub-blocks, from 12 bytes of each row (kernels/layout/pack.h, unpack_scales_k4). */
struct scales_k4 {
    vf scale[8]; /* of odd sub-blocks divided by @upper, which their sums have too much */
    vi min[4];   /* two of 16 bits */
};

INLINE void scales_k4_load(struct scales_k4 *k, const uint8_t *p, float upper)
{
    const vi a = vi_load(p), b = vi_load(p + STEP_BYTES), c = vi_load(p + 2 * STEP_BYTES);
    uint8_t scales[2 * STEP_BYTES], mins[2 * STEP_BYTES];
    vi_store(scales, vi_and(a, bytes_set1(63)));
    vi_store(mins, vi_and(b, bytes_set1(63)));
    vi_store(scales + STEP_BYTES, vi_or(low_nibbles(c), vi_and(vi_shift_right(a, 2), bytes_set1(0x30))));
    vi_store(mins + STEP_BYTES, vi_or(high_nibbles(c), vi_and(vi_shift_right(b, 2), bytes_set1(0x30))));
    UNROLLED
    for (size_t i = 0; i < 8; i++)
        k->scale[i] = vf_mul(vf_of_vi(vi_load_u8(scales + i * LANES)), vf_set1(i % 2 ? 1 / upper : 1));
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        k->min[i] = vi_pairs_u8(mins + 2 * i * LANES, mins + (2 * i + 1) * LANES);
}

/* t = fma(float(I), scale, t), of 32 elements with codes 0..highest */
INLINE void add_32(vf *t, const vi w[STEPS], const int highest, vf scale, const int8_t *x, size_t width)
{
    EACH_COLUMN (c)
        t[c] = vf_fma(vf_of_vi(dot_codes(0, w, x + c * BLOCK_32, STEPS, highest)), scale, t[c]);
}

/* 64 elements: low nibbles are a sub-block, high ones the next. */
INLINE void add_pair_q4_k(vf *t, const uint8_t *codes, const vf scale[2], const int8_t *x, size_t width)
{
    vi w[STEPS];
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = low_nibbles(vi_load(codes + i * STEP_BYTES));
    add_32(t, w, 15, scale[0], x, width);
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = upper_nibbles(vi_load(codes + i * STEP_BYTES));
    add_32(t, w, 15, scale[1], x + width * BLOCK_32, width);
}

/* The same with a fifth bit: the lowest two bits of each byte of @high, which are shifted out. */
INLINE void add_pair_q5_k(vf *t, const uint8_t *codes, vi high[STEPS], const vf scale[2], const int8_t *x, size_t width)
{
    vi w[STEPS];
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

/* acc = fma(-float(M), dmin * xs, acc) */
INLINE void take_minima(vf *acc, const vi min[4], vf dmin, const float *scale, const int16_t *pairs, size_t width)
{
    EACH_COLUMN (c) {
        vi low = vi_set1(0);
        UNROLLED
        for (size_t i = 0; i < 4; i++)
            low = vi_dot_2(low, min[i], pairs + c * 8 + 2 * i);
        acc[c] = vf_fnma(vf_of_vi(low), vf_mul(dmin, vf_set1(scale[c])), acc[c]);
    }
}

/* The planes are those of q4_k: codes, scales, d, dmin; or of q5_k, with one of fifth bits behind the codes. */
INLINE void strip_affine_k(const struct matmul_strip *s, const struct planes *p, size_t width)
{
    const bool fifth = p->n == 5;
    const uint8_t *codes = plane_of(s, p, 0), *high = plane_of(s, p, 1), *scales = plane_of(s, p, p->n - 3);
    const uint8_t *d = plane_of(s, p, p->n - 2), *dmin = plane_of(s, p, p->n - 1);
    vf acc[STRIP_COLUMNS], t[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        const float *xs = s->x.scale + b * width;
        struct scales_k4 k;
        vi bits[STEPS];
        scales_k4_load(&k, scales + b * 12 * LANES, fifth ? 1 : UPPER_NIBBLE);
        sums_zero(t, width);
        UNROLLED
        for (size_t f = 1; f < p->n; f++)
            read_ahead(s, p, b, f, 0, 1);
        UNROLLED
        for (size_t i = 0; fifth && i < STEPS; i++)
            bits[i] = vi_load(high + (b * STEPS + i) * STEP_BYTES);
        for (size_t i = 4 * b; i < 4 * b + 4; i++) {
            const int8_t *x = s->x.q + i * 2 * width * BLOCK_32;
            read_ahead(s, p, b, 0, i % 4, 4);
            if (fifth)
                add_pair_q5_k(t, codes + i * STEPS * STEP_BYTES, bits, k.scale + i % 4 * 2, x, width);
            else
                add_pair_q4_k(t, codes + i * STEPS * STEP_BYTES, k.scale + i % 4 * 2, x, width);
        }
        sums_add_block(acc, t, vf_load_f16(d + b * 2 * LANES), xs, width);
        take_minima(acc, k.min, vf_load_f16(dmin + b * 2 * LANES), xs, s->x.pairs + b * width * 8, width);
    }
    sums_store(acc, s, width);
}

INLINE void strip_q4_k(const struct matmul_strip *s, size_t width)
{
    static const struct planes planes = {
        4, {FIELD_BYTES(q4_k, q), FIELD_BYTES(q4_k, scales), FIELD_BYTES(q4_k, d), FIELD_BYTES(q4_k, dmin)}};
    strip_affine_k(s, &planes, width);
}

INLINE void strip_q5_k(const struct matmul_strip *s, size_t width)
{
    static const struct planes planes = {5,
                                         {FIELD_BYTES(q5_k, q), FIELD_BYTES(q5_k, high), FIELD_BYTES(q5_k, scales),
                                          FIELD_BYTES(q5_k, d), FIELD_BYTES(q5_k, dmin)}};
    strip_affine_k(s, &planes, width);
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
    EACH_COLUMN (c)
        t[c] = vf_fma(vf_of_vi(dot_codes(sums[c], w, x + c * BLOCK_32, 4, 63)), scale, t[c]);
}

/* A half of a block: 128 elements in 8 sub-blocks. */
INLINE void add_half_k6(vf *t, const uint8_t *low, const uint8_t *high, const uint8_t *scales, const int8_t *x,
                        const int32_t *sums, size_t width)
{
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
    static const struct planes planes = {
        4, {FIELD_BYTES(q6_k, low), FIELD_BYTES(q6_k, high), FIELD_BYTES(q6_k, scales), FIELD_BYTES(q6_k, d)}};
    const uint8_t *low = plane_of(s, &planes, 0), *high = plane_of(s, &planes, 1);
    const uint8_t *scales = plane_of(s, &planes, 2), *d = plane_of(s, &planes, 3);
    vf acc[STRIP_COLUMNS], t[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        sums_zero(t, width);
        read_ahead(s, &planes, b, 2, 0, 1);
        read_ahead(s, &planes, b, 3, 0, 1);
        for (size_t h = 2 * b; h < 2 * b + 2; h++) {
            read_ahead(s, &planes, b, 0, h % 2, 2);
            read_ahead(s, &planes, b, 1, h % 2, 2);
            add_half_k6(t, low + h * 64 * LANES, high + h * 32 * LANES, scales + h * 8 * LANES,
                        s->x.q + h * width * BLOCK_128, s->x.sums + h * 8 * width, width);
        }
        sums_add_block(acc, t, vf_load_f16(d + b * 2 * LANES), s->x.scale + b * width, width);
    }
    sums_store(acc, s, width);
}

void STRIP_OF(q6_k)(const struct matmul_strip *s)
{
    by_width(s, strip_q6_k);
}
