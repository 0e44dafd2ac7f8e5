#include "quant/onnx/weights.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/name_set.h"

enum {
    LEAST_ELEMENTS = 256, /* a smaller tensor saves less than its scales and node cost */
    FILTER_TAPS = 64,     /* of a filter: longer than any learned kernel over one channel at hand (31) */
};

/* Which operand is a weight, and along which axis it has channels. Negative axes count from the end. */
enum axis_rule { AXIS_0, AXIS_1, AXIS_LAST, AXIS_GEMM /* 0 where transB, else 1 */ };
static const struct {
    const char *op;
    size_t input;
    enum axis_rule axis;
} operands[] = {
    {"Conv", 1, AXIS_0},   {"ConvTranspose", 1, AXIS_1}, {"MatMul", 1, AXIS_LAST}, {"Gemm", 1, AXIS_GEMM},
    {"Gather", 0, AXIS_0}, {"LSTM", 1, AXIS_1},          {"LSTM", 2, AXIS_1},      {"GRU", 1, AXIS_1},
    {"GRU", 2, AXIS_1},    {"RNN", 1, AXIS_1},           {"RNN", 2, AXIS_1},
};

static const char *const quantized_ops[] = {
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
    "DynamicQuantizeLinear",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QAttention",
    "MatMulBnb4",
    "QGemm",
};

static bool is_quantized_op(const struct onnx_node *n)
{
    for (size_t i = 0; i < sizeof quantized_ops / sizeof quantized_ops[0]; i++)
        if (strcmp(n->op_type, quantized_ops[i]) == 0)
            return true;
    return false;
}

static const struct onnx_node *quantized_in(const struct onnx_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (is_quantized_op(&g->nodes[i]))
            return &g->nodes[i];
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs; k++) {
                const struct onnx_node *found = quantized_in(&g->nodes[i].attrs[a].graphs[k]);
                if (found)
                    return found;
            }
    }
    return NULL;
}

const struct onnx_node *weights_quantized_node(const struct onnx_model *m)
{
    return quantized_in(m->graph);
}

/* ---- finding ---- */

struct holder {
    const struct onnx_tensor *tensor;
    const struct onnx_node *constant;
    int64_t weight; /* its place in the list; -1: no operator has taken it as a weight yet */
    size_t n_uses;
};

/* The constant tensors of a graph by name, and those around it. */
struct scope {
    const struct onnx_graph *graph;
    struct scope *outer;
    struct name_set readers; /* owned: each value's first operator */
    struct name_set values;  /* owned: the node whose first output each is */
    uint32_t *n_reads;   /* in the arena, [n_nodes]: how often that is read, in graphs within, too, and as an output */
    bool *looked_behind; /* in the arena, [n_nodes] */
    struct name_set names;  /* owned */
    struct holder *holders; /* in the arena */
    size_t n_holders;
};

struct finder {
    const struct onnx_model *model;
    struct arena *arena;
    struct weights *found;
    size_t room;
    struct qd_error *err;
};

static int out_of_budget(struct finder *f)
{
    return err_new(f->err, QD_E_LIMIT, "the list of weights needs more memory than a model may use");
}

static const struct onnx_tensor *constant_tensor(const struct onnx_node *n)
{
    const struct onnx_attr *a =
        strcmp(n->op_type, "Constant") == 0 && n->n_outputs == 1 ? onnx_attr_find(n, "value") : NULL;
    return a && a->kind == ONNX_ATTR_TENSOR ? &a->tensors[0] : NULL;
}

static int add_holder(struct finder *f, struct scope *s, const char *name, const struct onnx_tensor *t,
                      const struct onnx_node *constant)
{
    size_t earlier;
    if (name_set_add(&s->names, name, s->n_holders, &earlier) < 0)
        return out_of_budget(f);
    s->holders[s->n_holders++] = (struct holder){t, constant, -1, 0};
    return 0;
}

static int open_scope(struct finder *f, struct scope *s)
{
    const struct onnx_graph *g = s->graph;
    s->holders = arena_alloc(f->arena, (uint64_t)g->n_initializers + g->n_nodes + 1, sizeof *s->holders);
    int r = s->holders && name_set_init(&s->names, g->n_initializers) == 0 ? 0 : out_of_budget(f);
    for (size_t i = 0; i < g->n_initializers && r == 0; i++)
        r = add_holder(f, s, g->initializers[i].name, &g->initializers[i], NULL);
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        const struct onnx_tensor *t = constant_tensor(&g->nodes[i]);
        if (t)
            r = add_holder(f, s, g->nodes[i].outputs[0], t, &g->nodes[i]);
    }
    return r;
}

