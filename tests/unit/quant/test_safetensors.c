/* safetensors: single files, folders with an index, and Hugging Face's facts in llama.cpp's terms. */
#include <stdio.h>
#include <string.h>

#include "quant/limits.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

/* Length, header, @n_data zero bytes. */
static void write_tensors(const char *folder, const char *name, const char *header, size_t n_data)
{
    CLEANUP(buffer_clear) struct buffer file = {0};
    buffer_put_u64(&file, strlen(header));
    buffer_put(&file, header, strlen(header));
    buffer_put_zeros(&file, n_data);
    file_write(folder, name, buffer_span(&file));
}

static const char *meta_text(const struct model *m, const char *key)
{
    const struct meta_value *v = meta_find(&m->meta, key);
    return v && v->type == META_STRING ? (const char *)((const struct bytes *)v->data)->data : NULL;
}

static uint32_t meta_u32(const struct model *m, const char *key)
{
    const struct meta_value *v = meta_find(&m->meta, key);
    uint32_t u = 0;
    assert_non_null(v);
    assert_int_equal(v->type, META_U32);
    memcpy(&u, v->data, sizeof u);
    return u;
}

static void safetensors__folder_of_unknown_architecture__keeps_names_and_order(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_tensors(folder, "model.safetensors",
                  "{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[8,8]},"
                  "\"scalar\\u00e9\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[20,22]}}   ",
                  22);
    file_write(folder, "config.json",
               text("{\"model_type\": \"foo\", \"architectures\": [\"FooModel\", \"Bar\"], \"x\": [{\"y\": null}]}"));
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(model_open(folder, "", &m, NULL, &err), 0);
    assert_string_equal(m->format, "safetensors");
    assert_string_equal(m->architecture, "foo");
    assert_int_equal(m->n_tensors, 4);
    assert_string_equal(m->tensors[0].name, "a");
    assert_string_equal(m->tensors[1].name, "empty");
    assert_string_equal(m->tensors[2].name, "b");
    assert_string_equal(m->tensors[3].name, "scalar\xc3\xa9");
    assert_int_equal(m->tensors[2].shape[0], 3); /* rows of 3 */
    assert_int_equal(m->tensors[2].shape[1], 2);
    assert_int_equal(m->tensors[2].n_dims, 2);
    assert_int_equal(m->tensors[3].n_dims, 0);
    assert_int_equal(m->tensors[3].n_elements, 1);
    assert_int_equal(m->tensors[1].n_elements, 0);
    folder_remove(folder);
}

static const char index_text[] =
    "{\"metadata\": {\"total_size\": 16}, \"weight_map\": {"
    "\"second\": \"m-00002-of-00002.safetensors\", \"first\": \"m-00001-of-00002.safetensors\"}}";

static void write_shards(const char *folder)
{
    file_write(folder, "model.safetensors.index.json", text(index_text));
    write_tensors(folder, "m-00001-of-00002.safetensors",
                  "{\"first\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    write_tensors(folder, "m-00002-of-00002.safetensors",
                  "{\"second\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
}

static void safetensors__folder_with_an_index__is_read_as_one(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_shards(folder);
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(model_open(folder, "", &m, &s, &err), 0);
    assert_int_equal(m->n_tensors, 2);
    assert_string_equal(m->tensors[0].name, "first");
    assert_string_equal(source_name(s, m->tensors[1].file), "m-00002-of-00002.safetensors");
    assert_string_equal(source_role(s, 0), "weights"); /* the worker sets what the probe said */
    folder_remove(folder);
}

static void safetensors__index_gone_wrong__says_how(void **state)
{
    (void)state;
    static const struct {
        const char *file, *content, *says;
        int code;
    } cases[] = {
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"../m.safetensors\"}}",
         "must stay in the model's folder", QD_E_DENIED},
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"/m.safetensors\"}}",
         "must stay in the model's folder", QD_E_DENIED},
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"\"}}", "must stay in the model's folder",
         QD_E_DENIED},
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"m.bin\"}}", "is no .safetensors file",
         QD_E_UNSUPPORTED},
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"none.safetensors\"}}",
         "'none.safetensors' belongs to the model", QD_E_NOT_FOUND},
        {"model.safetensors.index.json", "{\"weight_map\": {}}", "no \"weight_map\"", QD_E_CORRUPT},
        {"model.safetensors.index.json", "{\"weight_map\": {\"first\": \"m-00002-of-00002.safetensors\"}}",
         "which does not hold it", QD_E_CORRUPT},
        {"model.safetensors.index.json", "{\"weight_map\": {\"x\": \"m.safetensors\", \"x\": \"m.safetensors\"}}",
         "stands twice", QD_E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[TEST_PATH_MAX];
        folder_make(folder);
        write_shards(folder);
        file_write(folder, cases[i].file, text(cases[i].content));
        struct qd_error err;
        struct model *m = NULL;
        assert_int_equal(model_open(folder, "", &m, NULL, &err), cases[i].code);
        assert_non_null(strstr(err.message, cases[i].says));
        folder_remove(folder);
    }
}

