/*
 * Static quantization: activations that meet quantized weights pass through QuantizeLinear and DequantizeLinear with a
 * range from calibration, so that a runtime computes with integers. docs/formats/onnx-quantized.md.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/onnx/codes.h"
#include "quant/onnx/sharing.h"

static const double MOST_LOST = 0.5;

/* Operators whose first input is met by integers. LSTM, GRU and Gather take quantized weights alone. */
static const char *const integer_ops[] = {"Conv", "ConvTranspose", "MatMul", "Gemm"};

static bool is_integer_op(const struct onnx_node *n)
{
    for (size_t i = 0; i < sizeof integer_ops / sizeof integer_ops[0]; i++)
        if (strcmp(n->op_type, integer_ops[i]) == 0)
            return true;
    return false;
}

bool onnx_static_wants(const struct onnx_node *n, size_t input)
{
    return input == 0 && is_integer_op(n);
}

bool onnx_static_wants_result(const struct onnx_node *n)
{
    static const char *const ops[] = {"Conv", "BatchNormalization", "Relu", "Clip"};
    bool wants = false;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        wants = wants || strcmp(n->op_type, ops[i]) == 0;
    return wants;
}

/*
 * Of the values that are not zero, the share that rounds to zero's code: what the codes cannot tell apart from
 * nothing.
 */
static double share_lost(const struct histogram *h, float scale)
{
    uint64_t lost = 0;
    const uint64_t n = histogram_count(h) - h->n_zeros;
    for (uint32_t i = 0; i < HISTOGRAM_BINS; i++) {
        const double middle = 0.5 * (histogram_edge(h, i) + histogram_edge(h, i + 1));
        if (fabs(middle) < 0.5 * (double)scale)
            lost += h->bins[i];
    }
    return n ? (double)lost / (double)n : 0.0;
}

/* Of the graph that is looked at; plans go through graphs one after the other, mostly there is one. */
static int sharing_of(struct builder *b, const struct onnx_graph *g)
{
    const struct range_options o = {.method = b->plan->recipe.method, .grid = grid_u8, .outside_ppm = 100};
    if (b->sharing && sharing_graph(b->sharing) == g)
        return 0;
    b->sharing = sharing_free(b->sharing);
    return sharing_new(g, b->statistics, &o, &b->sharing, b->err);
}

/*
 * Codes of activations: 8 bits without sign, zero anywhere among them, the same for values that only move. 1 where they
 * do not do, with @ret_note: power spectra span 60 dB and more, and a logarithm behind them makes the small ones count
 * (wake words: 5 of 30 hits with codes there, 25 without).
 */
static int activation_params(struct builder *b, const struct onnx_graph *g, const char *value, struct code_params *ret,
                             const char **ret_note)
{
    const struct edge_statistics *e = b->statistics ? statistics_find(b->statistics, value) : NULL;
    struct range r;
    *ret_note = "weights alone: no statistics of its input";
    if (!e || e->all->n == 0)
        return 1;
    int s = sharing_of(b, g);
    if (s == 0)
        s = sharing_range(b->sharing, value, &r, b->err);
    if (s < 0)
        return s;
    *ret = range_params(r, grid_u8);
    *ret_note = "weights alone: most values of its input are too small for 8 bits";
    return e->all->histogram && share_lost(e->all->histogram, ret->scale) > MOST_LOST;
}

/* A scale and a zero point in the graph; NULL names after a failure. */
struct pair {
    const char *scale, *zero_point;
};

static int put_params(struct builder *b, const struct onnx_graph *g, uint64_t before, const char *value,
                      const struct code_params *p, struct pair *ret)
{
    float *scale = build_take(b, 1, sizeof *scale);
    uint8_t *zero_point = build_take(b, 1, 1);
    struct onnx_made *s = build_tensor(b, build_name(b, value, "scale"), ONNX_FLOAT, 0, NULL, scale);
    struct onnx_made *z = build_tensor(b, build_name(b, value, "zero_point"), ONNX_UINT8, 0, NULL, zero_point);
    if (!scale || !zero_point || !s || !z)
        return build_out_of_budget(b);
    *scale = p->scale;
    *zero_point = (uint8_t)p->zero_point;
    build_add(b, g, before, NULL, s);
    build_add(b, g, before, NULL, z);
    *ret = (struct pair){s->tensor.name, z->tensor.name};
    return 0;
}

