/*
 * What lies beside Hugging Face's safetensors, in llama.cpp's terms: facts of config.json, names
 * of tensors, tokenizers. Keys and names are those that llama.cpp's own conversion writes
 * (llama.cpp:conversion/base.py, llama.py, qwen.py; gguf-py/gguf/constants.py, tensor_mapping.py).
 * docs/formats/safetensors.md lists what is mapped.
 */
#ifndef QUANTD_QUANT_HF_H
#define QUANTD_QUANT_HF_H

#include "quant/format/meta_build.h"
#include "quant/model.h"

enum { HF_TEXT_MAX = 128, HF_ABSENT = -1 };

/* An architecture whose tensors we can name as llama.cpp does. */
struct hf_architecture {
    const char *hf_name;  /* "LlamaForCausalLM" */
    const char *name;     /* "llama" */
    bool pairs_rotary;    /* rows of q and k are permuted on the way */
    bool writes_rope_dim; /* vocab_size and rope.dimension_count stand in the metadata */
};

/* config.json: HF_ABSENT and NaN where it does not say. */
struct hf_config {
    char architecture[HF_TEXT_MAX];
    char model_type[HF_TEXT_MAX];
    char name[HF_TEXT_MAX]; /* last part of _name_or_path */
    char rope_type[HF_TEXT_MAX];
    int64_t hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim, vocab_size, context;
    int64_t bos, eos, pad, rope_original_context;
    double rms_norm_eps, rope_theta, rope_factor;
    bool quantized;                       /* quantization_config: weights are in some packed form */
    const struct hf_architecture *mapped; /* NULL: tensors keep their own names */
};

/* Reads config.json at @file; @file < 0: nothing is known. */
int hf_config_read(struct source *s, int file, struct hf_config *ret, struct qd_error *err);

/* general.* and <arch>.* keys. */
void hf_config_put(const struct hf_config *c, struct meta_build *b);

enum hf_named { HF_NAMED, HF_DROPPED };

/*
 * Gives @t its artifact's name, row order and *ret_rank, its place in the artifact. HF_DROPPED: a
 * buffer that llama.cpp computes by itself. A tensor that a mapped architecture does not have is
 * QD_E_UNSUPPORTED.
 */
int hf_tensor_name(const struct hf_config *c, struct arena *arena, struct tensor *t, uint64_t *ret_rank,
                   struct qd_error *err);

/* tokenizer.ggml.*: vocab_spm.json, tokenizer.json or none, whichever of the companions is there. */
int hf_tokenizer_put(struct source *s, const struct hf_config *c, struct meta_build *b, struct qd_error *err);

/* Files beside the weights that we read; none is required. */
extern const struct probe_file hf_companions[];
extern const size_t hf_n_companions;

#endif
