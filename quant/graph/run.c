#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/graph/prepared.h"

enum { BODIES_MAX = 64 /* one within the other: as deep as the reader lets graphs nest, functions included */ };

struct frame {
    struct body *body;
    struct value **slots; /* a reference each */
};

struct run {
    struct graph *graph;
    const struct graph_run_options *options;
    struct frame *frame; /* of the body that runs */
    unsigned depth;
    struct qd_error *err;
};

/* ---- constants ---- */

static int unpack_small(struct value *v, const uint8_t *packed, unsigned bits, bool is_signed)
{
    uint8_t *dst = v->data;
    const unsigned per_byte = 8 / bits, mask = (1u << bits) - 1, sign = 1u << (bits - 1);
    for (uint64_t i = 0; i < v->n; i++) {
        const unsigned q = (unsigned)packed[i / per_byte] >> (bits * (i % per_byte)) & mask;
        dst[i] = (uint8_t)(is_signed ? (q ^ sign) - sign : q);
    }
    return 0;
}

static int load_small(struct source *s, const struct onnx_tensor *t, struct value *v, struct qd_error *err)
{
    void *packed = NULL;
    int r = memory_take(v->memory, onnx_tensor_bytes(t) + 1, &packed, err);
    if (r == 0)
        r = onnx_tensor_load(s, t, packed, err);
    if (r == 0)
        r = unpack_small(v, packed, onnx_type_bits(t->type), t->type == ONNX_INT4 || t->type == ONNX_INT2);
    memory_give(v->memory, packed);
    return r;
}

static int load_strings(struct source *s, const struct onnx_tensor *t, struct value *v, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *a = arena_new(SIZE_MAX / 2);
    const struct bytes *strings;
    if (!a)
        return err_new(err, QD_E_NO_MEMORY, "tensor '%.200s'", t->name);
    int r = onnx_tensor_strings(s, t, a, &strings, err);
    for (uint64_t i = 0; i < v->n && r == 0; i++)
        r = value_set_string(v, i, strings[i], err);
    return r;
}

/* A file may hold any byte for true. */
static void settle_bools(struct value *v)
{
    uint8_t *b = v->data;
    for (uint64_t i = 0; i < v->n; i++)
        b[i] = b[i] != 0;
}

int value_from_tensor(struct memory *m, struct source *s, const struct onnx_tensor *t, struct value **ret,
                      struct qd_error *err)
{
    struct shape shape = {.n_dims = (uint32_t)t->n_dims};
    if (t->n_dims > VALUE_DIMS_MAX)
        return err_new(err, QD_E_UNSUPPORTED, "tensor '%.200s' has %zu dimensions, at most %d are computed with",
                       t->name, t->n_dims, VALUE_DIMS_MAX);
    if (t->n_dims)
        memcpy(shape.dims, t->dims, t->n_dims * sizeof shape.dims[0]);
    CLEANUP(value_release) struct value *v = NULL;
    int r = value_new(m, t->type, &shape, &v, err);
    if (r == 0 && t->type == ONNX_STRING)
        r = load_strings(s, t, v, err);
    else if (r == 0)
        r = onnx_type_bits(t->type) < 8 ? load_small(s, t, v, err) : onnx_tensor_load(s, t, v->data, err);
    if (r < 0)
        return r;
    if (t->type == ONNX_BOOL)
        settle_bools(v);
    *ret = steal(&v);
    return 0;
}

int body_constant(struct graph *g, struct body *b, int32_t slot, struct value **ret, struct qd_error *err)
{
    struct constant *c = &b->constants[slot];
    int r = c->value ? 0 : value_from_tensor(g->memory, g->source, c->tensor, &c->value, err);
    if (r < 0)
        return err_in(err, r, "constant '%.200s'", b->names[slot]);
    *ret = c->value;
    return 0;
}

/* What stands in @slot, borrowed; NULL where it is absent. */
static int slot_value(struct run *run, struct frame *f, int32_t slot, struct value **ret)
{
    if (slot != NO_SLOT && f->body->constants[slot].tensor)
        return body_constant(run->graph, f->body, slot, ret, run->err);
    *ret = slot == NO_SLOT ? NULL : f->slots[slot];
    return 0;
}

/* ---- steps ---- */

static int run_body(struct run *run, struct body *b, struct frame *outer, struct value *const *in, struct value **out);

static int observe(struct run *run, const char *name, const struct value *v, const struct onnx_node *n)
{
    const struct graph_run_options *o = run->options;
    return o->observe && v ? o->observe(o->observe_data, name, v, n, run->err) : 0;
}