static struct holder *find_holder(struct scope *s, const char *name, const struct onnx_graph **ret_graph)
{
    for (; s; s = s->outer) {
        const int64_t i = name_set_find(&s->names, name);
        if (i < 0)
            continue;
        *ret_graph = s->graph;
        return &s->holders[i];
    }
    return NULL;
}

static uint32_t axis_of(enum axis_rule rule, const struct onnx_tensor *t)
{
    if (rule == AXIS_LAST)
        return t->n_dims ? (uint32_t)t->n_dims - 1 : 0;
    return rule == AXIS_1;
}

static bool is_float(enum onnx_type t)
{
    return t == ONNX_FLOAT || t == ONNX_FLOAT16 || t == ONNX_BFLOAT16 || t == ONNX_DOUBLE;
}

/*
 * A convolution over a single channel with a long kernel is a transform of the signal (a Fourier basis): what matters
 * of its result may be 60 dB below what does not. Silero VAD: frames that decide as in float32 98.2 % with int8 here,
 * 99.3 % without.
 */
static bool is_filter_bank(const struct onnx_node *n, const struct onnx_tensor *t)
{
    return strcmp(n->op_type, "Conv") == 0 && t->n_dims == 3 && t->dims[1] == 1 && t->dims[2] >= FILTER_TAPS;
}

static const char *why_left(const struct onnx_node *n, const struct onnx_tensor *t, uint32_t axis)
{
    if (!is_float(t->type))
        return "not of floats";
    if (t->storage == ONNX_SPARSE)
        return "sparse";
    if (t->n_elements < LEAST_ELEMENTS)
        return "small: scales would cost what is saved";
    if (is_filter_bank(n, t))
        return "a transform of the signal: its small results matter";
    return t->n_dims < 2 || axis >= t->n_dims ? "a vector" : NULL;
}

static int take_weight(struct finder *f, struct holder *h, const struct onnx_graph *graph, const struct onnx_node *n,
                       const struct onnx_graph *user_graph, const char *name, enum axis_rule rule)
{
    const uint32_t axis = axis_of(rule, h->tensor);
    struct weights *w = f->found;
    if (h->weight >= 0) {
        struct weight *known = &w->list[h->weight];
        if (known->axis != axis && !known->left)
            known->left = "used along two axes: no scale for each channel fits both";
        return 0;
    }
    if (w->n == f->room) {
        const size_t room = f->room ? 2 * f->room : 64;
        struct weight *larger = arena_alloc(f->arena, room, sizeof *larger);
        if (!larger)
            return out_of_budget(f);
        if (w->n)
            memcpy(larger, w->list, w->n * sizeof *larger);
        w->list = larger;
        f->room = room;
    }
    h->weight = (int64_t)w->n;
    w->list[w->n++] = (struct weight){.graph = graph,
                                      .tensor = h->tensor,
                                      .constant = h->constant,
                                      .name = name,
                                      .user = n,
                                      .user_graph = user_graph,
                                      .axis = axis,
                                      .left = why_left(n, h->tensor, axis)};
    return 0;
}

/* Names that @g and the graphs within it read, outputs included: each calls @visit. */
static int each_read(const struct onnx_graph *g, int (*visit)(void *data, const char *name), void *data)
{
    int r = 0;
    for (size_t i = 0; i < g->n_outputs && r == 0; i++)
        r = visit(data, g->outputs[i].name);
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        const struct onnx_node *n = &g->nodes[i];
        for (size_t k = 0; k < n->n_inputs && r == 0; k++)
            r = visit(data, n->inputs[k]);
        for (size_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; k < n->attrs[a].n_graphs && r == 0; k++)
                r = each_read(&n->attrs[a].graphs[k], visit, data);
    }
    return r;
}

static int count_read(void *data, const char *name)
{
    struct scope *s = data;
    const int64_t i = name_set_find(&s->values, name);
    if (i >= 0)
        s->n_reads[i]++;
    return 0;
}

