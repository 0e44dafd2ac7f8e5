/*
 * Reductions over axes, ArgMax and ArgMin, CumSum. Elements of a reduction are taken in row-major order; sums go into
 * 16 lanes of double (element i into lane i % 16) that a fixed tree folds, so that they have the same bits everywhere.
 */
#include <inttypes.h>
#include <math.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"
#include "quant/graph/view.h"

enum reduce_kind { SUM, MEAN, MAX, MIN, PROD, L1, L2, LOG_SUM, LOG_SUM_EXP, SUM_SQUARE };

struct reducing {
    const struct value *in;
    struct value *out;
    enum reduce_kind kind;
    struct view kept, reduced; /* strides of the dimensions that stay and of those that go */
    uint64_t n;                /* elements of one reduction */
};

/* ---- which axes ---- */

static int read_axes(struct op_call *c, const struct value *v, int64_t input_since, bool *marks)
{
    int64_t axes[VALUE_DIMS_MAX];
    size_t n;
    bool given;
    int r = call_ints(c, "axes", c->opset >= input_since ? 1 : -1, axes, VALUE_DIMS_MAX, &n, &given);
    for (size_t i = 0; i < n && r == 0; i++) {
        uint32_t at;
        r = call_axis(c, axes[i], v->shape.n_dims, &at);
        if (r == 0)
            marks[at] = true;
    }
    const bool none = n == 0 && !(call_int(c, "noop_with_empty_axes", 0) && c->opset >= input_since);
    for (uint32_t d = 0; d < v->shape.n_dims && none; d++)
        marks[d] = true;
    return r;
}

static struct shape reduced_shape(const struct shape *in, const bool *marks, bool keep)
{
    struct shape s = {.n_dims = 0};
    for (uint32_t d = 0; d < in->n_dims; d++)
        if (!marks[d] || keep)
            s.dims[s.n_dims++] = marks[d] ? 1 : in->dims[d];
    return s;
}

/* Parts the dimensions of @in into those that stay and those that go; neighbours that walk as one are joined. */
static void part(const struct shape *in, const bool *marks, struct view *kept, struct view *reduced)
{
    const struct view whole = view_whole(in);
    *kept = *reduced = (struct view){.n_dims = 0};
    for (uint32_t d = 0; d < in->n_dims; d++) {
        struct view *v = marks[d] ? reduced : kept;
        const uint32_t last = v->n_dims - 1;
        if (v->n_dims && v->strides[last] == whole.strides[d] * whole.dims[d]) {
            v->dims[last] *= whole.dims[d];
            v->strides[last] = whole.strides[d];
            continue;
        }
        v->dims[v->n_dims] = whole.dims[d];
        v->strides[v->n_dims++] = whole.strides[d];
    }
}

static int64_t offset_of(const struct view *v, uint64_t i)
{
    int64_t at = 0;
    for (uint32_t d = v->n_dims; d-- > 0; i /= (uint64_t)v->dims[d])
        at += v->strides[d] * (int64_t)(i % (uint64_t)v->dims[d]);
    return at;
}

/* Elements of a reduction from number @i on that stand evenly apart: their offset, distance and number. */
static uint64_t even_run(const struct view *v, uint64_t i, uint64_t n, int64_t *offset, int64_t *stride)
{
    *offset = offset_of(v, i);
    if (v->n_dims == 0) {
        *stride = 1;
        return n;
    }
    *stride = v->strides[v->n_dims - 1];
    const uint64_t inner = (uint64_t)v->dims[v->n_dims - 1], left = inner - i % inner;
    return left < n ? left : n;
}

/* ---- floats ---- */

