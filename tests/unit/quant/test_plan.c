/*
 * Golden plan texts. Where the golden file should change, say why in the commit and run with
 * QUANTD_GOLDEN_WRITE=1.
 */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/plan.h"
#include "tests/unit/quant/fixture.h"

static void llama_layer(struct fixture *f, unsigned layer, enum qd_type type, uint64_t dim, uint64_t ffn)
{
    static const struct {
        const char *name;
        uint32_t dims;
        int rows; /* 0: none, 1: dim, 2: ffn */
        int cols; /* 1: dim, 2: ffn */
    } parts[] = {{"attn_norm", 1, 0, 1}, {"attn_q", 2, 1, 1},      {"attn_k", 2, 1, 1},
                 {"attn_v", 2, 1, 1},    {"attn_output", 2, 1, 1}, {"ffn_norm", 1, 0, 1},
                 {"ffn_gate", 2, 2, 1},  {"ffn_down", 2, 1, 2},    {"ffn_up", 2, 2, 1}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, parts[i].name);
        uint64_t size[] = {1, dim, ffn};
        fixture_tensor(f, name, parts[i].dims == 1 ? QD_TYPE_F32 : type, 0, 0, parts[i].dims, size[parts[i].cols],
                       size[parts[i].rows], 1);
    }
}

static void make_llama(struct fixture *f, const char *format, enum qd_type type, uint64_t dim, uint64_t ffn, bool tied)
{
    fixture_init(f, format, "llama");
    fixture_meta_u32(f, "general.file_type", 0);
    fixture_meta_u32(f, "split.count", 2);
    fixture_meta_u32(f, "llama.block_count", 2);
    fixture_meta_u32(f, "split.no", 0);
    fixture_tensor(f, "token_embd.weight", type, 0, 0, 2, dim, 320, 1);
    for (unsigned layer = 0; layer < 2; layer++)
        llama_layer(f, layer, type, dim, ffn);
    fixture_tensor(f, "output_norm.weight", QD_TYPE_F32, 0, 0, 1, dim, 1, 1);
    if (!tied)
        fixture_tensor(f, "output.weight", type, 0, 0, 2, dim, 320, 1);
}

/* Compares @text with tests/golden/@name, or writes it there when asked to. */
static void assert_golden(const char *name, struct bytes text)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", getenv("QUANTD_GOLDEN"), name);
    if (getenv("QUANTD_GOLDEN_WRITE")) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        (void)fwrite(text.data, 1, text.n, out);
        (void)fclose(out);
        return;
    }
    static char want[1 << 16];
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    size_t n = fread(want, 1, sizeof want - 1, in);
    (void)fclose(in);
    want[n] = 0;
    char *got = strndup((const char *)text.data, text.n);
    assert_string_equal(got, want);
    free(got);
}

static void check_plan(struct fixture *f, enum scheme scheme, bool pure, const char *golden)
{
    struct plan *p = NULL;
    struct recipe recipe = {scheme, pure};
    CLEANUP(buffer_clear) struct buffer text = {0};
    assert_int_equal(plan_build(&f->model, &recipe, NULL, &p, NULL), 0);
    assert_int_equal(plan_print(p, &text), 0);
    assert_golden(golden, buffer_span(&text));
    (void)plan_free(p);
    fixture_clear(f);
}

static void plan_build__llama_q4_0__has_the_fields_mixture(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, false);
    check_plan(&f, SCHEME_Q4_0, false, "llama-q4_0.plan");
}

static void plan_build__llama_q4_0_pure__has_one_type(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, false);
    check_plan(&f, SCHEME_Q4_0, true, "llama-q4_0-pure.plan");
}

static void plan_build__rows_that_do_not_divide__fall_back_to_f16(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F32, 64, 172, true);
    check_plan(&f, SCHEME_Q8_0, false, "llama-tied-odd-rows-q8_0.plan");
}

static void plan_build__safetensors_bf16__widens_what_stays_unquantized(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "safetensors", QD_TYPE_BF16, 128, 256, false);
    fixture_tensor(&f, "blk.0.attn_q.bias", QD_TYPE_BF16, 0, 0, 1, 128, 1, 1);
    fixture_tensor(&f, "blk.0.ffn_gate_inp.weight", QD_TYPE_BF16, 0, 0, 2, 128, 8, 1);
    check_plan(&f, SCHEME_BF16, true, "llama-safetensors-bf16.plan");
}

