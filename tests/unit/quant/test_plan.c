/*
 * Golden plan texts. Where the golden file should change, say why in the commit and run with
 * QUANTD_GOLDEN_WRITE=1.
 */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/plan_pack.h"
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

static void make_layers(struct fixture *f, const char *format, enum qd_type type, uint64_t dim, uint64_t ffn, bool tied,
                        unsigned n_layers)
{
    fixture_init(f, format, "llama");
    fixture_meta_u32(f, "general.file_type", 0);
    fixture_meta_u32(f, "split.count", 2);
    fixture_meta_u32(f, "llama.block_count", n_layers);
    fixture_meta_u32(f, "split.no", 0);
    fixture_tensor(f, "token_embd.weight", type, 0, 0, 2, dim, 320, 1);
    for (unsigned layer = 0; layer < n_layers; layer++)
        llama_layer(f, layer, type, dim, ffn);
    fixture_tensor(f, "output_norm.weight", QD_TYPE_F32, 0, 0, 1, dim, 1, 1);
    if (!tied)
        fixture_tensor(f, "output.weight", type, 0, 0, 2, dim, 320, 1);
}

static void make_llama(struct fixture *f, const char *format, enum qd_type type, uint64_t dim, uint64_t ffn, bool tied)
{
    make_layers(f, format, type, dim, ffn, tied, 2);
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

static void check_recipe(struct fixture *f, const struct recipe *recipe, const char *golden)
{
    struct plan *p = NULL;
    struct qd_error err = {0};
    CLEANUP(buffer_clear) struct buffer text = {0};
    if (plan_build(&f->model, recipe, NULL, &p, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(plan_print(p, &text), 0);
    assert_golden(golden, buffer_span(&text));
    (void)plan_free(p);
    fixture_clear(f);
}

static void check_plan(struct fixture *f, enum scheme scheme, bool pure, const char *golden)
{
    check_recipe(f, &(struct recipe){.scheme = scheme, .pure = pure}, golden);
}

/* The type that @recipe gives the tensor of that name. */
static enum qd_type type_of(struct fixture *f, const struct recipe *recipe, const char *name)
{
    struct plan *p = NULL;
    struct qd_error err = {0};
    if (plan_build(&f->model, recipe, NULL, &p, &err) < 0)
        fail_msg("%s", err.message);
    enum qd_type type = QD_N_TYPES;
    for (size_t i = 0; i < p->n_tensors; i++)
        if (strcmp(p->tensors[i].source->name, name) == 0)
            type = p->tensors[i].type;
    (void)plan_free(p);
    return type;
}

static void set(struct recipe *r, const char *key, const char *value)
{
    struct qd_error err = {0};
    if (recipe_set(r, key, value, &err) < 0)
        fail_msg("%s", err.message);
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

static void plan_build__sixteen_layers_q4_k_m__more_bits_where_the_field_has_them(void **state)
{
    (void)state;
    struct fixture f;
    make_layers(&f, "gguf", QD_TYPE_F16, 256, 768, false, 16);
    fixture_meta_u32(&f, "llama.attention.head_count", 8);
    fixture_meta_u32(&f, "llama.attention.head_count_kv", 2);
    check_plan(&f, SCHEME_Q4_K_M, false, "llama-16-layers-q4_k_m.plan");
}

static void plan_build__rows_of_many_lengths__fall_back_one_by_one(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F32, 320, 172, false);
    check_plan(&f, SCHEME_Q3_K_M, false, "llama-odd-rows-q3_k_m.plan");
}

static void plan_build__experts_mxfp4_moe__are_all_that_becomes_mxfp4(void **state)
{
    (void)state;
    struct fixture f;
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    fixture_meta_u32(&f, "llama.expert_count", 4);
    fixture_tensor(&f, "blk.0.ffn_up_exps.weight", QD_TYPE_F16, 0, 0, 3, 64, 32, 4);
    fixture_tensor(&f, "blk.1.ffn_down_exps.weight", QD_TYPE_F16, 0, 0, 3, 172, 32, 4);
    check_plan(&f, SCHEME_MXFP4_MOE, false, "llama-experts-mxfp4_moe.plan");
}

static void plan_build__rules_of_ones_own__come_before_the_mixture(void **state)
{
    (void)state;
    struct fixture f;
    struct recipe r = {.scheme = SCHEME_Q4_K_M};
    set(&r, "output", "q8_0");
    set(&r, "embedding", "q5_k");
    set(&r, "keep", "blk\\.0\\.ffn_(up|gate)");
    set(&r, "tensor", "ffn=iq4_nl");
    set(&r, "tensor", "attn_v=bf16");
    set(&r, "tensor", "norm=q8_0"); /* met, but norms stay */
    make_llama(&f, "safetensors", QD_TYPE_BF16, 256, 172, false);
    check_recipe(&f, &r, "llama-rules.plan");
}

static void plan_build__counters__run_by_layer_and_name_whatever_the_order(void **state)
{
    (void)state;
    struct fixture f;
    struct recipe r = {.scheme = SCHEME_Q4_K_S};
    fixture_init(&f, "gguf", "llama");
    fixture_meta_u32(&f, "llama.block_count", 12);
    for (int layer = 11; layer >= 0; layer--) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%d.attn_v.weight", layer);
        fixture_tensor(&f, name, QD_TYPE_F16, 0, 0, 2, 256, 4, 1);
    }
    assert_int_equal(type_of(&f, &r, "blk.3.attn_v.weight"), QD_TYPE_Q5_K);
    assert_int_equal(type_of(&f, &r, "blk.4.attn_v.weight"), QD_TYPE_Q4_K);
    assert_int_equal(type_of(&f, &r, "blk.11.attn_v.weight"), QD_TYPE_Q4_K);
    set(&r, "tensor", "blk\\.0\\.=q8_0"); /* what has its type by name is not counted */
    assert_int_equal(type_of(&f, &r, "blk.4.attn_v.weight"), QD_TYPE_Q5_K);
    fixture_clear(&f);
}

static void plan_build__tied_embedding__is_the_output_too(void **state)
{
    (void)state;
    struct fixture f;
    struct recipe r = {.scheme = SCHEME_Q4_K_S};
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, true);
    assert_int_equal(type_of(&f, &r, "token_embd.weight"), QD_TYPE_Q6_K);
    set(&r, "output", "q8_0");
    assert_int_equal(type_of(&f, &r, "token_embd.weight"), QD_TYPE_Q8_0);
    set(&r, "embedding", "q5_k");
    assert_int_equal(type_of(&f, &r, "token_embd.weight"), QD_TYPE_Q5_K);
    fixture_clear(&f);
}

static void plan_build__leave_output__is_left(void **state)
{
    (void)state;
    struct fixture f;
    struct recipe r = {.scheme = SCHEME_Q4_K_S, .leave_output = true};
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, false);
    assert_int_equal(type_of(&f, &r, "output.weight"), QD_TYPE_F16);
    fixture_clear(&f);
}

