#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "quant/format/hf.h"
#include "quant/format/json.h"
#include "quant/limits.h"

static const struct hf_architecture architectures[] = {
    {"LlamaForCausalLM", "llama", true, true},
    {"MistralForCausalLM", "llama", true, true},
    {"Qwen2ForCausalLM", "qwen2", false, false},
    {"Qwen3ForCausalLM", "qwen3", false, false},
};

enum field_kind { FIELD_COUNT, FIELD_TOKEN, FIELD_NUMBER, FIELD_TEXT, FIELD_PATH };

struct field {
    const char *key;
    enum field_kind kind;
    size_t offset;
};

#define FIELD(key, kind, member)                      \
    {                                                 \
        key, kind, offsetof(struct hf_config, member) \
    }
static const struct field config_fields[] = {
    FIELD("model_type", FIELD_TEXT, model_type),
    FIELD("_name_or_path", FIELD_PATH, name),
    FIELD("hidden_size", FIELD_COUNT, hidden_size),
    FIELD("intermediate_size", FIELD_COUNT, intermediate_size),
    FIELD("num_hidden_layers", FIELD_COUNT, n_layers),
    FIELD("num_attention_heads", FIELD_COUNT, n_heads),
    FIELD("num_key_value_heads", FIELD_COUNT, n_kv_heads),
    FIELD("head_dim", FIELD_COUNT, head_dim),
    FIELD("vocab_size", FIELD_COUNT, vocab_size),
    FIELD("max_position_embeddings", FIELD_COUNT, context),
    FIELD("bos_token_id", FIELD_TOKEN, bos),
    FIELD("eos_token_id", FIELD_TOKEN, eos),
    FIELD("pad_token_id", FIELD_TOKEN, pad),
    FIELD("rms_norm_eps", FIELD_NUMBER, rms_norm_eps),
    FIELD("rope_theta", FIELD_NUMBER, rope_theta),
};

/* Inside "rope_scaling" (transformers 4) or "rope_parameters" (5). */
static const struct field rope_fields[] = {
    FIELD("rope_type", FIELD_TEXT, rope_type),
    FIELD("type", FIELD_TEXT, rope_type),
    FIELD("rope_theta", FIELD_NUMBER, rope_theta),
    FIELD("factor", FIELD_NUMBER, rope_factor),
    FIELD("original_max_position_embeddings", FIELD_COUNT, rope_original_context),
};
#undef FIELD

static void keep_text(struct json *j, char dst[HF_TEXT_MAX], bool last_part)
{
    const char *text = json_text(j);
    if (!text)
        return;
    const char *slash = last_part ? strrchr(text, '/') : NULL;
    (void)snprintf(dst, HF_TEXT_MAX, "%s", slash ? slash + 1 : text); /* a longer one is none that we know */
}

static void read_count(struct json *j, const struct field *f, int64_t *dst)
{
    uint64_t v;
    uint64_t start = j->st->at;
    if (!json_u64(j, &v))
        return;
    if (v > INT32_MAX || (v == 0 && f->kind == FIELD_COUNT))
        (void)stream_fail(j->st, QD_E_CORRUPT, start, "'%s' is %llu", f->key,
                          (unsigned long long)v); /* sticks in the stream */
    else
        *dst = (int64_t)v;
}

static void read_field(struct json *j, const struct field *f, struct hf_config *c)
{
    void *dst = (char *)c + f->offset;
    enum json_kind kind = json_peek(j);
    /* null says nothing; several end tokens say nothing that a single key can hold */
    if (kind == JSON_NULL || (f->kind == FIELD_TOKEN && kind != JSON_NUMBER)) {
        (void)json_skip(j); /* sticks in the stream */
        return;
    }
    switch (f->kind) {
    case FIELD_COUNT:
    case FIELD_TOKEN:
        read_count(j, f, dst);
        break;
    case FIELD_NUMBER:
        (void)json_number(j, dst); /* sticks in the stream */
        break;
    case FIELD_TEXT:
    case FIELD_PATH:
        keep_text(j, dst, f->kind == FIELD_PATH);
        break;
    }
}

