#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/format/hf.h"
#include "quant/format/json.h"
#include "quant/limits.h"

/* llama.cpp:include/llama.h, enum llama_token_type */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_UNUSED = 5, TOKEN_TYPE_MAX = 6 };

const struct probe_file hf_companions[] = {
    {.role = "config", .name = "config.json"},
    {.role = "tokenizer", .name = "vocab_spm.json"},
};
const size_t hf_n_companions = sizeof hf_companions / sizeof hf_companions[0];

/* A vocabulary being read; each list grows in the arena on its own. */
struct vocabulary {
    struct arena *arena;
    struct bytes *tokens;
    float *scores;
    int32_t *types;
    size_t n_tokens, n_scores, n_types;
};

/* Room for one more item behind @n: the list doubles at powers of two. NULL when the budget is used up. */
static void *grown(struct arena *arena, void *list, size_t n, size_t item_bytes)
{
    if (n && n & (n - 1))
        return list;
    void *larger = n >= LIMIT_TOKENS ? NULL : arena_alloc(arena, n ? 2 * n : 1, item_bytes);
    if (larger && n)
        memcpy(larger, list, n * item_bytes);
    return larger;
}

static void read_token(struct json *j, struct vocabulary *v)
{
    const char *text = json_text(j);
    if (!text)
        return;
    struct bytes *list = grown(v->arena, v->tokens, v->n_tokens, sizeof *list);
    const char *copy = list ? arena_text(v->arena, (struct bytes){j->text.data, j->n_text}) : NULL;
    if (!copy) {
        (void)stream_fail_budget(j->st); /* sticks in the stream */
        return;
    }
    v->tokens = list;
    v->tokens[v->n_tokens++] = (struct bytes){(const uint8_t *)copy, j->n_text};
}

static void read_score(struct json *j, struct vocabulary *v)
{
    double score;
    if (!json_number(j, &score))
        return;
    float *list = grown(v->arena, v->scores, v->n_scores, sizeof *list);
    if (!list) {
        (void)stream_fail_budget(j->st); /* sticks in the stream */
        return;
    }
    v->scores = list;
    v->scores[v->n_scores++] = (float)score;
}

static void read_type(struct json *j, struct vocabulary *v)
{
    uint64_t type, start = j->st->at;
    if (!json_u64(j, &type))
        return;
    int32_t *list = grown(v->arena, v->types, v->n_types, sizeof *list);
    if (type < TOKEN_NORMAL || type > TOKEN_TYPE_MAX)
        (void)stream_fail(j->st, QD_E_CORRUPT, start, "token type %" PRIu64 " does not exist", type); /* sticks */
    else if (!list)
        (void)stream_fail_budget(j->st); /* sticks in the stream */
    else {
        v->types = list;
        v->types[v->n_types++] = (int32_t)type;
    }
}

static void read_list(struct json *j, struct vocabulary *v, void (*read_one)(struct json *, struct vocabulary *))
{
    uint64_t i = 0;
    (void)json_begin(j, '['); /* sticks in the stream */
    while (!j->st->result && json_item(j)) {
        stream_doing(j->st, "token", i++);
        read_one(j, v);
    }
}

/* {"tokens": [...], "scores": [...], "types": [...]}: SentencePiece's pieces in order of their ids. */
static int read_spm(struct stream *st, struct vocabulary *v)
{
    static const struct {
        const char *key;
        void (*read_one)(struct json *, struct vocabulary *);
    } lists[] = {{"tokens", read_token}, {"scores", read_score}, {"types", read_type}};
    CLEANUP(json_clear) struct json j = {.st = st};
    unsigned seen = 0;
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        unsigned k = 0;
        while (k < 3 && strcmp(json_key(&j), lists[k].key) != 0)
            k++;
        if (k < 3 && seen & 1u << k)
            return stream_fail(st, QD_E_CORRUPT, st->at, "\"%s\" stands twice", lists[k].key);
        seen |= 1u << k;
        if (k < 3)
            read_list(&j, v, lists[k].read_one);
        else
            (void)json_skip(&j); /* sticks in the stream */
    }
    if (!json_end(&j))
        return st->result;
    if (v->n_tokens == 0 || v->n_tokens != v->n_scores || v->n_tokens != v->n_types)
        return stream_fail(st, QD_E_CORRUPT, 0, "%zu tokens, %zu scores and %zu types; there must be as many of each", v->n_tokens,
                           v->n_scores, v->n_types);
    return 0;
}

