/*
 * MatMulInteger, QLinearMatMul, and com.microsoft's MatMulIntegerToFloat and DynamicQuantizeMatMul. The right operand
 * is turned, so that both are rows along k.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/integers.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

enum { ROWS = 8, COLUMNS = 128 }; /* whose sums are in memory at once */

struct integer_matmul {
    struct op_call *call;
    const struct value *a, *b, *a_zero, *b_zero, *a_scale, *b_scale;
    struct shape a_batch, b_batch, batch;
    uint64_t n_batches, m, n, k;
    int16_t *x, *y; /* codes less their zero points: rows of k */
    struct requantize to;
    struct value *out;
};

/* ---- shapes ---- */

static void split(const struct shape *s, bool left, struct shape *ret_batch, uint64_t *ret_rows, uint64_t *ret_columns)
{
    const uint32_t n = s->n_dims;
    *ret_batch = *s;
    ret_batch->n_dims = n < 2 ? 0 : n - 2;
    *ret_columns = n > 1 || left ? (uint64_t)s->dims[n - 1] : 1;
    *ret_rows = n > 1 ? (uint64_t)s->dims[n - 2] : left ? 1 : (uint64_t)s->dims[0];
}

/* The matrix of an operand with batch dimensions @own that belongs to matrix @i of the result. */
static uint64_t matrix_of(const struct shape *batch, const struct shape *own, uint64_t i)
{
    uint64_t at = 0, stride = 1;
    for (uint32_t d = 0; d < own->n_dims; d++) {
        const uint64_t n = (uint64_t)batch->dims[batch->n_dims - 1 - d],
                       mine = (uint64_t)own->dims[own->n_dims - 1 - d];
        at += (mine == 1 ? 0 : i % n) * stride;
        stride *= mine;
        i /= n;
    }
    return at;
}

static int matmul_shapes(struct integer_matmul *p, struct shape *ret)
{
    struct op_call *c = p->call;
    uint64_t k;
    char left[SHAPE_TEXT_BYTES], right[SHAPE_TEXT_BYTES];
    if (p->a->shape.n_dims == 0 || p->b->shape.n_dims == 0)
        return err_new(c->err, QD_E_INVALID, "a scalar is no matrix");
    split(&p->a->shape, true, &p->a_batch, &p->m, &p->k);
    split(&p->b->shape, false, &p->b_batch, &k, &p->n);
    if (k != p->k)
        return err_new(c->err, QD_E_INVALID, "shapes %s and %s do not multiply", shape_text(&p->a->shape, left),
                       shape_text(&p->b->shape, right));
    int r = call_broadcast(c, &p->a_batch, &p->b_batch, &p->batch);
    if (r < 0)
        return r;
    *ret = p->batch;
    if (p->a->shape.n_dims > 1)
        ret->dims[ret->n_dims++] = (int64_t)p->m;
    if (p->b->shape.n_dims > 1)
        ret->dims[ret->n_dims++] = (int64_t)p->n;
    return shape_count(&p->batch, &p->n_batches, c->err);
}

/* ---- codes less zero points ---- */

struct loading {
    const struct integer_matmul *p;
    const struct value *v, *zero;
    int16_t *dst;
    bool turned; /* row i of the result is column i % n of matrix i / n */
};

static void load_rows(void *data, uint64_t first, uint64_t end)
{
    const struct loading *l = data;
    const uint64_t k = l->p->k, n = l->turned ? l->p->n : l->p->m;
    for (uint64_t i = first; i < end; i++) {
        const uint64_t at = l->turned ? i / n * k * n + i % n : i * k;
        const int32_t zero = code_at(l->zero, l->zero && l->zero->n > 1 ? i % n : 0);
        integers_load(l->v, at, l->turned ? n : 1, k, zero, l->dst + i * k);
    }
}

