#include "quant/onnx/scheme.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/limits.h"

enum {
    INT8_MAX_CODE = 127, /* symmetric: -127 to 127, so that a code and its negative are both there */
    CONTRIB_VERSION = 1, /* of com.microsoft's operators */
    AXIS_SINCE = 13,     /* opset from which DequantizeLinear has an axis */
    BFLOAT16_SINCE = 13, /* opset from which Cast knows bfloat16 */
    EDITS_A_WEIGHT = 6,  /* at most: drops and additions */
};
static const float f16_max = 65504.0f;

static const char *const scheme_names[] = {
#define S(name, NAME, text) name,
    ONNX_SCHEMES(S)
#undef S
};

const char *onnx_scheme_name(enum onnx_scheme s)
{
    return scheme_names[s];
}

bool onnx_scheme_find(const char *name, enum onnx_scheme *ret)
{
    for (int i = 0; i < N_ONNX_SCHEMES; i++)
        if (strcmp(scheme_names[i], name) == 0) {
            *ret = (enum onnx_scheme)i;
            return true;
        }
    return false;
}

/* ---- building ---- */

/* A plan that is being made: lists in its arena with room for every weight. */
struct builder {
    struct onnx_plan *plan;
    const struct onnx_model *model;
    struct source *source;
    const struct ops *ops;
    uint64_t *drops;
    struct onnx_addition *additions;
    bool uses_contrib;
    size_t n_made; /* names that are made are numbered */
    struct qd_error *err;
};

static int out_of_budget(struct builder *b)
{
    return err_new(b->err, QD_E_LIMIT, "the plan needs more memory than a model may use");
}

static void *take(struct builder *b, uint64_t n, size_t item_bytes)
{
    return arena_alloc(b->plan->arena, n, item_bytes);
}

/* "NAME_quantized" in the arena; NULL when the budget is used up. */
static const char *suffixed(struct builder *b, const char *name, const char *suffix)
{
    const size_t n = strlen(name) + strlen(suffix) + 24;
    char *text = take(b, n, 1);
    if (text)
        (void)snprintf(text, n, "%s_%s_%zu", name, suffix, b->n_made);
    return text;
}

static void drop(struct builder *b, uint64_t offset)
{
    b->drops[b->plan->edits.n_drops++] = offset;
}

static void add(struct builder *b, const struct onnx_graph *g, uint64_t before, const struct onnx_node *n,
                const struct onnx_made *t)
{
    b->additions[b->plan->edits.n_additions++] = (struct onnx_addition){g->range.offset, before, n, t};
}

/* The weight goes: its initializer, the input of its name that old models list, or its Constant node. */
static void drop_weight(struct builder *b, const struct weight *w)
{
    if (w->constant) {
        drop(b, w->constant->range.offset);
        return;
    }
    drop(b, w->tensor->range.offset);
    for (size_t i = 0; i < w->graph->n_inputs; i++)
        if (strcmp(w->graph->inputs[i].name, w->name) == 0)
            drop(b, w->graph->inputs[i].range.offset);
}

/* Where a node that makes the weight's value anew stands: in the Constant's place, or before all nodes. */
static uint64_t place_of(const struct weight *w)
{
    return w->constant ? w->constant->range.offset : w->graph->n_nodes ? w->graph->nodes[0].range.offset : 0;
}

static struct onnx_made *new_tensor(struct builder *b, const char *name, enum onnx_type type, size_t n_dims,
                                    const int64_t *dims, const void *memory)
{
    struct onnx_made *t = take(b, 1, sizeof *t);
    if (!t || !name)
        return NULL;
    t->tensor = (struct onnx_tensor){
        .name = name, .type = type, .n_dims = n_dims, .dims = dims, .n_elements = 1, .memory = memory};
    for (size_t d = 0; d < n_dims; d++)
        t->tensor.n_elements *= (uint64_t)dims[d];
    t->tensor.bytes = onnx_tensor_bytes(&t->tensor);
    return t;
}

