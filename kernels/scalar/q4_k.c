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
