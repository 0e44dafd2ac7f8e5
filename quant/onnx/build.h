/*
 * A plan while it is made: tensors, nodes and changes in its arena, named and placed alike by all schemes. Each scheme
 * is a file that is called for one weight after the other.
 */
#ifndef QUANTD_ONNX_BUILD_H
#define QUANTD_ONNX_BUILD_H

#include "quant/onnx/scheme.h"

/* A value of a graph that passes through codes; operators take @name instead of it: floats again, or the codes. */
struct activation {
    const struct onnx_graph *graph;
    const char *value, *name;
    const char *scale, *zero_point; /* of codes; NULL with floats */
    bool is_result;                 /* of a convolution: everybody takes @name */
};

/* A plan that is being made: lists in its arena with room for every weight. */
struct builder {
    struct onnx_plan *plan;
    const struct onnx_model *model;
    struct source *source;
    const struct ops *ops;
    const struct statistics *statistics; /* borrowed; NULL: none */
    struct activation *activations;      /* that are quantized already */
    size_t n_activations;
    struct sharing *sharing; /* owned; of the graph whose weights are planned */
    struct onnx_rename *renames;
    uint64_t *drops;
    struct onnx_addition *additions;
    int64_t opset; /* that the model is raised to; 0: it keeps its own */
    bool uses_contrib;
    size_t n_made; /* names that are made are numbered */
    struct qd_error *err;
};

int build_out_of_budget(struct builder *b);

/* @n zeroed items in the plan's arena; NULL when the budget is used up. */
void *build_take(struct builder *b, uint64_t n, size_t item_bytes);

/* "NAME_SUFFIX_N", N the number of what is made. */
const char *build_name(struct builder *b, const char *name, const char *suffix);

/*
 * A message of the source goes (by range.offset); a node or a tensor comes before the node at @before (0: behind all).
 */
void build_drop(struct builder *b, uint64_t offset);
void build_add(struct builder *b, const struct onnx_graph *g, uint64_t before, const struct onnx_node *n,
               const struct onnx_made *t);

/* The weight goes: its initializer, the input of its name that old models list, or its Constant node. */
void build_drop_weight(struct builder *b, const struct weight *w);

/* Where a node that makes the weight's value anew stands: in the Constant's place, or before all nodes. */
uint64_t build_place(const struct weight *w);

/* @memory: the payload, NULL where a maker is set. NULL for a NULL name, too: failures need one check. */
struct onnx_made *build_tensor(struct builder *b, const char *name, enum onnx_type type, size_t n_dims,
                               const int64_t *dims, const void *memory);
const int64_t *build_dims(struct builder *b, size_t n, const int64_t *dims);

/* A node of one output, with room for @n_attrs attributes. */
struct onnx_node *build_node(struct builder *b, const char *op, const char *domain, const char *const *inputs,
                             size_t n_inputs, const char *output, size_t n_attrs);
void build_set_int(struct onnx_node *n, const char *name, int64_t value);

/* Version of a domain's operators that the model imports. */
int64_t build_opset(const struct builder *b, const char *domain);

/* ai.onnx's QuantizeLinear and DequantizeLinear know an axis from opset 13 on; com.microsoft's always did. */
const char *build_dequantize_domain(struct builder *b);

/* Changes that opset_raise may make. */
uint64_t opset_changes(const struct builder *b);

/* Raises the model to the opset that the scheme needs, where that is above its own. */
int opset_raise(struct builder *b);

/* ---- the schemes ---- */

/* The codes of a weight and the scales of its channels, made and not yet added. */
struct int8_weight {
    struct onnx_made *codes, *scale;
    const float *scales;
    uint64_t n_scales;
};
int int8_codes(struct builder *b, const struct weight *w, struct onnx_decision *d, struct int8_weight *ret);

int int8_plan(struct builder *b, const struct weight *w, struct onnx_decision *d);

/* Quantizes input and bias of the weight's operator, too: @d meets codes. Where that does not do its note says why. */
int static_plan(struct builder *b, const struct weight *w, struct onnx_decision *d, struct int8_weight *q);

/* When all weights are planned: who reads the result of a convolution reads it through its codes. */
void static_finish(struct builder *b);

/*
 * A Conv with the BatchNormalization behind it as one: its bias, [channels of the weight] in the arena. 1: there is
 * none, or it cannot be; then nothing was changed.
 */
int fold_norm(struct builder *b, const struct weight *w, struct int8_weight *q, double **ret_bias);

/* Can the weight's operator become one of integers with dynamic ranges? */
bool dynamic_fit(const struct weight *w);
int dynamic_plan(struct builder *b, const struct weight *w, struct onnx_decision *d);

int half_plan(struct builder *b, const struct weight *w, struct onnx_decision *d);

/* Can the weight of its operator have 4 bits? */
bool nibbles_fit(const struct weight *w);
int nibbles_plan(struct builder *b, const struct weight *w, struct onnx_decision *d);

#endif
