/* Strips of types with blocks of 32: a sum of integers, times both scales, on top of the column's sum. */
#include "kernels/lanes/strip.h"

typedef void load_fn(vi w[STEPS], const uint8_t *codes);
typedef void sums_fn(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x);

/* A block of a group, whose codes and scales these are, with all columns of the tile: on top of @acc. */
INLINE void add_32(vf *acc, const struct matmul_strip *s, size_t b, const vi w[STEPS], vf d, sums_fn *dot, size_t width)
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
            acc[c + i] = vf_fma(vf_of_vi(sum[i]), vf_mul(d, vf_set1(xs[c + i])), acc[c + i]);
    }
}

INLINE void block_32(vf *acc, const struct matmul_strip *s, const struct planes *p, load_fn *load, sums_fn *dot,
                     size_t g, size_t b, size_t width)
{
    vi w[STEPS];
    read_ahead_all(s, p, g, b, 0, width);
    load(w, plane_of(s, p, g, 0) + b * LANES * p->bytes[0]);
    add_32(acc, s, b, w, vf_load_f16(plane_of(s, p, g, 1) + b * LANES * p->bytes[1]), dot, width);
}

INLINE void load_q8_0(vi w[STEPS], const uint8_t *codes)
{
    UNROLLED
    for (size_t i = 0; i < STEPS; i++)
        w[i] = bytes_of_q8_0(vi_load(codes + i * STEP_BYTES));
}

INLINE void load_q4_0(vi w[STEPS], const uint8_t *codes)
{
    UNROLLED
    for (size_t i = 0; i < STEPS / 2; i++) {
        const vi v = vi_load(codes + i * STEP_BYTES);
        w[i] = low_nibbles(v);
        w[i + STEPS / 2] = high_nibbles(v);
    }
}

INLINE void dot_nibbles(vi *sum, size_t n_columns, const int32_t *starts, const vi w[STEPS], const int8_t *x)
{
    sums_start(sum, n_columns, starts);
    dot_codes(sum, n_columns, w, x, STEPS, 15);
}

static const struct planes planes_q8_0 = {4, 4, 2, {FIELD_BYTES(q8_0, q), FIELD_BYTES(q8_0, d)}};

INLINE void block_q8_0(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    block_32(acc, s, &planes_q8_0, load_q8_0, dot_bytes, g, b, width);
}
STRIP(q8_0)

static const struct planes planes_q4_0 = {8, 3, 2, {FIELD_BYTES(q4_0, q), FIELD_BYTES(q4_0, d)}};

INLINE void block_q4_0(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width)
{
    block_32(acc, s, &planes_q4_0, load_q4_0, dot_nibbles, g, b, width);
}
STRIP(q4_0)
