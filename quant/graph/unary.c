/* Element-wise operators of one operand: arithmetic, functions, activations. */
#include <math.h>
#include <string.h>

#include "quant/graph/broadcast.h"
#include "quant/graph/functions.h"
#include "quant/graph/types.h"

/* Attributes of an activation. */
struct shape_of_curve {
    float alpha, beta;
};

struct unary {
    enum onnx_type result;
    broadcast_fn *by_type[N_ONNX_TYPES];
};

/* z = expr of x; @p is the attributes. An operand of its own walks by 1, always. */
#define UNARY(name, T, Z, expr)                                                                                     \
    static void name##_##T(void *dst, const void *const *src, const int64_t *strides, uint64_t n, const void *data) \
    {                                                                                                               \
        const struct shape_of_curve *p = data;                                                                      \
        const t_##T *a = src[0];                                                                                    \
        Z *z = dst;                                                                                                 \
        (void)p;                                                                                                    \
        (void)strides;                                                                                              \
        for (uint64_t i = 0; i < n; i++) {                                                                          \
            const t_##T x = a[i];                                                                                   \
            z[i] = (Z)(expr);                                                                                       \
        }                                                                                                           \
    }

struct flat {
    broadcast_fn *run;
    const struct shape_of_curve *curve;
    const struct value *in;
    struct value *out;
};

static void flat_rows(void *data, uint64_t first, uint64_t end)
{
    const struct flat *f = data;
    const void *src[1] = {(const uint8_t *)f->in->data + first * value_element_bytes(f->in->type)};
    const int64_t one = 1;
    f->run((uint8_t *)f->out->data + first * value_element_bytes(f->out->type), src, &one, end - first, f->curve);
}

static int unary(struct op_call *c, const struct unary *u, const struct shape_of_curve *curve, uint64_t cost,
                 op_fn *self)
{
    WIDEN(c, self);
    const struct value *v;
    struct value *out;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    if (!u->by_type[v->type])
        return err_new(c->err, QD_E_UNSUPPORTED, "an operand of %s", onnx_type_name(v->type));
    r = call_tensor(c, 0, u->result ? u->result : v->type, &v->shape, &out);
    if (r < 0)
        return r;
    struct flat f = {u->by_type[v->type], curve, v, out};
    call_rows(c, v->n, cost, flat_rows, &f);
    return 0;
}

#define FLOATS(k) [ONNX_FLOAT] = k##_f32, [ONNX_DOUBLE] = k##_f64
#define OPERATOR(op, result, cost, ...)                            \
    int op(struct op_call *c)                                      \
    {                                                              \
        static const struct unary table = {result, {__VA_ARGS__}}; \
        return unary(c, &table, NULL, cost, op);                   \
    }
/* An activation whose attributes alpha and beta have these defaults. */
#define CURVE(op, a, b, cost, ...)                                                             \
    int op(struct op_call *c)                                                                  \
    {                                                                                          \
        static const struct unary table = {ONNX_UNDEFINED, {__VA_ARGS__}};                     \
        const struct shape_of_curve p = {call_float(c, "alpha", a), call_float(c, "beta", b)}; \
        return unary(c, &table, &p, cost, op);                                                 \
    }

/* ---- arithmetic ---- */

enum { CHEAP = 1, DEAR = 16 /* a transcendental function: as many plain elements */ };

