#include "quant/graph/prepared.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/name_set.h"
#include "quant/limits.h"

enum {
    CALLS_MAX = 16,      /* functions that call functions */
    MISSING_SHOWN = 12,  /* operators that a message names */
    TEXT_BYTES_MAX = 64, /* of an operator's name in it */
};

/* Attributes that a function was called with, for the nodes of its body that refer to them. */
struct binding {
    const struct onnx_function *function;
    const struct onnx_node *call;
};

/* A body that is being made. Names are looked up in it, then in those around it. */
struct maker {
    struct graph *g;
    struct body *body;
    struct maker *outer;   /* NULL: none */
    struct name_set names; /* owned: name to slot */
    size_t room_slots, room_captures;
    int64_t *last; /* owned: the step that needs a slot last; -1: none */
    const struct onnx_opset *opsets;
    size_t n_opsets;
    const struct binding *binding; /* NULL: not in a function */
    unsigned calls;
    struct missing *missing;
    struct qd_error *err;
};

/* Operators that nobody computes, each once. */
struct missing {
    struct buffer text;
    struct name_set seen;
    size_t n;
    char node[TEXT_BYTES_MAX];
};

static int out_of_budget(struct maker *k)
{
    return err_new(k->err, QD_E_LIMIT, "the graph needs more memory than a model may use");
}

static void maker_clear_cleanup(struct maker *k)
{
    name_set_clear(&k->names);
    free(k->last);
}

/* ---- slots ---- */

static int grow(struct maker *k, void *list_at, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return 0;
    void **list = list_at;
    const size_t larger = *room ? 2 * *room : 16;
    void *moved = arena_alloc(k->g->arena, larger, item_bytes);
    if (!moved)
        return out_of_budget(k);
    if (n)
        memcpy(moved, *list, n * item_bytes);
    *list = moved;
    *room = larger;
    return 0;
}

static int grow_slots(struct maker *k)
{
    struct body *b = k->body;
    size_t room = k->room_slots, same = room;
    if (b->n_slots < room)
        return 0;
    int r = grow(k, &b->names, b->n_slots, &room, sizeof *b->names);
    if (r == 0)
        r = grow(k, &b->constants, b->n_slots, &same, sizeof *b->constants);
    int64_t *last = r < 0 ? NULL : realloc(k->last, room * sizeof *last);
    if (r < 0 || !last)
        return r < 0 ? r : err_new(k->err, QD_E_NO_MEMORY, "the graph");
    k->last = last;
    k->room_slots = room;
    return 0;
}

static int new_slot(struct maker *k, const char *name, int32_t *ret)
{
    struct body *b = k->body;
    int r = grow_slots(k);
    if (r < 0)
        return r;
    const size_t slot = b->n_slots++;
    b->names[slot] = name;
    k->last[slot] = -1;
    size_t earlier;
    if (name[0] && name_set_add(&k->names, name, slot, &earlier) < 0)
        return err_new(k->err, QD_E_NO_MEMORY, "the graph");
    *ret = (int32_t)slot;
    return 0;
}

static int capture(struct maker *k, const char *name, int32_t outer, int32_t *ret)
{
    struct body *b = k->body;
    int r = new_slot(k, name, ret);
    if (r == 0)
        r = grow(k, &b->captures, b->n_captures, &k->room_captures, sizeof *b->captures);
    if (r == 0)
        b->captures[b->n_captures++] = (struct capture){outer, *ret};
    return r;
}

/* The slot of @name, taken from around where it is not the body's own. The reader has seen that somebody makes it. */
static int find_slot(struct maker *k, const char *name, int32_t *ret)
{
    const int64_t own = name_set_find(&k->names, name);
    if (own >= 0) {
        *ret = (int32_t)own;
        return 0;
    }
    if (!k->outer)
        return err_new(k->err, QD_E_CORRUPT, "value '%.200s' is made by no node, input or initializer", name);
    int32_t outer;
    int r = find_slot(k->outer, name, &outer);
    return r < 0 ? r : capture(k, name, outer, ret);
}

static int constant_slot(struct maker *k, const char *name, const struct onnx_tensor *t)
{
    int32_t slot;
    int r = new_slot(k, name, &slot);
    if (r == 0)
        k->body->constants[slot].tensor = t;
    return r;
}

/* ---- attributes of functions ---- */

static const struct onnx_attr *bound_attr(const struct binding *b, const char *name)
{
    const struct onnx_attr *a = onnx_attr_find(b->call, name);
    for (size_t i = 0; !a && i < b->function->n_attr_defaults; i++)
        if (strcmp(b->function->attr_defaults[i].name, name) == 0)
            a = &b->function->attr_defaults[i];
    return a;
}

static bool refers(const struct onnx_node *n)
{
    for (size_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].ref)
            return true;
    return false;
}

