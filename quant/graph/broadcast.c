#include "quant/graph/broadcast.h"

#include <string.h>

static int64_t stride_of(const struct shape *s, uint32_t from_end)
{
    if (from_end >= s->n_dims || s->dims[s->n_dims - 1 - from_end] == 1)
        return 0;
    int64_t stride = 1;
    for (uint32_t i = 0; i < from_end; i++)
        stride *= s->dims[s->n_dims - 1 - i];
    return stride;
}

/* Does dimension @d continue dimension @d + 1 in every operand? */
static bool joins(const struct broadcast *b, size_t n, uint32_t outer, uint32_t inner)
{
    for (size_t k = 0; k < n; k++)
        if (b->strides[k][outer] != b->strides[k][inner] * b->dims[inner])
            return false;
    return true;
}

static void copy_dim(struct broadcast *b, size_t n, uint32_t to, uint32_t from)
{
    b->dims[to] = b->dims[from];
    for (size_t k = 0; k < n; k++)
        b->strides[k][to] = b->strides[k][from];
}

/* Joins from the inside out; dimensions of 1 go. @dims then has the outermost first. */
static void join(struct broadcast *b, size_t n)
{
    uint32_t at = b->n_dims; /* the joined ones stand in [at, n_dims) */
    for (uint32_t d = b->n_dims; d-- > 0;) {
        if (b->dims[d] == 1)
            continue;
        if (at < b->n_dims && joins(b, n, d, at)) {
            b->dims[at] *= b->dims[d];
            continue;
        }
        copy_dim(b, n, --at, d);
    }
    const uint32_t left = b->n_dims - at;
    for (uint32_t d = 0; d < left; d++)
        copy_dim(b, n, d, at + d);
    b->n_dims = left;
    if (left == 0) {
        b->n_dims = 1;
        b->dims[0] = 1;
        for (size_t k = 0; k < n; k++)
            b->strides[k][0] = 0;
    }
}

int broadcast_begin(struct op_call *c, const struct value *const *operands, size_t n, struct broadcast *ret)
{
    struct broadcast b = {.shape = operands[0]->shape};
    uint64_t elements;
    int r = 0;
    for (size_t k = 1; k < n && r == 0; k++)
        r = call_broadcast(c, &b.shape, &operands[k]->shape, &b.shape);
    if (r == 0)
        r = shape_count(&b.shape, &elements, c->err);
    if (r < 0)
        return r;
    b.n_dims = b.shape.n_dims;
    for (uint32_t d = 0; d < b.n_dims; d++) {
        b.dims[d] = b.shape.dims[d];
        for (size_t k = 0; k < n; k++)
            b.strides[k][d] = stride_of(&operands[k]->shape, b.n_dims - 1 - d);
    }
    join(&b, n);
    *ret = b;
    return 0;
}

struct walk {
    const struct broadcast *b;
    size_t n;
    uint8_t *dst;
    size_t dst_bytes;
    const uint8_t *src[BROADCAST_OPERANDS];
    size_t src_bytes[BROADCAST_OPERANDS];
    broadcast_fn *run;
    const void *data;
};

/* Runs [first, end): run @i is the innermost dimension at outer index @i. */
static void walk_runs(void *data, uint64_t first, uint64_t end)
{
    const struct walk *w = data;
    const struct broadcast *b = w->b;
    const uint32_t inner = b->n_dims - 1;
    int64_t strides[BROADCAST_OPERANDS];
    for (size_t k = 0; k < w->n; k++)
        strides[k] = b->strides[k][inner];
    for (uint64_t i = first; i < end; i++) {
        const void *src[BROADCAST_OPERANDS] = {NULL};
        for (size_t k = 0; k < w->n; k++) {
            uint64_t rest = i;
            int64_t at = 0;
            for (uint32_t d = inner; d-- > 0; rest /= (uint64_t)b->dims[d])
                at += b->strides[k][d] * (int64_t)(rest % (uint64_t)b->dims[d]);
            src[k] = w->src[k] + (size_t)at * w->src_bytes[k];
        }
        w->run(w->dst + i * (uint64_t)b->dims[inner] * w->dst_bytes, src, strides, (uint64_t)b->dims[inner], w->data);
    }
}

/* A single run, cut into pieces: elements [first, end). */
static void walk_elements(void *data, uint64_t first, uint64_t end)
{
    const struct walk *w = data;
    const void *src[BROADCAST_OPERANDS] = {NULL};
    int64_t strides[BROADCAST_OPERANDS];
    for (size_t k = 0; k < w->n; k++) {
        strides[k] = w->b->strides[k][0];
        src[k] = w->src[k] + (size_t)strides[k] * first * w->src_bytes[k];
    }
    w->run(w->dst + first * w->dst_bytes, src, strides, end - first, w->data);
}

int broadcast_run(struct op_call *c, const struct value *const *operands, size_t n, enum onnx_type type,
                  broadcast_fn *run, const void *data)
{
    struct broadcast b;
    struct value *out;
    int r = broadcast_begin(c, operands, n, &b);
    if (r == 0)
        r = call_tensor(c, 0, type, &b.shape, &out);
    if (r < 0 || out->n == 0)
        return r;
    struct walk w = {
        .b = &b, .n = n, .dst = out->data, .dst_bytes = value_element_bytes(type), .run = run, .data = data};
    for (size_t k = 0; k < n; k++) {
        w.src[k] = operands[k]->data;
        w.src_bytes[k] = value_element_bytes(operands[k]->type);
    }
    const uint64_t run_length = (uint64_t)b.dims[b.n_dims - 1];
    if (b.n_dims == 1)
        call_rows(c, run_length, 1, walk_elements, &w);
    else
        call_rows(c, out->n / run_length, run_length, walk_runs, &w);
    return 0;
}
