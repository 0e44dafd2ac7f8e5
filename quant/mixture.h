/*
 * The field's mixtures: which matrices of a scheme get more bits, fewer bits, or another type, as
 * one table (mixture.c). It holds the facts of llama.cpp's src/llama-quant.cpp
 * (llama_tensor_get_type_impl, tensor_type_fallback), so that a file of ours has the types that
 * every runtime expects. Pure.
 */
#ifndef QUANTD_QUANT_MIXTURE_H
#define QUANTD_QUANT_MIXTURE_H

#include <stdbool.h>

#include "quant/recipe.h"

/* What a matrix is, by its name. */
enum matrix {
    MATRIX_OTHER,
    MATRIX_EMBEDDING, /* token_embd, per_layer_token_embd */
    MATRIX_OUTPUT,
    MATRIX_ATTN_Q,
    MATRIX_ATTN_K,
    MATRIX_ATTN_V, /* also fused qkv, and kv_b */
    MATRIX_ATTN_OUTPUT,
    MATRIX_FFN_UP,
    MATRIX_FFN_GATE,
    MATRIX_FFN_DOWN,
    N_MATRICES
};

enum matrix matrix_of(const char *name);

/* Facts of a matrix and its model that rows of the table ask for; a bit each. */
enum mixture_fact {
    FACT_FALCON = 1 << 0,
    FACT_NOT_FALCON = 1 << 1,
    FACT_EXPERTS_8 = 1 << 2,
    FACT_NOT_EXPERTS_8 = 1 << 3,
    FACT_GQA_4 = 1 << 4, /* four heads or more share keys and values */
    FACT_70B = 1 << 5,
    FACT_WEIGHTED = 1 << 6,
    FACT_NOT_WEIGHTED = 1 << 7,
    FACT_EXPERT_MATRIX = 1 << 8, /* three dimensions: one matrix for each expert */
    FACT_ROWS_ODD = 1 << 9,      /* rows do not divide into the scheme's blocks */
    FACT_FIRST_2 = 1 << 10,      /* among the first two matrices of its kind */
    FACT_FIRST_4 = 1 << 11,
    FACT_FIRST_8TH = 1 << 12, /* in the first eighth of the layers */
    FACT_FIRST_16TH = 1 << 13,
    FACT_MORE_BITS = 1 << 14 /* in the first eighth, the last, and every third between */
};

/* The FACT_FIRST_* and FACT_MORE_BITS of matrix or layer @i of @n. */
uint32_t mixture_place(int64_t i, int64_t n);

struct type_choice {
    enum qd_type type;
    const char *reason; /* static text, or in an arena */
};

/* The scheme's own type. */
struct type_choice mixture_plain(enum scheme scheme);

/* What @scheme (of a block type) makes of a matrix; its own type where no row of the table says otherwise. */
struct type_choice mixture_choose(enum scheme scheme, enum matrix matrix, uint32_t facts);

/* The type in place of @type for rows of @row elements that do not divide into its blocks; @type where they do. */
enum qd_type mixture_fallback(enum qd_type type, uint64_t row);

/* Every type that the scheme can use in some model, its fall-backs included; a bit each. */
uint64_t mixture_types(enum scheme scheme, bool pure);

/* @types with what their rows may fall back to. */
uint64_t mixture_with_fallbacks(uint64_t types);

#endif
