/* Operators that pick or put elements by index: Gather*, Scatter*, OneHot, NonZero, Compress, ReverseSequence. */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/types.h"
#include "quant/graph/view.h"

static int index_tensor(struct op_call *c, size_t i, const struct value **ret)
{
    int r = call_tensor_in(c, i, ONNX_UNDEFINED, ret);
    if (r == 0 && (*ret)->type != ONNX_INT64 && (*ret)->type != ONNX_INT32)
        r = err_new(c->err, QD_E_UNSUPPORTED, "indices of %s", onnx_type_name((*ret)->type));
    return r;
}

static int64_t index_at(const struct value *v, uint64_t i)
{
    return v->type == ONNX_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
}

/* Index @i of @v into an axis of @n, counted from the end where it is negative. */
static int checked_index(struct op_call *c, const struct value *v, uint64_t i, int64_t n, int64_t *ret)
{
    const int64_t x = index_at(v, i);
    if (x < -n || x >= n)
        return err_new(c->err, QD_E_INVALID, "index %" PRId64 " (number %" PRIu64 ") into an axis of %" PRId64, x, i,
                       n);
    *ret = x < 0 ? x + n : x;
    return 0;
}

/* ---- Gather ---- */

int op_gather(struct op_call *c)
{
    const struct value *v, *index;
    struct value *out;
    uint32_t axis;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = index_tensor(c, 1, &index);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r < 0)
        return r;
    struct shape s = {.n_dims = v->shape.n_dims - 1 + index->shape.n_dims};
    if (s.n_dims > VALUE_DIMS_MAX)
        return err_new(c->err, QD_E_UNSUPPORTED, "more than %d dimensions", VALUE_DIMS_MAX);
    for (uint32_t d = 0; d < s.n_dims; d++)
        s.dims[d] = d < axis                         ? v->shape.dims[d]
                    : d < axis + index->shape.n_dims ? index->shape.dims[d - axis]
                                                     : v->shape.dims[d - index->shape.n_dims + 1];
    r = call_tensor(c, 0, v->type, &s, &out);
    if (r < 0 || out->n == 0)
        return r;
    const uint64_t outer = dims_product(&v->shape, 0, axis), inner = dims_product(&v->shape, axis + 1, v->shape.n_dims);
    const int64_t n = v->shape.dims[axis];
    for (uint64_t o = 0; o < outer && r == 0; o++)
        for (uint64_t i = 0; i < index->n && r == 0; i++) {
            int64_t at = 0;
            r = checked_index(c, index, i, n, &at);
            if (r == 0)
                r = value_copy(out, (o * index->n + i) * inner, v, (o * (uint64_t)n + (uint64_t)at) * inner, inner,
                               c->err);
        }
    return r;
}

/* Element number @i of a tensor of shape @s: the offset in one of shape @in, axis @axis apart. */
static uint64_t offset_but(const struct shape *s, uint64_t i, const struct shape *in, uint32_t axis)
{
    uint64_t at = 0, stride = 1;
    for (uint32_t d = s->n_dims; d-- > 0;) {
        if (d != axis)
            at += i % (uint64_t)s->dims[d] * stride;
        stride *= (uint64_t)in->dims[d];
        i /= (uint64_t)s->dims[d];
    }
    return at;
}

/* Do the indices stay within @in on all axes but @axis? */
static int check_within(struct op_call *c, const struct shape *index, const struct shape *in, uint32_t axis)
{
    bool fits = index->n_dims == in->n_dims;
    for (uint32_t d = 0; fits && d < in->n_dims; d++)
        fits = d == axis || index->dims[d] <= in->dims[d];
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    return fits ? 0 : err_new(c->err, QD_E_INVALID, "indices %s into %s", shape_text(index, a), shape_text(in, b));
}

int op_gather_elements(struct op_call *c)
{
    const struct value *v, *index;
    struct value *out;
    uint32_t axis;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = index_tensor(c, 1, &index);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r == 0)
        r = check_within(c, &index->shape, &v->shape, axis);
    if (r == 0)
        r = call_tensor(c, 0, v->type, &index->shape, &out);
    if (r < 0)
        return r;
    const uint64_t stride = dims_product(&v->shape, axis + 1, v->shape.n_dims);
    for (uint64_t i = 0; i < index->n && r == 0; i++) {
        int64_t at = 0;
        r = checked_index(c, index, i, v->shape.dims[axis], &at);
        if (r == 0)
            r = value_copy(out, i, v, offset_but(&index->shape, i, &v->shape, axis) + (uint64_t)at * stride, 1, c->err);
    }
    return r;
}

