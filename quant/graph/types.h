/* Element types of values as C types, for operators that are written once for all of them; and 16-bit floats. */
#ifndef QUANTD_GRAPH_TYPES_H
#define QUANTD_GRAPH_TYPES_H

#include "quant/graph/op.h"

typedef float t_f32;
typedef double t_f64;
typedef int8_t t_i8;
typedef int16_t t_i16;
typedef int32_t t_i32;
typedef int64_t t_i64;
typedef uint8_t t_u8;
typedef uint16_t t_u16;
typedef uint32_t t_u32;
typedef uint64_t t_u64;

#define FLOAT_TYPES(X)    X(f32, ONNX_FLOAT) X(f64, ONNX_DOUBLE)
#define SIGNED_TYPES(X)   X(i8, ONNX_INT8) X(i16, ONNX_INT16) X(i32, ONNX_INT32) X(i64, ONNX_INT64)
#define UNSIGNED_TYPES(X) X(u8, ONNX_UINT8) X(u16, ONNX_UINT16) X(u32, ONNX_UINT32) X(u64, ONNX_UINT64)
#define INTEGER_TYPES(X)  SIGNED_TYPES(X) UNSIGNED_TYPES(X)
#define NUMBER_TYPES(X)   FLOAT_TYPES(X) INTEGER_TYPES(X)

enum { N_ONNX_TYPES = ONNX_INT2 + 1 };

static inline bool type_is_half(enum onnx_type t)
{
    return t == ONNX_FLOAT16 || t == ONNX_BFLOAT16;
}

/* A tensor of another number type with the same values, rounded and cut as Cast does. */
int value_cast(struct op_call *c, const struct value *v, enum onnx_type to, struct value **ret);

/*
 * Calls @fn with 16-bit floats among the inputs widened to float32 and narrows its float32 outputs again: how operators
 * without kernels for 16-bit floats compute with them. 1 where no input is a 16-bit float: @fn was not called.
 */
int call_widened(struct op_call *c, op_fn *fn);

/* Widens and calls itself where an input is a 16-bit float. Stands first in an operator. */
#define WIDEN(c, fn)                              \
    do {                                          \
        const int widened_ = call_widened(c, fn); \
        if (widened_ <= 0)                        \
            return widened_;                      \
    } while (0)

#endif