#define ABS_SIGNED(T, type)   UNARY(abs, T, t_##T, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
#define NEG_SIGNED(T, type)   UNARY(neg, T, t_##T, 0 - (uint64_t)x)
#define SIGN_SIGNED(T, type)  UNARY(sign, T, t_##T, x > 0 ? 1 : x < 0 ? -1 : 0)
#define ABS_UNSIGNED(T, type) UNARY(abs, T, t_##T, x) UNARY(sign, T, t_##T, x > 0)
UNARY(abs, f32, t_f32, fabsf(x))
UNARY(abs, f64, t_f64, fabs(x))
UNARY(neg, f32, t_f32, -x)
UNARY(neg, f64, t_f64, -x)
UNARY(sign, f32, t_f32, x > 0 ? 1.0f : x < 0 ? -1.0f : x)
UNARY(sign, f64, t_f64, x > 0 ? 1.0 : x < 0 ? -1.0 : x)
SIGNED_TYPES(ABS_SIGNED)
SIGNED_TYPES(NEG_SIGNED)
SIGNED_TYPES(SIGN_SIGNED)
UNSIGNED_TYPES(ABS_UNSIGNED)
#define SIGNED(k)   [ONNX_INT8] = k##_i8, [ONNX_INT16] = k##_i16, [ONNX_INT32] = k##_i32, [ONNX_INT64] = k##_i64
#define UNSIGNED(k) [ONNX_UINT8] = k##_u8, [ONNX_UINT16] = k##_u16, [ONNX_UINT32] = k##_u32, [ONNX_UINT64] = k##_u64
OPERATOR(op_abs, ONNX_UNDEFINED, CHEAP, FLOATS(abs), SIGNED(abs), UNSIGNED(abs))
OPERATOR(op_neg, ONNX_UNDEFINED, CHEAP, FLOATS(neg), SIGNED(neg))
OPERATOR(op_sign, ONNX_UNDEFINED, CHEAP, FLOATS(sign), SIGNED(sign), UNSIGNED(sign))

#define FLIP(T, type) UNARY(flip, T, t_##T, ~x)
INTEGER_TYPES(FLIP)
OPERATOR(op_bitwise_not, ONNX_UNDEFINED, CHEAP, SIGNED(flip), UNSIGNED(flip))
UNARY(no, u8, uint8_t, !x)
OPERATOR(op_not, ONNX_BOOL, CHEAP, [ONNX_BOOL] = no_u8)

/* Both forms from one expression in double, rounded once. */
#define BOTH(name, expr)          \
    UNARY(name, f32, t_f32, expr) \
    UNARY(name, f64, t_f64, expr)
#define FUNCTION(op, name, cost, expr) \
    BOTH(name, expr)                   \
    OPERATOR(op, ONNX_UNDEFINED, cost, FLOATS(name))

/* Halves to even; the same whatever the rounding mode of the thread. */
static double round_even(double x)
{
    const double down = floor(x), rest = x - down;
    if (rest != 0.5)
        return rest > 0.5 ? down + 1.0 : down;
    return down - 2.0 * floor(0.5 * down) == 0.0 ? down : down + 1.0;
}

UNARY(floor, f32, t_f32, floorf(x))
UNARY(floor, f64, t_f64, floor(x))
UNARY(ceil, f32, t_f32, ceilf(x))
UNARY(ceil, f64, t_f64, ceil(x))
UNARY(sqrt, f32, t_f32, sqrtf(x))
UNARY(sqrt, f64, t_f64, sqrt(x))
UNARY(reciprocal, f32, t_f32, 1.0f / x)
UNARY(reciprocal, f64, t_f64, 1.0 / x)
OPERATOR(op_floor, ONNX_UNDEFINED, CHEAP, FLOATS(floor))
OPERATOR(op_ceil, ONNX_UNDEFINED, CHEAP, FLOATS(ceil))
OPERATOR(op_sqrt, ONNX_UNDEFINED, CHEAP, FLOATS(sqrt))
OPERATOR(op_reciprocal, ONNX_UNDEFINED, CHEAP, FLOATS(reciprocal))
FUNCTION(op_round, round, CHEAP, round_even(x))

/* ---- functions ---- */