/* @from, quantized and back, as @to; both nodes before @before. */
static int put_pair(struct builder *b, const struct onnx_graph *g, uint64_t before, const char *from, const char *to,
                    const struct code_params *p)
{
    struct pair names = {NULL, NULL};
    const char *domain = build_dequantize_domain(b), *codes = build_name(b, from, "codes");
    int r = codes ? put_params(b, g, before, from, p, &names) : build_out_of_budget(b);
    if (r < 0)
        return r;
    struct onnx_node *q =
        build_node(b, "QuantizeLinear", domain, (const char *[]){from, names.scale, names.zero_point}, 3, codes, 0);
    struct onnx_node *d =
        build_node(b, "DequantizeLinear", domain, (const char *[]){codes, names.scale, names.zero_point}, 3, to, 0);
    if (!q || !d)
        return build_out_of_budget(b);
    build_add(b, g, before, q, NULL);
    build_add(b, g, before, d, NULL);
    return 0;
}

/* The pair of @value for operators of @g, made before @before when it is first needed: its dequantized name. */
static int quantized_value(struct builder *b, const struct onnx_graph *g, uint64_t before, const char *value,
                           const struct code_params *p, bool is_result, const char **ret)
{
    for (size_t i = 0; i < b->n_activations; i++)
        if (b->activations[i].graph == g && strcmp(b->activations[i].value, value) == 0) {
            b->activations[i].is_result |= is_result;
            *ret = b->activations[i].name;
            return 0;
        }
    b->n_made++;
    const char *name = build_name(b, value, "dequantized");
    int r = name ? put_pair(b, g, before, value, name, p) : build_out_of_budget(b);
    if (r < 0)
        return r;
    b->activations[b->n_activations++] =
        (struct activation){.graph = g, .value = value, .name = name, .is_result = is_result};
    *ret = name;
    return 0;
}

/* ---- biases ---- */

/* int32 with the product of the scales of activation and weight, so that it is added to sums of integers as it is. */
struct int32_bias {
    int32_t *codes;
    float *scales;
    uint64_t n; /* 0: there is none */
};

/* 1: a scale is too small for the bias. */
static int bias_codes(struct builder *b, const double *bias, uint64_t n, const struct int8_weight *q, float x_scale,
                      struct int32_bias *ret)
{
    struct int32_bias c = {build_take(b, n, sizeof *c.codes), build_take(b, n, sizeof *c.scales), n};
    if (!c.codes || !c.scales)
        return build_out_of_budget(b);
    for (uint64_t i = 0; i < n; i++) {
        c.scales[i] = q->scales[i % q->n_scales] * x_scale;
        const double code = c.scales[i] >= 0x1p-126f ? bias[i] / (double)c.scales[i] : INFINITY;
        if (!(fabs(code) < 0x1p31 - 1.0))
            return 1;
        c.codes[i] = (int32_t)codes_round(code);
    }
    *ret = c;
    return 0;
}

/* Of the operator itself. 1: it is no constant of its own. */
static int own_bias(struct builder *b, const struct weight *w, double **ret)
{
    const struct onnx_tensor *t = w->bias;
    if (!t)
        return 1;
    double *bias = build_take(b, t->n_elements, sizeof *bias);
    CLEANUP(free) float *floats = malloc((size_t)t->n_elements * sizeof *floats + 1);
    if (!bias || !floats)
        return build_out_of_budget(b);
    int r = onnx_tensor_load(b->source, t, floats, b->err);
    for (uint64_t i = 0; i < t->n_elements && r == 0; i++)
        bias[i] = (double)floats[i];
    *ret = bias;
    return r;
}

