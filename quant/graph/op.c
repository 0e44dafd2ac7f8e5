#include "quant/graph/op.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/compute/team.h"

static const struct op ops[] = {
#define OP(domain, name, since, fn) {domain, name, since, fn},
#include "quant/graph/ops.def"
#undef OP
};

const struct op *op_find(const char *domain, const char *name, int64_t opset)
{
    const struct op *found = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (ops[i].since <= opset && strcmp(ops[i].name, name) == 0 && strcmp(ops[i].domain, domain) == 0 &&
            (!found || found->since <= ops[i].since))
            found = &ops[i];
    return found;
}

size_t op_list(const struct op **ret)
{
    *ret = ops;
    return sizeof ops / sizeof ops[0];
}

/* ---- inputs and outputs ---- */

int call_tensor_in(struct op_call *c, size_t i, enum onnx_type type, const struct value **ret)
{
    const struct value *v = call_in(c, i);
    if (!v)
        return err_new(c->err, QD_E_INVALID, "input %zu is absent", i);
    if (v->kind != VALUE_TENSOR)
        return err_new(c->err, QD_E_INVALID, "input %zu is no tensor", i);
    if (type != ONNX_UNDEFINED && v->type != type)
        return err_new(c->err, QD_E_UNSUPPORTED, "input %zu is of %s, %s is computed with", i, onnx_type_name(v->type),
                       onnx_type_name(type));
    *ret = v;
    return 0;
}

int call_tensor(struct op_call *c, size_t i, enum onnx_type type, const struct shape *shape, struct value **ret)
{
    struct value *v = NULL;
    int r = value_new(c->memory, type, shape, &v, c->err);
    if (r < 0)
        return r;
    if (i < c->n_out && !c->out[i])
        c->out[i] = v;
    else
        return value_release(v), err_new(c->err, QD_E_INVALID, "the node has no output %zu", i);
    *ret = v;
    return 0;
}

void call_pass(struct op_call *c, size_t i, struct value *v)
{
    if (i < c->n_out)
        c->out[i] = value_take(v);
}

/* ---- attributes ---- */

const struct onnx_attr *call_attr(const struct op_call *c, const char *name)
{
    return onnx_attr_find(c->node, name);
}

int64_t call_int(const struct op_call *c, const char *name, int64_t otherwise)
{
    const struct onnx_attr *a = call_attr(c, name);
    return a && a->kind == ONNX_ATTR_INT ? a->i : otherwise;
}

float call_float(const struct op_call *c, const char *name, float otherwise)
{
    const struct onnx_attr *a = call_attr(c, name);
    return a && a->kind == ONNX_ATTR_FLOAT ? a->f : otherwise;
}

struct bytes call_text(const struct op_call *c, const char *name, const char *otherwise)
{
    const struct onnx_attr *a = call_attr(c, name);
    return a && a->kind == ONNX_ATTR_STRING ? a->s : (struct bytes){(const uint8_t *)otherwise, strlen(otherwise)};
}

bool call_text_is(const struct op_call *c, const char *name, const char *text, const char *otherwise)
{
    const struct bytes s = call_text(c, name, otherwise);
    return s.n == strlen(text) && (s.n == 0 || memcmp(s.data, text, s.n) == 0);
}

static int too_many(struct op_call *c, const char *name, uint64_t n, size_t max)
{
    return err_new(c->err, QD_E_INVALID, "'%s' lists %" PRIu64 " integers, at most %zu are possible", name, n, max);
}

static int ints_of_input(struct op_call *c, const char *name, const struct value *v, int64_t *ret_list, size_t max)
{
    if (v->kind != VALUE_TENSOR || (v->type != ONNX_INT64 && v->type != ONNX_INT32))
        return err_new(c->err, QD_E_UNSUPPORTED, "'%s' is of %s, integers are due", name, onnx_type_name(v->type));
    if (v->n > max)
        return too_many(c, name, v->n, max);
    for (uint64_t i = 0; i < v->n; i++)
        ret_list[i] = v->type == ONNX_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
    return 0;
}

