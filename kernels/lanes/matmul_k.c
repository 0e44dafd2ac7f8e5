/*
 * Strips of types with blocks of 256: sums of integers times the scales of their sub-blocks become a sum of the block,
 * which both block scales put on top of the column's sum.
 */
#include "kernels/lanes/strip.h"

static const int32_t zeros[COLUMNS_AT_ONCE]; /* to start from where codes have no offset */

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

/* Two minima of 16 bits in each lane of @min, and the sums of codes that they belong to, two side by side. */
struct minima {
    const vi *min;
    size_t n;
    const int16_t *sums;
    size_t column, pair; /* from one to the next */
};

/* acc = fma(-float(M), dmin * xs, acc) */
INLINE void take_minima(vf *acc, const struct minima *m, vf dmin, const float *scale, size_t width)
{
    EACH_COLUMN (c) {
        vi low = vi_set1(0);
        UNROLLED
        for (size_t i = 0; i < m->n; i++)
            low = vi_dot_2(low, m->min[i], m->sums + c * m->column + i * m->pair);
        acc[c] = vf_fnma(vf_of_vi(low), vf_mul(dmin, vf_set1(scale[c])), acc[c]);
    }
}

/* --- eight sub-blocks of 32: q4_k, q5_k --- */

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
    EACH_COLUMNS (c, n) {
        vi sum[COLUMNS_AT_ONCE];
        sums_start(sum, n, zeros);
        dot_codes(sum, n, w, x + c * BLOCK_32, STEPS, highest);
        UNROLLED
        for (size_t i = 0; i < n; i++)
            t[c + i] = vf_fma(vf_of_vi(sum[i]), scale, t[c + i]);
    }
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

/* The planes are those of q4_k: codes, scales, d, dmin; or of q5_k, with one of fifth bits behind the codes. */
INLINE void block_affine_k(vf *acc, const struct matmul_strip *s, const struct panel *q, const struct planes *p,
                           size_t b, size_t width)
{
    const bool fifth = p->n == 5;
    const uint8_t *codes = panel_field(q, p, 0, b), *high = panel_field(q, p, 1, b),
                  *scales = panel_field(q, p, p->n - 3, b);
    const uint8_t *d = panel_field(q, p, p->n - 2, b), *dmin = panel_field(q, p, p->n - 1, b);
    const float *xs = s->x.scale + b * width;
    struct scales_k4 k;
    vi bits[STEPS];
    vf t[STRIP_COLUMNS];
    scales_k4_load(&k, scales, fifth ? 1 : UPPER_NIBBLE);
    sums_zero(t, width);
    UNROLLED
    for (size_t i = 0; fifth && i < STEPS; i++)
        bits[i] = vi_load(high + i * STEP_BYTES);
    for (size_t i = 0; i < 4; i++) {
        const int8_t *x = s->x.q + (4 * b + i) * 2 * width * BLOCK_32;
        if (fifth)
            add_pair_q5_k(t, codes + i * STEPS * STEP_BYTES, bits, k.scale + 2 * i, x, width);
        else
            add_pair_q4_k(t, codes + i * STEPS * STEP_BYTES, k.scale + 2 * i, x, width);
    }
    sums_add_block(acc, t, vf_load_f16(d), xs, width);
    const struct minima m = {k.min, 4, s->x.pairs + b * width * 8, 8, 2};
    take_minima(acc, &m, vf_load_f16(dmin), xs, width);
}

INLINE void block_q4_k(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    block_affine_k(acc, s, q, &planes_q4_k, b, width);
}
STRIP(q4_k)

INLINE void block_q5_k(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    block_affine_k(acc, s, q, &planes_q5_k, b, width);
}
STRIP(q5_k)

/* --- sixteen sub-blocks of 16: q2_k, q3_k, q6_k --- */

/* Takes the 16 elements of quarter @q of 128 (kernels/layout/blocks.h) whose first bytes are at @low and @high. */
typedef void load_16_fn(vi w[4], const uint8_t *low, const uint8_t *high, size_t q);

/* A half of a block, 128 elements: two sub-blocks in each quarter. */
struct half {
    const uint8_t *low, *high; /* high: NULL with codes of 2 bits */
    const uint8_t *scales;     /* signed bytes */
    const int8_t *x;
    const int32_t *sums; /* what sums start from */
};

/* Codes of a type are 0..highest and count @unit each. */
struct codes_16 {
    load_16_fn *load;
    int highest;
    float unit;
    bool from_sums; /* have an offset, which sums start from */
};

