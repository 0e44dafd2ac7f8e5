/* Where and Clip. */
#include <math.h>
#include <string.h>

#include "quant/graph/broadcast.h"
#include "quant/graph/types.h"

/* ---- Where ---- */

#define WHERE(bytes, type)                                                                                       \
    static void where_##bytes(void *dst, const void *const *src, const int64_t *s, uint64_t n, const void *data) \
    {                                                                                                            \
        const uint8_t *yes = src[0];                                                                             \
        const type *a = src[1], *b = src[2];                                                                     \
        (void)data;                                                                                              \
        for (uint64_t i = 0; i < n; i++)                                                                         \
            ((type *)dst)[i] = yes[(int64_t)i * s[0]] ? a[(int64_t)i * s[1]] : b[(int64_t)i * s[2]];             \
    }
WHERE(1, uint8_t)
WHERE(2, uint16_t)
WHERE(4, uint32_t)
WHERE(8, uint64_t)

/* Strings are picked as spans, then copied: each value owns its own. */
static int where_strings(struct op_call *c, const struct value *const v[3])
{
    struct broadcast b;
    struct value *out;
    int r = broadcast_begin(c, v, 3, &b);
    if (r == 0)
        r = call_tensor(c, 0, ONNX_STRING, &b.shape, &out);
    for (uint64_t i = 0; r == 0 && i < out->n; i++) {
        int64_t at[3] = {0};
        uint64_t rest = i;
        for (uint32_t d = b.n_dims; d-- > 0; rest /= (uint64_t)b.dims[d])
            for (size_t k = 0; k < 3; k++)
                at[k] += b.strides[k][d] * (int64_t)(rest % (uint64_t)b.dims[d]);
        const size_t from = ((const uint8_t *)v[0]->data)[at[0]] ? 1 : 2;
        r = value_set_string(out, i, ((const struct bytes *)v[from]->data)[at[from]], c->err);
    }
    return r;
}

int op_where(struct op_call *c)
{
    const struct value *v[3];
    int r = call_tensor_in(c, 0, ONNX_BOOL, &v[0]);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_UNDEFINED, &v[1]);
    if (r == 0)
        r = call_tensor_in(c, 2, v[1]->type, &v[2]);
    if (r < 0)
        return r;
    if (v[1]->type == ONNX_STRING)
        return where_strings(c, v);
    const size_t bytes = value_element_bytes(v[1]->type);
    broadcast_fn *const run = bytes == 1 ? where_1 : bytes == 2 ? where_2 : bytes == 4 ? where_4 : where_8;
    if (bytes > 8)
        return err_new(c->err, QD_E_UNSUPPORTED, "operands of %s", onnx_type_name(v[1]->type));
    return broadcast_run(c, v, 3, v[1]->type, run, NULL);
}

/* ---- Clip ---- */

/* The bounds as an element of each type. */
struct bounds {
    const void *low, *high; /* NULL: none */
};

#define CLIP(T, type)                                                                                        \
    static void clip_##T(void *dst, const void *src, uint64_t n, const struct bounds *b)                     \
    {                                                                                                        \
        const t_##T *a = src;                                                                                \
        t_##T *z = dst;                                                                                      \
        const t_##T low = b->low ? *(const t_##T *)b->low : 0, high = b->high ? *(const t_##T *)b->high : 0; \
        const bool has_low = b->low != NULL, has_high = b->high != NULL;                                     \
        if (has_low && has_high)                                                                             \
            for (uint64_t i = 0; i < n; i++) {                                                               \
                const t_##T x = a[i] < low ? low : a[i];                                                     \
                z[i] = x > high ? high : x;                                                                  \
            }                                                                                                \
        else                                                                                                 \
            for (uint64_t i = 0; i < n; i++) {                                                               \
                const t_##T x = has_low && a[i] < low ? low : a[i];                                          \
                z[i] = has_high && x > high ? high : x;                                                      \
            }                                                                                                \
    }
NUMBER_TYPES(CLIP)

static void (*const clips[N_ONNX_TYPES])(void *, const void *, uint64_t, const struct bounds *) = {
#define ROW(T, type) [type] = clip_##T,
    NUMBER_TYPES(ROW)
#undef ROW
};

struct clip_call {
    const struct value *in;
    struct value *out;
    struct bounds bounds;
};

static void clip_rows(void *data, uint64_t first, uint64_t end)
{
    const struct clip_call *k = data;
    const size_t bytes = value_element_bytes(k->in->type);
    clips[k->in->type]((uint8_t *)k->out->data + first * bytes, (const uint8_t *)k->in->data + first * bytes,
                       end - first, &k->bounds);
}

static int bound_of_input(struct op_call *c, size_t i, enum onnx_type type, const void **ret)
{
    const struct value *v = call_in(c, i);
    if (!v)
        return 0;
    if (v->kind != VALUE_TENSOR || v->type != type || v->n != 1)
        return err_new(c->err, QD_E_INVALID, "a bound is no single %s", onnx_type_name(type));
    *ret = v->data;
    return 0;
}

int op_clip(struct op_call *c)
{
    WIDEN(c, op_clip);
    struct clip_call k = {.in = NULL};
    const float low = call_float(c, "min", -INFINITY), high = call_float(c, "max", INFINITY);
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &k.in);
    if (r < 0)
        return r;
    if (!clips[k.in->type])
        return err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(k.in->type));
    if (c->opset < 11 && k.in->type == ONNX_FLOAT)
        k.bounds = (struct bounds){&low, &high};
    if (c->opset >= 11)
        r = bound_of_input(c, 1, k.in->type, &k.bounds.low);
    if (r == 0 && c->opset >= 11)
        r = bound_of_input(c, 2, k.in->type, &k.bounds.high);
    if (r == 0)
        r = call_tensor(c, 0, k.in->type, &k.in->shape, &k.out);
    if (r == 0)
        call_rows(c, k.in->n, 1, clip_rows, &k);
    return r;
}
