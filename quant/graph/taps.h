/*
 * Resampling along one axis: for every index of the output, the indices of the input that it is made of and their
 * weights. onnx:docs/Operators.md, "Resize"; coordinates are computed in float32, as ONNX Runtime does it.
 */
#ifndef QUANTD_GRAPH_TAPS_H
#define QUANTD_GRAPH_TAPS_H

#include "quant/graph/op.h"

enum resample { RESAMPLE_NEAREST, RESAMPLE_LINEAR, RESAMPLE_CUBIC };

/* X(name as ONNX writes it, the coordinate in the input of index x) */
#define COORDINATES(X)                                                                    \
    X(half_pixel, (x + 0.5f) / scale - 0.5f)                                              \
    X(half_pixel_symmetric, symmetric_offset(a) + (x + 0.5f) / scale - 0.5f)              \
    X(pytorch_half_pixel, a->n_out > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f)                \
    X(align_corners, a->n_out > 1 ? x * (float)(a->n_in - 1) / (a->length - 1.0f) : 0.0f) \
    X(asymmetric, x / scale)                                                              \
    X(tf_half_pixel_for_nn, (x + 0.5f) / scale)                                           \
    X(tf_crop_and_resize, crop_coordinate(a, x))

/* X(name, the nearest index) */
#define NEAREST_MODES(X)                   \
    X(round_prefer_floor, ceilf(x - 0.5f)) \
    X(round_prefer_ceil, floorf(x + 0.5f)) \
    X(floor, floorf(x))                    \
    X(ceil, ceilf(x))

#define NUMBER(name, expr) COORDINATE_##name,
enum coordinate { COORDINATES(NUMBER) N_COORDINATES };
#undef NUMBER
#define NUMBER(name, expr) NEAREST_##name,
enum nearest { NEAREST_MODES(NUMBER) N_NEAREST_MODES };
#undef NUMBER

struct resampling {
    enum resample mode;
    enum coordinate coordinate;
    enum nearest nearest;
    float cubic_a;
    bool exclude_outside, antialias;
};

struct axis_resize {
    int64_t n_in, n_out;
    float scale;
    float length;     /* of the output, before it was cut to a whole number */
    float start, end; /* region of interest, for tf_crop_and_resize */
};

struct taps {
    uint64_t n;      /* of an output index */
    uint32_t *index; /* [n_out][n] */
    float *weight;   /* [n_out][n] */
    bool *outside;   /* [n_out]: the coordinate lies outside of the input, for tf_crop_and_resize */
    void *block;     /* of the memory that the three lie in: the caller gives it back */
};

int taps_make(struct op_call *c, const struct resampling *r, const struct axis_resize *a, struct taps *ret);

#endif