static const int64_t *dims_of(struct builder *b, size_t n, const int64_t *dims)
{
    int64_t *copy = take(b, n + 1, sizeof *copy);
    if (copy)
        memcpy(copy, dims, n * sizeof *copy);
    return copy;
}

/* A node of up to @n_inputs inputs and one output; attributes follow. */
static struct onnx_node *new_node(struct builder *b, const char *op, const char *domain, const char *const *inputs,
                                  size_t n_inputs, const char *output, size_t n_attrs)
{
    struct onnx_node *n = take(b, 1, sizeof *n);
    const char **names = take(b, n_inputs + 1, sizeof *names);
    struct onnx_attr *attrs = take(b, n_attrs + 1, sizeof *attrs);
    if (!n || !names || !attrs)
        return NULL;
    memcpy(names, inputs, n_inputs * sizeof *names);
    names[n_inputs] = output;
    *n = (struct onnx_node){.name = suffixed(b, output, op),
                            .op_type = op,
                            .domain = domain,
                            .overload = "",
                            .inputs = names,
                            .n_inputs = n_inputs,
                            .outputs = names + n_inputs,
                            .n_outputs = 1,
                            .attrs = attrs};
    return n->name ? n : NULL;
}

static void set_int(struct onnx_node *n, const char *name, int64_t value)
{
    struct onnx_attr *attrs = (struct onnx_attr *)n->attrs; /* ours until the plan is returned */
    attrs[n->n_attrs++] = (struct onnx_attr){.name = name, .kind = ONNX_ATTR_INT, .i = value};
}

/* ---- channels ---- */

/* How elements belong to channels: element i to channel i / inner % n. */
struct channels {
    uint64_t n, inner;
};

static struct channels channels_of(const struct onnx_tensor *t, uint32_t axis)
{
    struct channels c = {.n = (uint64_t)t->dims[axis], .inner = 1};
    for (size_t d = axis + 1; d < t->n_dims; d++)
        c.inner *= (uint64_t)t->dims[d];
    return c;
}

/* Largest magnitudes by channel, in one pass. */
static int find_magnitudes(struct builder *b, const struct onnx_tensor *t, struct channels c, float *most)
{
    struct weight_reader r;
    CLEANUP(free) float *slice = malloc(WEIGHT_SLICE * sizeof *slice);
    int e = slice ? weight_reader_open(&r, b->source, t, b->ops, b->err) : out_of_budget(b);
    if (!slice)
        return e;
    for (uint64_t at = 0; at < t->n_elements && e == 0; at += WEIGHT_SLICE) {
        const size_t n = t->n_elements - at < WEIGHT_SLICE ? (size_t)(t->n_elements - at) : WEIGHT_SLICE;
        e = weight_reader_get(&r, at, n, slice, b->err);
        for (size_t i = 0; i < n && e == 0; i++) {
            float *m = &most[(at + i) / c.inner % c.n];
            const float x = fabsf(slice[i]);
            *m = x > *m ? x : *m;
        }
    }
    weight_reader_close(&r);
    return e;
}

/* ---- int8 ---- */

/* What makes the codes when the data file is written. */
struct codes {
    struct weight_reader reader;
    bool open;
    struct source *source;
    const struct onnx_tensor *tensor;
    const struct ops *ops;
    struct channels channels;
    const float *scales;
    enum qd_type half; /* of f16 and bf16 */
    struct onnx_decision *decision;
    float *slice; /* owned while open: WEIGHT_SLICE of them */
};

static double to_even(double x)
{
    return (x + 0x1.8p52) - 0x1.8p52; /* |x| is below 2^51 */
}

static int8_t int8_code(float w, float scale)
{
    const double q = to_even((double)w / (double)scale);
    return (int8_t)(q > INT8_MAX_CODE ? INT8_MAX_CODE : q < -INT8_MAX_CODE ? -INT8_MAX_CODE : q);
}

