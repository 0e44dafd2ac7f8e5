/*
 * A graph that is ready to run, as quant/graph/prepare.c makes it and quant/graph/run.c follows it. A body is a graph,
 * or a function at one place where it is called; its values live in slots.
 */
#ifndef QUANTD_GRAPH_PREPARED_H
#define QUANTD_GRAPH_PREPARED_H

#include "quant/graph/graph.h"

enum { NO_SLOT = -1 };

/* A tensor of the model that is loaded when it is first needed, and then stays. */
struct constant {
    const struct onnx_tensor *tensor;
    struct value *value; /* a reference; NULL: not loaded yet */
};

struct subbody {
    const char *attr;
    struct body *body;
};

struct step {
    const struct onnx_node *node; /* attributes bound */
    const struct op *op;          /* NULL: @call */
    struct body *call;            /* a function's body */
    int64_t opset;
    const int32_t *in, *out; /* slots, as many as the node has inputs and outputs; NO_SLOT: absent */
    struct subbody *subbodies;
    size_t n_subbodies;
    const int32_t *frees; /* slots that nobody needs after this step */
    size_t n_frees;
};

/* A value from around a body: @outer is a slot of the body around it. */
struct capture {
    int32_t outer, inner;
};

struct body {
    const char **names; /* of slots, for observers */
    size_t n_slots;
    struct constant *constants; /* [n_slots]; @tensor is NULL where the slot is computed */
    int32_t *inputs, *outputs;
    size_t n_inputs, n_outputs;
    struct capture *captures;
    size_t n_captures;
    struct step *steps;
    size_t n_steps;
};

struct graph {
    const struct onnx_model *model; /* borrowed */
    struct source *source;          /* borrowed */
    struct memory *memory;          /* borrowed */
    struct arena *arena;            /* owned: the bodies */
    struct body *main;
    const struct onnx_value_info **inputs; /* those that are no initializers */
    size_t n_inputs;
};

/* Lets go of the constants of @b and of the bodies in it. */
void body_forget(struct body *b);

/* Loads constant @slot where it is not yet there; a reference stays with the body. */
int body_constant(struct graph *g, struct body *b, int32_t slot, struct value **ret, struct qd_error *err);

#endif