/* The node with the attributes that the function was called with; the very node where it refers to none. */
static int bind_node(struct maker *k, const struct onnx_node *n, const struct onnx_node **ret)
{
    *ret = n;
    if (!k->binding || !refers(n))
        return 0;
    struct onnx_node *bound = arena_alloc(k->g->arena, 1, sizeof *bound);
    struct onnx_attr *attrs = arena_alloc(k->g->arena, n->n_attrs, sizeof *attrs);
    if (!bound || !attrs)
        return out_of_budget(k);
    *bound = *n;
    bound->attrs = attrs;
    bound->n_attrs = 0;
    for (size_t i = 0; i < n->n_attrs; i++) {
        const struct onnx_attr *a = n->attrs[i].ref ? bound_attr(k->binding, n->attrs[i].ref) : &n->attrs[i];
        if (!a)
            continue; /* neither given nor with a default: as if the node did not have it */
        attrs[bound->n_attrs] = *a;
        attrs[bound->n_attrs++].name = n->attrs[i].name;
    }
    *ret = bound;
    return 0;
}

/* ---- steps ---- */

static int make_body(struct maker *k, const struct onnx_node *nodes, size_t n_nodes, const size_t *order);
static int make_graph_body(struct maker *outer, const struct onnx_graph *g, struct body **ret);
static int finish_body(struct maker *k);

static int make_subbodies(struct maker *k, struct step *s)
{
    const struct onnx_node *n = s->node;
    s->subbodies = arena_alloc(k->g->arena, n->n_attrs + 1, sizeof *s->subbodies);
    if (!s->subbodies)
        return out_of_budget(k);
    int r = 0;
    for (size_t i = 0; i < n->n_attrs && r == 0; i++) {
        if (n->attrs[i].kind != ONNX_ATTR_GRAPH)
            continue;
        struct subbody *sub = &s->subbodies[s->n_subbodies];
        sub->attr = n->attrs[i].name;
        r = make_graph_body(k, &n->attrs[i].graphs[0], &sub->body);
        s->n_subbodies += r == 0;
    }
    return r;
}

static int take_outputs(struct maker *k, const struct onnx_function *f)
{
    struct body *b = k->body;
    b->outputs = arena_alloc(k->g->arena, f->n_outputs + 1, sizeof *b->outputs);
    int r = b->outputs ? 0 : out_of_budget(k);
    for (size_t i = 0; i < f->n_outputs && r == 0; i++)
        r = find_slot(k, f->outputs[i], &b->outputs[b->n_outputs++]);
    return r;
}

static int make_call(struct maker *k, const struct onnx_function *f, struct step *s)
{
    if (k->calls == CALLS_MAX)
        return err_new(k->err, QD_E_LIMIT, "function '%.100s' calls functions more than %d deep", f->name, CALLS_MAX);
    const struct binding binding = {f, s->node};
    CLEANUP(maker_clear)
    struct maker inner = {.g = k->g,
                          .opsets = f->opsets,
                          .n_opsets = f->n_opsets,
                          .binding = &binding,
                          .calls = k->calls + 1,
                          .missing = k->missing,
                          .err = k->err};
    struct body *b = inner.body = arena_alloc(k->g->arena, 1, sizeof *b);
    int r = b && name_set_init(&inner.names, 16) == 0 ? 0 : out_of_budget(k);
    if (r == 0 && !(b->inputs = arena_alloc(k->g->arena, f->n_inputs + 1, sizeof *b->inputs)))
        r = out_of_budget(k);
    for (size_t i = 0; i < f->n_inputs && r == 0; i++)
        r = new_slot(&inner, f->inputs[i], &b->inputs[b->n_inputs++]);
    if (r == 0)
        r = make_body(&inner, f->nodes, f->n_nodes, f->order);
    if (r == 0)
        r = take_outputs(&inner, f);
    s->call = b;
    return r < 0 ? r : finish_body(&inner);
}

static int note_missing(struct maker *k, const struct onnx_node *n, int64_t opset)
{
    struct missing *m = k->missing;
    char text[3 * TEXT_BYTES_MAX];
    size_t earlier;
    (void)snprintf(text, sizeof text, "%s%s%.64s (opset %" PRId64 ")", n->domain[0] ? n->domain : "",
                   n->domain[0] ? "." : "", n->op_type, opset);
    const int r = name_set_find(&m->seen, text) >= 0 ? 1 : 0;
    if (r > 0)
        return 0;
    char *kept = arena_text(k->g->arena, (struct bytes){(const uint8_t *)text, strlen(text)});
    if (!kept || name_set_add(&m->seen, kept, m->n, &earlier) < 0)
        return out_of_budget(k);
    if (m->n < MISSING_SHOWN)
        buffer_printf(&m->text, "%s%s", m->n ? ", " : "", text);
    if (m->n++ == 0)
        (void)snprintf(m->node, sizeof m->node, "%s", n->name[0] ? n->name : n->n_outputs ? n->outputs[0] : "");
    return 0;
}

