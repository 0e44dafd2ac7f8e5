/* Normalisations by moments of rows, groups, channels and batches. onnx:docs/Operators.md. */
#include <inttypes.h>
#include <math.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

/* out = (in - mean) * factor * scale + bias, where a scale and a bias are that of the row or of each element. */
struct affine {
    double mean, factor, bias;
    const struct value *scales, *biases; /* of each element of the row; NULL: none */
};

static void affine_piece(const struct affine *a, uint64_t at, size_t n, double *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (x[i] - a->mean) * a->factor + a->bias;
    for (size_t i = 0; i < n && a->scales; i++)
        x[i] *= float_at(a->scales, at + i);
    for (size_t i = 0; i < n && a->biases; i++)
        x[i] += float_at(a->biases, at + i);
}

static void affine_row(const struct affine *a, const struct row *in, const struct row *out)
{
    double x[ROW_PIECE];
    for (uint64_t at = 0; at < in->n; at += ROW_PIECE) {
        const size_t n = row_piece(in, at);
        row_load(in, at, n, x);
        affine_piece(a, at, n, x);
        row_store(out, at, n, x);
    }
}

/* ---- channels: [N, C, ...] with a scale and a bias for each of C ---- */

struct channels {
    const struct value *in, *scale, *bias;
    const struct value *mean, *variance; /* of each channel; NULL: those of the row */
    struct value *out;
    uint64_t n_channels, n_rows, inner;
    double epsilon;
};

static int channels_in(struct op_call *c, struct channels *s)
{
    int r = call_floats_in(c, 0, &s->in);
    if (r < 0)
        return r;
    const struct shape *shape = &s->in->shape;
    if (shape->n_dims < 1)
        return err_new(c->err, QD_E_INVALID, "a scalar has no channels");
    s->n_channels = shape->n_dims > 1 ? (uint64_t)shape->dims[1] : 1;
    s->inner = dims_product(shape, shape->n_dims > 2 ? 2 : shape->n_dims, shape->n_dims);
    s->n_rows = (uint64_t)shape->dims[0] * s->n_channels;
    s->epsilon = call_float(c, "epsilon", 1e-5f);
    return 0;
}

static void channel_rows(void *data, uint64_t first, uint64_t end)
{
    const struct channels *s = data;
    for (uint64_t i = first; i < end; i++) {
        const uint64_t channel = i % s->n_channels;
        const struct row in = row_of(s->in, i * s->inner, s->inner, 1), out = row_of(s->out, i * s->inner, s->inner, 1);
        struct affine a = {.bias = float_at(s->bias, channel)};
        double variance;
        if (s->mean) {
            a.mean = float_at(s->mean, channel);
            variance = float_at(s->variance, channel);
        } else {
            row_moments(&in, &a.mean, &variance);
        }
        a.factor = float_at(s->scale, channel) / sqrt(variance + s->epsilon);
        affine_row(&a, &in, &out);
    }
}

static int channels_run(struct op_call *c, struct channels *s)
{
    int r = call_tensor(c, 0, s->in->type, &s->in->shape, &s->out);
    if (r == 0 && s->in->n > 0)
        call_rows(c, s->n_rows, s->inner * 4, channel_rows, s);
    return r;
}

int op_instance_normalization(struct op_call *c)
{
    WIDEN(c, op_instance_normalization);
    struct channels s = {0};
    int r = channels_in(c, &s);
    if (r == 0)
        r = call_n_floats_in(c, 1, s.n_channels, &s.scale);
    if (r == 0)
        r = call_n_floats_in(c, 2, s.n_channels, &s.bias);
    return r < 0 ? r : channels_run(c, &s);
}

/* ---- BatchNormalization ---- */

