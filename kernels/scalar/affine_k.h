/* The definition of the super-blocks of kernels/layout/affine_k.h; scalar's kernels, and what vectors fall back on. */
#ifndef QUANTD_KERNELS_SCALAR_AFFINE_K_H
#define QUANTD_KERNELS_SCALAR_AFFINE_K_H

#include "kernels/layout/affine_k.h"

/* quantize_fn of type @k, quantize_weighted_fn where @importance is not NULL */
void affine_k_quantize(const struct affine_k *k, void *dst, const float *src, size_t n_elements,
                       const float *importance);

#endif
