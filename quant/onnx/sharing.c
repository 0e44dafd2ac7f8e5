#include "quant/onnx/sharing.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/error.h"
#include "kernels/core/name_set.h"

/* What sharing_range said before. */
struct known {
    bool asked;
    int status;
    struct range range;
};

struct sharing {
    const struct onnx_graph *graph;
    const struct statistics *statistics;
    struct range_options options;
    struct name_set values; /* owned: of those that share; their numbers are places in what follows */
    const char **names;     /* owned, [n]; names are the graph's */
    size_t *parent;         /* owned, [n]: towards the one that stands for all (itself) */
    struct known *known;    /* owned, [n]: of those that stand for all */
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

static size_t root_of(struct sharing *s, size_t i)
{
    for (; s->parent[i] != i; i = s->parent[i])
        s->parent[i] = s->parent[s->parent[i]];
    return i;
}

/* The place of @value, a new one where it has none; room was made. */
static int place_of(struct sharing *s, const char *value, size_t *ret)
{
    int r = name_set_add(&s->values, value, s->n, ret);
    if (r == 0) {
        *ret = s->n;
        s->names[s->n] = value;
        s->parent[s->n] = s->n;
        s->n++;
    }
    return r < 0 ? r : 0;
}

static int join(struct sharing *s, const char *a, const char *b)
{
    size_t i, j;
    if (!a[0] || !b[0])
        return 0;
    int r = place_of(s, a, &i);
    if (r == 0)
        r = place_of(s, b, &j);
    if (r < 0)
        return r;
    s->parent[root_of(s, i)] = root_of(s, j);
    s->known[root_of(s, j)].asked = false;
    return 0;
}

struct sharing *sharing_free(struct sharing *s)
{
    if (s) {
        name_set_clear(&s->values);
        free(s->names);
        free(s->parent);
        free(s->known);
    }
    free(s);
    return NULL;
}

const struct onnx_graph *sharing_graph(const struct sharing *s)
{
    return s->graph;
}

/* Widens @ret by what was seen of @value. 1: nothing. */
static int widen(const struct sharing *s, struct range *ret, const char *value, struct qd_error *err)
{
    const struct edge_statistics *e = statistics_find(s->statistics, value);
    struct range r;
    if (!e || e->all->n == 0)
        return 1;
    int status = range_choose(e->all, &s->options, &r, err);
    if (status < 0)
        return err_in(err, status, "activation '%.200s'", value);
    ret->low = r.low < ret->low ? r.low : ret->low;
    ret->high = r.high > ret->high ? r.high : ret->high;
    return 0;
}

/* Over all that stand with @root. 1: none was seen. */
static int range_of_all(struct sharing *s, size_t root, struct range *ret, struct qd_error *err)
{
    bool seen = false;
    int r = 0;
    for (size_t i = 0; i < s->n && r >= 0; i++)
        if (root_of(s, i) == root) {
            r = widen(s, ret, s->names[i], err);
            seen = seen || r == 0;
        }
    return r < 0 ? r : !seen;
}

int sharing_range(struct sharing *s, const char *value, struct range *ret, struct qd_error *err)
{
    const int64_t place = name_set_find(&s->values, value);
    *ret = (struct range){0, 0};
    if (place < 0)
        return widen(s, ret, value, err);
    const size_t root = root_of(s, (size_t)place);
    struct known *k = &s->known[root];
    if (!k->asked)
        k->status = range_of_all(s, root, &k->range, err);
    k->asked = true;
    *ret = k->range;
    return k->status;
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
        whole.low = part.low < whole.low ? part.low : whole.low;
        whole.high = part.high > whole.high ? part.high : whole.high;
    }
    for (size_t i = 0; i < n->n_inputs && r >= 0; i++) {
        r = sharing_range(s, n->inputs[i], &part, err);
        if (r >= 0 && 2 * width(part) >= width(whole))
            r = join(s, n->inputs[i], n->outputs[0]) < 0 ? err_new(err, QD_E_NO_MEMORY, "scales that are shared") : 0;
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
    *s = (struct sharing){.graph = g,
                          .statistics = statistics,
                          .options = *options,
                          .names = calloc(room, sizeof *s->names),
                          .parent = calloc(room, sizeof *s->parent),
                          .known = calloc(room, sizeof *s->known)};
    int r = s->names && s->parent && s->known ? name_set_init(&s->values, room) : QD_E_NO_MEMORY;
    for (size_t i = 0; i < g->n_nodes && r == 0; i++)
        if (moves(&g->nodes[i]))
            r = join(s, g->nodes[i].inputs[0], g->nodes[i].outputs[0]);
    if (r < 0)
        (void)err_new(err, r, "scales that are shared");
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
