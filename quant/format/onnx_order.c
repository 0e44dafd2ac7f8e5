#include "quant/format/onnx_order.h"

#include <string.h>

#include "kernels/core/name_set.h"

enum { NO_NODE = -1 /* who makes an input or an initializer */ };

struct edge {
    size_t from, to;
};

/* A graph whose nodes are being looked at, and those around it. */
struct scope {
    const struct scope *outer; /* NULL: none */
    struct name_set names;     /* owned: each with an index into @makers */
    int64_t *makers;           /* owned: the node that makes the value, or NO_NODE */
    size_t n_makers;
    struct edge *edges; /* owned */
    size_t n_edges, room;
    size_t current; /* the node whose needs are being looked at */
};

struct orderer {
    struct arena *arena;
    const char *file;
    struct qd_error *err;
};

static void scope_clear(struct scope *s)
{
    name_set_clear(&s->names);
    free(s->makers);
    free(s->edges);
}

static void scope_clear_cleanup(struct scope *s)
{
    scope_clear(s);
}

static int no_memory(struct orderer *o)
{
    return err_new(o->err, QD_E_NO_MEMORY, "'%s': ordering the nodes", o->file);
}

static int damaged(struct orderer *o, int r)
{
    return err_hint(o->err, r, "the model is damaged, or was written by a faulty tool: export it again");
}

/* How messages call a node. */
static const char *call_name(const struct onnx_node *n)
{
    return n->name[0] ? n->name : n->n_outputs ? n->outputs[0] : "";
}

static int add_name(struct orderer *o, struct scope *s, const char *name, int64_t maker, bool twice)
{
    size_t earlier;
    const int r = name_set_add(&s->names, name, s->n_makers, &earlier);
    if (r < 0)
        return no_memory(o);
    if (r > 0)
        return twice ? 0
                     : damaged(o, err_new(o->err, QD_E_CORRUPT, "'%s': value '%.200s' is made twice", o->file, name));
    s->makers[s->n_makers++] = maker;
    return 0;
}

static int add_edge(struct orderer *o, struct scope *s, size_t from)
{
    if (s->n_edges == s->room) {
        const size_t room = s->room ? 2 * s->room : 64;
        struct edge *larger = realloc(s->edges, room * sizeof *larger);
        if (!larger)
            return no_memory(o);
        s->edges = larger;
        s->room = room;
    }
    s->edges[s->n_edges++] = (struct edge){from, s->current};
    return 0;
}

/* Finds who makes @name, from the inside out, and notes that the node there has to wait for it. */
static int need(struct orderer *o, struct scope *s, const char *name, const struct onnx_node *n)
{
    for (struct scope *at = s; at; at = (struct scope *)at->outer) {
        const int64_t i = name_set_find(&at->names, name);
        if (i >= 0)
            return at->makers[i] == NO_NODE ? 0 : add_edge(o, at, (size_t)at->makers[i]);
    }
    const char *what = n ? n->op_type : "graph";
    int r = err_new(o->err, QD_E_CORRUPT, "'%s': %s '%.200s': value '%.200s' is made by no node, input or initializer",
                    o->file, what, n ? call_name(n) : "output", name);
    return damaged(o, r);
}

static int scope_begin(struct orderer *o, struct scope *s, uint64_t n_names)
{
    s->makers = calloc(n_names + 1, sizeof *s->makers);
    return !s->makers || name_set_init(&s->names, n_names) < 0 ? no_memory(o) : 0;
}

static uint64_t n_outputs_of(const struct onnx_node *nodes, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += nodes[i].n_outputs;
    return sum;
}

static int add_nodes(struct orderer *o, struct scope *s, const struct onnx_node *nodes, size_t n)
{
    int r = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < nodes[i].n_outputs && r == 0; k++)
            if (nodes[i].outputs[k][0])
                r = add_name(o, s, nodes[i].outputs[k], (int64_t)i, false);
    return r;
}

/* ---- one graph ---- */

static int order_graph(struct orderer *o, struct onnx_graph *g, const struct scope *outer);

static int order_subgraphs(struct orderer *o, const struct onnx_node *n, struct scope *s)
{
    int r = 0;
    for (size_t a = 0; a < n->n_attrs; a++)
        for (size_t k = 0; k < n->attrs[a].n_graphs && r == 0; k++)
            r = order_graph(o, (struct onnx_graph *)&n->attrs[a].graphs[k], s); /* ours until the model is returned */
    return r;
}

static int need_all(struct orderer *o, struct scope *s, const struct onnx_node *nodes, size_t n)
{
    int r = 0;
    for (s->current = 0; s->current < n && r == 0; s->current++) {
        const struct onnx_node *node = &nodes[s->current];
        for (size_t i = 0; i < node->n_inputs && r == 0; i++)
            if (node->inputs[i][0])
                r = need(o, s, node->inputs[i], node);
        if (r == 0)
            r = order_subgraphs(o, node, s);
    }
    return r;
}

static bool in_file_order(const struct scope *s)
{
    for (size_t i = 0; i < s->n_edges; i++)
        if (s->edges[i].from >= s->edges[i].to)
            return false;
    return true;
}

