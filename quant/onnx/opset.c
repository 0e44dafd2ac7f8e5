/*
 * Raising a model's opset where integers need it. Operators whose form changed on the way are rewritten; one that
 * cannot be keeps the model from the scheme.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/onnx/build.h"

/* QLinearConv is of opset 10, DynamicQuantizeLinear of 11. */
static int64_t needed(const struct builder *b)
{
    return b->plan->recipe.scheme == ONNX_SCHEME_INT8_STATIC    ? 10
           : b->plan->recipe.scheme == ONNX_SCHEME_INT8_DYNAMIC ? 11
                                                                : 0;
}

/* Operators whose form changed in an opset and that are not rewritten. onnx:docs/Changelog.md. */
static const struct {
    const char *op;
    int64_t opset;
} changed[] = {{"TopK", 10}, {"Upsample", 10}, {"Resize", 11}, {"Scatter", 11}, {"TopK", 11}};

/* Operators that are: attributes became inputs. */
static const struct {
    const char *op;
    int64_t opset;
    const char *attrs[3]; /* in the order of the inputs */
} rewritten[] = {
    {"Slice", 10, {"starts", "ends", "axes"}},
    {"Clip", 11, {"min", "max", NULL}},
    {"Pad", 11, {"pads", "value", NULL}},
};
enum { N_REWRITTEN = sizeof rewritten / sizeof rewritten[0], INPUTS_MAX = 4 };

/* What attribute @a says, as a tensor before the node; its name, or NULL when there is no room. */
static const char *put_input(struct builder *b, const struct onnx_graph *g, const struct onnx_node *n,
                             const struct onnx_attr *a)
{
    const bool is_list = a->kind == ONNX_ATTR_INTS;
    const int64_t n_items = (int64_t)a->n_ints;
    float *scalar = build_take(b, 1, sizeof *scalar);
    const void *memory = is_list ? (const void *)build_dims(b, a->n_ints, a->ints) : scalar;
    if (!memory || !scalar)
        return NULL;
    *scalar = a->f;
    const char *name = build_name(b, n->outputs[0], a->name);
    struct onnx_made *t = build_tensor(b, name, is_list ? ONNX_INT64 : ONNX_FLOAT, is_list,
                                       is_list ? build_dims(b, 1, &n_items) : NULL, memory);
    if (!t)
        return NULL;
    build_add(b, g, n->range.offset, NULL, t);
    return name;
}

/* Attributes that are not inputs now: Pad's mode. */
static void keep_text(struct onnx_node *made, const struct onnx_node *n)
{
    struct onnx_attr *attrs = (struct onnx_attr *)made->attrs; /* ours until the plan is returned */
    for (size_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].kind == ONNX_ATTR_STRING && made->n_attrs == 0)
            attrs[made->n_attrs++] = n->attrs[i];
}

static int rewrite(struct builder *b, const struct onnx_graph *g, const struct onnx_node *n, const char *const *attrs)
{
    const char *inputs[INPUTS_MAX] = {n->inputs[0]};
    size_t n_inputs = 1;
    b->n_made++;
    for (size_t i = 0; i < INPUTS_MAX - 1 && attrs[i]; i++) {
        const struct onnx_attr *a = onnx_attr_find(n, attrs[i]);
        inputs[n_inputs++] = a ? put_input(b, g, n, a) : "";
        if (!inputs[n_inputs - 1])
            return build_out_of_budget(b);
    }
    while (n_inputs > 1 && !inputs[n_inputs - 1][0])
        n_inputs--; /* absent ones at the end are left out */
    struct onnx_node *made = build_node(b, n->op_type, "", inputs, n_inputs, n->outputs[0], 1);
    if (!made)
        return build_out_of_budget(b);
    keep_text(made, n);
    build_drop(b, n->range.offset);
    build_add(b, g, n->range.offset, made, NULL);
    return 0;
}

static int refuse_node(struct builder *b, const struct onnx_node *n)
{
    int r = err_new(b->err, QD_E_UNSUPPORTED, "%s needs opset %" PRId64 ", and node '%.100s' (%s) changed on the way",
                    onnx_scheme_name(b->plan->recipe.scheme), needed(b), n->name, n->op_type);
    return err_hint(b->err, r, "export the model with opset 13 or later, or ask for int8-weight");
}

/* Did the operator change between the model's opset and the one that is needed? */
static bool crosses(const struct builder *b, int64_t opset)
{
    return build_opset(b, "") < opset && opset <= needed(b);
}

static int raise_node(struct builder *b, const struct onnx_graph *g, const struct onnx_node *n)
{
    if (n->domain[0])
        return 0;
    for (size_t i = 0; i < sizeof changed / sizeof changed[0]; i++)
        if (strcmp(n->op_type, changed[i].op) == 0 && crosses(b, changed[i].opset))
            return refuse_node(b, n);
    for (size_t i = 0; i < N_REWRITTEN; i++)
        if (strcmp(n->op_type, rewritten[i].op) == 0 && crosses(b, rewritten[i].opset) && n->n_inputs && n->n_outputs)
            return rewrite(b, g, n, rewritten[i].attrs);
    return 0;
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

static void count_nodes(const struct onnx_graph *g, uint64_t *ret)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (size_t k = 0; k < N_REWRITTEN; k++)
            *ret += strcmp(g->nodes[i].op_type, rewritten[k].op) == 0;
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs; k++)
                count_nodes(&g->nodes[i].attrs[a].graphs[k], ret);
    }
}

uint64_t opset_changes(const struct builder *b)
{
    uint64_t n = 0;
    count_nodes(b->model->graph, &n);
    return INPUTS_MAX * n;
}

int opset_raise(struct builder *b)
{
    if (build_opset(b, "") >= needed(b))
        return 0;
    b->opset = needed(b);
    return raise_graph(b, b->model->graph);
}
