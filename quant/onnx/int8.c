/* Weights as int8: symmetric, a scale for each channel. */
#include <inttypes.h>
#include <stdio.h>

#include "quant/onnx/codes.h"

enum {
    MAX_CODE_8 = 127, /* symmetric: -127 to 127, so that a code and its negative are both there */
    MAX_CODE_7 = 63,
    FORM_BYTES = 32,
};

static int max_code(const struct onnx_recipe *r)
{
    const bool meets_integers = r->scheme == ONNX_SCHEME_INT8_STATIC || r->scheme == ONNX_SCHEME_INT8_DYNAMIC;
    return meets_integers && r->bits == 7 ? MAX_CODE_7 : MAX_CODE_8;
}

static int8_t int8_code(float w, float scale, int most)
{
    const double q = codes_round((double)w / (double)scale);
    return (int8_t)(q > most ? most : q < -most ? -most : q);
}

static int make_int8(void *data, uint64_t offset, size_t n_bytes, void *dst, struct qd_error *err)
{
    struct codes *k = data;
    int8_t *codes = dst;
    int r = codes_open(k, offset, err);
    for (size_t done = 0; done < n_bytes && r == 0;) {
        const size_t n = n_bytes - done < WEIGHT_SLICE ? n_bytes - done : WEIGHT_SLICE;
        r = weight_reader_get(&k->reader, offset + done, n, k->slice, err);
        for (size_t i = 0; i < n && r == 0; i++) {
            const float scale = k->scales[(offset + done + i) / k->channels.inner % k->channels.n];
            codes[done + i] = int8_code(k->slice[i], scale, k->max_code);
            codes_note(k->decision, k->slice[i], (double)codes[done + i] * (double)scale);
        }
        done += n;
    }
    codes_close(k, offset + n_bytes);
    return r;
}

/* Scales by channel; of a channel of zeros 1, so that no division and no reader meets a zero. */
static int int8_scales(struct builder *b, const struct weight *w, struct channels c, float **ret)
{
    float *scales = build_take(b, c.n, sizeof *scales);
    int r = scales ? channels_magnitudes(b, w->tensor, c, scales) : build_out_of_budget(b);
    for (uint64_t i = 0; i < c.n && r == 0; i++) {
        scales[i] = scales[i] / (float)max_code(&b->plan->recipe);
        if (scales[i] < 0x1p-126f)
            scales[i] = 1.0f;
    }
    *ret = scales;
    return r;
}

/* Rows are the channels: an axis with nothing before it, or nothing behind it. Between others it makes no matrix. */
static struct onnx_matrix matrix_of(const struct weight *w, const struct onnx_tensor *scales)
{
    const struct channels c = channels_of(w->tensor, w->axis);
    const uint64_t n_cols = w->tensor->n_elements / c.n;
    if (c.inner != n_cols && c.inner != 1)
        return (struct onnx_matrix){.scales = NULL};
    return (struct onnx_matrix){.scales = scales, .by_columns = c.inner != n_cols, .n_rows = c.n, .n_cols = n_cols};
}

int int8_codes(struct builder *b, const struct weight *w, struct onnx_decision *d, struct int8_weight *ret)
{
    const struct channels c = channels_of(w->tensor, w->axis);
    struct codes *k = codes_new(b, w, d);
    char *form = build_take(b, FORM_BYTES, 1);
    float *scales = NULL;
    int r = k && form ? int8_scales(b, w, c, &scales) : build_out_of_budget(b);
    if (r < 0)
        return r;
    k->channels = c;
    k->max_code = max_code(&b->plan->recipe);
    k->scales = scales;
    b->n_made++;
    const int64_t n = (int64_t)c.n;
    struct onnx_made *q =
        build_tensor(b, build_name(b, w->name, "quantized"), ONNX_INT8, w->tensor->n_dims, w->tensor->dims, NULL);
    struct onnx_made *s = build_tensor(b, build_name(b, w->name, "scale"), ONNX_FLOAT, 1, build_dims(b, 1, &n), scales);
    if (!q || !s)
        return build_out_of_budget(b);
    q->make = make_int8;
    q->make_data = k;
    (void)snprintf(form, FORM_BYTES, "int8 by axis %" PRIu32, w->axis);
    d->codes = &q->tensor;
    d->matrix = matrix_of(w, &s->tensor);
    d->form = form;
    d->bytes_after = q->tensor.bytes + s->tensor.bytes;
    *ret = (struct int8_weight){q, s, scales, c.n};
    return 0;
}

