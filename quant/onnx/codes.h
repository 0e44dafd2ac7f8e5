/* Weights on their way to codes: channels, and what makes a payload when the data file is written. */
#ifndef QUANTD_ONNX_CODES_H
#define QUANTD_ONNX_CODES_H

#include "quant/onnx/build.h"

/* How elements belong to channels: element i to channel i / inner % n. */
struct channels {
    uint64_t n, inner;
};

struct channels channels_of(const struct onnx_tensor *t, uint32_t axis);

/* Largest magnitudes by channel into zeroed @most [c.n], in one pass. */
int channels_magnitudes(struct builder *b, const struct onnx_tensor *t, struct channels c, float *most);

/* What makes the codes when the data file is written. */
struct codes {
    struct weight_reader reader;
    bool open;
    struct source *source;
    const struct onnx_tensor *tensor;
    const struct ops *ops;
    struct channels channels;
    const float *scales;
    int max_code;      /* of int8 */
    enum qd_type half; /* of f16 and bf16 */
    struct onnx_decision *decision;
    float *slice; /* owned while open: WEIGHT_SLICE of them */
};

struct codes *codes_new(struct builder *b, const struct weight *w, struct onnx_decision *d);

/* First and last in a maker: opens the reader at @offset 0, closes it when all elements are done. */
int codes_open(struct codes *k, uint64_t offset, struct qd_error *err);
void codes_close(struct codes *k, uint64_t elements_done);

/* Adds to the decision's error sums. */
void codes_note(struct onnx_decision *d, float was, double is);

/* To the nearest integer, halves to even; |x| is below 2^51. */
double codes_round(double x);

#endif