/* Rows of the embedding without a token get a name of their own, as llama.cpp's conversion does. */
static int pad(struct stream *st, struct vocabulary *v, int64_t vocab_size)
{
    if (vocab_size == HF_ABSENT || (size_t)vocab_size == v->n_tokens)
        return 0;
    if ((size_t)vocab_size < v->n_tokens || vocab_size > LIMIT_TOKENS)
        return stream_fail(st, QD_E_CORRUPT, 0, "%zu tokens, config.json's vocab_size is %" PRId64, v->n_tokens, vocab_size);
    size_t n = (size_t)vocab_size;
    struct bytes *tokens = arena_alloc(v->arena, n, sizeof *tokens);
    float *scores = arena_alloc(v->arena, n, sizeof *scores);
    int32_t *types = arena_alloc(v->arena, n, sizeof *types);
    if (!tokens || !scores || !types)
        return stream_fail_budget(st);
    memcpy(tokens, v->tokens, v->n_tokens * sizeof *tokens);
    memcpy(scores, v->scores, v->n_tokens * sizeof *scores);
    memcpy(types, v->types, v->n_tokens * sizeof *types);
    for (size_t i = v->n_tokens; i < n; i++) {
        char name[32];
        int length = snprintf(name, sizeof name, "[PAD%zu]", i);
        tokens[i] = (struct bytes){(const uint8_t *)arena_text(v->arena, (struct bytes){(const uint8_t *)name, (size_t)length}), (size_t)length};
        if (!tokens[i].data)
            return stream_fail_budget(st);
        scores[i] = -10000.0f;
        types[i] = TOKEN_UNUSED;
    }
    *v = (struct vocabulary){v->arena, tokens, scores, types, n, n, n};
    return 0;
}

static void put_token_id(struct meta_build *b, const char *key, int64_t id, size_t n_tokens)
{
    if (id >= 0 && (size_t)id < n_tokens)
        meta_put_u32(b, "tokenizer.ggml.", key, (uint32_t)id);
}

static int64_t first_of_type(const struct vocabulary *v, int32_t type)
{
    for (size_t i = 0; i < v->n_types; i++)
        if (v->types[i] == type)
            return (int64_t)i;
    return HF_ABSENT;
}

static void put_spm(const struct vocabulary *v, const struct hf_config *c, struct meta_build *b)
{
    meta_put_text(b, "tokenizer.ggml.", "model", "llama");
    meta_put_text(b, "tokenizer.ggml.", "pre", "default");
    meta_put_array(b, "tokenizer.ggml.tokens", META_STRING, v->n_tokens, v->tokens);
    meta_put_array(b, "tokenizer.ggml.scores", META_F32, v->n_tokens, v->scores);
    meta_put_array(b, "tokenizer.ggml.token_type", META_I32, v->n_tokens, v->types);
    put_token_id(b, "bos_token_id", c->bos, v->n_tokens);
    put_token_id(b, "eos_token_id", c->eos, v->n_tokens);
    put_token_id(b, "unknown_token_id", first_of_type(v, TOKEN_UNKNOWN), v->n_tokens);
    put_token_id(b, "padding_token_id", c->pad, v->n_tokens);
    meta_put_bool(b, "tokenizer.ggml.", "add_bos_token", true);
    meta_put_bool(b, "tokenizer.ggml.", "add_eos_token", false);
    meta_put_bool(b, "tokenizer.ggml.", "add_space_prefix", true);
}

/* Without a tokenizer llama.cpp still loads the model, when it is told so. */
static void put_none(const struct hf_config *c, struct meta_build *b)
{
    if (!c->mapped)
        return;
    if (!c->mapped->writes_rope_dim) { /* else it stands there already */
        char key[HF_TEXT_MAX];
        (void)snprintf(key, sizeof key, "%s.vocab_size", c->mapped->name); /* a name of our table */
        meta_put_u32(b, "", key, (uint32_t)c->vocab_size);
    }
    meta_put_text(b, "tokenizer.ggml.", "model", "none");
}

int hf_tokenizer_put(struct source *s, const struct hf_config *c, struct meta_build *b, struct qd_error *err)
{
    int file = source_find(s, "vocab_spm.json");
    if (file < 0) {
        put_none(c, b);
        return 0;
    }
    if (source_bytes(s, (size_t)file) > LIMIT_SIDE_FILE_BYTES)
        return err_new(err, QD_E_LIMIT, "'%s' has %" PRIu64 " bytes; the limit is %d", source_name(s, (size_t)file),
                       source_bytes(s, (size_t)file), LIMIT_SIDE_FILE_BYTES);
    CLEANUP(free) struct stream *st = stream_new(s, (size_t)file, 0, source_bytes(s, (size_t)file), err);
    if (!st)
        return QD_E_NO_MEMORY;
    struct vocabulary v = {.arena = b->arena};
    stream_doing(st, "vocabulary", 0);
    int r = read_spm(st, &v);
    if (r == 0)
        r = pad(st, &v, c->vocab_size);
    if (r == 0)
        put_spm(&v, c, b);
    return r;
}
