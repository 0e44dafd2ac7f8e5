#include "kernels/layout/q4_k.h"

#include <math.h>

#include "kernels/variants.h"

static const struct affine_trials plain = {-1.0f, 0.1f, 20, false}, weighted = {-0.9f, 0.05f, 36, false};

/* Without importance an element weighs its magnitude and the root mean square of its 32. */
static void weights_plain(const float *x, float *ret)
{
    float sum = 0;
    for (int l = 0; l < 32; l++)
        sum += x[l] * x[l];
    const float rms = sqrtf(sum / 32);
    for (int l = 0; l < 32; l++)
        ret[l] = rms + fabsf(x[l]);
}

/* What the search finds for the sub-blocks. */
struct fits {
    float scales[8], mins[8];
    float weights[8]; /* with importance: sums of weights */
};

static void search_plain(const float x[256], uint8_t codes[256], struct fits *ret)
{
    for (int j = 0; j < 8; j++) {
        float weights[32];
        weights_plain(x + 32 * j, weights);
        ret->scales[j] = search_affine(32, 15, x + 32 * j, weights, &plain, codes + 32 * j, &ret->mins[j]);
    }
}

static void search_weighted(const float x[256], const float importance[256], uint8_t codes[256], struct fits *ret)
{
    const float sigma2 = 2 * sum_squares__scalar(0, x, 256) / 256;
    for (int j = 0; j < 8; j++) {
        float weights[32], sum = 0;
        for (int l = 0; l < 32; l++) {
            const float v = x[32 * j + l];
            weights[l] = importance[32 * j + l] * sqrtf(sigma2 + v * v);
            sum += weights[l];
        }
        ret->weights[j] = sum;
        ret->scales[j] = search_affine(32, 15, x + 32 * j, weights, &weighted, codes + 32 * j, &ret->mins[j]);
    }
}

/* The codes once more, now that the scales are what is stored. */
static void encode(struct block_q4_k *b, const float x[256], const struct k4_head *head, uint8_t codes[256])
{
    for (int j = 0; j < 8; j++)
        for (int l = 32 * j; l < 32 * j + 32 && head->steps[j] != 0; l++)
            codes[l] = (uint8_t)clamp_int(nearest_int((x[l] + head->lows[j]) / head->steps[j]), 0, 15);
    b->d = head->d;
    b->dmin = head->dmin;
    memcpy(b->scales, head->scales, sizeof b->scales);
    pack_nibbles_256(b->q, codes);
}

void quantize_q4_k__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_k *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256];
        uint8_t codes[256];
        struct fits fits;
        struct k4_head head;
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        search_plain(x, codes, &fits);
        k4_head_of(fits.scales, fits.mins, NULL, &head);
        encode(&b[i], x, &head, codes);
    }
}

void quantize_weighted_q4_k__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    struct block_q4_k *b = dst;
    (void)mean_square; /* the mean square of the block is what counts */
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256];
        uint8_t codes[256];
        struct fits fits;
        struct k4_head head;
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        search_weighted(x, w, codes, &fits);
        k4_head_of(fits.scales, fits.mins, fits.weights, &head);
        encode(&b[i], x, &head, codes);
    }
}

void dequantize_q4_k__scalar(float *dst, const void *src, size_t n_elements)
{
    const struct block_q4_k *b = src;
    for (size_t i = 0; i < n_elements / 256; i++) {
        const float d = f32_of_f16(b[i].d), dmin = f32_of_f16(b[i].dmin);
        uint8_t scales[8], mins[8];
        float x[256];
        unpack_scales_k4(b[i].scales, scales, mins);
        for (int j = 0; j < 8; j++) {
            const float step = d * scales[j], low = dmin * mins[j];
            for (int l = 0; l < 32; l++)
                x[32 * j + l] = step * (float)(b[i].q[32 * (j / 2) + l] >> 4 * (j % 2) & 15) - low;
        }
        memcpy((char *)dst + i * sizeof x, x, sizeof x);
    }
}