static void safetensors__same_tensor_in_two_shards__is_refused(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_shards(folder);
    write_tensors(folder, "m-00002-of-00002.safetensors",
                  "{\"second\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"first\":{\"dtype\":\"I8\","
                  "\"shape\":[1],\"data_offsets\":[8,9]}}",
                  9);
    struct qd_error err;
    struct model *m = NULL;
    assert_int_equal(model_open(folder, "", &m, NULL, &err), QD_E_CORRUPT);
    assert_non_null(
        strstr(err.message, "'first' stands in 'm-00001-of-00002.safetensors' and in 'm-00002-of-00002.safetensors'"));
    folder_remove(folder);
}

static void safetensors__one_part_of_several__is_refused_with_the_way_out(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_shards(folder);
    struct qd_error err;
    struct model *m = NULL;
    assert_int_equal(model_open(folder, "m-00002-of-00002.safetensors", &m, NULL, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "part 2 of 2"));
    assert_non_null(strstr(err.hint, "index.json"));
    folder_remove(folder);
}

#define LLAMA_CONFIG                                                                                       \
    "\"model_type\": \"llama\", \"hidden_size\": 8, \"intermediate_size\": 4, \"num_hidden_layers\": 12, " \
    "\"num_attention_heads\": 2, "                                                                         \
    "\"num_key_value_heads\": 1, \"vocab_size\": 3, \"max_position_embeddings\": 16, \"rms_norm_eps\": 1e-5"

static const char llama_header[] =
    "{\"model.layers.11.self_attn.q_proj.weight\":{\"dtype\":\"I8\",\"shape\":[8,8],\"data_offsets\":[0,64]},"
    "\"model.layers.2.self_attn.k_proj.weight\":{\"dtype\":\"I8\",\"shape\":[4,8],\"data_offsets\":[64,96]},"
    "\"model.layers.2.input_layernorm.weight\":{\"dtype\":\"I8\",\"shape\":[8],\"data_offsets\":[96,104]},"
    "\"lm_head.weight\":{\"dtype\":\"I8\",\"shape\":[3,8],\"data_offsets\":[104,128]},"
    "\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[128,132]},"
    "\"model.embed_tokens.weight\":{\"dtype\":\"I8\",\"shape\":[3,8],\"data_offsets\":[132,156]},"
    "\"model.norm.weight\":{\"dtype\":\"I8\",\"shape\":[8],\"data_offsets\":[156,164]}}";

static int open_llama(const char *config, struct model **ret, struct qd_error *err)
{
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_tensors(folder, "model.safetensors", llama_header, 164);
    file_write(folder, "config.json", text(config));
    file_write(folder, "vocab_spm.json",
               text("{\"types\": [2, 3], \"tokens\": [\"<unk>\", \"\\u2581a\"], \"scores\": [0, -1.5]}"));
    int r = model_open(folder, "", ret, NULL, err);
    folder_remove(folder);
    return r;
}

