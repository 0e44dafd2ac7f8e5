/* MaxPool, AveragePool, LpPool and the global ones. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"
#include "quant/graph/window.h"

enum pooling { POOL_MAX, POOL_AVERAGE, POOL_LP };

struct pool {
    const struct value *x;
    struct value *y;
    int64_t *indices; /* of MaxPool; NULL: nobody wants them */
    struct window w;
    enum pooling kind;
    bool count_pads;
    bool column_major; /* indices */
    double p;          /* of LpPool */
};

/* The part of window @out that lies in the image: [first, end) of its elements in each dimension. */
struct part {
    int64_t first[WINDOW_DIMS], end[WINDOW_DIMS], base[WINDOW_DIMS];
    uint64_t padded; /* elements of the window within image and pads */
};

static struct part part_of(const struct window *w, const int64_t out[WINDOW_DIMS])
{
    struct part p = {.padded = 1};
    for (int d = 0; d < WINDOW_DIMS; d++) {
        const int64_t base = out[d] * w->stride[d] - w->before[d], step = w->dilation[d];
        int64_t first = base >= 0 ? 0 : (-base + step - 1) / step, end = w->kernel[d];
        const int64_t room = w->in[d] - base, walled = w->in[d] + w->after[d] - base;
        if (room <= (end - 1) * step)
            end = room <= 0 ? 0 : (room + step - 1) / step;
        int64_t within = w->kernel[d]; /* ceil_mode: a window may reach beyond the pads */
        if (walled <= (within - 1) * step)
            within = walled <= 0 ? 0 : (walled + step - 1) / step;
        p.first[d] = first;
        p.end[d] = end > first ? end : first;
        p.base[d] = base;
        p.padded *= (uint64_t)within;
    }
    return p;
}

static int64_t element(const struct window *w, const struct part *p, int64_t z, int64_t y, int64_t x)
{
    const int64_t at[WINDOW_DIMS] = {p->base[0] + z * w->dilation[0], p->base[1] + y * w->dilation[1],
                                     p->base[2] + x * w->dilation[2]};
    return (at[0] * w->in[1] + at[1]) * w->in[2] + at[2];
}

#define EACH(w, p, at)                                                                         \
    for (int64_t z_ = (p)->first[0]; z_ < (p)->end[0]; z_++)                                   \
        for (int64_t y_ = (p)->first[1]; y_ < (p)->end[1]; y_++)                               \
            for (int64_t x_ = (p)->first[2], at = element(w, p, z_, y_, x_); x_ < (p)->end[2]; \
                 x_++, at += (w)->dilation[2])