static int load(struct integer_matmul *p, const struct value *v, const struct value *zero, bool turned, int16_t **ret)
{
    const uint64_t n = turned ? p->n : p->m;
    if (zero && (zero->type != v->type || (zero->n != 1 && zero->n != n)))
        return err_new(p->call->err, QD_E_UNSUPPORTED, "%" PRIu64 " zero points of %s for %" PRIu64 " %s of %s",
                       zero->n, onnx_type_name(zero->type), n, turned ? "columns" : "rows", onnx_type_name(v->type));
    int r = integers_take(p->call, v->n, ret);
    if (r < 0)
        return r;
    struct loading l = {p, v, zero, *ret, turned};
    if (v->n > 0)
        call_rows(p->call, v->n / p->k, p->k * 2, load_rows, &l);
    return 0;
}

/* ---- products ---- */

/* Sums of @n rows of result matrix @matrix, from row @row on, become outputs. */
static void finish_rows(const struct integer_matmul *p, uint64_t matrix, uint64_t row, const struct dots_tile *t,
                        uint64_t column)
{
    for (size_t i = 0; i < t->n_rows; i++) {
        struct requantize to = p->to;
        const struct sums_at at = {((matrix * p->m + row + i) * p->n) + column, 1, column, 1};
        if (p->a_scale)
            to.factor *= ((const float *)p->a_scale->data)[p->a_scale->n > 1 ? row + i : 0];
        requantize(&to, t->c + i * t->c_stride, t->n_columns, p->out->data, &at);
    }
}

/* Blocks of rows, none over the end of a matrix. */
static void product_blocks(void *data, uint64_t first, uint64_t end)
{
    const struct integer_matmul *p = data;
    const uint64_t per_matrix = (p->m + ROWS - 1) / ROWS;
    int32_t sums[ROWS * COLUMNS];
    for (uint64_t i = first; i < end; i++) {
        const uint64_t matrix = i / per_matrix, row = i % per_matrix * ROWS;
        const int16_t *x = p->x + (matrix_of(&p->batch, &p->a_batch, matrix) * p->m + row) * p->k;
        const int16_t *y = p->y + matrix_of(&p->batch, &p->b_batch, matrix) * p->n * p->k;
        struct dots_tile t = {.c = sums, .a = x, .c_stride = COLUMNS, .a_stride = p->k, .b_stride = p->k, .n_k = p->k};
        t.n_rows = p->m - row < ROWS ? p->m - row : ROWS;
        for (uint64_t j = 0; j < p->n; j += COLUMNS) {
            t.b = y + j * p->k;
            t.n_columns = p->n - j < COLUMNS ? p->n - j : COLUMNS;
            p->call->kernels->dots(&t);
            finish_rows(p, matrix, row, &t, j);
        }
    }
}

/* All of @p but shapes and codes is filled in. */
static int matmul_run(struct integer_matmul *p)
{
    struct shape shape;
    int r = matmul_shapes(p, &shape);
    if (r == 0)
        r = call_tensor(p->call, 0, p->to.type, &shape, &p->out);
    if (r == 0)
        r = load(p, p->a, p->a_zero, false, &p->x);
    if (r == 0)
        r = load(p, p->b, p->b_zero, true, &p->y);
    if (r == 0 && p->out->n > 0)
        call_rows(p->call, p->n_batches * ((p->m + ROWS - 1) / ROWS), p->n * p->k, product_blocks, p);
    memory_give(p->call->memory, p->x);
    memory_give(p->call->memory, p->y);
    return r;
}

int op_matmul_integer(struct op_call *c)
{
    struct integer_matmul p = {.call = c, .to = {.type = ONNX_INT32}};
    const struct operand operands[] = {{0, OPERAND_CODES, &p.a},
                                       {1, OPERAND_CODES, &p.b},
                                       {2, OPERAND_ZEROS, &p.a_zero},
                                       {3, OPERAND_ZEROS, &p.b_zero}};
    int r = operands_in(c, operands, sizeof operands / sizeof operands[0]);
    return r < 0 ? r : matmul_run(&p);
}

