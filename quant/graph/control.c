/* Operators that run graphs of their own: If, Loop, Scan, SequenceMap. onnx:docs/Operators.md. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "quant/graph/op.h"

static int truth(struct op_call *c, const struct value *v, bool *ret)
{
    if (!v || v->kind != VALUE_TENSOR || v->type != ONNX_BOOL || v->n != 1)
        return err_new(c->err, QD_E_INVALID, "a condition is no single bool");
    *ret = *(const uint8_t *)v->data != 0;
    return 0;
}

int op_if(struct op_call *c)
{
    bool yes = false;
    size_t n_in, n_out;
    int r = truth(c, call_in(c, 0), &yes);
    const char *branch = r == 0 && yes ? "then_branch" : "else_branch";
    if (r == 0)
        r = call_subgraph(c, branch, &n_in, &n_out);
    if (r == 0 && (n_in != 0 || n_out < c->n_out))
        r = err_new(c->err, QD_E_INVALID, "'%s' has %zu inputs and %zu outputs, the node has %zu", branch, n_in, n_out,
                    c->n_out);
    if (r < 0)
        return r;
    CLEANUP(free) struct value **out = calloc(n_out + 1, sizeof *out);
    if (!out)
        return err_new(c->err, QD_E_NO_MEMORY, "'%s'", branch);
    r = call_run(c, branch, NULL, out);
    for (size_t i = 0; i < n_out && r == 0; i++) {
        if (i < c->n_out)
            call_pass(c, i, out[i]);
        out[i] = value_release(out[i]);
    }
    return r;
}

/* ---- values that grow ---- */

/* What an iteration adds to a scan output, collected: all of one shape. */
struct pile {
    struct value **items; /* owned; a reference each */
    size_t n, room;
};

static int pile_add(struct op_call *c, struct pile *p, struct value *v)
{
    if (p->n == p->room) {
        const size_t room = p->room ? 2 * p->room : 16;
        struct value **larger = realloc(p->items, room * sizeof *larger);
        if (!larger)
            return err_new(c->err, QD_E_NO_MEMORY, "the results of %zu iterations", p->n);
        p->items = larger;
        p->room = room;
    }
    if (v->kind != VALUE_TENSOR || v->type == ONNX_STRING)
        return err_new(c->err, QD_E_UNSUPPORTED, "an iteration's result is no tensor of numbers");
    if (p->n > 0 && (!shape_equal(&v->shape, &p->items[0]->shape) || v->type != p->items[0]->type))
        return err_new(c->err, QD_E_INVALID, "the results of iterations are of different shapes");
    p->items[p->n++] = value_take(v);
    return 0;
}

static void pile_clear(struct pile *p)
{
    values_release(p->items, p->n);
    free(p->items);
    *p = (struct pile){0};
}

/* The items side by side along a new dimension @axis, in reverse where @backwards. */
static int pile_stack(struct op_call *c, const struct pile *p, size_t i, int64_t axis, bool backwards)
{
    const struct value *first = p->n ? p->items[0] : NULL;
    struct shape shape = first ? first->shape : (struct shape){.n_dims = 0};
    uint32_t at;
    struct value *out;
    if (shape.n_dims == VALUE_DIMS_MAX)
        return err_new(c->err, QD_E_UNSUPPORTED, "more than %d dimensions", VALUE_DIMS_MAX);
    int r = call_axis(c, axis, shape.n_dims + 1, &at);
    if (r < 0)
        return r;
    memmove(shape.dims + at + 1, shape.dims + at, (shape.n_dims - at) * sizeof shape.dims[0]);
    shape.dims[at] = (int64_t)p->n;
    shape.n_dims++;
    r = call_tensor(c, i, first ? first->type : ONNX_FLOAT, &shape, &out);
    if (r < 0 || !first)
        return r;
    uint64_t inner = value_element_bytes(first->type);
    for (uint32_t d = at + 1; d < shape.n_dims; d++)
        inner *= (uint64_t)shape.dims[d];
    const uint64_t outer = inner ? first->n * value_element_bytes(first->type) / inner : 0;
    for (size_t k = 0; k < p->n; k++)
        for (uint64_t o = 0; o < outer; o++)
            memcpy((uint8_t *)out->data + (o * p->n + (backwards ? p->n - 1 - k : k)) * inner,
                   (const uint8_t *)p->items[k]->data + o * inner, inner);
    return 0;
}

