/*
 * The weights of an ONNX model: constant tensors of floats that an operator multiplies with or looks rows up in,
 * wherever they stand (initializers, Constant nodes, graphs within nodes), with the axis along which they have a scale
 * for each channel.
 */
#ifndef QUANTD_ONNX_WEIGHTS_H
#define QUANTD_ONNX_WEIGHTS_H

#include "kernels/kernels.h"
#include "quant/format/onnx.h"

struct weight {
    const struct onnx_graph *graph; /* that holds it */
    const struct onnx_tensor *tensor;
    const struct onnx_node *constant; /* the Constant node that makes it; NULL: an initializer */
    const char *name;                 /* of the value */
    const struct onnx_node *user;     /* the first operator that takes it */
    const struct onnx_graph *user_graph;
    size_t n_uses;                  /* as an operand, by any operator */
    uint32_t axis;                  /* of its channels */
    bool log_follows;               /* a logarithm of the result: its small values matter, integers would lose them */
    const struct onnx_tensor *bias; /* a constant vector that the operator adds and nobody else uses; NULL: none */
    const struct onnx_node *bias_constant;
    const char *bias_name;
    const struct onnx_node *norm; /* of constants, and alone in reading a Conv's result; NULL: there is none */
    const struct onnx_tensor *norm_params[4]; /* its scale, bias, mean and variance */
    const struct onnx_node *clamp;            /* Relu or Clip, alone in reading the result behind @norm; NULL */
    const char *left;                         /* why it stays as it is (static text); NULL: it is quantized */
};

struct weights {
    struct weight *list; /* in the arena, in the order in which operators take them */
    size_t n;
};

/* Finds them; what stays as it is has a reason. @arena holds the list. */
int weights_find(const struct onnx_model *m, struct arena *arena, struct weights *ret, struct qd_error *err);

/* The first node of the model that is quantized already ("QLinearConv", "MatMulNBits", ...), or NULL. */
const struct onnx_node *weights_quantized_node(const struct onnx_model *m);

/* ---- elements as floats, in slices ---- */

struct weight_reader {
    struct source *source;            /* borrowed */
    const struct onnx_tensor *tensor; /* borrowed */
    const struct ops *ops;            /* borrowed */
    uint8_t *whole;                   /* owned: a typed payload; NULL: read from the file */
    uint8_t *raw;                     /* owned: a slice as it stands */
};

enum { WEIGHT_SLICE = 1 << 16 /* elements */ };

int weight_reader_open(struct weight_reader *r, struct source *s, const struct onnx_tensor *t, const struct ops *ops,
                       struct qd_error *err);
void weight_reader_close(struct weight_reader *r);

/* Elements [first, first + n), n at most WEIGHT_SLICE. NaN or Inf: QD_E_UNSUPPORTED by name and index. */
int weight_reader_get(struct weight_reader *r, uint64_t first, size_t n, float *dst, struct qd_error *err);

#endif
