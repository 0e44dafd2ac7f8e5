/*
 * Integer codes of quantized tensors as int32, a piece at a time, and the scales that belong to them: one for a tensor,
 * for each index of an axis, or for each block of an axis.
 */
#ifndef QUANTD_GRAPH_CODES_H
#define QUANTD_GRAPH_CODES_H

#include "quant/graph/op.h"

enum { CODES_PIECE = 512 };

/* Least and greatest code; false where @type has none (all integers of at most 16 bits, and int32). */
bool codes_range(enum onnx_type type, int32_t *ret_least, int32_t *ret_greatest);

/* Elements [first, first + n) of an array of @type, one of those. @n is at most CODES_PIECE. */
void codes_load(enum onnx_type type, const void *data, uint64_t first, size_t n, int32_t *dst);
void codes_store(enum onnx_type type, void *data, uint64_t first, size_t n, const int32_t *src);

/* Code @i of @v; 0 where @v is NULL (no zero point). */
int32_t code_at(const struct value *v, uint64_t i);

/* round(x), ties to even, + zero in [least, greatest]. NaN is the zero point. */
static inline int32_t code_of(float x, int32_t zero, int32_t least, int32_t greatest)
{
    const float shift = 0x1.8p23f; /* added and taken away: rounds */
    const float within = x > -0x1p20f ? x < 0x1p20f ? x : 0x1p20f : x != x ? 0.0f : -0x1p20f;
    const int32_t q = (int32_t)((within + shift) - shift) + zero;
    return q < least ? least : q > greatest ? greatest : q;
}

/* Runs of a tensor whose scales lie in a row: by index, or one for all of the run. */
struct scales {
    uint64_t n_runs, run;         /* elements of a run, but for the last of a row that is cut */
    uint64_t row, per_row;        /* elements of a row of runs, runs of it */
    uint64_t scales_per_row;      /* scales from a row to the next; 0 where they begin again */
    uint64_t n_axis, block, step; /* of the axis, elements of a block, scales of a block */
    uint64_t stride;              /* from element to element: 0 or 1 */
};

struct scale_run {
    uint64_t first, n; /* elements */
    uint64_t scale, stride;
};

/*
 * How @scale (and the zero point @zero, NULL: none, of its shape) belongs to @x: by attributes "axis" and "block_size".
 * QD_E_INVALID where the shapes do not fit.
 */
int scales_of(struct op_call *c, const struct value *x, const struct value *scale, const struct value *zero,
              struct scales *ret);
struct scale_run scales_run(const struct scales *s, uint64_t i);

#endif