/* Sum of f(x - @shift) with f by @kind. */
static double sum_of(const struct reducing *k, int64_t base, double shift)
{
    struct sum sum = {{0.0}};
    for (uint64_t i = 0, n; i < k->n; i += n) {
        int64_t at, stride;
        n = even_run(&k->reduced, i, k->n - i, &at, &stride);
        for (uint64_t j = 0; j < n; j++) {
            const double x = float_at(k->in, (uint64_t)(base + at + (int64_t)j * stride));
            const double y = k->kind == L1                            ? fabs(x)
                             : k->kind == L2 || k->kind == SUM_SQUARE ? x * x
                             : k->kind == LOG_SUM_EXP                 ? fn_exp_d(x - shift)
                                                                      : x;
            sum.lanes[(i + j) % SUM_LANES] += y;
        }
    }
    return sum_fold(&sum);
}

/* The largest, the smallest or the product, from the first to the last. NaN wins. */
static double fold_of(const struct reducing *k, int64_t base, enum reduce_kind kind)
{
    double y = kind == PROD ? 1.0 : kind == MAX ? -INFINITY : INFINITY;
    for (uint64_t i = 0, n; i < k->n; i += n) {
        int64_t at, stride;
        n = even_run(&k->reduced, i, k->n - i, &at, &stride);
        for (uint64_t j = 0; j < n; j++) {
            const double x = float_at(k->in, (uint64_t)(base + at + (int64_t)j * stride));
            if (kind == PROD)
                y *= x;
            else if (x != x || (kind == MAX ? x > y : x < y))
                y = y != y ? y : x;
        }
    }
    return y;
}

static double reduce_float(const struct reducing *k, int64_t base)
{
    double top;
    switch (k->kind) {
    case SUM:
    case L1:
    case SUM_SQUARE:
        return sum_of(k, base, 0.0);
    case MEAN:
        return sum_of(k, base, 0.0) / (double)k->n;
    case L2:
        return sqrt(sum_of(k, base, 0.0));
    case LOG_SUM:
        return fn_log_d(sum_of(k, base, 0.0));
    case LOG_SUM_EXP:
        top = fold_of(k, base, MAX);
        if (!(top > -INFINITY && top < INFINITY))
            return top;
        return fn_log_d(sum_of(k, base, top)) + top;
    case MAX:
    case MIN:
    case PROD:
        return fold_of(k, base, k->kind);
    }
    return NAN;
}

/* ---- integers ---- */

