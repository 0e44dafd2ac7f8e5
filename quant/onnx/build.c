#include "quant/onnx/build.h"

#include <stdio.h>
#include <string.h>

enum { AXIS_SINCE = 13 /* opset from which DequantizeLinear has an axis */ };

int build_out_of_budget(struct builder *b)
{
    return err_new(b->err, QD_E_LIMIT, "the plan needs more memory than a model may use");
}

void *build_take(struct builder *b, uint64_t n, size_t item_bytes)
{
    return arena_alloc(b->plan->arena, n, item_bytes);
}

/* "NAME_quantized" in the arena; NULL when the budget is used up. */
const char *build_name(struct builder *b, const char *name, const char *suffix)
{
    const size_t n = strlen(name) + strlen(suffix) + 24;
    char *text = build_take(b, n, 1);
    if (text)
        (void)snprintf(text, n, "%s_%s_%zu", name, suffix, b->n_made);
    return text;
}

void build_drop(struct builder *b, uint64_t offset)
{
    b->drops[b->plan->edits.n_drops++] = offset;
}

void build_add(struct builder *b, const struct onnx_graph *g, uint64_t before, const struct onnx_node *n,
               const struct onnx_made *t)
{
    b->additions[b->plan->edits.n_additions++] = (struct onnx_addition){g->range.offset, before, n, t};
}

/* The weight goes: its initializer, the input of its name that old models list, or its Constant node. */
void build_drop_weight(struct builder *b, const struct weight *w)
{
    if (w->constant) {
        build_drop(b, w->constant->range.offset);
        return;
    }
    build_drop(b, w->tensor->range.offset);
    for (size_t i = 0; i < w->graph->n_inputs; i++)
        if (strcmp(w->graph->inputs[i].name, w->name) == 0)
            build_drop(b, w->graph->inputs[i].range.offset);
}

/* Where a node that makes the weight's value anew stands: in the Constant's place, or before all nodes. */
uint64_t build_place(const struct weight *w)
{
    return w->constant ? w->constant->range.offset : w->graph->n_nodes ? w->graph->nodes[0].range.offset : 0;
}

struct onnx_made *build_tensor(struct builder *b, const char *name, enum onnx_type type, size_t n_dims,
                               const int64_t *dims, const void *memory)
{
    struct onnx_made *t = build_take(b, 1, sizeof *t);
    if (!t || !name)
        return NULL;
    t->tensor = (struct onnx_tensor){
        .name = name, .type = type, .n_dims = n_dims, .dims = dims, .n_elements = 1, .memory = memory};
    for (size_t d = 0; d < n_dims; d++)
        t->tensor.n_elements *= (uint64_t)dims[d];
    t->tensor.bytes = onnx_tensor_bytes(&t->tensor);
    return t;
}

const int64_t *build_dims(struct builder *b, size_t n, const int64_t *dims)
{
    int64_t *copy = build_take(b, n + 1, sizeof *copy);
    if (copy)
        memcpy(copy, dims, n * sizeof *copy);
    return copy;
}

/* A node of up to @n_inputs inputs and one output; attributes follow. */
struct onnx_node *build_node(struct builder *b, const char *op, const char *domain, const char *const *inputs,
                             size_t n_inputs, const char *output, size_t n_attrs)
{
    struct onnx_node *n = build_take(b, 1, sizeof *n);
    const char **names = build_take(b, n_inputs + 1, sizeof *names);
    struct onnx_attr *attrs = build_take(b, n_attrs + 1, sizeof *attrs);
    if (!n || !names || !attrs)
        return NULL;
    memcpy(names, inputs, n_inputs * sizeof *names);
    names[n_inputs] = output;
    *n = (struct onnx_node){.name = build_name(b, output, op),
                            .op_type = op,
                            .domain = domain,
                            .overload = "",
                            .inputs = names,
                            .n_inputs = n_inputs,
                            .outputs = names + n_inputs,
                            .n_outputs = 1,
                            .attrs = attrs};
    return n->name ? n : NULL;
}

void build_set_int(struct onnx_node *n, const char *name, int64_t value)
{
    struct onnx_attr *attrs = (struct onnx_attr *)n->attrs; /* ours until the plan is returned */
    attrs[n->n_attrs++] = (struct onnx_attr){.name = name, .kind = ONNX_ATTR_INT, .i = value};
}

int64_t build_opset(const struct builder *b, const char *domain)
{
    return onnx_opset_version(b->model->opsets, b->model->n_opsets, domain);
}

/* ai.onnx's DequantizeLinear knows an axis from opset 13 on; com.microsoft's always did (docs/adr/0019). */
const char *build_dequantize_domain(struct builder *b)
{
    if (build_opset(b, "") >= AXIS_SINCE)
        return "";
    b->uses_contrib = true;
    return "com.microsoft";
}