static struct weight bias_of(const struct weight *w)
{
    return (struct weight){.graph = w->graph, .tensor = w->bias, .constant = w->bias_constant, .name = w->bias_name};
}

/* @bias as the value @name, from codes that are called after it; before the node at @at. */
static int put_bias(struct builder *b, const struct weight *w, const struct int32_bias *bias, const char *name,
                    uint64_t at)
{
    const int64_t n = (int64_t)bias->n;
    const int64_t *dims = build_dims(b, 1, &n);
    struct onnx_made *c = build_tensor(b, build_name(b, name, "quantized"), ONNX_INT32, 1, dims, bias->codes);
    struct onnx_made *s = build_tensor(b, build_name(b, name, "scale"), ONNX_FLOAT, 1, dims, bias->scales);
    struct onnx_made *z = build_tensor(b, build_name(b, name, "zero_point"), ONNX_INT32, 1, dims,
                                       build_take(b, bias->n, sizeof(int32_t)));
    if (!dims || !c || !s || !z || !z->tensor.memory)
        return build_out_of_budget(b);
    struct onnx_node *d = build_node(b, "DequantizeLinear", build_dequantize_domain(b),
                                     (const char *[]){c->tensor.name, s->tensor.name, z->tensor.name}, 3, name, 1);
    if (!d)
        return build_out_of_budget(b);
    build_set_int(d, "axis", 0);
    build_add(b, w->graph, at, d, NULL);
    build_add(b, w->graph, at, NULL, c);
    build_add(b, w->graph, at, NULL, s);
    build_add(b, w->graph, at, NULL, z);
    return 0;
}

/* ---- the plan of a weight's operator ---- */

static void rename_input(struct builder *b, const struct onnx_node *n, size_t input, const char *name)
{
    b->renames[b->plan->edits.n_renames++] = (struct onnx_rename){n->range.offset, input, name};
}

static bool has_bias(const struct onnx_node *n)
{
    return n->n_inputs > 2 && n->inputs[2][0];
}

/* Where a node that follows @n stands: before the next one. */
static uint64_t behind(const struct onnx_graph *g, const struct onnx_node *n)
{
    return n->index + 1 < g->n_nodes ? g->nodes[n->index + 1].range.offset : 0;
}

/* The operator with its bias as codes, where it has one. */
static int quantize_operator(struct builder *b, const struct weight *w, const char *input,
                             const struct int32_bias *bias)
{
    const struct weight as_weight = bias_of(w);
    rename_input(b, w->user, 0, input);
    if (!bias->n)
        return 0;
    build_drop_weight(b, &as_weight);
    return put_bias(b, w, bias, w->bias_name, build_place(&as_weight));
}

/* A Conv in the place of a Conv and its BatchNormalization. */
static int replace_operator(struct builder *b, const struct weight *w, const char *input, const struct int32_bias *bias)
{
    const struct weight as_weight = bias_of(w);
    const char *name = build_name(b, w->name, "bias");
    struct onnx_node *conv =
        name ? build_node(b, "Conv", "", (const char *[]){input, w->name, name}, 3, w->norm->outputs[0], 0) : NULL;
    if (!conv)
        return build_out_of_budget(b);
    conv->attrs = w->user->attrs;
    conv->n_attrs = w->user->n_attrs;
    if (w->bias)
        build_drop_weight(b, &as_weight);
    int r = put_bias(b, w, bias, name, w->user->range.offset);
    build_drop(b, w->user->range.offset);
    build_drop(b, w->norm->range.offset);
    build_add(b, w->graph, w->user->range.offset, conv, NULL);
    return r;
}