/* Which operator takes each value first, and how often what this graph's nodes make is read. */
static int note_readers(struct finder *f, struct scope *s)
{
    size_t earlier;
    for (size_t i = 0; i < s->graph->n_nodes; i++)
        for (size_t k = 0; k < s->graph->nodes[i].n_inputs; k++)
            if (name_set_add(&s->readers, s->graph->nodes[i].inputs[k], i, &earlier) < 0)
                return out_of_budget(f);
    s->n_reads = arena_alloc(f->arena, (uint64_t)s->graph->n_nodes + 1, sizeof *s->n_reads);
    s->looked_behind = arena_alloc(f->arena, (uint64_t)s->graph->n_nodes + 1, sizeof *s->looked_behind);
    if (!s->n_reads || !s->looked_behind)
        return out_of_budget(f);
    for (size_t i = 0; i < s->graph->n_nodes; i++)
        if (s->graph->nodes[i].n_outputs && name_set_add(&s->values, s->graph->nodes[i].outputs[0], i, &earlier) < 0)
            return out_of_budget(f);
    return each_read(s->graph, count_read, s);
}

/* The one operator of this graph that reads @value, as its first input; NULL where there are others, or none. */
static const struct onnx_node *only_reader(struct scope *s, const char *value)
{
    const int64_t at = name_set_find(&s->values, value), reader = name_set_find(&s->readers, value);
    if (at < 0 || reader < 0 || s->n_reads[at] != 1)
        return NULL;
    const struct onnx_node *n = &s->graph->nodes[reader];
    return n->domain[0] == '\0' && n->n_inputs && n->n_outputs && strcmp(n->inputs[0], value) == 0 ? n : NULL;
}

static bool is_set(const struct onnx_node *n, const char *name, int64_t otherwise)
{
    const struct onnx_attr *a = onnx_attr_find(n, name);
    return (a && a->kind == ONNX_ATTR_INT ? a->i : otherwise) != 0;
}

/* A vector of float32 with @n elements that this graph holds. */
static const struct onnx_tensor *constant_vector(struct scope *s, const char *name, int64_t n)
{
    const struct onnx_graph *graph;
    const struct holder *h = find_holder(s, name, &graph);
    return h && h->tensor->type == ONNX_FLOAT && h->tensor->storage != ONNX_SPARSE && h->tensor->n_dims == 1 &&
                   h->tensor->dims[0] == n
               ? h->tensor
               : NULL;
}

/* What a runtime computes in one with a Conv: a BatchNormalization that only scales and shifts, then a bound. */
static void find_followers(struct scope *s, struct weight *w)
{
    if (strcmp(w->user->op_type, "Conv") != 0 || w->user_graph != s->graph || w->graph != s->graph || w->n_uses != 1)
        return;
    const struct onnx_node *n = only_reader(s, w->user->outputs[0]);
    if (n && strcmp(n->op_type, "BatchNormalization") == 0 && n->n_inputs == 5 && n->n_outputs == 1 &&
        !is_set(n, "training_mode", 0) && is_set(n, "spatial", 1)) {
        bool all = true;
        for (size_t i = 0; i < 4; i++) {
            w->norm_params[i] = constant_vector(s, n->inputs[i + 1], w->tensor->dims[0]);
            all = all && w->norm_params[i];
        }
        w->norm = all ? n : NULL;
        n = w->norm ? only_reader(s, n->outputs[0]) : NULL;
    }
    if (n && (strcmp(n->op_type, "Relu") == 0 || strcmp(n->op_type, "Clip") == 0))
        w->clamp = n;
}

/* Is the result's logarithm taken, perhaps behind a bound or an offset? Mel spectra are made like this. */
static bool log_follows(struct scope *s, const struct onnx_node *n)
{
    static const char *const passing[] = {"Clip", "Max", "Add", "Mul", "Transpose", "Squeeze", "Unsqueeze"};
    enum { STEPS_MAX = 6 };
    for (int step = 0; step < STEPS_MAX && n->n_outputs; step++) {
        const int64_t next = name_set_find(&s->readers, n->outputs[0]);
        if (next < 0)
            return false;
        n = &s->graph->nodes[next];
        if (strcmp(n->op_type, "Log") == 0)
            return true;
        bool passes = false;
        for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++)
            passes = passes || strcmp(n->op_type, passing[i]) == 0;
        if (!passes)
            return false;
    }
    return false;
}

/* The place in operands[] of input @i of @n; -1: no weight is expected there. */
static int operand_at(const struct onnx_node *n, size_t i)
{
    for (size_t k = 0; k < sizeof operands / sizeof operands[0]; k++)
        if (operands[k].input == i && n->domain[0] == '\0' && strcmp(operands[k].op, n->op_type) == 0)
            return (int)k;
    return -1;
}

static enum axis_rule rule_in(const struct onnx_node *n, int operand)
{
    const enum axis_rule rule = operands[operand].axis;
    return rule != AXIS_GEMM ? rule : is_set(n, "transB", 0) ? AXIS_0 : AXIS_1;
}

