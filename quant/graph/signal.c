/* DFT, STFT, window functions, MelWeightMatrix. onnx:docs/Operators.md. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/graph/fourier.h"
#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

/* A single number that is input @i, or @otherwise where it is absent. */
static int number_in(struct op_call *c, size_t i, double otherwise, double *ret)
{
    const struct value *v;
    *ret = otherwise;
    if (!call_in(c, i))
        return 0;
    int r = call_tensor_in(c, i, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    if (v->n != 1)
        return err_new(c->err, QD_E_INVALID, "input %zu has %" PRIu64 " elements, a single one is due", i, v->n);
    if (v->type == ONNX_INT64)
        *ret = (double)*(const int64_t *)v->data;
    else if (v->type == ONNX_INT32)
        *ret = *(const int32_t *)v->data;
    else
        return call_floats_in(c, i, &v) < 0 ? QD_E_UNSUPPORTED : (*ret = float_at(v, 0), 0);
    return 0;
}

/* The same, a whole number in [1, 2^40]. */
static int count_in(struct op_call *c, size_t i, double otherwise, uint64_t *ret)
{
    double x;
    int r = number_in(c, i, otherwise, &x);
    if (r == 0 && !(x >= 1.0 && x <= 0x1p40))
        r = err_new(c->err, QD_E_INVALID, "input %zu is %g, a count is due", i, x);
    if (r == 0)
        *ret = (uint64_t)x;
    return r;
}

/* ---- transforms ---- */

/* [outer][n_in][inner][parts] becomes [outer][n_out][inner][2]. */
struct transform {
    const struct value *x;
    const struct value *window; /* NULL: none */
    struct value *y;
    uint64_t parts, inner, n_out;
};

/* @n elements from @first on, @inner apart, zeros behind them, are transformed to output element @to on. */
static void transform_one(const struct transform *t, const struct fourier *f, uint64_t first, uint64_t n, uint64_t to)
{
    const struct row out = row_of(t->y, to * 2, t->n_out, t->inner * 2);
    struct row imaginary = row_of(t->y, to * 2 + 1, t->n_out, t->inner * 2);
    for (uint64_t i = 0; i < f->n; i++) {
        const uint64_t at = (first + i * t->inner) * t->parts;
        const double w = i < n && t->window ? float_at(t->window, i) : 1.0;
        f->re[i] = i < n ? float_at(t->x, at) * w : 0.0;
        f->im[i] = i < n && t->parts == 2 ? float_at(t->x, at + 1) * w : 0.0;
    }
    fourier_run(f);
    for (uint64_t at = 0; at < out.n; at += ROW_PIECE) {
        row_store(&out, at, row_piece(&out, at), f->re + at);
        row_store(&imaginary, at, row_piece(&out, at), f->im + at);
    }
}

/* Input 0: its last dimension is 1 (real) or 2 (complex). */
static int signal_in(struct op_call *c, uint32_t least_dims, bool onesided, struct transform *t)
{
    int r = call_floats_in(c, 0, &t->x);
    if (r < 0)
        return r;
    const struct shape *s = &t->x->shape;
    char text[SHAPE_TEXT_BYTES];
    if (s->n_dims < least_dims || s->dims[s->n_dims - 1] < 1 || s->dims[s->n_dims - 1] > 2)
        return err_new(c->err, QD_E_INVALID, "a signal of shape %s", shape_text(s, text));
    t->parts = (uint64_t)s->dims[s->n_dims - 1];
    if (onesided && t->parts == 2)
        return err_new(c->err, QD_E_INVALID, "a complex signal has no one-sided transform");
    return 0;
}

/* From opset 20 on the axis is an input. */
static int dft_axis(struct op_call *c, uint32_t n_dims, uint32_t *ret)
{
    double axis = (double)call_int(c, "axis", 1);
    int r = c->opset < 20 ? 0 : number_in(c, 2, -2.0, &axis);
    if (r == 0)
        r = call_axis(c, axis > -100.0 && axis < 100.0 ? (int64_t)axis : 100, n_dims, ret);
    if (r == 0 && *ret == n_dims - 1)
        r = err_new(c->err, QD_E_INVALID, "the last axis is that of real and imaginary parts");
    return r;
}

int op_dft(struct op_call *c)
{
    WIDEN(c, op_dft);
    struct transform t = {0};
    struct fourier f = {0};
    uint32_t axis;
    uint64_t n = 0;
    const bool onesided = call_int(c, "onesided", 0) != 0;
    int r = signal_in(c, 2, onesided, &t);
    if (r == 0)
        r = dft_axis(c, t.x->shape.n_dims, &axis);
    if (r == 0)
        r = count_in(c, 1, (double)t.x->shape.dims[axis], &n);
    if (r == 0)
        r = fourier_begin(c, n, call_int(c, "inverse", 0) != 0, &f);
    if (r < 0)
        return r;
    struct shape shape = t.x->shape;
    t.n_out = onesided ? n / 2 + 1 : n;
    shape.dims[axis] = (int64_t)t.n_out;
    shape.dims[shape.n_dims - 1] = 2;
    t.inner = dims_product(&shape, axis + 1, shape.n_dims - 1);
    const uint64_t n_in = (uint64_t)t.x->shape.dims[axis], rows = t.x->n ? t.x->n / t.parts / n_in : 0;
    r = call_tensor(c, 0, t.x->type, &shape, &t.y);
    for (uint64_t i = 0; i < rows && r == 0; i++) {
        const uint64_t outer = i / t.inner, at = i % t.inner;
        transform_one(&t, &f, outer * n_in * t.inner + at, n_in < n ? n_in : n, outer * t.n_out * t.inner + at);
    }
    memory_give(c->memory, f.block);
    return r;
}

/* Frames of @length at a distance of @step: what input 2, a window, or input 3 says. */
static int stft_frames(struct op_call *c, struct transform *t, uint64_t *ret_step, uint64_t *ret_length)
{
    int r = count_in(c, 1, 0.0, ret_step);
    if (r == 0 && call_in(c, 2))
        r = call_floats_in(c, 2, &t->window);
    if (r == 0)
        r = count_in(c, 3, t->window ? (double)t->window->n : 0.0, ret_length);
    if (r == 0 && ((t->window && t->window->n != *ret_length) || *ret_length > (uint64_t)t->x->shape.dims[1]))
        r = err_new(c->err, QD_E_INVALID, "frames of %" PRIu64 " of a signal of %" PRId64, *ret_length,
                    t->x->shape.dims[1]);
    return r;
}

int op_stft(struct op_call *c)
{
    WIDEN(c, op_stft);
    struct transform t = {.inner = 1};
    struct fourier f = {0};
    uint64_t step, length;
    const bool onesided = call_int(c, "onesided", 1) != 0;
    int r = signal_in(c, 3, onesided, &t);
    if (r == 0 && t.x->shape.n_dims != 3)
        r = err_new(c->err, QD_E_INVALID, "a signal of %" PRIu32 " dimensions", t.x->shape.n_dims);
    if (r == 0)
        r = stft_frames(c, &t, &step, &length);
    if (r == 0)
        r = fourier_begin(c, length, false, &f);
    if (r < 0)
        return r;
    const uint64_t batch = (uint64_t)t.x->shape.dims[0], n_in = (uint64_t)t.x->shape.dims[1];
    const uint64_t n_frames = 1 + (n_in - length) / step;
    t.n_out = onesided ? length / 2 + 1 : length;
    const struct shape shape = {4, {(int64_t)batch, (int64_t)n_frames, (int64_t)t.n_out, 2}};
    r = call_tensor(c, 0, t.x->type, &shape, &t.y);
    for (uint64_t i = 0; r == 0 && i < batch * n_frames; i++)
        transform_one(&t, &f, i / n_frames * n_in + i % n_frames * step, length, i * t.n_out);
    memory_give(c->memory, f.block);
    return r;
}

/* ---- windows ---- */

/* a - b cos(2 pi i / n) + d cos(4 pi i / n) */
static int window(struct op_call *c, double a, double b, double d)
{
    const double turn = 0x1.921fb54442d18p+2;
    const int64_t type = call_int(c, "output_datatype", ONNX_FLOAT);
    uint64_t n = 0;
    struct value *out;
    int r = count_in(c, 0, 0.0, &n);
    if (r == 0 && type != ONNX_FLOAT && type != ONNX_DOUBLE)
        r = err_new(c->err, QD_E_UNSUPPORTED, "a window of type %" PRId64, type);
    if (r < 0)
        return r;
    const struct shape shape = {1, {(int64_t)n}};
    const double whole = call_int(c, "periodic", 1) ? (double)n : n > 1 ? (double)(n - 1) : 1.0;
    r = call_tensor(c, 0, (enum onnx_type)type, &shape, &out);
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        const struct row one = row_of(out, i, 1, 1);
        const double at = turn * ((double)i / whole), x = a - b * fn_cos_d(at) + d * fn_cos_d(2.0 * at);
        row_store(&one, 0, 1, &x);
    }
    return r;
}