/* What a convolution makes becomes codes, too, behind a bound that a runtime computes with it. */
static int quantize_result(struct builder *b, const struct weight *w, bool folded, struct onnx_decision *d)
{
    const struct onnx_node *last = w->clamp && (folded || !w->norm) ? w->clamp : folded ? w->norm : w->user;
    struct code_params p = {1.0f, 0};
    const char *note, *name;
    if (strcmp(w->user->op_type, "Conv") != 0)
        return 0;
    int r = activation_params(b, w->graph, last->outputs[0], &p, &note);
    if (r != 0)
        return r < 0 ? r : 0;
    d->gives_codes = true;
    return quantized_value(b, w->graph, behind(w->graph, last), last->outputs[0], &p, true, &name);
}

/* The scales as the weight itself has them, and its bias. 1: that does not fit. */
static int plan_plain(struct builder *b, const struct weight *w, struct int8_weight *q, const float *scales,
                      float x_scale, struct int32_bias *ret)
{
    double *values = NULL;
    q->scales = scales;
    q->scale->tensor.memory = scales;
    ((struct codes *)q->codes->make_data)->scales = scales;
    if (!has_bias(w->user))
        return 0;
    int r = own_bias(b, w, &values);
    return r != 0 ? r : bias_codes(b, values, w->bias->n_elements, q, x_scale, ret);
}

static int plan_operator(struct builder *b, const struct weight *w, struct onnx_decision *d, struct int8_weight *q,
                         const struct code_params *p)
{
    struct int32_bias bias = {NULL, NULL, 0};
    const float *scales = q->scales;
    const char *input;
    double *values = NULL;
    int r = fold_norm(b, w, q, &values);
    if (r == 0)
        r = bias_codes(b, values, q->n_scales, q, p->scale, &bias);
    const bool folded = r == 0;
    if (r == 1)
        r = plan_plain(b, w, q, scales, p->scale, &bias);
    if (r == 1)
        d->note = "weights alone: its bias does not fit int32";
    if (r != 0)
        return r < 0 ? r : 0;
    d->note = NULL;
    d->meets_codes = true;
    r = quantized_value(b, w->user_graph, w->user->range.offset, w->user->inputs[0], p, false, &input);
    if (r == 0)
        r = folded ? replace_operator(b, w, input, &bias) : quantize_operator(b, w, input, &bias);
    return r < 0 ? r : quantize_result(b, w, folded, d);
}

int static_plan(struct builder *b, const struct weight *w, struct onnx_decision *d, struct int8_weight *q)
{
    struct code_params p = {1.0f, 0};
    d->note = "weights alone";
    if (!is_integer_op(w->user) || w->user_graph != w->graph || w->n_uses != 1)
        return 0;
    if (w->tensor->type != ONNX_FLOAT) {
        d->note = "weights alone: its operator does not compute in float32";
        return 0;
    }
    if (w->log_follows) {
        d->note = "weights alone: a logarithm of its result follows";
        return 0;
    }
    int r = activation_params(b, w->graph, w->user->inputs[0], &p, &d->note);
    if (r != 0)
        return r < 0 ? r : 0;
    return plan_operator(b, w, d, q, &p);
}

/* ---- when all weights are planned ---- */

static bool is_renamed(const struct builder *b, const struct onnx_node *n, size_t input)
{
    for (size_t i = 0; i < b->plan->edits.n_renames; i++)
        if (b->renames[i].node == n->range.offset && b->renames[i].input == input)
            return true;
    return false;
}

void static_finish(struct builder *b)
{
    for (size_t i = 0; i < b->n_activations; i++) {
        const struct activation *a = &b->activations[i];
        for (size_t k = 0; a->is_result && k < a->graph->n_nodes; k++) {
            const struct onnx_node *n = &a->graph->nodes[k];
            for (size_t input = 0; input < n->n_inputs; input++)
                if (strcmp(n->inputs[input], a->value) == 0 && !(is_integer_op(n) && is_renamed(b, n, input)))
                    rename_input(b, n, input, a->name);
        }
    }
    b->sharing = sharing_free(b->sharing);
}
