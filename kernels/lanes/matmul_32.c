/* Strips of types with blocks of 32: a sum of integers, times both scales, on top of the column's sum. */
#include "kernels/lanes/strip.h"

typedef void sums_fn(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x);

/* A sum on top of a column's, times the scales of activations and of weights, where a block has its own. */
INLINE void add_sum(vf *acc, vi sum, const vf *d, const float *xs)
{
    *acc = vf_fma(vf_of_vi(sum), d ? vf_mul(*d, vf_set1(*xs)) : vf_set1(*xs), *acc);
}

/* A block of a group with all columns of the tile. */
INLINE void add_32(vf *acc, const struct matmul_strip *s, size_t b, const vi w[STEPS], const vf *d, sums_fn *dot,
                   size_t width)
{
    const int8_t *x = s->x.q + b * width * BLOCK_32;
    const int32_t *starts = s->x.sums + b * width;
    const float *xs = s->x.scale + b * width;
    IN_REGISTER(x);
    IN_REGISTER(starts);
    IN_REGISTER(xs);
    EACH_COLUMNS (c, n) {
        vi sum[COLUMNS_AT_ONCE];
        dot(sum, n, starts + c, w, x + c * BLOCK_32);
        UNROLLED
        for (size_t i = 0; i < n; i++)
            add_sum(&acc[c + i], sum[i], d, &xs[c + i]);
    }
}

INLINE void load_q8_0(vi w[STEPS], const uint8_t *codes)
{
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = bytes_of_q8_0(vi_load(codes + i * STEP_BYTES));
}

/* Codes 0..15, xored with @flip. */
INLINE void load_nibbles(vi w[STEPS], const uint8_t *codes, vi flip)
{
    UNROLLED
    for (size_t i = 0; i < STEPS / 2; i++) {
        const vi v = vi_xor(vi_load(codes + i * STEP_BYTES), flip);
        w[i] = low_nibbles(v);
        w[i + STEPS / 2] = high_nibbles(v);
    }
}

INLINE void dot_nibbles(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x)
{
    sums_start(sum, n_columns, starts);
    dot_codes(sum, n_columns, w, x, STEPS, 15);
}

/*
 * On top of @sum, with one column: each vector is read when it is wanted, in the order of addresses. Loads that stand
 * together, or that gcc turns around, take 8 % of what memory gives.
 */
INLINE vi dot_nibbles_of_one(vi sum, const uint8_t *codes, vi flip, const int8_t *x)
{
    UNROLLED
    for (size_t i = 0; i < STEPS / 2; i++) {
        const vi v = vi_xor(vi_load(codes + i * STEP_BYTES), flip), low = low_nibbles(v), high = high_nibbles(v);
        dot_codes(&sum, 1, &low, x + 4 * i, 1, 15);
        dot_codes(&sum, 1, &high, x + BLOCK_32 / 2 + 4 * i, 1, 15);
    }
    return sum;
}

typedef vf scale_fn(const void *p);
/* The scales at @d are read behind the codes: they stand there, or elsewhere. */
INLINE void add_nibbles(vf *acc, const struct matmul_strip *s, size_t b, const uint8_t *codes, vi flip, scale_fn *scale,
                        const uint8_t *d, size_t width)
{
    vi w[STEPS], sum;
    if (width > 1) {
        load_nibbles(w, codes, flip);
        const vf each = scale(d);
        add_32(acc, s, b, w, &each, dot_nibbles, width);
        return;
    }
    sums_start(&sum, 1, s->x.sums + b);
    sum = dot_nibbles_of_one(sum, codes, flip, s->x.q + b * BLOCK_32);
    const vf each = scale(d);
    add_sum(acc, sum, &each, s->x.scale + b);
}

INLINE void block_q8_0(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const vf d = vf_load_f16(panel_field(q, &planes_q8_0, 1, b));
    vi w[STEPS];
    load_q8_0(w, panel_field(q, &planes_q8_0, 0, b));
    add_32(acc, s, b, w, &d, dot_bytes, width);
}
STRIP(q8_0)

INLINE void block_q4_0(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    add_nibbles(acc, s, b, panel_field(q, &planes_q4_0, 0, b), vi_set1(0), vf_load_f16,
                panel_field(q, &planes_q4_0, 1, b), width);
}
STRIP(q4_0)

/* ---- codes alone: scales stand apart (kernels/kernels.h, struct code_scales) ---- */

/* Block @b's scales. */
INLINE const uint8_t *scale_of(const struct matmul_strip *s, const struct planes *p, size_t b, size_t width)
{
    const struct code_scales *k = &s->codes;
    if (width == 1)
        __builtin_prefetch(k->scale + ((b + AHEAD_BYTES / (LANES * p->bytes[0])) >> k->shift) * k->scale_block, 0,
                           PASSING);
    return k->scale + (b >> k->shift) * k->scale_block;
}

INLINE void block_i8(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const vf d = vf_load(scale_of(s, &planes_i8, b, width));
    vi w[STEPS];
    load_q8_0(w, panel_field(q, &planes_i8, 0, b));
    add_32(acc, s, b, w, &d, dot_bytes, width);
}

/* Without the scale, which all blocks of a row have. */
INLINE void block_i8_of_row(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    vi w[STEPS];
    load_q8_0(w, panel_field(q, &planes_i8, 0, b));
    add_32(acc, s, b, w, NULL, dot_bytes, width);
}

INLINE vf scale_row(const struct matmul_strip *s, vf sum)
{
    return vf_mul(sum, vf_load(s->codes.scale));
}

void STRIP_OF(i8)(const struct matmul_strip *s)
{
    if (s->codes.scale_block)
        by_width(s, &planes_i8, block_i8, as_it_is);
    else
        by_width(s, &planes_i8, block_i8_of_row, scale_row);
}

INLINE void block_u4(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    add_nibbles(acc, s, b, panel_field(q, &planes_u4, 0, b), bytes_set1(s->codes.flip), vf_load,
                scale_of(s, &planes_u4, b, width), width);
}

/* Zero points are multiplied with minus the sums of the activations' codes, which 16 bits hold: |32 * 127|. */
INLINE void block_u4_zeros(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width)
{
    const struct code_scales *k = &s->codes;
    const uint8_t *codes = panel_field(q, &planes_u4, 0, b);
    const size_t first = b * width;
    const vf d = vf_load(scale_of(s, &planes_u4, b, width));
    const vi zero = vi_of_nibbles(k->zero + (b >> k->shift) * k->zero_block), flip = bytes_set1(k->flip);
    vi w[STEPS];
    if (width > 1)
        load_nibbles(w, codes, flip);
    EACH_COLUMNS (c, n) {
        vi sum[COLUMNS_AT_ONCE];
        UNROLLED
        for (size_t i = 0; i < n; i++)
            sum[i] = vi_dot_2(vi_set1(0), zero, (const int16_t *)(const void *)&s->x.sums[first + c + i]);
        if (width > 1)
            dot_codes(sum, n, w, s->x.q + (first + c) * BLOCK_32, STEPS, 15);
        else
            *sum = dot_nibbles_of_one(*sum, codes, flip, s->x.q + first * BLOCK_32);
        UNROLLED
        for (size_t i = 0; i < n; i++)
            add_sum(&acc[c + i], sum[i], &d, &s->x.scale[first + c + i]);
    }
}

void STRIP_OF(u4)(const struct matmul_strip *s)
{
    if (s->codes.zero)
        by_width(s, &planes_u4, block_u4_zeros, as_it_is);
    else
        by_width(s, &planes_u4, block_u4, as_it_is);
}
