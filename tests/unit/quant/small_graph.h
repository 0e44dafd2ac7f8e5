/* Graphs of two nodes, ready to run, for tests of what runs graphs. */
#ifndef QUANTD_TESTS_SMALL_GRAPH_H
#define QUANTD_TESTS_SMALL_GRAPH_H

#include "quant/graph/graph.h"

struct small_graph {
    struct source *source;
    struct onnx_model *model;
    struct memory *memory;
    struct graph *graph;
    struct qd_team *team;
};

enum { RELU_NEG_BYTES = 60, ADD_CAST_BYTES = 93 };
extern const char relu_neg[RELU_NEG_BYTES + 1]; /* z = Neg(Relu(x)), float32 of any shape */
extern const char add_cast[ADD_CAST_BYTES + 1]; /* z = a + Cast(b): a float32 [?, 2], b int64 of any shape */

/* Fails the test where it cannot be made. */
struct small_graph *small_graph_new(const char *model, size_t n_bytes);
struct small_graph *small_graph_free(struct small_graph *s);
DEFINE_CLEANUP(small_graph_free, struct small_graph *)

#endif
