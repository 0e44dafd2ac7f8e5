/*
 * Who makes what: every name of a graph is made once, every input is made by somebody (in this graph or, for the graph
 * of an attribute, in one around it), and nothing waits for itself. Linear in the size of the model.
 */
#ifndef QUANTD_QUANT_ONNX_ORDER_H
#define QUANTD_QUANT_ONNX_ORDER_H

#include "quant/format/onnx.h"

/*
 * Sets @order of all graphs and functions of @m, which was just read; @file names it in errors. QD_E_CORRUPT names the
 * node and the value.
 */
int onnx_order_model(struct onnx_model *m, const char *file, struct qd_error *err);

#endif