#define INTEGER_AT(T, type) \
    case type:              \
        return (int64_t)((const t_##T *)v->data)[i];

static int64_t integer_at(const struct value *v, int64_t i)
{
    switch ((int)v->type) {
        INTEGER_TYPES(INTEGER_AT)
    default:
        return ((const uint8_t *)v->data)[i]; /* bool */
    }
}

static int64_t fold_integers(const struct reducing *k, int64_t base)
{
    const bool is_u64 = k->in->type == ONNX_UINT64;
    int64_t y = 0;
    for (uint64_t i = 0; i < k->n; i++) {
        const int64_t x = integer_at(k->in, base + offset_of(&k->reduced, i));
        const bool above = is_u64 ? (uint64_t)x > (uint64_t)y : x > y,
                   below = is_u64 ? (uint64_t)x < (uint64_t)y : x < y;
        if (i == 0 && (k->kind == MAX || k->kind == MIN || k->kind == PROD))
            y = x;
        else if (k->kind == PROD)
            y = (int64_t)((uint64_t)y * (uint64_t)x);
        else if (k->kind == MAX || k->kind == MIN)
            y = (k->kind == MAX ? above : below) ? x : y;
        else if (k->kind == L1)
            y = (int64_t)((uint64_t)y + (x < 0 && !is_u64 ? -(uint64_t)x : (uint64_t)x));
        else if (k->kind == L2 || k->kind == SUM_SQUARE)
            y = (int64_t)((uint64_t)y + (uint64_t)x * (uint64_t)x);
        else
            y = (int64_t)((uint64_t)y + (uint64_t)x);
    }
    return y;
}

/* Means are cut toward zero, roots and logarithms too: the field's integers. */
static int64_t reduce_integer(const struct reducing *k, int64_t base)
{
    const int64_t y = fold_integers(k, base);
    if (k->kind == MEAN)
        return k->n ? y / (int64_t)k->n : 0;
    if (k->kind == L2)
        return (int64_t)sqrt((double)y);
    return k->kind == LOG_SUM ? (int64_t)fn_log_d((double)y) : y;
}

#define PUT_INTEGER(T, type)                \
    case type:                              \
        ((t_##T *)out->data)[i] = (t_##T)x; \
        return;

static void put_integer(struct value *out, uint64_t i, int64_t x)
{
    switch ((int)out->type) {
        INTEGER_TYPES(PUT_INTEGER)
    default:
        ((uint8_t *)out->data)[i] = (uint8_t)x;
    }
}

/* ---- the operators ---- */

static void reduce_rows(void *data, uint64_t first, uint64_t end)
{
    const struct reducing *k = data;
    for (uint64_t i = first; i < end; i++) {
        const int64_t base = offset_of(&k->kept, i);
        if (k->in->type == ONNX_FLOAT)
            ((float *)k->out->data)[i] = (float)reduce_float(k, base);
        else if (k->in->type == ONNX_DOUBLE)
            ((double *)k->out->data)[i] = reduce_float(k, base);
        else
            put_integer(k->out, i, reduce_integer(k, base));
    }
}

static int reduce(struct op_call *c, enum reduce_kind kind, int64_t input_since, op_fn *self)
{
    WIDEN(c, self);
    struct reducing k = {.kind = kind, .n = 1};
    bool marks[VALUE_DIMS_MAX] = {false};
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &k.in);
    if (r == 0 && (k.in->type == ONNX_STRING || value_element_bytes(k.in->type) > 8))
        r = err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(k.in->type));
    if (r == 0 && kind == LOG_SUM_EXP && k.in->type != ONNX_FLOAT && k.in->type != ONNX_DOUBLE)
        r = err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(k.in->type));
    if (r == 0)
        r = read_axes(c, k.in, input_since, marks);
    if (r < 0)
        return r;
    const struct shape s = reduced_shape(&k.in->shape, marks, call_int(c, "keepdims", 1) != 0);
    part(&k.in->shape, marks, &k.kept, &k.reduced);
    for (uint32_t d = 0; d < k.reduced.n_dims; d++)
        k.n *= (uint64_t)k.reduced.dims[d];
    r = call_tensor(c, 0, k.in->type, &s, &k.out);
    if (r == 0)
        call_rows(c, k.out->n, k.n, reduce_rows, &k);
    return r;
}

#define REDUCE(op, kind, input_since)            \
    int op(struct op_call *c)                    \
    {                                            \
        return reduce(c, kind, input_since, op); \
    }
REDUCE(op_reduce_sum, SUM, 13)
REDUCE(op_reduce_mean, MEAN, 18)
REDUCE(op_reduce_max, MAX, 18)
REDUCE(op_reduce_min, MIN, 18)
REDUCE(op_reduce_prod, PROD, 18)
REDUCE(op_reduce_l1, L1, 18)
REDUCE(op_reduce_l2, L2, 18)
REDUCE(op_reduce_log_sum, LOG_SUM, 18)
REDUCE(op_reduce_log_sum_exp, LOG_SUM_EXP, 18)
REDUCE(op_reduce_sum_square, SUM_SQUARE, 18)

/* ---- ArgMax, ArgMin ---- */

struct arguing {
    const struct value *in;
    struct value *out;
    struct view kept;
    int64_t n, stride;
    bool most, last;
};

static bool better(const struct arguing *k, int64_t a, int64_t b)
{
    if (k->in->type == ONNX_FLOAT || k->in->type == ONNX_DOUBLE) {
        const double x = float_at(k->in, (uint64_t)a), y = float_at(k->in, (uint64_t)b);
        return (k->most ? x > y : x < y) || (k->last && x == y);
    }
    const int64_t x = integer_at(k->in, a), y = integer_at(k->in, b);
    return (k->most ? x > y : x < y) || (k->last && x == y);
}

static void argue_rows(void *data, uint64_t first, uint64_t end)
{
    const struct arguing *k = data;
    for (uint64_t i = first; i < end; i++) {
        const int64_t base = offset_of(&k->kept, i);
        int64_t best = 0;
        for (int64_t j = 1; j < k->n; j++)
            if (better(k, base + j * k->stride, base + best * k->stride))
                best = j;
        ((int64_t *)k->out->data)[i] = best;
    }
}

static int argue(struct op_call *c, bool most, op_fn *self)
{
    WIDEN(c, self);
    struct arguing k = {.most = most, .last = call_int(c, "select_last_index", 0) != 0};
    struct view reduced;
    bool marks[VALUE_DIMS_MAX] = {false};
    uint32_t axis;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &k.in);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), k.in->shape.n_dims, &axis);
    if (r == 0 && (k.in->type == ONNX_STRING || k.in->shape.dims[axis] == 0))
        r = err_new(c->err, QD_E_INVALID, "strings, or an axis without elements");
    if (r < 0)
        return r;
    marks[axis] = true;
    const struct shape s = reduced_shape(&k.in->shape, marks, call_int(c, "keepdims", 1) != 0);
    part(&k.in->shape, marks, &k.kept, &reduced);
    k.n = k.in->shape.dims[axis];
    k.stride = reduced.strides[0];
    r = call_tensor(c, 0, ONNX_INT64, &s, &k.out);
    if (r == 0)
        call_rows(c, k.out->n, (uint64_t)k.n, argue_rows, &k);
    return r;
}

