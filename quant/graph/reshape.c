/*
 * Operators that give elements another shape and leave their order: no element is copied. And Shape, Size, Constant*.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/types.h"
#include "quant/graph/view.h"

static int reshaped(struct op_call *c, const struct shape *shape)
{
    return value_reshaped(call_in(c, 0), shape, &c->out[0], c->err);
}

static int too_many_dims(struct op_call *c)
{
    return err_new(c->err, QD_E_UNSUPPORTED, "more than %d dimensions", VALUE_DIMS_MAX);
}

/* One dimension of -1 takes what is left. */
static int infer_dim(struct op_call *c, struct shape *s, int unknown, uint64_t n)
{
    uint64_t known = 1;
    char text[SHAPE_TEXT_BYTES];
    s->dims[unknown] = 1;
    int r = shape_count(s, &known, c->err);
    if (r < 0)
        return r;
    s->dims[unknown] = -1;
    if (known == 0 || n % known)
        return err_new(c->err, QD_E_INVALID, "%" PRIu64 " elements do not divide into %s", n, shape_text(s, text));
    s->dims[unknown] = (int64_t)(n / known);
    return 0;
}

int op_reshape(struct op_call *c)
{
    const struct value *v;
    struct shape s = {.n_dims = 0};
    size_t n;
    bool given;
    int unknown = -1;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "shape", 1, s.dims, VALUE_DIMS_MAX, &n, &given);
    if (r < 0 || !given)
        return r < 0 ? r : err_new(c->err, QD_E_INVALID, "no shape is given");
    s.n_dims = (uint32_t)n;
    const bool zero_is_zero = call_int(c, "allowzero", 0) != 0;
    for (uint32_t d = 0; d < s.n_dims; d++) {
        if (s.dims[d] == 0 && !zero_is_zero) {
            if (d >= v->shape.n_dims)
                return err_new(c->err, QD_E_INVALID, "dimension %" PRIu32 " is to be kept, there are %" PRIu32, d,
                               v->shape.n_dims);
            s.dims[d] = v->shape.dims[d];
        }
        if (s.dims[d] == -1 && unknown >= 0)
            return err_new(c->err, QD_E_INVALID, "two dimensions are left open");
        if (s.dims[d] == -1)
            unknown = (int)d;
    }
    if (unknown >= 0)
        r = infer_dim(c, &s, unknown, v->n);
    return r < 0 ? r : reshaped(c, &s);
}

int op_flatten(struct op_call *c)
{
    const struct value *v;
    struct shape s = {.n_dims = 2, .dims = {1, 1}};
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    const int64_t n = v->shape.n_dims, axis = call_int(c, "axis", 1), at = axis < 0 ? axis + n : axis;
    if (at < 0 || at > n)
        return err_new(c->err, QD_E_INVALID, "axis %" PRId64 " of a tensor with %" PRId64 " dimensions", axis, n);
    for (int64_t d = 0; d < n; d++)
        s.dims[d < at ? 0 : 1] *= v->shape.dims[d];
    return reshaped(c, &s);
}

/* Marks the listed axes among @n_dims; twice the same is an error. */
static int mark_axes(struct op_call *c, const int64_t *axes, size_t n, uint32_t n_dims, bool *marks)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t at;
        int r = call_axis(c, axes[i], n_dims, &at);
        if (r < 0)
            return r;
        if (marks[at])
            return err_new(c->err, QD_E_INVALID, "axis %" PRIu32 " is listed twice", at);
        marks[at] = true;
    }
    return 0;
}