/*
 * Does the function that @n calls, if it calls one, take its input @i as a weight? The weight is that of the call:
 * floats again there. What functions hold themselves, in Constant nodes, stays.
 */
static bool function_takes(const struct onnx_model *m, const struct onnx_node *n, size_t i, int depth,
                           enum axis_rule *ret)
{
    enum { DEPTH_MAX = 4 };
    const struct onnx_function *fn = depth < DEPTH_MAX ? onnx_function_find(m, n) : NULL;
    if (!fn || i >= fn->n_inputs)
        return false;
    for (size_t k = 0; k < fn->n_nodes; k++)
        for (size_t in = 0; in < fn->nodes[k].n_inputs; in++) {
            if (strcmp(fn->nodes[k].inputs[in], fn->inputs[i]) != 0)
                continue;
            const int operand = operand_at(&fn->nodes[k], in);
            if (operand >= 0)
                *ret = rule_in(&fn->nodes[k], operand);
            if (operand >= 0 || function_takes(m, &fn->nodes[k], in, depth + 1, ret))
                return true;
        }
    return false;
}

static int look_at_node(struct finder *f, struct scope *s, const struct onnx_node *n)
{
    int r = 0;
    for (size_t i = 0; i < n->n_inputs && r == 0; i++) {
        const struct onnx_graph *graph;
        enum axis_rule rule;
        struct holder *h = n->inputs[i][0] ? find_holder(s, n->inputs[i], &graph) : NULL;
        if (!h)
            continue;
        h->n_uses++;
        const int operand = operand_at(n, i);
        if (operand >= 0)
            r = take_weight(f, h, graph, n, s->graph, n->inputs[i], rule_in(n, operand));
        else if (f->model->n_functions && function_takes(f->model, n, i, 0, &rule))
            r = take_weight(f, h, graph, n, s->graph, n->inputs[i], rule);
    }
    return r;
}

static bool is_one_of(const struct onnx_node *n, const char *const *ops, size_t n_ops)
{
    for (size_t i = 0; i < n_ops; i++)
        if (n->domain[0] == '\0' && strcmp(n->op_type, ops[i]) == 0)
            return true;
    return false;
}

/*
 * Constants that only move on their way to an operand: exporters turn and stack the matrices of LSTMs and of products.
 * They are weights of the node that takes them first: floats again there, whatever axis the scales belong to.
 */
static int look_behind(struct finder *f, struct scope *s, const char *name, int depth)
{
    static const char *const moving[] = {"Concat", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Identity"};
    enum { DEPTH_MAX = 8 };
    const int64_t at = name[0] && depth < DEPTH_MAX ? name_set_find(&s->values, name) : -1;
    if (at < 0 || s->looked_behind[at])
        return 0;
    const struct onnx_node *n = &s->graph->nodes[at];
    s->looked_behind[at] = true;
    if (!is_one_of(n, moving, sizeof moving / sizeof moving[0]))
        return 0;
    const size_t n_inputs = strcmp(n->op_type, "Concat") == 0 ? n->n_inputs : n->n_inputs > 0;
    int r = 0;
    for (size_t i = 0; i < n_inputs && r == 0; i++) {
        const struct onnx_graph *graph;
        struct holder *h = n->inputs[i][0] ? find_holder(s, n->inputs[i], &graph) : NULL;
        if (!h)
            r = look_behind(f, s, n->inputs[i], depth + 1);
        else if (h->weight < 0)
            r = take_weight(f, h, graph, n, s->graph, n->inputs[i], AXIS_0);
    }
    return r;
}

static int look_behind_operands(struct finder *f, struct scope *s)
{
    static const char *const taking[] = {"MatMul", "Gemm", "LSTM", "GRU", "RNN"};
    int r = 0;
    for (size_t i = 0; i < s->graph->n_nodes && r == 0; i++) {
        const struct onnx_node *n = &s->graph->nodes[i];
        for (size_t k = 1; k < 3 && k < n->n_inputs && r == 0 && is_one_of(n, taking, sizeof taking / sizeof taking[0]);
             k++)
            if (k == 1 || strcmp(n->op_type, "Gemm") != 0) /* whose third operand is a bias */
                r = look_behind(f, s, n->inputs[k], 0);
    }
    return r;
}

/* A constant float32 vector as the third operand, of the operator's own graph, used once. */
static void find_bias(struct scope *s, struct weight *w)
{
    const struct onnx_graph *graph;
    const struct onnx_node *n = w->user;
    const bool may =
        strcmp(n->op_type, "Conv") == 0 || strcmp(n->op_type, "ConvTranspose") == 0 || strcmp(n->op_type, "Gemm") == 0;
    if (!may || n->n_inputs < 3 || !n->inputs[2][0] || w->user_graph != s->graph)
        return;
    const struct holder *h = find_holder(s, n->inputs[2], &graph);
    if (!h || graph != s->graph || h->n_uses != 1 || h->tensor->type != ONNX_FLOAT || h->tensor->n_dims != 1 ||
        h->tensor->storage == ONNX_SPARSE)
        return;
    w->bias = h->tensor;
    w->bias_constant = h->constant;
    w->bias_name = n->inputs[2];
}

static int look_at_graph(struct finder *f, const struct onnx_graph *g, struct scope *outer)
{
    struct scope s = {.graph = g, .outer = outer};
    int r = open_scope(f, &s);
    if (r == 0)
        r = name_set_init(&s.readers, g->n_nodes) < 0 || name_set_init(&s.values, g->n_nodes) < 0 ? out_of_budget(f)
                                                                                                  : note_readers(f, &s);
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        const struct onnx_node *n = &g->nodes[i];
        r = look_at_node(f, &s, n);
        for (size_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; k < n->attrs[a].n_graphs && r == 0; k++)
                r = look_at_graph(f, &n->attrs[a].graphs[k], &s);
    }
    if (r == 0)
        r = look_behind_operands(f, &s);
    for (size_t i = 0; i < s.n_holders && r == 0; i++)
        if (s.holders[i].weight >= 0) {
            struct weight *w = &f->found->list[s.holders[i].weight];
            w->n_uses = s.holders[i].n_uses;
            find_bias(&s, w);
            find_followers(&s, w);
            w->log_follows = w->user_graph == g && log_follows(&s, w->user);
        }
    name_set_clear(&s.names);
    name_set_clear(&s.readers);
    name_set_clear(&s.values);
    return r;
}