static int open_codes(struct codes *k, uint64_t offset, struct qd_error *err)
{
    if (offset != 0 || k->open)
        return 0;
    k->open = true;
    k->decision->signal = k->decision->noise = 0.0;
    k->slice = malloc(WEIGHT_SLICE * sizeof *k->slice);
    if (!k->slice)
        return err_new(err, QD_E_NO_MEMORY, "a slice of weights");
    return weight_reader_open(&k->reader, k->source, k->tensor, k->ops, err);
}

static void close_codes(struct codes *k, uint64_t elements_done)
{
    if (elements_done < k->tensor->n_elements)
        return;
    weight_reader_close(&k->reader);
    free(k->slice);
    k->slice = NULL;
    k->open = false;
}

static void note_error(struct onnx_decision *d, float was, double is)
{
    d->signal += (double)was * (double)was;
    d->noise += ((double)was - is) * ((double)was - is);
}

static int make_int8(void *data, uint64_t offset, size_t n_bytes, void *dst, struct qd_error *err)
{
    struct codes *k = data;
    int8_t *codes = dst;
    int r = open_codes(k, offset, err);
    for (size_t done = 0; done < n_bytes && r == 0;) {
        const size_t n = n_bytes - done < WEIGHT_SLICE ? n_bytes - done : WEIGHT_SLICE;
        r = weight_reader_get(&k->reader, offset + done, n, k->slice, err);
        for (size_t i = 0; i < n && r == 0; i++) {
            const float scale = k->scales[(offset + done + i) / k->channels.inner % k->channels.n];
            codes[done + i] = int8_code(k->slice[i], scale);
            note_error(k->decision, k->slice[i], (double)codes[done + i] * (double)scale);
        }
        done += n;
    }
    close_codes(k, offset + n_bytes);
    return r;
}

static struct codes *new_codes(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    struct codes *k = take(b, 1, sizeof *k);
    if (k) {
        k->source = b->source;
        k->tensor = w->tensor;
        k->ops = b->ops;
        k->decision = d;
    }
    return k;
}

/* Scales by channel; of a channel of zeros 1, so that no division and no reader meets a zero. */
static int int8_scales(struct builder *b, const struct weight *w, struct channels c, float **ret)
{
    float *scales = take(b, c.n, sizeof *scales);
    int r = scales ? find_magnitudes(b, w->tensor, c, scales) : out_of_budget(b);
    for (uint64_t i = 0; i < c.n && r == 0; i++) {
        scales[i] = scales[i] / INT8_MAX_CODE;
        if (scales[i] < 0x1p-126f)
            scales[i] = 1.0f;
    }
    *ret = scales;
    return r;
}

static int64_t opset_of(const struct builder *b, const char *domain)
{
    return onnx_opset_version(b->model->opsets, b->model->n_opsets, domain);
}

/* ai.onnx's DequantizeLinear knows an axis from opset 13 on; com.microsoft's always did (docs/adr/0019). */
static const char *dequantize_domain(struct builder *b)
{
    if (opset_of(b, "") >= AXIS_SINCE)
        return "";
    b->uses_contrib = true;
    return "com.microsoft";
}

