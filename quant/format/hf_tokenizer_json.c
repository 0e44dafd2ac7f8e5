/*
 * tokenizer.json of the `tokenizers` library: BPE with byte fall-back (SentencePiece in other
 * clothes: Llama 2, Mistral) and byte-level BPE (Llama 3, Qwen). llama.cpp:conversion/base.py and
 * gguf-py/gguf/vocab.py say what its runtime expects; what it cannot run is refused.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "quant/format/hf_vocabulary.h"
#include "kernels/core/name_set.h"
#include "quant/limits.h"

/* The pattern that splits text before BPE, and llama.cpp's name of it (llama.cpp:src/llama-vocab.cpp). */
static const struct {
    const char *pattern;
    const char *pre;
} splits[] = {
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "qwen2"},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "llama-bpe"},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?["
     "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "tekken"},
};

struct tokenizer {
    struct vocabulary *v;
    bool bpe, byte_fallback;
    unsigned n_patterns, n_other_splitters; /* of pre_tokenizer */
    const char *pre;                        /* of the last pattern; NULL: unknown */
    bool byte_level;
    char unknown[HF_TEXT_MAX];
};

static bool is_key(const struct json *j, const char *key)
{
    return strcmp(json_key(j), key) == 0;
}

/* The next value as text into @dst; a longer one is none that we know. Other kinds are skipped. */
static void short_text(struct json *j, char dst[HF_TEXT_MAX])
{
    dst[0] = '\0';
    if (json_peek(j) != JSON_TEXT) {
        (void)json_skip(j); /* sticks in the stream */
        return;
    }
    if (json_text(j) && j->n_text < HF_TEXT_MAX)
        memcpy(dst, j->text.data, j->n_text + 1);
}

static bool flag(struct json *j)
{
    bool v = false;
    if (json_peek(j) == JSON_BOOL)
        (void)json_bool(j, &v); /* sticks in the stream */
    else
        (void)json_skip(j); /* null: false */
    return v;
}

/* Sets token @id; a vocabulary may not name an id twice, an added token may repeat it. */
static void set_token(struct stream *st, struct vocabulary *v, uint64_t id, struct bytes text, int32_t type,
                      bool may_repeat)
{
    if (!vocabulary_reserve(st, v, id))
        return;
    v->n = v->n > id ? v->n : (size_t)id + 1;
    if (v->tokens[id].data && !may_repeat) {
        (void)stream_fail(st, QD_E_CORRUPT, st->at, "token id %" PRIu64 " stands twice", id); /* sticks in the stream */
        return;
    }
    const char *copy = arena_text(v->arena, text);
    if (!copy) {
        (void)stream_fail_budget(st); /* sticks in the stream */
        return;
    }
    v->tokens[id] = (struct bytes){(const uint8_t *)copy, text.n};
    if (type)
        v->types[id] = type;
}

/*
 * Added tokens that ought to be control tokens and are not marked so, by the look of them (base.py:
 * does_token_look_special).
 */
static bool looks_special(struct bytes t)
{
    static const char *const names[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (t.n == strlen(names[i]) && memcmp(t.data, names[i], t.n) == 0)
            return true;
    bool bars = t.n >= 4 && memcmp(t.data, "<|", 2) == 0 && memcmp(t.data + t.n - 2, "|>", 2) == 0;
    return bars || (t.n >= 8 && memcmp(t.data, "<unused", 7) == 0 && t.data[t.n - 1] == '>');
}

/* {"id": N, "content": "...", "special": true, ...} */
static void read_added(struct json *j, struct tokenizer *t)
{
    CLEANUP(buffer_clear) struct buffer content = {0};
    uint64_t id = UINT64_MAX, start = j->st->at;
    bool special = false;
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j)) {
        if (is_key(j, "id"))
            (void)json_u64(j, &id); /* sticks in the stream */
        else if (is_key(j, "special"))
            special = flag(j);
        else if (!is_key(j, "content"))
            (void)json_skip(j); /* sticks in the stream */
        else if (json_text(j))
            buffer_put(&content, j->text.data, j->n_text);
    }
    if (!j->st->result && (id == UINT64_MAX || content.n == 0))
        (void)stream_fail(j->st, QD_E_CORRUPT, start,
                          "an added token without id or content"); /* sticks in the stream */
    if (j->st->result)
        return;
    if (content.failed) {
        (void)stream_fail_budget(j->st); /* sticks in the stream */
        return;
    }
    bool control = special || looks_special(buffer_span(&content));
    set_token(j->st, t->v, id, buffer_span(&content), control ? TOKEN_CONTROL : TOKEN_USER_DEFINED, true);
}

