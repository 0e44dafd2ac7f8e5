/* Hugging Face's tensor names in llama.cpp's, and the order of an artifact: embedding, layer by layer, output. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/format/hf.h"

enum rotary { ROTARY_NONE, ROTARY_HEADS, ROTARY_KV_HEADS };

struct mapped_name {
    const char *from;
    const char *to;
    enum rotary rotary;
};

/* In the order in which they are used, which is the order of the file. */
static const struct mapped_name layer_names[] = {
    {"input_layernorm.weight", "attn_norm.weight", ROTARY_NONE},
    {"self_attn.q_proj.weight", "attn_q.weight", ROTARY_HEADS},
    {"self_attn.q_proj.bias", "attn_q.bias", ROTARY_HEADS},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", ROTARY_NONE},
    {"self_attn.k_proj.weight", "attn_k.weight", ROTARY_KV_HEADS},
    {"self_attn.k_proj.bias", "attn_k.bias", ROTARY_KV_HEADS},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", ROTARY_NONE},
    {"self_attn.v_proj.weight", "attn_v.weight", ROTARY_NONE},
    {"self_attn.v_proj.bias", "attn_v.bias", ROTARY_NONE},
    {"self_attn.o_proj.weight", "attn_output.weight", ROTARY_NONE},
    {"self_attn.o_proj.bias", "attn_output.bias", ROTARY_NONE},
    {"post_attention_layernorm.weight", "ffn_norm.weight", ROTARY_NONE},
    {"mlp.gate_proj.weight", "ffn_gate.weight", ROTARY_NONE},
    {"mlp.gate_proj.bias", "ffn_gate.bias", ROTARY_NONE},
    {"mlp.down_proj.weight", "ffn_down.weight", ROTARY_NONE},
    {"mlp.down_proj.bias", "ffn_down.bias", ROTARY_NONE},
    {"mlp.up_proj.weight", "ffn_up.weight", ROTARY_NONE},
    {"mlp.up_proj.bias", "ffn_up.bias", ROTARY_NONE},
};

static const struct mapped_name outer_names[] = {
    {"model.embed_tokens.weight", "token_embd.weight", ROTARY_NONE},
    {"model.norm.weight", "output_norm.weight", ROTARY_NONE},
    {"lm_head.weight", "output.weight", ROTARY_NONE},
};

/*
 * Buffers that llama.cpp's conversion leaves out: of any model, of GPT-2, of BERT (conversion/base.py, gpt2.py,
 * bert.py).
 */
static bool is_computed(const char *name)
{
    static const char *const tails[] = {".rotary_emb.inv_freq", ".attention.masked_bias",
                                        ".attention.bias",      ".attn.masked_bias",
                                        ".attn.bias",           "embeddings.position_ids"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        size_t n_tail = strlen(tails[i]);
        if (n >= n_tail && strcmp(name + n - n_tail, tails[i]) == 0)
            return true;
    }
    return false;
}

/* "model.layers.<layer>.<rest>": the rest, NULL when it has not that form. */
static const char *layer_of(const char *name, uint64_t *ret_layer)
{
    static const char prefix[] = "model.layers.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return NULL;
    const char *at = name + sizeof prefix - 1;
    uint64_t layer = 0;
    size_t n = 0;
    for (; isdigit((unsigned char)at[n]); n++) {
        if (n == 6 || (n == 1 && at[0] == '0')) /* no model has a million layers; "01" is no number */
            return NULL;
        layer = layer * 10 + (uint64_t)(at[n] - '0');
    }
    if (n == 0 || at[n] != '.')
        return NULL;
    *ret_layer = layer;
    return at + n + 1;
}

static const struct mapped_name *find_name(const struct mapped_name *names, size_t n, const char *name,
                                           size_t *ret_index)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i].from, name) != 0)
            continue;
        *ret_index = i;
        return &names[i];
    }
    return NULL;
}

static int order_rows(const struct hf_config *c, const struct mapped_name *name, struct tensor *t, struct qd_error *err)
{
    if (!c->mapped->pairs_rotary || name->rotary == ROTARY_NONE)
        return 0;
    int64_t heads = name->rotary == ROTARY_KV_HEADS && c->n_kv_heads != HF_ABSENT ? c->n_kv_heads : c->n_heads;
    uint64_t rows = t->n_dims == 1 ? t->shape[0] : t->shape[1];
    if (t->n_dims > 2 || rows % (uint64_t)heads || rows == 0)
        return err_new(err, QD_E_CORRUPT, "tensor '%s' has %" PRIu64 " rows, which %" PRId64 " heads do not divide",
                       t->source_name, rows, heads);
    t->row_order = ROWS_ROPE_PAIRED;
    t->head_rows = rows / (uint64_t)heads;
    return 0;
}

static int not_mapped(const struct hf_config *c, const struct tensor *t, struct qd_error *err)
{
    int r = err_new(err, QD_E_UNSUPPORTED, "tensor '%s' is none of a %s as llama.cpp knows it", t->source_name,
                    c->architecture);
    return err_hint(
        err, r, "check \"architectures\" and \"num_hidden_layers\" in config.json, or convert the model to GGUF first");
}

int hf_tensor_name(const struct hf_config *c, struct arena *arena, struct tensor *t, uint64_t *ret_rank,
                   struct qd_error *err)
{
    enum {
        N_LAYER_NAMES = sizeof layer_names / sizeof layer_names[0],
        N_OUTER_NAMES = sizeof outer_names / sizeof outer_names[0]
    };
    t->name = t->source_name;
    *ret_rank = 0;
    if (!c->mapped)
        return HF_NAMED;
    if (is_computed(t->source_name))
        return HF_DROPPED;
    uint64_t layer = 0;
    size_t index = 0;
    const char *rest = layer_of(t->source_name, &layer);
    const struct mapped_name *name = rest ? find_name(layer_names, N_LAYER_NAMES, rest, &index)
                                          : find_name(outer_names, N_OUTER_NAMES, t->source_name, &index);
    if (!name || layer >= (uint64_t)c->n_layers)
        return not_mapped(c, t, err);
    char text[64];
    if (rest)
        (void)snprintf(text, sizeof text, "blk.%" PRIu64 ".%s", layer, name->to); /* fits: names of our table */
    else
        (void)snprintf(text, sizeof text, "%s", name->to); /* fits */
    t->name = arena_text(arena, (struct bytes){(const uint8_t *)text, strlen(text)});
    if (!t->name)
        return err_new(err, QD_E_LIMIT, "the headers need more memory than a model may use");
    if (rest)
        *ret_rank = 1 + layer * N_LAYER_NAMES + index;
    else
        *ret_rank = index == 0 ? 0 : UINT64_MAX - N_OUTER_NAMES + index;
    int r = order_rows(c, name, t, err);
    return r < 0 ? r : HF_NAMED;
}
