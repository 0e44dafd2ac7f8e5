/* TopK and Unique: operators that order elements. Ties keep the order of their indices. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "quant/graph/types.h"
#include "quant/graph/view.h"

/* An element with its index; numbers of all types compare as the wider of the two. */
struct ranked {
    double d;
    int64_t i;
    int64_t index;
};

static int by_value(const struct ranked *a, const struct ranked *b)
{
    if (a->d != b->d)
        return a->d < b->d ? -1 : 1;
    return a->i < b->i ? -1 : a->i > b->i;
}

static int rising(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    const int r = by_value(a, b);
    return r ? r : a->index < b->index ? -1 : 1;
}

static int falling(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    const int r = by_value(b, a);
    return r ? r : a->index < b->index ? -1 : 1;
}

#define RANK(T, type)                                \
    case type:                                       \
        k.i = (int64_t)((const t_##T *)v->data)[at]; \
        return k;

static struct ranked rank_of(const struct value *v, int64_t at, int64_t index)
{
    struct ranked k = {.index = index};
    switch ((int)v->type) {
    case ONNX_FLOAT:
        k.d = ((const float *)v->data)[at];
        return k;
    case ONNX_DOUBLE:
        k.d = ((const double *)v->data)[at];
        return k;
        SIGNED_TYPES(RANK)
        UNSIGNED_TYPES(RANK)
    default:
        k.i = ((const uint8_t *)v->data)[at];
        return k;
    }
}

static bool can_rank(enum onnx_type t)
{
    return t != ONNX_STRING && value_element_bytes(t) <= 8 && !type_is_half(t) && t != ONNX_COMPLEX64;
}

/* ---- TopK ---- */

static int top_count(struct op_call *c, int64_t n, int64_t *ret)
{
    double k = (double)call_int(c, "k", -1);
    int r = c->opset >= 10 ? call_number(c, 1, &k) : 0;
    if (r == 0 && !(k >= 0 && k <= (double)n))
        r = err_new(c->err, QD_E_INVALID, "the %g best of %" PRId64, k, n);
    *ret = (int64_t)k;
    return r;
}

int op_top_k(struct op_call *c)
{
    WIDEN(c, op_top_k);
    const struct value *v;
    struct value *values, *indices;
    uint32_t axis;
    int64_t k = 0;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", -1), v->shape.n_dims, &axis);
    if (r == 0)
        r = top_count(c, v->shape.dims[axis], &k);
    if (r == 0 && !can_rank(v->type))
        r = err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(v->type));
    if (r < 0)
        return r;
    const struct view whole = view_whole(&v->shape);
    const int64_t n = v->shape.dims[axis], stride = whole.strides[axis];
    struct shape s = v->shape;
    s.dims[axis] = k;
    r = call_tensor(c, 0, v->type, &s, &values);
    if (r == 0)
        r = call_tensor(c, 1, ONNX_INT64, &s, &indices);
    void *scratch = NULL;
    if (r == 0 && values->n)
        r = memory_take(c->memory, (uint64_t)n * sizeof(struct ranked), &scratch, c->err);
    struct ranked *list = scratch;
    for (uint64_t i = 0; r == 0 && values->n && i < v->n / (uint64_t)n; i++) {
        const uint64_t hi = i / (uint64_t)stride, lo = i % (uint64_t)stride;
        for (int64_t j = 0; j < n; j++)
            list[j] = rank_of(v, (int64_t)(hi * (uint64_t)(stride * n) + lo) + j * stride, j);
        qsort(list, (size_t)n, sizeof *list, call_int(c, "largest", 1) ? falling : rising);
        for (int64_t j = 0; j < k && r == 0; j++) {
            const uint64_t at = hi * (uint64_t)(stride * k) + lo + (uint64_t)(j * stride);
            ((int64_t *)indices->data)[at] = list[j].index;
            r = value_copy(values, at, v, hi * (uint64_t)(stride * n) + lo + (uint64_t)(list[j].index * stride), 1,
                           c->err);
        }
    }
    memory_give(c->memory, scratch);
    return r;
}

/* ---- Unique ---- */

/* Slices of the tensor along the axis; the whole is a slice an element where there is none. */
struct slices {
    const struct value *v;
    uint64_t n, outer, inner;
};

static int compare_slices(const struct slices *s, uint64_t a, uint64_t b)
{
    for (uint64_t o = 0; o < s->outer; o++)
        for (uint64_t i = 0; i < s->inner; i++) {
            const struct ranked x = rank_of(s->v, (int64_t)((o * s->n + a) * s->inner + i), 0);
            const struct ranked y = rank_of(s->v, (int64_t)((o * s->n + b) * s->inner + i), 0);
            const int r = by_value(&x, &y);
            if (r)
                return r;
        }
    return 0;
}

/* A slice among those that are alike: @group is the rank of its content. */
struct member {
    const struct slices *slices;
    uint64_t index;
};

static int by_content(const void *x, const void *y)
{
    const struct member *a = x, *b = y;
    const int r = compare_slices(a->slices, a->index, b->index);
    return r ? r : a->index < b->index ? -1 : a->index > b->index;
}

struct group {
    uint64_t first, count, sorted; /* first index, how many, place among sorted contents */
};

static int by_first(const void *x, const void *y)
{
    const struct group *a = x, *b = y;
    return a->first < b->first ? -1 : a->first > b->first;
}

static uint64_t make_groups(struct member *m, uint64_t n, struct group *g, uint64_t *group_of)
{
    uint64_t n_groups = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (i == 0 || compare_slices(m[i].slices, m[i - 1].index, m[i].index) != 0) {
            g[n_groups] = (struct group){m[i].index, 0, n_groups};
            n_groups++;
        }
        g[n_groups - 1].count++;
        group_of[m[i].index] = n_groups - 1;
    }
    return n_groups;
}

