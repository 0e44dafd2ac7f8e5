/*
 * Values from the .pb files of ONNX's test data: TensorProto, SequenceProto or OptionalProto, as the model's input
 * says.
 */
#ifndef QUANTD_TESTS_PB_VALUE_H
#define QUANTD_TESTS_PB_VALUE_H

#include "quant/graph/graph.h"

/* The value in the file at @path; @kind: of the input or output it belongs to. */
int pb_value_read(const char *path, enum onnx_kind kind, struct memory *m, struct value **ret, struct qd_error *err);

#endif
