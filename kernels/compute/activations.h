/* Activations prepared for the kernels of a view (quantd/matmul.h: qd_activations). Internal to kernels/compute. */
#ifndef QUANTD_KERNELS_ACTIVATIONS_H
#define QUANTD_KERNELS_ACTIVATIONS_H

#include "kernels/compute/view.h"

struct qd_activations {
    struct activation_rule rule;
    size_t n, n_cols, n_codes, columns; /* n_codes: with the zeros that fill up the last block */
    struct activation_tile all;         /* of all columns; tiles lie one behind the other */
    float *x;                           /* [n][n_cols], with floats alone */
};

/* Bytes for @n columns, a multiple of COMPUTE_ALIGNMENT; 0: overflow. */
size_t activations_bytes(const struct matrix_view *v, size_t n);

/* Lays out activations in @memory, aligned and of that size; nothing is filled yet. */
struct qd_activations *activations_place(const struct matrix_view *v, size_t n, void *memory);

/* Tasks that fill them, each by any thread; @x: [n][n_cols]. */
size_t activations_n_tasks(const struct qd_activations *a);
void activations_fill(const struct qd_activations *a, const struct ops *ops, const float *x, size_t task);

/* Were these prepared for weights like @v? */
bool activations_fit(const struct qd_activations *a, const struct matrix_view *v);

/* A tile that starts at column @first: *ret_width columns of it. */
struct activation_tile activations_tile(const struct qd_activations *a, size_t first, size_t *ret_width);

#endif
