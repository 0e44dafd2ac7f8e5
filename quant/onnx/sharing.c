#include "quant/onnx/sharing.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/error.h"
#include "kernels/core/name_set.h"

/* Values with the same codes, as a tree: the one that stands for all knows the range of all. */
struct member {
    size_t parent; /* towards that one; itself */
    bool seen;     /* by the statistics: one of them at least */
    struct range range;
};

struct sharing {
    const struct onnx_graph *graph;
    const struct statistics *statistics;
    struct range_options options;
    struct name_set values; /* owned: of those that move; their numbers are places in what follows */
    struct member *members; /* owned, [n] */
    size_t n;
};

/* Operators whose results are elements of their first input; Concat takes more, and is looked at by itself. */
static const struct moving_op {
    const char *op_type;
    bool by_mode; /* only where its attribute "mode" is "nearest", or not there */
} moving_ops[] = {{"MaxPool", false},   {"Reshape", false},   {"Flatten", false},
                  {"Transpose", false}, {"Squeeze", false},   {"Resize", true},
                  {"Upsample", true},   {"Unsqueeze", false}, {"Identity", false}};

static bool picks_nearest(const struct onnx_node *n)
{
    static const char nearest[] = "nearest";
    const struct onnx_attr *a = onnx_attr_find(n, "mode");
    return !a || (a->kind == ONNX_ATTR_STRING && a->s.n == strlen(nearest) && memcmp(a->s.data, nearest, a->s.n) == 0);
}

static bool moves(const struct onnx_node *n)
{
    bool is = false;
    for (size_t i = 0; i < sizeof moving_ops / sizeof moving_ops[0]; i++)
        is = is || (strcmp(n->op_type, moving_ops[i].op_type) == 0 && (!moving_ops[i].by_mode || picks_nearest(n)));
    return is && n->domain[0] == '\0' && n->n_inputs > 0 && n->n_outputs > 0;
}

static bool concatenates(const struct onnx_node *n)
{
    return strcmp(n->op_type, "Concat") == 0 && n->domain[0] == '\0' && n->n_outputs > 0;
}

static struct member *root_of(struct sharing *s, size_t i)
{
    struct member *m = s->members;
    for (; m[i].parent != i; i = m[i].parent)
        m[i].parent = m[m[i].parent].parent;
    return &m[i];
}

/* What was seen of @value alone. 1: nothing. */
static int range_of(const struct sharing *s, const char *value, struct range *ret, struct qd_error *err)
{
    const struct edge_statistics *e = statistics_find(s->statistics, value);
    *ret = (struct range){0, 0};
    if (!e || e->all->n == 0)
        return 1;
    int r = range_choose(e->all, &s->options, ret, err);
    return r < 0 ? err_in(err, r, "activation '%.200s'", value) : 0;
}

/* The one that stands for @value and all it shares with; it becomes one by itself where it is new: room was made. */
static int member_of(struct sharing *s, const char *value, struct member **ret, struct qd_error *err)
{
    size_t i = s->n;
    int r = name_set_add(&s->values, value, s->n, &i);
    if (r < 0)
        return err_new(err, QD_E_NO_MEMORY, "scales that are shared");
    if (r == 0) {
        struct member *m = &s->members[i = s->n++];
        r = range_of(s, value, &m->range, err);
        m->parent = i;
        m->seen = r == 0;
    }
    *ret = root_of(s, i);
    return r < 0 ? r : 0;
}

static void widen(struct range *r, const struct range *by)
{
    r->low = by->low < r->low ? by->low : r->low;
    r->high = by->high > r->high ? by->high : r->high;
}

static void join(struct sharing *s, struct member *a, struct member *b)
{
    a->parent = (size_t)(b - s->members);
    b->seen = b->seen || a->seen;
    widen(&b->range, &a->range);
}

struct sharing *sharing_free(struct sharing *s)
{
    if (s) {
        name_set_clear(&s->values);
        free(s->members);
    }
    free(s);
    return NULL;
}

const struct onnx_graph *sharing_graph(const struct sharing *s)
{
    return s->graph;
}

int sharing_range(struct sharing *s, const char *value, struct range *ret, struct qd_error *err)
{
    const int64_t place = name_set_find(&s->values, value);
    if (place < 0)
        return range_of(s, value, ret, err);
    const struct member *m = root_of(s, (size_t)place);
    *ret = m->range;
    return !m->seen;
}

static int join_input(struct sharing *s, const struct onnx_node *n, size_t i, struct qd_error *err)
{
    struct member *a, *b;
    if (!n->inputs[i][0] || !n->outputs[0][0])
        return 0;
    int r = member_of(s, n->inputs[i], &a, err);
    if (r == 0)
        r = member_of(s, n->outputs[0], &b, err);
    if (r == 0)
        join(s, a, b);
    return r;
}

static double width(struct range r)
{
    return r.high - r.low;
}

/*
 * A Concat's inputs and its result, but for inputs that would lose more than a bit of resolution: those are scaled anew
 * at the Concat.
 */
static int join_parts(struct sharing *s, const struct onnx_node *n, struct qd_error *err)
{
    struct range whole, part;
    int r = sharing_range(s, n->outputs[0], &whole, err);
    for (size_t i = 0; i < n->n_inputs && r >= 0; i++) {
        r = sharing_range(s, n->inputs[i], &part, err);
        widen(&whole, &part);
    }
    for (size_t i = 0; i < n->n_inputs && r >= 0; i++) {
        r = sharing_range(s, n->inputs[i], &part, err);
        if (r >= 0 && 2 * width(part) >= width(whole))
            r = join_input(s, n, i, err);
    }
    return r < 0 ? r : 0;
}

int sharing_new(const struct onnx_graph *g, const struct statistics *statistics, const struct range_options *options,
                struct sharing **ret, struct qd_error *err)
{
    size_t room = 1;
    for (size_t i = 0; i < g->n_nodes; i++)
        room += moves(&g->nodes[i]) ? 2 : concatenates(&g->nodes[i]) ? g->nodes[i].n_inputs + 1 : 0;
    struct sharing *s = calloc(1, sizeof *s);
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "scales that are shared");
    *s = (struct sharing){
        .graph = g, .statistics = statistics, .options = *options, .members = calloc(room, sizeof *s->members)};
    int r =
        s->members && name_set_init(&s->values, room) == 0 ? 0 : err_new(err, QD_E_NO_MEMORY, "scales that are shared");
    for (size_t i = 0; i < g->n_nodes && r == 0; i++)
        if (moves(&g->nodes[i]))
            r = join_input(s, &g->nodes[i], 0, err);
    for (size_t i = 0; i < g->n_nodes && r == 0; i++)
        if (concatenates(&g->nodes[i]))
            r = join_parts(s, &g->nodes[i], err);
    if (r < 0) {
        (void)sharing_free(s); /* NULL */
        return r;
    }
    *ret = s;
    return 0;
}
