#include "kernels/layout/symmetric.h"
#include "kernels/variants.h"

/* The codes once more, now that the scales are what is stored. */
static void encode(struct block_q6_k *b, const float x[256], const struct k6_head *head, uint8_t codes[256])
{
    for (int j = 0; j < 16; j++)
        for (int l = 16 * j; l < 16 * j + 16 && head->steps[j] != 0; l++)
            codes[l] = (uint8_t)(clamp_int(nearest_int(x[l] / head->steps[j]), -32, 31) + 32);
    pack_sixes_256(b->low, b->high, codes);
    memcpy(b->scales, head->scales, sizeof b->scales);
    b->d = head->d;
}

/* @weights: of the elements. */
static void quantize_block(struct block_q6_k *b, const float x[256], const float weights[256])
{
    float scales[16];
    uint8_t codes[256];
    struct k6_head head;
    for (int j = 0; j < 16; j++)
        scales[j] = search_symmetric(16, 32, x + 16 * j, weights + 16 * j, codes + 16 * j);
    k6_head_of(scales, &head);
    if (head.zero)
        memset(b, 0, sizeof *b);
    else
        encode(b, x, &head, codes);
}

/* Without importance an element weighs its square. */
void quantize_q6_k__scalar(void *dst, const float *src, size_t n_elements)
{
    struct block_q6_k *b = dst;
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        for (int l = 0; l < 256; l++)
            w[l] = x[l] * x[l];
        quantize_block(&b[i], x, w);
    }
}

void quantize_weighted_q6_k__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    struct block_q6_k *b = dst;
    (void)mean_square; /* the importance alone counts */
    for (size_t i = 0; i < n_elements / 256; i++) {
        float x[256], w[256];
        memcpy(x, (const char *)src + i * sizeof x, sizeof x);
        memcpy(w, (const char *)importance + i * sizeof w, sizeof w);
        quantize_block(&b[i], x, w);
    }
}