static int plan_int8(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const struct channels c = channels_of(w->tensor, w->axis);
    struct codes *k = new_codes(b, w, d);
    float *scales = NULL;
    int r = k ? int8_scales(b, w, c, &scales) : out_of_budget(b);
    if (r < 0)
        return r;
    k->channels = c;
    k->scales = scales;
    b->n_made++;
    const int64_t n_scales = (int64_t)c.n;
    struct onnx_made *q =
        new_tensor(b, suffixed(b, w->name, "quantized"), ONNX_INT8, w->tensor->n_dims, w->tensor->dims, NULL);
    struct onnx_made *s = new_tensor(b, suffixed(b, w->name, "scale"), ONNX_FLOAT, 1, dims_of(b, 1, &n_scales), scales);
    struct onnx_made *z =
        new_tensor(b, suffixed(b, w->name, "zero_point"), ONNX_INT8, 1, dims_of(b, 1, &n_scales), take(b, c.n, 1));
    if (!q || !s || !z || !z->tensor.memory)
        return out_of_budget(b);
    q->make = make_int8;
    q->make_data = k;
    struct onnx_node *n = new_node(b, "DequantizeLinear", dequantize_domain(b),
                                   (const char *[]){q->tensor.name, s->tensor.name, z->tensor.name}, 3, w->name, 1);
    if (!n)
        return out_of_budget(b);
    set_int(n, "axis", w->axis);
    drop_weight(b, w);
    add(b, w->graph, place_of(w), n, NULL);
    add(b, w->graph, place_of(w), NULL, q);
    add(b, w->graph, place_of(w), NULL, s);
    add(b, w->graph, place_of(w), NULL, z);
    char *form = take(b, 32, 1);
    if (!form)
        return out_of_budget(b);
    (void)snprintf(form, 32, "int8 by axis %" PRIu32, w->axis);
    d->form = form;
    d->bytes_after = q->tensor.bytes + s->tensor.bytes + z->tensor.bytes;
    return 0;
}

/* ---- 16-bit floats ---- */

static int make_half(void *data, uint64_t offset, size_t n_bytes, void *dst, struct qd_error *err)
{
    struct codes *k = data;
    CLEANUP(free) float *back = malloc(WEIGHT_SLICE * sizeof *back);
    int r = back ? open_codes(k, offset, err) : err_new(err, QD_E_NO_MEMORY, "a slice of weights");
    const uint64_t first = offset / 2;
    for (size_t done = 0; done < n_bytes / 2 && r == 0;) {
        const size_t left = n_bytes / 2 - done, n = left < WEIGHT_SLICE ? left : WEIGHT_SLICE;
        uint16_t *halves = (uint16_t *)dst + done;
        r = weight_reader_get(&k->reader, first + done, n, k->slice, err);
        if (r < 0)
            break;
        k->ops->quantize[k->half](halves, k->slice, n);
        k->ops->dequantize[k->half](back, halves, n);
        for (size_t i = 0; i < n; i++)
            note_error(k->decision, k->slice[i], (double)back[i]);
        done += n;
    }
    close_codes(k, first + n_bytes / 2);
    return r;
}

static int plan_half(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const bool f16 = b->plan->recipe.scheme == ONNX_SCHEME_F16;
    struct codes *k = new_codes(b, w, d);
    float most = 0.0f;
    int r = k ? find_magnitudes(b, w->tensor, (struct channels){1, UINT64_MAX}, &most) : out_of_budget(b);
    if (r < 0)
        return r;
    if (f16 && most > f16_max) {
        d->reason = "beyond float16's range";
        return 0;
    }
    k->half = f16 ? QD_TYPE_F16 : QD_TYPE_BF16;
    b->n_made++;
    struct onnx_made *h = new_tensor(b, suffixed(b, w->name, f16 ? "float16" : "bfloat16"),
                                     f16 ? ONNX_FLOAT16 : ONNX_BFLOAT16, w->tensor->n_dims, w->tensor->dims, NULL);
    struct onnx_node *n = h ? new_node(b, "Cast", "", (const char *[]){h->tensor.name}, 1, w->name, 1) : NULL;
    if (!n)
        return out_of_budget(b);
    h->make = make_half;
    h->make_data = k;
    set_int(n, "to", ONNX_FLOAT);
    drop_weight(b, w);
    add(b, w->graph, place_of(w), n, NULL);
    add(b, w->graph, place_of(w), NULL, h);
    d->form = f16 ? "float16" : "bfloat16";
    d->bytes_after = h->tensor.bytes;
    return 0;
}