/* ---- Loop ---- */

struct loop {
    size_t n_carried, n_scans, n_in;
    struct value **in, **out; /* of the body; owned */
    struct pile *piles;       /* owned; [n_scans] */
};

static void loop_clear(struct loop *l)
{
    if (l->in)
        values_release(l->in, l->n_in);
    for (size_t i = 0; l->piles && i < l->n_scans; i++)
        pile_clear(&l->piles[i]);
    free(l->in);
    free(l->out);
    free(l->piles);
}

static int scalar_value(struct op_call *c, enum onnx_type type, int64_t v, struct value **ret)
{
    const struct shape scalar = {.n_dims = 0};
    int r = value_new(c->memory, type, &scalar, ret, c->err);
    if (r == 0 && type == ONNX_BOOL)
        *(uint8_t *)(*ret)->data = (uint8_t)v;
    else if (r == 0)
        *(int64_t *)(*ret)->data = v;
    return r;
}

static int loop_trips(struct op_call *c, int64_t *ret)
{
    const struct value *m = call_in(c, 0);
    *ret = INT64_MAX;
    if (!m)
        return 0;
    if (m->kind != VALUE_TENSOR || m->type != ONNX_INT64 || m->n != 1)
        return err_new(c->err, QD_E_INVALID, "the trip count is no single int64");
    *ret = *(const int64_t *)m->data;
    return 0;
}

/* One iteration: condition and carried values from the body's outputs, the rest onto the piles. */
static int loop_step(struct op_call *c, struct loop *l, int64_t trip, bool *go_on)
{
    l->in[0] = value_release(l->in[0]);
    int r = scalar_value(c, ONNX_INT64, trip, &l->in[0]);
    if (r == 0)
        r = call_run(c, "body", l->in, l->out);
    if (r < 0)
        return r;
    r = truth(c, l->out[0], go_on);
    for (size_t i = 0; i < 1 + l->n_carried; i++) {
        (void)value_release(l->in[1 + i]);
        l->in[1 + i] = steal(&l->out[i]);
    }
    for (size_t i = 0; i < l->n_scans && r == 0; i++)
        r = pile_add(c, &l->piles[i], l->out[1 + l->n_carried + i]);
    values_release(l->out, 1 + l->n_carried + l->n_scans);
    return r;
}

static int loop_begin(struct op_call *c, struct loop *l, bool *go_on)
{
    size_t n_out;
    int r = call_subgraph(c, "body", &l->n_in, &n_out);
    if (r < 0)
        return r;
    l->n_carried = c->n_in > 2 ? c->n_in - 2 : 0;
    if (l->n_in != l->n_carried + 2 || n_out < l->n_carried + 1)
        return err_new(c->err, QD_E_INVALID, "the body has %zu inputs and %zu outputs beside %zu carried values",
                       l->n_in, n_out, l->n_carried);
    l->n_scans = n_out - 1 - l->n_carried;
    l->in = calloc(l->n_in, sizeof *l->in);
    l->out = calloc(n_out, sizeof *l->out);
    l->piles = calloc(l->n_scans + 1, sizeof *l->piles);
    if (!l->in || !l->out || !l->piles)
        return err_new(c->err, QD_E_NO_MEMORY, "a loop");
    *go_on = true;
    if (call_in(c, 1))
        r = truth(c, call_in(c, 1), go_on);
    if (r == 0)
        r = scalar_value(c, ONNX_BOOL, *go_on, &l->in[1]);
    for (size_t i = 0; i < l->n_carried; i++)
        l->in[2 + i] = value_take(call_in(c, 2 + i));
    return r;
}