/* Moments of channel @at over all of the batch. */
static void channel_moments(const struct channels *s, uint64_t at, double *ret_mean, double *ret_variance)
{
    struct sum values = {{0}}, squares = {{0}};
    const uint64_t n_batches = s->n_rows / s->n_channels;
    const double n = (double)(n_batches * s->inner);
    for (uint64_t b = 0; b < n_batches; b++) {
        const struct row in = row_of(s->in, (b * s->n_channels + at) * s->inner, s->inner, 1);
        row_sum(&in, &values);
    }
    const double mean = sum_fold(&values) / n;
    for (uint64_t b = 0; b < n_batches; b++) {
        const struct row in = row_of(s->in, (b * s->n_channels + at) * s->inner, s->inner, 1);
        row_sum_squares(&in, mean, &squares);
    }
    *ret_mean = mean;
    *ret_variance = sum_fold(&squares) / n;
}

static void value_set(struct value *v, uint64_t i, double x)
{
    if (v->type == ONNX_DOUBLE)
        ((double *)v->data)[i] = x;
    else
        ((float *)v->data)[i] = (float)x;
}

/* Moments of this batch into @moments, and the running ones into outputs 1 and 2. */
static int batch_moments(struct op_call *c, struct channels *s, struct value **moments)
{
    struct value *running[2] = {NULL, NULL};
    const struct value *before[2] = {s->mean, s->variance};
    const double momentum = call_float(c, "momentum", 0.9f);
    int r = 0;
    for (size_t k = 0; k < 2 && r == 0; k++) {
        r = value_new(c->memory, ONNX_DOUBLE, &s->mean->shape, &moments[k], c->err);
        if (r == 0 && call_wants(c, 1 + k))
            r = call_tensor(c, 1 + k, s->mean->type, &s->mean->shape, &running[k]);
    }
    for (uint64_t i = 0; i < s->n_channels && r == 0; i++) {
        double now[2];
        channel_moments(s, i, &now[0], &now[1]);
        for (size_t k = 0; k < 2; k++) {
            value_set(moments[k], i, now[k]);
            if (running[k])
                value_set(running[k], i, float_at(before[k], i) * momentum + now[k] * (1.0 - momentum));
        }
    }
    return r;
}

static int batch_normalization_trained(struct op_call *c, struct channels *s)
{
    struct value *moments[2] = {NULL, NULL};
    int r = batch_moments(c, s, moments);
    s->mean = moments[0];
    s->variance = moments[1];
    if (r == 0)
        r = channels_run(c, s);
    (void)value_release(moments[0]);
    (void)value_release(moments[1]);
    return r;
}

int op_batch_normalization(struct op_call *c)
{
    WIDEN(c, op_batch_normalization);
    struct channels s = {0};
    const struct value **given[] = {&s.scale, &s.bias, &s.mean, &s.variance};
    int r = channels_in(c, &s);
    if (r == 0 && c->opset < 9 && call_int(c, "spatial", 1) == 0) { /* a scale for each element */
        s.n_channels *= s.inner;
        s.n_rows *= s.inner;
        s.inner = 1;
    }
    for (size_t i = 0; i < 4 && r == 0; i++)
        r = call_n_floats_in(c, 1 + i, s.n_channels, given[i]);
    if (r < 0)
        return r;
    const bool training = c->opset >= 14 ? call_int(c, "training_mode", 0) != 0 : call_wants(c, 1);
    if (c->opset < 14 && (call_wants(c, 3) || call_wants(c, 4)))
        return err_new(c->err, QD_E_UNSUPPORTED, "saved moments are not computed");
    if (!training && call_wants(c, 1))
        return err_new(c->err, QD_E_INVALID, "running moments are an output of training alone");
    return training ? batch_normalization_trained(c, &s) : channels_run(c, &s);
}

/* ---- GroupNormalization ---- */

struct groups {
    struct channels channels;
    uint64_t n_groups;    /* of an item */
    uint64_t per_group;   /* channels */
    bool scale_of_groups; /* opset 18 */
};

