/* Sequences and optionals. */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/arrange.h"
#include "quant/graph/types.h"
#include "quant/graph/view.h"

static int sequence_in(struct op_call *c, const struct value **ret)
{
    const struct value *v = call_in(c, 0);
    if (!v || v->kind != VALUE_SEQUENCE)
        return err_new(c->err, QD_E_INVALID, "input 0 is no sequence");
    *ret = v;
    return 0;
}

static struct value *item(const struct value *sequence, uint64_t i)
{
    return ((struct value *const *)sequence->data)[i];
}

/* A position among @n items (one more where @past_end), counted from the end where it is negative. */
static int position(struct op_call *c, size_t input, uint64_t n, bool past_end, uint64_t *ret)
{
    const int64_t most = (int64_t)n;
    int64_t given;
    int r = call_integer(c, input, &given);
    if (r < 0)
        return r;
    const int64_t at = given < 0 ? given + most : given;
    if (at < 0 || at > most - !past_end)
        return err_new(c->err, QD_E_INVALID, "position %" PRId64 " in a sequence of %" PRIu64, given, n);
    *ret = (uint64_t)at;
    return 0;
}

int op_sequence_empty(struct op_call *c)
{
    return value_sequence(c->memory, (enum onnx_type)call_int(c, "dtype", ONNX_FLOAT), 0, &c->out[0], c->err);
}

int op_sequence_construct(struct op_call *c)
{
    const struct value *v;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = value_sequence(c->memory, v->type, c->n_in, &c->out[0], c->err);
    for (size_t i = 0; i < c->n_in && r == 0; i++) {
        r = call_tensor_in(c, i, v->type, &v);
        ((struct value **)c->out[0]->data)[i] = value_take(call_in(c, i));
    }
    return r;
}

int op_sequence_at(struct op_call *c)
{
    const struct value *s = NULL;
    uint64_t at = 0;
    int r = sequence_in(c, &s);
    if (r == 0)
        r = position(c, 1, s->n, false, &at);
    if (r == 0)
        call_pass(c, 0, item(s, at));
    return r;
}

int op_sequence_length(struct op_call *c)
{
    const struct value *s = NULL;
    const struct shape scalar = {.n_dims = 0};
    struct value *out;
    int r = sequence_in(c, &s);
    if (r == 0)
        r = call_tensor(c, 0, ONNX_INT64, &scalar, &out);
    if (r == 0)
        *(int64_t *)out->data = (int64_t)s->n;
    return r;
}

int op_sequence_insert(struct op_call *c)
{
    const struct value *s = NULL, *v;
    uint64_t at = 0;
    int r = sequence_in(c, &s);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_UNDEFINED, &v);
    if (r == 0) {
        at = s->n;
        r = call_in(c, 2) ? position(c, 2, s->n, true, &at) : 0;
    }
    if (r == 0)
        r = value_sequence(c->memory, v->type, s->n + 1, &c->out[0], c->err);
    for (uint64_t i = 0; r == 0 && i <= s->n; i++)
        ((struct value **)c->out[0]->data)[i] = value_take(i == at ? call_in(c, 1) : item(s, i - (i > at)));
    return r;
}

int op_sequence_erase(struct op_call *c)
{
    const struct value *s = NULL;
    uint64_t at = 0;
    int r = sequence_in(c, &s);
    if (r == 0 && s->n == 0)
        r = err_new(c->err, QD_E_INVALID, "the sequence is empty");
    if (r == 0) {
        at = s->n - 1;
        r = call_in(c, 1) ? position(c, 1, s->n, false, &at) : 0;
    }
    if (r == 0)
        r = value_sequence(c->memory, s->type, s->n - 1, &c->out[0], c->err);
    for (uint64_t i = 0; r == 0 && i + 1 < s->n; i++)
        ((struct value **)c->out[0]->data)[i] = value_take(item(s, i + (i >= at)));
    return r;
}

/* ---- tensors to sequences and back ---- */

int op_concat_from_sequence(struct op_call *c)
{
    const struct value *s = NULL;
    int r = sequence_in(c, &s);
    if (r == 0 && s->n == 0)
        r = err_new(c->err, QD_E_INVALID, "the sequence is empty");
    if (r < 0)
        return r;
    if (!call_int(c, "new_axis", 0))
        return concat_values(c, s->data, s->n, call_int(c, "axis", 0));
    CLEANUP(value_release) struct value *wide = NULL; /* the same tensors with a dimension of 1 at the axis */
    r = value_sequence(c->memory, s->type, s->n, &wide, c->err);
    for (uint64_t i = 0; i < s->n && r == 0; i++) {
        struct shape shape = item(s, i)->shape;
        uint32_t at;
        r = shape.n_dims < VALUE_DIMS_MAX
                ? call_axis(c, call_int(c, "axis", 0), shape.n_dims + 1, &at)
                : err_new(c->err, QD_E_UNSUPPORTED, "more than %d dimensions", VALUE_DIMS_MAX);
        if (r < 0)
            break;
        memmove(shape.dims + at + 1, shape.dims + at, (shape.n_dims - at) * sizeof shape.dims[0]);
        shape.dims[at] = 1;
        shape.n_dims++;
        r = value_reshaped(item(s, i), &shape, &((struct value **)wide->data)[i], c->err);
    }
    return r < 0 ? r : concat_values(c, wide->data, wide->n, call_int(c, "axis", 0));
}

