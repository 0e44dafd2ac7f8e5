/* Element-wise operators of two operands, and of several (Sum, Mean, Max, Min), with broadcasting. */
#include <math.h>
#include <string.h>

#include "quant/graph/broadcast.h"
#include "quant/graph/functions.h"
#include "quant/graph/types.h"

/* A row of kernels by element type; @result is ONNX_UNDEFINED where it is that of the operands. */
struct binary {
    enum onnx_type result;
    broadcast_fn *by_type[N_ONNX_TYPES];
};

/* z = expr of x and y; the loops that the compiler can vectorise first. */
#define BINARY(name, T, Z, expr)                                                                                    \
    static void name##_##T(void *dst, const void *const *src, const int64_t *strides, uint64_t n, const void *data) \
    {                                                                                                               \
        const t_##T *a = src[0], *b = src[1];                                                                       \
        const int64_t sa = strides[0], sb = strides[1];                                                             \
        Z *z = dst;                                                                                                 \
        (void)data;                                                                                                 \
        if (sa == 1 && sb == 1)                                                                                     \
            for (uint64_t i = 0; i < n; i++) {                                                                      \
                const t_##T x = a[i], y = b[i];                                                                     \
                z[i] = (Z)(expr);                                                                                   \
            }                                                                                                       \
        else if (sa == 1 && sb == 0)                                                                                \
            for (uint64_t i = 0; i < n; i++) {                                                                      \
                const t_##T x = a[i], y = b[0];                                                                     \
                z[i] = (Z)(expr);                                                                                   \
            }                                                                                                       \
        else                                                                                                        \
            for (uint64_t i = 0; i < n; i++) {                                                                      \
                const t_##T x = a[(int64_t)i * sa], y = b[(int64_t)i * sb];                                         \
                z[i] = (Z)(expr);                                                                                   \
            }                                                                                                       \
    }

static int operands_of(struct op_call *c, const struct value *v[2])
{
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v[0]);
    return r < 0 ? r : call_tensor_in(c, 1, v[0]->type, &v[1]);
}

/* Opset 6 and before: "axis" says where the second operand's dimensions lie within the first one's. */
static int align_axis(struct op_call *c, const struct value *v[2], struct value **ret_owned)
{
    uint32_t at;
    *ret_owned = NULL;
    const bool slopes = strcmp(c->node->op_type, "PRelu") == 0; /* one for each channel, without saying so */
    if (c->opset >= 7 || !(call_attr(c, "axis") || slopes) || v[1]->shape.n_dims == 0 || v[0]->shape.n_dims < 2)
        return 0;
    int r = call_axis(c, call_int(c, "axis", 1), v[0]->shape.n_dims, &at);
    if (r < 0 || at + v[1]->shape.n_dims > v[0]->shape.n_dims)
        return r < 0 ? r : err_new(c->err, QD_E_INVALID, "'axis' puts the second operand beyond the first");
    struct shape s = {.n_dims = v[0]->shape.n_dims - at};
    for (uint32_t d = 0; d < s.n_dims; d++)
        s.dims[d] = d < v[1]->shape.n_dims ? v[1]->shape.dims[d] : 1;
    r = value_reshaped((struct value *)v[1], &s, ret_owned, c->err); /* another reference, unchanged */
    v[1] = *ret_owned;
    return r;
}

static int binary(struct op_call *c, const struct binary *b, op_fn *self)
{
    WIDEN(c, self);
    const struct value *v[2];
    CLEANUP(value_release) struct value *aligned = NULL;
    int r = operands_of(c, v);
    if (r == 0)
        r = align_axis(c, v, &aligned);
    if (r < 0)
        return r;
    if (!b->by_type[v[0]->type])
        return err_new(c->err, QD_E_UNSUPPORTED, "operands of %s", onnx_type_name(v[0]->type));
    return broadcast_run(c, v, 2, b->result ? b->result : v[0]->type, b->by_type[v[0]->type], NULL);
}

#define ROW(name, T, type) [type] = name##_##T,
#define OPERATOR(op, table)           \
    int op(struct op_call *c)         \
    {                                 \
        return binary(c, &table, op); \
    }

/* Sums and products of integers wrap, as the field's do: computed without sign. */
#define ARITHMETIC(name, operator)                             \
    BINARY(name, f32, t_f32, x operator y)                     \
    BINARY(name, f64, t_f64, x operator y)                     \
    BINARY(name, i8, t_i8, x operator y)                       \
    BINARY(name, i16, t_i16, (uint32_t)x operator(uint32_t) y) \
    BINARY(name, i32, t_i32, (uint32_t)x operator(uint32_t) y) \
    BINARY(name, i64, t_i64, (uint64_t)x operator(uint64_t) y) \
    BINARY(name, u8, t_u8, (uint32_t)x operator(uint32_t) y)   \
    BINARY(name, u16, t_u16, (uint32_t)x operator(uint32_t) y) \
    BINARY(name, u32, t_u32, x operator y)                     \
    BINARY(name, u64, t_u64, x operator y)

