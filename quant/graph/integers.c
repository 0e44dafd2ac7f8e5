#include "quant/graph/integers.h"

#include <inttypes.h>

#include "kernels/core/checked.h"

int optional_in(struct op_call *c, size_t i, enum onnx_type type, const struct value **ret)
{
    *ret = NULL;
    return call_in(c, i) ? call_tensor_in(c, i, type, ret) : 0;
}

static int codes_in(struct op_call *c, size_t i, const struct value **ret)
{
    int r = call_tensor_in(c, i, ONNX_UNDEFINED, ret);
    if (r == 0 && (*ret)->type != ONNX_UINT8 && (*ret)->type != ONNX_INT8)
        r = err_new(c->err, QD_E_UNSUPPORTED, "input %zu is of %s, 8-bit codes are due", i,
                    onnx_type_name((*ret)->type));
    return r;
}

int operands_in(struct op_call *c, const struct operand *list, size_t n)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        switch (list[i].kind) {
        case OPERAND_CODES:
            r = codes_in(c, list[i].input, list[i].ret);
            break;
        case OPERAND_SCALES:
            r = call_tensor_in(c, list[i].input, ONNX_FLOAT, list[i].ret);
            break;
        case OPERAND_ZEROS:
            r = optional_in(c, list[i].input, ONNX_UNDEFINED, list[i].ret);
            break;
        }
    return r;
}

int integers_take(struct op_call *c, uint64_t n, int16_t **ret)
{
    uint64_t bytes;
    void *block;
    int r = checked_mul(n, sizeof **ret, &bytes) ? memory_take(c->memory, bytes, &block, c->err)
                                                 : err_new(c->err, QD_E_LIMIT, "%" PRIu64 " codes", n);
    if (r == 0)
        *ret = block;
    return r;
}

void integers_load(const struct value *v, uint64_t first, uint64_t stride, uint64_t n, int32_t zero, int16_t *dst)
{
    const uint8_t *u = (const uint8_t *)v->data + first;
    const int8_t *s = (const int8_t *)v->data + first;
    if (v->type == ONNX_UINT8)
        for (uint64_t i = 0; i < n; i++)
            dst[i] = (int16_t)((int32_t)u[i * stride] - zero);
    else
        for (uint64_t i = 0; i < n; i++)
            dst[i] = (int16_t)((int32_t)s[i * stride] - zero);
}

int requantize_to(struct op_call *c, const struct value *zero, struct requantize *q)
{
    q->type = zero ? zero->type : ONNX_UINT8;
    q->zero = code_at(zero, 0);
    if (q->type == ONNX_INT32 || !codes_range(q->type, &q->least, &q->greatest))
        return err_new(c->err, QD_E_UNSUPPORTED, "codes of %s", onnx_type_name(q->type));
    return zero && zero->n != 1 ? err_new(c->err, QD_E_UNSUPPORTED, "%" PRIu64 " zero points of a result", zero->n) : 0;
}

static float scaled(const struct requantize *q, int32_t sum, uint64_t column)
{
    const float scale = q->scales ? q->scales[q->n_scales > 1 ? column : 0] * q->factor : q->factor;
    return (float)sum * scale;
}

void requantize(const struct requantize *q, const int32_t *sums, size_t n, void *out, const struct sums_at *at)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t to = at->first + i * at->stride, column = at->column + i * at->step;
        const int32_t sum = (int32_t)((uint32_t)sums[i] + (q->adds ? (uint32_t)q->adds[column] : 0));
        if (q->type == ONNX_INT32) {
            ((int32_t *)out)[to] = sum;
        } else if (q->type == ONNX_FLOAT) {
            ((float *)out)[to] = scaled(q, sum, column) + (q->bias ? q->bias[column] : 0.0f);
        } else {
            const int32_t code = code_of(scaled(q, sum, column), q->zero, q->least, q->greatest);
            codes_store(q->type, out, to, 1, &code);
        }
    }
}