static int call_operator(struct run *run, const struct step *s, struct value **in, struct value **out)
{
    struct op_call c = {
        .node = s->node,
        .opset = s->opset,
        .in = in,
        .n_in = s->node->n_inputs,
        .out = out,
        .n_out = s->node->n_outputs,
        .memory = run->graph->memory,
        .kernels = run->options->kernels,
        .team = run->options->team,
        .run = run,
        .step = s,
        .err = run->err,
    };
    int r = s->op->fn(&c);
    for (size_t i = 0; i < c.n_out && r == 0; i++)
        if (call_wants(&c, i) && !out[i])
            r = err_new(run->err, QD_E_UNSUPPORTED, "output %zu is not computed", i);
    if (r < 0)
        return err_in(run->err, r, "node '%.100s' (%s)",
                      s->node->name[0]     ? s->node->name
                      : s->node->n_outputs ? s->node->outputs[0]
                                           : "",
                      s->node->op_type);
    return 0;
}

/* Outputs into their slots; those that nobody wants are let go. */
static int keep_outputs(struct run *run, const struct step *s, struct value **out)
{
    int r = 0;
    for (size_t i = 0; i < s->node->n_outputs; i++) {
        if (s->out[i] == NO_SLOT || r < 0) {
            out[i] = value_release(out[i]);
            continue;
        }
        run->frame->slots[s->out[i]] = out[i];
        r = observe(run, s->node->outputs[i], out[i], s->node);
    }
    return r;
}

static int run_step(struct run *run, const struct step *s)
{
    CLEANUP(free) struct value **ends = calloc(s->node->n_inputs + s->node->n_outputs + 1, sizeof *ends);
    if (!ends)
        return err_new(run->err, QD_E_NO_MEMORY, "node '%.100s'", s->node->name);
    struct value **in = ends, **out = ends + s->node->n_inputs;
    int r = 0;
    for (size_t i = 0; i < s->node->n_inputs && r == 0; i++)
        r = slot_value(run, run->frame, s->in[i], &in[i]);
    if (r == 0)
        r = s->op ? call_operator(run, s, in, out) : run_body(run, s->call, run->frame, in, out);
    if (r < 0) {
        for (size_t i = 0; i < s->node->n_outputs; i++)
            out[i] = value_release(out[i]);
        return r;
    }
    r = keep_outputs(run, s, out);
    for (size_t i = 0; i < s->n_frees; i++)
        run->frame->slots[s->frees[i]] = value_release(run->frame->slots[s->frees[i]]);
    return r;
}

static bool cancelled(const struct run *run)
{
    return run->options->cancel && *run->options->cancel;
}

/* ---- bodies ---- */

static int take_captures(struct run *run, struct frame *f, struct frame *outer)
{
    int r = 0;
    for (size_t i = 0; i < f->body->n_captures && r == 0; i++) {
        struct value *v = NULL;
        r = slot_value(run, outer, f->body->captures[i].outer, &v);
        f->slots[f->body->captures[i].inner] = value_take(v);
    }
    return r;
}

static int give_outputs(struct run *run, struct frame *f, struct value **out)
{
    int r = 0;
    size_t i = 0;
    for (; i < f->body->n_outputs && r == 0; i++) {
        struct value *v = NULL;
        r = slot_value(run, f, f->body->outputs[i], &v);
        if (r == 0 && !v)
            r = err_new(run->err, QD_E_INVALID, "output '%.200s' has no value", f->body->names[f->body->outputs[i]]);
        out[i] = r < 0 ? NULL : value_take(v);
    }
    for (size_t k = 0; r < 0 && k < i; k++)
        out[k] = value_release(out[k]);
    return r;
}

static int run_steps(struct run *run, struct frame *f, struct value **out)
{
    struct frame *before = run->frame;
    run->frame = f;
    int r = 0;
    for (size_t i = 0; i < f->body->n_steps && r == 0; i++)
        r = cancelled(run) ? err_new(run->err, QD_E_CANCELLED, "the run was cancelled")
                           : run_step(run, &f->body->steps[i]);
    if (r == 0)
        r = give_outputs(run, f, out);
    run->frame = before;
    return r;
}

