#include "quant/plan_rules.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Names that stay unquantized, as tensor_allows_quantization has them. (Its test for names that
 * end in "weight" also lets a name of five letters without it through, by wrapping around; no
 * model has one and we do not follow.)
 */
struct kept_name {
    bool whole; /* the whole name, else any part of it */
    const char *text;
    const char *reason;
};

static const struct kept_name kept_names[] = {
    {false, "_norm.weight", "normalisation stays unquantized"},
    {false, "ffn_gate_inp.weight", "expert router stays unquantized"},
    {false, "ffn_gate_tid2eid.weight", "routing table stays unquantized"},
    {false, "altup", "small projection (altup) stays unquantized"},
    {false, "laurel", "small projection (laurel) stays unquantized"},
    {false, "per_layer_model_proj", "per-layer projection stays unquantized"},
    {true, "position_embd.weight", "positional embedding stays unquantized"},
    {true, "token_types.weight", "token type embedding stays unquantized"},
    {false, "ssm_conv1d", "short convolution stays unquantized"},
    {false, "shortconv.conv.weight", "short convolution stays unquantized"},
    {false, "indexer.k_proj.weight", "indexer projection stays unquantized"},
    {false, "indexer.q_proj.weight", "indexer projection stays unquantized"},
    {false, "time_mix_first.weight", "time mixing stays unquantized"},
    {false, "time_mix_w0.weight", "time mixing stays unquantized"},
    {false, "time_mix_w1.weight", "time mixing stays unquantized"},
    {false, "time_mix_w2.weight", "time mixing stays unquantized"},
    {false, "time_mix_v0.weight", "time mixing stays unquantized"},
    {false, "time_mix_v1.weight", "time mixing stays unquantized"},
    {false, "time_mix_v2.weight", "time mixing stays unquantized"},
    {false, "time_mix_a0.weight", "time mixing stays unquantized"},
    {false, "time_mix_a1.weight", "time mixing stays unquantized"},
    {false, "time_mix_a2.weight", "time mixing stays unquantized"},
    {false, "time_mix_g1.weight", "time mixing stays unquantized"},
    {false, "time_mix_g2.weight", "time mixing stays unquantized"},
    {false, "time_mix_decay_w1.weight", "time mixing stays unquantized"},
    {false, "time_mix_decay_w2.weight", "time mixing stays unquantized"},
    {false, "time_mix_lerp_fused.weight", "time mixing stays unquantized"},
    {false, "attn_rel_b.weight", "relative position bias stays unquantized"},
    {false, ".position_embd", "image position embedding stays unquantized"},
    {false, "sam.pos_embd", "image encoder (sam) stays unquantized"},
    {false, "sam.neck.", "image encoder (sam) stays unquantized"},
    {false, "sam.net_", "image encoder (sam) stays unquantized"},
    {false, ".rel_pos", "relative position stays unquantized"},
    {false, ".patch_embd", "image patch embedding stays unquantized"},
    {false, ".patch_merger", "image patch merger stays unquantized"},
    {false, "a.rvq.codebook", "audio codebook stays unquantized"},
    {false, "mm.a.code_embd", "audio codebook stays unquantized"},
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Dimensions as ggml counts them: trailing ones do not count. */
static uint32_t true_dims(const struct tensor *t)
{
    for (uint32_t d = t->n_dims; d > 1; d--) {
        if (t->shape[d - 1] > 1)
            return d;
    }
    return 1;
}

/* Why @t stays unquantized; NULL where the scheme applies. */
static const char *kept_reason(const struct tensor *t)
{
    if (qd_type_info(t->type)->kind == QD_KIND_INT)
        return "integers stay as they are";
    if (t->type == QD_TYPE_F64)
        return "f64 stays as it is";
    if (true_dims(t) < 2)
        return "fewer than two dimensions";
    if (!ends_with(t->name, "weight"))
        return "not a weight by its name";
    for (size_t i = 0; i < sizeof kept_names / sizeof kept_names[0]; i++) {
        const struct kept_name *k = &kept_names[i];
        if (k->whole ? strcmp(t->name, k->text) == 0 : strstr(t->name, k->text) != NULL)
            return k->reason;
    }
    return NULL;
}

/*
 * What a kept tensor is stored as: a GGUF's choice is respected; from elsewhere floats become f32, which is what
 * runtimes ask of norms and biases.
 */
static enum qd_type kept_type(const struct plan_rules *rules, const struct tensor *t)
{
    bool widen = !rules->from_gguf && (t->type == QD_TYPE_F16 || t->type == QD_TYPE_BF16);
    return widen ? QD_TYPE_F32 : t->type;
}

static bool is_embedding(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0;
}

static bool is_output(const struct plan_rules *rules, const char *name)
{
    return strcmp(name, "output.weight") == 0 || (rules->tied_embedding && is_embedding(name));
}

static bool is_attention_kv(const char *name)
{
    return strstr(name, "attn_v.weight") || strstr(name, "attn_k.weight") || strstr(name, "attn_qkv.weight") ||
           strstr(name, "attn_kv_b.weight");
}

/*
 * The mixture of the block types of this table, without `pure`. llama.cpp gives the output matrix
 * q6_k in a q4_0 file (q8_0 for falcon and for rows that do not divide); until q6_k has an encoder
 * here q8_0 stands in: larger, and never less exact.
 */
static enum qd_type mixture_type(const struct plan_rules *rules, const struct tensor *t, enum qd_type base,
                                 const char **reason)
{
    uint32_t block = qd_type_info(base)->block_elements;
    if (is_output(rules, t->name) && base != QD_TYPE_Q8_0) {
        *reason = rules->falcon || t->shape[0] % block ? "output matrix: q8_0"
                                                       : "output matrix: more bits (q8_0 in place of q6_k)";
        return QD_TYPE_Q8_0;
    }
    if (rules->n_experts == 8 && is_attention_kv(t->name) && !is_output(rules, t->name) && base != QD_TYPE_Q8_0) {
        *reason = "attention keys and values of an 8-expert model: q8_0";
        return QD_TYPE_Q8_0;
    }
    return base;
}

static const char *text_in(struct arena *arena, const char *text)
{
    return arena_text(arena, (struct bytes){(const uint8_t *)text, strlen(text)});
}

/* Rows that do not divide into the type's blocks: f16, as the field does for types of 32. */
static int row_fallback(const struct tensor *t, struct arena *arena, enum qd_type *type, const char **reason,
                        struct qd_error *err)
{
    const struct qd_type_info *info = qd_type_info(*type);
    if (t->shape[0] % info->block_elements == 0)
        return 0;
    char text[128];
    (void)snprintf(text, sizeof text, "rows of %" PRIu64 " do not divide into blocks of %u: f16 in place of %s",
                   t->shape[0], info->block_elements, info->name); /* fits: numbers of at most 20 digits */
    *reason = text_in(arena, text);
    if (!*reason)
        return err_new(err, QD_E_NO_MEMORY, "plan");
    *type = QD_TYPE_F16;
    return 0;
}

static int refuse_requantize(const struct tensor *t, enum qd_type type, struct qd_error *err)
{
    int r = err_new(err, QD_E_UNSUPPORTED,
                    "tensor '%s' is already quantized to %s; quantizing it again to %s would add one error to another",
                    t->name, qd_type_info(t->type)->name, qd_type_info(type)->name);
    return err_hint(err, r, "use the model's f32, f16 or bf16 original");
}

struct plan_rules plan_rules_of(const struct model *m, const struct recipe *r)
{
    struct plan_rules rules = {.recipe = *r};
    rules.from_gguf = strcmp(m->format, "gguf") == 0;
    rules.tied_embedding = model_find(m, "output.weight") == NULL;
    rules.falcon = strcmp(m->architecture, "falcon") == 0;

    char key[160];
    (void)snprintf(key, sizeof key, "%.128s.expert_count", m->architecture); /* a longer name is none that has rules */
    const struct meta_value *v = meta_find(&m->meta, key);
    if (v && v->type == META_U32)
        memcpy(&rules.n_experts, v->data, sizeof rules.n_experts);
    return rules;
}

static const char *const scheme_reasons[N_SCHEMES] = {
#define S(name, NAME, file_type) [SCHEME_##NAME] = "scheme " #name,
    SCHEMES(S)
#undef S
};

int plan_decide(const struct plan_rules *rules, const struct tensor *t, struct arena *arena, enum qd_type *ret_type,
                const char **ret_reason, struct qd_error *err)
{
    const char *reason = kept_reason(t);
    enum qd_type type = kept_type(rules, t);
    if (!reason) {
        type = scheme_type(rules->recipe.scheme);
        reason = scheme_reasons[rules->recipe.scheme];
        bool mixed = !rules->recipe.pure && qd_type_info(type)->kind == QD_KIND_BLOCK;
        if (mixed)
            type = mixture_type(rules, t, type, &reason);
        int r = row_fallback(t, arena, &type, &reason, err);
        if (r < 0)
            return r;
    }
    if (type != t->type && qd_type_info(t->type)->kind == QD_KIND_BLOCK)
        return refuse_requantize(t, type, err);
    *ret_type = type;
    *ret_reason = reason;
    return 0;
}