static void group_rows(void *data, uint64_t first, uint64_t end)
{
    const struct groups *g = data;
    const struct channels *s = &g->channels;
    for (uint64_t i = first; i < end; i++) {
        const struct row all = row_of(s->in, i * g->per_group * s->inner, g->per_group * s->inner, 1);
        double mean, variance;
        row_moments(&all, &mean, &variance);
        for (uint64_t k = 0; k < g->per_group; k++) {
            const uint64_t at = (i * g->per_group + k) * s->inner, group = i % g->n_groups;
            const uint64_t scale = g->scale_of_groups ? group : group * g->per_group + k;
            const struct affine a = {.mean = mean,
                                     .factor = float_at(s->scale, scale) / sqrt(variance + s->epsilon),
                                     .bias = float_at(s->bias, scale)};
            const struct row in = row_of(s->in, at, s->inner, 1), out = row_of(s->out, at, s->inner, 1);
            affine_row(&a, &in, &out);
        }
    }
}

int op_group_normalization(struct op_call *c)
{
    WIDEN(c, op_group_normalization);
    struct groups g = {.scale_of_groups = c->opset < 21};
    struct channels *s = &g.channels;
    const int64_t n = call_int(c, "num_groups", 0);
    int r = channels_in(c, s);
    if (r == 0 && (n < 1 || s->n_channels % (uint64_t)n != 0))
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " channels in %" PRId64 " groups", s->n_channels, n);
    if (r < 0)
        return r;
    g.n_groups = (uint64_t)n;
    g.per_group = s->n_channels / g.n_groups;
    r = call_n_floats_in(c, 1, g.scale_of_groups ? g.n_groups : s->n_channels, &s->scale);
    if (r == 0)
        r = call_n_floats_in(c, 2, g.scale_of_groups ? g.n_groups : s->n_channels, &s->bias);
    if (r == 0)
        r = call_tensor(c, 0, s->in->type, &s->in->shape, &s->out);
    if (r == 0 && s->in->n > 0)
        call_rows(c, s->in->n / (g.per_group * s->inner), g.per_group * s->inner * 4, group_rows, &g);
    return r;
}

/* ---- LayerNormalization, RMSNormalization ---- */

struct layer {
    const struct value *in, *scale, *bias;
    struct value *out, *mean, *inverse; /* the last two may be NULL */
    uint64_t n;                         /* elements of a row */
    bool centred;
    double epsilon;
};

static void layer_rows(void *data, uint64_t first, uint64_t end)
{
    const struct layer *l = data;
    for (uint64_t i = first; i < end; i++) {
        const struct row in = row_of(l->in, i * l->n, l->n, 1), out = row_of(l->out, i * l->n, l->n, 1);
        struct affine a = {.scales = l->scale, .biases = l->bias};
        double square;
        if (l->centred) {
            row_moments(&in, &a.mean, &square);
        } else {
            struct sum squares = {{0}};
            row_sum_squares(&in, 0.0, &squares);
            square = sum_fold(&squares) / (double)l->n;
        }
        a.factor = 1.0 / sqrt(square + l->epsilon);
        affine_row(&a, &in, &out);
        if (l->mean)
            value_set(l->mean, i, a.mean);
        if (l->inverse)
            value_set(l->inverse, i, a.factor);
    }
}

/* Of output @out: the shape before @axis, then ones. */
static int layer_moment(struct op_call *c, const struct layer *l, uint32_t axis, size_t out, struct value **ret)
{
    struct shape shape = l->in->shape;
    for (uint32_t d = axis; d < shape.n_dims; d++)
        shape.dims[d] = 1;
    return call_wants(c, out) ? call_tensor(c, out, l->in->type, &shape, ret) : 0;
}

static int layer_normalization(struct op_call *c, bool centred)
{
    struct layer l = {.centred = centred, .epsilon = call_float(c, "epsilon", 1e-5f)};
    uint32_t axis;
    int r = call_floats_in(c, 0, &l.in);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", -1), l.in->shape.n_dims, &axis);
    if (r < 0)
        return r;
    l.n = dims_product(&l.in->shape, axis, l.in->shape.n_dims);
    r = call_n_floats_in(c, 1, l.n, &l.scale);
    if (r == 0 && call_in(c, 2))
        r = call_n_floats_in(c, 2, l.n, &l.bias);
    if (r == 0)
        r = layer_moment(c, &l, axis, 1, centred ? &l.mean : &l.inverse);
    if (r == 0 && centred)
        r = layer_moment(c, &l, axis, 2, &l.inverse);
    if (r == 0)
        r = call_tensor(c, 0, l.in->type, &l.in->shape, &l.out);
    if (r < 0)
        return r;
    const bool has_moments = l.mean || l.inverse; /* also of rows without elements */
    call_rows(c,
              l.in->n       ? l.in->n / l.n
              : has_moments ? dims_product(&l.in->shape, 0, axis)
                            : 0,
              l.n * 4, layer_rows, &l);
    return 0;
}