static int make_operator(struct maker *k, struct step *s)
{
    const struct onnx_node *n = s->node;
    s->opset = onnx_opset_version(k->opsets, k->n_opsets, n->domain);
    if (s->opset == 0)
        s->opset = 1; /* a domain that the model forgot to import */
    s->op = op_find(n->domain, n->op_type, s->opset);
    if (s->op)
        return make_subbodies(k, s);
    const struct onnx_function *f = onnx_function_find(k->g->model, n);
    return f ? make_call(k, f, s) : note_missing(k, n, s->opset);
}

static int slots_of(struct maker *k, const char *const *names, size_t n, bool made_here, const int32_t **ret)
{
    int32_t *slots = arena_alloc(k->g->arena, n + 1, sizeof *slots);
    int r = slots ? 0 : out_of_budget(k);
    for (size_t i = 0; i < n && r == 0; i++) {
        slots[i] = NO_SLOT;
        if (names[i][0])
            r = made_here ? new_slot(k, names[i], &slots[i]) : find_slot(k, names[i], &slots[i]);
    }
    *ret = slots;
    return r;
}

static const struct onnx_tensor *constant_of(const struct onnx_node *n)
{
    const bool is_constant = strcmp(n->op_type, "Constant") == 0 && n->domain[0] == '\0' && n->n_outputs == 1;
    const struct onnx_attr *a = is_constant ? onnx_attr_find(n, "value") : NULL;
    return a && a->kind == ONNX_ATTR_TENSOR ? &a->tensors[0] : NULL;
}

static int make_step(struct maker *k, const struct onnx_node *raw)
{
    struct step *s = &k->body->steps[k->body->n_steps];
    int r = bind_node(k, raw, &s->node);
    if (r < 0)
        return r;
    const struct onnx_tensor *t = constant_of(s->node);
    if (t)
        return constant_slot(k, s->node->outputs[0], t);
    r = slots_of(k, s->node->inputs, s->node->n_inputs, false, &s->in);
    if (r == 0)
        r = make_operator(k, s);
    if (r == 0)
        r = slots_of(k, s->node->outputs, s->node->n_outputs, true, &s->out);
    k->body->n_steps++;
    return r;
}

/* ---- who needs what last ---- */

static void need_until(struct maker *k, int32_t slot, size_t step)
{
    if (slot != NO_SLOT && k->last[slot] < (int64_t)step)
        k->last[slot] = (int64_t)step;
}

static void mark_last(struct maker *k)
{
    const struct body *b = k->body;
    for (size_t i = 0; i < b->n_steps; i++) {
        const struct step *s = &b->steps[i];
        for (size_t j = 0; j < s->node->n_inputs; j++)
            need_until(k, s->in[j], i);
        for (size_t j = 0; j < s->node->n_outputs; j++)
            need_until(k, s->out[j], i); /* nobody's input: gone at once */
        for (size_t j = 0; j < s->n_subbodies; j++)
            for (size_t c = 0; c < s->subbodies[j].body->n_captures; c++)
                need_until(k, s->subbodies[j].body->captures[c].outer, i);
    }
    for (size_t i = 0; i < b->n_outputs; i++)
        k->last[b->outputs[i]] = INT64_MAX;
}

static int list_frees(struct maker *k)
{
    struct body *b = k->body;
    size_t *counts = arena_alloc(k->g->arena, b->n_steps + 1, sizeof *counts);
    int r = counts ? 0 : out_of_budget(k);
    for (size_t s = 0; s < b->n_slots && r == 0; s++)
        if (k->last[s] >= 0 && k->last[s] != INT64_MAX && !b->constants[s].tensor)
            counts[k->last[s]]++;
    for (size_t i = 0; i < b->n_steps && r == 0; i++)
        if (!(b->steps[i].frees = arena_alloc(k->g->arena, counts[i] + 1, sizeof *b->steps[i].frees)))
            r = out_of_budget(k);
    for (size_t s = 0; s < b->n_slots && r == 0; s++)
        if (k->last[s] >= 0 && k->last[s] != INT64_MAX && !b->constants[s].tensor) {
            struct step *step = &b->steps[k->last[s]];
            ((int32_t *)step->frees)[step->n_frees++] = (int32_t)s; /* ours until the graph is returned */
        }
    return r;
}

/* ---- bodies ---- */