static void read_all_added(struct json *j, struct tokenizer *t)
{
    uint64_t i = 0;
    (void)json_begin(j, '['); /* sticks in the stream */
    while (!j->st->result && json_item(j)) {
        stream_doing(j->st, "added token", i++);
        read_added(j, t);
    }
}

static void read_vocab(struct json *j, struct tokenizer *t)
{
    CLEANUP(buffer_clear) struct buffer key = {0};
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j)) {
        uint64_t id;
        stream_doing(j->st, "token", t->v->n);
        key.n = 0;
        buffer_put(&key, j->text.data, j->n_text);
        if (key.failed)
            (void)stream_fail_budget(j->st); /* sticks in the stream */
        if (json_u64(j, &id)) {
            bool added = id < t->v->n && t->v->types[id]; /* listed before as an added token */
            set_token(j->st, t->v, id, buffer_span(&key), 0, added);
        }
    }
}

static bool merges_reserve(struct json *j, struct vocabulary *v)
{
    if (v->n_merges < v->merges_room)
        return true;
    size_t room = v->merges_room ? 2 * v->merges_room : 512;
    struct bytes *larger =
        room > 4 * LIMIT_TOKENS ? NULL : vocabulary_grown(v->arena, v->merges, v->n_merges, room, sizeof *larger);
    if (!larger) {
        (void)stream_fail_budget(j->st); /* false says it */
        return false;
    }
    v->merges = larger;
    v->merges_room = room;
    return true;
}

/* One half of a pair; a space in it is written as U+0120, as byte-level BPE writes one. */
static void put_half(struct json *j, struct buffer *pair)
{
    if (!json_text(j))
        return;
    for (size_t i = 0; i < j->n_text; i++)
        if (j->text.data[i] == ' ')
            buffer_put(pair, "\xc4\xa0", 2);
        else
            buffer_put_u8(pair, j->text.data[i]);
}

/* "left right", or since transformers 4.45 ["left", "right"]. */
static void read_merge(struct json *j, struct vocabulary *v)
{
    CLEANUP(buffer_clear) struct buffer pair = {0};
    uint64_t start = j->st->at;
    if (json_peek(j) == JSON_ARRAY) {
        (void)json_begin(j, '['); /* peeked */
        int n = 0;
        for (; !j->st->result && json_item(j); n++) {
            if (n)
                buffer_put_u8(&pair, ' ');
            put_half(j, &pair);
        }
        if (n != 2)
            (void)stream_fail(j->st, QD_E_CORRUPT, start, "a merge of %d tokens", n); /* sticks in the stream */
    } else if (json_text(j)) {
        buffer_put(&pair, j->text.data, j->n_text);
    }
    if (j->st->result || !merges_reserve(j, v))
        return;
    const uint8_t *copy = pair.failed ? NULL : (const uint8_t *)arena_text(v->arena, buffer_span(&pair));
    if (!copy)
        (void)stream_fail_budget(j->st); /* sticks in the stream */
    else
        v->merges[v->n_merges++] = (struct bytes){copy, pair.n};
}

static void read_merges(struct json *j, struct tokenizer *t)
{
    (void)json_begin(j, '['); /* sticks in the stream */
    while (!j->st->result && json_item(j)) {
        stream_doing(j->st, "merge", t->v->n_merges);
        read_merge(j, t->v);
    }
}

static void read_model(struct json *j, struct tokenizer *t)
{
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j)) {
        if (is_key(j, "type")) {
            char type[HF_TEXT_MAX];
            short_text(j, type);
            t->bpe = strcmp(type, "BPE") == 0;
        } else if (is_key(j, "byte_fallback"))
            t->byte_fallback = flag(j);
        else if (is_key(j, "unk_token"))
            short_text(j, t->unknown);
        else if (is_key(j, "vocab") && json_peek(j) == JSON_OBJECT)
            read_vocab(j, t);
        else if (is_key(j, "merges"))
            read_merges(j, t);
        else
            (void)json_skip(j); /* sticks in the stream */
    }
}

