#include "quant/onnx/scheme.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/onnx/build.h"

enum {
    CONTRIB_VERSION = 1, /* of com.microsoft's operators */
    BFLOAT16_SINCE = 13, /* opset from which Cast knows bfloat16 */
    EDITS_A_WEIGHT = 24, /* at most: drops and additions, of activations and biases, too */
};

static const char scheme_prop[] = "quantd.scheme"; /* in metadata_props of what is made */

static const char *const scheme_names[] = {
#define S(name, NAME, text) name,
    ONNX_SCHEMES(S)
#undef S
};

const char *onnx_scheme_name(enum onnx_scheme s)
{
    return scheme_names[s];
}

/* ---- the plan ---- */

/* "--keep REGEX": the weight stays; a rule that names a type is one of GGUF models. */
static int apply_rules(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const struct tensor_rule *rule = b->plan->rules ? tensor_rules_match(b->plan->rules, w->name) : NULL;
    if (!rule || w->left)
        return 0;
    d->reason = rule->text;
    return rule->keep
               ? 0
               : err_new(b->err, QD_E_INVALID, "%s: a weight of an ONNX model has the type of its scheme", rule->text);
}

static int check_rules_used(struct builder *b)
{
    const struct tensor_rule *unused = b->plan->rules ? tensor_rules_unused(b->plan->rules) : NULL;
    if (!unused)
        return 0;
    int r = err_new(b->err, QD_E_INVALID, "%s matches no weight", unused->text);
    return err_hint(b->err, r, "--dry-run without it lists the weights' names");
}

static int plan_weight(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    *d = (struct onnx_decision){.weight = w,
                                .form = onnx_type_name(w->tensor->type),
                                .reason = w->left ? w->left : "",
                                .bytes_before = onnx_tensor_bytes(w->tensor)};
    d->bytes_after = d->bytes_before;
    int r = apply_rules(b, w, d);
    if (r < 0 || d->reason[0])
        return r;
    switch (b->plan->recipe.scheme) {
    case ONNX_SCHEME_INT4:
        return nibbles_fit(w) ? nibbles_plan(b, w, d) : int8_plan(b, w, d);
    case ONNX_SCHEME_INT8_DYNAMIC:
        return dynamic_fit(w) ? dynamic_plan(b, w, d) : int8_plan(b, w, d);
    case ONNX_SCHEME_INT8_WEIGHT:
    case ONNX_SCHEME_INT8_STATIC:
        return int8_plan(b, w, d);
    case ONNX_SCHEME_F16:
    case ONNX_SCHEME_BF16:
        return half_plan(b, w, d);
    case N_ONNX_SCHEMES:
        break;
    }
    return err_new(b->err, QD_E_INTERNAL, "no such scheme");
}

/* The opsets that the model imports from now on, where they are not the same. */
static int import_opsets(struct builder *b)
{
    const struct onnx_model *m = b->model;
    const bool contrib = b->uses_contrib && !build_opset(b, "com.microsoft");
    if (!contrib && !b->opset)
        return 0;
    struct onnx_opset *list = build_take(b, (uint64_t)m->n_opsets + 1, sizeof *list);
    if (!list)
        return build_out_of_budget(b);
    memcpy(list, m->opsets, m->n_opsets * sizeof *list);
    for (size_t i = 0; i < m->n_opsets; i++)
        if (b->opset && list[i].domain[0] == '\0')
            list[i].version = b->opset;
    list[m->n_opsets] = (struct onnx_opset){"com.microsoft", CONTRIB_VERSION};
    b->plan->edits.opsets = list;
    b->plan->edits.n_opsets = m->n_opsets + contrib;
    return 0;
}

/* What a model of ours says of itself; NULL: nothing. */
static const char *scheme_of(const struct onnx_model *m)
{
    for (size_t i = 0; i < m->n_props; i++)
        if (strcmp(m->props[i].key, scheme_prop) == 0)
            return m->props[i].value;
    return NULL;
}

/* The model says of itself what was done: weights as Cast and Mul do not show it. */
static int name_scheme(struct builder *b)
{
    struct onnx_prop *prop = build_take(b, 1, sizeof *prop);
    if (!prop)
        return build_out_of_budget(b);
    *prop = (struct onnx_prop){scheme_prop, onnx_scheme_name(b->plan->recipe.scheme)};
    b->plan->edits.props = prop;
    b->plan->edits.n_props = scheme_of(b->model) ? 0 : 1; /* one again keeps its first */
    return 0;
}