/* Offset of the slice that the @n indices from number @first on name, in axes @from.. of @s. */
static int slice_offset(struct op_call *c, const struct value *index, uint64_t first, uint32_t n, const struct shape *s,
                        uint32_t from, uint64_t *ret)
{
    uint64_t at = 0;
    int r = 0;
    for (uint32_t k = 0; k < n && r == 0; k++) {
        int64_t x = 0;
        r = checked_index(c, index, first + k, s->dims[from + k], &x);
        at = at * (uint64_t)s->dims[from + k] + (uint64_t)x;
    }
    *ret = at * dims_product(s, from + n, s->n_dims);
    return r;
}

int op_gather_nd(struct op_call *c)
{
    const struct value *v, *index;
    struct value *out;
    const int64_t batch = call_int(c, "batch_dims", 0);
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = index_tensor(c, 1, &index);
    if (r < 0)
        return r;
    const uint32_t q = index->shape.n_dims, depth = q ? (uint32_t)index->shape.dims[q - 1] : 0, b = (uint32_t)batch;
    if (q == 0 || batch < 0 || batch >= q || index->shape.dims[q - 1] > (int64_t)v->shape.n_dims - batch)
        return err_new(c->err, QD_E_INVALID,
                       "indices of %" PRIu32 " dimensions, %" PRId64 " of them a batch, into %" PRIu32, q, batch,
                       v->shape.n_dims);
    struct shape s = {.n_dims = q - 1 + v->shape.n_dims - b - depth};
    if (s.n_dims > VALUE_DIMS_MAX)
        return err_new(c->err, QD_E_UNSUPPORTED, "more than %d dimensions", VALUE_DIMS_MAX);
    for (uint32_t d = 0; d < s.n_dims; d++)
        s.dims[d] = d < q - 1 ? index->shape.dims[d] : v->shape.dims[d - (q - 1) + b + depth];
    for (uint32_t d = 0; d < b; d++)
        if (index->shape.dims[d] != v->shape.dims[d])
            return err_new(c->err, QD_E_INVALID, "batch dimension %" PRIu32 " is %" PRId64 " and %" PRId64, d,
                           index->shape.dims[d], v->shape.dims[d]);
    r = call_tensor(c, 0, v->type, &s, &out);
    if (r < 0 || out->n == 0)
        return r;
    const uint64_t n_slices = dims_product(&index->shape, 0, q - 1),
                   part = dims_product(&v->shape, b + depth, v->shape.n_dims);
    const uint64_t n_batch = dims_product(&v->shape, 0, b),
                   batch_elements = dims_product(&v->shape, b, v->shape.n_dims);
    for (uint64_t i = 0; i < n_slices && r == 0; i++) {
        uint64_t at = 0;
        r = slice_offset(c, index, i * depth, depth, &v->shape, b, &at);
        if (r == 0)
            r = value_copy(out, i * part, v, i / (n_slices / n_batch) * batch_elements + at, part, c->err);
    }
    return r;
}

/* ---- Scatter ---- */

enum reduction { REDUCE_NONE, REDUCE_ADD, REDUCE_MUL, REDUCE_MAX, REDUCE_MIN };

static int reduction_of(struct op_call *c, enum reduction *ret)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (call_text_is(c, "reduction", names[i], "none")) {
            *ret = (enum reduction)i;
            return 0;
        }
    return err_new(c->err, QD_E_UNSUPPORTED, "a reduction of this name");
}

