/*
 * Exact products of quantized matrices: codes less their zero points as int16, sums of products as int32 that wrap. No
 * step of it can saturate, on any CPU.
 */
#ifndef QUANTD_GRAPH_INTEGERS_H
#define QUANTD_GRAPH_INTEGERS_H

#include "quant/graph/codes.h"

/* What becomes of sums. Codes: round(sum * scale) + zero; a scale and a bias are those of the column @at + i. */
struct requantize {
    enum onnx_type type; /* of the result: ONNX_INT32 (the sums), ONNX_FLOAT, or codes */
    const float *scales; /* [n_scales]; NULL: 1 */
    uint64_t n_scales;   /* 1, or of each column */
    const float *bias;   /* of each column of floats; NULL: none */
    const int32_t *adds; /* the same of sums */
    float factor;        /* beside the scales */
    int32_t zero, least, greatest;
};

/* Fills in @type, its range and @zero. */
int requantize_to(struct op_call *c, const struct value *zero, struct requantize *q);

/* Element i of @sums to element @first + i * @stride of @out; its column is @column + i * @step. */
struct sums_at {
    uint64_t first, stride, column, step;
};
void requantize(const struct requantize *q, const int32_t *sums, size_t n, void *out, const struct sums_at *at);

/* Input @i, or NULL where it is absent. */
int optional_in(struct op_call *c, size_t i, enum onnx_type type, const struct value **ret);

/* Inputs by what they have to be. */
struct operand {
    size_t input;
    enum operand_kind {
        OPERAND_CODES,  /* of 8 bits */
        OPERAND_SCALES, /* float32 */
        OPERAND_ZEROS   /* a zero point, or NULL */
    } kind;
    const struct value **ret;
};
int operands_in(struct op_call *c, const struct operand *list, size_t n);

/* Scratch for @n of them: the caller gives it back. */
int integers_take(struct op_call *c, uint64_t n, int16_t **ret);

/* dst[i] = code of element @first + i * @stride of @v, less @zero. */
void integers_load(const struct value *v, uint64_t first, uint64_t stride, uint64_t n, int32_t zero, int16_t *dst);

#endif
