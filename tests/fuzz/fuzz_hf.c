/*
 * Input: a byte that says which file it is, then one of the JSON files beside safetensors: 'i'ndex, 'c'onfig,
 * 'v'ocabulary, 't'okenizer, tokenizer con'f'iguration.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"

static const char header[] =
    "{\"model.layers.0.self_attn.q_proj.weight\":{\"dtype\":\"I8\",\"shape\":[4,2],\"data_offsets\":[0,8]},"
    "\"model.embed_tokens.weight\":{\"dtype\":\"I8\",\"shape\":[4,2],\"data_offsets\":[8,16]}}";
static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":2,\"intermediate_size\":4,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"vocab_size\":4,\"max_position_embeddings\":8,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":1e4,\"head_dim\":2,\"bos_token_id\":1,\"eos_token_id\":[1,2],"
    "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}";
static const char vocabulary[] =
    "{\"tokens\":[\"<unk>\",\"\\u2581\\ud83d\\ude00\",\"\xc3\xa9\"],\"scores\":[0,-1.5,-2e0],\"types\":[2,1,1]}";
static const char tokenizer[] = "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"pre_tokenizer\":"
                                "null,\"model\":{\"type\":\"BPE\","
                                "\"byte_fallback\":true,\"unk_token\":\"<u>\",\"vocab\":{\"<u>\":1,\"a\":2,\"aa\":3},"
                                "\"merges\":[\"a a\",[\"a\",\"a\"]]}}";
static const char tokenizer_config[] =
    "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"aa\",\"add_bos_token\":true,\"chat_template\":\"x\"}";
static const char map[] =
    "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\","
    "\"model.layers.0.self_attn.q_proj.weight\":\"a.safetensors\"}}";

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

static void add(struct source *s, struct bytes content, const char *role, const char *name)
{
    struct qd_error err;
    (void)source_add(s, fd_of_bytes(content), role, name, &err); /* an empty one is refused */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char kind = n_bytes ? (char)data[0] : 'c';
    struct bytes input = {data + (n_bytes > 0), n_bytes ? n_bytes - 1 : 0};
    CLEANUP(buffer_clear) struct buffer weights = {0};
    buffer_put_u64(&weights, sizeof header - 1);
    buffer_put(&weights, header, sizeof header - 1);
    buffer_put_zeros(&weights, 16);
    CLEANUP(source_free)
    struct source *s = kind == 'i' ? source_of_bytes(input, "model.safetensors.index.json")
                                   : source_of_bytes(buffer_span(&weights), "model.safetensors");
    if (!s)
        return 0;
    if (kind == 'i')
        add(s, buffer_span(&weights), "weights", "a.safetensors");
    add(s, kind == 'c' ? input : text(config), "config", "config.json");
    if (kind == 't' || kind == 'f')
        add(s, kind == 't' ? input : text(tokenizer), "tokenizer", "tokenizer.json");
    else
        add(s, kind == 'v' ? input : text(vocabulary), "tokenizer", "vocab_spm.json");
    if (kind == 't' || kind == 'f')
        add(s, kind == 'f' ? input : text(tokenizer_config), "tokenizer", "tokenizer_config.json");
    read_and_check(s);
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    static const struct {
        char kind;
        const char *content;
    } seeds[] = {{'i', map}, {'c', config}, {'v', vocabulary}, {'t', tokenizer}, {'f', tokenizer_config}};
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        CLEANUP(buffer_clear) struct buffer seed = {0};
        buffer_put_u8(&seed, (uint8_t)seeds[i].kind);
        buffer_put(&seed, seeds[i].content, strlen(seeds[i].content));
        use(buffer_span(&seed), data);
    }
}

void fuzz_more(fuzz_use *use, void *data)
{
    (void)use; /* the seeds say it all */
    (void)data;
}
