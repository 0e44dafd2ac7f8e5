/* What operators of other files need of quant/graph/arrange.c. */
#ifndef QUANTD_GRAPH_ARRANGE_H
#define QUANTD_GRAPH_ARRANGE_H

#include "quant/graph/op.h"

/* @v [n], at least one, side by side along @axis into output 0. */
int concat_values(struct op_call *c, struct value *const *v, size_t n, int64_t axis);

#endif
