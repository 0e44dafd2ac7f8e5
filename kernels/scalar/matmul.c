/* Products with packed weights, the definition: kernels/kernels.h, "A strip of a product". */
#include "kernels/variants.h"

#include <math.h>
#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/layout/pack.h"
#include "kernels/layout/packed.h"
#include "kernels/scalar/half.h"

static int32_t dot(const int8_t *w, const int8_t *x, size_t n)
{
    int32_t sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += w[j] * x[j];
    return sum;
}

/* Codes of block @b (of 32) of column @c. */
static const int8_t *codes_of(const struct matmul_strip *s, size_t b, size_t c)
{
    return s->x.q + (b * s->width + c) * BLOCK_32;
}

static float scale_of(const struct matmul_strip *s, size_t b, size_t c)
{
    return s->x.scale[b * s->width + c];
}

/* One block of a row with one column, on top of @acc. */
typedef float step_fn(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc);

static float step_q8_0(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q8_0 *w = block;
    return fmaf((float)dot(w->q, codes_of(s, b, c), BLOCK_32), f32_of_f16(w->d) * scale_of(s, b, c), acc);
}

static float step_q4_0(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q4_0 *w = block;
    int8_t q[BLOCK_32];
    for (size_t j = 0; j < 16; j++) {
        q[j] = (int8_t)((w->q[j] & 15) - 8);
        q[j + 16] = (int8_t)((w->q[j] >> 4) - 8);
    }
    return fmaf((float)dot(q, codes_of(s, b, c), BLOCK_32), f32_of_f16(w->d) * scale_of(s, b, c), acc);
}

/*
 * t of kernels.h: over @n sub-blocks of a block of 256 in order, the sum of products of each times its scale, from 0.
 */
static float sum_scaled(const struct matmul_strip *s, const int8_t q[BLOCK_256], const int8_t *scales, size_t n,
                        size_t b, size_t c)
{
    const size_t size = BLOCK_256 / n;
    float t = 0;
    for (size_t k = 0; k < n; k++) {
        const int8_t *x = codes_of(s, b * 8 + k * size / BLOCK_32, c) + k * size % BLOCK_32;
        t = fmaf((float)dot(q + k * size, x, size), (float)scales[k], t);
    }
    return t;
}

