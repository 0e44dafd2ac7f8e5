/*
 * Values of a graph that have the same codes: what an operator only moves or picks from (MaxPool, Concat, Transpose)
 * keeps its scale and zero point, so that a runtime moves codes. docs/adr/0025-shared-scales.md.
 */
#ifndef QUANTD_ONNX_SHARING_H
#define QUANTD_ONNX_SHARING_H

#include "quant/calib/range.h"
#include "quant/format/onnx.h"
#include "statistics/statistics.h"

struct sharing;

/* Of one graph by what was seen of its values; both outlive it, as do the options. */
int sharing_new(const struct onnx_graph *g, const struct statistics *statistics, const struct range_options *options,
                struct sharing **ret, struct qd_error *err);
struct sharing *sharing_free(struct sharing *s); /* NULL */

const struct onnx_graph *sharing_graph(const struct sharing *s);

/* The range that holds those of all values that share codes with @value, itself among them. 1: none was seen. */
int sharing_range(struct sharing *s, const char *value, struct range *ret, struct qd_error *err);

#endif
