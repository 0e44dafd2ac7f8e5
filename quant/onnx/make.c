#include "quant/onnx/make.h"

#include <stdio.h>
#include <string.h>

static const struct {
    enum scheme scheme;
    enum onnx_scheme onnx;
} schemes[] = {
    {SCHEME_INT8_WEIGHT, ONNX_SCHEME_INT8_WEIGHT},
    {SCHEME_INT8_STATIC, ONNX_SCHEME_INT8_STATIC},
    {SCHEME_INT8_DYNAMIC, ONNX_SCHEME_INT8_DYNAMIC},
    {SCHEME_INT4, ONNX_SCHEME_INT4},
    {SCHEME_F16, ONNX_SCHEME_F16},
    {SCHEME_BF16, ONNX_SCHEME_BF16},
};

/* int8 begins as the form that its choice is made from. */
static enum onnx_scheme scheme_of(const struct recipe *r, bool has_statistics)
{
    if (r->scheme == SCHEME_INT8)
        return has_statistics ? ONNX_SCHEME_INT8_STATIC : ONNX_SCHEME_INT8_WEIGHT;
    size_t i = 0;
    while (schemes[i].scheme != r->scheme)
        i++; /* make_wants_statistics refuses all others */
    return schemes[i].onnx;
}

int make_wants_statistics(const struct recipe *r, bool has_samples, bool *ret, struct qd_error *err)
{
    if (!(scheme_families(r->scheme) & FAMILY_ONNX)) {
        int e = err_new(err, QD_E_INVALID, "%s is a scheme of GGUF; this is an ONNX model", scheme_name(r->scheme));
        return err_hint(err, e, "ONNX models take int8, int8-weight, int8-static, int8-dynamic, int4, f16 and bf16");
    }
    if (r->scheme == SCHEME_INT8_STATIC && !has_samples) {
        int e = err_new(err, QD_E_INVALID, "int8-static needs calibration data");
        return err_hint(err, e,
                        "samples of the model's inputs: MODEL.calib/ beside MODEL.onnx, or --calibration FOLDER, or "
                        "--statistics FILE; int8-weight needs none");
    }
    *ret = has_samples && (r->scheme == SCHEME_INT8_STATIC || r->scheme == SCHEME_INT8);
    return 0;
}

/* What int8 is made from. */
struct making {
    const struct onnx_model *model;
    struct source *source;
    const struct onnx_samples *samples; /* NULL: none */
    const struct ops *ops;
    const char *data_name;
};

/* Both forms over samples; too large for that, or without samples, time alone decides. */
static int judge(const struct making *k, const struct onnx_plan *with_static, const struct onnx_plan *with_weights,
                 struct int8_choice *choice, struct qd_error *err)
{
    CLEANUP(comparison_free) struct comparison *a = NULL, *b = NULL;
    int r = onnx_try(k->model, k->source, with_static, k->data_name, k->samples, TRIAL_SAMPLES, &a, err);
    if (r == 0)
        r = onnx_try(k->model, k->source, with_weights, k->data_name, k->samples, TRIAL_SAMPLES, &b, err);
    if (r == 0)
        int8_judge(a, b, choice);
    return r == QD_E_LIMIT ? 0 : r;
}

/* @static_plan stays, or becomes that of weights alone. */
static int choose(const struct making *k, struct onnx_recipe *recipe, const struct statistics *statistics, double speed,
                  struct onnx_plan **static_plan, struct int8_choice *choice, struct qd_error *err)
{
    CLEANUP(onnx_plan_free) struct onnx_plan *weights = NULL;
    int8_choose(*static_plan, statistics, speed, choice);
    if (choice->scheme == recipe->scheme && !k->samples)
        return 0;
    recipe->scheme = ONNX_SCHEME_INT8_WEIGHT;
    int r = onnx_plan_build(k->model, k->source, recipe, NULL, k->ops, k->data_name, &weights, err);
    if (r == 0 && choice->scheme != ONNX_SCHEME_INT8_WEIGHT)
        r = judge(k, *static_plan, weights, choice, err);
    if (r == 0 && choice->scheme == ONNX_SCHEME_INT8_WEIGHT) {
        (void)onnx_plan_free(*static_plan); /* returns NULL */
        *static_plan = steal(&weights);
    }
    return r;
}

int make_plan(const struct onnx_model *m, struct source *s, const struct recipe *r, const struct statistics *statistics,
              const struct onnx_samples *samples, const struct ops *ops, const char *data_name, struct made *ret,
              struct qd_error *err)
{
    const struct making k = {m, s, samples, ops, data_name};
    struct onnx_recipe recipe = {.scheme = scheme_of(r, statistics != NULL),
                                 .block = r->block ? r->block : 32,
                                 .asymmetric = r->asymmetric,
                                 .again = r->requantize,
                                 .method = r->method,
                                 .bits = r->bits ? r->bits : 8,
                                 .rules = r->rules};
    CLEANUP(onnx_plan_free) struct onnx_plan *p = NULL;
    struct int8_choice choice = {.scheme = recipe.scheme};
    int e = onnx_plan_build(m, s, &recipe, statistics, ops, data_name, &p, err);
    if (e == 0 && r->scheme == SCHEME_INT8) {
        (void)snprintf(choice.why, sizeof choice.why, "no calibration data: weights alone lose least");
        if (statistics)
            e = choose(&k, &recipe, statistics, (double)r->speed / 10.0, &p, &choice, err);
    }
    if (e < 0)
        return e;
    *ret = (struct made){.plan = steal(&p)};
    memcpy(ret->why, choice.why, sizeof ret->why);
    return 0;
}