/* t = fma(float(I), scale, t), eight times */
INLINE void add_half(vf *t, const struct half *h, const struct codes_16 codes, size_t width)
{
    ROLLED
    for (size_t k = 0; k < 8; k++) {
        const size_t first = k % 2 * 16; /* in a block of 32 */
        const vf scale = vf_of_vi(vi_load_i8(h->scales + k * LANES));
        const vf each = codes.unit < 1 ? vf_mul(scale, vf_set1(codes.unit)) : scale;
        vi w[4];
        codes.load(w, h->low + first * LANES, h->high ? h->high + first * LANES : NULL, k / 2);
        EACH_COLUMNS (c, n) {
            const int8_t *x = h->x + (k / 2 * width + c) * BLOCK_32 + first;
            vi sum[COLUMNS_AT_ONCE];
            sums_start(sum, n, codes.from_sums ? h->sums + k * width + c : zeros);
            dot_codes(sum, n, w, x, 4, codes.highest);
            UNROLLED
            for (size_t i = 0; i < n; i++)
                t[c + i] = vf_fma(vf_of_vi(sum[i]), each, t[c + i]);
        }
    }
}

/* Bits @mask of each byte, after a shift to the left (right where it is negative). */
INLINE vi bits_moved(vi a, int left, uint32_t mask)
{
    a = left > 0 ? vi_shift_left(a, left) : left < 0 ? vi_shift_right(a, -left) : a;
    return vi_and(a, bytes_set1(mask));
}

INLINE void load_q2_k(vi w[4], const uint8_t *low, const uint8_t *high, size_t q)
{
    (void)high;
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        w[i] = bits_moved(vi_load(low + i * STEP_BYTES), -2 * (int)q, 3);
}

/* Codes times 8, so that their offset of 4 is the 32 of q6_k. @high: its lowest bits are those of quarter 0. */
INLINE void load_q3_k(vi w[4], const uint8_t *low, const uint8_t *high, size_t q)
{
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        w[i] = vi_or(bits_moved(vi_load(low + i * STEP_BYTES), 3 - 2 * (int)q, 0x18),
                     bits_moved(vi_load(high + i * STEP_BYTES), 5 - (int)q, 0x20));
}

/* Nibbles and the two bits above them. */
INLINE void load_q6_k(vi w[4], const uint8_t *low, const uint8_t *high, size_t q)
{
    low += q % 2 * BLOCK_32 * LANES;
    UNROLLED
    for (size_t i = 0; i < 4; i++)
        w[i] = vi_or(bits_moved(vi_load(low + i * STEP_BYTES), q < 2 ? 0 : -4, 15),
                     bits_moved(vi_load(high + i * STEP_BYTES), 4 - 2 * (int)q, 0x30));
}

/* Scales and minima in nibbles. */
INLINE void scales_q2_load(uint8_t scales[16 * LANES], vi min[8], const uint8_t *p)
{
    uint8_t mins[16 * LANES];
    UNROLLED
    for (size_t i = 0; i < 4; i++) {
        const vi both = vi_load(p + i * STEP_BYTES);
        vi_store(scales + i * STEP_BYTES, low_nibbles(both));
        vi_store(mins + i * STEP_BYTES, high_nibbles(both));
    }
    UNROLLED
    for (size_t i = 0; i < 8; i++)
        min[i] = vi_pairs_u8(mins + 2 * i * LANES, mins + (2 * i + 1) * LANES);
}

/* The sums of 16 codes, two by two, from -32 times them. */
INLINE void sums_of_16(int16_t sums[8][STRIP_COLUMNS][2], const int32_t *starts, size_t width)
{
    for (size_t i = 0; i < 8; i++)
        for (size_t c = 0; c < width; c++) {
            sums[i][c][0] = (int16_t)(starts[2 * i * width + c] / -32);
            sums[i][c][1] = (int16_t)(starts[(2 * i + 1) * width + c] / -32);
        }
}

