/* Products of f32 matrices, the definition: kernels/kernels.h, gemm_fn. */
#include "kernels/variants.h"

#include <math.h>

void gemm__scalar(const struct gemm_tile *t)
{
    for (size_t i = 0; i < t->n_rows; i++)
        for (size_t j = 0; j < t->n_columns; j++) {
            float sum = t->c[i * t->c_stride + j];
            for (size_t k = 0; k < t->n_k; k++)
                sum = fmaf(t->a[i * t->a_stride + k * t->a_step], t->b[k * t->b_stride + j], sum);
            t->c[i * t->c_stride + j] = sum;
        }
}
