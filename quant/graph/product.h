/*
 * Products of f32 matrices of any size on the kernel `gemm`: columns of b go into panels of GEMM_COLUMNS, panels are
 * the tasks of the call's threads. Sums are one fma after the other along k, so the result does not depend on how the
 * work is cut.
 */
#ifndef QUANTD_GRAPH_PRODUCT_H
#define QUANTD_GRAPH_PRODUCT_H

#include "quant/graph/op.h"

/*
 * Fills @panel [n_k][GEMM_COLUMNS] with rows [k, k + n_k) and columns [j, j + n_columns) of b; what lies beyond
 * @n_columns is zero.
 */
typedef void product_pack_fn(const void *data, float *panel, uint64_t k, uint64_t n_k, uint64_t j, uint64_t n_columns);

struct product {
    float *c; /* [m] rows of [n], c_stride apart; added to */
    const float *a;
    const float *b;        /* b[k][j] at k * b_stride + j * b_step; NULL: @pack makes the panels */
    product_pack_fn *pack; /* any thread */
    const void *pack_data;
    uint64_t c_stride, a_stride, a_step, b_stride, b_step;
    uint64_t m, n, k;
};

/* Adds the product to c. */
int product_run(struct op_call *c, const struct product *p);

#endif
