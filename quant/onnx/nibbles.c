/*
 * Products whose weights have 4 bits, in one of two forms: ai.onnx's DequantizeLinear with blocks, which opset 21
 * brought and every runtime may know, or com.microsoft's MatMulNBits (docs/adr/0026-four-bits-in-two-forms.md).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/onnx/codes.h"

enum {
    BLOCKS_SINCE = 21,       /* opset from which DequantizeLinear has blocks, and tensors of 4 bits */
    ACTIVATIONS_OF_INT8 = 4, /* MatMulNBits' accuracy_level, which runtimes take for the other form by themselves */
    LEAST_OF_INT8 = 512,     /* k from which it gains time with one row and with 128 */
};

/*
 * MatMulNBits (onnxruntime:docs/ContribOperators.md): [n][blocks][block] codes without sign, [n][blocks] scales and
 * zero points, those of each row from a byte on. DequantizeLinear (onnx:docs/Operators.md): [k][n] codes, with a sign
 * where there are no zero points, and [blocks][n] of the others, whichever order the weight had: ONNX Runtime takes
 * those alone for MatMulNBits.
 */
struct nibbles {
    uint64_t n, k, n_blocks, block;
    bool by_column; /* the weight is [k][n]; else [n][k] */
    bool standard;  /* DequantizeLinear's order */
    uint8_t *codes, *zero_points;
    float *scales;
};

static uint64_t code_place(const struct nibbles *q, uint64_t row, uint64_t k)
{
    return q->standard ? k * q->n + row : row * q->n_blocks * q->block + k;
}

static uint64_t block_place(const struct nibbles *q, uint64_t row, uint64_t block)
{
    return q->standard ? block * q->n + row : row * q->n_blocks + block;
}

static uint64_t zero_place(const struct nibbles *q, uint64_t row, uint64_t block)
{
    return q->standard ? block_place(q, row, block) : row * ((q->n_blocks + 1) / 2 * 2) + block;
}

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
        double q = codes_round((double)x[i] / (double)r.scale) + r.zero_point;
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
            r.zero_point = (int)codes_round((double)-low * (double)shrink / (double)r.scale);
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

/* Into zeros. */
static void put_nibble(uint8_t *codes, uint64_t i, unsigned q)
{
    codes[i / 2] = (uint8_t)(codes[i / 2] | (q & 15) << (i % 2 * 4));
}

