/* What makes a TensorProto that was read a tensor: shape against payload, external data found. Of the reader. */
#ifndef QUANTD_QUANT_ONNX_TENSOR_H
#define QUANTD_QUANT_ONNX_TENSOR_H

#include "quant/format/onnx.h"
#include "quant/format/stream.h"
#include "quant/model.h"

/*
 * Settles @t, all of whose fields are read; @start: of its message, for errors, which stick in @st. With @probe the
 * companions that hold external data are noted there and not looked for.
 */
int onnx_tensor_settle(struct stream *st, struct probe *probe, struct onnx_tensor *t, uint64_t start);

#endif