FUNCTION(op_exp, exp, DEAR, fn_exp_d(x))
FUNCTION(op_log, log, DEAR, fn_log_d(x))
FUNCTION(op_sin, sin, DEAR, fn_sin_d(x))
FUNCTION(op_cos, cos, DEAR, fn_cos_d(x))
FUNCTION(op_tan, tan, DEAR, fn_tan_d(x))
FUNCTION(op_asin, asin, DEAR, fn_asin_d(x))
FUNCTION(op_acos, acos, DEAR, fn_acos_d(x))
FUNCTION(op_atan, atan, DEAR, fn_atan_d(x))
FUNCTION(op_sinh, sinh, DEAR, fn_sinh_d(x))
FUNCTION(op_cosh, cosh, DEAR, fn_cosh_d(x))
FUNCTION(op_asinh, asinh, DEAR, fn_asinh_d(x))
FUNCTION(op_acosh, acosh, DEAR, fn_acosh_d(x))
FUNCTION(op_atanh, atanh, DEAR, fn_atanh_d(x))
FUNCTION(op_erf, erf, DEAR, fn_erf_d(x))
FUNCTION(op_tanh, tanh, DEAR, fn_tanh_d(x))
FUNCTION(op_sigmoid, sigmoid, DEAR, fn_sigmoid_d(x))
FUNCTION(op_softplus, softplus, DEAR, fn_softplus_d(x))

/* ---- activations ---- */

#define RELU_SIGNED(T, type) UNARY(relu, T, t_##T, x > 0 ? x : 0)
UNARY(relu, f32, t_f32, x < 0.0f ? 0.0f : x)
UNARY(relu, f64, t_f64, x < 0.0 ? 0.0 : x)
SIGNED_TYPES(RELU_SIGNED)
OPERATOR(op_relu, ONNX_UNDEFINED, CHEAP, FLOATS(relu), SIGNED(relu))

UNARY(leaky, f32, t_f32, x < 0.0f ? p->alpha * x : x)
UNARY(leaky, f64, t_f64, x < 0.0 ? p->alpha * x : x)
CURVE(op_leaky_relu, 0.01f, 0.0f, CHEAP, FLOATS(leaky))
BOTH(thresholded, x > p->alpha ? x : 0)
CURVE(op_thresholded_relu, 1.0f, 0.0f, CHEAP, FLOATS(thresholded))
BOTH(elu, x < 0 ? p->alpha * fn_expm1_d(x) : x)
CURVE(op_elu, 1.0f, 0.0f, DEAR, FLOATS(elu))
BOTH(celu, x < 0 ? p->alpha * fn_expm1_d(x / (double)p->alpha) : x)
CURVE(op_celu, 1.0f, 0.0f, DEAR, FLOATS(celu))
BOTH(selu, p->beta *(x < 0 ? (double)p->alpha * fn_expm1_d(x) : x))
UNARY(hard_sigmoid, f32, t_f32, fmaxf(0.0f, fminf(1.0f, p->alpha *x + p->beta)))
UNARY(hard_sigmoid, f64, t_f64, fmax(0.0, fmin(1.0, p->alpha *x + p->beta)))
CURVE(op_hard_sigmoid, 0.2f, 0.5f, CHEAP, FLOATS(hard_sigmoid))
UNARY(hard_swish, f32, t_f32, x *fmaxf(0.0f, fminf(1.0f, x *(1.0f / 6.0f) + 0.5f)))
UNARY(hard_swish, f64, t_f64, x *fmax(0.0, fmin(1.0, x *(1.0 / 6.0) + 0.5)))
OPERATOR(op_hard_swish, ONNX_UNDEFINED, CHEAP, FLOATS(hard_swish))
BOTH(softsign, x / (1 + (x < 0 ? -x : x)))
OPERATOR(op_softsign, ONNX_UNDEFINED, CHEAP, FLOATS(softsign))
BOTH(mish, x *fn_tanh_d(fn_softplus_d(x)))
OPERATOR(op_mish, ONNX_UNDEFINED, DEAR, FLOATS(mish))

