/* Softmax of rows; for the operators that have it within. */
#ifndef QUANTD_GRAPH_SOFTMAX_H
#define QUANTD_GRAPH_SOFTMAX_H

#include "quant/graph/op.h"

struct softmax {
    const struct value *in; /* float32 or float64, as @out */
    struct value *out;
    uint64_t n, inner; /* elements of a row; each @inner behind the one before it */
    bool log;
};

/* All rows of @s->in into @s->out, by the threads of the call. */
void softmax_run(struct op_call *c, struct softmax *s);

#endif
