#include "quant/plan_rules.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/tensor_rules.h"

/*
 * Names that stay unquantized, as tensor_allows_quantization has them. (Its test for names that
 * end in "weight" also lets a name of five letters without it through, by wrapping around; no
 * model has one and we do not follow.)
 */
struct kept_name {
    bool whole; /* the whole name, else any part of it */
    const char *text;
    const char *reason;
};

static const struct kept_name kept_names[] = {
    {false, "_norm.weight", "normalisation stays unquantized"},
    {false, "ffn_gate_inp.weight", "expert router stays unquantized"},
    {false, "ffn_gate_tid2eid.weight", "routing table stays unquantized"},
    {false, "altup", "small projection (altup) stays unquantized"},
    {false, "laurel", "small projection (laurel) stays unquantized"},
    {false, "per_layer_model_proj", "per-layer projection stays unquantized"},
    {true, "position_embd.weight", "positional embedding stays unquantized"},
    {true, "token_types.weight", "token type embedding stays unquantized"},
    {false, "ssm_conv1d", "short convolution stays unquantized"},
    {false, "shortconv.conv.weight", "short convolution stays unquantized"},
    {false, "indexer.k_proj.weight", "indexer projection stays unquantized"},
    {false, "indexer.q_proj.weight", "indexer projection stays unquantized"},
    {false, "time_mix_first.weight", "time mixing stays unquantized"},
    {false, "time_mix_w0.weight", "time mixing stays unquantized"},
    {false, "time_mix_w1.weight", "time mixing stays unquantized"},
    {false, "time_mix_w2.weight", "time mixing stays unquantized"},
    {false, "time_mix_v0.weight", "time mixing stays unquantized"},
    {false, "time_mix_v1.weight", "time mixing stays unquantized"},
    {false, "time_mix_v2.weight", "time mixing stays unquantized"},
    {false, "time_mix_a0.weight", "time mixing stays unquantized"},
    {false, "time_mix_a1.weight", "time mixing stays unquantized"},
    {false, "time_mix_a2.weight", "time mixing stays unquantized"},
    {false, "time_mix_g1.weight", "time mixing stays unquantized"},
    {false, "time_mix_g2.weight", "time mixing stays unquantized"},
    {false, "time_mix_decay_w1.weight", "time mixing stays unquantized"},
    {false, "time_mix_decay_w2.weight", "time mixing stays unquantized"},
    {false, "time_mix_lerp_fused.weight", "time mixing stays unquantized"},
    {false, "attn_rel_b.weight", "relative position bias stays unquantized"},
    {false, ".position_embd", "image position embedding stays unquantized"},
    {false, "sam.pos_embd", "image encoder (sam) stays unquantized"},
    {false, "sam.neck.", "image encoder (sam) stays unquantized"},
    {false, "sam.net_", "image encoder (sam) stays unquantized"},
    {false, ".rel_pos", "relative position stays unquantized"},
    {false, ".patch_embd", "image patch embedding stays unquantized"},
    {false, ".patch_merger", "image patch merger stays unquantized"},
    {false, "a.rvq.codebook", "audio codebook stays unquantized"},
    {false, "mm.a.code_embd", "audio codebook stays unquantized"},
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Dimensions as ggml counts them: trailing ones do not count. */
static uint32_t true_dims(const struct tensor *t)
{
    for (uint32_t d = t->n_dims; d > 1; d--) {
        if (t->shape[d - 1] > 1)
            return d;
    }
    return 1;
}

/* Why @t stays unquantized; NULL where the scheme applies. */
static const char *kept_reason(const struct tensor *t)
{
    if (qd_type_info(t->type)->kind == QD_KIND_INT)
        return "integers stay as they are";
    if (t->type == QD_TYPE_F64)
        return "f64 stays as it is";
    if (true_dims(t) < 2)
        return "fewer than two dimensions";
    if (!ends_with(t->name, "weight"))
        return "not a weight by its name";
    for (size_t i = 0; i < sizeof kept_names / sizeof kept_names[0]; i++) {
        const struct kept_name *k = &kept_names[i];
        if (k->whole ? strcmp(t->name, k->text) == 0 : strstr(t->name, k->text) != NULL)
            return k->reason;
    }
    return NULL;
}

/*
 * What a kept tensor is stored as: a GGUF's choice is respected; from elsewhere floats become f32, which is what
 * runtimes ask of norms and biases.
 */
static enum qd_type kept_type(bool from_gguf, const struct tensor *t)
{
    bool widen = !from_gguf && (t->type == QD_TYPE_F16 || t->type == QD_TYPE_BF16);
    return widen ? QD_TYPE_F32 : t->type;
}

/* --- facts of the model --- */

struct deciding {
    const struct recipe *recipe;
    struct arena *arena;
    struct tensor_rules *rules;
    bool from_gguf; /* unquantized tensors keep the type they have; else they become f32 */
    bool tied;      /* no output.weight: the token embedding is the output too */
    bool bailing;   /* bailingmoe3: has three-dimensional matrices that are no experts */
    uint32_t facts; /* enum mixture_fact of the model and the recipe */
    uint64_t n_experts;
    int64_t n_layers, n_values; /* layers of the model; matrices of attention values */
    int64_t i_values, i_down;   /* of those met so far, in the order of decide_all */
};

/* Item @i of the integer or integers under "ARCHITECTURE.@name"; a scalar stands for every item. */
static uint64_t model_number(const struct model *m, const char *name, uint64_t i, uint64_t absent)
{
    char key[192];
    (void)snprintf(key, sizeof key, "%.128s.%s", m->architecture, name); /* a longer name is none that has rules */
    const struct meta_value *v = meta_find(&m->meta, key);
    if (!v)
        return absent;
    enum meta_type type = v->type == META_ARRAY ? v->item : v->type;
    size_t width = meta_type_bytes(type);
    uint64_t at = v->type == META_ARRAY ? i : 0, n = 0;
    if (!width || width > sizeof n || at >= v->n_items || type == META_F32 || type == META_F64)
        return absent;
    memcpy(&n, (const uint8_t *)v->data + at * width, width); /* little-endian, as every machine we run on */
    return n;
}

/* Architectures whose models of this many layers the field calls 70B. */
static const struct {
    const char *architecture;
    uint64_t layers;
    bool shared_heads; /* only where keys and values have fewer heads, and there are no 8 experts */
} large_models[] = {{"llama", 80, true}, {"llama-embed", 80, true}, {"qwen2", 80, false},
                    {"deci", 80, false}, {"olmo", 80, false},       {"jais2", 68, false}};

static bool is_70b(const struct model *m, uint64_t n_experts)
{
    uint64_t layers = model_number(m, "block_count", 0, 0) - model_number(m, "nextn_predict_layers", 0, 0);
    uint64_t heads = model_number(m, "attention.head_count", 0, 0);
    bool shared = heads != model_number(m, "attention.head_count_kv", 0, heads) && n_experts != 8;
    for (size_t i = 0; i < sizeof large_models / sizeof large_models[0]; i++)
        if (strcmp(m->architecture, large_models[i].architecture) == 0)
            return layers == large_models[i].layers && (shared || !large_models[i].shared_heads);
    return false;
}

static uint32_t model_facts(const struct model *m, const struct recipe *r, uint64_t n_experts)
{
    uint64_t heads = model_number(m, "attention.head_count", 0, 0);
    uint64_t kv_heads = model_number(m, "attention.head_count_kv", 0, heads);
    uint32_t facts = strcmp(m->architecture, "falcon") == 0 ? FACT_FALCON : FACT_NOT_FALCON;
    facts |= n_experts == 8 ? FACT_EXPERTS_8 : FACT_NOT_EXPERTS_8;
    facts |= r->weighted ? FACT_WEIGHTED : FACT_NOT_WEIGHTED;
    facts |= kv_heads && heads / kv_heads >= 4 ? FACT_GQA_4 : 0;
    return facts | (is_70b(m, n_experts) ? FACT_70B : 0);
}

static void look_at_model(struct deciding *d, const struct model *m)
{
    d->from_gguf = strcmp(m->format, "gguf") == 0;
    d->bailing = strcmp(m->architecture, "bailingmoe3") == 0;
    d->n_experts = model_number(m, "expert_count", 0, 0);
    d->n_layers = (int64_t)model_number(m, "block_count", 0, 0);
    d->facts = model_facts(m, d->recipe, d->n_experts);
    d->tied = model_find(m, "output.weight") == NULL;
    for (size_t i = 0; i < m->n_tensors; i++)
        d->n_values += matrix_of(m->tensors[i].name) == MATRIX_ATTN_V;
}

/* --- the scheme's choice --- */

/* The N of a name "blk.N.", or -1. */
static int64_t layer_of(const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    long n = strtol(name + 4, &end, 10);
    return end == name + 4 ? -1 : n;
}

static int refuse_layer(const struct tensor *t, int64_t n_layers, struct qd_error *err)
{
    return err_new(
        err, QD_E_UNSUPPORTED,
        "tensor '%s': a feed-forward matrix of a model with experts, whose name tells no layer below %" PRId64, t->name,
        n_layers);
}

/* Where @t stands among its like. Models with experts tell it by name: their matrices are not in order. */
static int place_of(struct deciding *d, const struct tensor *t, enum matrix matrix, uint32_t *ret, struct qd_error *err)
{
    bool feed_forward = matrix == MATRIX_FFN_UP || matrix == MATRIX_FFN_GATE || matrix == MATRIX_FFN_DOWN;
    int64_t layer = layer_of(t->name);
    *ret = 0;
    if (matrix == MATRIX_ATTN_V)
        *ret = mixture_place(d->i_values++, d->n_values);
    if (!feed_forward || d->recipe->scheme == SCHEME_MXFP4_MOE)
        return 0;
    if (d->n_experts > 1 && (layer < 0 || layer >= d->n_layers))
        return refuse_layer(t, d->n_layers, err);
    if (matrix == MATRIX_FFN_DOWN) {
        int64_t i = d->i_down++;
        *ret = mixture_place(d->n_experts > 1 ? layer : i, d->n_layers);
    }
    return 0;
}

static bool is_expert_matrix(const struct deciding *d, const struct tensor *t, enum matrix matrix)
{
    bool feed_forward = matrix == MATRIX_FFN_UP || matrix == MATRIX_FFN_GATE || matrix == MATRIX_FFN_DOWN;
    return t->shape[2] > 1 && (!d->bailing || feed_forward);
}

static int choose_mixed(struct deciding *d, const struct tensor *t, enum matrix matrix, struct type_choice *ret,
                        struct qd_error *err)
{
    uint32_t place = 0;
    if (d->tied && matrix == MATRIX_EMBEDDING)
        matrix = MATRIX_OUTPUT;
    if (matrix == MATRIX_OUTPUT && d->recipe->has_output) {
        *ret = (struct type_choice){d->recipe->output, "output type asked for; the embedding is the output too"};
        return 0;
    }
    int r = place_of(d, t, matrix, &place, err);
    if (r < 0)
        return r;
    bool odd = t->shape[0] % qd_type_info(scheme_type(d->recipe->scheme))->block_elements != 0;
    uint32_t facts = d->facts | place | (odd ? FACT_ROWS_ODD : 0);
    facts |= is_expert_matrix(d, t, matrix) ? FACT_EXPERT_MATRIX : 0;
    *ret = mixture_choose(d->recipe->scheme, matrix, facts);
    return 0;
}

static int choose(struct deciding *d, const struct tensor *t, enum matrix matrix, struct type_choice *ret,
                  struct qd_error *err)
{
    enum qd_type type = scheme_type(d->recipe->scheme);
    if (!d->recipe->pure && qd_type_info(type)->kind == QD_KIND_BLOCK)
        return choose_mixed(d, t, matrix, ret, err);
    *ret = mixture_plain(d->recipe->scheme);
    return 0;
}

/* --- what was asked for by name --- */

/*
 * In llama-quantize's order: the types of embedding and output, then the first rule that matches. (Its rules have no
 * part in files of floats; ours have.) True: @ret is filled; @ret_kept where it stays as it is.
 */
static bool asked_for(const struct deciding *d, const struct tensor *t, enum matrix matrix,
                      const struct tensor_rule *rule, struct type_choice *ret, bool *ret_kept)
{
    const struct recipe *r = d->recipe;
    *ret_kept = false;
    if (r->leave_output && matrix == MATRIX_OUTPUT) {
        *ret = (struct type_choice){t->type, "output left as it is, as asked for"};
        *ret_kept = true;
        return true;
    }
    bool named = rule && strcmp(t->name, "per_layer_token_embd.weight") == 0; /* a large table of its own */
    if (r->has_embedding && matrix == MATRIX_EMBEDDING && !named) {
        *ret = (struct type_choice){r->embedding, "embedding type asked for"};
        return true;
    }
    if (r->has_output && matrix == MATRIX_OUTPUT) {
        *ret = (struct type_choice){r->output, "output type asked for"};
        return true;
    }
    if (!rule)
        return false;
    *ret = (struct type_choice){rule->keep ? t->type : rule->type, rule->text};
    *ret_kept = rule->keep;
    return true;
}

/* --- what follows from any choice --- */

static const char *text_in(struct arena *arena, const char *text)
{
    return arena_text(arena, (struct bytes){(const uint8_t *)text, strlen(text)});
}

/* Rows that do not divide into the type's blocks. */
static int fit_rows(const struct tensor *t, struct arena *arena, struct type_choice *c, struct qd_error *err)
{
    enum qd_type fit = mixture_fallback(c->type, t->shape[0]);
    if (fit == c->type)
        return 0;
    char text[128];
    (void)snprintf(text, sizeof text, "rows of %" PRIu64 " do not divide into blocks of %u: %s in place of %s",
                   t->shape[0], qd_type_info(c->type)->block_elements, qd_type_info(fit)->name,
                   qd_type_info(c->type)->name); /* fits: numbers of at most 20 digits */
    c->reason = text_in(arena, text);
    c->type = fit;
    return c->reason ? 0 : err_new(err, QD_E_NO_MEMORY, "plan");
}

static int check_requantize(const struct recipe *r, const struct tensor *t, struct arena *arena, struct type_choice *c,
                            struct qd_error *err)
{
    const char *from = qd_type_info(t->type)->name;
    if (c->type == t->type || qd_type_info(t->type)->kind != QD_KIND_BLOCK)
        return 0;
    if (!r->requantize) {
        int code = err_new(err, QD_E_UNSUPPORTED,
                           "tensor '%s' is already quantized to %s; quantizing it again to %s would add one error to "
                           "another",
                           t->name, from, qd_type_info(c->type)->name);
        return err_hint(err, code, "use the model's f32, f16 or bf16 original, or say --allow-requantize");
    }
    char text[160];
    (void)snprintf(text, sizeof text, "%.100s; quantized again, from %s", c->reason, from); /* for people */
    c->reason = text_in(arena, text);
    return c->reason ? 0 : err_new(err, QD_E_NO_MEMORY, "plan");
}

static int decide_one(struct deciding *d, const struct tensor *t, struct type_choice *ret, struct qd_error *err)
{
    const struct tensor_rule *rule = tensor_rules_match(d->rules, t->name);
    enum matrix matrix = matrix_of(t->name);
    bool kept = false;
    *ret = (struct type_choice){kept_type(d->from_gguf, t), kept_reason(t)};
    if (ret->reason)
        return 0;
    int r = asked_for(d, t, matrix, rule, ret, &kept) ? 0 : choose(d, t, matrix, ret, err);
    if (r < 0 || kept)
        return r;
    r = fit_rows(t, d->arena, ret, err);
    return r < 0 ? r : check_requantize(d->recipe, t, d->arena, ret, err);
}

/* --- all of them --- */

struct place {
    const struct tensor *tensor;
    int64_t layer;
};

/* The field counts matrices in this order (llama-model-loader.h: weight_name_comparer), whatever the file's is. */
static int by_layer_and_name(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return strcmp(x->tensor->name, y->tensor->name);
}

static int decide_all(struct deciding *d, const struct model *m, struct type_choice *ret, struct qd_error *err)
{
    CLEANUP(free) struct place *order = calloc(m->n_tensors + 1, sizeof *order);
    if (!order)
        return err_new(err, QD_E_NO_MEMORY, "plan");
    for (size_t i = 0; i < m->n_tensors; i++)
        order[i] = (struct place){&m->tensors[i], layer_of(m->tensors[i].name)};
    qsort(order, m->n_tensors, sizeof *order, by_layer_and_name);
    for (size_t i = 0; i < m->n_tensors; i++) {
        int r = decide_one(d, order[i].tensor, &ret[order[i].tensor - m->tensors], err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A rule that meets nothing is a slip of the pen, and the result would not tell. */
static int check_all_used(const struct tensor_rules *rules, struct qd_error *err)
{
    const struct tensor_rule *unused = tensor_rules_unused(rules);
    if (!unused)
        return 0;
    int r = err_new(err, QD_E_INVALID, "%s: no tensor of this model has such a name", unused->text);
    return err_hint(err, r,
                    "a plan without the rule lists the names: quantctl plan MODEL, quantctl quantize --dry-run");
}

int plan_decide(const struct model *m, const struct recipe *r, struct arena *arena, struct type_choice *ret,
                struct qd_error *err)
{
    CLEANUP(tensor_rules_free) struct tensor_rules *rules = NULL;
    int done = tensor_rules_compile(r->rules, arena, &rules, err);
    if (done < 0)
        return done;
    struct deciding d = {.recipe = r, .arena = arena, .rules = rules};
    look_at_model(&d, m);
    done = decide_all(&d, m, ret, err);
    return done < 0 ? done : check_all_used(rules, err);
}
