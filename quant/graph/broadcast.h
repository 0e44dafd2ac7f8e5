/*
 * Walking two operands as one (numpy's broadcasting): shapes become strides, neighbouring dimensions that walk alike
 * are joined, and a kernel gets runs along the innermost one.
 */
#ifndef QUANTD_GRAPH_BROADCAST_H
#define QUANTD_GRAPH_BROADCAST_H

#include "quant/graph/op.h"

enum { BROADCAST_OPERANDS = 3 };

struct broadcast {
    struct shape shape; /* of the result */
    uint32_t n_dims;    /* after joining; at least 1 */
    int64_t dims[VALUE_DIMS_MAX + 1];
    int64_t strides[BROADCAST_OPERANDS][VALUE_DIMS_MAX + 1]; /* elements; 0: the operand stays where it is */
};

/* @operands: up to three tensors (NULL behind the last). */
int broadcast_begin(struct op_call *c, const struct value *const *operands, size_t n, struct broadcast *ret);

/* @n results from operands that advance by @strides elements each. */
typedef void broadcast_fn(void *dst, const void *const *src, const int64_t *strides, uint64_t n, const void *data);

/* Makes output 0 of @type and fills it by @run, by the threads of the call. */
int broadcast_run(struct op_call *c, const struct value *const *operands, size_t n, enum onnx_type type,
                  broadcast_fn *run, const void *data);

#endif
