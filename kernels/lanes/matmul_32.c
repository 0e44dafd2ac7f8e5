/* Strips of types with blocks of 32: a sum of integers, times both scales, on top of the column's sum. */
#include "kernels/lanes/strip.h"

typedef void load_fn(vi w[STEPS], const uint8_t *codes);
typedef vi sum_fn(int32_t start, const vi w[STEPS], const int8_t *x);

INLINE void strip_32(const struct matmul_strip *s, size_t width, const struct planes *p, load_fn *load, sum_fn *dot)
{
    const uint8_t *codes = plane_of(s, p, 0), *scales = plane_of(s, p, 1);
    vf acc[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        const int8_t *x = s->x.q + b * width * BLOCK_32;
        const int32_t *starts = s->x.sums + b * width;
        const float *xs = s->x.scale + b * width;
        IN_REGISTER(x);
        IN_REGISTER(starts);
        IN_REGISTER(xs);
        read_ahead(s, p, b, 0, 0, 1);
        read_ahead(s, p, b, 1, 0, 1);
        vi w[STEPS];
        load(w, codes + b * LANES * p->bytes[0]);
        const vf d = vf_load_f16(scales + b * LANES * p->bytes[1]);
        EACH_COLUMN (c) {
            const vi sum = dot(starts[c], w, x + c * BLOCK_32);
            acc[c] = vf_fma(vf_of_vi(sum), vf_mul(d, vf_set1(xs[c])), acc[c]);
        }
    }
    sums_store(acc, s, width);
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

INLINE vi dot_nibbles(int32_t start, const vi w[STEPS], const int8_t *x)
{
    return dot_codes(start, w, x, STEPS, 15);
}

INLINE void strip_q8_0(const struct matmul_strip *s, size_t width)
{
    static const struct planes planes = {2, {FIELD_BYTES(q8_0, q), FIELD_BYTES(q8_0, d)}};
    strip_32(s, width, &planes, load_q8_0, dot_bytes);
}

void STRIP_OF(q8_0)(const struct matmul_strip *s)
{
    by_width(s, strip_q8_0);
}

INLINE void strip_q4_0(const struct matmul_strip *s, size_t width)
{
    static const struct planes planes = {2, {FIELD_BYTES(q4_0, q), FIELD_BYTES(q4_0, d)}};
    strip_32(s, width, &planes, load_q4_0, dot_nibbles);
}

void STRIP_OF(q4_0)(const struct matmul_strip *s)
{
    by_width(s, strip_q4_0);
}