int op_hann_window(struct op_call *c)
{
    return window(c, 0.5, 0.5, 0.0);
}

int op_hamming_window(struct op_call *c)
{
    return window(c, 25.0 / 46.0, 21.0 / 46.0, 0.0);
}

int op_blackman_window(struct op_call *c)
{
    return window(c, 0.42, 0.5, 0.08);
}

/* ---- MelWeightMatrix ---- */

static const double ln_10 = 0x1.26bb1bbb55516p+1;

static double mel_of(double hertz)
{
    return 2595.0 * (fn_log1p_d(hertz / 700.0) / ln_10);
}

/* The bin of a transform of @length in which point @i of @n + 2 on the mel scale lies; none above the last. */
static uint64_t mel_bin(double low, double high, uint64_t n, uint64_t i, uint64_t length, double rate, uint64_t n_bins)
{
    const double step = (mel_of(high) - mel_of(low)) / (double)(n + 2), mel = mel_of(low) + (double)i * step;
    const double bin = floor((double)(length + 1) * (700.0 * fn_expm1_d(mel / 2595.0 * ln_10)) / rate);
    return bin > 0.0 ? bin < (double)n_bins ? (uint64_t)bin : n_bins : 0;
}

static void mel_triangle(float *out, uint64_t n_mels, uint64_t n_bins, uint64_t low, uint64_t centre, uint64_t high)
{
    if (low == centre && centre < n_bins)
        out[centre * n_mels] = 1.0f;
    for (uint64_t j = low; j <= centre && j < n_bins && low != centre; j++)
        out[j * n_mels] = (float)((double)(j - low) / (double)(centre - low));
    for (uint64_t j = centre; j < high && j < n_bins; j++)
        out[j * n_mels] = (float)((double)(high - j) / (double)(high - centre));
}

