/*
 * The field's rules: which tensors stay unquantized and what the others become. They are
 * llama.cpp's (src/llama-quant.cpp: tensor_allows_quantization, llama_tensor_get_type_impl,
 * tensor_type_fallback), so that a file of ours has the types that every runtime expects; where
 * we differ the table in plan_rules.c says so. Pure.
 */
#ifndef QUANTD_QUANT_PLAN_RULES_H
#define QUANTD_QUANT_PLAN_RULES_H

#include "quant/model.h"
#include "quant/recipe.h"

/* What the rules look at beyond the tensor itself. */
struct plan_rules {
    struct recipe recipe;
    bool from_gguf;      /* unquantized tensors keep the type they have; else they become f32 */
    bool tied_embedding; /* no output.weight: the token embedding is the output too */
    bool falcon;
    uint32_t n_experts;
};

struct plan_rules plan_rules_of(const struct model *m, const struct recipe *r);

/*
 * The type of one tensor and why, in words (static text, or in @arena). A tensor that would be quantized a second time
 * is QD_E_UNSUPPORTED.
 */
int plan_decide(const struct plan_rules *rules, const struct tensor *t, struct arena *arena, enum qd_type *ret_type,
                const char **ret_reason, struct qd_error *err);

#endif