/* ---- 4 bits ---- */

/* onnxruntime:docs/ContribOperators.md, MatMulNBits: [n][blocks][block / 2] codes, a scale and a zero point a block. */
struct nibbles {
    uint64_t n, k, n_blocks;
    bool by_column; /* the weight is [k][n]; else [n][k] */
    uint8_t *codes, *zero_points;
    float *scales;
};

static float weight_at(const float *w, const struct nibbles *q, uint64_t row, uint64_t k)
{
    return q->by_column ? w[k * q->n + row] : w[row * q->k + k];
}

struct block_range {
    float scale;
    int zero_point;
};

static double block_error(const float *x, uint32_t n, struct block_range r)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        double q = to_even((double)x[i] / (double)r.scale) + r.zero_point;
        q = q < 0 ? 0 : q > 15 ? 15 : q;
        const double e = (double)x[i] - (q - r.zero_point) * (double)r.scale;
        sum += e * e;
    }
    return sum;
}

/*
 * Symmetric: zero point 8, codes -8 to 7, the largest magnitude on either end, whichever of some scales near it loses
 * least. Asymmetric: from the smallest to the largest, zero among them.
 */
static struct block_range block_range_of(const float *x, uint32_t n, bool asymmetric)
{
    enum { TRIES = 16 };
    float low = 0.0f, high = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    struct block_range best = {.scale = 1.0f, .zero_point = 8};
    const float most = -low > high ? -low : high;
    if (most < 0x1p-120f)
        return best;
    double least = INFINITY;
    for (int i = 0; i < TRIES; i++) {
        const float shrink = 1.0f - 0.02f * (float)(i / 2);
        struct block_range r = {.scale = shrink * most / (i % 2 ? -8.0f : 8.0f), .zero_point = 8};
        if (asymmetric) {
            r.scale = shrink * (high - low) / 15.0f;
            r.zero_point = (int)to_even((double)-low * (double)shrink / (double)r.scale);
        } else if ((i % 2 != 0) != (-low > high)) {
            r.scale = shrink * most / 7.0f;
        } else {
            r.scale = r.scale < 0 ? -r.scale : r.scale;
        }
        const double e = block_error(x, n, r);
        if (e < least) {
            least = e;
            best = r;
        }
    }
    return best;
}

static void put_nibble(uint8_t *codes, uint64_t i, unsigned q)
{
    codes[i / 2] = (uint8_t)(i % 2 ? codes[i / 2] | q << 4 : q);
}

static void quantize_block(struct builder *b, const float *w, struct nibbles *q, uint64_t row, uint64_t block,
                           struct onnx_decision *d)
{
    const uint32_t size = b->plan->recipe.block;
    float x[128] = {0};
    const uint64_t first = block * size, left = q->k - first;
    const uint32_t n = left < size ? (uint32_t)left : size;
    for (uint32_t i = 0; i < n; i++)
        x[i] = weight_at(w, q, row, first + i);
    const struct block_range r = block_range_of(x, n, b->plan->recipe.asymmetric);
    q->scales[row * q->n_blocks + block] = r.scale;
    if (q->zero_points)
        put_nibble(q->zero_points + row * ((q->n_blocks + 1) / 2), block, (unsigned)r.zero_point);
    uint8_t *codes = q->codes + (row * q->n_blocks + block) * (size / 2);
    for (uint32_t i = 0; i < size; i++) {
        double c = to_even((double)x[i] / (double)r.scale) + r.zero_point;
        c = c < 0 ? 0 : c > 15 ? 15 : c;
        put_nibble(codes, i, (unsigned)c);
        if (i < n)
            note_error(d, x[i], (c - r.zero_point) * (double)r.scale);
    }
}