static void plan_build__q2_k_s__needs_importance(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err = {0};
    struct recipe r = {.scheme = SCHEME_Q2_K_S};
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, false);
    assert_int_equal(plan_build(&f.model, &r, NULL, &p, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "importance matrix"));
    assert_non_null(strstr(err.hint, "--imatrix"));
    fixture_clear(&f);
}

static void plan_build__rule_that_meets_nothing__is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err = {0};
    struct recipe r = {.scheme = SCHEME_Q4_0};
    set(&r, "tensor", "ffn_down=q8_0");
    set(&r, "keep", "ffn_dwon");
    make_llama(&f, "gguf", QD_TYPE_F16, 256, 768, false);
    assert_int_equal(plan_build(&f.model, &r, NULL, &p, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "--keep 'ffn_dwon'"));
    assert_non_null(strstr(err.hint, "lists the names"));
    fixture_clear(&f);
}

static void plan_build__experts_outside_of_layers__are_refused_as_the_field_does(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err = {0};
    struct recipe r = {.scheme = SCHEME_Q4_0};
    make_llama(&f, "gguf", QD_TYPE_F16, 64, 128, false);
    fixture_meta_u32(&f, "llama.expert_count", 4);
    fixture_tensor(&f, "blk.2.ffn_up.weight", QD_TYPE_F16, 0, 0, 2, 64, 32, 1);
    assert_int_equal(plan_build(&f.model, &r, NULL, &p, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "blk.2.ffn_up.weight"));
    fixture_clear(&f);
}