int call_ints(struct op_call *c, const char *name, int input, int64_t *ret_list, size_t max, size_t *ret_n,
              bool *ret_given)
{
    const struct onnx_attr *a = call_attr(c, name);
    const struct value *v = input >= 0 ? call_in(c, (size_t)input) : NULL;
    *ret_n = 0;
    *ret_given = false;
    if (a && a->kind == ONNX_ATTR_INTS) {
        if (a->n_ints > max)
            return too_many(c, name, a->n_ints, max);
        if (a->n_ints)
            memcpy(ret_list, a->ints, a->n_ints * sizeof *ret_list);
        *ret_n = a->n_ints;
        *ret_given = true;
        return 0;
    }
    if (!v)
        return 0;
    int r = ints_of_input(c, name, v, ret_list, max);
    if (r < 0)
        return r;
    *ret_n = (size_t)v->n;
    *ret_given = true;
    return 0;
}

int call_integer(struct op_call *c, size_t i, int64_t *ret)
{
    size_t n;
    bool given;
    int r = call_ints(c, "", (int)i, ret, 1, &n, &given);
    return r < 0 || n == 1 ? r : err_new(c->err, QD_E_INVALID, "input %zu is no single number", i);
}

int call_axis(struct op_call *c, int64_t axis, uint32_t n_dims, uint32_t *ret)
{
    const int64_t n = n_dims;
    if (axis < -n || axis >= n)
        return err_new(c->err, QD_E_INVALID, "axis %" PRId64 " of a tensor with %" PRIu32 " dimensions", axis, n_dims);
    *ret = (uint32_t)(axis < 0 ? axis + n : axis);
    return 0;
}

static int64_t dim_from_end(const struct shape *s, uint32_t i)
{
    return i < s->n_dims ? s->dims[s->n_dims - 1 - i] : 1;
}

int call_broadcast(struct op_call *c, const struct shape *a, const struct shape *b, struct shape *ret)
{
    struct shape out = {.n_dims = a->n_dims > b->n_dims ? a->n_dims : b->n_dims};
    char left[SHAPE_TEXT_BYTES], right[SHAPE_TEXT_BYTES];
    for (uint32_t i = 0; i < out.n_dims; i++) {
        const int64_t x = dim_from_end(a, i), y = dim_from_end(b, i);
        if (x != y && x != 1 && y != 1)
            return err_new(c->err, QD_E_INVALID, "shapes %s and %s do not broadcast", shape_text(a, left),
                           shape_text(b, right));
        out.dims[out.n_dims - 1 - i] = x == 1 ? y : x;
    }
    *ret = out;
    return 0;
}

/* ---- threads ---- */

enum {
    SLICE_COST = 1 << 15, /* elements: some 10 us of work, to pay for waking a thread */
    SLICES_A_THREAD = 4,
};

struct slices {
    call_rows_fn *rows;
    void *data;
    uint64_t n_rows, slice;
};

static void slice_task(void *data, size_t task, unsigned thread)
{
    const struct slices *s = data;
    const uint64_t first = task * s->slice, end = first + s->slice;
    (void)thread;
    s->rows(s->data, first, end < s->n_rows ? end : s->n_rows);
}

void call_rows(struct op_call *c, uint64_t n_rows, uint64_t cost_a_row, call_rows_fn *rows, void *data)
{
    const unsigned n_threads = qd_team_threads(c->team);
    const uint64_t least = cost_a_row >= SLICE_COST ? 1 : SLICE_COST / (cost_a_row ? cost_a_row : 1);
    const uint64_t even =
        (n_rows + (uint64_t)n_threads * SLICES_A_THREAD - 1) / ((uint64_t)n_threads * SLICES_A_THREAD);
    struct slices s = {.rows = rows, .data = data, .n_rows = n_rows, .slice = even > least ? even : least};
    if (n_rows == 0)
        return;
    if (n_threads == 1)
        s.slice = n_rows;
    team_run(c->team, (size_t)((n_rows + s.slice - 1) / s.slice), slice_task, &s);
}
