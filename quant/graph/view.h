/*
 * A view: elements of a tensor in another order, as strides over its memory. Transpose, Slice, Expand, Tile, Split and
 * their like are a view each, copied into the output by one function.
 */
#ifndef QUANTD_GRAPH_VIEW_H
#define QUANTD_GRAPH_VIEW_H

#include "quant/graph/op.h"

enum { VIEW_DIMS_MAX = 2 * VALUE_DIMS_MAX /* Tile walks each dimension twice */ };

struct view {
    uint32_t n_dims;
    int64_t dims[VIEW_DIMS_MAX];
    int64_t strides[VIEW_DIMS_MAX]; /* elements of the source; may be 0 or negative */
    int64_t base;                   /* element where it begins */
};

/* All of @s in its own order. */
struct view view_whole(const struct shape *s);

/* Elements of @src as @v walks them, row-major into @out, which has as many; every index lies in @src. */
int view_copy(struct op_call *c, const struct value *src, const struct view *v, struct value *out);

/* @n elements of @src from @from on into @dst from @at on; both of one type. Strings are copied. */
int value_copy(struct value *dst, uint64_t at, const struct value *src, uint64_t from, uint64_t n,
               struct qd_error *err);

#endif