static void plan_build__requantize__is_allowed_by_name_and_said(void **state)
{
    (void)state;
    struct fixture f;
    struct recipe r = {.scheme = SCHEME_Q4_0, .pure = true, .requantize = true};
    make_llama(&f, "gguf", QD_TYPE_Q8_0, 64, 128, false);
    check_recipe(&f, &r, "llama-again-q4_0.plan");
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
    assert_non_null(strstr(err.message, "output.weight"));
    assert_non_null(strstr(err.message, "q8_0"));
    assert_non_null(strstr(err.hint, "original"));
    assert_non_null(strstr(err.hint, "--allow-requantize"));
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

static void plan_pack__llama__keeps_types_and_bytes(void **state)
{
    (void)state;
    struct fixture f;
    struct plan *p = NULL;
    struct qd_error err = {0};
    CLEANUP(buffer_clear) struct buffer text = {0};
    make_llama(&f, "gguf", QD_TYPE_Q4_0, 256, 768, false);
    fixture_tensor(&f, "blk.0.ffn_gate_exps.weight", QD_TYPE_Q6_K, 0, 0, 3, 256, 40, 4);
    fixture_tensor(&f, "blk.0.ffn_gate_inp.weight", QD_TYPE_Q8_0, 0, 0, 2, 256, 15, 1);
    fixture_tensor(&f, "blk.0.other.weight", QD_TYPE_Q5_0, 0, 0, 2, 256, 16, 1);
    if (plan_pack(&f.model, QD_LAYOUT_R16K4P128, NULL, &p, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(plan_print(p, &text), 0);
    assert_golden("llama-packed-r16k4p128.plan", buffer_span(&text));
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
    assert_true(p->borrowed_bytes >= 1000);
    assert_null(planned(p, "blk.1.ffn_down.weight")->importance);
    bool looked_at = ops_for(0)->quantize_weighted[QD_TYPE_Q4_0] != NULL;
    const struct plan_tensor *down = planned(p, "blk.0.ffn_down.weight");
    assert_ptr_equal(down->importance, looked_at ? w.ones : NULL);
    assert_int_equal(strstr(down->reason, "; weighted") != NULL, looked_at);
    (void)plan_free(p);
    (void)arena_free(w.importance.arena);
    fixture_clear(&f);
}

static void plan_build__importance__guards_the_first_eighth_of_q4_0(void **state)
{
    (void)state;
    struct fixture f;
    struct weights w;
    struct plan *p = NULL;
    make_layers(&f, "gguf", QD_TYPE_F16, 64, 128, false, 16);
    make_weights(&w, "blk.0.ffn_down.weight", 128);
    struct recipe plain = {.scheme = SCHEME_Q4_0}, weighted = plain;
    weighted.weighted = true;
    weighted.importance = w.importance.digest;
    assert_int_equal(type_of(&f, &plain, "blk.1.ffn_down.weight"), QD_TYPE_Q4_0);
    assert_int_equal(plan_build(&f.model, &weighted, &w.importance, &p, NULL), 0);
    assert_int_equal(planned(p, "blk.1.ffn_down.weight")->type, QD_TYPE_Q4_1);
    assert_int_equal(planned(p, "blk.2.ffn_down.weight")->type, QD_TYPE_Q4_0);
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
        cmocka_unit_test(plan_build__sixteen_layers_q4_k_m__more_bits_where_the_field_has_them),
        cmocka_unit_test(plan_build__rows_of_many_lengths__fall_back_one_by_one),
        cmocka_unit_test(plan_build__experts_mxfp4_moe__are_all_that_becomes_mxfp4),
        cmocka_unit_test(plan_build__rules_of_ones_own__come_before_the_mixture),
        cmocka_unit_test(plan_build__counters__run_by_layer_and_name_whatever_the_order),
        cmocka_unit_test(plan_build__tied_embedding__is_the_output_too),
        cmocka_unit_test(plan_build__leave_output__is_left),
        cmocka_unit_test(plan_build__q2_k_s__needs_importance),
        cmocka_unit_test(plan_build__rule_that_meets_nothing__is_refused),
        cmocka_unit_test(plan_build__experts_outside_of_layers__are_refused_as_the_field_does),
        cmocka_unit_test(plan_build__requantize__is_allowed_by_name_and_said),
        cmocka_unit_test(plan_build__quantized_source__is_refused_with_the_next_step),
        cmocka_unit_test(plan_build__metadata__is_kept_in_order_with_ours_set),
        cmocka_unit_test(plan_build__weighted__says_so_as_llama_quantize_does_and_by_digest),
        cmocka_unit_test(plan_build__importance__guards_the_first_eighth_of_q4_0),
        cmocka_unit_test(plan_build__another_importance_than_the_recipes__is_a_bug_that_is_seen),
        cmocka_unit_test(plan_pack__llama__keeps_types_and_bytes),
        cmocka_unit_test(plan_build__offsets__are_cumulative_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
