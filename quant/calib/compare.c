#include "quant/calib/compare.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/name_set.h"

/* What is remembered of a value while a sample goes through both graphs. */
struct kept {
    float *x;                   /* owned: [COMPARE_KEPT] */
    uint64_t n;                 /* elements of the whole value */
    uint64_t made, compared_at; /* numbers of the samples, from 1; a loop's value is the first that it makes */
};

struct comparing {
    struct comparison *result;
    struct name_set names;
    struct kept *kept; /* owned: [room], beside result->values */
    size_t room;
};

/* ---- values within ---- */

static bool is_compared(const char *name, const struct value *v, const struct onnx_node *node)
{
    return node && name[0] && v->kind == VALUE_TENSOR && v->type == ONNX_FLOAT &&
           strcmp(node->op_type, "Constant") != 0;
}

static uint64_t n_kept(uint64_t n)
{
    return n < COMPARE_KEPT ? n : COMPARE_KEPT;
}

static float kept_element(const struct value *v, uint64_t i)
{
    return ((const float *)v->data)[v->n <= COMPARE_KEPT ? i : i * (v->n / COMPARE_KEPT)];
}

static int make_room(struct comparing *k)
{
    if (k->result->n_values < k->room)
        return 0;
    const size_t room = k->room ? 2 * k->room : 64;
    struct value_error *values = realloc(k->result->values, room * sizeof *values);
    if (values)
        k->result->values = values;
    struct kept *kept = realloc(k->kept, room * sizeof *kept);
    if (kept)
        k->kept = kept;
    k->room = values && kept ? room : k->room;
    return values && kept ? 0 : QD_E_NO_MEMORY;
}

/* A value that was not seen before: its number, or negative. */
static int64_t new_value(struct comparing *k, const char *name, const struct onnx_node *node)
{
    struct arena *a = k->result->arena;
    const size_t at = k->result->n_values;
    size_t earlier;
    if (make_room(k) < 0)
        return QD_E_NO_MEMORY;
    struct value_error e = {arena_text(a, (struct bytes){(const uint8_t *)name, strlen(name)}),
                            arena_text(a, (struct bytes){(const uint8_t *)node->op_type, strlen(node->op_type)}),
                            {0.0, 0.0, 0.0, 0.0}};
    struct kept kept = {.x = malloc(COMPARE_KEPT * sizeof *kept.x)};
    if (!e.name || !e.op || !kept.x || name_set_add(&k->names, e.name, at, &earlier) < 0) {
        free(kept.x);
        return QD_E_NO_MEMORY;
    }
    k->result->values[at] = e;
    k->kept[at] = kept;
    k->result->n_values++;
    return (int64_t)at;
}

static int keep_value(void *data, const char *name, const struct value *v, const struct onnx_node *node,
                      struct qd_error *err)
{
    struct comparing *k = data;
    if (!is_compared(name, v, node))
        return 0;
    int64_t at = name_set_find(&k->names, name);
    if (at < 0 && k->result->n_values == COMPARE_VALUES_MAX)
        return 0;
    if (at < 0)
        at = new_value(k, name, node);
    if (at < 0)
        return err_new(err, QD_E_NO_MEMORY, "values to compare");
    struct kept *kept = &k->kept[at];
    if (kept->made == k->result->n_samples + 1)
        return 0;
    kept->made = k->result->n_samples + 1;
    kept->n = v->n;
    for (uint64_t i = 0; i < n_kept(v->n); i++)
        kept->x[i] = kept_element(v, i);
    return 0;
}

static int compare_value(void *data, const char *name, const struct value *v, const struct onnx_node *node,
                         struct qd_error *err)
{
    struct comparing *k = data;
    const uint64_t sample = k->result->n_samples + 1;
    (void)err;
    const int64_t at = is_compared(name, v, node) ? name_set_find(&k->names, name) : -1;
    if (at < 0 || k->kept[at].made != sample || k->kept[at].compared_at == sample || k->kept[at].n != v->n)
        return 0;
    k->kept[at].compared_at = sample;
    for (uint64_t i = 0; i < n_kept(v->n); i++)
        deviation_add(&k->result->values[at].deviation, (double)k->kept[at].x[i], (double)kept_element(v, i));
    return 0;
}

/* ---- samples ---- */

static int compare_outputs(struct comparison *c, struct value *const *exact, struct value *const *other,
                           struct qd_error *err)
{
    for (size_t i = 0; i < c->n_outputs; i++) {
        const struct value *x = exact[i], *y = other[i];
        const bool floats = x->kind == VALUE_TENSOR && x->type == ONNX_FLOAT;
        if (y->kind != x->kind || y->type != x->type || (floats && y->n != x->n))
            return err_new(err, QD_E_INVALID, "output '%.200s' has another type or size", c->outputs[i].name);
        for (uint64_t e = 0; floats && e < x->n; e++)
            deviation_add(&c->outputs[i].deviation, (double)((const float *)x->data)[e],
                          (double)((const float *)y->data)[e]);
    }
    return 0;
}

