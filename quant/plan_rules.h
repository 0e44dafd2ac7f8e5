/*
 * What every tensor becomes, and the rule behind it: names that stay unquantized, what the user
 * asked for by name, the scheme's mixture (mixture.h), rows that do not divide, and what is refused. The
 * rules are llama.cpp's (src/llama-quant.cpp: tensor_allows_quantization, llama_tensor_get_type), so
 * that a file of ours has the types that every runtime expects; where we differ, plan_rules.c says so.
 * Pure.
 */
#ifndef QUANTD_QUANT_PLAN_RULES_H
#define QUANTD_QUANT_PLAN_RULES_H

#include "quant/mixture.h"
#include "quant/model.h"

/*
 * @ret[m->n_tensors], in the model's order. QD_E_UNSUPPORTED: a tensor would be quantized a second time without
 * leave; QD_E_INVALID: a rule that no tensor matches. At most
 * PLAN_REASON_BYTES of @arena a tensor, and PLAN_RULES_BYTES.
 */
enum { PLAN_REASON_BYTES = 320, PLAN_RULES_BYTES = 1 << 15 };
int plan_decide(const struct model *m, const struct recipe *r, struct arena *arena, struct type_choice *ret,
                struct qd_error *err);

#endif