/* The whole weight as floats: codes go along k, which in a [k][n] weight is across its rows. */
static int load_floats(struct builder *b, const struct onnx_tensor *t, float *dst)
{
    struct weight_reader r;
    int e = weight_reader_open(&r, b->source, t, b->ops, b->err);
    for (uint64_t at = 0; at < t->n_elements && e == 0; at += WEIGHT_SLICE) {
        const size_t n = t->n_elements - at < WEIGHT_SLICE ? (size_t)(t->n_elements - at) : WEIGHT_SLICE;
        e = weight_reader_get(&r, at, n, dst + at, b->err);
    }
    weight_reader_close(&r);
    return e;
}

static int quantize_nibbles(struct builder *b, const struct weight *w, struct nibbles *q, struct onnx_decision *d)
{
    CLEANUP(free) float *floats = malloc(w->tensor->n_elements * sizeof *floats);
    q->codes = take(b, q->n * q->n_blocks, b->plan->recipe.block / 2);
    q->scales = take(b, q->n * q->n_blocks, sizeof *q->scales);
    q->zero_points = b->plan->recipe.asymmetric ? take(b, q->n, (q->n_blocks + 1) / 2) : NULL;
    if (!floats || !q->codes || !q->scales || (b->plan->recipe.asymmetric && !q->zero_points))
        return out_of_budget(b);
    int r = load_floats(b, w->tensor, floats);
    for (uint64_t row = 0; row < q->n && r == 0; row++)
        for (uint64_t block = 0; block < q->n_blocks; block++)
            quantize_block(b, floats, q, row, block, d);
    return r;
}

/* MatMul with a matrix on the right, or a Gemm that is one with a bias. */
static bool fits_nibbles(const struct weight *w, size_t *ret_bias)
{
    const struct onnx_node *n = w->user;
    *ret_bias = 0;
    if (w->tensor->n_dims != 2 || w->n_uses != 1 || w->graph != w->user_graph)
        return false;
    if (strcmp(n->op_type, "MatMul") == 0)
        return true;
    const struct onnx_attr *alpha = onnx_attr_find(n, "alpha"), *beta = onnx_attr_find(n, "beta"),
                           *a = onnx_attr_find(n, "transA");
    if (strcmp(n->op_type, "Gemm") != 0 || (alpha && alpha->f != 1.0f) || (beta && beta->f != 1.0f) || (a && a->i))
        return false;
    *ret_bias = n->n_inputs > 2 && n->inputs[2][0] ? 2 : 0;
    return *ret_bias == 0; /* MatMulNBits adds a bias of [n] alone, and what shape it has the model need not say */
}

static int plan_nibbles(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const bool by_column = w->axis == 1;
    const uint32_t block = b->plan->recipe.block;
    struct nibbles q = {
        .n = (uint64_t)w->tensor->dims[by_column], .k = (uint64_t)w->tensor->dims[!by_column], .by_column = by_column};
    q.n_blocks = (q.k + block - 1) / block;
    int r = quantize_nibbles(b, w, &q, d);
    if (r < 0)
        return r;
    b->n_made++;
    b->uses_contrib = true;
    const int64_t code_dims[3] = {(int64_t)q.n, (int64_t)q.n_blocks, block / 2}, n_scales = (int64_t)(q.n * q.n_blocks);
    const int64_t n_zero_points = (int64_t)(q.n * ((q.n_blocks + 1) / 2));
    struct onnx_made *c =
        new_tensor(b, suffixed(b, w->name, "quantized"), ONNX_UINT8, 3, dims_of(b, 3, code_dims), q.codes);
    struct onnx_made *s =
        new_tensor(b, suffixed(b, w->name, "scale"), ONNX_FLOAT, 1, dims_of(b, 1, &n_scales), q.scales);
    struct onnx_made *z =
        new_tensor(b, suffixed(b, w->name, "zero_point"), ONNX_UINT8, 1, dims_of(b, 1, &n_zero_points), q.zero_points);
    if (!c || !s || !z)
        return out_of_budget(b);
    struct onnx_node *n = new_node(b, "MatMulNBits", "com.microsoft",
                                   (const char *[]){w->user->inputs[0], c->tensor.name, s->tensor.name, z->tensor.name},
                                   q.zero_points ? 4 : 3, w->user->outputs[0], 4);
    if (!n)
        return out_of_budget(b);
    set_int(n, "K", (int64_t)q.k);
    set_int(n, "N", (int64_t)q.n);
    set_int(n, "bits", 4);
    set_int(n, "block_size", block);
    drop_weight(b, w);
    drop(b, w->user->range.offset);
    add(b, w->graph, w->user->range.offset, n, NULL);
    add(b, w->graph, w->user->range.offset, NULL, c);
    add(b, w->graph, w->user->range.offset, NULL, s);
    if (q.zero_points)
        add(b, w->graph, w->user->range.offset, NULL, z);
    char *form = take(b, 48, 1);
    if (!form)
        return out_of_budget(b);
    (void)snprintf(form, 48, "4 bits, blocks of %" PRIu32 "%s", block, q.zero_points ? " with zero points" : "");
    d->form = form;
    d->bytes_after = c->tensor.bytes + s->tensor.bytes + (q.zero_points ? z->tensor.bytes : 0);
    return 0;
}