/* Scales of the right operand: one, or one of each column. */
static int column_scales(struct integer_matmul *p)
{
    const struct value *b = p->b;
    const uint32_t n_dims = b->shape.n_dims;
    if (p->b_scale->n != 1 && (n_dims < 2 || p->b_scale->n != (uint64_t)b->shape.dims[n_dims - 1]))
        return err_new(p->call->err, QD_E_UNSUPPORTED, "%" PRIu64 " scales of the right operand", p->b_scale->n);
    p->to.scales = p->b_scale->data;
    p->to.n_scales = p->b_scale->n;
    return 0;
}

static int row_scales(struct integer_matmul *p)
{
    const uint32_t n_dims = p->a->shape.n_dims;
    if (p->a_scale->n != 1 && (n_dims < 2 || p->a_scale->n != (uint64_t)p->a->shape.dims[n_dims - 2]))
        return err_new(p->call->err, QD_E_UNSUPPORTED, "%" PRIu64 " scales of the left operand", p->a_scale->n);
    return 0;
}

int op_qlinear_matmul(struct op_call *c)
{
    WIDEN(c, op_qlinear_matmul);
    struct integer_matmul p = {.call = c};
    const struct value *scale, *zero;
    const struct operand operands[] = {{0, OPERAND_CODES, &p.a},        {1, OPERAND_SCALES, &p.a_scale},
                                       {2, OPERAND_ZEROS, &p.a_zero},   {3, OPERAND_CODES, &p.b},
                                       {4, OPERAND_SCALES, &p.b_scale}, {5, OPERAND_ZEROS, &p.b_zero},
                                       {6, OPERAND_SCALES, &scale},     {7, OPERAND_ZEROS, &zero}};
    int r = operands_in(c, operands, sizeof operands / sizeof operands[0]);
    if (r == 0)
        r = requantize_to(c, zero, &p.to);
    if (r == 0)
        r = row_scales(&p);
    if (r == 0)
        r = column_scales(&p);
    if (r == 0 && scale->n != 1)
        r = err_new(c->err, QD_E_UNSUPPORTED, "%" PRIu64 " scales of the result", scale->n);
    if (r < 0)
        return r;
    p.to.factor = 1.0f / *(const float *)scale->data;
    return matmul_run(&p);
}

/* ---- com.microsoft: codes in, floats out ---- */

/* Input @i: of each column, added to the product. */
static int float_bias(struct integer_matmul *p, size_t i)
{
    const struct value *v;
    const uint32_t n_dims = p->b->shape.n_dims;
    int r = optional_in(p->call, i, ONNX_FLOAT, &v);
    if (r < 0 || !v)
        return r;
    if (n_dims < 2 || v->n != (uint64_t)p->b->shape.dims[n_dims - 1])
        return err_new(p->call->err, QD_E_INVALID, "a bias of %" PRIu64 " elements", v->n);
    p->to.bias = v->data;
    return 0;
}

int op_matmul_integer_to_float(struct op_call *c)
{
    WIDEN(c, op_matmul_integer_to_float);
    struct integer_matmul p = {.call = c, .to = {.type = ONNX_FLOAT, .factor = 1.0f}};
    const struct operand operands[] = {{0, OPERAND_CODES, &p.a},        {1, OPERAND_CODES, &p.b},
                                       {2, OPERAND_SCALES, &p.a_scale}, {3, OPERAND_SCALES, &p.b_scale},
                                       {4, OPERAND_ZEROS, &p.a_zero},   {5, OPERAND_ZEROS, &p.b_zero}};
    int r = operands_in(c, operands, sizeof operands / sizeof operands[0]);
    if (r == 0)
        r = float_bias(&p, 6);
    if (r == 0)
        r = row_scales(&p);
    if (r == 0)
        r = column_scales(&p);
    return r < 0 ? r : matmul_run(&p);
}