static int run_body(struct run *run, struct body *b, struct frame *outer, struct value *const *in, struct value **out)
{
    CLEANUP(free) struct value **slots = calloc(b->n_slots + 1, sizeof *slots);
    struct frame f = {b, slots};
    if (!slots)
        return err_new(run->err, QD_E_NO_MEMORY, "a graph of %zu values", b->n_slots);
    if (run->depth == BODIES_MAX)
        return err_new(run->err, QD_E_LIMIT, "more than %d graphs, one within the other", BODIES_MAX);
    run->depth++;
    int r = take_captures(run, &f, outer);
    for (size_t i = 0; i < b->n_inputs; i++)
        slots[b->inputs[i]] = value_take(in[i]);
    if (r == 0)
        r = run_steps(run, &f, out);
    for (size_t i = 0; i < b->n_slots; i++)
        (void)value_release(slots[i]);
    run->depth--;
    return r;
}

int call_attr_tensor(struct op_call *c, const char *name, struct value **ret)
{
    const struct onnx_attr *a = call_attr(c, name);
    if (!a || a->kind != ONNX_ATTR_TENSOR)
        return err_new(c->err, QD_E_INVALID, "has no tensor '%s'", name);
    return value_from_tensor(c->memory, c->run->graph->source, &a->tensors[0], ret, c->err);
}

/* ---- subgraphs of operators ---- */

static struct body *subbody(const struct op_call *c, const char *name)
{
    for (size_t i = 0; i < c->step->n_subbodies; i++)
        if (strcmp(c->step->subbodies[i].attr, name) == 0)
            return c->step->subbodies[i].body;
    return NULL;
}

int call_subgraph(struct op_call *c, const char *name, size_t *ret_n_inputs, size_t *ret_n_outputs)
{
    const struct body *b = subbody(c, name);
    if (!b)
        return err_new(c->err, QD_E_INVALID, "has no graph '%s'", name);
    *ret_n_inputs = b->n_inputs;
    *ret_n_outputs = b->n_outputs;
    return 0;
}

int call_run(struct op_call *c, const char *name, struct value *const *in, struct value **out)
{
    return run_body(c->run, subbody(c, name), c->run->frame, in, out);
}

/* ---- runs ---- */

static bool fits_info(const struct onnx_value_info *info, const struct value *v)
{
    if (info->kind != ONNX_KIND_TENSOR)
        return true;
    if (v->kind != VALUE_TENSOR || (info->type != ONNX_UNDEFINED && info->type != v->type))
        return false;
    if (!info->has_shape)
        return true;
    bool fits = info->n_dims == v->shape.n_dims;
    for (uint32_t d = 0; fits && d < v->shape.n_dims; d++)
        fits = info->dims[d].value < 0 || info->dims[d].value == v->shape.dims[d];
    return fits;
}

static int refuse_input(const struct onnx_value_info *info, const struct value *v, struct qd_error *err)
{
    char is[SHAPE_TEXT_BYTES], due[SHAPE_TEXT_BYTES];
    struct shape shape = {.n_dims = info->n_dims < VALUE_DIMS_MAX ? (uint32_t)info->n_dims : VALUE_DIMS_MAX};
    for (uint32_t d = 0; d < shape.n_dims; d++)
        shape.dims[d] = info->dims[d].value;
    return err_new(err, QD_E_INVALID, "input '%.200s' is a %s %s, the model says %s %s (-1: any)", info->name,
                   onnx_type_name(v->type), shape_text(&v->shape, is), onnx_type_name(info->type),
                   shape_text(&shape, due));
}

static int check_inputs(const struct graph *g, struct value *const *inputs, struct qd_error *err)
{
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (!inputs[i])
            return err_new(err, QD_E_INVALID, "input '%.200s' is not given", g->inputs[i]->name);
        if (!fits_info(g->inputs[i], inputs[i]))
            return refuse_input(g->inputs[i], inputs[i], err);
    }
    return 0;
}

int graph_run(struct graph *g, const struct graph_run_options *o, struct value *const *inputs, struct value **outputs,
              struct qd_error *err)
{
    struct run run = {.graph = g, .options = o, .err = err};
    int r = check_inputs(g, inputs, err);
    for (size_t i = 0; i < g->n_inputs && r == 0; i++)
        r = observe(&run, g->inputs[i]->name, inputs[i], NULL);
    if (r == 0)
        r = run_body(&run, g->main, NULL, inputs, outputs);
    return r < 0 ? err_in(err, r, "'%s'", source_name(g->source, 0)) : 0;
}

size_t graph_n_inputs(const struct graph *g)
{
    return g->n_inputs;
}

const struct onnx_value_info *graph_input(const struct graph *g, size_t i)
{
    return g->inputs[i];
}

size_t graph_n_outputs(const struct graph *g)
{
    return g->main->n_outputs;
}

const char *graph_output_name(const struct graph *g, size_t i)
{
    return g->model->graph->outputs[i].name;
}