/* Element i of pairs of bits of a block of 256 (kernels/layout/blocks.h, q2_k). */
static int pair_k2(const uint8_t q[64], size_t i)
{
    return q[i / 128 * BLOCK_32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

static float step_q2_k(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q2_k *w = block;
    int8_t q[BLOCK_256], scales[16];
    int32_t low = 0;
    for (size_t i = 0; i < BLOCK_256; i++)
        q[i] = (int8_t)pair_k2(w->q, i);
    for (size_t k = 0; k < 16; k++) {
        scales[k] = w->scales[k] & 15;
        low += (w->scales[k] >> 4) * (s->x.sums[(b * 16 + k) * s->width + c] / -32);
    }
    acc = fmaf(sum_scaled(s, q, scales, 16, b, c), f32_of_f16(w->d) * scale_of(s, b, c), acc);
    return fmaf(-(float)low, f32_of_f16(w->dmin) * scale_of(s, b, c), acc);
}

static float step_q3_k(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q3_k *w = block;
    uint64_t packed[2];
    int8_t q[BLOCK_256], scales[16];
    unpack_scales_q3(w->scales, packed);
    memcpy(scales, packed, sizeof scales);
    for (size_t k = 0; k < 16; k++)
        scales[k] = (int8_t)(scales[k] - 32);
    for (size_t i = 0; i < BLOCK_256; i++)
        q[i] = (int8_t)((pair_k2(w->q, i) | (w->high[i % 32] >> i / 32 & 1) << 2) - 4);
    return fmaf(sum_scaled(s, q, scales, 16, b, c), f32_of_f16(w->d) * scale_of(s, b, c), acc);
}

/* Eight scales and minima in 12 bytes: q4_k, q5_k. */
static float step_affine_k(const struct matmul_strip *s, const int8_t q[BLOCK_256], const uint8_t packed[12], float d,
                           float dmin, size_t b, size_t c, float acc)
{
    uint8_t scales[8], mins[8];
    int8_t as_signed[8];
    unpack_scales_k4(packed, scales, mins);
    memcpy(as_signed, scales, sizeof as_signed); /* of 6 bits */
    int32_t low = 0;
    for (size_t k = 0; k < 8; k++)
        low += mins[k] * s->x.pairs[(b * s->width + c) * 8 + k];
    acc = fmaf(sum_scaled(s, q, as_signed, 8, b, c), d * scale_of(s, b, c), acc);
    return fmaf(-(float)low, dmin * scale_of(s, b, c), acc);
}

/* Element i of nibbles of a block of 256 (kernels/layout/blocks.h, q4_k). */
static int nibble_k4(const uint8_t q[128], size_t i)
{
    return q[i / 64 * BLOCK_32 + i % 32] >> (i / 32 % 2 * 4) & 15;
}

static float step_q4_k(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q4_k *w = block;
    int8_t q[BLOCK_256];
    for (size_t i = 0; i < BLOCK_256; i++)
        q[i] = (int8_t)nibble_k4(w->q, i);
    return step_affine_k(s, q, w->scales, f32_of_f16(w->d), f32_of_f16(w->dmin), b, c, acc);
}

static float step_q5_k(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q5_k *w = block;
    int8_t q[BLOCK_256];
    for (size_t i = 0; i < BLOCK_256; i++)
        q[i] = (int8_t)(nibble_k4(w->q, i) | (w->high[i % 32] >> i / 32 & 1) << 4);
    return step_affine_k(s, q, w->scales, f32_of_f16(w->d), f32_of_f16(w->dmin), b, c, acc);
}

/* Element i of a q6_k block (kernels/layout/blocks.h). */
static int8_t q6_k_value(const struct block_q6_k *w, size_t i)
{
    const size_t half = i / 128, l = i % 128;
    const int low = w->low[64 * half + l % 64] >> (l / 64 * 4) & 15;
    const int high = w->high[32 * half + l % 32] >> (l / 32 * 2) & 3;
    return (int8_t)((low | high << 4) - 32);
}

static float step_q6_k(const struct matmul_strip *s, const void *block, size_t b, size_t c, float acc)
{
    const struct block_q6_k *w = block;
    int8_t q[BLOCK_256];
    for (size_t i = 0; i < BLOCK_256; i++)
        q[i] = q6_k_value(w, i);
    return fmaf(sum_scaled(s, q, w->scales, 16, b, c), f32_of_f16(w->d) * scale_of(s, b, c), acc);
}

/* Row @r of group @g. */
static inline void strip_row(const struct matmul_strip *s, enum qd_layout layout, enum qd_type type, step_fn *step,
                             size_t g, size_t r)
{
    const size_t n_rows = qd_layout_info(layout)->rows;
    const uint8_t *group = s->w + g * n_rows * s->n_blocks * qd_type_info(type)->block_bytes;
    float *y = s->y + g * n_rows + r;
    for (size_t b = 0; b < s->n_blocks; b++) {
        uint8_t block[sizeof(struct block_q6_k)]; /* the largest */
        layout_unpack_row(layout, type, block, group, r, s->n_blocks, b, b + 1);
        for (size_t c = 0; c < s->width; c++)
            y[c * s->y_stride] = step(s, block, b, c, b ? y[c * s->y_stride] : 0);
    }
}

static inline void strip(const struct matmul_strip *s, enum qd_layout layout, enum qd_type type, step_fn *step)
{
    for (size_t g = 0; g < s->n_groups; g++)
        for (size_t r = 0; r < qd_layout_info(layout)->rows; r++)
            strip_row(s, layout, type, step, g, r);
}

/* ---- codes alone ---- */

static void values_i8(const uint8_t block[BLOCK_32], uint8_t flip, int zero, int8_t q[BLOCK_32])
{
    (void)flip;
    (void)zero; /* always 0 */
    memcpy(q, block, BLOCK_32);
}

static void values_u4(const uint8_t block[BLOCK_32], uint8_t flip, int zero, int8_t q[BLOCK_32])
{
    for (size_t j = 0; j < 16; j++) {
        q[j] = (int8_t)(((block[j] ^ flip) & 15) - zero);
        q[j + 16] = (int8_t)(((block[j] ^ flip) >> 4) - zero);
    }
}

typedef void values_fn(const uint8_t block[BLOCK_32], uint8_t flip, int zero, int8_t q[BLOCK_32]);

/* Row @r of group @g. */
static void codes_row(const struct matmul_strip *s, enum qd_layout layout, enum qd_type type, values_fn *values,
                      size_t g, size_t r)
{
    const size_t n_rows = qd_layout_info(layout)->rows;
    const uint8_t *group = s->w + g * n_rows * s->n_blocks * packed_block_bytes(type);
    const struct code_scales *k = &s->codes;
    const bool behind = type == QD_TYPE_I8 && !k->scale_block; /* comes the scale, which is the row's */
    float *y = s->y + g * n_rows + r, d = 0;
    for (size_t b = 0; b < s->n_blocks; b++) {
        uint8_t block[BLOCK_32];
        int8_t q[BLOCK_32];
        const size_t at = b >> k->shift;
        memcpy(&d, k->scale + g * k->scale_group + at * k->scale_block + r * sizeof d, sizeof d);
        const int zero = k->zero ? k->zero[g * k->zero_group + at * k->zero_block + r / 2] >> (r % 2 * 4) & 15 : 8;
        layout_unpack_row(layout, type, block, group, r, s->n_blocks, b, b + 1);
        values(block, k->flip, zero, q);
        for (size_t c = 0; c < s->width; c++) {
            const float xs = scale_of(s, b, c);
            y[c * s->y_stride] =
                fmaf((float)dot(q, codes_of(s, b, c), BLOCK_32), behind ? xs : d * xs, b ? y[c * s->y_stride] : 0);
        }
    }
    for (size_t c = 0; c < s->width && behind; c++)
        y[c * s->y_stride] *= d;
}

static inline void strip_codes(const struct matmul_strip *s, enum qd_layout layout, enum qd_type type,
                               values_fn *values)
{
    for (size_t g = 0; g < s->n_groups; g++)
        for (size_t r = 0; r < qd_layout_info(layout)->rows; r++)
            codes_row(s, layout, type, values, g, r);
}

#define MATMUL_CODES(name, NAME, type, TYPE)                             \
    void matmul_##type##_##name##__scalar(const struct matmul_strip *s)  \
    {                                                                    \
        strip_codes(s, QD_LAYOUT_##NAME, QD_TYPE_##TYPE, values_##type); \
    }
#define MATMUL(name, NAME, type, TYPE)                                  \
    void matmul_##type##_##name##__scalar(const struct matmul_strip *s) \
    {                                                                   \
        strip(s, QD_LAYOUT_##NAME, QD_TYPE_##TYPE, step_##type);        \
    }
#define MATMULS(name, NAME)          \
    MATMUL(name, NAME, q8_0, Q8_0)   \
    MATMUL(name, NAME, q4_0, Q4_0)   \
    MATMUL(name, NAME, q2_k, Q2_K)   \
    MATMUL(name, NAME, q3_k, Q3_K)   \
    MATMUL(name, NAME, q4_k, Q4_K)   \
    MATMUL(name, NAME, q5_k, Q5_K)   \
    MATMUL(name, NAME, q6_k, Q6_K)   \
    MATMUL_CODES(name, NAME, i8, I8) \
    MATMUL_CODES(name, NAME, u4, U4)
MATMULS(r4k4p128, R4K4P128)
MATMULS(r4k8p128, R4K8P128)
MATMULS(r8k4p128, R8K4P128)
MATMULS(r16k4p128, R16K4P128)