/* A model of @architecture: an embedding, and two bytes of dtype U8 or BOOL called @name. */
static int open_with_buffer(const char *architecture, const char *name, const char *dtype, struct model **ret,
                            struct qd_error *err)
{
    char folder[TEST_PATH_MAX], header[512], config[512];
    folder_make(folder);
    (void)snprintf(header, sizeof header,
                   "{\"model.embed_tokens.weight\":{\"dtype\":\"I8\",\"shape\":[3,8],\"data_offsets\":[0,24]},"
                   "\"%s\":{\"dtype\":\"%s\",\"shape\":[1,1,1,2],\"data_offsets\":[24,26]}}",
                   name, dtype);
    (void)snprintf(config, sizeof config, "{\"architectures\": [\"%s\"], " LLAMA_CONFIG "}", architecture);
    write_tensors(folder, "model.safetensors", header, 26);
    file_write(folder, "config.json", text(config));
    int r = model_open(folder, "", ret, NULL, err);
    folder_remove(folder);
    return r;
}

static void hf__buffers_that_llama_cpp_computes__are_left_out_whatever_their_dtype(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.0.self_attn.attention.bias",
                                        "model.layers.0.attn.attention.masked_bias",
                                        "model.layers.1.attn.bias",
                                        "model.layers.1.attn.masked_bias",
                                        "model.embeddings.position_ids",
                                        "model.layers.0.rotary_emb.inv_freq"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct qd_error err = {0};
        CLEANUP(model_free) struct model *m = NULL;
        int r = open_with_buffer("LlamaForCausalLM", names[i], i % 2 ? "BOOL" : "U8", &m, &err);
        if (r < 0)
            print_error("%s\n", err.message);
        assert_int_equal(r, 0);
        assert_int_equal(m->n_tensors, 1);
    }
}

static void safetensors__bytes_that_gguf_does_not_hold__are_refused_by_name_with_a_hint(void **state)
{
    (void)state;
    static const char *const architectures[] = {"LlamaForCausalLM", "SomeOtherModel"};
    for (size_t i = 0; i < 2; i++) {
        struct qd_error err;
        CLEANUP(model_free) struct model *m = NULL;
        assert_int_equal(open_with_buffer(architectures[i], "model.layers.0.mask", "BOOL", &m, &err), QD_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "'model.layers.0.mask' has dtype BOOL, which GGUF does not hold"));
        assert_non_null(strstr(err.hint, "mask"));
    }
}

static void hf__llama__gets_the_fields_names_and_row_orders(void **state)
{
    (void)state;
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(open_llama("{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG
                                ", \"bos_token_id\": 1, \"eos_token_id\": [1, 2]}",
                                &m, &err),
                     0);
    static const char *const names[] = {"token_embd.weight",    "blk.2.attn_norm.weight", "blk.2.attn_k.weight",
                                        "blk.11.attn_q.weight", "output_norm.weight",     "output.weight"};
    assert_int_equal(m->n_tensors, sizeof names / sizeof names[0]); /* inv_freq is left out */
    for (size_t i = 0; i < m->n_tensors; i++)
        assert_string_equal(m->tensors[i].name, names[i]);
    assert_int_equal(m->tensors[3].row_order, ROWS_ROPE_PAIRED);
    assert_int_equal(m->tensors[3].head_rows, 4);
    assert_int_equal(m->tensors[2].row_order, ROWS_ROPE_PAIRED);
    assert_int_equal(m->tensors[2].head_rows, 4);
    assert_int_equal(m->tensors[0].row_order, ROWS_AS_STORED);
    assert_int_equal(meta_u32(m, "llama.attention.head_count_kv"), 1);
    assert_int_equal(meta_u32(m, "llama.rope.dimension_count"), 4);
    assert_int_equal(meta_u32(m, "tokenizer.ggml.bos_token_id"), 1);
    assert_null(meta_find(&m->meta, "tokenizer.ggml.eos_token_id")); /* several: no single key can say them */
    const struct meta_value *tokens = meta_find(&m->meta, "tokenizer.ggml.tokens");
    assert_non_null(tokens);
    assert_int_equal(tokens->n_items, 3); /* padded to the embedding's rows */
    assert_string_equal(((const struct bytes *)tokens->data)[2].data, "[PAD2]");
    assert_string_equal(((const struct bytes *)tokens->data)[1].data, "\xe2\x96\x81"
                                                                      "a");
}