int op_loop(struct op_call *c)
{
    struct loop l = {0};
    int64_t trips;
    bool go_on = true;
    int r = loop_trips(c, &trips);
    if (r == 0)
        r = loop_begin(c, &l, &go_on);
    for (int64_t i = 0; r == 0 && go_on && i < trips; i++)
        r = loop_step(c, &l, i, &go_on);
    for (size_t i = 0; i < l.n_carried && r == 0; i++)
        if (call_wants(c, i))
            call_pass(c, i, l.in[2 + i]);
    for (size_t i = 0; i < l.n_scans && r == 0; i++)
        if (call_wants(c, l.n_carried + i))
            r = pile_stack(c, &l.piles[i], l.n_carried + i, 0, false);
    loop_clear(&l);
    return r;
}

/* ---- Scan ---- */

struct scan {
    struct op_call *c;
    size_t n_states, n_inputs, n_outputs;
    int64_t length;
    int64_t batch; /* opset 8 has a batch in front; -1: none */
};

static int64_t listed(const struct op_call *c, const char *name, size_t i)
{
    const struct onnx_attr *a = call_attr(c, name);
    return a && a->kind == ONNX_ATTR_INTS && i < a->n_ints ? a->ints[i] : 0;
}

/* Slice @at of @v along @axis, that dimension gone. */
static int take_slice(struct op_call *c, const struct value *v, uint32_t axis, int64_t at, struct value **ret)
{
    struct shape shape = v->shape;
    memmove(shape.dims + axis, shape.dims + axis + 1, (shape.n_dims - axis - 1) * sizeof shape.dims[0]);
    shape.n_dims--;
    int r = value_new(c->memory, v->type, &shape, ret, c->err);
    if (r < 0)
        return r;
    uint64_t inner = value_element_bytes(v->type);
    for (uint32_t d = axis + 1; d < v->shape.n_dims; d++)
        inner *= (uint64_t)v->shape.dims[d];
    const uint64_t n = (uint64_t)v->shape.dims[axis],
                   outer = inner && n ? v->n * value_element_bytes(v->type) / inner / n : 0;
    for (uint64_t o = 0; o < outer; o++)
        memcpy((uint8_t *)(*ret)->data + o * inner, (const uint8_t *)v->data + (o * n + (uint64_t)at) * inner, inner);
    return 0;
}

static int scan_step(struct scan *s, int64_t t, const struct value *const *sources, struct value **in,
                     struct value **out, struct pile *piles)
{
    struct op_call *c = s->c;
    int r = 0;
    for (size_t i = 0; i < s->n_inputs && r == 0; i++) {
        uint32_t axis;
        const struct value *v = sources[i];
        const bool backwards = listed(c, c->opset < 9 ? "directions" : "scan_input_directions", i) == 1;
        r = call_axis(c, listed(c, "scan_input_axes", i), v->shape.n_dims, &axis);
        (void)value_release(in[s->n_states + i]);
        in[s->n_states + i] = NULL;
        if (r == 0)
            r = take_slice(c, v, axis, backwards ? s->length - 1 - t : t, &in[s->n_states + i]);
    }
    if (r == 0)
        r = call_run(c, "body", in, out);
    if (r < 0)
        return r;
    for (size_t i = 0; i < s->n_states; i++) {
        (void)value_release(in[i]);
        in[i] = steal(&out[i]);
    }
    for (size_t i = 0; i < s->n_outputs && r == 0; i++)
        r = pile_add(c, &piles[i], out[s->n_states + i]);
    values_release(out, s->n_states + s->n_outputs);
    return r;
}

static int scan_length(struct scan *s, const struct value *const *sources)
{
    for (size_t i = 0; i < s->n_inputs; i++) {
        uint32_t axis;
        const struct value *v = sources[i];
        if (!v || v->kind != VALUE_TENSOR || v->type == ONNX_STRING)
            return err_new(s->c->err, QD_E_INVALID, "scan input %zu is no tensor of numbers", i);
        int r = call_axis(s->c, listed(s->c, "scan_input_axes", i), v->shape.n_dims, &axis);
        if (r < 0)
            return r;
        if (i > 0 && v->shape.dims[axis] != s->length)
            return err_new(s->c->err, QD_E_INVALID, "scan inputs have lengths %" PRId64 " and %" PRId64, s->length,
                           v->shape.dims[axis]);
        s->length = v->shape.dims[axis];
    }
    return 0;
}