int weights_find(const struct onnx_model *m, struct arena *arena, struct weights *ret, struct qd_error *err)
{
    struct finder f = {.model = m, .arena = arena, .found = ret, .err = err};
    *ret = (struct weights){.n = 0};
    return look_at_graph(&f, m->graph, NULL);
}

/* ---- elements as floats ---- */

int weight_reader_open(struct weight_reader *r, struct source *s, const struct onnx_tensor *t, const struct ops *ops,
                       struct qd_error *err)
{
    *r = (struct weight_reader){.source = s, .tensor = t, .ops = ops};
    r->raw = malloc(WEIGHT_SLICE * sizeof(double));
    if (r->raw && t->storage == ONNX_TYPED)
        r->whole = malloc(onnx_tensor_bytes(t) + 1);
    if (!r->raw || (t->storage == ONNX_TYPED && !r->whole))
        return err_new(err, QD_E_NO_MEMORY, "tensor '%.200s'", t->name);
    return r->whole ? onnx_tensor_load(s, t, r->whole, err) : 0;
}

void weight_reader_close(struct weight_reader *r)
{
    free(r->whole);
    free(r->raw);
    *r = (struct weight_reader){0};
}

static void widen(const struct weight_reader *r, const void *raw, size_t n, float *dst)
{
    if (r->tensor->type == ONNX_FLOAT)
        memcpy(dst, raw, n * sizeof *dst);
    else if (r->tensor->type == ONNX_DOUBLE)
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)((const double *)raw)[i];
    else
        r->ops->dequantize[r->tensor->type == ONNX_FLOAT16 ? QD_TYPE_F16 : QD_TYPE_BF16](dst, raw, n);
}

int weight_reader_get(struct weight_reader *r, uint64_t first, size_t n, float *dst, struct qd_error *err)
{
    const size_t bytes = onnx_type_bits(r->tensor->type) / 8;
    int e = 0;
    if (!r->whole)
        e = source_read_meta(r->source, r->tensor->file, r->tensor->offset + first * bytes, r->raw, n * bytes, err);
    if (e < 0)
        return err_in(err, e, "tensor '%.200s'", r->tensor->name);
    widen(r, r->whole ? r->whole + first * bytes : r->raw, n, dst);
    const size_t bad = r->ops->find_nonfinite(dst, n);
    if (bad == n)
        return 0;
    e = err_new(err, QD_E_UNSUPPORTED, "tensor '%.200s' is not finite at element %" PRIu64, r->tensor->name,
                first + bad);
    return err_hint(err, e, "a model with NaN or Inf in its weights is broken: export it again");
}