/* ---- the plan ---- */

/* "--keep REGEX": the weight stays; a rule that names a type is one of GGUF models. */
static int apply_rules(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const struct tensor_rule *rule = b->plan->rules ? tensor_rules_match(b->plan->rules, w->name) : NULL;
    if (!rule || w->left)
        return 0;
    d->reason = rule->text;
    return rule->keep
               ? 0
               : err_new(b->err, QD_E_INVALID, "%s: a weight of an ONNX model has the type of its scheme", rule->text);
}

static int check_rules_used(struct builder *b)
{
    const struct tensor_rule *unused = b->plan->rules ? tensor_rules_unused(b->plan->rules) : NULL;
    if (!unused)
        return 0;
    int r = err_new(b->err, QD_E_INVALID, "%s matches no weight", unused->text);
    return err_hint(b->err, r, "--dry-run without it lists the weights' names");
}

static int plan_weight(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    size_t bias;
    *d = (struct onnx_decision){
        .weight = w, .form = "float32", .reason = w->left ? w->left : "", .bytes_before = onnx_tensor_bytes(w->tensor)};
    d->bytes_after = d->bytes_before;
    int r = apply_rules(b, w, d);
    if (r < 0 || d->reason[0])
        return r;
    switch (b->plan->recipe.scheme) {
    case ONNX_SCHEME_INT4:
        return fits_nibbles(w, &bias) ? plan_nibbles(b, w, d) : plan_int8(b, w, d);
    case ONNX_SCHEME_INT8_WEIGHT:
        return plan_int8(b, w, d);
    case ONNX_SCHEME_F16:
    case ONNX_SCHEME_BF16:
        return plan_half(b, w, d);
    case N_ONNX_SCHEMES:
        break;
    }
    return err_new(b->err, QD_E_INTERNAL, "no such scheme");
}

static int import_contrib(struct builder *b)
{
    const struct onnx_model *m = b->model;
    if (!b->uses_contrib || opset_of(b, "com.microsoft"))
        return 0;
    struct onnx_opset *list = take(b, m->n_opsets + 1, sizeof *list);
    if (!list)
        return out_of_budget(b);
    memcpy(list, m->opsets, m->n_opsets * sizeof *list);
    list[m->n_opsets] = (struct onnx_opset){"com.microsoft", CONTRIB_VERSION};
    b->plan->edits.opsets = list;
    b->plan->edits.n_opsets = m->n_opsets + 1;
    return 0;
}