static void note_pattern(struct json *j, struct tokenizer *t)
{
    const char *pattern = json_text(j);
    t->n_patterns++;
    t->pre = NULL;
    for (size_t i = 0; pattern && i < sizeof splits / sizeof splits[0]; i++)
        if (strcmp(pattern, splits[i].pattern) == 0)
            t->pre = splits[i].pre;
}

static void note_type(struct json *j, struct tokenizer *t)
{
    char type[HF_TEXT_MAX];
    short_text(j, type);
    if (strcmp(type, "ByteLevel") == 0)
        t->byte_level = true;
    else if (strcmp(type, "Sequence") != 0 && strcmp(type, "Split") != 0)
        t->n_other_splitters++;
}

/* Whatever the nesting: patterns and kinds of the steps. As deep as the JSON reader allows. */
static void scan_pre_tokenizer(struct json *j, struct tokenizer *t)
{
    enum json_kind kind = json_peek(j);
    if (kind == JSON_ARRAY) {
        (void)json_begin(j, '['); /* peeked */
        while (!j->st->result && json_item(j))
            scan_pre_tokenizer(j, t);
    } else if (kind == JSON_OBJECT) {
        (void)json_begin(j, '{'); /* peeked */
        while (!j->st->result && json_member(j)) {
            if (is_key(j, "Regex"))
                note_pattern(j, t);
            else if (is_key(j, "type"))
                note_type(j, t);
            else
                scan_pre_tokenizer(j, t);
        }
    } else {
        (void)json_skip(j); /* sticks in the stream */
    }
}

/* "<0x0A>" */
static bool is_byte_token(struct bytes t)
{
    return t.n == 6 && memcmp(t.data, "<0x", 3) == 0 && isxdigit(t.data[3]) && isxdigit(t.data[4]) && t.data[5] == '>';
}

static void finish_types(struct tokenizer *t)
{
    struct vocabulary *v = t->v;
    for (size_t i = 0; i < v->n; i++) {
        struct bytes text = v->tokens[i];
        if (!text.data)
            continue;
        if (t->byte_fallback && is_byte_token(text))
            v->types[i] = TOKEN_BYTE;
        else if (t->unknown[0] && t->byte_fallback && text.n == strlen(t->unknown) &&
                 memcmp(text.data, t->unknown, text.n) == 0)
            v->types[i] = TOKEN_UNKNOWN;
        else if (!v->types[i])
            v->types[i] = TOKEN_NORMAL;
    }
}

/*
 * llama.cpp's SentencePiece merges the pair whose token has the highest score. Merges are listed by
 * rank, so the token that merge i makes gets score -i; tokens that no merge makes are never asked for.
 */
static int scores_from_merges(struct stream *st, struct vocabulary *v)
{
    CLEANUP(name_set_clear) struct name_set names = {0};
    CLEANUP(buffer_clear) struct buffer joined = {0};
    if (name_set_init(&names, v->n) < 0)
        return stream_fail_budget(st);
    for (size_t i = 0; i < v->n; i++) {
        size_t earlier;
        v->scores[i] = v->types[i] == TOKEN_NORMAL ? -(float)v->n_merges : 0.0f;
        if (v->tokens[i].data && name_set_add(&names, (const char *)v->tokens[i].data, i, &earlier) < 0)
            return stream_fail_budget(st);
    }
    for (size_t i = v->n_merges; i-- > 0;) { /* backwards: the first merge that makes a token has the last word */
        const uint8_t *space = v->merges[i].n > 1 ? memchr(v->merges[i].data + 1, ' ', v->merges[i].n - 1) : NULL;
        if (!space)
            return stream_fail(st, QD_E_CORRUPT, 0, "merge %zu is no pair", i);
        joined.n = 0;
        buffer_put(&joined, v->merges[i].data, (size_t)(space - v->merges[i].data));
        buffer_put(&joined, space + 1, (size_t)(v->merges[i].data + v->merges[i].n - space - 1));
        buffer_put_u8(&joined, 0);
        int64_t id = joined.failed ? -1 : name_set_find(&names, (const char *)joined.data);
        if (id >= 0)
            v->scores[id] = -(float)i;
    }
    v->n_merges = 0; /* the scores say it */
    return joined.failed ? stream_fail_budget(st) : 0;
}

static int refuse(struct stream *st, const char *what)
{
    int r = stream_fail(st, QD_E_UNSUPPORTED, 0, "%s", what);
    return err_hint(
        st->err, r,
        "convert the model to GGUF in f16 or bf16 with llama.cpp's convert_hf_to_gguf.py, and give that file");
}