int op_squeeze(struct op_call *c)
{
    const struct value *v;
    int64_t axes[VALUE_DIMS_MAX];
    bool marks[VALUE_DIMS_MAX] = {false}, given;
    size_t n;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "axes", c->opset >= 13 ? 1 : -1, axes, VALUE_DIMS_MAX, &n, &given);
    if (r == 0)
        r = mark_axes(c, axes, n, v->shape.n_dims, marks);
    if (r < 0)
        return r;
    struct shape s = {.n_dims = 0};
    for (uint32_t d = 0; d < v->shape.n_dims; d++) {
        if (marks[d] && v->shape.dims[d] != 1)
            return err_new(c->err, QD_E_INVALID, "dimension %" PRIu32 " is %" PRId64 ", not 1", d, v->shape.dims[d]);
        if (!(given ? marks[d] : v->shape.dims[d] == 1))
            s.dims[s.n_dims++] = v->shape.dims[d];
    }
    return reshaped(c, &s);
}

int op_unsqueeze(struct op_call *c)
{
    const struct value *v;
    int64_t axes[VALUE_DIMS_MAX];
    bool marks[VALUE_DIMS_MAX] = {false}, given;
    size_t n;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "axes", c->opset >= 13 ? 1 : -1, axes, VALUE_DIMS_MAX, &n, &given);
    if (r < 0)
        return r;
    struct shape s = {.n_dims = v->shape.n_dims + (uint32_t)n};
    if (s.n_dims > VALUE_DIMS_MAX)
        return too_many_dims(c);
    r = mark_axes(c, axes, n, s.n_dims, marks);
    for (uint32_t d = 0, from = 0; d < s.n_dims && r == 0; d++)
        s.dims[d] = marks[d] ? 1 : v->shape.dims[from++];
    return r < 0 ? r : reshaped(c, &s);
}

/* ---- shapes as values ---- */

/* A one-dimensional int64 tensor of @n numbers. */
static int list_value(struct op_call *c, const int64_t *list, uint32_t n)
{
    const struct shape s = {.n_dims = 1, .dims = {n}};
    struct value *out;
    int r = call_tensor(c, 0, ONNX_INT64, &s, &out);
    if (r == 0 && n)
        memcpy(out->data, list, n * sizeof *list);
    return r;
}

static int64_t clamp_axis(int64_t axis, int64_t n)
{
    axis = axis < 0 ? axis + n : axis;
    return axis < 0 ? 0 : axis > n ? n : axis;
}

int op_shape(struct op_call *c)
{
    const struct value *v;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    const int64_t n = v->shape.n_dims, first = clamp_axis(call_int(c, "start", 0), n);
    const int64_t end = clamp_axis(call_int(c, "end", n), n);
    return list_value(c, v->shape.dims + first, end > first ? (uint32_t)(end - first) : 0);
}

int op_size(struct op_call *c)
{
    const struct value *v;
    const struct shape scalar = {.n_dims = 0};
    struct value *out;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_tensor(c, 0, ONNX_INT64, &scalar, &out);
    if (r == 0)
        *(int64_t *)out->data = (int64_t)v->n;
    return r;
}

/* ---- constants ---- */

static int constant_strings(struct op_call *c, const struct bytes *list, const struct shape *s)
{
    struct value *out;
    int r = call_tensor(c, 0, ONNX_STRING, s, &out);
    for (uint64_t i = 0; r == 0 && i < out->n; i++)
        r = value_set_string(out, i, list[i], c->err);
    return r;
}

static int constant_numbers(struct op_call *c, enum onnx_type type, const void *list, const struct shape *s)
{
    struct value *out;
    int r = call_tensor(c, 0, type, s, &out);
    if (r == 0 && out->n)
        memcpy(out->data, list, out->n * value_element_bytes(type));
    return r;
}

