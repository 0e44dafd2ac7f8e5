#include "kernels/scalar/affine_k.h"
#include "kernels/variants.h"

void quantize_q4_k__scalar(void *dst, const float *src, size_t n_elements)
{
    affine_k_quantize(&affine_q4_k, dst, src, n_elements, NULL);
}

void quantize_weighted_q4_k__scalar(void *dst, const float *src, size_t n_elements, const float *importance,
                                    float mean_square)
{
    (void)mean_square; /* the mean square of the block is what counts */
    affine_k_quantize(&affine_q4_k, dst, src, n_elements, importance);
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