INLINE void block_q2_k(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const uint8_t *low = panel_field(q, &planes_q2_k, 0, b), *scales = panel_field(q, &planes_q2_k, 1, b);
    const uint8_t *d = panel_field(q, &planes_q2_k, 2, b), *dmin = panel_field(q, &planes_q2_k, 3, b);
    vf t[STRIP_COLUMNS];
    const float *xs = s->x.scale + b * width;
    uint8_t scale[16 * LANES];
    vi min[8];
    int16_t sums[8][STRIP_COLUMNS][2];
    scales_q2_load(scale, min, scales);
    sums_of_16(sums, s->x.sums + b * 16 * width, width);
    sums_zero(t, width);
    for (size_t h = 0; h < 2; h++) {
        const struct half half = {low + h * 32 * LANES, NULL, scale + h * 8 * LANES,
                                  s->x.q + (2 * b + h) * width * BLOCK_128, NULL};
        add_half(t, &half, (struct codes_16){load_q2_k, 3, 1, false}, width);
    }
    const struct minima m = {min, 8, sums[0][0], 2, 2 * STRIP_COLUMNS};
    sums_add_block(acc, t, vf_load_f16(d), xs, width);
    take_minima(acc, &m, vf_load_f16(dmin), xs, width);
}
STRIP(q2_k)

/* Bytes 0..63, less 32: no borrow passes bit 7. */
INLINE vi bytes_less_32(vi a)
{
    return vi_xor(vi_add(vi_or(a, bytes_set1(0x80)), vi_set1(-0x20202020)), bytes_set1(0x80));
}

/* 16 scales of 6 bits, less 32, from 12 bytes of each row (kernels/layout/pack.h, unpack_scales_q3). */
INLINE void scales_q3_load(uint8_t scales[16 * LANES], const uint8_t *p)
{
    const vi a = vi_load(p), b = vi_load(p + STEP_BYTES), high = vi_load(p + 2 * STEP_BYTES);
    vi_store(scales, bytes_less_32(vi_or(low_nibbles(a), bits_moved(high, 4, 0x30))));
    vi_store(scales + STEP_BYTES, bytes_less_32(vi_or(low_nibbles(b), bits_moved(high, 2, 0x30))));
    vi_store(scales + 2 * STEP_BYTES, bytes_less_32(vi_or(high_nibbles(a), bits_moved(high, 0, 0x30))));
    vi_store(scales + 3 * STEP_BYTES, bytes_less_32(vi_or(high_nibbles(b), bits_moved(high, -2, 0x30))));
}

/* The bits above the pairs of half @h, moved to the bottom of each byte. */
INLINE void high_q3_load(uint8_t high[STEPS * STEP_BYTES], const uint8_t *p, size_t h)
{
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        vi_store(high + i * STEP_BYTES, vi_shift_right(vi_load(p + i * STEP_BYTES), 4 * (int)h));
}

INLINE void block_q3_k(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const uint8_t *low = panel_field(q, &planes_q3_k, 0, b), *high = panel_field(q, &planes_q3_k, 1, b);
    const uint8_t *scales = panel_field(q, &planes_q3_k, 2, b), *d = panel_field(q, &planes_q3_k, 3, b);
    vf t[STRIP_COLUMNS];
    uint8_t scale[16 * LANES], bits[STEPS * STEP_BYTES];
    scales_q3_load(scale, scales);
    sums_zero(t, width);
    for (size_t h = 0; h < 2; h++) {
        const struct half half = {low + h * 32 * LANES, bits, scale + h * 8 * LANES,
                                  s->x.q + (2 * b + h) * width * BLOCK_128, s->x.sums + (2 * b + h) * 8 * width};
        high_q3_load(bits, high, h);
        add_half(t, &half, (struct codes_16){load_q3_k, 7 * 8, 1.0f / 8, true}, width);
    }
    sums_add_block(acc, t, vf_load_f16(d), s->x.scale + b * width, width);
}
STRIP(q3_k)

INLINE void block_q6_k(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const uint8_t *low = panel_field(q, &planes_q6_k, 0, b), *high = panel_field(q, &planes_q6_k, 1, b);
    const uint8_t *scales = panel_field(q, &planes_q6_k, 2, b), *d = panel_field(q, &planes_q6_k, 3, b);
    vf t[STRIP_COLUMNS];
    sums_zero(t, width);
    for (size_t h = 0; h < 2; h++) {
        const struct half half = {low + h * 64 * LANES, high + h * 32 * LANES, scales + h * 8 * LANES,
                                  s->x.q + (2 * b + h) * width * BLOCK_128, s->x.sums + (2 * b + h) * 8 * width};
        add_half(t, &half, (struct codes_16){load_q6_k, 63, 1, true}, width);
    }
    sums_add_block(acc, t, vf_load_f16(d), s->x.scale + b * width, width);
}
STRIP(q6_k)