/* The field of @key; false where the table has none. */
static bool try_fields(struct json *j, const struct field *fields, size_t n, struct hf_config *c)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(json_key(j), fields[i].key) != 0)
            continue;
        read_field(j, &fields[i], c);
        if (j->st->result)
            (void)err_in(j->st->err, j->st->result, "'%s'", fields[i].key); /* the code stays in the stream */
        return true;
    }
    return false;
}

static void read_rope(struct json *j, struct hf_config *c)
{
    if (json_peek(j) != JSON_OBJECT) {
        (void)json_skip(j); /* null */
        return;
    }
    (void)json_begin(j, '{'); /* peeked */
    while (json_member(j))
        if (!try_fields(j, rope_fields, sizeof rope_fields / sizeof rope_fields[0], c))
            (void)json_skip(j); /* sticks in the stream */
}

/* The first architecture of the list. */
static void read_architectures(struct json *j, struct hf_config *c)
{
    if (json_peek(j) != JSON_ARRAY) {
        (void)json_skip(j); /* null */
        return;
    }
    (void)json_begin(j, '['); /* peeked */
    for (int i = 0; json_item(j); i++)
        if (i == 0)
            keep_text(j, c->architecture, false);
        else
            (void)json_skip(j); /* sticks in the stream */
}

static void read_member(struct json *j, struct hf_config *c)
{
    if (strcmp(json_key(j), "architectures") == 0)
        read_architectures(j, c);
    else if (strcmp(json_key(j), "rope_scaling") == 0 || strcmp(json_key(j), "rope_parameters") == 0)
        read_rope(j, c);
    else if (!try_fields(j, config_fields, sizeof config_fields / sizeof config_fields[0], c)) {
        if (strcmp(json_key(j), "quantization_config") == 0)
            c->quantized = json_peek(j) == JSON_OBJECT;
        (void)json_skip(j); /* sticks in the stream */
    }
}

static int refuse(struct qd_error *err, const char *file, const char *what, const char *which)
{
    int r = err_new(err, QD_E_UNSUPPORTED, "'%s': %s '%s' is not supported for safetensors yet", file, what, which);
    return err_hint(
        err, r, "convert the model to GGUF in f16 or bf16 with llama.cpp's convert_hf_to_gguf.py, and give that file");
}

/* What the mapping needs to know, and what it cannot express. */
static int check_config(const struct hf_config *c, const char *file, struct qd_error *err)
{
    if (c->quantized)
        return refuse(err, file, "a model with", "quantization_config");
    if (!c->mapped)
        return 0;
    if (c->rope_type[0] && strcmp(c->rope_type, "default") != 0 && strcmp(c->rope_type, "linear") != 0 &&
        strcmp(c->rope_type, "yarn") != 0)
        return refuse(err, file, "rope type", c->rope_type);
    if (c->rope_type[0] && strcmp(c->rope_type, "default") != 0 && isnan(c->rope_factor))
        return err_new(err, QD_E_CORRUPT, "'%s': rope type '%s' without a factor", file, c->rope_type);
    if (c->hidden_size < 0 || c->n_layers < 0 || c->n_heads < 0 || c->intermediate_size < 0 || c->vocab_size < 0 ||
        c->context < 0 || isnan(c->rms_norm_eps))
        return err_new(
            err, QD_E_CORRUPT,
            "'%s': a %s needs hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, vocab_size, "
            "max_position_embeddings and rms_norm_eps",
            file, c->architecture);
    if (c->head_dim < 0 && c->hidden_size % c->n_heads)
        return err_new(err, QD_E_CORRUPT, "'%s': hidden_size %lld is no multiple of num_attention_heads %lld", file,
                       (long long)c->hidden_size, (long long)c->n_heads);
    return 0;
}

static const struct hf_architecture *find_architecture(const char *name)
{
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++)
        if (strcmp(architectures[i].hf_name, name) == 0)
            return &architectures[i];
    return NULL;
}

