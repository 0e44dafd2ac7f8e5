/* A node of one operator, run without a graph: attributes and inputs by calls, outputs as values. */
#ifndef QUANTD_TESTS_NODE_H
#define QUANTD_TESTS_NODE_H

#include "quant/graph/op.h"

enum { NODE_ENDS = 12 };

struct node {
    struct onnx_attr attrs[NODE_ENDS];
    const char *names[NODE_ENDS]; /* of inputs and outputs: none is absent */
    struct onnx_node node;
    struct value *in[NODE_ENDS], *out[NODE_ENDS];
    struct memory *memory;
    struct qd_team *team;
    int64_t opset;
    struct qd_error err;
};

void node_begin(struct node *n, const char *domain, const char *op, int64_t opset, unsigned n_threads);
void node_int(struct node *n, const char *name, int64_t i);
void node_float(struct node *n, const char *name, float f);
void node_text(struct node *n, const char *name, const char *text);
void node_ints(struct node *n, const char *name, size_t n_ints, const int64_t *ints); /* borrowed */

/* The next input: @data NULL for zeros; @n_dims negative for an absent one. */
void node_in(struct node *n, enum onnx_type type, int n_dims, const int64_t *dims, const void *data);

/* Runs it for @n_out outputs. */
int node_run(struct node *n, size_t n_out);
void node_end(struct node *n);

#endif