static int scan_run(struct scan *s, const struct value *const *sources, struct value **in, struct value **out,
                    struct pile *piles)
{
    struct op_call *c = s->c;
    int r = scan_length(s, sources);
    for (int64_t t = 0; t < s->length && r == 0; t++)
        r = scan_step(s, t, sources, in, out, piles);
    for (size_t i = 0; i < s->n_states && r == 0; i++)
        if (call_wants(c, i))
            call_pass(c, i, in[i]);
    for (size_t i = 0; i < s->n_outputs && r == 0; i++)
        if (call_wants(c, s->n_states + i))
            r = pile_stack(c, &piles[i], s->n_states + i, listed(c, "scan_output_axes", i),
                           listed(c, "scan_output_directions", i) == 1);
    return r;
}

int op_scan(struct op_call *c)
{
    struct scan s = {.c = c};
    size_t n_in, n_out;
    const int64_t n_scans = call_int(c, "num_scan_inputs", 0);
    int r = call_subgraph(c, "body", &n_in, &n_out);
    if (r < 0)
        return r;
    if (n_scans < 1 || (uint64_t)n_scans > n_in || n_in != c->n_in || n_out < n_in - (size_t)n_scans)
        return err_new(c->err, QD_E_INVALID, "%zu inputs, %" PRId64 " of them scanned, for a body of %zu", c->n_in,
                       n_scans, n_in);
    s.n_inputs = (size_t)n_scans;
    s.n_states = n_in - s.n_inputs;
    s.n_outputs = n_out - s.n_states;
    CLEANUP(free) struct value **ends = calloc(n_in + n_out + 1, sizeof *ends);
    CLEANUP(free) struct pile *piles = calloc(s.n_outputs + 1, sizeof *piles);
    if (!ends || !piles)
        return err_new(c->err, QD_E_NO_MEMORY, "a scan");
    for (size_t i = 0; i < s.n_states; i++)
        ends[i] = value_take(call_in(c, i));
    r = scan_run(&s, (const struct value *const *)c->in + s.n_states, ends, ends + n_in, piles);
    values_release(ends, n_in + n_out);
    for (size_t i = 0; i < s.n_outputs; i++)
        pile_clear(&piles[i]);
    return r;
}

/* ---- SequenceMap ---- */

static int map_step(struct op_call *c, uint64_t at, struct value **in, struct value **out, struct value **sequences)
{
    size_t n_in = c->n_in, n_out = c->n_out;
    for (size_t i = 0; i < n_in; i++) {
        struct value *v = call_in(c, i);
        struct value **items = v->data;
        in[i] = v->kind == VALUE_SEQUENCE ? (at < v->n ? items[at] : NULL) : v;
        if (!in[i])
            return err_new(c->err, QD_E_INVALID, "sequence %zu has %" PRIu64 " items, the first one has more", i, v->n);
    }
    int r = call_run(c, "body", in, out);
    for (size_t i = 0; i < n_out && r == 0; i++)
        ((struct value **)sequences[i]->data)[at] = steal(&out[i]);
    return r;
}

int op_sequence_map(struct op_call *c)
{
    size_t n_in, n_out;
    const struct value *first = call_in(c, 0);
    int r = call_subgraph(c, "body", &n_in, &n_out);
    if (r < 0)
        return r;
    if (!first || first->kind != VALUE_SEQUENCE || n_in != c->n_in || n_out != c->n_out)
        return err_new(c->err, QD_E_INVALID, "no sequence, or a body of %zu inputs and %zu outputs", n_in, n_out);
    CLEANUP(free) struct value **ends = calloc(n_in + n_out + 1, sizeof *ends);
    if (!ends)
        return err_new(c->err, QD_E_NO_MEMORY, "a map over a sequence");
    for (size_t i = 0; i < n_in; i++)
        if (!call_in(c, i))
            return err_new(c->err, QD_E_INVALID, "input %zu is absent", i);
    for (size_t i = 0; i < n_out && r == 0; i++)
        r = value_sequence(c->memory, ONNX_UNDEFINED, first->n, &c->out[i], c->err);
    for (uint64_t at = 0; at < first->n && r == 0; at++)
        r = map_step(c, at, ends, ends + n_in, c->out);
    return r;
}