int op_mel_weight_matrix(struct op_call *c)
{
    uint64_t n = 0, length = 0;
    double rate, low, high;
    struct value *out;
    int r = count_in(c, 0, 0.0, &n);
    if (r == 0)
        r = count_in(c, 1, 0.0, &length);
    if (r == 0)
        r = number_in(c, 2, 0.0, &rate);
    if (r == 0)
        r = number_in(c, 3, 0.0, &low);
    if (r == 0)
        r = number_in(c, 4, 0.0, &high);
    if (r == 0 && (!(rate > 0.0) || !(low >= 0.0) || !(high >= low) || !(high < INFINITY)))
        r = err_new(c->err, QD_E_INVALID, "%g to %g Hz of %g", low, high, rate);
    if (r == 0 && call_int(c, "output_datatype", ONNX_FLOAT) != ONNX_FLOAT)
        r = err_new(c->err, QD_E_UNSUPPORTED, "a matrix of another type than float32");
    if (r < 0)
        return r;
    const uint64_t n_bins = length / 2 + 1;
    const struct shape shape = {2, {(int64_t)n_bins, (int64_t)n}};
    r = call_tensor(c, 0, ONNX_FLOAT, &shape, &out);
    if (r < 0)
        return r;
    memset(out->data, 0, out->n * sizeof(float));
    for (uint64_t i = 0; i < n; i++)
        mel_triangle((float *)out->data + i, n, n_bins, mel_bin(low, high, n, i, length, rate, n_bins),
                     mel_bin(low, high, n, i + 1, length, rate, n_bins),
                     mel_bin(low, high, n, i + 2, length, rate, n_bins));
    return 0;
}
