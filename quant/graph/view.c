#include "quant/graph/view.h"

#include <string.h>

struct view view_whole(const struct shape *s)
{
    struct view v = {.n_dims = s->n_dims};
    int64_t stride = 1;
    for (uint32_t d = s->n_dims; d-- > 0;) {
        v.dims[d] = s->dims[d];
        v.strides[d] = stride;
        stride *= s->dims[d];
    }
    return v;
}

int value_copy(struct value *dst, uint64_t at, const struct value *src, uint64_t from, uint64_t n, struct qd_error *err)
{
    const size_t bytes = value_element_bytes(src->type);
    int r = 0;
    if (src->type == ONNX_STRING)
        for (uint64_t i = 0; i < n && r == 0; i++)
            r = value_set_string(dst, at + i, ((const struct bytes *)src->data)[from + i], err);
    else if (n)
        memcpy((uint8_t *)dst->data + at * bytes, (const uint8_t *)src->data + from * bytes, n * bytes);
    return r;
}

/* Dimensions of 1 go, neighbours that walk as one are joined. At least one is left. */
static struct view joined(const struct view *v)
{
    struct view j = {.base = v->base};
    for (uint32_t d = 0; d < v->n_dims; d++) {
        if (v->dims[d] == 1)
            continue;
        const uint32_t last = j.n_dims - 1;
        if (j.n_dims > 0 && j.strides[last] == v->strides[d] * v->dims[d]) {
            j.dims[last] *= v->dims[d];
            j.strides[last] = v->strides[d];
            continue;
        }
        j.dims[j.n_dims] = v->dims[d];
        j.strides[j.n_dims++] = v->strides[d];
    }
    if (j.n_dims == 0) {
        j.n_dims = 1;
        j.dims[0] = 1;
        j.strides[0] = 1;
    }
    return j;
}

struct copying {
    const struct value *src;
    const struct view *view;
    struct value *out;
    size_t bytes;
};

#define STRIDED(type)                      \
    do {                                   \
        const type *s = (const type *)src; \
        type *z = (type *)dst;             \
        for (int64_t i = 0; i < n; i++)    \
            z[i] = s[i * stride];          \
    } while (0)

static void copy_run(void *dst, const void *src, int64_t n, int64_t stride, size_t bytes)
{
    if (stride == 1)
        memcpy(dst, src, (size_t)n * bytes);
    else if (bytes == 1)
        STRIDED(uint8_t);
    else if (bytes == 2)
        STRIDED(uint16_t);
    else if (bytes == 4)
        STRIDED(uint32_t);
    else if (bytes == 8)
        STRIDED(uint64_t);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy((uint8_t *)dst + (size_t)i * bytes, (const uint8_t *)src + i * stride * (int64_t)bytes, bytes);
}

static int64_t run_start(const struct view *v, uint64_t run)
{
    int64_t at = v->base;
    for (uint32_t d = v->n_dims - 1; d-- > 0; run /= (uint64_t)v->dims[d])
        at += v->strides[d] * (int64_t)(run % (uint64_t)v->dims[d]);
    return at;
}

static void copy_runs(void *data, uint64_t first, uint64_t end)
{
    const struct copying *k = data;
    const uint32_t inner = k->view->n_dims - 1;
    const int64_t n = k->view->dims[inner], stride = k->view->strides[inner];
    for (uint64_t i = first; i < end; i++)
        copy_run((uint8_t *)k->out->data + i * (uint64_t)n * k->bytes,
                 (const uint8_t *)k->src->data + run_start(k->view, i) * (int64_t)k->bytes, n, stride, k->bytes);
}

static int copy_strings(struct op_call *c, const struct value *src, const struct view *v, struct value *out)
{
    const uint32_t inner = v->n_dims - 1;
    int r = 0;
    for (uint64_t i = 0; i < out->n && r == 0; i++) {
        const uint64_t n = (uint64_t)v->dims[inner];
        const int64_t at = run_start(v, i / n) + (int64_t)(i % n) * v->strides[inner];
        r = value_copy(out, i, src, (uint64_t)at, 1, c->err);
    }
    return r;
}

int view_copy(struct op_call *c, const struct value *src, const struct view *v, struct value *out)
{
    const struct view j = joined(v);
    struct copying k = {src, &j, out, value_element_bytes(src->type)};
    if (out->n == 0)
        return 0;
    if (src->type == ONNX_STRING)
        return copy_strings(c, src, &j, out);
    const uint64_t run = (uint64_t)j.dims[j.n_dims - 1];
    call_rows(c, out->n / run, run, copy_runs, &k);
    return 0;
}
