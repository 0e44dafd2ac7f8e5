#include "kernels/layout/affine_32.h"

#include <math.h>

#include "kernels/variants.h"

static void quantize(const struct affine_32 *k, void *dst, const float *src, size_t n_elements, const float *importance,
                     float mean_square)
{
    for (size_t i = 0; i < n_elements / 32; i++) {
        float x[32], weights[32], min;
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(weights, (const char *)importance + i * sizeof weights, sizeof weights);
        for (int j = 0; j < 32; j++)
            weights[j] *= sqrtf(mean_square + x[j] * x[j]);
        const float scale = search_affine(32, k->n_max, x, weights, &affine_32_trials, codes, &min);
        k->store((char *)dst + i * k->block_bytes, scale, -min, codes);
    }
}

void quantize_weighted_q4_1__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    quantize(&affine_q4_1, dst, src, n_elements, importance, mean_square);
}

void quantize_weighted_q5_1__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    quantize(&affine_q5_1, dst, src, n_elements, importance, mean_square);
}
