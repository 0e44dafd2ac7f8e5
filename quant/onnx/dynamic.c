/*
 * Dynamic quantization: an activation gets its range when it is there (DynamicQuantizeLinear), meets int8 weights as
 * uint8 (MatMulInteger, ConvInteger), and sums of integers become floats by the product of both scales.
 */
#include <string.h>

#include "quant/onnx/codes.h"

/* A MatMul with a matrix on the right, or a Conv whose bias is constant or absent; its weight is nobody else's. */
bool dynamic_fit(const struct weight *w)
{
    const struct onnx_node *n = w->user;
    if (w->tensor->type != ONNX_FLOAT || w->n_uses != 1 || w->log_follows || w->graph != w->user_graph ||
        n->n_outputs != 1)
        return false;
    if (strcmp(n->op_type, "MatMul") == 0)
        return w->tensor->n_dims == 2;
    return strcmp(n->op_type, "Conv") == 0 && (n->n_inputs < 3 || !n->inputs[2][0] || w->bias);
}

/* What an operator's activation becomes: codes, scale, zero point. */
static int quantized_activation(struct builder *b, const struct weight *w, const struct activation **ret)
{
    const char *x = w->user->inputs[0];
    for (size_t i = 0; i < b->n_activations; i++)
        if (b->activations[i].graph == w->graph && strcmp(b->activations[i].value, x) == 0) {
            *ret = &b->activations[i];
            return 0;
        }
    struct activation *a = &b->activations[b->n_activations++];
    *a = (struct activation){w->graph, x, build_name(b, x, "codes"), build_name(b, x, "scale"),
                             build_name(b, x, "zero_point")};
    const char **outputs = build_take(b, 3, sizeof *outputs);
    struct onnx_node *n = outputs && a->name && a->scale && a->zero_point
                              ? build_node(b, "DynamicQuantizeLinear", "", &x, 1, a->name, 0)
                              : NULL;
    if (!n)
        return build_out_of_budget(b);
    outputs[0] = a->name;
    outputs[1] = a->scale;
    outputs[2] = a->zero_point;
    n->outputs = outputs;
    n->n_outputs = 3;
    build_add(b, w->graph, w->user->range.offset, n, NULL);
    *ret = a;
    return 0;
}

/* A node before the operator that goes; NULL: no room. */
static const char *put_node(struct builder *b, const struct weight *w, const char *op, const char *const *inputs,
                            size_t n, const char *output)
{
    struct onnx_node *node = output ? build_node(b, op, "", inputs, n, output, 1) : NULL;
    if (!node)
        return NULL;
    if (strcmp(op, "Cast") == 0)
        build_set_int(node, "to", ONNX_FLOAT);
    if (strcmp(op, "ConvInteger") == 0) { /* the very attributes of the Conv */
        node->attrs = w->user->attrs;
        node->n_attrs = w->user->n_attrs;
    }
    build_add(b, w->graph, w->user->range.offset, node, NULL);
    return output;
}

/* The bias as [channels, 1, ...], to be added to a result. */
static const char *put_bias(struct builder *b, const struct weight *w, const int64_t *dims, size_t n_dims)
{
    float *copy = build_take(b, w->bias->n_elements, sizeof *copy);
    struct onnx_made *t = build_tensor(b, build_name(b, w->bias_name, "column"), ONNX_FLOAT, n_dims, dims, copy);
    if (!copy || !t || onnx_tensor_load(b->source, w->bias, copy, b->err) < 0)
        return NULL;
    const struct weight as_weight = {
        .graph = w->graph, .tensor = w->bias, .constant = w->bias_constant, .name = w->bias_name};
    build_drop_weight(b, &as_weight);
    build_add(b, w->graph, w->user->range.offset, NULL, t);
    return t->tensor.name;
}

static int put_sum(struct builder *b, const struct weight *w, const struct int8_weight *q, const struct activation *a,
                   const int64_t *dims, size_t n_dims)
{
    const char *y = w->user->outputs[0], *op = n_dims > 1 ? "ConvInteger" : "MatMulInteger";
    const char *sums = put_node(b, w, op, (const char *[]){a->name, q->codes->tensor.name, a->zero_point}, 3,
                                build_name(b, y, "sums"));
    const char *wide = sums ? put_node(b, w, "Cast", &sums, 1, build_name(b, y, "wide")) : NULL;
    const char *scale =
        wide ? put_node(b, w, "Mul", (const char *[]){a->scale, q->scale->tensor.name}, 2, build_name(b, y, "scale"))
             : NULL;
    const char *bias = scale && w->bias ? put_bias(b, w, dims, n_dims) : NULL;
    if (!scale || (w->bias && !bias))
        return build_out_of_budget(b);
    const char *product =
        put_node(b, w, "Mul", (const char *[]){wide, scale}, 2, bias ? build_name(b, y, "product") : y);
    if (product && bias)
        product = put_node(b, w, "Add", (const char *[]){product, bias}, 2, y);
    return product ? 0 : build_out_of_budget(b);
}

int dynamic_plan(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const size_t n_dims = w->tensor->n_dims > 2 ? w->tensor->n_dims - 1 : 1;
    int64_t *dims = build_take(b, n_dims, sizeof *dims);
    struct int8_weight q;
    const struct activation *a = NULL;
    int r = dims ? int8_codes(b, w, d, &q) : build_out_of_budget(b);
    if (r == 0)
        r = quantized_activation(b, w, &a);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n_dims; i++)
        dims[i] = i ? 1 : w->tensor->dims[w->axis];
    q.scale->tensor.dims = dims; /* as many elements, so that they spread over the result's channels */
    q.scale->tensor.n_dims = n_dims;
    r = put_sum(b, w, &q, a, dims, n_dims);
    build_drop_weight(b, w);
    build_drop(b, w->user->range.offset);
    build_add(b, w->graph, w->user->range.offset, NULL, q.codes);
    build_add(b, w->graph, w->user->range.offset, NULL, q.scale);
    return r;
}