static int make_body(struct maker *k, const struct onnx_node *nodes, size_t n_nodes, const size_t *order)
{
    struct body *b = k->body;
    b->steps = arena_alloc(k->g->arena, n_nodes + 1, sizeof *b->steps);
    int r = b->steps ? 0 : out_of_budget(k);
    for (size_t i = 0; i < n_nodes && r == 0; i++)
        r = make_step(k, &nodes[order[i]]);
    return r;
}

/* Inputs that an initializer gives a default are constants: nobody runs with another value. */
static int take_inputs(struct maker *k, const struct onnx_graph *g)
{
    struct body *b = k->body;
    b->inputs = arena_alloc(k->g->arena, g->n_inputs + 1, sizeof *b->inputs);
    int r = b->inputs ? 0 : out_of_budget(k);
    for (size_t i = 0; i < g->n_initializers && r == 0; i++)
        r = constant_slot(k, g->initializers[i].name, &g->initializers[i]);
    for (size_t i = 0; i < g->n_inputs && r == 0; i++) {
        if (name_set_find(&k->names, g->inputs[i].name) >= 0)
            continue;
        r = new_slot(k, g->inputs[i].name, &b->inputs[b->n_inputs++]);
        if (!k->outer)
            k->g->inputs[k->g->n_inputs++] = &g->inputs[i];
    }
    return r;
}

static int finish_body(struct maker *k)
{
    mark_last(k);
    return list_frees(k);
}

static int fill_graph_body(struct maker *k, const struct onnx_graph *g)
{
    struct body *b = k->body;
    int r = take_inputs(k, g);
    if (r == 0)
        r = make_body(k, g->nodes, g->n_nodes, g->order);
    if (r == 0 && !(b->outputs = arena_alloc(k->g->arena, g->n_outputs + 1, sizeof *b->outputs)))
        r = out_of_budget(k);
    for (size_t i = 0; i < g->n_outputs && r == 0; i++)
        r = find_slot(k, g->outputs[i].name, &b->outputs[b->n_outputs++]);
    return r < 0 ? r : finish_body(k);
}

static int make_graph_body(struct maker *outer, const struct onnx_graph *g, struct body **ret)
{
    CLEANUP(maker_clear) struct maker k = *outer;
    k.outer = outer->body ? outer : NULL;
    k.last = NULL;
    k.names = (struct name_set){0};
    k.room_slots = k.room_captures = 0;
    k.body = arena_alloc(k.g->arena, 1, sizeof *k.body);
    if (!k.body || name_set_init(&k.names, g->n_nodes) < 0)
        return out_of_budget(&k);
    *ret = k.body;
    return fill_graph_body(&k, g);
}

static int report_missing(struct missing *m, struct qd_error *err)
{
    if (m->n == 0)
        return 0;
    int r =
        err_new(err, QD_E_UNSUPPORTED, "the executor has no operator %s%s; the first is node '%s'",
                m->text.failed ? "" : (const char *)m->text.data, m->n > MISSING_SHOWN ? " and others" : "", m->node);
    return err_hint(err, r, "schemes that need no calibration (int8-weight, f16, bf16) do without the executor");
}

int graph_prepare(const struct onnx_model *m, struct source *s, struct memory *memory, struct graph **ret,
                  struct qd_error *err)
{
    CLEANUP(graph_free) struct graph *g = calloc(1, sizeof *g);
    if (!g || !(g->arena = arena_new(LIMIT_HEADER_BUDGET_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "the graph");
    g->model = m;
    g->source = s;
    g->memory = memory;
    struct missing missing = {.n = 0};
    struct maker k = {.g = g, .opsets = m->opsets, .n_opsets = m->n_opsets, .missing = &missing, .err = err};
    g->inputs = arena_alloc(g->arena, m->graph->n_inputs + 1, sizeof *g->inputs);
    int r = g->inputs && name_set_init(&missing.seen, 8) == 0 ? 0 : err_new(err, QD_E_NO_MEMORY, "the graph");
    if (r == 0)
        r = make_graph_body(&k, m->graph, &g->main);
    if (r == 0)
        r = report_missing(&missing, err);
    name_set_clear(&missing.seen);
    buffer_clear(&missing.text);
    if (r < 0)
        return err_in(err, r, "'%s'", source_name(s, 0));
    *ret = steal(&g);
    return 0;
}

void body_forget(struct body *b)
{
    for (size_t i = 0; b && i < b->n_slots; i++)
        b->constants[i].value = value_release(b->constants[i].value);
    for (size_t i = 0; b && i < b->n_steps; i++) {
        body_forget(b->steps[i].call);
        for (size_t j = 0; j < b->steps[i].n_subbodies; j++)
            body_forget(b->steps[i].subbodies[j].body);
    }
}

struct graph *graph_free(struct graph *g)
{
    if (g) {
        body_forget(g->main);
        (void)arena_free(g->arena); /* returns NULL */
    }
    free(g);
    return NULL;
}