#define MAX_OF(T, type)                                                        \
    case type: {                                                               \
        const t_##T *x = (const t_##T *)k->x->data + plane * window_in(&k->w); \
        int64_t best = -1;                                                     \
        EACH(&k->w, p, at)                                                     \
        if (best < 0 || x[at] > x[best] || x[at] != x[at])                     \
            best = at;                                                         \
        ((t_##T *)k->y->data)[i] = best < 0 ? 0 : x[best];                     \
        return best;                                                           \
    }

/* The largest element of the window into result @i; its place in the plane. */
static int64_t max_of(const struct pool *k, const struct part *p, uint64_t plane, uint64_t i)
{
    switch ((int)k->x->type) {
        MAX_OF(f32, ONNX_FLOAT)
        MAX_OF(f64, ONNX_DOUBLE)
        MAX_OF(i8, ONNX_INT8)
        MAX_OF(u8, ONNX_UINT8)
    default:
        return -1; /* pool_begin lets no other through */
    }
}

/* Indices count elements of the whole tensor; column-major ones count within a plane the other way round. */
static void put_index(const struct pool *k, uint64_t plane, uint64_t i, int64_t at)
{
    const struct window *w = &k->w;
    if (!k->indices)
        return;
    if (k->column_major) {
        const int64_t x = at % w->in[2], y = at / w->in[2] % w->in[1], z = at / w->in[2] / w->in[1];
        at = (x * w->in[1] + y) * w->in[0] + z;
    }
    k->indices[i] = (int64_t)(plane * window_in(w)) + at;
}

static double sum_of(const struct pool *k, const struct part *p, uint64_t plane)
{
    const uint64_t base = plane * window_in(&k->w);
    double sum = 0.0;
    EACH(&k->w, p, at)
    {
        const double x = float_at(k->x, base + (uint64_t)at);
        sum += k->kind == POOL_AVERAGE ? x : k->p == 1.0 ? fabs(x) : k->p == 2.0 ? x * x : fn_pow_d(fabs(x), k->p);
    }
    return sum;
}

static double pooled(const struct pool *k, const struct part *p, uint64_t plane)
{
    const double sum = sum_of(k, p, plane);
    if (k->kind == POOL_LP)
        return k->p == 1.0 ? sum : k->p == 2.0 ? sqrt(sum) : fn_pow_d(sum, 1.0 / k->p);
    const uint64_t inside =
        (uint64_t)(p->end[0] - p->first[0]) * (uint64_t)(p->end[1] - p->first[1]) * (uint64_t)(p->end[2] - p->first[2]);
    return sum / (double)(k->count_pads ? p->padded : inside);
}

static void pool_planes(void *data, uint64_t first, uint64_t end)
{
    const struct pool *k = data;
    const struct window *w = &k->w;
    const uint64_t pixels = window_out(w);
    for (uint64_t plane = first; plane < end; plane++)
        for (uint64_t j = 0; j < pixels; j++) {
            const uint64_t i = plane * pixels + j, row = j / (uint64_t)w->out[2];
            const int64_t out[WINDOW_DIMS] = {(int64_t)(row / (uint64_t)w->out[1]),
                                              (int64_t)(row % (uint64_t)w->out[1]), (int64_t)(j % (uint64_t)w->out[2])};
            const struct part p = part_of(w, out);
            if (k->kind == POOL_MAX)
                put_index(k, plane, i, max_of(k, &p, plane, i));
            else if (k->x->type == ONNX_FLOAT)
                ((float *)k->y->data)[i] = (float)pooled(k, &p, plane);
            else
                ((double *)k->y->data)[i] = pooled(k, &p, plane);
        }
}

static int pool_run(struct op_call *c, struct pool *k)
{
    const struct shape s = window_shape(&k->w, k->x->shape.dims[0], k->x->shape.dims[1]);
    int r = call_tensor(c, 0, k->x->type, &s, &k->y);
    struct value *indices = NULL;
    if (r == 0 && k->kind == POOL_MAX && call_wants(c, 1))
        r = call_tensor(c, 1, ONNX_INT64, &s, &indices);
    if (r < 0)
        return r;
    k->indices = indices ? indices->data : NULL;
    call_rows(c, (uint64_t)(s.dims[0] * s.dims[1]), window_out(&k->w) * window_kernel(&k->w), pool_planes, k);
    return 0;
}

static int pool_begin(struct op_call *c, struct pool *k)
{
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &k->x);
    if (r < 0)
        return r;
    const bool bytes = k->kind == POOL_MAX && (k->x->type == ONNX_INT8 || k->x->type == ONNX_UINT8);
    if (k->x->type != ONNX_FLOAT && k->x->type != ONNX_DOUBLE && !bytes)
        return err_new(c->err, QD_E_UNSUPPORTED, "an image of %s", onnx_type_name(k->x->type));
    return 0;
}

static int pool(struct op_call *c, enum pooling kind, op_fn *self)
{
    WIDEN(c, self);
    struct pool k = {.kind = kind, .count_pads = call_int(c, "count_include_pad", 0) != 0};
    k.column_major = call_int(c, "storage_order", 0) != 0;
    k.p = c->opset < 2 ? (double)call_float(c, "p", 2.0f) : (double)call_int(c, "p", 2);
    int r = pool_begin(c, &k);
    if (r == 0)
        r = window_read(c, &k.x->shape, NULL, false, &k.w);
    return r < 0 ? r : pool_run(c, &k);
}

static int pool_all(struct op_call *c, enum pooling kind, op_fn *self)
{
    WIDEN(c, self);
    struct pool k = {.kind = kind};
    k.p = c->opset < 2 ? (double)call_float(c, "p", 2.0f) : (double)call_int(c, "p", 2);
    int r = pool_begin(c, &k);
    if (r == 0)
        r = window_global(c, &k.x->shape, &k.w);
    return r < 0 ? r : pool_run(c, &k);
}

#define POOL(op, run, kind)      \
    int op(struct op_call *c)    \
    {                            \
        return run(c, kind, op); \
    }
POOL(op_max_pool, pool, POOL_MAX)
POOL(op_average_pool, pool, POOL_AVERAGE)
POOL(op_lp_pool, pool, POOL_LP)
POOL(op_global_max_pool, pool_all, POOL_MAX)
POOL(op_global_average_pool, pool_all, POOL_AVERAGE)
POOL(op_global_lp_pool, pool_all, POOL_LP)

/* ---- MaxUnpool ---- */

/*
 * Element @at of a tensor of shape @s as an element of one of shape @into, at the same coordinates; -1: it has none
 * there.
 */
static int64_t placed(const struct shape *s, int64_t at, const struct shape *into)
{
    int64_t to = 0, stride = 1;
    for (uint32_t d = s->n_dims; d-- > 0; at /= s->dims[d]) {
        const int64_t x = at % s->dims[d];
        if (x >= into->dims[d])
            return -1;
        to += x * stride;
        stride *= into->dims[d];
    }
    return to;
}

static int unpool(struct op_call *c, const struct value *v, const struct value *indices,
                  const struct shape *pooled_from, const struct shape *s)
{
    struct value *out;
    int r = call_tensor(c, 0, ONNX_FLOAT, s, &out);
    if (r < 0)
        return r;
    uint64_t n;
    r = shape_count(pooled_from, &n, c->err);
    memset(out->data, 0, out->n * sizeof(float));
    for (uint64_t i = 0; i < v->n && r == 0; i++) {
        const int64_t at = ((const int64_t *)indices->data)[i];
        const int64_t to = at < 0 || (uint64_t)at >= n ? -1 : placed(pooled_from, at, s);
        if (to < 0)
            return err_new(c->err, QD_E_INVALID, "index %" PRId64 " into %" PRIu64 " elements", at, n);
        ((float *)out->data)[to] = ((const float *)v->data)[i];
    }
    return r;
}

int op_max_unpool(struct op_call *c)
{
    const struct value *v, *indices;
    struct window w;
    struct shape s = {.n_dims = 0};
    size_t n;
    bool given;
    int r = call_tensor_in(c, 0, ONNX_FLOAT, &v);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_INT64, &indices);
    if (r == 0 && indices->n != v->n)
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " indices for %" PRIu64 " elements", indices->n, v->n);
    if (r == 0)
        r = window_read(c, &v->shape, NULL, true, &w);
    if (r == 0)
        r = call_ints(c, "", 2, s.dims, VALUE_DIMS_MAX, &n, &given);
    if (r < 0)
        return r;
    const struct shape pooled_from = window_shape(&w, v->shape.dims[0], v->shape.dims[1]);
    s.n_dims = (uint32_t)n;
    if (given && n != pooled_from.n_dims)
        return err_new(c->err, QD_E_INVALID, "an output shape of %zu dimensions", n);
    return unpool(c, v, indices, &pooled_from, given ? &s : &pooled_from);
}