/* The weight as codes * scale by DequantizeLinear: what a runtime joins with activations that are codes, too. */
static int put_dequantized(struct builder *b, const struct weight *w, const struct int8_weight *q,
                           struct onnx_decision *d)
{
    const int64_t n = (int64_t)q->n_scales;
    struct onnx_made *z = build_tensor(b, build_name(b, w->name, "zero_point"), ONNX_INT8, 1, build_dims(b, 1, &n),
                                       build_take(b, q->n_scales, 1));
    struct onnx_node *node =
        z && z->tensor.memory
            ? build_node(b, "DequantizeLinear", build_dequantize_domain(b),
                         (const char *[]){q->codes->tensor.name, q->scale->tensor.name, z->tensor.name}, 3, w->name, 1)
            : NULL;
    if (!node)
        return build_out_of_budget(b);
    build_set_int(node, "axis", w->axis);
    build_add(b, w->graph, build_place(w), node, NULL);
    build_add(b, w->graph, build_place(w), NULL, z);
    d->bytes_after += z->tensor.bytes;
    return 0;
}

/*
 * The same as Cast and Mul of constants, which a runtime does once, when it loads the model. Weights that are not of
 * float32 become what they were by another Cast.
 */
static int put_product(struct builder *b, const struct weight *w, const struct int8_weight *q)
{
    const bool narrow = w->tensor->type != ONNX_FLOAT;
    const size_t n_dims = w->tensor->n_dims - w->axis; /* the scales spread over the dimensions behind their axis */
    int64_t *dims = build_take(b, n_dims, sizeof *dims);
    const char *wide = build_name(b, w->name, "wide"), *product = narrow ? build_name(b, w->name, "product") : w->name;
    if (!dims || !wide || !product)
        return build_out_of_budget(b);
    struct onnx_node *cast = build_node(b, "Cast", "", (const char *[]){q->codes->tensor.name}, 1, wide, 1);
    struct onnx_node *mul = build_node(b, "Mul", "", (const char *[]){wide, q->scale->tensor.name}, 2, product, 0);
    struct onnx_node *back = narrow ? build_node(b, "Cast", "", &product, 1, w->name, 1) : NULL;
    if (!cast || !mul || (narrow && !back))
        return build_out_of_budget(b);
    for (size_t i = 0; i < n_dims; i++)
        dims[i] = i ? 1 : (int64_t)q->n_scales;
    q->scale->tensor.dims = dims;
    q->scale->tensor.n_dims = n_dims;
    build_set_int(cast, "to", ONNX_FLOAT);
    build_add(b, w->graph, build_place(w), cast, NULL);
    build_add(b, w->graph, build_place(w), mul, NULL);
    if (back) {
        build_set_int(back, "to", w->tensor->type);
        build_add(b, w->graph, build_place(w), back, NULL);
    }
    return 0;
}

int int8_plan(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    struct int8_weight q;
    int r = int8_codes(b, w, d, &q);
    if (r == 0 && b->plan->recipe.scheme == ONNX_SCHEME_INT8_STATIC)
        r = static_plan(b, w, d, &q);
    if (r == 0)
        r = d->meets_codes ? put_dequantized(b, w, &q, d) : put_product(b, w, &q);
    if (r < 0)
        return r;
    build_drop_weight(b, w);
    build_add(b, w->graph, build_place(w), NULL, q.codes);
    build_add(b, w->graph, build_place(w), NULL, q.scale);
    return 0;
}
