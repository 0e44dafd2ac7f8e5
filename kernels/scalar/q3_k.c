#include <math.h>

#include "kernels/layout/symmetric.h"
#include "kernels/variants.h"

/* The codes once more, now that the scales are what is stored. */
static void encode(struct block_q3_k *b, const float x[256], const struct k3_head *head, uint8_t codes[256])
{
    for (int j = 0; j < 16; j++)
        for (int l = 16 * j; l < 16 * j + 16 && head->steps[j] != 0; l++)
            codes[l] = (uint8_t)(clamp_int(nearest_int(x[l] / head->steps[j]), -4, 3) + 4);
    k3_store(b, head, codes);
}

void quantize_q3_k__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q3_k *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], scales[16];
        uint8_t codes[256];
        struct k3_head head;
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        for (int j = 0; j < 16; j++)
            scales[j] = search_moves(16, 4, x + 16 * j, codes + 16 * j);
        k3_head_of(scales, &head);
        encode(&b[i], x, &head, codes);
    }
}

static void search_weighted(const float x[256], const float importance[256], uint8_t codes[256], float scales[16],
                            float sums[16])
{
    const float sigma2 = 2 * sum_squares__scalar(0, x, 256) / 256;
    for (int j = 0; j < 16; j++) {
        float weights[16], sum = 0;
        for (int l = 0; l < 16; l++) {
            const float v = x[16 * j + l];
            weights[l] = importance[16 * j + l] * sqrtf(sigma2 + v * v);
            sum += weights[l];
        }
        sums[j] = sum;
        scales[j] = search_symmetric(16, 4, x + 16 * j, weights, codes + 16 * j);
    }
}

void quantize_weighted_q3_k__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    struct block_q3_k *b = dst;
    (void)mean_square; /* the mean square of the block is what counts */
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256], scales[16], sums[16];
        uint8_t codes[256];
        struct k3_head head;
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        search_weighted(x, w, codes, scales, sums);
        head.d = f16_of_scale(search_symmetric(16, 32, scales, sums, head.scales));
        k3_steps(&head);
        encode(&b[i], x, &head, codes);
    }
}
