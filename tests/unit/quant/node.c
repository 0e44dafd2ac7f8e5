#include "tests/unit/quant/node.h"

#include <string.h>

enum { MEMORY_BYTES = 64 << 20 };

void node_begin(struct node *n, const char *domain, const char *op, int64_t opset, unsigned n_threads)
{
    *n = (struct node){.opset = opset, .memory = memory_new(MEMORY_BYTES)};
    for (size_t i = 0; i < NODE_ENDS; i++)
        n->names[i] = "x";
    n->node = (struct onnx_node){.name = "", .op_type = op, .domain = domain, .inputs = n->names, .outputs = n->names};
    n->node.attrs = n->attrs;
    (void)qd_team_new(n_threads, &n->team, &n->err);
}

static struct onnx_attr *attr(struct node *n, const char *name, enum onnx_attr_kind kind)
{
    struct onnx_attr *a = &n->attrs[n->node.n_attrs++];
    a->name = name;
    a->kind = kind;
    return a;
}

void node_int(struct node *n, const char *name, int64_t i)
{
    attr(n, name, ONNX_ATTR_INT)->i = i;
}

void node_float(struct node *n, const char *name, float f)
{
    attr(n, name, ONNX_ATTR_FLOAT)->f = f;
}

void node_text(struct node *n, const char *name, const char *text)
{
    attr(n, name, ONNX_ATTR_STRING)->s = (struct bytes){(const uint8_t *)text, strlen(text)};
}

void node_ints(struct node *n, const char *name, size_t n_ints, const int64_t *ints)
{
    struct onnx_attr *a = attr(n, name, ONNX_ATTR_INTS);
    a->ints = ints;
    a->n_ints = n_ints;
}

void node_in(struct node *n, enum onnx_type type, int n_dims, const int64_t *dims, const void *data)
{
    struct shape shape = {.n_dims = (uint32_t)(n_dims > 0 ? n_dims : 0)};
    struct value **v = &n->in[n->node.n_inputs++];
    for (int d = 0; d < n_dims; d++)
        shape.dims[d] = dims[d];
    if (n_dims < 0 || value_new(n->memory, type, &shape, v, &n->err) < 0)
        return;
    if (data)
        memcpy((*v)->data, data, (*v)->n * value_element_bytes(type));
    else
        memset((*v)->data, 0, (*v)->n * value_element_bytes(type));
}

int node_run(struct node *n, size_t n_out)
{
    const struct op *op = op_find(n->node.domain, n->node.op_type, n->opset);
    n->node.n_outputs = n_out;
    struct op_call c = {.node = &n->node,
                        .opset = n->opset,
                        .in = n->in,
                        .n_in = n->node.n_inputs,
                        .out = n->out,
                        .n_out = n_out,
                        .memory = n->memory,
                        .kernels = ops_native(),
                        .team = n->team,
                        .err = &n->err};
    return op ? op->fn(&c) : err_new(&n->err, QD_E_UNSUPPORTED, "no operator %s", n->node.op_type);
}

void node_end(struct node *n)
{
    for (size_t i = 0; i < NODE_ENDS; i++) {
        n->in[i] = value_release(n->in[i]);
        n->out[i] = value_release(n->out[i]);
    }
    qd_team_free(n->team);
    n->memory = memory_free(n->memory);
}
