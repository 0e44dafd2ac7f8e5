/*
 * BatchNormalization behind a Conv, folded into it: y = (conv(x) + b - mean) * g + beta, g = scale / sqrt(variance +
 * epsilon), by channel. Codes with a scale for each channel stay what they are, or turn their sign; scales and bias
 * alone change. A runtime does this with floats by itself, and cannot with codes.
 */
#include <math.h>

#include "quant/onnx/codes.h"

static int load_params(struct builder *b, const struct weight *w, uint64_t n, float *dst[4])
{
    int r = 0;
    for (size_t i = 0; i < 4 && r == 0; i++) {
        dst[i] = build_take(b, n, sizeof **dst);
        r = dst[i] ? onnx_tensor_load(b->source, w->norm_params[i], dst[i], b->err) : build_out_of_budget(b);
    }
    return r;
}

static double epsilon_of(const struct onnx_node *n)
{
    const struct onnx_attr *a = onnx_attr_find(n, "epsilon");
    return a && a->kind == ONNX_ATTR_FLOAT ? (double)a->f : 1e-5;
}

/* Of the Conv itself; zeros where it has none. 1: it is no constant of its own. */
static int load_bias(struct builder *b, const struct weight *w, uint64_t n, float **ret)
{
    float *bias = build_take(b, n, sizeof *bias);
    const bool has = w->user->n_inputs > 2 && w->user->inputs[2][0];
    if (!bias)
        return build_out_of_budget(b);
    *ret = bias;
    if (!has)
        return 0;
    return w->bias && w->bias->n_elements == n ? onnx_tensor_load(b->source, w->bias, bias, b->err) : 1;
}

int fold_norm(struct builder *b, const struct weight *w, struct int8_weight *q, double **ret_bias)
{
    const uint64_t n = q->n_scales;
    float *params[4], *bias = NULL;
    if (!w->norm)
        return 1;
    float *by_channel = build_take(b, n, sizeof *by_channel), *of_codes = build_take(b, n, sizeof *of_codes);
    double *folded = build_take(b, n, sizeof *folded);
    int r = by_channel && of_codes && folded ? load_params(b, w, n, params) : build_out_of_budget(b);
    if (r == 0)
        r = load_bias(b, w, n, &bias);
    for (uint64_t c = 0; c < n && r == 0; c++) {
        const double g = (double)params[0][c] / sqrt((double)params[3][c] + epsilon_of(w->norm));
        folded[c] = (double)params[1][c] + ((double)bias[c] - (double)params[2][c]) * g;
        by_channel[c] = (float)(fabs(g) * (double)q->scales[c]);
        of_codes[c] = g < 0 ? -q->scales[c] : q->scales[c];
        if (!isfinite(folded[c]) || !(by_channel[c] >= 0x1p-100f && by_channel[c] < 0x1p100f))
            return 1;
    }
    if (r != 0)
        return r;
    struct codes *k = q->codes->make_data;
    k->scales = of_codes;
    q->scales = by_channel;
    q->scale->tensor.memory = by_channel;
    *ret_bias = folded;
    return 0;
}
