/* iq4_nl and iq4_xs. */
#include "kernels/layout/iq4.h"

#include <math.h>

#include "kernels/scalar/ends.h"
#include "kernels/variants.h"

/* Code of the value nearest to @x, of two equally near the upper; 15 for NaN. */
static uint8_t code_of(float x)
{
    int n_not_below = 0;
    for (int step = 8; step > 0; step /= 2)
        n_not_below += step * !(x < iq4_halfway[n_not_below + step]);
    return (uint8_t)n_not_below;
}

struct sums {
    float qx, q2; /* of weight * value * x, of weight * value^2 */
};

/* Sums for the values nearest to @inverse * x. */
static struct sums sums_of(const float x[32], const float weights[32], float inverse)
{
    struct sums sums = {0, 0};
    for (int j = 0; j < 32; j++) {
        const float value = iq4_values[code_of(inverse * x[j])];
        sums.qx += weights[j] * value * x[j];
        sums.q2 += weights[j] * value * value;
    }
    return sums;
}

/*
 * The scale with x ~ scale * value of least weighted error among 16: one that gives the extreme a value near the
 * highest, 15 near the lowest.
 */
static float search(const float x[32], const float weights[32])
{
    const float extreme = extreme_of(32, x);
    if (fabsf(extreme) < 1e-15f)
        return 0;
    struct sums sums = sums_of(x, weights, 1 / (-extreme / IQ4_LOWEST));
    float scale = sums.q2 > 0 ? sums.qx / sums.q2 : 0;
    float best = scale * sums.qx;
    for (int i = -IQ4_STEPS; i <= IQ4_STEPS; i++) {
        sums = sums_of(x, weights, (float)(i + IQ4_LOWEST) / extreme);
        if (sums.q2 > 0 && sums.qx * sums.qx > best * sums.q2) {
            scale = sums.qx / sums.q2;
            best = scale * sums.qx;
        }
    }
    return scale;
}

/* Without importance an element weighs its square. With it @mean2 counts: twice the mean square of the block. */
static void weights_of(const float x[32], const float *importance, float mean2, float ret[32])
{
    for (int j = 0; j < 32; j++)
        ret[j] = importance ? importance[j] * sqrtf(mean2 + x[j] * x[j]) : x[j] * x[j];
}

static void encode(const float x[32], float inverse, uint8_t q[16])
{
    for (int j = 0; j < 16; j++)
        q[j] = (uint8_t)(code_of(inverse * x[j]) | code_of(inverse * x[j + 16]) << 4);
}

static void quantize_nl(struct block_iq4_nl *b, const float x[32], const float *importance)
{
    float weights[32];
    weights_of(x, importance, sum_squares__scalar(0, x, 32) * (2.0f / 32), weights);
    const float scale = search(x, weights);
    b->d = iq4_f16(scale);
    encode(x, scale != 0 ? 1 / scale : 0, b->q);
}

static void quantize_xs(struct block_iq4_xs *b, const float x[256], const float *importance)
{
    const float mean2 = sum_squares__scalar(0, x, 256) * (2.0f / 256);
    float scales[8], weights[32];
    struct iq4_xs_head head;
    for (int j = 0; j < 8; j++) {
        weights_of(x + 32 * j, importance ? importance + 32 * j : NULL, mean2, weights);
        scales[j] = search(x + 32 * j, weights);
    }
    iq4_xs_head_of(scales, &head);
    b->d = head.d;
    b->scales_high = head.scales_high;
    memcpy(b->scales_low, head.scales_low, sizeof b->scales_low);
    for (int j = 0; j < 8; j++)
        encode(x + 32 * j, head.inverse[j], b->q + 16 * j);
}

void quantize_iq4_nl__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_iq4_nl *b = dst;
    for (size_t i = 0; i < n_elements / 32; i++) {
        float x[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_nl(&b[i], x, NULL);
    }
}

void quantize_weighted_iq4_nl__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                      float mean_square)
{
    struct block_iq4_nl *b = dst;
    (void)mean_square; /* the mean square of the block is what counts */
    for (size_t i = 0; i < n_elements / 32; i++) {
        float x[32], w[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        quantize_nl(&b[i], x, w);
    }
}

void quantize_iq4_xs__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_iq4_xs *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        quantize_xs(&b[i], x, NULL);
    }
}

void quantize_weighted_iq4_xs__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                      float mean_square)
{
    struct block_iq4_xs *b = dst;
    (void)mean_square; /* the mean square of the block is what counts */
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        quantize_xs(&b[i], x, w);
    }
}
