/* Strips of types with blocks of 32: a sum of integers, times both scales, on top of the column's sum. */
#include "kernels/lanes/strip.h"

typedef void load_fn(vi w[STEPS], const uint8_t *codes);
typedef void sums_fn(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x);

/*
 * A block of a group, whose codes these are and whose scales, where it has its own, with all columns of the tile: on
 * top of @acc.
 */
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
            acc[c + i] = vf_fma(vf_of_vi(sum[i]), d ? vf_mul(*d, vf_set1(xs[c + i])) : vf_set1(xs[c + i]), acc[c + i]);
    }
}

INLINE void block_32(vf *acc, const struct matmul_strip *s, const struct planes *p, load_fn *load, sums_fn *dot,
                     size_t g, size_t b, size_t width)
{
    vi w[STEPS];
    read_ahead_all(s, p, g, b, 0, width);
    load(w, plane_of(s, p, g, 0) + b * LANES * p->bytes[0]);
    const vf d = vf_load_f16(plane_of(s, p, g, 1) + b * LANES * p->bytes[1]);
    add_32(acc, s, b, w, &d, dot, width);
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

INLINE void load_q4_0(vi w[STEPS], const uint8_t *codes)
{
    load_nibbles(w, codes, vi_set1(0));
}

INLINE void dot_nibbles(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x)
{
    sums_start(sum, n_columns, starts);
    dot_codes(sum, n_columns, w, x, STEPS, 15);
}

static const struct planes planes_q8_0 = {2, 2, {FIELD_BYTES(q8_0, q), FIELD_BYTES(q8_0, d)}};

INLINE void block_q8_0(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    block_32(acc, s, &planes_q8_0, load_q8_0, dot_bytes, g, b, width);
}
STRIP(q8_0)

static const struct planes planes_q4_0 = {2, 2, {FIELD_BYTES(q4_0, q), FIELD_BYTES(q4_0, d)}};

INLINE void block_q4_0(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    block_32(acc, s, &planes_q4_0, load_q4_0, dot_nibbles, g, b, width);
}
STRIP(q4_0)

/* ---- codes alone: scales stand apart (kernels/kernels.h, struct code_scales) ---- */

/* What belongs to block @b of group @g: bytes from the first block's of the first group. */
INLINE const uint8_t *scale_of(const struct matmul_strip *s, const struct planes *p, size_t g, size_t b, size_t width)
{
    const struct code_scales *k = &s->codes;
    if (width == 1)
        __builtin_prefetch(k->scale + g * k->scale_group + ((b + blocks_ahead(p)) >> k->shift) * k->scale_block, 0,
                           FIRST_LEVEL);
    return k->scale + g * k->scale_group + (b >> k->shift) * k->scale_block;
}

static const struct planes planes_i8 = {1, 1, {FIELD_BYTES(i8, q)}};

INLINE void load_i8(vi w[STEPS], const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    read_ahead_all(s, &planes_i8, g, b, 0, width);
    load_q8_0(w, plane_of(s, &planes_i8, g, 0) + b * LANES * FIELD_BYTES(i8, q));
}

INLINE void block_i8(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    vi w[STEPS];
    load_i8(w, s, g, b, width);
    const vf d = vf_load(scale_of(s, &planes_i8, g, b, width));
    add_32(acc, s, b, w, &d, dot_bytes, width);
}

/* Without the scale, which all blocks of a row have. */
INLINE void block_i8_of_row(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    vi w[STEPS];
    load_i8(w, s, g, b, width);
    add_32(acc, s, b, w, NULL, dot_bytes, width);
}

INLINE vf scale_row(const struct matmul_strip *s, size_t g, vf sum)
{
    return vf_mul(sum, vf_load(s->codes.scale + g * s->codes.scale_group));
}

void STRIP_OF(i8)(const struct matmul_strip *s)
{
    if (s->codes.scale_block)
        by_width(s, &planes_i8, block_i8, as_it_is);
    else
        by_width(s, &planes_i8, block_i8_of_row, scale_row);
}

static const struct planes planes_u4 = {2, 1, {FIELD_BYTES(u4, q)}};

INLINE void load_u4(vi w[STEPS], const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    read_ahead_all(s, &planes_u4, g, b, 0, width);
    load_nibbles(w, plane_of(s, &planes_u4, g, 0) + b * LANES * FIELD_BYTES(u4, q), bytes_set1(s->codes.flip));
}

INLINE void block_u4(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    vi w[STEPS];
    load_u4(w, s, g, b, width);
    const vf d = vf_load(scale_of(s, &planes_u4, g, b, width));
    add_32(acc, s, b, w, &d, dot_nibbles, width);
}

/* Zero points are multiplied with minus the sums of the activations' codes, which 16 bits hold: |32 * 127|. */
INLINE void block_u4_zeros(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    const struct code_scales *k = &s->codes;
    const size_t first = b * width;
    const vf d = vf_load(scale_of(s, &planes_u4, g, b, width));
    const vi zero = vi_of_nibbles(k->zero + g * k->zero_group + (b >> k->shift) * k->zero_block);
    vi w[STEPS];
    load_u4(w, s, g, b, width);
    EACH_COLUMNS (c, n) {
        vi sum[COLUMNS_AT_ONCE];
        UNROLLED
        for (size_t i = 0; i < n; i++)
            sum[i] = vi_dot_2(vi_set1(0), zero, (const int16_t *)(const void *)&s->x.sums[first + c + i]);
        dot_codes(sum, n, w, s->x.q + (first + c) * BLOCK_32, STEPS, 15);
        UNROLLED
        for (size_t i = 0; i < n; i++)
            acc[c + i] = vf_fma(vf_of_vi(sum[i]), vf_mul(d, vf_set1(s->x.scale[first + c + i])), acc[c + i]);
    }
}

void STRIP_OF(u4)(const struct matmul_strip *s)
{
    if (s->codes.zero)
        by_width(s, &planes_u4, block_u4_zeros, as_it_is);
    else
        by_width(s, &planes_u4, block_u4, as_it_is);
}
