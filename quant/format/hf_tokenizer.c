/* tokenizer.ggml.* from vocab_spm.json or tokenizer.json. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/hf_vocabulary.h"
#include "quant/limits.h"

const struct probe_file hf_companions[] = {
    {.role = "config", .name = "config.json"},
    {.role = "tokenizer", .name = "vocab_spm.json"},
    {.role = "tokenizer", .name = "tokenizer.json"},
    {.role = "tokenizer", .name = "tokenizer_config.json"},
};
const size_t hf_n_companions = sizeof hf_companions / sizeof hf_companions[0];

void *vocabulary_grown(struct arena *arena, const void *list, size_t n_items, size_t room, size_t item_bytes)
{
    uint64_t n_bytes;
    void *larger = checked_mul(n_items, item_bytes, &n_bytes) ? arena_alloc(arena, room, item_bytes) : NULL;
    if (larger && n_items)
        memcpy(larger, list, (size_t)n_bytes);
    return larger;
}

bool vocabulary_reserve(struct stream *st, struct vocabulary *v, uint64_t id)
{
    if (id < v->room)
        return true;
    if (id >= LIMIT_TOKENS) {
        (void)stream_fail(st, QD_E_LIMIT, st->at, "token id %" PRIu64 "; the limit is %d", id,
                          LIMIT_TOKENS); /* false says it */
        return false;
    }
    size_t room = v->room ? v->room : 512;
    while (room <= id)
        room *= 2;
    struct bytes *tokens = vocabulary_grown(v->arena, v->tokens, v->n, room, sizeof *tokens);
    float *scores = vocabulary_grown(v->arena, v->scores, v->n, room, sizeof *scores);
    int32_t *types = vocabulary_grown(v->arena, v->types, v->n, room, sizeof *types);
    if (!tokens || !scores || !types) {
        (void)stream_fail_budget(st); /* false says it */
        return false;
    }
    v->tokens = tokens;
    v->scores = scores;
    v->types = types;
    v->room = room;
    return true;
}

static void read_token(struct json *j, struct vocabulary *v, uint64_t id)
{
    if (!json_text(j))
        return;
    v->tokens[id].n = j->n_text;
    v->tokens[id].data = (const uint8_t *)arena_text(v->arena, (struct bytes){j->text.data, j->n_text});
    if (!v->tokens[id].data)
        (void)stream_fail_budget(j->st); /* sticks in the stream */
}

static void read_score(struct json *j, struct vocabulary *v, uint64_t id)
{
    double score;
    if (json_number(j, &score))
        v->scores[id] = (float)score;
}

static void read_type(struct json *j, struct vocabulary *v, uint64_t id)
{
    uint64_t type, start = j->st->at;
    if (!json_u64(j, &type))
        return;
    if (type < TOKEN_NORMAL || type > TOKEN_TYPE_MAX)
        (void)stream_fail(j->st, QD_E_CORRUPT, start, "token type %" PRIu64 " does not exist", type); /* sticks */
    else
        v->types[id] = (int32_t)type;
}

/* A list whose item i belongs to token i. Returns its length. */
static size_t read_list(struct json *j, struct vocabulary *v,
                        void (*read_one)(struct json *, struct vocabulary *, uint64_t))
{
    size_t n = 0;
    (void)json_begin(j, '['); /* sticks in the stream */
    while (!j->st->result && json_item(j)) {
        stream_doing(j->st, "token", n);
        if (!vocabulary_reserve(j->st, v, n))
            break;
        v->n = v->n > n ? v->n : n + 1;
        read_one(j, v, n++);
    }
    return n;
}

/* {"tokens": [...], "scores": [...], "types": [...]}: SentencePiece's pieces in order of their ids. */
static int read_spm(struct stream *st, struct vocabulary *v)
{
    static const struct {
        const char *key;
        void (*read_one)(struct json *, struct vocabulary *, uint64_t);
    } lists[] = {{"tokens", read_token}, {"scores", read_score}, {"types", read_type}};
    CLEANUP(json_clear) struct json j = {.st = st};
    unsigned seen = 0;
    size_t n[3] = {0};
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        unsigned k = 0;
        while (k < 3 && strcmp(json_key(&j), lists[k].key) != 0)
            k++;
        if (k < 3 && seen & 1u << k)
            return stream_fail(st, QD_E_CORRUPT, st->at, "\"%s\" stands twice", lists[k].key);
        seen |= 1u << k;
        if (k < 3)
            n[k] = read_list(&j, v, lists[k].read_one);
        else
            (void)json_skip(&j); /* sticks in the stream */
    }
    if (!json_end(&j))
        return st->result;
    if (n[0] == 0 || n[0] != n[1] || n[0] != n[2])
        return stream_fail(st, QD_E_CORRUPT, 0, "%zu tokens, %zu scores and %zu types; there must be as many of each",
                           n[0], n[1], n[2]);
    v->model = "llama";
    v->pre = "default";
    v->add_bos = v->add_space = 1;
    v->add_eos = 0;
    return 0;
}