ARITHMETIC(add, +)
ARITHMETIC(sub, -)
ARITHMETIC(mul, *)

#define TABLE(name, kernel, result, types) static const struct binary name = {result, {types}};
#define NUMBERS(k)           \
    ROW(k, f32, ONNX_FLOAT)  \
    ROW(k, f64, ONNX_DOUBLE) \
    ROW(k, i8, ONNX_INT8)    \
    ROW(k, i16, ONNX_INT16)  \
    ROW(k, i32, ONNX_INT32)  \
    ROW(k, i64, ONNX_INT64)  \
    ROW(k, u8, ONNX_UINT8) ROW(k, u16, ONNX_UINT16) ROW(k, u32, ONNX_UINT32) ROW(k, u64, ONNX_UINT64)

TABLE(add_table, add, ONNX_UNDEFINED, NUMBERS(add))
TABLE(sub_table, sub, ONNX_UNDEFINED, NUMBERS(sub))
TABLE(mul_table, mul, ONNX_UNDEFINED, NUMBERS(mul))
OPERATOR(op_add, add_table)
OPERATOR(op_sub, sub_table)
OPERATOR(op_mul, mul_table)

/* A division by zero gives zero, and the smallest number by -1 itself: what no CPU traps at. */
#define DIV_SIGNED(T, type)   BINARY(div, T, t_##T, y == 0 ? 0 : y == -1 ? (t_##T)(0 - (uint64_t)x) : x / y)
#define DIV_UNSIGNED(T, type) BINARY(div, T, t_##T, y == 0 ? 0 : x / y)
BINARY(div, f32, t_f32, x / y)
BINARY(div, f64, t_f64, x / y)
SIGNED_TYPES(DIV_SIGNED)
UNSIGNED_TYPES(DIV_UNSIGNED)
TABLE(div_table, div, ONNX_UNDEFINED, NUMBERS(div))
OPERATOR(op_div, div_table)

/* Python's remainder has the sign of the divisor. */
static int64_t mod_floor(int64_t x, int64_t y)
{
    if (y == 0 || y == -1)
        return 0;
    const int64_t m = x % y;
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}

static int64_t mod_cut(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}

static double float_mod(double x, double y)
{
    const double m = fmod(x, y); /* exact */
    return m != 0.0 && (m < 0.0) != (y < 0.0) ? m + y : m;
}

