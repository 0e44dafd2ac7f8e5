/* Activations: kernels/scalar/activate.c over vectors. */
#include "kernels/variants.h"

#include <math.h>

#include "kernels/lanes/vec.h"
#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"

enum { FLOAT = sizeof(float) };

/* Lane by lane the largest bits of |x|, which order as magnitudes do: NaN above Inf above all numbers. */
static inline vi magnitudes(const char *x, size_t n)
{
    vi m = vi_set1(0);
    for (size_t j = 0; j < n; j += LANES)
        m = vi_max(m, vi_bits(vf_abs(vf_load(x + j * FLOAT))));
    return m;
}

/* The largest of them; false where one is NaN or Inf. */
static inline bool largest_of(vi m, float *ret)
{
    *ret = 0;
    if (!vm_all(vf_lt(vf_bits(m), vf_set1(INFINITY))))
        return false;
    *ret = vf_largest(vf_bits(m));
    return true;
}

/* The first of @n x whose magnitude is @largest. */
static inline float first_of_magnitude(const char *x, size_t n, float largest)
{
    for (size_t j = 0; j < n; j += LANES) {
        const unsigned found = vm_bits(vf_eq(vf_abs(vf_load(x + j * FLOAT)), vf_set1(largest)));
        if (found) {
            float first;
            memcpy(&first, x + (j + (size_t)__builtin_ctz(found)) * FLOAT, sizeof first);
            return first;
        }
    }
    return 0; /* not reached: one of them is the largest */
}

static inline int32_t sum_of(const int8_t *q, size_t n)
{
    int32_t sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += q[j];
    return sum;
}

/*
 * Codes of block @b (of 32) of column @c, and the sums of its units. @inverse is 0 where all codes are 0; returns the
 * sum of all.
 */
static inline int16_t make_codes(struct activation_tile *t, const struct activation_source *src, const char *x,
                                 size_t b, size_t c, float inverse)
{
    int8_t *q = t->q + (b * src->width + c) * BLOCK_32;
    for (size_t j = 0; j < BLOCK_32; j += LANES)
        vi_store_bytes(q + j, vi_min(vi_of_vf(vf_mul(vf_load(x + j * FLOAT), vf_set1(inverse))), vi_set1(127)));
    const int32_t first = sum_of(q, BLOCK_32 / 2), last = sum_of(q + BLOCK_32 / 2, BLOCK_32 / 2);
    int32_t *sums = t->sums + b * (BLOCK_32 / src->unit) * src->width + c;
    if (src->unit == BLOCK_32) {
        sums[0] = -src->offset * (first + last);
    } else {
        sums[0] = -src->offset * first;
        sums[src->width] = -src->offset * last;
    }
    return (int16_t)(first + last);
}

static inline bool activate_block_32(struct activation_tile *t, const struct activation_source *src, size_t b, size_t c)
{
    const char *x = (const char *)(src->x + c * src->stride + b * BLOCK_32);
    float largest;
    if (!largest_of(magnitudes(x, BLOCK_32), &largest))
        return false;
    const float inverse = 127.0f / largest;
    t->scale[b * src->width + c] = f32_of_f16(f16_of_f32(largest / 127.0f));
    (void)make_codes(t, src, x, b, c, inverse < INFINITY ? inverse : 0); /* 32 has no pairs */
    return true;
}

static inline bool activate_block_256(struct activation_tile *t, const struct activation_source *src, size_t b,
                                      size_t c)
{
    const char *x = (const char *)(src->x + c * src->stride + b * BLOCK_256);
    float largest, inverse = 0;
    if (!largest_of(magnitudes(x, BLOCK_256), &largest))
        return false;
    if (127.0f / largest < INFINITY)
        inverse = -127.0f / first_of_magnitude(x, BLOCK_256, largest);
    t->scale[b * src->width + c] = inverse != 0 ? 1.0f / inverse : 0;
    for (size_t i = 0; i < 8; i++)
        t->pairs[(b * src->width + c) * 8 + i] = make_codes(t, src, x + i * BLOCK_32 * FLOAT, b * 8 + i, c, inverse);
    return true;
}

/* A tile with NaN or Inf is left to the definition. */
void VARIANT(activate_32)(struct activation_tile *dst, const struct activation_source *src)
{
    bool finite = true;
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++)
            finite &= activate_block_32(dst, src, b, c);
    if (!finite)
        activate_32__scalar(dst, src);
}

void VARIANT(activate_256)(struct activation_tile *dst, const struct activation_source *src)
{
    bool finite = true;
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++)
            finite &= activate_block_256(dst, src, b, c);
    if (!finite)
        activate_256__scalar(dst, src);
}
