/*
 * com.microsoft.MatMulNBits: a float operand by weights of 2, 4 or 8 bits with a scale and a zero point for each block
 * of a column. onnxruntime:docs/ContribOperators.md.
 */
#include <inttypes.h>

#include "kernels/core/checked.h"
#include "quant/graph/integers.h"
#include "quant/graph/types.h"

enum { PIECE = 512 };

struct nbits {
    struct op_call *call;
    const struct value *a, *b, *scales, *zeros, *bias; /* the last two may be NULL */
    struct value *y;
    uint64_t m, n, k, block, n_blocks, bits;
};

static uint32_t code_in(const uint8_t *bytes, uint64_t i, uint64_t bits)
{
    const uint64_t per_byte = 8 / bits;
    return (uint32_t)bytes[i / per_byte] >> (i % per_byte * bits) & ((1u << bits) - 1);
}

/* Zero point of block @at of column @column; packed ones begin anew with each column. */
static float zero_of(const struct nbits *w, uint64_t column, uint64_t at)
{
    if (!w->zeros)
        return (float)(1u << (w->bits - 1));
    if (w->zeros->type == ONNX_FLOAT)
        return ((const float *)w->zeros->data)[column * w->n_blocks + at];
    const uint64_t row_bytes = (w->n_blocks * w->bits + 7) / 8;
    return (float)code_in((const uint8_t *)w->zeros->data + column * row_bytes, at, w->bits);
}

/* Weights [first, first + n) of a column. */
static void weights_of(const struct nbits *w, uint64_t column, uint64_t first, uint64_t n, float *dst)
{
    const uint64_t block_bytes = w->block * w->bits / 8;
    for (uint64_t i = 0; i < n;) {
        const uint64_t at = (first + i) / w->block, begin = (first + i) % w->block;
        const uint64_t end = w->block - begin < n - i ? w->block : begin + n - i;
        const uint8_t *codes = (const uint8_t *)w->b->data + (column * w->n_blocks + at) * block_bytes;
        const float scale = ((const float *)w->scales->data)[column * w->n_blocks + at], zero = zero_of(w, column, at);
        for (uint64_t j = begin; j < end; j++)
            dst[i++] = ((float)code_in(codes, j, w->bits) - zero) * scale;
    }
}

/* Columns [first, end): a piece of a column is decoded once for all rows. */
static void nbits_columns(void *data, uint64_t first, uint64_t end)
{
    const struct nbits *w = data;
    float piece[PIECE], *y = w->y->data;
    for (uint64_t j = first; j < end; j++) {
        for (uint64_t i = 0; i < w->m; i++)
            y[i * w->n + j] = w->bias ? ((const float *)w->bias->data)[j] : 0.0f;
        for (uint64_t k = 0; k < w->k; k += PIECE) {
            const uint64_t n = w->k - k < PIECE ? w->k - k : PIECE;
            weights_of(w, j, k, n, piece);
            for (uint64_t i = 0; i < w->m; i++)
                y[i * w->n + j] += w->call->kernels->dot((const float *)w->a->data + i * w->k + k, piece, n);
        }
    }
}

static int nbits_sizes(struct nbits *w)
{
    struct op_call *c = w->call;
    const int64_t k = call_int(c, "K", 0), n = call_int(c, "N", 0), bits = call_int(c, "bits", 4);
    const int64_t block = call_int(c, "block_size", 0);
    const uint32_t n_dims = w->a->shape.n_dims;
    uint64_t codes, bytes;
    if (bits != 2 && bits != 4 && bits != 8)
        return err_new(c->err, QD_E_UNSUPPORTED, "weights of %" PRId64 " bits", bits);
    if (k < 1 || n < 1 || block < 8 || (block & (block - 1)) || n_dims < 1 || w->a->shape.dims[n_dims - 1] != k)
        return err_new(c->err, QD_E_INVALID, "K %" PRId64 ", N %" PRId64 ", block_size %" PRId64, k, n, block);
    w->k = (uint64_t)k;
    w->n = (uint64_t)n;
    w->bits = (uint64_t)bits;
    w->block = (uint64_t)block;
    w->m = w->a->n / w->k;
    w->n_blocks = (w->k - 1) / w->block + 1;
    if (!checked_mul(w->n, w->n_blocks, &codes) || !checked_mul(codes, w->block / 8, &bytes) ||
        !checked_mul(bytes, w->bits, &bytes) || w->b->n != bytes || w->scales->n != codes)
        return err_new(c->err, QD_E_INVALID,
                       "%" PRIu64 " bytes of weights and %" PRIu64 " scales for K %" PRId64 ", N %" PRId64, w->b->n,
                       w->scales->n, k, n);
    const bool packed = w->zeros && w->zeros->type == ONNX_UINT8;
    if (w->zeros && !packed && w->zeros->type != ONNX_FLOAT)
        return err_new(c->err, QD_E_UNSUPPORTED, "zero points of %s", onnx_type_name(w->zeros->type));
    if (w->zeros && w->zeros->n != (packed ? w->n * ((w->n_blocks * w->bits + 7) / 8) : codes))
        return err_new(c->err, QD_E_INVALID, "%" PRIu64 " zero points", w->zeros->n);
    return w->bias && w->bias->n != w->n ? err_new(c->err, QD_E_INVALID, "a bias of %" PRIu64, w->bias->n) : 0;
}

int op_matmul_nbits(struct op_call *c)
{
    WIDEN(c, op_matmul_nbits);
    struct nbits w = {.call = c};
    int r = call_tensor_in(c, 0, ONNX_FLOAT, &w.a);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_UINT8, &w.b);
    if (r == 0)
        r = call_tensor_in(c, 2, ONNX_FLOAT, &w.scales);
    if (r == 0)
        r = optional_in(c, 3, ONNX_UNDEFINED, &w.zeros);
    if (r == 0 && call_in(c, 4))
        r = err_new(c->err, QD_E_UNSUPPORTED, "groups in an order of their own (g_idx)");
    if (r == 0)
        r = optional_in(c, 5, ONNX_FLOAT, &w.bias);
    if (r == 0)
        r = nbits_sizes(&w);
    if (r < 0)
        return r;
    struct shape shape = w.a->shape;
    shape.dims[shape.n_dims - 1] = (int64_t)w.n;
    r = call_tensor(c, 0, ONNX_FLOAT, &shape, &w.y);
    if (r == 0 && w.y->n > 0)
        call_rows(c, w.n, w.k * (w.m + 4), nbits_columns, &w);
    return r;
}