/* A tensor attribute never gets here: it is a constant of the graph. */
int op_constant(struct op_call *c)
{
    const struct onnx_attr *a = c->node->n_attrs == 1 ? &c->node->attrs[0] : NULL;
    const struct shape scalar = {.n_dims = 0};
    struct shape list = {.n_dims = 1};
    if (!a)
        return err_new(c->err, QD_E_INVALID, "has %zu attributes, one is due", c->node->n_attrs);
    switch ((int)a->kind) {
    case ONNX_ATTR_FLOAT:
        return constant_numbers(c, ONNX_FLOAT, &a->f, &scalar);
    case ONNX_ATTR_INT:
        return constant_numbers(c, ONNX_INT64, &a->i, &scalar);
    case ONNX_ATTR_STRING:
        return constant_strings(c, &a->s, &scalar);
    case ONNX_ATTR_FLOATS:
        list.dims[0] = (int64_t)a->n_floats;
        return constant_numbers(c, ONNX_FLOAT, a->floats, &list);
    case ONNX_ATTR_INTS:
        list.dims[0] = (int64_t)a->n_ints;
        return constant_numbers(c, ONNX_INT64, a->ints, &list);
    case ONNX_ATTR_STRINGS:
        list.dims[0] = (int64_t)a->n_strings;
        return constant_strings(c, a->strings, &list);
    default:
        return err_new(c->err, QD_E_UNSUPPORTED, "attribute '%s' is no value", a->name);
    }
}

/* Element 0 of @from over all of @v. */
static void fill(struct value *v, const void *element)
{
    const size_t bytes = value_element_bytes(v->type);
    for (uint64_t i = 0; i < v->n; i++)
        memcpy((uint8_t *)v->data + i * bytes, element, bytes);
}

int op_constant_of_shape(struct op_call *c)
{
    struct shape s = {.n_dims = 0};
    size_t n;
    bool given;
    struct value *out;
    CLEANUP(value_release) struct value *element = NULL;
    int r = call_ints(c, "", 0, s.dims, VALUE_DIMS_MAX, &n, &given);
    s.n_dims = (uint32_t)n;
    const struct onnx_attr *a = call_attr(c, "value");
    if (r == 0 && a && a->kind == ONNX_ATTR_TENSOR)
        r = call_attr_tensor(c, "value", &element);
    if (r == 0 && element && (element->n != 1 || element->type == ONNX_STRING))
        r = err_new(c->err, QD_E_INVALID, "'value' is no single number");
    if (r == 0)
        r = call_tensor(c, 0, element ? element->type : ONNX_FLOAT, &s, &out);
    if (r == 0)
        fill(out, element ? element->data : &(float){0.0f});
    return r;
}

#define RANGE(T, type)                                                                                               \
    case type:                                                                                                       \
        for (int64_t i = 0; i < n; i++)                                                                              \
            ((t_##T *)out->data)[i] = (t_##T)(*(const t_##T *)start->data + (t_##T)i * *(const t_##T *)delta->data); \
        break;

int op_range(struct op_call *c)
{
    const struct value *start, *limit, *delta;
    double d[3];
    struct value *out;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &start);
    if (r == 0)
        r = call_tensor_in(c, 1, start->type, &limit);
    if (r == 0)
        r = call_tensor_in(c, 2, start->type, &delta);
    for (size_t i = 0; i < 3 && r == 0; i++)
        r = call_number(c, i, &d[i]);
    if (r < 0)
        return r;
    const double span = d[2] == 0.0 ? -1.0 : (d[1] - d[0]) / d[2];
    if (d[2] == 0.0 || !(span < 1e15))
        return err_new(c->err, QD_E_INVALID, "a range from %g to %g by %g", d[0], d[1], d[2]);
    int64_t n = span > 0.0 ? (int64_t)span : 0;
    n += span > (double)n;
    const struct shape s = {.n_dims = 1, .dims = {n}};
    r = call_tensor(c, 0, start->type, &s, &out);
    if (r < 0)
        return r;
    switch ((int)start->type) {
        RANGE(f32, ONNX_FLOAT)
        RANGE(f64, ONNX_DOUBLE)
        RANGE(i16, ONNX_INT16)
        RANGE(i32, ONNX_INT32)
        RANGE(i64, ONNX_INT64)
    default:
        return err_new(c->err, QD_E_UNSUPPORTED, "a range of %s", onnx_type_name(start->type));
    }
    return 0;
}