static int refuse(struct builder *b)
{
    const struct onnx_node *n = weights_quantized_node(b->model);
    if (n && !b->plan->recipe.again) {
        int r = err_new(b->err, QD_E_UNSUPPORTED, "the model is quantized already: node '%.100s' is a %s",
                        n->name[0]     ? n->name
                        : n->n_outputs ? n->outputs[0]
                                       : "",
                        n->op_type);
        return err_hint(b->err, r, "quantize the original, or say --requantize");
    }
    if (b->plan->recipe.scheme == ONNX_SCHEME_BF16 && opset_of(b, "") < BFLOAT16_SINCE)
        return err_hint(b->err, err_new(b->err, QD_E_UNSUPPORTED, "opset %" PRId64 " has no bfloat16", opset_of(b, "")),
                        "export the model with opset 13 or later, or ask for f16");
    if (b->plan->recipe.block != 32 && b->plan->recipe.block != 64 && b->plan->recipe.block != 128)
        return err_new(b->err, QD_E_INVALID, "blocks of %" PRIu32 ": 32, 64 and 128 are possible",
                       b->plan->recipe.block);
    return 0;
}

static int none_to_quantize(struct builder *b)
{
    int r = err_new(b->err, QD_E_UNSUPPORTED, "no weight of the model can be quantized: %zu are looked at",
                    b->plan->weights.n);
    return err_hint(b->err, r, "--dry-run says of each why");
}

static int build(struct builder *b, const char *data_name)
{
    struct onnx_plan *p = b->plan;
    int r = refuse(b);
    if (r == 0)
        r = weights_find(b->model, p->arena, &p->weights, b->err);
    if (r < 0)
        return r;
    p->decisions = take(b, p->weights.n + 1, sizeof *p->decisions);
    b->drops = take(b, EDITS_A_WEIGHT * (uint64_t)p->weights.n + 1, sizeof *b->drops);
    b->additions = take(b, EDITS_A_WEIGHT * (uint64_t)p->weights.n + 1, sizeof *b->additions);
    if (!p->decisions || !b->drops || !b->additions)
        return out_of_budget(b);
    if (p->recipe.rules && p->recipe.rules[0])
        r = tensor_rules_compile(p->recipe.rules, p->arena, &p->rules, b->err);
    for (size_t i = 0; i < p->weights.n && r == 0; i++)
        r = plan_weight(b, &p->weights.list[i], &p->decisions[i]);
    if (r == 0)
        r = check_rules_used(b);
    if (r == 0 && p->edits.n_drops == 0)
        r = none_to_quantize(b);
    if (r == 0)
        r = import_contrib(b);
    p->edits.drops = b->drops;
    p->edits.additions = b->additions;
    return r < 0 ? r
                 : onnx_write_plan(b->model, b->source, &p->edits, data_name, ONNX_EXTERNAL_FROM, &p->output, b->err);
}

int onnx_plan_build(const struct onnx_model *m, struct source *s, const struct onnx_recipe *recipe,
                    const struct ops *ops, const char *data_name, struct onnx_plan **ret, struct qd_error *err)
{
    CLEANUP(onnx_plan_free) struct onnx_plan *p = calloc(1, sizeof *p);
    if (!p || !(p->arena = arena_new((size_t)1 << 30)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    p->recipe = *recipe;
    for (size_t i = 0; i < source_n_files(s); i++)
        p->source_bytes += source_bytes(s, i);
    struct builder b = {.plan = p, .model = m, .source = s, .ops = ops, .err = err};
    int r = build(&b, data_name);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}

struct onnx_plan *onnx_plan_free(struct onnx_plan *p)
{
    if (p) {
        (void)onnx_output_free(p->output); /* these return NULL */
        (void)tensor_rules_free(p->rules);
        (void)arena_free(p->arena);
    }
    free(p);
    return NULL;
}

double onnx_decision_sqnr(const struct onnx_decision *d)
{
    return d->noise > 0.0 ? 10.0 * log10(d->signal / d->noise) : INFINITY;
}