/* Ids without a token, up to the rows of the embedding, get a name of their own, as llama.cpp's conversion gives them.
 */
static int fill(struct stream *st, struct vocabulary *v, int64_t vocab_size)
{
    if (vocab_size != HF_ABSENT && (size_t)vocab_size < v->n)
        return stream_fail(st, QD_E_CORRUPT, 0, "%zu tokens, config.json's vocab_size is %" PRId64, v->n, vocab_size);
    if (vocab_size > 0 && !vocabulary_reserve(st, v, (uint64_t)vocab_size - 1))
        return st->result;
    v->n = vocab_size > 0 ? (size_t)vocab_size : v->n;
    for (size_t i = 0; i < v->n; i++) {
        char name[32];
        if (v->tokens[i].data)
            continue;
        int length = snprintf(name, sizeof name, "[PAD%zu]", i);
        v->tokens[i].n = (size_t)length;
        v->tokens[i].data =
            (const uint8_t *)arena_text(v->arena, (struct bytes){(const uint8_t *)name, (size_t)length});
        if (!v->tokens[i].data)
            return stream_fail_budget(st);
        v->scores[i] = -10000.0f;
        v->types[i] = TOKEN_UNUSED;
    }
    return 0;
}

static void put_token_id(struct meta_build *b, const char *key, int64_t id, int64_t otherwise, size_t n_tokens)
{
    int64_t chosen = id != HF_ABSENT ? id : otherwise;
    if (chosen >= 0 && (size_t)chosen < n_tokens)
        meta_put_u32(b, "tokenizer.ggml.", key, (uint32_t)chosen);
}

static void put_flag(struct meta_build *b, const char *key, int flag)
{
    if (flag != HF_ABSENT)
        meta_put_bool(b, "tokenizer.ggml.", key, flag != 0);
}

static int64_t first_unknown(const struct vocabulary *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->types[i] == TOKEN_UNKNOWN)
            return (int64_t)i;
    return HF_ABSENT;
}

static void put_vocabulary(const struct vocabulary *v, const struct hf_config *c, struct meta_build *b)
{
    meta_put_text(b, "tokenizer.ggml.", "model", v->model);
    meta_put_text(b, "tokenizer.ggml.", "pre", v->pre);
    meta_put_array(b, "tokenizer.ggml.tokens", META_STRING, v->n, v->tokens);
    if (!v->n_merges) /* byte-level BPE goes by merges, SentencePiece by scores */
        meta_put_array(b, "tokenizer.ggml.scores", META_F32, v->n, v->scores);
    meta_put_array(b, "tokenizer.ggml.token_type", META_I32, v->n, v->types);
    if (v->n_merges)
        meta_put_array(b, "tokenizer.ggml.merges", META_STRING, v->n_merges, v->merges);
    put_token_id(b, "bos_token_id", v->bos, c->bos, v->n);
    put_token_id(b, "eos_token_id", v->eos, c->eos, v->n);
    put_token_id(b, "unknown_token_id", v->unknown, first_unknown(v), v->n);
    put_token_id(b, "padding_token_id", v->padding, c->pad, v->n);
    put_flag(b, "add_bos_token", v->add_bos);
    put_flag(b, "add_eos_token", v->add_eos);
    put_flag(b, "add_space_prefix", v->add_space);
    if (v->chat_template)
        meta_put_text(b, "tokenizer.", "chat_template", v->chat_template);
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
    int spm = source_find(s, "vocab_spm.json"), file = spm >= 0 ? spm : source_find(s, "tokenizer.json");
    if (file < 0 || (spm < 0 && !c->mapped)) { /* what llama.cpp cannot run needs no tokenizer of its kind */
        put_none(c, b);
        return 0;
    }
    uint64_t n_bytes = source_bytes(s, (size_t)file);
    if (n_bytes > LIMIT_SIDE_FILE_BYTES) {
        int r = err_new(err, QD_E_LIMIT, "'%s' has %" PRIu64 " bytes; the limit is %d", source_name(s, (size_t)file),
                        n_bytes, LIMIT_SIDE_FILE_BYTES);
        return err_hint(err, r, "no known tokenizer is so large: fetch the file again");
    }
    CLEANUP(free) struct stream *st = stream_new(s, (size_t)file, 0, n_bytes, err);
    if (!st)
        return QD_E_NO_MEMORY;
    struct vocabulary v = {.arena = b->arena,
                           .bos = HF_ABSENT,
                           .eos = HF_ABSENT,
                           .unknown = HF_ABSENT,
                           .padding = HF_ABSENT,
                           .add_bos = HF_ABSENT,
                           .add_eos = HF_ABSENT,
                           .add_space = HF_ABSENT};
    stream_doing(st, "vocabulary", 0);
    int r = spm >= 0 ? read_spm(st, &v) : tokenizer_json_read(st, s, source_find(s, "tokenizer_config.json"), &v);
    if (r == 0)
        r = fill(st, &v, c->vocab_size);
    if (r == 0)
        put_vocabulary(&v, c, b);
    return r;
}
