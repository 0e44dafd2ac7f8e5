/*
 * The GGUF v3 writer: the whole header as bytes, a pure function. Tensor data is written by
 * plan_run at the offsets that the plan fixes; the header says the same ones.
 */
#ifndef QUANTD_QUANT_GGUF_WRITE_H
#define QUANTD_QUANT_GGUF_WRITE_H

#include "quant/model.h"

struct gguf_tensor {
    const char *name;
    enum qd_type type;
    uint32_t n_dims;
    uint64_t shape[MODEL_DIMS_MAX];
    uint64_t offset; /* from the start of the data section; a multiple of @alignment */
};

/* Header up to and including the padding before the data section; its size is the data section's offset in the file. */
int gguf_header(const struct meta_table *meta, const struct gguf_tensor *tensors, size_t n_tensors, uint32_t alignment,
                struct buffer *dst, struct qd_error *err);

#endif
