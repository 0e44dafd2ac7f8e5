/*
 * An operator: what a node asks to be computed, as the executor hands it over. ops.def lists all of them. An operator
 * is a function of its inputs, attributes and opset version: it makes its outputs by call_tensor(), sets nothing else.
 * Its result does not depend on the number of threads, on the CPU or on the compiler.
 */
#ifndef QUANTD_GRAPH_OP_H
#define QUANTD_GRAPH_OP_H

#include <quantd/matmul.h>

#include "kernels/kernels.h"
#include "quant/graph/value.h"

struct run;
struct step;

struct op_call {
    const struct onnx_node *node;
    int64_t opset;           /* of the node's domain */
    struct value *const *in; /* [n_in]; NULL: absent */
    size_t n_in;
    struct value **out; /* [n_out], at least one; NULL until the operator sets it; the executor takes the reference */
    size_t n_out;
    struct memory *memory;
    const struct ops *kernels;
    struct qd_team *team; /* team_run() shares rows; never NULL */
    struct run *run;      /* for the operators that run subgraphs (quant/graph/control.c) */
    const struct step *step;
    struct qd_error *err;
};

/* 0 or an error whose message is a reason alone: the executor puts node and operator before it. */
typedef int op_fn(struct op_call *c);

struct op {
    const char *domain; /* "" is ai.onnx */
    const char *name;
    int64_t since; /* opset version from which on this line holds; the highest not above the model's is taken */
    op_fn *fn;
};

/* The operators themselves; called through op_find() alone. */
#define OP(domain, name, since, fn) op_fn fn;
#include "quant/graph/ops.def"
#undef OP

/* All lines of ops.def, for tables and tests. */
size_t op_list(const struct op **ret);

/* NULL where no line of ops.def fits. */
const struct op *op_find(const char *domain, const char *name, int64_t opset);

/* ---- what operators call ---------------------------------------------------------------- */

/* Input @i, or NULL where it is absent. */
static inline struct value *call_in(const struct op_call *c, size_t i)
{
    return i < c->n_in ? c->in[i] : NULL;
}

static inline bool call_wants(const struct op_call *c, size_t i)
{
    return i < c->n_out && c->node->outputs[i][0] != '\0';
}

/*
 * Input @i, which has to be there and a tensor; of @type unless that is ONNX_UNDEFINED. Else QD_E_INVALID (absent, no
 * tensor) or QD_E_UNSUPPORTED (another type, by name).
 */
int call_tensor_in(struct op_call *c, size_t i, enum onnx_type type, const struct value **ret);

/* Makes output @i: a tensor whose elements are to be set. Also in @ret. */
int call_tensor(struct op_call *c, size_t i, enum onnx_type type, const struct shape *shape, struct value **ret);

/* Makes output @i another reference to @v. */
void call_pass(struct op_call *c, size_t i, struct value *v);

/* Attributes: the value, or @otherwise where the node has none. One of another kind counts as none (reading checks). */
int64_t call_int(const struct op_call *c, const char *name, int64_t otherwise);
float call_float(const struct op_call *c, const char *name, float otherwise);
bool call_text_is(const struct op_call *c, const char *name, const char *text, const char *otherwise);
struct bytes call_text(const struct op_call *c, const char *name, const char *otherwise);
const struct onnx_attr *call_attr(const struct op_call *c, const char *name); /* NULL: none */

/* The tensor attribute @name as a value, a reference for the caller; QD_E_INVALID where the node has none. */
int call_attr_tensor(struct op_call *c, const char *name, struct value **ret);

/* Input @i, which has to be a tensor of one number, as a double. */
int call_number(struct op_call *c, size_t i, double *ret);

/* Input @i, which has to be a tensor of one int64 or int32. */
int call_integer(struct op_call *c, size_t i, int64_t *ret);

/*
 * A list of integers that is attribute @name or, where the node has none and @input is not negative, the int64 (or
 * int32) tensor of that input: *ret_list is NULL where neither is there. At most @max items, else QD_E_INVALID.
 */
int call_ints(struct op_call *c, const char *name, int input, int64_t *ret_list, size_t max, size_t *ret_n,
              bool *ret_given);

/* @axis counted from the front; QD_E_INVALID where it is not in [-n_dims, n_dims). */
int call_axis(struct op_call *c, int64_t axis, uint32_t n_dims, uint32_t *ret);

/* The shape that @a and @b broadcast to (numpy's rule); QD_E_INVALID with both shapes where they do not. */
int call_broadcast(struct op_call *c, const struct shape *a, const struct shape *b, struct shape *ret);

/*
 * Calls @rows(data, first, end) over [0, n_rows) in slices, by the threads of the call; a slice is not less than
 * @cost_a_row makes worth while (elements touched a row, roughly).
 */
typedef void call_rows_fn(void *data, uint64_t first, uint64_t end);
void call_rows(struct op_call *c, uint64_t n_rows, uint64_t cost_a_row, call_rows_fn *rows, void *data);

/* ---- subgraphs ---- */

/* Inputs and outputs of the graph that is attribute @name of the node; QD_E_INVALID where there is none. */
int call_subgraph(struct op_call *c, const char *name, size_t *ret_n_inputs, size_t *ret_n_outputs);

/*
 * Runs it: @in (borrowed, each not NULL), and a reference in each of @out. What it takes from around it comes by
 * itself.
 */
int call_run(struct op_call *c, const char *name, struct value *const *in, struct value **out);

#endif