int op_layer_normalization(struct op_call *c)
{
    WIDEN(c, op_layer_normalization);
    return layer_normalization(c, true);
}

int op_rms_normalization(struct op_call *c)
{
    WIDEN(c, op_rms_normalization);
    return layer_normalization(c, false);
}

/* ---- com.microsoft's SkipLayerNormalization: of a sum ---- */

/* @in + @skip + @bias, the two of which begin again as often as they fit; @bias: NULL: none. */
static void add_skip(const struct value *in, const struct value *skip, const struct value *bias, struct value *out)
{
    for (uint64_t i = 0; i < in->n; i++) {
        const double sum = float_at(in, i) + float_at(skip, i % skip->n);
        value_set(out, i, bias ? sum + float_at(bias, i % bias->n) : sum);
    }
}

static bool is_suffix(const struct shape *s, const struct shape *of)
{
    bool fits = s->n_dims <= of->n_dims;
    for (uint32_t d = 1; d <= s->n_dims && fits; d++)
        fits = s->dims[s->n_dims - d] == of->dims[of->n_dims - d] ||
               (d == s->n_dims && s->n_dims == of->n_dims && s->dims[0] == 1);
    return fits;
}

/* Inputs: the tensor, what is added to it, scale, (of a centred one) bias, and a bias of the sum. Output 3: the sum. */
static int skip_layer_normalization(struct op_call *c, bool centred)
{
    struct layer l = {.centred = centred, .epsilon = call_float(c, "epsilon", 1e-12f)};
    const struct value *skip, *bias = NULL;
    const size_t bias_in = centred ? 4 : 3;
    int r = call_floats_in(c, 0, &l.in);
    if (r == 0)
        r = call_floats_in(c, 1, &skip);
    if (r == 0 && (l.in->shape.n_dims < 1 || l.in->n == 0 || !is_suffix(&skip->shape, &l.in->shape)))
        r = err_new(c->err, QD_E_INVALID, "shapes of the two inputs do not fit");
    if (r < 0)
        return r;
    const uint32_t axis = l.in->shape.n_dims - 1;
    l.n = (uint64_t)l.in->shape.dims[axis];
    r = call_n_floats_in(c, 2, l.n, &l.scale);
    if (r == 0 && centred && call_in(c, 3))
        r = call_n_floats_in(c, 3, l.n, &l.bias);
    if (r == 0 && call_in(c, bias_in))
        r = call_n_floats_in(c, bias_in, l.n, &bias);
    if (r == 0)
        r = layer_moment(c, &l, axis, 1, &l.mean);
    if (r == 0)
        r = layer_moment(c, &l, axis, 2, &l.inverse);
    struct value *sum = NULL;
    if (r == 0)
        r = value_new(c->memory, l.in->type, &l.in->shape, &sum, c->err);
    if (r < 0)
        return r;
    add_skip(l.in, skip, bias, sum);
    l.in = sum;
    r = call_tensor(c, 0, sum->type, &sum->shape, &l.out);
    if (r == 0)
        call_rows(c, sum->n / l.n, l.n * 4, layer_rows, &l);
    if (r == 0 && call_wants(c, 3))
        call_pass(c, 3, sum);
    (void)value_release(sum);
    return r;
}

int op_skip_layer_normalization(struct op_call *c)
{
    WIDEN(c, op_skip_layer_normalization);
    return skip_layer_normalization(c, true);
}

int op_skip_simplified_layer_normalization(struct op_call *c)
{
    WIDEN(c, op_skip_simplified_layer_normalization);
    return skip_layer_normalization(c, false);
}