/* Kahn's algorithm: @heads and @next chain the edges that leave a node, @waits counts those that reach it. */
static size_t sort_nodes(const struct scope *s, size_t n, size_t *order, size_t *heads, size_t *next, size_t *waits)
{
    memset(heads, 0xff, n * sizeof *heads);
    for (size_t e = s->n_edges; e-- > 0;) {
        next[e] = heads[s->edges[e].from];
        heads[s->edges[e].from] = e;
        waits[s->edges[e].to]++;
    }
    size_t n_ready = 0;
    for (size_t i = 0; i < n; i++)
        if (waits[i] == 0)
            order[n_ready++] = i;
    for (size_t done = 0; done < n_ready; done++)
        for (size_t e = heads[order[done]]; e != SIZE_MAX; e = next[e])
            if (--waits[s->edges[e].to] == 0)
                order[n_ready++] = s->edges[e].to;
    return n_ready;
}

static int cycle(struct orderer *o, const struct onnx_node *nodes, size_t n, const size_t *waits)
{
    for (size_t i = 0; i < n; i++)
        if (waits[i])
            return damaged(o, err_new(o->err, QD_E_CORRUPT, "'%s': %s '%.200s' waits for its own result: a cycle",
                                      o->file, nodes[i].op_type, call_name(&nodes[i])));
    return err_new(o->err, QD_E_INTERNAL, "'%s': a cycle without a node", o->file);
}

static int set_order(struct orderer *o, const struct scope *s, const struct onnx_node *nodes, size_t n,
                     const size_t **ret)
{
    size_t *order = arena_alloc(o->arena, n + 1, sizeof *order);
    if (!order)
        return err_new(o->err, QD_E_LIMIT, "'%s': the graphs need more memory than a model may use", o->file);
    *ret = order;
    if (in_file_order(s)) {
        for (size_t i = 0; i < n; i++)
            order[i] = i;
        return 0;
    }
    CLEANUP(free) size_t *heads = calloc(n + 1, sizeof *heads);
    CLEANUP(free) size_t *next = calloc(s->n_edges + 1, sizeof *next);
    CLEANUP(free) size_t *waits = calloc(n + 1, sizeof *waits);
    if (!heads || !next || !waits)
        return no_memory(o);
    return sort_nodes(s, n, order, heads, next, waits) == n ? 0 : cycle(o, nodes, n, waits);
}

static int add_graph_names(struct orderer *o, struct scope *s, const struct onnx_graph *g)
{
    int r = scope_begin(o, s, g->n_inputs + g->n_initializers + n_outputs_of(g->nodes, g->n_nodes));
    for (size_t i = 0; i < g->n_initializers && r == 0; i++)
        r = add_name(o, s, g->initializers[i].name, NO_NODE, false);
    const size_t n_initializers = s->n_makers;
    for (size_t i = 0; i < g->n_inputs && r == 0; i++) {
        const int64_t earlier = name_set_find(&s->names, g->inputs[i].name); /* a default: an initializer of its name */
        r = add_name(o, s, g->inputs[i].name, NO_NODE, earlier >= 0 && (size_t)earlier < n_initializers);
    }
    return r < 0 ? r : add_nodes(o, s, g->nodes, g->n_nodes);
}

static int order_graph(struct orderer *o, struct onnx_graph *g, const struct scope *outer)
{
    CLEANUP(scope_clear) struct scope s = {.outer = outer};
    int r = add_graph_names(o, &s, g);
    if (r == 0)
        r = need_all(o, &s, g->nodes, g->n_nodes);
    for (size_t i = 0; i < g->n_outputs && r == 0; i++) {
        const size_t before = s.n_edges;
        r = need(o, &s, g->outputs[i].name, NULL);
        s.n_edges = before; /* nobody waits for it within the graph */
    }
    return r < 0 ? r : set_order(o, &s, g->nodes, g->n_nodes, &g->order);
}

static int order_function(struct orderer *o, struct onnx_function *f)
{
    CLEANUP(scope_clear) struct scope s = {0};
    int r = scope_begin(o, &s, f->n_inputs + n_outputs_of(f->nodes, f->n_nodes));
    for (size_t i = 0; i < f->n_inputs && r == 0; i++)
        r = add_name(o, &s, f->inputs[i], NO_NODE, false);
    if (r == 0)
        r = add_nodes(o, &s, f->nodes, f->n_nodes);
    if (r == 0)
        r = need_all(o, &s, f->nodes, f->n_nodes);
    return r < 0 ? r : set_order(o, &s, f->nodes, f->n_nodes, &f->order);
}

int onnx_order_model(struct onnx_model *m, const char *file, struct qd_error *err)
{
    struct orderer o = {.arena = m->arena, .file = file, .err = err};
    int r = order_graph(&o, (struct onnx_graph *)m->graph, NULL); /* ours until the model is returned */
    for (size_t i = 0; i < m->n_functions && r == 0; i++)
        r = order_function(&o, (struct onnx_function *)&m->functions[i]);
    return r;
}

const struct onnx_attr *onnx_attr_find(const struct onnx_node *n, const char *name)
{
    for (size_t i = 0; i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, name) == 0)
            return &n->attrs[i];
    return NULL;
}

const struct onnx_function *onnx_function_find(const struct onnx_model *m, const struct onnx_node *n)
{
    for (size_t i = 0; i < m->n_functions; i++)
        if (strcmp(m->functions[i].name, n->op_type) == 0 && strcmp(m->functions[i].domain, n->domain) == 0 &&
            strcmp(m->functions[i].overload, n->overload) == 0)
            return &m->functions[i];
    return NULL;
}

int64_t onnx_opset_version(const struct onnx_opset *opsets, size_t n_opsets, const char *domain)
{
    for (size_t i = 0; i < n_opsets; i++)
        if (strcmp(opsets[i].domain, domain) == 0)
            return opsets[i].version;
    return 0;
}
