/* MatMul and Gemm. Of float32 on the kernel; of other numbers plainly, one sum after the other. */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/product.h"
#include "quant/graph/types.h"

/* A matrix of either operand: element [i][k] at i * stride + k * step. */
struct side {
    const uint8_t *data;
    uint64_t stride, step;
};

#define PLAIN(T, sum_type)                                                                                      \
    static void plain_##T(t_##T *c, const t_##T *a, const struct side *x, const t_##T *b, const struct side *y, \
                          uint64_t m, uint64_t n, uint64_t k)                                                   \
    {                                                                                                           \
        for (uint64_t i = 0; i < m; i++)                                                                        \
            for (uint64_t j = 0; j < n; j++) {                                                                  \
                sum_type sum = (sum_type)c[i * n + j];                                                          \
                for (uint64_t p = 0; p < k; p++)                                                                \
                    sum += (sum_type)a[i * x->stride + p * x->step] * (sum_type)b[p * y->stride + j * y->step]; \
                c[i * n + j] = (t_##T)sum;                                                                      \
            }                                                                                                   \
    }
PLAIN(f64, double)
PLAIN(i32, uint32_t) /* sums wrap */
PLAIN(u32, uint32_t)
PLAIN(i64, uint64_t)
PLAIN(u64, uint64_t)

/* c += a * b for one pair of matrices of @type; c is dense. */
static int multiply(struct op_call *c, enum onnx_type type, void *out, const struct side *a, const struct side *b,
                    uint64_t m, uint64_t n, uint64_t k)
{
    const struct product p = {.c = out,
                              .c_stride = n,
                              .a = (const float *)(const void *)a->data,
                              .a_stride = a->stride,
                              .a_step = a->step,
                              .b = (const float *)(const void *)b->data,
                              .b_stride = b->stride,
                              .b_step = b->step,
                              .m = m,
                              .n = n,
                              .k = k};
    switch ((int)type) {
    case ONNX_FLOAT:
        return product_run(c, &p);
#define CASE(T, kind)                                                                \
    case kind:                                                                       \
        plain_##T(out, (const void *)a->data, a, (const void *)b->data, b, m, n, k); \
        return 0;
        CASE(f64, ONNX_DOUBLE)
        CASE(i32, ONNX_INT32)
        CASE(u32, ONNX_UINT32)
        CASE(i64, ONNX_INT64)
        CASE(u64, ONNX_UINT64)
#undef CASE
    default:
        return err_new(c->err, QD_E_UNSUPPORTED, "operands of %s", onnx_type_name(type));
    }
}

/* ---- MatMul ---- */

/* A vector counts as a row on the left, as a column on the right. */
static struct shape as_matrices(const struct shape *s, bool left)
{
    struct shape m = *s;
    if (m.n_dims == 1) {
        m.n_dims = 2;
        m.dims[1] = left ? s->dims[0] : 1;
        m.dims[0] = left ? 1 : s->dims[0];
    }
    return m;
}

static struct shape batch_of(const struct shape *m)
{
    struct shape s = *m;
    s.n_dims -= 2;
    return s;
}

/* The number of the matrix of an operand that takes part in result matrix @i. */
static uint64_t matrix_at(const struct shape *batch, uint64_t i, const struct shape *own)
{
    uint64_t at = 0, stride = 1;
    for (uint32_t d = 0; d < own->n_dims; d++) {
        const int64_t n = batch->dims[batch->n_dims - 1 - d], mine = own->dims[own->n_dims - 1 - d];
        if (mine != 1)
            at += i % (uint64_t)n * stride;
        stride *= (uint64_t)mine;
        i /= (uint64_t)n;
    }
    return at;
}

static struct shape result_shape(const struct shape *batch, const struct value *a, const struct value *b, int64_t m,
                                 int64_t n)
{
    struct shape s = *batch;
    if (a->shape.n_dims > 1)
        s.dims[s.n_dims++] = m;
    if (b->shape.n_dims > 1)
        s.dims[s.n_dims++] = n;
    return s;
}

int op_matmul(struct op_call *c)
{
    WIDEN(c, op_matmul);
    const struct value *a, *b;
    struct value *out;
    struct shape batch;
    char left[SHAPE_TEXT_BYTES], right[SHAPE_TEXT_BYTES];
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &a);
    if (r == 0)
        r = call_tensor_in(c, 1, a->type, &b);
    if (r < 0)
        return r;
    if (a->shape.n_dims == 0 || b->shape.n_dims == 0)
        return err_new(c->err, QD_E_INVALID, "a scalar is no matrix");
    const struct shape x = as_matrices(&a->shape, true), y = as_matrices(&b->shape, false);
    const struct shape x_batch = batch_of(&x), y_batch = batch_of(&y);
    const int64_t m = x.dims[x.n_dims - 2], k = x.dims[x.n_dims - 1], n = y.dims[y.n_dims - 1];
    if (k != y.dims[y.n_dims - 2])
        return err_new(c->err, QD_E_INVALID, "shapes %s and %s do not multiply", shape_text(&a->shape, left),
                       shape_text(&b->shape, right));
    r = call_broadcast(c, &x_batch, &y_batch, &batch);
    if (r < 0)
        return r;
    const struct shape s = result_shape(&batch, a, b, m, n);
    r = call_tensor(c, 0, a->type, &s, &out);
    if (r < 0 || out->n == 0)
        return r;
    const size_t bytes = value_element_bytes(a->type);
    const uint64_t each = (uint64_t)(m * n), n_matrices = out->n / each;
    memset(out->data, 0, out->n * bytes);
    /* Many matrices on the left with the same one on the right are one tall matrix. */
    const bool tall = y_batch.n_dims == 0 || b->n == (uint64_t)(k * n);
    const uint64_t rows = tall ? (uint64_t)m * n_matrices : (uint64_t)m;
    for (uint64_t i = 0; i < (tall ? 1 : n_matrices) && r == 0; i++) {
        const uint64_t at = tall ? 0 : matrix_at(&batch, i, &x_batch), bt = tall ? 0 : matrix_at(&batch, i, &y_batch);
        const struct side p = {(const uint8_t *)a->data + at * (uint64_t)(m * k) * bytes, (uint64_t)k, 1};
        const struct side q = {(const uint8_t *)b->data + bt * (uint64_t)(k * n) * bytes, (uint64_t)n, 1};
        r = multiply(c, a->type, (uint8_t *)out->data + i * each * bytes, &p, &q, rows, (uint64_t)n, (uint64_t)k);
    }
    return r;
}

