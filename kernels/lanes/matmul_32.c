/* Strips of types with blocks of 32: a sum of integers, times both scales, on top of the column's sum. */
#include "kernels/lanes/strip.h"

typedef void load_fn(vi w[STEPS], const uint8_t *codes);
typedef vi sum_fn(int32_t start, const vi w[STEPS], const int8_t *x);

INLINE void strip_32(const struct matmul_strip *s, size_t width, size_t code_bytes, load_fn *load, sum_fn *dot)
{
    const uint8_t *codes = s->w, *scales = codes + s->n_blocks * code_bytes;
    vf acc[STRIP_COLUMNS];
    sums_load(acc, s, width);
    for (size_t b = s->first; b < s->end; b++) {
        vi w[STEPS];
        prefetch_stream((const char *)codes + b * code_bytes, code_bytes);
        load(w, codes + b * code_bytes);
        const vf d = vf_load_f16(scales + b * LANES * 2);
        EACH_COLUMN(c)
        {
            const size_t i = b * width + c;
            const vi sum = dot(s->x.sums[i], w, s->x.q + i * BLOCK_32);
            acc[c] = vf_fma(vf_of_vi(sum), vf_mul(d, vf_set1(s->x.scale[i])), acc[c]);
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
    strip_32(s, width, STEPS * STEP_BYTES, load_q8_0, dot_bytes);
}

INLINE void strip_q4_0(const struct matmul_strip *s, size_t width)
{
    strip_32(s, width, STEPS / 2 * STEP_BYTES, load_q4_0, dot_nibbles);
}

void STRIP_OF(q8_0)(const struct matmul_strip *s)
{
    by_width(s, strip_q8_0);
}

void STRIP_OF(q4_0)(const struct matmul_strip *s)
{
    by_width(s, strip_q4_0);
}
