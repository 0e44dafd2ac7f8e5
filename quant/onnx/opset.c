/*
 * Raising a model's opset where integers need it: QLinearConv, into which runtimes fuse a quantized convolution, is of
 * opset 10. Operators whose form changed on the way are rewritten; one that cannot be keeps the model from int8-static.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/onnx/build.h"

enum { INTEGERS_SINCE = 10 };

/* Operators that changed in opset 10 and are not rewritten. onnx:docs/Changelog.md. */
static const char *const changed[] = {"TopK", "Upsample"};

/* @list as an int64 tensor before @before; its name. */
static const char *put_list(struct builder *b, const struct onnx_graph *g, uint64_t before, const struct onnx_node *n,
                            const char *what, const int64_t *list, size_t n_items)
{
    const int64_t n_dims = (int64_t)n_items;
    const char *name = build_name(b, n->n_outputs ? n->outputs[0] : n->name, what);
    struct onnx_made *t = build_tensor(b, name, ONNX_INT64, 1, build_dims(b, 1, &n_dims), build_dims(b, n_items, list));
    if (!t || !t->tensor.memory)
        return NULL;
    build_add(b, g, before, NULL, t);
    return name;
}

/* Slice: starts, ends and axes were attributes, and are inputs. */
static int raise_slice(struct builder *b, const struct onnx_graph *g, const struct onnx_node *n)
{
    static const char *const names[] = {"starts", "ends", "axes"};
    const char *inputs[4] = {n->n_inputs ? n->inputs[0] : ""};
    size_t n_inputs = 1;
    b->n_made++;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct onnx_attr *a = onnx_attr_find(n, names[i]);
        if (!a)
            break; /* axes alone may be missing: then they are the first ones */
        inputs[n_inputs] = put_list(b, g, n->range.offset, n, names[i], a->ints, a->n_ints);
        if (!inputs[n_inputs++])
            return build_out_of_budget(b);
    }
    if (n_inputs < 3)
        return err_new(b->err, QD_E_CORRUPT, "node '%.100s' is a Slice without starts or ends", n->name);
    struct onnx_node *made = build_node(b, "Slice", "", inputs, n_inputs, n->outputs[0], 0);
    if (!made)
        return build_out_of_budget(b);
    build_drop(b, n->range.offset);
    build_add(b, g, n->range.offset, made, NULL);
    return 0;
}

static int raise_node(struct builder *b, const struct onnx_graph *g, const struct onnx_node *n)
{
    if (n->domain[0])
        return 0;
    for (size_t i = 0; i < sizeof changed / sizeof changed[0]; i++)
        if (strcmp(n->op_type, changed[i]) == 0) {
            int r =
                err_new(b->err, QD_E_UNSUPPORTED, "int8-static needs opset %d, and node '%.100s' (%s) changed in it",
                        INTEGERS_SINCE, n->name, n->op_type);
            return err_hint(b->err, r, "export the model with opset 13 or later, or ask for int8-weight");
        }
    return strcmp(n->op_type, "Slice") == 0 && n->n_outputs == 1 ? raise_slice(b, g, n) : 0;
}

static int raise_graph(struct builder *b, const struct onnx_graph *g)
{
    int r = 0;
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        r = raise_node(b, g, &g->nodes[i]);
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs && r == 0; k++)
                r = raise_graph(b, &g->nodes[i].attrs[a].graphs[k]);
    }
    return r;
}

static void count_slices(const struct onnx_graph *g, uint64_t *ret)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        *ret += strcmp(g->nodes[i].op_type, "Slice") == 0;
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs; k++)
                count_slices(&g->nodes[i].attrs[a].graphs[k], ret);
    }
}

uint64_t opset_changes(const struct builder *b)
{
    uint64_t n = 0;
    count_slices(b->model->graph, &n);
    return n;
}

int opset_raise(struct builder *b)
{
    if (b->plan->recipe.scheme != ONNX_SCHEME_INT8_STATIC || build_opset(b, "") >= INTEGERS_SINCE)
        return 0;
    b->opset = INTEGERS_SINCE;
    return raise_graph(b, b->model->graph);
}
