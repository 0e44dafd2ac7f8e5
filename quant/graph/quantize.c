/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear. onnx:docs/Operators.md; com.microsoft's are the same. */
#include <inttypes.h>

#include "quant/graph/codes.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

struct coding {
    const struct value *x, *scale, *zero; /* @zero: NULL: none */
    struct value *y;
    struct scales scales;
    int32_t least, greatest;
};

static void floats_load(const struct value *x, uint64_t first, size_t n, float *dst)
{
    int32_t codes[CODES_PIECE];
    if (x->type == ONNX_INT32)
        codes_load(x->type, x->data, first, n, codes);
    for (size_t i = 0; i < n; i++)
        dst[i] = x->type == ONNX_INT32 ? (float)codes[i] : ((const float *)x->data)[first + i];
}

static void quantize_piece(const struct coding *q, const struct scale_run *run, uint64_t at, size_t n)
{
    const float *scales = (const float *)q->scale->data + run->scale + at * run->stride;
    float x[CODES_PIECE];
    int32_t codes[CODES_PIECE], zeros[CODES_PIECE] = {0};
    floats_load(q->x, run->first + at, n, x);
    if (q->zero)
        codes_load(q->zero->type, q->zero->data, run->scale + at * run->stride, run->stride ? n : 1, zeros);
    for (size_t i = 0; i < n; i++)
        codes[i] = code_of(x[i] / scales[i * run->stride], zeros[i * run->stride], q->least, q->greatest);
    codes_store(q->y->type, q->y->data, run->first + at, n, codes);
}

static void dequantize_piece(const struct coding *q, const struct scale_run *run, uint64_t at, size_t n)
{
    const float *scales = (const float *)q->scale->data + run->scale + at * run->stride;
    float *y = (float *)q->y->data + run->first + at;
    int32_t codes[CODES_PIECE], zeros[CODES_PIECE] = {0};
    codes_load(q->x->type, q->x->data, run->first + at, n, codes);
    if (q->zero)
        codes_load(q->zero->type, q->zero->data, run->scale + at * run->stride, run->stride ? n : 1, zeros);
    for (size_t i = 0; i < n; i++) /* int32 codes have no zero point but 0, by the specification */
        y[i] = (float)((int64_t)codes[i] - zeros[i * run->stride]) * scales[i * run->stride];
}

typedef void piece_fn(const struct coding *q, const struct scale_run *run, uint64_t at, size_t n);

static inline void coding_runs(const struct coding *q, uint64_t first, uint64_t end, piece_fn *piece)
{
    for (uint64_t i = first; i < end; i++) {
        const struct scale_run run = scales_run(&q->scales, i);
        for (uint64_t at = 0; at < run.n; at += CODES_PIECE)
            piece(q, &run, at, run.n - at < CODES_PIECE ? (size_t)(run.n - at) : CODES_PIECE);
    }
}

static void quantize_runs(void *data, uint64_t first, uint64_t end)
{
    coding_runs(data, first, end, quantize_piece);
}

static void dequantize_runs(void *data, uint64_t first, uint64_t end)
{
    coding_runs(data, first, end, dequantize_piece);
}

/* Inputs but @x, and whose scale is which. */
static int coding_in(struct op_call *c, struct coding *q)
{
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &q->x);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_FLOAT, &q->scale);
    if (r == 0 && call_in(c, 2))
        r = call_tensor_in(c, 2, ONNX_UNDEFINED, &q->zero);
    return r < 0 ? r : scales_of(c, q->x, q->scale, q->zero, &q->scales);
}

int op_quantize_linear(struct op_call *c)
{
    WIDEN(c, op_quantize_linear);
    struct coding q = {0};
    int r = coding_in(c, &q);
    if (r < 0)
        return r;
    const int64_t asked = call_int(c, "output_dtype", 0);
    const enum onnx_type type = q.zero                              ? q.zero->type
                                : asked > 0 && asked < N_ONNX_TYPES ? (enum onnx_type)asked
                                                                    : ONNX_UINT8;
    if (q.x->type != ONNX_FLOAT && q.x->type != ONNX_INT32)
        return err_new(c->err, QD_E_UNSUPPORTED, "a tensor of %s", onnx_type_name(q.x->type));
    if (!codes_range(type, &q.least, &q.greatest) || type == ONNX_INT32)
        return err_new(c->err, QD_E_UNSUPPORTED, "codes of %s", onnx_type_name(type));
    r = call_tensor(c, 0, type, &q.x->shape, &q.y);
    if (r == 0)
        call_rows(c, q.scales.n_runs, q.scales.run * 2, quantize_runs, &q);
    return r;
}

int op_dequantize_linear(struct op_call *c)
{
    WIDEN(c, op_dequantize_linear);
    struct coding q = {0};
    int r = coding_in(c, &q);
    if (r < 0)
        return r;
    if (!codes_range(q.x->type, &q.least, &q.greatest))
        return err_new(c->err, QD_E_UNSUPPORTED, "codes of %s", onnx_type_name(q.x->type));
    if (q.zero && q.zero->type != q.x->type)
        return err_new(c->err, QD_E_INVALID, "zero points of %s for codes of %s", onnx_type_name(q.zero->type),
                       onnx_type_name(q.x->type));
    r = call_tensor(c, 0, ONNX_FLOAT, &q.x->shape, &q.y);
    if (r == 0)
        call_rows(c, q.scales.n_runs, q.scales.run, dequantize_runs, &q);
    return r;
}

/* ---- DynamicQuantizeLinear ---- */

/* Least and greatest of the elements and 0; NaN is none. */
static void range_of(const struct value *v, float *ret_least, float *ret_greatest)
{
    const float *x = v->data;
    float least = 0.0f, greatest = 0.0f;
    for (uint64_t i = 0; i < v->n; i++) {
        least = x[i] < least ? x[i] : least;
        greatest = x[i] > greatest ? x[i] : greatest;
    }
    *ret_least = least;
    *ret_greatest = greatest;
}

/* Codes of uint8 by the range of @x itself: into @q, whose scale and zero point become values of the caller. */
int op_dynamic_quantize_linear(struct op_call *c)
{
    const struct shape scalar = {0};
    struct coding q = {.greatest = UINT8_MAX};
    struct value *scale, *zero;
    float least, greatest;
    int r = call_tensor_in(c, 0, ONNX_FLOAT, &q.x);
    if (r == 0)
        r = call_tensor(c, 0, ONNX_UINT8, &q.x->shape, &q.y);
    if (r == 0)
        r = call_tensor(c, 1, ONNX_FLOAT, &scalar, &scale);
    if (r == 0)
        r = call_tensor(c, 2, ONNX_UINT8, &scalar, &zero);
    if (r < 0)
        return r;
    range_of(q.x, &least, &greatest);
    const float width = least == greatest ? 1.0f : (greatest - least) / 255.0f;
    *(float *)scale->data = width;
    *(uint8_t *)zero->data = (uint8_t)code_of((0.0f - least) / width, 0, 0, UINT8_MAX);
    q.scale = scale;
    q.zero = zero;
    r = scales_of(c, q.x, scale, zero, &q.scales);
    if (r == 0)
        call_rows(c, q.scales.n_runs, q.scales.run * 2, quantize_runs, &q);
    return r;
}