int op_selu(struct op_call *c)
{
    static const struct unary table = {ONNX_UNDEFINED, {FLOATS(selu)}};
    const struct shape_of_curve p = {call_float(c, "alpha", 1.67326319217681884765625f),
                                     call_float(c, "gamma", 1.05070102214813232421875f)};
    return unary(c, &table, &p, DEAR, op_selu);
}

BOTH(gelu, 0.5 * x * (1.0 + fn_erf_d(x * 0x1.6a09e667f3bcdp-1)))
BOTH(gelu_tanh, 0.5 * x * (1.0 + fn_tanh_d(0x1.9884533d43651p-1 * (x + 0.044715 * x * x * x))))

int op_gelu(struct op_call *c)
{
    static const struct unary by_erf = {ONNX_UNDEFINED, {FLOATS(gelu)}},
                              by_tanh = {ONNX_UNDEFINED, {FLOATS(gelu_tanh)}};
    return unary(c, call_text_is(c, "approximate", "tanh", "none") ? &by_tanh : &by_erf, NULL, DEAR, op_gelu);
}

#define SHRINK(T, type) UNARY(shrink, T, t_##T, x<-p->alpha ? x + p->beta : x> p->alpha ? x - p->beta : 0)
NUMBER_TYPES(SHRINK)

int op_shrink(struct op_call *c)
{
    static const struct unary table = {ONNX_UNDEFINED, {FLOATS(shrink), SIGNED(shrink), UNSIGNED(shrink)}};
    const struct shape_of_curve p = {call_float(c, "lambd", 0.5f), call_float(c, "bias", 0.0f)};
    return unary(c, &table, &p, CHEAP, op_shrink);
}

/* ---- questions ---- */

UNARY(nan, f32, uint8_t, x != x)
UNARY(nan, f64, uint8_t, x != x)
OPERATOR(op_is_nan, ONNX_BOOL, CHEAP, FLOATS(nan))

UNARY(inf, f32, uint8_t, (x == INFINITY && p->alpha != 0.0f) || (x == -INFINITY && p->beta != 0.0f))
UNARY(inf, f64, uint8_t, ((double)x == INFINITY && p->alpha != 0.0f) || (x == -INFINITY && p->beta != 0.0f))

int op_is_inf(struct op_call *c)
{
    static const struct unary table = {ONNX_BOOL, {FLOATS(inf)}};
    const struct shape_of_curve p = {(float)call_int(c, "detect_positive", 1),
                                     (float)call_int(c, "detect_negative", 1)};
    return unary(c, &table, &p, CHEAP, op_is_inf);
}

/* ---- what only passes ---- */

int op_identity(struct op_call *c)
{
    if (!call_in(c, 0))
        return err_new(c->err, QD_E_INVALID, "input 0 is absent");
    call_pass(c, 0, call_in(c, 0));
    return 0;
}

/*
 * Inference: what goes in comes out, the mask is all true. Training asks for a generator, which a defined result has
 * not.
 */
int op_dropout(struct op_call *c)
{
    const struct value *v, *training = call_in(c, 2), *ratio = call_in(c, 1);
    struct value *mask;
    const bool trains = training && training->type == ONNX_BOOL && training->n == 1 && *(const uint8_t *)training->data;
    const bool drops = !ratio || ratio->type != ONNX_FLOAT || ratio->n != 1 || *(const float *)ratio->data != 0.0f;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0 && trains && drops)
        r = err_new(c->err, QD_E_UNSUPPORTED, "dropping at random is for training");
    if (r < 0)
        return r;
    call_pass(c, 0, call_in(c, 0));
    if (!call_wants(c, 1))
        return 0;
    r = call_tensor(c, 1, c->opset < 10 ? v->type : ONNX_BOOL, &v->shape, &mask);
    for (uint64_t i = 0; r == 0 && i < mask->n; i++)
        if (mask->type == ONNX_FLOAT)
            ((float *)mask->data)[i] = 1.0f;
        else if (mask->type == ONNX_BOOL)
            ((uint8_t *)mask->data)[i] = 1;
    return r;
}