static void quantize_block(struct builder *b, const float *w, struct nibbles *q, uint64_t row, uint64_t block,
                           struct onnx_decision *d)
{
    float x[128] = {0};
    const uint64_t first = block * q->block, left = q->k - first;
    const uint32_t n = (uint32_t)(left < q->block ? left : q->block), size = q->standard ? n : (uint32_t)q->block;
    const int less = q->standard && !q->zero_points ? 8 : 0; /* codes with a sign */
    for (uint32_t i = 0; i < n; i++)
        x[i] = weight_at(w, q, row, first + i);
    const struct block_range r = block_range_of(x, n, b->plan->recipe.asymmetric);
    q->scales[block_place(q, row, block)] = r.scale;
    if (q->zero_points)
        put_nibble(q->zero_points, zero_place(q, row, block), (unsigned)r.zero_point);
    for (uint32_t i = 0; i < size; i++) {
        double c = codes_round((double)x[i] / (double)r.scale) + r.zero_point;
        c = c < 0 ? 0 : c > 15 ? 15 : c;
        put_nibble(q->codes, code_place(q, row, first + i), (unsigned)((int)c - less));
        if (i < n)
            codes_note(d, x[i], (c - r.zero_point) * (double)r.scale);
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
    q->codes = build_take(b, q->n * q->n_blocks, q->block / 2);
    q->scales = build_take(b, q->n * q->n_blocks, sizeof *q->scales);
    q->zero_points = b->plan->recipe.asymmetric ? build_take(b, q->n, (q->n_blocks + 1) / 2) : NULL;
    if (!floats || !q->codes || !q->scales || (b->plan->recipe.asymmetric && !q->zero_points))
        return build_out_of_budget(b);
    int r = load_floats(b, w->tensor, floats);
    for (uint64_t row = 0; row < q->n && r == 0; row++)
        for (uint64_t block = 0; block < q->n_blocks; block++)
            quantize_block(b, floats, q, row, block, d);
    return r;
}

/* MatMul with a matrix on the right, or a Gemm that is one and perhaps an Add. */
bool nibbles_fit(const struct weight *w)
{
    const struct onnx_node *n = w->user;
    if (w->tensor->type != ONNX_FLOAT || w->tensor->n_dims != 2 || w->n_uses != 1 || w->graph != w->user_graph)
        return false;
    const struct onnx_attr *alpha = onnx_attr_find(n, "alpha"), *beta = onnx_attr_find(n, "beta"),
                           *a = onnx_attr_find(n, "transA");
    return strcmp(n->op_type, "MatMul") == 0 || (strcmp(n->op_type, "Gemm") == 0 && !(alpha && alpha->f != 1.0f) &&
                                                 !(beta && beta->f != 1.0f) && !(a && a->i));
}

/* Codes, scales and zero points as tensors; @zero_points: NULL where there are none. */
struct made {
    struct onnx_made *codes, *scales, *zero_points;
};

static int make_contrib(struct builder *b, const struct weight *w, const struct nibbles *q, struct made *ret)
{
    const int64_t code_dims[3] = {(int64_t)q->n, (int64_t)q->n_blocks, (int64_t)q->block / 2};
    const int64_t n_scales = (int64_t)(q->n * q->n_blocks), n_zeros = (int64_t)(q->n * ((q->n_blocks + 1) / 2));
    *ret = (struct made){
        build_tensor(b, build_name(b, w->name, "quantized"), ONNX_UINT8, 3, build_dims(b, 3, code_dims), q->codes),
        build_tensor(b, build_name(b, w->name, "scale"), ONNX_FLOAT, 1, build_dims(b, 1, &n_scales), q->scales),
        q->zero_points ? build_tensor(b, build_name(b, w->name, "zero_point"), ONNX_UINT8, 1,
                                      build_dims(b, 1, &n_zeros), q->zero_points)
                       : NULL};
    return ret->codes && ret->scales && (ret->zero_points || !q->zero_points) ? 0 : build_out_of_budget(b);
}

static int make_standard(struct builder *b, const struct weight *w, const struct nibbles *q, struct made *ret)
{
    const enum onnx_type type = q->zero_points ? ONNX_UINT4 : ONNX_INT4;
    const int64_t dims[2] = {(int64_t)q->k, (int64_t)q->n}, by_block[2] = {(int64_t)q->n_blocks, (int64_t)q->n};
    *ret = (struct made){
        build_tensor(b, build_name(b, w->name, "quantized"), type, 2, build_dims(b, 2, dims), q->codes),
        build_tensor(b, build_name(b, w->name, "scale"), ONNX_FLOAT, 2, build_dims(b, 2, by_block), q->scales),
        q->zero_points
            ? build_tensor(b, build_name(b, w->name, "zero_point"), type, 2, build_dims(b, 2, by_block), q->zero_points)
            : NULL};
    return ret->codes && ret->scales && (ret->zero_points || !q->zero_points) ? 0 : build_out_of_budget(b);
}

/* @op in the place of the weight's operator, and an Add behind it where that had a bias; room for 5 attributes. */
static int replace_operator(struct builder *b, const struct weight *w, const char *op, const char *domain,
                            const char *const *inputs, size_t n_inputs, struct onnx_node **ret)
{
    const bool has_bias = w->user->n_inputs > 2 && w->user->inputs[2][0];
    const uint64_t at = w->user->range.offset;
    const char *result = w->user->outputs[0], *product = has_bias ? build_name(b, result, "product") : result;
    struct onnx_node *n = product ? build_node(b, op, domain, inputs, n_inputs, product, 5) : NULL;
    struct onnx_node *add =
        n && has_bias ? build_node(b, "Add", "", (const char *[]){product, w->user->inputs[2]}, 2, result, 0) : NULL;
    if (!n || (has_bias && !add))
        return build_out_of_budget(b);
    build_drop(b, at);
    build_add(b, w->graph, at, n, NULL);
    if (add)
        build_add(b, w->graph, at, add, NULL);
    *ret = n;
    return 0;
}

/* A MatMulNBits. */
static int put_contrib(struct builder *b, const struct weight *w, const struct nibbles *q, const struct made *made)
{
    const char *const inputs[] = {w->user->inputs[0], made->codes->tensor.name, made->scales->tensor.name,
                                  made->zero_points ? made->zero_points->tensor.name : ""};
    struct onnx_node *n;
    int r = replace_operator(b, w, "MatMulNBits", "com.microsoft", inputs, made->zero_points ? 4 : 3, &n);
    if (r < 0)
        return r;
    b->uses_contrib = true;
    build_set_int(n, "K", (int64_t)q->k);
    build_set_int(n, "N", (int64_t)q->n);
    build_set_int(n, "bits", 4);
    build_set_int(n, "block_size", (int64_t)q->block);
    if (q->k >= LEAST_OF_INT8)
        build_set_int(n, "accuracy_level", ACTIVATIONS_OF_INT8);
    return 0;
}

/* A DequantizeLinear that makes the weight, for a MatMul. */
static int put_standard(struct builder *b, const struct weight *w, const struct nibbles *q, const struct made *made)
{
    const char *const inputs[] = {made->codes->tensor.name, made->scales->tensor.name,
                                  made->zero_points ? made->zero_points->tensor.name : ""};
    struct onnx_node *n = build_node(b, "DequantizeLinear", "", inputs, made->zero_points ? 3 : 2, w->name, 2), *matmul;
    if (!n)
        return build_out_of_budget(b);
    build_set_int(n, "axis", 0);
    build_set_int(n, "block_size", (int64_t)q->block);
    build_add(b, w->graph, build_place(w), n, NULL);
    return strcmp(w->user->op_type, "MatMul") == 0
               ? 0
               : replace_operator(b, w, "MatMul", "", (const char *[]){w->user->inputs[0], w->name}, 2, &matmul);
}

/* "4 bits, blocks of 32 with zero points" */
static const char *form_of(struct builder *b, const struct nibbles *q)
{
    enum { FORM_BYTES = 48 };
    char *form = build_take(b, FORM_BYTES, 1);
    if (form)
        (void)snprintf(form, FORM_BYTES, "4 bits, blocks of %" PRIu64 "%s", q->block,
                       q->zero_points ? " with zero points" : ""); /* fits */
    return form;
}

int nibbles_plan(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const bool by_column = w->axis == 1;
    struct nibbles q = {.n = (uint64_t)w->tensor->dims[by_column],
                        .k = (uint64_t)w->tensor->dims[!by_column],
                        .block = b->plan->recipe.block,
                        .by_column = by_column,
                        .standard = build_opset(b, "") >= BLOCKS_SINCE};
    struct made made;
    q.n_blocks = (q.k + q.block - 1) / q.block;
    int r = quantize_nibbles(b, w, &q, d);
    b->n_made++;
    if (r == 0)
        r = (q.standard ? make_standard : make_contrib)(b, w, &q, &made);
    if (r < 0)
        return r;
    d->form = form_of(b, &q);
    if (!d->form)
        return build_out_of_budget(b);
    build_drop_weight(b, w);
    r = (q.standard ? put_standard : put_contrib)(b, w, &q, &made);
    build_add(b, w->graph, build_place(w), NULL, made.codes);
    build_add(b, w->graph, build_place(w), NULL, made.scales);
    if (made.zero_points)
        build_add(b, w->graph, build_place(w), NULL, made.zero_points);
    d->codes = &made.codes->tensor;
    d->matrix = (struct onnx_matrix){.scales = &made.scales->tensor,
                                     .zero_points = made.zero_points ? &made.zero_points->tensor : NULL,
                                     .by_columns = q.standard,
                                     .n_rows = q.n,
                                     .n_cols = q.k,
                                     .block = q.block};
    d->bytes_after =
        made.codes->tensor.bytes + made.scales->tensor.bytes + (made.zero_points ? made.zero_points->tensor.bytes : 0);
    return r;
}