static void plan_build__every_kept_name__says_why(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.0.ffn_gate_inp.weight",   "blk.0.ffn_gate_tid2eid.weight",
                                        "altup_proj.weight",           "blk.0.laurel_l.weight",
                                        "per_layer_model_proj.weight", "position_embd.weight",
                                        "token_types.weight",          "blk.0.ssm_conv1d.weight",
                                        "blk.0.shortconv.conv.weight", "blk.0.indexer.k_proj.weight",
                                        "blk.0.time_mix_first.weight", "blk.0.time_mix_decay_w1.weight",
                                        "enc.blk.0.attn_rel_b.weight", "v.position_embd.weight",
                                        "v.sam.pos_embd.weight",       "v.blk.0.rel_pos_h.weight",
                                        "v.patch_embd.weight",         "mm.patch_merger.weight",
                                        "a.rvq.codebook.weight",       "mm.a.code_embd.weight",
                                        "blk.0.attn_k_norm.weight",    "blk.0.ssm_a",
                                        "blk.0.exp_probs_b.bias",      "blk.0.attn_k.weight",
                                        "per_layer_token_embd.weight"};
    struct fixture f;
    fixture_init(&f, "gguf", "mixed");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        fixture_tensor(&f, names[i], QD_TYPE_F16, 0, 0, 2, 64, 4, 1);
    fixture_tensor(&f, "ids.weight", QD_TYPE_I32, 0, 0, 2, 64, 4, 1);
    fixture_tensor(&f, "one_row.weight", QD_TYPE_F16, 0, 0, 2, 64, 1, 1);
    fixture_tensor(&f, "experts.weight", QD_TYPE_F16, 0, 0, 3, 64, 4, 8);
    check_plan(&f, SCHEME_Q8_0, false, "kept-names.plan");
}

static void plan_build__eight_experts__keep_attention_in_q8_0(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 256, false);
    fixture_meta_u32(&f, "llama.expert_count", 8);
    check_plan(&f, SCHEME_Q4_0, false, "llama-8-experts-q4_0.plan");
}