int op_arg_max(struct op_call *c)
{
    return argue(c, true, op_arg_max);
}

int op_arg_min(struct op_call *c)
{
    return argue(c, false, op_arg_min);
}

/* ---- CumSum ---- */

#define CUM_SUM(T, type)                                                    \
    case type: {                                                            \
        t_##T sum = 0;                                                      \
        for (int64_t j = 0; j < n; j++) {                                   \
            const int64_t to = base + (backwards ? n - 1 - j : j) * stride; \
            const t_##T x = ((const t_##T *)v->data)[to];                   \
            ((t_##T *)out->data)[to] = exclusive ? sum : (t_##T)(sum + x);  \
            sum = (t_##T)(sum + x);                                         \
        }                                                                   \
        break;                                                              \
    }

int op_cum_sum(struct op_call *c)
{
    WIDEN(c, op_cum_sum);
    const struct value *v;
    struct value *out;
    int64_t axis;
    uint32_t at;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_integer(c, 1, &axis);
    if (r == 0)
        r = call_axis(c, axis, v->shape.n_dims, &at);
    if (r == 0)
        r = call_tensor(c, 0, v->type, &v->shape, &out);
    if (r < 0)
        return r;
    const bool exclusive = call_int(c, "exclusive", 0) != 0, backwards = call_int(c, "reverse", 0) != 0;
    const struct view whole = view_whole(&v->shape);
    const int64_t n = v->shape.dims[at], stride = whole.strides[at];
    for (uint64_t i = 0; n > 0 && i < v->n / (uint64_t)n; i++) {
        const int64_t base = (int64_t)(i / (uint64_t)stride * (uint64_t)(stride * n) + i % (uint64_t)stride);
        switch ((int)v->type) {
            CUM_SUM(f32, ONNX_FLOAT)
            CUM_SUM(f64, ONNX_DOUBLE)
            CUM_SUM(u32, ONNX_INT32) /* sums wrap */
            CUM_SUM(u64, ONNX_INT64)
            CUM_SUM(u32, ONNX_UINT32)
            CUM_SUM(u64, ONNX_UINT64)
        default:
            return err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(v->type));
        }
    }
    return 0;
}