/* ---- Gemm ---- */

#define SCALE(T, type)                                                   \
    case type:                                                           \
        for (uint64_t i = 0; i < v->n; i++)                              \
            ((t_##T *)v->data)[i] = (t_##T)(((t_##T *)v->data)[i] * by); \
        return;

static void scale_value(struct value *v, float by)
{
    if (by == 1.0f)
        return;
    switch ((int)v->type) {
        SCALE(f32, ONNX_FLOAT)
        SCALE(f64, ONNX_DOUBLE)
        SCALE(i32, ONNX_INT32)
        SCALE(i64, ONNX_INT64)
        SCALE(u32, ONNX_UINT32)
        SCALE(u64, ONNX_UINT64)
    default:
        return;
    }
}

#define ADD_BIAS(T, type)                                                                        \
    case type:                                                                                   \
        for (uint64_t i = 0; i < rows; i++)                                                      \
            for (uint64_t j = 0; j < columns; j++)                                               \
                ((t_##T *)out->data)[i * columns + j] +=                                         \
                    (t_##T)(beta * ((const t_##T *)bias->data)[i * row_step + j * column_step]); \
        return 0;

/* beta * C onto the product, C spread over rows or columns. */
static int add_bias(struct op_call *c, struct value *out, const struct value *bias, float beta)
{
    struct shape s;
    int r = call_broadcast(c, &out->shape, &bias->shape, &s);
    if (r == 0 && !shape_equal(&s, &out->shape))
        r = err_new(c->err, QD_E_INVALID, "C is larger than the product");
    if (r < 0)
        return r;
    const uint64_t rows = (uint64_t)s.dims[0], columns = (uint64_t)s.dims[1];
    const uint32_t n = bias->shape.n_dims;
    const uint64_t width = n ? (uint64_t)bias->shape.dims[n - 1] : 1;
    const uint64_t column_step = width > 1, row_step = n == 2 && bias->shape.dims[0] > 1 ? width : 0;
    switch ((int)out->type) {
        ADD_BIAS(f32, ONNX_FLOAT)
        ADD_BIAS(f64, ONNX_DOUBLE)
        ADD_BIAS(i32, ONNX_INT32)
        ADD_BIAS(i64, ONNX_INT64)
        ADD_BIAS(u32, ONNX_UINT32)
        ADD_BIAS(u64, ONNX_UINT64)
    default:
        return 0;
    }
}

int op_gemm(struct op_call *c)
{
    WIDEN(c, op_gemm);
    const struct value *a, *b, *bias = call_in(c, 2);
    struct value *out;
    char left[SHAPE_TEXT_BYTES], right[SHAPE_TEXT_BYTES];
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &a);
    if (r == 0)
        r = call_tensor_in(c, 1, a->type, &b);
    if (r == 0 && bias)
        r = call_tensor_in(c, 2, a->type, &bias);
    if (r < 0)
        return r;
    const bool turn_a = call_int(c, "transA", 0) != 0, turn_b = call_int(c, "transB", 0) != 0;
    if (a->shape.n_dims != 2 || b->shape.n_dims != 2 || a->shape.dims[!turn_a] != b->shape.dims[turn_b])
        return err_new(c->err, QD_E_INVALID, "shapes %s and %s do not multiply", shape_text(&a->shape, left),
                       shape_text(&b->shape, right));
    const struct shape s = {.n_dims = 2, .dims = {a->shape.dims[turn_a], b->shape.dims[!turn_b]}};
    const uint64_t wide_a = (uint64_t)a->shape.dims[1], wide_b = (uint64_t)b->shape.dims[1];
    const struct side x = {a->data, turn_a ? 1 : wide_a, turn_a ? wide_a : 1};
    const struct side y = {b->data, turn_b ? 1 : wide_b, turn_b ? wide_b : 1};
    r = call_tensor(c, 0, a->type, &s, &out);
    if (r < 0)
        return r;
    memset(out->data, 0, out->n * value_element_bytes(out->type));
    r = multiply(c, a->type, out->data, &x, &y, (uint64_t)s.dims[0], (uint64_t)s.dims[1],
                 (uint64_t)a->shape.dims[!turn_a]);
    if (r < 0)
        return r;
    scale_value(out, call_float(c, "alpha", 1.0f));
    return bias ? add_bias(c, out, bias, call_float(c, "beta", 1.0f)) : 0;
}
