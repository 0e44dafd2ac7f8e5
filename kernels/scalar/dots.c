/* Products of int16 rows, the definition: kernels/kernels.h, dots_fn. */
#include "kernels/variants.h"

void dots__scalar(const struct dots_tile *t)
{
    for (size_t i = 0; i < t->n_rows; i++)
        for (size_t j = 0; j < t->n_columns; j++) {
            const int16_t *a = t->a + i * t->a_stride, *b = t->b + j * t->b_stride;
            uint32_t sum = 0;
            for (size_t k = 0; k < t->n_k; k++)
                sum += (uint32_t)(a[k] * b[k]);
            t->c[i * t->c_stride + j] = (int32_t)sum;
        }
}