static void hf__qwen2__keeps_the_rows_of_its_heads(void **state)
{
    (void)state;
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(open_llama("{\"architectures\": [\"Qwen2ForCausalLM\"], " LLAMA_CONFIG "}", &m, &err), 0);
    assert_string_equal(m->architecture, "qwen2");
    assert_string_equal(meta_text(m, "general.architecture"), "qwen2");
    assert_int_equal(model_find(m, "blk.11.attn_q.weight")->row_order, ROWS_AS_STORED);
    assert_null(meta_find(&m->meta, "qwen2.vocab_size"));
}

static void hf__config_that_cannot_be_expressed__is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *says;
        int code;
    } cases[] = {
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG
         ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}",
         "rope type 'llama3'", QD_E_UNSUPPORTED},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG ", \"quantization_config\": {\"bits\": 4}}",
         "quantization_config", QD_E_UNSUPPORTED},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 8}", "needs hidden_size", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": \"8\"}", "a number is expected", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"num_attention_heads\": 0}", "'num_attention_heads' is 0",
         QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"num_attention_heads\": 4294967296}",
         "'num_attention_heads' is 4294967296", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"num_hidden_layers\": 2.5}", "a whole number", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], \"num_hidden_layers\": -2}", "a whole number", QD_E_CORRUPT},
        {"{\"architectures\": \"x\"", "JSON", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG "} {}", "something follows the end", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG ", \"num_attention_heads\": 3, \"head_dim\": 3}",
         "which 3 heads do not divide", QD_E_CORRUPT},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG ", \"num_hidden_layers\": 11}",
         "'model.layers.11.self_attn.q_proj.weight' is none of", QD_E_UNSUPPORTED},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG ", \"vocab_size\": 1}",
         "2 tokens, config.json's vocab_size is 1", QD_E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_error err;
        struct model *m = NULL;
        assert_int_equal(open_llama(cases[i].config, &m, &err), cases[i].code);
        if (!strstr(err.message, cases[i].says))
            print_error("case %zu: %s\n", i, err.message);
        assert_non_null(strstr(err.message, cases[i].says));
    }
}

static int open_with_tokenizer(const char *tokenizer, const char *config, struct model **ret, struct qd_error *err)
{
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    write_tensors(folder, "model.safetensors", llama_header, 164);
    file_write(
        folder, "config.json",
        text("{\"architectures\": [\"LlamaForCausalLM\"], " LLAMA_CONFIG ", \"vocab_size\": 9, \"bos_token_id\": 5}"));
    file_write(folder, "tokenizer.json", text(tokenizer));
    if (config)
        file_write(folder, "tokenizer_config.json", text(config));
    int r = model_open(folder, "", ret, NULL, err);
    folder_remove(folder);
    return r;
}

#define ADDED                                                                                                        \
    "\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}, {\"id\": 7, \"content\": \"<tool>\", " \
    "\"special\": false}], "

static void hf__tokenizer_with_byte_fallback__becomes_sentencepiece_with_scores_by_rank(void **state)
{
    (void)state;
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(open_with_tokenizer("{" ADDED "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, "
                                         "\"unk_token\": \"<unk>\", \"vocab\": {\"<unk>\": 0, \"<s>\": 1, "
                                         "\"<0x0A>\": 2, \"a\": 3, \"b\": 4, \"ab\": 5, \"aba\": 6}, \"merges\": [\"a "
                                         "b\", [\"ab\", \"a\"], \"a ba\"]}}",
                                         "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"aba\", "
                                         "\"add_eos_token\": true, \"chat_template\": \"{{x}}\"}",
                                         &m, &err),
                     0);
    assert_string_equal(meta_text(m, "tokenizer.ggml.model"), "llama");
    assert_string_equal(meta_text(m, "tokenizer.chat_template"), "{{x}}");
    assert_int_equal(meta_u32(m, "tokenizer.ggml.bos_token_id"), 1); /* the tokenizer's word before config.json's */
    assert_int_equal(meta_u32(m, "tokenizer.ggml.eos_token_id"), 6);
    assert_int_equal(meta_u32(m, "tokenizer.ggml.unknown_token_id"), 0);
    static const int32_t types[] = {2, 3, 6, 1, 1, 1, 1, 4, 5};
    static const float scores[] = {0, 0, 0, -3, -3, -0.0f, -1, 0, -10000};
    assert_memory_equal(meta_find(&m->meta, "tokenizer.ggml.token_type")->data, types, sizeof types);
    const float *got = meta_find(&m->meta, "tokenizer.ggml.scores")->data;
    for (int i = 0; i < 9; i++)
        assert_true(got[i] == scores[i]);
    assert_null(meta_find(&m->meta, "tokenizer.ggml.merges"));
}

