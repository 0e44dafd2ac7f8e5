/*
 * What a weight matrix is to the kernels: which way its products go, and in what pieces. Made from a checked qd_matrix;
 * a plain value.
 *
 *   integers  groups of rows times quantized activations (struct matmul_strip). Portable rows, and the rows that are
 *             left behind the groups of a packed matrix, are packed into scratch first.
 *   floats    rows decoded to f32 times f32 activations: types without a packed form
 */
#ifndef QUANTD_KERNELS_VIEW_H
#define QUANTD_KERNELS_VIEW_H

#include <quantd/matmul.h>

#include "kernels/kernels.h"
#include "kernels/layout/codes.h"

enum { COMPUTE_ALIGNMENT = 64 };

/* How activations are prepared for a type; block 0: left as floats. */
struct activation_rule {
    uint32_t block, unit; /* elements */
    int32_t offset;
};

struct matrix_view {
    const uint8_t *data;
    enum qd_type type, kernel; /* kernel: whose products it takes; u4's of i4 */
    const struct ops *ops;
    struct activation_rule activation;
    enum qd_layout layout; /* that is computed with */
    bool packed;           /* the data are in that layout already */
    size_t n_rows, n_cols;
    size_t n_blocks, row_bytes;
    size_t group_rows; /* 1 with floats */
    size_t columns;    /* of a tile; 1 with floats */
    bool is_codes;     /* codes alone: data, scales and zero points stand as @codes says */
    struct code_shape codes;
    const uint8_t *scales, *zeros; /* zeros: NULL where all have the type's own */
};

/* Elements of a column of activations as it is computed with: zeros fill up its last block. */
static inline size_t view_n_codes(const struct matrix_view *v)
{
    return v->is_codes ? v->n_blocks * 32 : v->n_cols;
}

/* QD_E_INVALID: shape, type or layout do not fit; says which. */
int matrix_view(const struct qd_matrix *w, struct matrix_view *ret, struct qd_error *err);

static inline size_t view_group_bytes(const struct matrix_view *v)
{
    return v->group_rows * v->row_bytes;
}

#endif