static int refuse(struct builder *b)
{
    const struct onnx_node *n = weights_quantized_node(b->model);
    const char *made = scheme_of(b->model);
    if ((made || n) && !b->plan->recipe.again) {
        int r = made
                    ? err_new(b->err, QD_E_UNSUPPORTED, "the model is quantized already: %s = %.64s", scheme_prop, made)
                    : err_new(b->err, QD_E_UNSUPPORTED, "the model is quantized already: node '%.100s' is a %s",
                              n->name[0] ? n->name : n->outputs[0], n->op_type);
        return err_hint(b->err, r, "quantize the original, or say --allow-requantize");
    }
    if (b->plan->recipe.scheme == ONNX_SCHEME_BF16 && build_opset(b, "") < BFLOAT16_SINCE)
        return err_hint(b->err,
                        err_new(b->err, QD_E_UNSUPPORTED, "opset %" PRId64 " has no bfloat16", build_opset(b, "")),
                        "export the model with opset 13 or later, or ask for f16");
    if (b->plan->recipe.block != 32 && b->plan->recipe.block != 64 && b->plan->recipe.block != 128)
        return err_new(b->err, QD_E_INVALID, "blocks of %" PRIu32 ": 32, 64 and 128 are possible",
                       b->plan->recipe.block);
    return 0;
}

static int none_to_quantize(struct builder *b)
{
    int r = err_new(b->err, QD_E_UNSUPPORTED, "no weight of the model can be quantized: %zu are looked at",
                    b->plan->weights.n);
    return err_hint(b->err, r, "--dry-run says of each why");
}

/* At most so many are renamed. */
static uint64_t count_inputs(const struct onnx_graph *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        n += g->nodes[i].n_inputs;
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs; k++)
                n += count_inputs(&g->nodes[i].attrs[a].graphs[k]);
    }
    return n;
}

static int build(struct builder *b, const char *data_name)
{
    struct onnx_plan *p = b->plan;
    int r = refuse(b);
    if (r == 0)
        r = weights_find(b->model, p->arena, &p->weights, b->err);
    if (r < 0)
        return r;
    p->decisions = build_take(b, p->weights.n + 1, sizeof *p->decisions);
    const uint64_t n_edits = EDITS_A_WEIGHT * (uint64_t)p->weights.n + opset_changes(b) + 1;
    b->drops = build_take(b, n_edits, sizeof *b->drops);
    b->additions = build_take(b, n_edits, sizeof *b->additions);
    b->renames = build_take(b, count_inputs(b->model->graph) + 1, sizeof *b->renames);
    b->activations = build_take(b, 2 * (uint64_t)p->weights.n + 1, sizeof *b->activations);
    if (!p->decisions || !b->drops || !b->additions || !b->renames || !b->activations)
        return build_out_of_budget(b);
    if (p->recipe.rules && p->recipe.rules[0])
        r = tensor_rules_compile(p->recipe.rules, p->arena, &p->rules, b->err);
    for (size_t i = 0; i < p->weights.n && r == 0; i++)
        r = plan_weight(b, &p->weights.list[i], &p->decisions[i]);
    static_finish(b);
    if (r == 0)
        r = check_rules_used(b);
    if (r == 0 && p->edits.n_drops == 0)
        r = none_to_quantize(b);
    if (r == 0)
        r = opset_raise(b);
    if (r == 0)
        r = import_opsets(b);
    if (r == 0)
        r = name_scheme(b);
    p->edits.drops = b->drops;
    p->edits.additions = b->additions;
    p->edits.renames = b->renames;
    return r < 0 ? r
                 : onnx_write_plan(b->model, b->source, &p->edits, data_name, ONNX_EXTERNAL_FROM, &p->output, b->err);
}

int onnx_plan_build(const struct onnx_model *m, struct source *s, const struct onnx_recipe *recipe,
                    const struct statistics *statistics, const struct ops *ops, const char *data_name,
                    struct onnx_plan **ret, struct qd_error *err)
{
    CLEANUP(onnx_plan_free) struct onnx_plan *p = calloc(1, sizeof *p);
    if (!p || !(p->arena = arena_new((size_t)1 << 30)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    p->recipe = *recipe;
    for (size_t i = 0; i < source_n_files(s); i++)
        p->source_bytes += source_bytes(s, i);
    struct builder b = {.plan = p, .model = m, .source = s, .ops = ops, .statistics = statistics, .err = err};
    int r = build(&b, data_name);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}

struct onnx_plan *onnx_plan_free(struct onnx_plan *p)
{
    if (p) {
        (void)onnx_output_free(p->output); /* these return NULL */
        (void)tensor_rules_free(p->rules);
        (void)arena_free(p->arena);
    }
    free(p);
    return NULL;
}
