/*
 * The field's own encoders and decoders for our operations: libggml-base.so, loaded at run time. Encoders are those
 * that llama_model_quantize calls.
 */
#ifndef QUANTD_TESTS_KERNELS_RIVAL_H
#define QUANTD_TESTS_KERNELS_RIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

struct rival {
    /* rows of @n_per_row; @importance[n_per_row] or NULL */
    size_t (*quantize)(const float *src, void *dst, int64_t n_rows, int64_t n_per_row, const float *importance);
    void (*rows)(const void *src, void *dst, int64_t n); /* plain types, and decoders */
};

/* The library in @folder, or in QUANTD_PEERS; NULL: cannot be had (dlerror says why). */
void *rival_library(const char *folder);

/* Both NULL: there is no counterpart. */
struct rival rival_of(void *library, const struct kernel_entry *e);

/* One row by the rival: @importance is NULL but for weighted operations. */
void rival_run(const struct rival *r, const struct kernel_entry *e, const void *src, void *dst, size_t n_elements,
               const float *importance);

/* One row by ours. */
void entry_run(const struct kernel_entry *e, const void *src, void *dst, size_t n_elements, const float *importance);

#endif
