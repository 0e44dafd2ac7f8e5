/* A range of rows of a product, by one thread. Internal to kernels/compute. */
#ifndef QUANTD_KERNELS_ROWS_H
#define QUANTD_KERNELS_ROWS_H

#include "kernels/compute/activations.h"

/* Scratch of one thread, a multiple of COMPUTE_ALIGNMENT; 0: none. */
size_t rows_scratch_bytes(const struct matrix_view *v);

/* y[c * n_rows + r] for rows [first, end): whole groups, or up to the last row. */
void rows_compute(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end, float *y,
                  uint8_t *scratch);

/* Row @row as f32. */
void rows_decode(const struct matrix_view *v, size_t row, float *dst);

#endif