int hf_config_read(struct source *s, int file, struct hf_config *ret, struct qd_error *err)
{
    struct hf_config c = {
        .hidden_size = HF_ABSENT,
        .intermediate_size = HF_ABSENT,
        .n_layers = HF_ABSENT,
        .n_heads = HF_ABSENT,
        .n_kv_heads = HF_ABSENT,
        .head_dim = HF_ABSENT,
        .vocab_size = HF_ABSENT,
        .context = HF_ABSENT,
        .bos = HF_ABSENT,
        .eos = HF_ABSENT,
        .pad = HF_ABSENT,
        .rope_original_context = HF_ABSENT,
        .rms_norm_eps = NAN,
        .rope_theta = NAN,
        .rope_factor = NAN,
    };
    if (file < 0) {
        *ret = c;
        return 0;
    }
    CLEANUP(free) struct stream *st = stream_new(s, (size_t)file, 0, source_bytes(s, (size_t)file), err);
    if (!st)
        return QD_E_NO_MEMORY;
    CLEANUP(json_clear) struct json j = {.st = st};
    stream_doing(st, "configuration", 0);
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j))
        read_member(&j, &c);
    if (!json_end(&j))
        return st->result;
    c.mapped = find_architecture(c.architecture);
    int r = check_config(&c, source_name(s, (size_t)file), err);
    if (r == 0)
        *ret = c;
    return r;
}

static void put_count(struct meta_build *b, const char *prefix, const char *key, int64_t v)
{
    if (v != HF_ABSENT)
        meta_put_u32(b, prefix, key, (uint32_t)v);
}

static void put_number(struct meta_build *b, const char *prefix, const char *key, double v)
{
    if (!isnan(v))
        meta_put_f32(b, prefix, key, (float)v);
}

static void put_rope_scaling(const struct hf_config *c, struct meta_build *b, const char *prefix)
{
    if (!c->rope_type[0] || strcmp(c->rope_type, "default") == 0)
        return;
    meta_put_text(b, prefix, "rope.scaling.type", c->rope_type);
    put_number(b, prefix, "rope.scaling.factor", c->rope_factor);
    if (strcmp(c->rope_type, "yarn") == 0)
        put_count(b, prefix, "rope.scaling.original_context_length", c->rope_original_context);
}

void hf_config_put(const struct hf_config *c, struct meta_build *b)
{
    const char *architecture = c->mapped ? c->mapped->name : c->model_type;
    if (architecture[0])
        meta_put_text(b, "", "general.architecture", architecture);
    if (architecture[0])
        meta_put_text(b, "", "general.type", "model");
    if (c->name[0])
        meta_put_text(b, "", "general.name", c->name);
    if (!c->mapped)
        return;
    char prefix[HF_TEXT_MAX + 2];
    (void)snprintf(prefix, sizeof prefix, "%s.", architecture); /* a name of our table */
    put_count(b, prefix, "block_count", c->n_layers);
    put_count(b, prefix, "context_length", c->context);
    put_count(b, prefix, "embedding_length", c->hidden_size);
    put_count(b, prefix, "feed_forward_length", c->intermediate_size);
    put_count(b, prefix, "attention.head_count", c->n_heads);
    put_count(b, prefix, "attention.head_count_kv", c->n_kv_heads);
    put_rope_scaling(c, b, prefix);
    put_number(b, prefix, "rope.freq_base", c->rope_theta);
    put_number(b, prefix, "attention.layer_norm_rms_epsilon", c->rms_norm_eps);
    put_count(b, prefix, "attention.key_length", c->head_dim);
    put_count(b, prefix, "attention.value_length", c->head_dim);
    if (!c->mapped->writes_rope_dim)
        return;
    put_count(b, prefix, "vocab_size", c->vocab_size);
    put_count(b, prefix, "rope.dimension_count", c->head_dim != HF_ABSENT ? c->head_dim : c->hidden_size / c->n_heads);
}