static int put_list(struct op_call *c, size_t output, uint64_t n, const struct group *g, const uint64_t *inverse)
{
    const struct shape s = {.n_dims = 1, .dims = {(int64_t)n}};
    struct value *out;
    if (!call_wants(c, output))
        return 0;
    int r = call_tensor(c, output, ONNX_INT64, &s, &out);
    for (uint64_t i = 0; i < n && r == 0; i++)
        ((int64_t *)out->data)[i] = (int64_t)(output == 1 ? g[i].first : output == 2 ? inverse[i] : g[i].count);
    return r;
}

static int put_unique(struct op_call *c, const struct slices *s, const struct shape *shape, const struct group *g,
                      uint64_t n)
{
    struct value *out;
    int r = call_tensor(c, 0, s->v->type, shape, &out);
    for (uint64_t o = 0; o < s->outer && r == 0; o++)
        for (uint64_t i = 0; i < n && r == 0; i++)
            r = value_copy(out, (o * n + i) * s->inner, s->v, (o * s->n + g[i].first) * s->inner, s->inner, c->err);
    return r;
}

enum { BYTES_A_SLICE = sizeof(struct member) + sizeof(struct group) + 2 * sizeof(uint64_t) };

/* @scratch has BYTES_A_SLICE for each slice. */
static int unique(struct op_call *c, const struct slices *s, void *scratch, struct shape *shape, uint32_t axis)
{
    struct member *m = scratch;
    struct group *g = (struct group *)(m + s->n);
    uint64_t *inverse = (uint64_t *)(g + s->n), *place = inverse + s->n;
    for (uint64_t i = 0; i < s->n; i++)
        m[i] = (struct member){s, i};
    qsort(m, s->n, sizeof *m, by_content);
    const uint64_t n = make_groups(m, s->n, g, inverse);
    if (!call_int(c, "sorted", 1))
        qsort(g, n, sizeof *g, by_first);
    for (uint64_t i = 0; i < n; i++)
        place[g[i].sorted] = i;
    for (uint64_t i = 0; i < s->n; i++)
        inverse[i] = place[inverse[i]];
    shape->dims[axis] = (int64_t)n;
    int r = put_unique(c, s, shape, g, n);
    if (r == 0)
        r = put_list(c, 1, n, g, inverse);
    if (r == 0)
        r = put_list(c, 2, s->n, g, inverse);
    return r < 0 ? r : put_list(c, 3, n, g, inverse);
}

int op_unique(struct op_call *c)
{
    struct slices s = {.outer = 1, .inner = 1};
    uint32_t axis = 0;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &s.v);
    const bool flat = !call_attr(c, "axis");
    if (r == 0 && !flat)
        r = call_axis(c, call_int(c, "axis", 0), s.v->shape.n_dims, &axis);
    if (r == 0 && !can_rank(s.v->type))
        r = err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(s.v->type));
    if (r < 0)
        return r;
    struct shape shape = flat ? (struct shape){.n_dims = 1, .dims = {(int64_t)s.v->n}} : s.v->shape;
    s.n = (uint64_t)shape.dims[axis];
    for (uint32_t d = 0; d < shape.n_dims; d++)
        *(d < axis ? &s.outer : &s.inner) *= d == axis ? 1 : (uint64_t)shape.dims[d];
    if (s.v->n == 0)
        s.outer = 0; /* slices of nothing */
    void *scratch = NULL;
    r = memory_take(c->memory, s.n * BYTES_A_SLICE, &scratch, c->err);
    if (r == 0)
        r = unique(c, &s, scratch, &shape, axis);
    memory_give(c->memory, scratch);
    return r;
}
