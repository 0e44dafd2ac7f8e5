/* Activations, the definition: kernels/kernels.h, "Activations". */
#include "kernels/variants.h"

#include <math.h>
#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"

/* Nearest, ties to even, of |a| <= 2^22. */
static int nearest(float a)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    return (int)((a + magic) - magic);
}

/* Element @j of a row at any address. */
static float load_f32(const float *x, size_t j)
{
    float f;
    memcpy(&f, (const char *)x + j * sizeof f, sizeof f);
    return f;
}

static float largest_magnitude(const float *x, size_t n, float *ret_first)
{
    float largest = 0, first = 0;
    for (size_t j = 0; j < n; j++) {
        const float f = load_f32(x, j);
        if (!isfinite(f))
            return NAN;
        if (fabsf(f) > largest) {
            largest = fabsf(f);
            first = f;
        }
    }
    *ret_first = first;
    return largest;
}

/* The scale of @n values, and what they are multiplied by to become codes; 0 where all codes are 0. */
static float scale_32(float largest, float *ret_inverse)
{
    const float inverse = 127.0f / largest;
    *ret_inverse = inverse < INFINITY ? inverse : 0; /* none of zeros */
    return f32_of_f16(f16_of_f32(largest / 127.0f));
}

static float scale_256(float first, float *ret_inverse)
{
    const float inverse = -127.0f / first;
    *ret_inverse = fabsf(inverse) < INFINITY ? inverse : 0;
    return *ret_inverse != 0 ? 1.0f / inverse : 0;
}

static void sum_codes(const int8_t *q, const struct activation_source *src, int32_t *sums)
{
    for (size_t u = 0; u < BLOCK_32 / src->unit; u++) {
        int32_t sum = 0;
        for (size_t j = 0; j < src->unit; j++)
            sum += q[u * src->unit + j];
        sums[u * src->width] = -src->offset * sum;
    }
}

/* Elements of block @b (of 32) of column @c. */
static void make_codes(struct activation_tile *t, const struct activation_source *src, size_t b, size_t c,
                       float inverse)
{
    const float *x = src->x + c * src->stride + b * BLOCK_32;
    int8_t *q = t->q + (b * src->width + c) * BLOCK_32;
    for (size_t j = 0; j < BLOCK_32; j++) {
        int v = inverse != 0 ? nearest(load_f32(x, j) * inverse) : 0; /* also where x is NaN or Inf */
        q[j] = (int8_t)(v > 127 ? 127 : v);
    }
    sum_codes(q, src, t->sums + b * (BLOCK_32 / src->unit) * src->width + c);
}

void activate_32__scalar(struct activation_tile *dst, const struct activation_source *src)
{
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++) {
            float first, inverse = 0;
            const float largest = largest_magnitude(src->x + c * src->stride + b * BLOCK_32, BLOCK_32, &first);
            dst->scale[b * src->width + c] = isnan(largest) ? NAN : scale_32(largest, &inverse);
            make_codes(dst, src, b, c, inverse);
        }
}

static void sum_pairs(const struct activation_tile *t, const struct activation_source *src, size_t b, size_t c)
{
    for (size_t s = 0; s < 8; s++) {
        int16_t sum = 0;
        for (size_t j = 0; j < BLOCK_32; j++)
            sum = (int16_t)(sum + t->q[((b * 8 + s) * src->width + c) * BLOCK_32 + j]);
        t->pairs[(b * src->width + c) * 8 + s] = sum;
    }
}

void activate_256__scalar(struct activation_tile *dst, const struct activation_source *src)
{
    for (size_t b = 0; b < src->n_blocks; b++)
        for (size_t c = 0; c < src->width; c++) {
            float first = 0, inverse = 0;
            const float largest = largest_magnitude(src->x + c * src->stride + b * BLOCK_256, BLOCK_256, &first);
            dst->scale[b * src->width + c] = isnan(largest) ? NAN : scale_256(first, &inverse);
            for (size_t s = 0; s < 8; s++)
                make_codes(dst, src, b * 8 + s, c, inverse);
            sum_pairs(dst, src, b, c);
        }
}
