/* Matrices of a tensor: what arithmetic takes. */
#include <quantd/quantd.h>

#include "kernels/core/checked.h"
#include "kernels/core/error.h"

enum { DIMS_MIN = 2, DIMS_MAX = 4 };

static uint64_t n_matrices(const struct qd_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t d = 2; d < t->n_dims; d++)
        if (!checked_mul(n, t->shape[d], &n))
            return 0;
    return n;
}

static int check_shape(const struct qd_tensor *t, uint64_t i, struct qd_error *err)
{
    uint64_t n = n_matrices(t);
    if (t->n_dims < DIMS_MIN || t->n_dims > DIMS_MAX)
        return err_new(err, QD_E_INVALID, "tensor '%s' has %u dimension%s: matrices have %d to %d", t->name, t->n_dims,
                       t->n_dims == 1 ? "" : "s", DIMS_MIN, DIMS_MAX);
    if (i >= n)
        return err_new(err, QD_E_INVALID, "tensor '%s' has %llu matri%s, not %llu", t->name, (unsigned long long)n,
                       n == 1 ? "x" : "ces", (unsigned long long)i + 1);
    return 0;
}

/* The tables were checked: codes, scales and zero points fit each other. */
static int matrix_of_codes(const struct qd_tensor *t, uint64_t i, struct qd_matrix *ret, struct qd_error *err)
{
    const struct qd_codes *c = t->codes;
    if (i > 0)
        return err_new(err, QD_E_INVALID, "tensor '%s' is one matrix, not %llu", t->name, (unsigned long long)i + 1);
    *ret = (struct qd_matrix){
        .data = t->data,
        .n_rows = c->n_rows,
        .n_cols = c->n_cols,
        .type = c->type,
        .layout = t->layout,
        .scales = c->scales->data,
        .zero_points = c->zero_points ? c->zero_points->data : NULL,
        .block = c->block,
        .order = c->order,
    };
    return 0;
}

int qd_tensor_matrix(const struct qd_tensor *t, uint64_t i, struct qd_matrix *ret, struct qd_error *err)
{
    if (!t)
        return err_hint(err, err_new(err, QD_E_NOT_FOUND, "no tensor: NULL is what a name that is none gives"),
                        "`quantctl show` lists the tensors of an artifact");
    if (t->codes)
        return matrix_of_codes(t, i, ret, err);
    int r = check_shape(t, i, err);
    if (r < 0)
        return r;
    uint64_t row_bytes = qd_type_row_bytes(t->type, t->shape[0]); /* 0: no whole blocks */
    uint64_t bytes, end;
    if (row_bytes == 0 || !checked_mul(row_bytes, t->shape[1], &bytes) || !checked_mul(bytes, i + 1, &end) ||
        end > t->bytes)
        return err_new(err, QD_E_INVALID, "tensor '%s' has %llu bytes, which do not fit its shape", t->name,
                       (unsigned long long)t->bytes);
    *ret = (struct qd_matrix){
        .data = (const uint8_t *)t->data + i * bytes,
        .n_rows = t->shape[1],
        .n_cols = t->shape[0],
        .type = t->type,
        .layout = t->layout,
    };
    return 0;
}
