/*
 * Operators that are others between a DequantizeLinear and a QuantizeLinear: com.microsoft's QLinear*, and
 * DynamicQuantizeMatMul, which quantizes its left operand first. onnxruntime:docs/ContribOperators.md.
 */
#include <inttypes.h>

#include "quant/graph/op.h"

enum { OPERANDS_MAX = 64, INNER_OPSET = 21 };

/* @fn on other inputs, as an operator of ai.onnx; attributes stay. Outputs: a reference each. */
static int call_inner(const struct op_call *c, op_fn *fn, struct value *const *in, size_t n_in, struct value **out,
                      size_t n_out)
{
    struct op_call inner = *c;
    inner.opset = INNER_OPSET;
    inner.in = in;
    inner.n_in = n_in;
    inner.out = out;
    inner.n_out = n_out;
    return fn(&inner);
}

/* Operands are triples of codes, scale and zero point from input @first on; the result's scale is input @scale. */
static int through_floats(struct op_call *c, op_fn *fn, size_t first, size_t n, size_t scale)
{
    struct value *floats[OPERANDS_MAX] = {NULL}, *result = NULL;
    int r = n > 0 && n <= OPERANDS_MAX && c->n_out > 0
                ? 0
                : err_new(c->err, QD_E_UNSUPPORTED, "%zu operands and %zu results", n, c->n_out);
    for (size_t i = 0; i < n && r == 0; i++) {
        struct value *const operand[] = {call_in(c, first + 3 * i), call_in(c, first + 3 * i + 1),
                                         call_in(c, first + 3 * i + 2)};
        r = call_inner(c, op_dequantize_linear, operand, 3, &floats[i], 1);
    }
    if (r == 0)
        r = call_inner(c, fn, floats, n, &result, 1);
    if (r == 0) {
        struct value *const codes[] = {result, call_in(c, scale), call_in(c, scale + 1)};
        r = call_inner(c, op_quantize_linear, codes, 3, c->out, 1);
    }
    for (size_t i = 0; i < n && i < OPERANDS_MAX; i++)
        (void)value_release(floats[i]);
    (void)value_release(result);
    return r;
}

int op_qlinear_add(struct op_call *c)
{
    return through_floats(c, op_add, 0, 2, 6);
}

int op_qlinear_mul(struct op_call *c)
{
    return through_floats(c, op_mul, 0, 2, 6);
}

int op_qlinear_sigmoid(struct op_call *c)
{
    return through_floats(c, op_sigmoid, 0, 1, 3);
}

int op_qlinear_leaky_relu(struct op_call *c)
{
    return through_floats(c, op_leaky_relu, 0, 1, 3);
}

int op_qlinear_softmax(struct op_call *c)
{
    if (call_int(c, "opset", INNER_OPSET) < 13)
        return err_new(c->err, QD_E_UNSUPPORTED, "a softmax of several axes");
    return through_floats(c, op_softmax, 0, 1, 3);
}

static int channels_first(struct op_call *c)
{
    return call_int(c, "channels_last", 0) ? err_new(c->err, QD_E_UNSUPPORTED, "channels behind the image") : 0;
}

int op_qlinear_average_pool(struct op_call *c)
{
    int r = channels_first(c);
    return r < 0 ? r : through_floats(c, op_average_pool, 0, 1, 3);
}

int op_qlinear_global_average_pool(struct op_call *c)
{
    int r = channels_first(c);
    return r < 0 ? r : through_floats(c, op_global_average_pool, 0, 1, 3);
}

int op_qlinear_concat(struct op_call *c)
{
    return through_floats(c, op_concat, 2, c->n_in < 2 ? 0 : (c->n_in - 2) / 3, 0);
}

/* a (float), b (codes), scale and zero point of b, bias */
int op_dynamic_quantize_matmul(struct op_call *c)
{
    struct value *a[3] = {NULL}, *const whole[] = {call_in(c, 0)};
    int r = c->n_out > 0 ? 0 : err_new(c->err, QD_E_INVALID, "no result");
    if (r == 0)
        r = call_inner(c, op_dynamic_quantize_linear, whole, 1, a, 3);
    struct value *const in[] = {a[0], call_in(c, 1), a[1], call_in(c, 2), a[2], call_in(c, 3), call_in(c, 4)};
    if (r == 0)
        r = call_inner(c, op_matmul_integer_to_float, in, 7, c->out, 1);
    for (size_t i = 0; i < 3; i++)
        (void)value_release(a[i]);
    return r;
}
