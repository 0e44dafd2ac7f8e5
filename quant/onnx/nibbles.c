/* Products whose weights have 4 bits: com.microsoft's MatMulNBits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/onnx/codes.h"

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
        double c = codes_round((double)x[i] / (double)r.scale) + r.zero_point;
        c = c < 0 ? 0 : c > 15 ? 15 : c;
        put_nibble(codes, i, (unsigned)c);
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
    q->codes = build_take(b, q->n * q->n_blocks, b->plan->recipe.block / 2);
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

/* MatMul with a matrix on the right, or a Gemm that is one with a bias. */
bool nibbles_fit(const struct weight *w)
{
    const struct onnx_node *n = w->user;
    if (w->tensor->type != ONNX_FLOAT || w->tensor->n_dims != 2 || w->n_uses != 1 || w->graph != w->user_graph)
        return false;
    if (strcmp(n->op_type, "MatMul") == 0)
        return true;
    const struct onnx_attr *alpha = onnx_attr_find(n, "alpha"), *beta = onnx_attr_find(n, "beta"),
                           *a = onnx_attr_find(n, "transA");
    if (strcmp(n->op_type, "Gemm") != 0 || (alpha && alpha->f != 1.0f) || (beta && beta->f != 1.0f) || (a && a->i))
        return false;
    return n->n_inputs < 3 ||
           !n->inputs[2][0]; /* MatMulNBits adds a bias of [n] alone, and what shape it has the model need not say */
}

int nibbles_plan(struct builder *b, const struct weight *w, struct onnx_decision *d)
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
        build_tensor(b, build_name(b, w->name, "quantized"), ONNX_UINT8, 3, build_dims(b, 3, code_dims), q.codes);
    struct onnx_made *s =
        build_tensor(b, build_name(b, w->name, "scale"), ONNX_FLOAT, 1, build_dims(b, 1, &n_scales), q.scales);
    struct onnx_made *z = build_tensor(b, build_name(b, w->name, "zero_point"), ONNX_UINT8, 1,
                                       build_dims(b, 1, &n_zero_points), q.zero_points);
    if (!c || !s || !z)
        return build_out_of_budget(b);
    struct onnx_node *n =
        build_node(b, "MatMulNBits", "com.microsoft",
                   (const char *[]){w->user->inputs[0], c->tensor.name, s->tensor.name, z->tensor.name},
                   q.zero_points ? 4 : 3, w->user->outputs[0], 4);
    if (!n)
        return build_out_of_budget(b);
    build_set_int(n, "K", (int64_t)q.k);
    build_set_int(n, "N", (int64_t)q.n);
    build_set_int(n, "bits", 4);
    build_set_int(n, "block_size", block);
    build_drop_weight(b, w);
    build_drop(b, w->user->range.offset);
    build_add(b, w->graph, w->user->range.offset, n, NULL);
    build_add(b, w->graph, w->user->range.offset, NULL, c);
    build_add(b, w->graph, w->user->range.offset, NULL, s);
    if (q.zero_points)
        build_add(b, w->graph, w->user->range.offset, NULL, z);
    char *form = build_take(b, 48, 1);
    if (!form)
        return build_out_of_budget(b);
    (void)snprintf(form, 48, "4 bits, blocks of %" PRIu32 "%s", block, q.zero_points ? " with zero points" : "");
    d->codes = &c->tensor;
    d->form = form;
    d->bytes_after = c->tensor.bytes + s->tensor.bytes + (q.zero_points ? z->tensor.bytes : 0);
    return 0;
}
