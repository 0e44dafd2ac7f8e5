/* A vocabulary on its way from Hugging Face's files to tokenizer.ggml.*: the lists that llama.cpp wants, by token id.
 */
#ifndef QUANTD_QUANT_HF_VOCABULARY_H
#define QUANTD_QUANT_HF_VOCABULARY_H

#include "quant/format/hf.h"
#include "quant/format/json.h"

/* llama.cpp:include/llama.h, enum llama_token_type */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE,
    TOKEN_TYPE_MAX = TOKEN_BYTE
};

struct vocabulary {
    struct arena *arena;  /* borrowed */
    struct bytes *tokens; /* [n]; data NULL: no token has this id */
    float *scores;        /* [n] */
    int32_t *types;       /* [n]; 0: not said */
    size_t n, room;
    struct bytes *merges; /* byte-level BPE: "left right" */
    size_t n_merges, merges_room;
    const char *model;                  /* tokenizer.ggml.model */
    const char *pre;                    /* tokenizer.ggml.pre */
    int64_t bos, eos, unknown, padding; /* HF_ABSENT: not said */
    int add_bos, add_eos, add_space;    /* 0, 1, HF_ABSENT */
    const char *chat_template;          /* NULL: none */
};

/* Makes room for token @id; false, with the stream failed, beyond the limit or the budget. */
bool vocabulary_reserve(struct stream *st, struct vocabulary *v, uint64_t id);

/* A copy of @n_items in the arena with room for @room; NULL when the budget is used up. */
void *vocabulary_grown(struct arena *arena, const void *list, size_t n_items, size_t room, size_t item_bytes);

/* tokenizer.json and, where it is there, tokenizer_config.json (@config_file, or -1). */
int tokenizer_json_read(struct stream *st, struct source *s, int config_file, struct vocabulary *v);

#endif