struct pair {
    struct graph *exact, *other;
    struct value **in, **out; /* [inputs]; [2 * outputs] */
    size_t n_in, n_out;
};

/* One sample: 1, or 0 where there are no more. */
static int run_sample(struct comparing *k, const struct pair *p, const struct calibration *c, struct qd_error *err)
{
    const char *name = "";
    struct graph_run_options o = c->run;
    o.observe_data = k;
    int r = c->next(c->data, p->in, &name, err);
    if (r <= 0)
        return r;
    o.observe = keep_value;
    r = graph_run(p->exact, &o, p->in, p->out, err);
    o.observe = compare_value;
    if (r == 0)
        r = graph_run(p->other, &o, p->in, p->out + p->n_out, err);
    if (r == 0)
        r = compare_outputs(k->result, p->out, p->out + p->n_out, err);
    values_release(p->out, 2 * p->n_out);
    return r < 0 ? err_in(err, r, "sample '%.200s'", name) : 1;
}

static int run_samples(struct comparing *k, const struct pair *p, const struct calibration *c, uint64_t n_samples,
                       struct qd_error *err)
{
    int r = 1;
    while (r == 1 && k->result->n_samples < n_samples) {
        r = run_sample(k, p, c, err);
        values_release(p->in, p->n_in);
        if (r != 1)
            break;
        k->result->n_samples++;
        const int stop = c->progress ? c->progress(c->data, k->result->n_samples, err) : 0;
        r = stop ? stop : 1;
    }
    return r < 0 ? r : 0;
}

static int same_ends(const struct graph *a, const struct graph *b, struct qd_error *err)
{
    bool same = graph_n_inputs(a) == graph_n_inputs(b) && graph_n_outputs(a) == graph_n_outputs(b);
    for (size_t i = 0; same && i < graph_n_inputs(a); i++)
        same = strcmp(graph_input(a, i)->name, graph_input(b, i)->name) == 0;
    for (size_t i = 0; same && i < graph_n_outputs(a); i++)
        same = strcmp(graph_output_name(a, i), graph_output_name(b, i)) == 0;
    return same ? 0 : err_new(err, QD_E_INVALID, "the models have other inputs or outputs");
}

static int begin(struct comparison *c, const struct graph *exact, struct qd_error *err)
{
    c->arena = arena_new((size_t)64 << 20);
    c->outputs = calloc(graph_n_outputs(exact) + 1, sizeof *c->outputs);
    if (!c->arena || !c->outputs)
        return err_new(err, QD_E_NO_MEMORY, "a comparison");
    for (; c->n_outputs < graph_n_outputs(exact); c->n_outputs++) {
        const char *name = graph_output_name(exact, c->n_outputs);
        struct value_error *e = &c->outputs[c->n_outputs];
        e->op = "";
        e->name = arena_text(c->arena, (struct bytes){(const uint8_t *)name, strlen(name)});
        if (!e->name)
            return err_new(err, QD_E_NO_MEMORY, "a comparison");
    }
    return 0;
}

int compare_graphs(struct graph *exact, struct graph *other, const struct calibration *c, uint64_t n_samples,
                   struct comparison **ret, struct qd_error *err)
{
    const size_t n_in = graph_n_inputs(exact), n_out = graph_n_outputs(exact);
    CLEANUP(comparison_free) struct comparison *result = calloc(1, sizeof *result);
    CLEANUP(free) struct value **ends = calloc(n_in + 2 * n_out + 1, sizeof *ends);
    struct comparing k = {.result = result};
    const struct pair p = {exact, other, ends, ends + n_in, n_in, n_out};
    int r = result && ends && name_set_init(&k.names, 64) == 0 ? same_ends(exact, other, err)
                                                               : err_new(err, QD_E_NO_MEMORY, "a comparison");
    if (r == 0)
        r = begin(result, exact, err);
    if (r == 0)
        r = run_samples(&k, &p, c, n_samples, err);
    for (size_t i = 0; result && i < result->n_values; i++)
        free(k.kept[i].x);
    free(k.kept);
    name_set_clear(&k.names);
    if (r == 0)
        *ret = steal(&result);
    return r;
}

struct comparison *comparison_free(struct comparison *c)
{
    if (c) {
        (void)arena_free(c->arena); /* returns NULL */
        free(c->values);
        free(c->outputs);
    }
    free(c);
    return NULL;
}
