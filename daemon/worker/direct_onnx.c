#include "daemon/worker/direct_onnx.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/worker/onnx_data.h"
#include "daemon/worker/onnx_report.h"
#include "daemon/worker/outfile.h"
#include "kernels/core/clock.h"
#include "kernels/core/io.h"
#include "kernels/cpu.h"
#include "quant/limits.h"
#include "quant/onnx/choose.h"

enum { DATA_NAME_BYTES = LIMIT_FILE_NAME_BYTES + 1, PATH_BYTES = 4096 };

/* "OUT.data": the name in the model's file, and the path. */
static int data_names(const struct direct_args *a, char name[DATA_NAME_BYTES], char path[PATH_BYTES],
                      struct qd_error *err)
{
    const char *out = a->out ? a->out : "OUT.onnx", *slash = strrchr(out, '/'), *last = slash ? slash + 1 : out;
    if (snprintf(name, DATA_NAME_BYTES, "%s.data", last) >= DATA_NAME_BYTES ||
        snprintf(path, PATH_BYTES, "%s.data", out) >= PATH_BYTES)
        return err_new(err, QD_E_INVALID, "'%.100s...' is too long for a name", out);
    return 0;
}

/* ---- writing ---- */

/* The data first: a model that is there has its data. Killed in between, only the new data are there. */
static int write_files(const struct direct_args *a, const struct onnx_plan *p, struct source *s, const char *data_path,
                       onnx_progress_fn *progress, void *progress_data, struct qd_error *err)
{
    CLEANUP(outfile_close) struct outfile data = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    CLEANUP(outfile_close) struct outfile model = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    int r = outfile_open(&model, a->out, a->force, err);
    if (r == 0 && p->output->data_bytes)
        r = outfile_open(&data, data_path, a->force, err);
    if (r == 0 && p->output->data_bytes)
        r = onnx_write_data(p->output, s, data.fd, progress, progress_data, err);
    if (r == 0) {
        const int w = pwrite_whole(model.fd, p->output->model.data, p->output->model.n, 0);
        r = w < 0 ? err_sys(err, -w, "write '%s'", a->out) : source_check_unchanged(s, err);
    }
    if (r == 0 && p->output->data_bytes)
        r = outfile_publish(&data, err);
    return r < 0 ? r : outfile_publish(&model, err);
}

/* x86 without VNNI adds pairs of products in 16 bits. */
static bool saturates(uint64_t features)
{
#if defined __x86_64__
    return !(features & (CPU_AVX512VNNI | CPU_AVXVNNI));
#else
    (void)features;
    return false;
#endif
}

/* Whichever form of int8 suits. */
static bool is_any(const struct direct_args *a)
{
    return a->onnx_any || (!a->onnx_given && a->recipe.scheme == SCHEME_AUTO);
}

static int make_recipe(const struct direct_args *a, struct onnx_recipe *ret, struct qd_error *err)
{
    *ret = a->onnx;
    ret->again = a->recipe.requantize;
    ret->rules = a->recipe.rules;
    if (!ret->bits)
        ret->bits = saturates(cpu_features()) ? 7 : 8;
    if (is_any(a))
        ret->scheme = a->calibration || a->statistics ? ONNX_SCHEME_INT8_STATIC : ONNX_SCHEME_INT8_WEIGHT;
    if (a->onnx_given || a->recipe.scheme == SCHEME_AUTO)
        return 0;
    int r = err_new(err, QD_E_INVALID, "%s is a scheme of GGUF; this is an ONNX model", scheme_name(a->recipe.scheme));
    return err_hint(err, r, "ONNX models take int8, int8-weight, int8-static, int8-dynamic, int4, f16 and bf16");
}

/* The plan of @recipe, or of the form of int8 that suits, and why it is that. */
static int make_plan(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                     const struct onnx_recipe *recipe, const struct statistics *statistics, const char *data_name,
                     struct onnx_plan **ret, struct int8_choice *ret_choice, struct qd_error *err)
{
    const struct ops *ops = ops_native();
    CLEANUP(onnx_plan_free) struct onnx_plan *p = NULL;
    int r = onnx_plan_build(m, s, recipe, statistics, ops, data_name, &p, err);
    (void)snprintf(ret_choice->why, sizeof ret_choice->why, "%s",
                   is_any(a) ? "no calibration data: weights alone lose least" : "asked for");
    if (r == 0 && is_any(a) && statistics)
        int8_choose(p, statistics, int8_speed(), ret_choice);
    if (r == 0 && is_any(a) && statistics && ret_choice->scheme != recipe->scheme) {
        struct onnx_recipe chosen = *recipe;
        chosen.scheme = ret_choice->scheme;
        p = onnx_plan_free(p);
        r = onnx_plan_build(m, s, &chosen, NULL, ops, data_name, &p, err);
    }
    if (r == 0)
        *ret = steal(&p);
    return r;
}

int direct_onnx_run(const struct direct_args *a, struct source *s, double started, const _Atomic int *cancel,
                    onnx_progress_fn *progress, void *data, struct qd_error *err)
{
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(onnx_plan_free) struct onnx_plan *p = NULL;
    CLEANUP(statistics_free) struct statistics *statistics = NULL;
    CLEANUP(comparison_free) struct comparison *comparison = NULL;
    struct onnx_recipe recipe;
    char name[DATA_NAME_BYTES], path[PATH_BYTES];
    struct int8_choice choice = {.why = ""};
    struct qd_error not_compared = {0};
    int r = make_recipe(a, &recipe, err);
    if (r == 0)
        r = onnx_data_check(a, err);
    if (r == 0)
        r = data_names(a, name, path, err);
    if (r == 0)
        r = onnx_read(s, LIMIT_HEADER_BUDGET_BYTES, &m, err);
    if (r == 0)
        r = onnx_data_statistics(a, m, s, recipe.scheme, cancel, &statistics, err);
    if (r == 0)
        r = make_plan(a, m, s, &recipe, statistics, name, &p, &choice, err);
    if (r == 0 && !a->dry_run)
        r = write_files(a, p, s, path, progress, data, err);
    if (r < 0)
        return r;
    if (a->calibration && !a->dry_run) /* the files stand, whatever comes of it */
        r = onnx_data_compare(a, m, s, cancel, &comparison, &not_compared);
    const struct onnx_report report = {.args = a,
                                       .plan = p,
                                       .why = choice.why,
                                       .comparison = comparison,
                                       .not_compared = r < 0 ? not_compared.message : NULL,
                                       .seconds = seconds_now() - started};
    return onnx_report(&report, err);
}