static int decide(struct stream *st, struct tokenizer *t)
{
    struct vocabulary *v = t->v;
    stream_doing(st, "tokenizer", 0);
    if (!t->bpe || v->n == 0 || v->n_merges == 0)
        return refuse(st, "only BPE tokenizers with merges are known");
    finish_types(t);
    if (t->byte_fallback) {
        v->model = "llama";
        v->pre = "default";
        v->add_bos = v->add_bos == HF_ABSENT ? 1 : v->add_bos;
        return scores_from_merges(st, v);
    }
    v->model = "gpt2";
    v->pre = t->n_patterns == 0 ? "gpt-2" : t->pre;
    if (!t->byte_level || t->n_patterns > 1 || t->n_other_splitters || !v->pre)
        return refuse(st, "its pre_tokenizer splits text in a way that llama.cpp has no name for");
    return 0;
}

/* --- tokenizer_config.json --- */

/* The id of the token whose text comes next, as a text or as {"content": text}. */
static int64_t named_token(struct json *j, const struct vocabulary *v)
{
    char name[HF_TEXT_MAX] = "";
    if (json_peek(j) == JSON_OBJECT) {
        (void)json_begin(j, '{'); /* peeked */
        while (!j->st->result && json_member(j)) {
            if (is_key(j, "content"))
                short_text(j, name);
            else
                (void)json_skip(j); /* sticks in the stream */
        }
    } else {
        short_text(j, name);
    }
    size_t n = strlen(name);
    for (size_t i = 0; n && i < v->n; i++)
        if (v->tokens[i].n == n && v->tokens[i].data && memcmp(v->tokens[i].data, name, n) == 0)
            return (int64_t)i;
    return HF_ABSENT;
}

static void read_template(struct json *j, struct vocabulary *v)
{
    if (json_peek(j) != JSON_TEXT) {
        (void)json_skip(j); /* several named ones, or null */
        return;
    }
    if (!json_text(j))
        return;
    v->chat_template = arena_text(v->arena, (struct bytes){j->text.data, j->n_text});
    if (!v->chat_template)
        (void)stream_fail_budget(j->st); /* sticks in the stream */
}

static int read_tokenizer_config(struct source *s, size_t file, struct vocabulary *v, struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, file, 0, source_bytes(s, file), err);
    if (!st)
        return QD_E_NO_MEMORY;
    CLEANUP(json_clear) struct json j = {.st = st};
    stream_doing(st, "tokenizer configuration", 0);
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        if (is_key(&j, "bos_token"))
            v->bos = named_token(&j, v);
        else if (is_key(&j, "eos_token"))
            v->eos = named_token(&j, v);
        else if (is_key(&j, "unk_token"))
            v->unknown = named_token(&j, v);
        else if (is_key(&j, "pad_token"))
            v->padding = named_token(&j, v);
        else if (is_key(&j, "add_bos_token") && json_peek(&j) == JSON_BOOL)
            v->add_bos = flag(&j);
        else if (is_key(&j, "add_eos_token") && json_peek(&j) == JSON_BOOL)
            v->add_eos = flag(&j);
        else if (is_key(&j, "add_prefix_space") && json_peek(&j) == JSON_BOOL)
            v->add_space = flag(&j);
        else if (is_key(&j, "chat_template"))
            read_template(&j, v);
        else
            (void)json_skip(&j); /* sticks in the stream */
    }
    (void)json_end(&j); /* sticks in the stream */
    return st->result;
}

int tokenizer_json_read(struct stream *st, struct source *s, int config_file, struct vocabulary *v)
{
    CLEANUP(json_clear) struct json j = {.st = st};
    struct tokenizer t = {.v = v};
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        if (is_key(&j, "added_tokens") && json_peek(&j) == JSON_ARRAY)
            read_all_added(&j, &t);
        else if (is_key(&j, "model"))
            read_model(&j, &t);
        else if (is_key(&j, "pre_tokenizer"))
            scan_pre_tokenizer(&j, &t);
        else
            (void)json_skip(&j); /* sticks in the stream */
    }
    if (!json_end(&j))
        return st->result;
    if (config_file >= 0) {
        int r = read_tokenizer_config(s, (size_t)config_file, v, st->err);
        if (r < 0)
            return r;
    }
    return decide(st, &t);
}