static void plan_build__quantized_source__is_refused_with_the_next_step(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_Q8_0, 64, 128, false);
    struct plan *p = NULL;
    struct recipe recipe = {SCHEME_Q4_0, true};
    struct qd_error err = {0};
    assert_int_equal(plan_build(&f.model, &recipe, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_null(p);
    assert_non_null(strstr(err.message, "token_embd.weight"));
    assert_non_null(strstr(err.message, "q8_0"));
    assert_non_null(strstr(err.hint, "original"));
    recipe.scheme = SCHEME_Q8_0; /* the same type again is a copy */
    assert_int_equal(plan_build(&f.model, &recipe, NULL, &p, &err), 0);
    (void)plan_free(p);
    fixture_clear(&f);
}

static uint32_t meta_u32(const struct plan *p, const char *key)
{
    const struct meta_value *v = meta_find(&p->meta, key);
    assert_non_null(v);
    assert_int_equal(v->type, META_U32);
    uint32_t n;
    memcpy(&n, v->data, sizeof n);
    return n;
}

static void plan_build__metadata__is_kept_in_order_with_ours_set(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    fixture_meta_u32(&f, "general.alignment", 64);
    struct plan *p = NULL;
    struct recipe recipe = {SCHEME_Q4_0, true};
    assert_int_equal(plan_build(&f.model, &recipe, NULL, &p, NULL), 0);
    static const char *const keys[] = {
        "general.architecture",         "general.file_type",         "llama.block_count", "general.alignment",
        "general.quantization_version", "quantd.provenance_version", "quantd.scheme",     "quantd.recipe",
        "quantd.encoder_revision"};
    assert_int_equal(p->meta.n, sizeof keys / sizeof keys[0]);
    for (size_t i = 0; i < p->meta.n; i++)
        assert_string_equal(p->meta.entries[i].key, keys[i]);
    assert_int_equal(meta_u32(p, "general.file_type"), 2);
    assert_int_equal(meta_u32(p, "general.alignment"), PLAN_ALIGNMENT);
    assert_int_equal(meta_u32(p, "general.quantization_version"), 2);
    assert_int_equal(meta_u32(p, "quantd.encoder_revision"), recipe_encoder_revision(&recipe));
    (void)plan_free(p);
    fixture_clear(&f);
}

static void plan_build__offsets__are_cumulative_pages(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    struct plan *p = NULL;
    struct recipe recipe = {SCHEME_Q8_0, true};
    assert_int_equal(plan_build(&f.model, &recipe, NULL, &p, NULL), 0);
    uint64_t at = p->header.n;
    assert_int_equal(at % PLAN_ALIGNMENT, 0);
    for (size_t i = 0; i < p->n_tensors; i++) {
        assert_int_equal(p->tensors[i].offset, at);
        at += (p->tensors[i].bytes + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
    }
    assert_int_equal(p->file_bytes, at);
    (void)plan_free(p);
    fixture_clear(&f);
}

/* An importance matrix for one tensor of make_llama. */
struct weights {
    float ones[128];
    struct importance_entry entry;
    struct importance importance;
};

static void make_weights(struct weights *w, const char *tensor, size_t n)
{
    *w = (struct weights){.entry = {.name = tensor, .values = w->ones, .n = n}};
    w->importance = (struct importance){.arena = arena_new(1 << 16),
                                        .entries = &w->entry,
                                        .n_entries = 1,
                                        .form = "dat",
                                        .dataset = "texts/a.txt",
                                        .n_chunks = 9,
                                        .digest = {{1, 2, 3}}};
    assert_non_null(arena_alloc(w->importance.arena, 1000, 1));
}

static void assert_text(const struct plan *p, const char *key, const char *want)
{
    const struct meta_value *v = meta_find(&p->meta, key);
    assert_non_null(v);
    assert_int_equal(v->type, META_STRING);
    const struct bytes *text = v->data;
    assert_int_equal(text->n, strlen(want));
    assert_memory_equal(text->data, want, text->n);
}

static const struct plan_tensor *planned(const struct plan *p, const char *name)
{
    for (size_t i = 0; i < p->n_tensors; i++)
        if (strcmp(p->tensors[i].source->name, name) == 0)
            return &p->tensors[i];
    return NULL;
}

static void plan_build__weighted__says_so_as_llama_quantize_does_and_by_digest(void **state)
{
    (void)state;
    struct fixture f;
    struct weights w;
    struct plan *p = NULL;
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    make_weights(&w, "blk.0.ffn_down.weight", 128);
    struct recipe recipe = {.scheme = SCHEME_Q4_0, .pure = true, .weighted = true, .importance = w.importance.digest};
    assert_int_equal(plan_build(&f.model, &recipe, &w.importance, &p, NULL), 0);
    assert_text(p, "quantize.imatrix.file", "imatrix.dat");
    assert_text(p, "quantize.imatrix.dataset", "texts/a.txt");
    assert_int_equal(meta_u32(p, "quantize.imatrix.entries_count"), 1);
    assert_int_equal(meta_u32(p, "quantize.imatrix.chunks_count"), 9);
    assert_text(p, "quantd.imatrix", "0102030000000000000000000000000000000000000000000000000000000000");
    assert_true(p->importance_bytes >= 1000);
    assert_null(planned(p, "blk.1.ffn_down.weight")->importance);
    bool looked_at = ops_for(0)->quantize_weighted[QD_TYPE_Q4_0] != NULL;
    const struct plan_tensor *down = planned(p, "blk.0.ffn_down.weight");
    assert_ptr_equal(down->importance, looked_at ? w.ones : NULL);
    assert_int_equal(strstr(down->reason, "; weighted") != NULL, looked_at);
    (void)plan_free(p);
    (void)arena_free(w.importance.arena);
    fixture_clear(&f);
}

static void plan_build__another_importance_than_the_recipes__is_a_bug_that_is_seen(void **state)
{
    (void)state;
    struct fixture f;
    struct weights w;
    struct plan *p = NULL;
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    make_weights(&w, "blk.0.ffn_down.weight", 128);
    struct recipe recipe = {.scheme = SCHEME_Q4_0, .pure = true};
    assert_int_equal(plan_build(&f.model, &recipe, &w.importance, &p, NULL), QD_E_INTERNAL);
    recipe.weighted = true;
    assert_int_equal(plan_build(&f.model, &recipe, &w.importance, &p, NULL), QD_E_INTERNAL);
    assert_int_equal(plan_build(&f.model, &recipe, NULL, &p, NULL), QD_E_INTERNAL);
    (void)arena_free(w.importance.arena);
    fixture_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_build__llama_q4_0__has_the_fields_mixture),
        cmocka_unit_test(plan_build__llama_q4_0_pure__has_one_type),
        cmocka_unit_test(plan_build__rows_that_do_not_divide__fall_back_to_f16),
        cmocka_unit_test(plan_build__safetensors_bf16__widens_what_stays_unquantized),
        cmocka_unit_test(plan_build__every_kept_name__says_why),
        cmocka_unit_test(plan_build__eight_experts__keep_attention_in_q8_0),
        cmocka_unit_test(plan_build__quantized_source__is_refused_with_the_next_step),
        cmocka_unit_test(plan_build__metadata__is_kept_in_order_with_ours_set),
        cmocka_unit_test(plan_build__weighted__says_so_as_llama_quantize_does_and_by_digest),
        cmocka_unit_test(plan_build__another_importance_than_the_recipes__is_a_bug_that_is_seen),
        cmocka_unit_test(plan_build__offsets__are_cumulative_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