#define MOD_SIGNED(T, type)                \
    BINARY(mod, T, t_##T, mod_floor(x, y)) \
    BINARY(fmod, T, t_##T, mod_cut(x, y))
#define MOD_UNSIGNED(T, type)                 \
    BINARY(mod, T, t_##T, y == 0 ? 0 : x % y) \
    BINARY(fmod, T, t_##T, y == 0 ? 0 : x % y)
BINARY(mod, f32, t_f32, float_mod(x, y))
BINARY(mod, f64, t_f64, float_mod(x, y))
BINARY(fmod, f32, t_f32, fmod(x, y))
BINARY(fmod, f64, t_f64, fmod(x, y))
SIGNED_TYPES(MOD_SIGNED)
UNSIGNED_TYPES(MOD_UNSIGNED)
TABLE(mod_table, mod, ONNX_UNDEFINED, NUMBERS(mod))
TABLE(fmod_table, fmod, ONNX_UNDEFINED, NUMBERS(fmod))

int op_mod(struct op_call *c)
{
    return binary(c, call_int(c, "fmod", 0) ? &fmod_table : &mod_table, op_mod);
}

/* ---- comparisons ---- */

#define COMPARISON(name, operator)                                             \
    BINARY(name, f32, uint8_t, x operator y)                                   \
    BINARY(name, f64, uint8_t, x operator y)                                   \
    BINARY(name, i8, uint8_t, x operator y)                                    \
    BINARY(name, i16, uint8_t, x operator y)                                   \
    BINARY(name, i32, uint8_t, x operator y)                                   \
    BINARY(name, i64, uint8_t, x operator y)                                   \
    BINARY(name, u8, uint8_t, x operator y)                                    \
    BINARY(name, u16, uint8_t, x operator y)                                   \
    BINARY(name, u32, uint8_t, x operator y)                                   \
    BINARY(name, u64, uint8_t, x operator y)                                   \
    TABLE(name##_table, name, ONNX_BOOL, NUMBERS(name)[ONNX_BOOL] = name##_u8) \
    OPERATOR(op_##name, name##_table)

COMPARISON(less, <)
COMPARISON(less_or_equal, <=)
COMPARISON(greater, >)
COMPARISON(greater_or_equal, >=)

op_fn op_equal_numbers; /* of this file */
COMPARISON(equal_numbers, ==)

static void equal_strings(void *dst, const void *const *src, const int64_t *strides, uint64_t n, const void *data)
{
    const struct bytes *a = src[0], *b = src[1];
    (void)data;
    for (uint64_t i = 0; i < n; i++) {
        const struct bytes x = a[(int64_t)i * strides[0]], y = b[(int64_t)i * strides[1]];
        ((uint8_t *)dst)[i] = x.n == y.n && (x.n == 0 || memcmp(x.data, y.data, x.n) == 0);
    }
}

int op_equal(struct op_call *c)
{
    const struct value *v[2];
    int r = operands_of(c, v);
    if (r < 0 || v[0]->type != ONNX_STRING)
        return r < 0 ? r : op_equal_numbers(c);
    return broadcast_run(c, v, 2, ONNX_BOOL, equal_strings, NULL);
}

/* ---- bits and truth ---- */

#define TRUTH(name, expr)                                         \
    BINARY(name, u8, uint8_t, expr)                               \
    TABLE(name##_table, name, ONNX_BOOL, [ONNX_BOOL] = name##_u8) \
    OPERATOR(op_##name, name##_table)
TRUTH(and, x &&y)
TRUTH(or, x || y)
TRUTH(xor, !x != !y)

#define BITS(name, T, operator) BINARY(name, T, t_##T, x operator y)
#define BIT_ROW(k)          \
    ROW(k, i8, ONNX_INT8)   \
    ROW(k, i16, ONNX_INT16) \
    ROW(k, i32, ONNX_INT32) \
    ROW(k, i64, ONNX_INT64) \
    ROW(k, u8, ONNX_UINT8) ROW(k, u16, ONNX_UINT16) ROW(k, u32, ONNX_UINT32) ROW(k, u64, ONNX_UINT64)
#define BITWISE(name, operator)                              \
    BITS(name, i8, operator)                                 \
    BITS(name, i16, operator)                                \
    BITS(name, i32, operator)                                \
    BITS(name, i64, operator)                                \
    BITS(name, u8, operator)                                 \
    BITS(name, u16, operator)                                \
    BITS(name, u32, operator)                                \
    BITS(name, u64, operator)                                \
    TABLE(name##_table, name, ONNX_UNDEFINED, BIT_ROW(name)) \
    OPERATOR(op_##name, name##_table)
BITWISE(bitwise_and, &)
BITWISE(bitwise_or, |)
BITWISE(bitwise_xor, ^)

#define SHIFT(T, type)                                                   \
    BINARY(left, T, t_##T, y < 8 * sizeof(t_##T) ? (uint64_t)x << y : 0) \
    BINARY(right, T, t_##T, y < 8 * sizeof(t_##T) ? x >> y : 0)
UNSIGNED_TYPES(SHIFT)
#define SHIFT_ROW(k) ROW(k, u8, ONNX_UINT8) ROW(k, u16, ONNX_UINT16) ROW(k, u32, ONNX_UINT32) ROW(k, u64, ONNX_UINT64)
TABLE(left_table, left, ONNX_UNDEFINED, SHIFT_ROW(left))
TABLE(right_table, right, ONNX_UNDEFINED, SHIFT_ROW(right))

int op_bit_shift(struct op_call *c)
{
    return binary(c, call_text_is(c, "direction", "LEFT", "") ? &left_table : &right_table, op_bit_shift);
}

/* ---- powers ---- */

BINARY(prelu, f32, t_f32, x < 0 ? x * y : x)
BINARY(prelu, f64, t_f64, x < 0 ? x * y : x)
#define PRELU_INTEGER(T, type) BINARY(prelu, T, t_##T, x < 0 ? x * y : x)
PRELU_INTEGER(i32, 0)
PRELU_INTEGER(i64, 0)
BINARY(prelu, u32, t_u32, ((void)y, x))
BINARY(prelu, u64, t_u64, ((void)y, x))
TABLE(prelu_table, prelu, ONNX_UNDEFINED,
      ROW(prelu, f32, ONNX_FLOAT) ROW(prelu, f64, ONNX_DOUBLE) ROW(prelu, i32, ONNX_INT32) ROW(prelu, i64, ONNX_INT64)
          ROW(prelu, u32, ONNX_UINT32) ROW(prelu, u64, ONNX_UINT64))
OPERATOR(op_prelu, prelu_table)

BINARY(pow, f64, t_f64, fn_pow_d(x, y))
BINARY(pow, f32, t_f32, y == 2.0f ? x * x : y == 0.5f && x >= 0.0f ? sqrtf(x) : fn_pow_d(x, y))
TABLE(pow_table, pow, ONNX_UNDEFINED, ROW(pow, f32, ONNX_FLOAT) ROW(pow, f64, ONNX_DOUBLE))

/* Base and exponent may be of different types: the result has the base's. float32 stays, all else goes by double. */
int op_pow(struct op_call *c)
{
    WIDEN(c, op_pow);
    const struct value *x, *y;
    CLEANUP(value_release) struct value *base = NULL;
    CLEANUP(value_release) struct value *exponent = NULL;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &x);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_UNDEFINED, &y);
    if (r < 0)
        return r;
    if (x->type == y->type && pow_table.by_type[x->type])
        return binary(c, &pow_table, op_pow);
    struct value *result = NULL;
    r = value_cast(c, x, ONNX_DOUBLE, &base);
    if (r == 0)
        r = value_cast(c, y, ONNX_DOUBLE, &exponent);
    const struct value *v[2] = {base, exponent};
    if (r == 0)
        r = broadcast_run(c, v, 2, ONNX_DOUBLE, pow_f64, NULL);
    if (r == 0)
        r = value_cast(c, c->out[0], x->type, &result);
    c->out[0] = value_release(c->out[0]);
    c->out[0] = result;
    return r;
}

/* ---- several operands ---- */

#define PICK_FLOAT(T)                              \
    BINARY(max, T, t_##T, x != x || x > y ? x : y) \
    BINARY(min, T, t_##T, x != x || x < y ? x : y)
#define PICK(T, type)                    \
    BINARY(max, T, t_##T, x > y ? x : y) \
    BINARY(min, T, t_##T, x < y ? x : y)
PICK_FLOAT(f32)
PICK_FLOAT(f64)
INTEGER_TYPES(PICK)
TABLE(max_table, max, ONNX_UNDEFINED, NUMBERS(max))
TABLE(min_table, min, ONNX_UNDEFINED, NUMBERS(min))

/* Folds the inputs from the left; a single one is the result. */
static int fold(struct op_call *c, const struct binary *b)
{
    const struct value *first;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &first);
    if (r < 0)
        return r;
    if (!b->by_type[first->type])
        return err_new(c->err, QD_E_UNSUPPORTED, "operands of %s", onnx_type_name(first->type));
    CLEANUP(value_release) struct value *sum = value_take(call_in(c, 0));
    for (size_t i = 1; i < c->n_in && r == 0; i++) {
        const struct value *v[2] = {sum, NULL};
        r = call_tensor_in(c, i, first->type, &v[1]);
        if (r == 0)
            r = broadcast_run(c, v, 2, first->type, b->by_type[first->type], NULL);
        if (r == 0) {
            (void)value_release(sum);
            sum = steal(&c->out[0]);
        }
    }
    c->out[0] = value_release(c->out[0]);
    c->out[0] = steal(&sum);
    return r;
}

#define FOLD(op, table)         \
    int op(struct op_call *c)   \
    {                           \
        WIDEN(c, op);           \
        return fold(c, &table); \
    }
FOLD(op_max, max_table)
FOLD(op_min, min_table)
FOLD(op_sum, add_table)

static int divide_by(struct op_call *c, struct value *sum, double n)
{
    const struct value *v[1] = {sum};
    if (sum->type != ONNX_FLOAT && sum->type != ONNX_DOUBLE)
        return err_new(c->err, QD_E_UNSUPPORTED, "operands of %s", onnx_type_name(sum->type));
    struct value *out;
    int r = call_tensor(c, 0, sum->type, &sum->shape, &out);
    for (uint64_t i = 0; i < sum->n && r == 0; i++)
        if (sum->type == ONNX_FLOAT)
            ((float *)out->data)[i] = ((const float *)v[0]->data)[i] / (float)n;
        else
            ((double *)out->data)[i] = ((const double *)v[0]->data)[i] / n;
    return r;
}

int op_mean(struct op_call *c)
{
    WIDEN(c, op_mean);
    int r = fold(c, &add_table);
    if (r < 0)
        return r;
    CLEANUP(value_release) struct value *sum = steal(&c->out[0]);
    return divide_by(c, sum, (double)c->n_in);
}