#define COMBINE(T, type)                                                  \
    case type:                                                            \
        for (uint64_t i = 0; i < n; i++) {                                \
            t_##T *a = (t_##T *)dst->data + at + i;                       \
            const t_##T x = *a, y = ((const t_##T *)src->data)[from + i]; \
            *a = how == REDUCE_ADD   ? (t_##T)(x + y)                     \
                 : how == REDUCE_MUL ? (t_##T)(x * y)                     \
                 : how == REDUCE_MAX ? (x > y ? x : y)                    \
                                     : (x < y ? x : y);                   \
        }                                                                 \
        return 0;

static int combine(struct op_call *c, struct value *dst, uint64_t at, const struct value *src, uint64_t from,
                   uint64_t n, enum reduction how)
{
    if (how == REDUCE_NONE)
        return value_copy(dst, at, src, from, n, c->err);
    switch ((int)dst->type) {
        COMBINE(f32, ONNX_FLOAT)
        COMBINE(f64, ONNX_DOUBLE)
        COMBINE(i8, ONNX_INT8)
        COMBINE(u8, ONNX_UINT8)
        COMBINE(i16, ONNX_INT16)
        COMBINE(u32, ONNX_UINT32)
        COMBINE(u64, ONNX_UINT64)
    case ONNX_INT32:
        for (uint64_t i = 0; i < n; i++) { /* sums wrap */
            int32_t *a = (int32_t *)dst->data + at + i;
            const int32_t x = *a, y = ((const int32_t *)src->data)[from + i];
            *a = how == REDUCE_ADD   ? (int32_t)((uint32_t)x + (uint32_t)y)
                 : how == REDUCE_MUL ? (int32_t)((uint32_t)x * (uint32_t)y)
                 : how == REDUCE_MAX ? (x > y ? x : y)
                                     : (x < y ? x : y);
        }
        return 0;
    case ONNX_INT64:
        for (uint64_t i = 0; i < n; i++) {
            int64_t *a = (int64_t *)dst->data + at + i;
            const int64_t x = *a, y = ((const int64_t *)src->data)[from + i];
            *a = how == REDUCE_ADD   ? (int64_t)((uint64_t)x + (uint64_t)y)
                 : how == REDUCE_MUL ? (int64_t)((uint64_t)x * (uint64_t)y)
                 : how == REDUCE_MAX ? (x > y ? x : y)
                                     : (x < y ? x : y);
        }
        return 0;
    default:
        return err_new(c->err, QD_E_UNSUPPORTED, "a reduction of %s", onnx_type_name(dst->type));
    }
}

/* Input 0 copied to output 0, to be written over. */
static int copied_input(struct op_call *c, const struct value *v, struct value **ret)
{
    int r = call_tensor(c, 0, v->type, &v->shape, ret);
    return r < 0 ? r : value_copy(*ret, 0, v, 0, v->n, c->err);
}

int op_scatter_elements(struct op_call *c)
{
    const struct value *v, *index, *updates;
    struct value *out;
    uint32_t axis;
    enum reduction how = REDUCE_NONE;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = index_tensor(c, 1, &index);
    if (r == 0)
        r = call_tensor_in(c, 2, v->type, &updates);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r == 0)
        r = check_within(c, &index->shape, &v->shape, axis);
    if (r == 0 && !shape_equal(&index->shape, &updates->shape))
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " updates for %" PRIu64 " indices", updates->n, index->n);
    if (r == 0)
        r = reduction_of(c, &how);
    if (r == 0)
        r = copied_input(c, v, &out);
    if (r < 0)
        return r;
    const uint64_t stride = dims_product(&v->shape, axis + 1, v->shape.n_dims);
    for (uint64_t i = 0; i < index->n && r == 0; i++) {
        int64_t at = 0;
        r = checked_index(c, index, i, v->shape.dims[axis], &at);
        if (r == 0)
            r = combine(c, out, offset_but(&index->shape, i, &v->shape, axis) + (uint64_t)at * stride, updates, i, 1,
                        how);
    }
    return r;
}

int op_scatter_nd(struct op_call *c)
{
    const struct value *v, *index, *updates;
    struct value *out;
    enum reduction how = REDUCE_NONE;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = index_tensor(c, 1, &index);
    if (r == 0)
        r = call_tensor_in(c, 2, v->type, &updates);
    if (r == 0)
        r = reduction_of(c, &how);
    if (r < 0)
        return r;
    const uint32_t q = index->shape.n_dims;
    if (q == 0 || index->shape.dims[q - 1] > v->shape.n_dims)
        return err_new(c->err, QD_E_INVALID, "indices of %" PRIu32 " dimensions into %" PRIu32, q, v->shape.n_dims);
    const uint32_t depth = (uint32_t)index->shape.dims[q - 1];
    const uint64_t n_slices = dims_product(&index->shape, 0, q - 1),
                   part = dims_product(&v->shape, depth, v->shape.n_dims);
    if (updates->n != n_slices * part)
        return err_new(c->err, QD_E_INVALID, "%" PRIu64 " updates for %" PRIu64 " slices of %" PRIu64, updates->n,
                       n_slices, part);
    r = copied_input(c, v, &out);
    for (uint64_t i = 0; i < n_slices && updates->n && r == 0; i++) {
        uint64_t at = 0;
        r = slice_offset(c, index, i * depth, depth, &v->shape, 0, &at);
        if (r == 0)
            r = combine(c, out, at, updates, i * part, part, how);
    }
    return r;
}

/* ---- by truth ---- */

int op_non_zero(struct op_call *c)
{
    const struct value *v;
    struct value *out;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0 && v->type == ONNX_STRING)
        r = err_new(c->err, QD_E_UNSUPPORTED, "strings");
    if (r < 0)
        return r;
    CLEANUP(value_release) struct value *truth = NULL;
    r = value_cast(c, v, ONNX_BOOL, &truth);
    if (r < 0)
        return r;
    const uint8_t *t = truth->data;
    uint64_t n = 0;
    for (uint64_t i = 0; i < v->n; i++)
        n += t[i];
    const struct shape s = {.n_dims = 2, .dims = {v->shape.n_dims, (int64_t)n}};
    r = call_tensor(c, 0, ONNX_INT64, &s, &out);
    for (uint64_t i = 0, k = 0; i < v->n && r == 0; i++) {
        uint64_t rest = i;
        for (uint32_t d = v->shape.n_dims; t[i] && d-- > 0; rest /= (uint64_t)v->shape.dims[d])
            ((int64_t *)out->data)[d * n + k] = (int64_t)(rest % (uint64_t)v->shape.dims[d]);
        k += t[i];
    }
    return r;
}

