#include "kernels/layout/symmetric_32.h"

#include <math.h>

#include "kernels/variants.h"

static void quantize(const struct symmetric_32 *k, void *dst, const float *src, size_t n_elements,
                     const float *importance, float mean_square)
{
    for (size_t i = 0; i < n_elements / 32; i++) {
        float x[32], weights[32];
        uint8_t codes[32];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(weights, (const char *)importance + i * sizeof weights, sizeof weights);
        for (int j = 0; j < 32; j++)
            weights[j] *= sqrtf(mean_square + x[j] * x[j]);
        const float scale = search_symmetric(32, k->n_max, x, weights, codes);
        k->store((char *)dst + i * k->block_bytes, scale, codes);
    }
}

void quantize_weighted_q4_0__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    quantize(&symmetric_q4_0, dst, src, n_elements, importance, mean_square);
}

void quantize_weighted_q5_0__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    quantize(&symmetric_q5_0, dst, src, n_elements, importance, mean_square);
}