#define QWEN_SPLIT                                                                                          \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": "                                                       \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                     \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": " \
    "\"Isolated\", \"invert\": false}"
#define BYTE_LEVEL_MODEL                                                                                               \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 2, \"ab\": 3}, \"merges\": [[\"a\", \"b\"], [\" \", " \
    "\"a\"]]}}"

static void hf__byte_level_tokenizer__becomes_gpt2_with_merges(void **state)
{
    (void)state;
    struct qd_error err;
    CLEANUP(model_free) struct model *m = NULL;
    assert_int_equal(open_with_tokenizer("{" ADDED
                                         "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" QWEN_SPLIT
                                         ", {\"type\": \"ByteLevel\", "
                                         "\"use_regex\": false}]}, " BYTE_LEVEL_MODEL,
                                         NULL, &m, &err),
                     0);
    assert_string_equal(meta_text(m, "tokenizer.ggml.model"), "gpt2");
    assert_string_equal(meta_text(m, "tokenizer.ggml.pre"), "qwen2");
    assert_int_equal(meta_u32(m, "tokenizer.ggml.bos_token_id"), 5); /* from config.json */
    const struct meta_value *merges = meta_find(&m->meta, "tokenizer.ggml.merges");
    assert_int_equal(merges->n_items, 2);
    assert_string_equal(((const struct bytes *)merges->data)[1].data, "\xc4\xa0 a");
    assert_null(meta_find(&m->meta, "tokenizer.ggml.scores"));
}

static void hf__tokenizer_that_llama_cpp_cannot_run__is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer, *says;
        int code;
    } cases[] = {
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", -1.0]]}}", "only BPE", QD_E_UNSUPPORTED},
        {"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}, " BYTE_LEVEL_MODEL, "no name for", QD_E_UNSUPPORTED},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"x\"}}, " BYTE_LEVEL_MODEL, "no name for",
         QD_E_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "token id 0 stands twice",
         QD_E_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4294967296}, \"merges\": []}}", "token id 4294967296",
         QD_E_LIMIT},
        {"{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 0}, \"merges\": [\"aa\"]}}",
         "merge 0 is no pair", QD_E_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "a merge of 1 tokens",
         QD_E_CORRUPT},
        {"{\"added_tokens\": [{\"id\": 3}]}", "without id or content", QD_E_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 9}, \"merges\": [\"a a\"]}}",
         "vocab_size is 9", QD_E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_error err;
        struct model *m = NULL;
        int r = open_with_tokenizer(cases[i].tokenizer, NULL, &m, &err);
        if (r != cases[i].code || !strstr(err.message, cases[i].says))
            print_error("case %zu: %d %s\n", i, r, err.message);
        assert_int_equal(r, cases[i].code);
        assert_non_null(strstr(err.message, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors__folder_of_unknown_architecture__keeps_names_and_order),
        cmocka_unit_test(safetensors__folder_with_an_index__is_read_as_one),
        cmocka_unit_test(safetensors__index_gone_wrong__says_how),
        cmocka_unit_test(safetensors__same_tensor_in_two_shards__is_refused),
        cmocka_unit_test(safetensors__one_part_of_several__is_refused_with_the_way_out),
        cmocka_unit_test(hf__buffers_that_llama_cpp_computes__are_left_out_whatever_their_dtype),
        cmocka_unit_test(safetensors__bytes_that_gguf_does_not_hold__are_refused_by_name_with_a_hint),
        cmocka_unit_test(hf__llama__gets_the_fields_names_and_row_orders),
        cmocka_unit_test(hf__qwen2__keeps_the_rows_of_its_heads),
        cmocka_unit_test(hf__config_that_cannot_be_expressed__is_refused),
        cmocka_unit_test(hf__tokenizer_with_byte_fallback__becomes_sentencepiece_with_scores_by_rank),
        cmocka_unit_test(hf__byte_level_tokenizer__becomes_gpt2_with_merges),
        cmocka_unit_test(hf__tokenizer_that_llama_cpp_cannot_run__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
