/*
 * Limits of what a model's files may say, each with its reason. What is beyond one is
 * QD_E_LIMIT by name and number, before anything is allocated for it.
 */
#ifndef QUANTD_QUANT_LIMITS_H
#define QUANTD_QUANT_LIMITS_H

#include "artifact/source_id.h"
#include "artifact/tables.h"

enum {
    /* Half of the 256 MiB that a job may use: the largest tokenizers cost 30 MB, 100,000 tensors 20 MB. */
    LIMIT_HEADER_BUDGET_BYTES = 128 << 20,

    /* What a table of an artifact can hold; the largest models known have 60,000 tensors. */
    LIMIT_TENSORS = TABLE_TENSORS_MAX,

    /* Models carry some tens of keys; a million-key header is an attack on whoever looks one up. */
    LIMIT_META_KEYS = 1 << 16,

    /* ggml:docs/gguf.md: keys are at most 2^16 - 1 bytes. */
    LIMIT_KEY_BYTES = 65535,

    /* ggml:src/gguf.cpp: GGUF_MAX_STRING_LENGTH and GGUF_MAX_ARRAY_ELEMENTS. */
    LIMIT_STRING_BYTES = 1 << 30,
    LIMIT_ARRAY_ITEMS = 1 << 30,

    /* ggml:include/ggml.h: GGML_MAX_NAME is 64 with the NUL; a longer name cannot be opened by any reader. */
    LIMIT_GGUF_NAME_BYTES = 63,

    /* Safetensors sets no limit; Hugging Face's longest names have 120 bytes. */
    LIMIT_TENSOR_NAME_BYTES = TABLE_NAME_MAX - 1,

    /* safetensors:src/tensor.rs: MAX_HEADER_SIZE. */
    LIMIT_SAFETENSORS_HEADER_BYTES = 100000000,

    /* The largest tokenizer.json known has 33 MB (262,144 tokens with merges). */
    LIMIT_SIDE_FILE_BYTES = 64 << 20,

    /* The largest vocabularies known have 262,144 tokens. */
    LIMIT_TOKENS = 1 << 20,

    /* Chat templates are the longest texts of model files, some 100 kB. */
    LIMIT_JSON_TEXT_BYTES = 4 << 20,

    /* JSON of model files nests 5 deep; each level costs a bit of state, not stack. */
    LIMIT_JSON_DEPTH = 64,

    /* Files of one source: what an identity can list. */
    LIMIT_SOURCE_FILES = SOURCE_FILES_MAX,

    /*
     * An importance matrix has 4 bytes for each column of each matrix: 25 MB for 70 billion dense weights, 1 GB for the
     * largest mixtures (58 layers of 256 experts). What it costs in memory is bounded by the job's own ceiling.
     */
    LIMIT_IMPORTANCE_BYTES = 2000000000,

    /* A file name is one component of a path. */
    LIMIT_FILE_NAME_BYTES = 255
};

#endif