int op_compress(struct op_call *c)
{
    const struct value *v, *keep;
    struct value *out;
    uint32_t axis = 0;
    const bool flat = !call_attr(c, "axis");
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_BOOL, &keep);
    if (r == 0 && !flat)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r < 0)
        return r;
    struct shape s = flat ? (struct shape){.n_dims = 1, .dims = {(int64_t)v->n}} : v->shape;
    const uint64_t inner = dims_product(&s, axis + 1, s.n_dims), n = (uint64_t)s.dims[axis],
                   outer = dims_product(&s, 0, axis);
    const uint64_t n_flags = keep->n < n ? keep->n : n;
    const uint8_t *flags = keep->data;
    s.dims[axis] = 0;
    for (uint64_t i = 0; i < n_flags; i++)
        s.dims[axis] += flags[i];
    r = call_tensor(c, 0, v->type, &s, &out);
    if (r < 0 || out->n == 0)
        return r;
    for (uint64_t o = 0, at = 0; o < outer && r == 0; o++)
        for (uint64_t i = 0; i < n_flags && r == 0; i++)
            if (flags[i]) {
                r = value_copy(out, at, v, (o * n + i) * inner, inner, c->err);
                at += inner;
            }
    return r;
}

/* ---- OneHot ---- */

int op_one_hot(struct op_call *c)
{
    const struct value *index, *values;
    struct value *out;
    CLEANUP(value_release) struct value *whole = NULL;
    double depth;
    uint32_t axis;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &index);
    if (r == 0)
        r = call_number(c, 1, &depth);
    if (r == 0)
        r = call_tensor_in(c, 2, ONNX_UNDEFINED, &values);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", -1), index->shape.n_dims + 1, &axis);
    if (r == 0 && (values->n != 2 || !(depth >= 0 && depth < 1e9) || index->shape.n_dims == VALUE_DIMS_MAX))
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " values, a depth of %g", values->n, depth);
    if (r == 0)
        r = value_cast(c, index, ONNX_INT64, &whole);
    if (r < 0)
        return r;
    struct shape s = index->shape;
    memmove(s.dims + axis + 1, s.dims + axis, (s.n_dims - axis) * sizeof s.dims[0]);
    s.dims[axis] = (int64_t)depth;
    s.n_dims++;
    r = call_tensor(c, 0, values->type, &s, &out);
    const uint64_t inner = dims_product(&s, axis + 1, s.n_dims), n = (uint64_t)depth;
    for (uint64_t i = 0; r == 0 && i < out->n; i++) {
        const int64_t at = index_at(whole, i / (n * inner) * inner + i % inner);
        const int64_t wanted = at < 0 ? at + (int64_t)n : at;
        r = value_copy(out, i, values, (int64_t)(i / inner % n) == wanted, 1, c->err);
    }
    return r;
}

int op_reverse_sequence(struct op_call *c)
{
    const struct value *v, *lengths;
    struct value *out;
    const int64_t batch = call_int(c, "batch_axis", 1), time = call_int(c, "time_axis", 0);
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_INT64, &lengths);
    const bool first_two = (batch == 0 && time == 1) || (batch == 1 && time == 0);
    if (r == 0 && (v->shape.n_dims < 2 || !first_two))
        r = err_new(c->err, QD_E_INVALID, "batch axis %" PRId64 " and time axis %" PRId64, batch, time);
    if (r == 0 && lengths->n != (uint64_t)v->shape.dims[batch])
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " lengths for a batch of %" PRId64, lengths->n,
                    v->shape.dims[batch]);
    if (r == 0)
        r = call_tensor(c, 0, v->type, &v->shape, &out);
    if (r < 0)
        return r;
    const uint64_t inner = dims_product(&v->shape, 2, v->shape.n_dims), columns = (uint64_t)v->shape.dims[1];
    for (uint64_t i = 0; inner && i < v->n / inner && r == 0; i++) {
        const uint64_t at[2] = {i / columns, i % columns};
        const int64_t t = (int64_t)at[time], n = index_at(lengths, at[batch]);
        const uint64_t from = (uint64_t)(n > v->shape.dims[time] || t >= n ? t : n - 1 - t);
        const uint64_t src = time == 0 ? from * columns + at[1] : at[0] * columns + from;
        r = value_copy(out, i * inner, v, src * inner, inner, c->err);
    }
    return r;
}