/* One part of a split: [start, start + size) of @axis; that dimension gone where @drop. */
static int split_part(struct op_call *c, const struct value *v, uint32_t axis, int64_t start, int64_t size, bool drop,
                      struct value **ret)
{
    struct view part = view_whole(&v->shape);
    part.base = start * part.strides[axis];
    part.dims[axis] = size;
    struct shape s = v->shape;
    s.dims[axis] = size;
    if (drop) {
        memmove(s.dims + axis, s.dims + axis + 1, (s.n_dims - axis - 1) * sizeof s.dims[0]);
        s.n_dims--;
    }
    CLEANUP(value_release) struct value *out = NULL;
    int r = value_new(c->memory, v->type, &s, &out, c->err);
    if (r == 0)
        r = view_copy(c, v, &part, out);
    if (r == 0)
        *ret = steal(&out);
    return r;
}

/* Sizes come from input 1: a scalar for all parts, a list, or nothing: parts of one. */
static int64_t part_size(const struct value *sizes, uint64_t i, int64_t left)
{
    if (!sizes)
        return 1;
    const uint64_t at = sizes->shape.n_dims == 0 ? 0 : i;
    const int64_t n =
        sizes->type == ONNX_INT64 ? ((const int64_t *)sizes->data)[at] : ((const int32_t *)sizes->data)[at];
    return sizes->shape.n_dims == 0 && n > left ? left : n;
}

static int count_parts(struct op_call *c, const struct value *sizes, int64_t whole, uint64_t *ret)
{
    const bool listed = sizes && sizes->shape.n_dims > 0;
    const int64_t each = listed ? 0 : part_size(sizes, 0, whole);
    int64_t left = whole;
    if (!listed && (each > 0 || whole == 0)) {
        *ret = whole ? (uint64_t)((whole + each - 1) / each) : 0;
        return 0;
    }
    *ret = listed ? sizes->n : 0;
    for (uint64_t i = 0; i < *ret; i++) {
        const int64_t n = part_size(sizes, i, left);
        if (n < 0 || n > left)
            return err_new(c->err, QD_E_INVALID, "a part of %" PRId64 " where %" PRId64 " are left", n, left);
        left -= n;
    }
    return left == 0 ? 0
                     : err_new(c->err, QD_E_INVALID,
                               "parts of %" PRId64 " each leave %" PRId64 " of an axis of %" PRId64, each, left, whole);
}

int op_split_to_sequence(struct op_call *c)
{
    const struct value *v, *sizes = call_in(c, 1);
    uint32_t axis;
    uint64_t n = 0;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0 && sizes &&
        (sizes->kind != VALUE_TENSOR || (sizes->type != ONNX_INT64 && sizes->type != ONNX_INT32) ||
         sizes->shape.n_dims > 1))
        r = err_new(c->err, QD_E_INVALID, "the sizes are no integers");
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r == 0)
        r = count_parts(c, sizes, v->shape.dims[axis], &n);
    if (r == 0)
        r = value_sequence(c->memory, v->type, n, &c->out[0], c->err);
    const bool drop = !sizes && call_int(c, "keepdims", 1) == 0;
    int64_t start = 0;
    for (uint64_t i = 0; i < n && r == 0; i++) {
        const int64_t size = part_size(sizes, i, v->shape.dims[axis] - start);
        r = split_part(c, v, axis, start, size, drop, &((struct value **)c->out[0]->data)[i]);
        start += size;
    }
    return r;
}

/* ---- optionals ---- */

int op_optional(struct op_call *c)
{
    if (!call_in(c, 0))
        return value_nothing(c->memory, ONNX_UNDEFINED, &c->out[0], c->err);
    call_pass(c, 0, call_in(c, 0));
    return 0;
}

int op_optional_has_element(struct op_call *c)
{
    const struct shape scalar = {.n_dims = 0};
    const struct value *v = call_in(c, 0);
    struct value *out;
    int r = call_tensor(c, 0, ONNX_BOOL, &scalar, &out);
    if (r == 0)
        *(uint8_t *)out->data = v && v->kind != VALUE_NOTHING;
    return r;
}

int op_optional_get_element(struct op_call *c)
{
    const struct value *v = call_in(c, 0);
    if (!v || v->kind == VALUE_NOTHING)
        return err_new(c->err, QD_E_INVALID, "the optional is empty");
    call_pass(c, 0, call_in(c, 0));
    return 0;
}
