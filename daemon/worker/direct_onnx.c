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
#include "quant/onnx/make.h"
#include "quant/pack_onnx.h"
#include "quant/policy.h"

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

/* What was asked for, with what this CPU decides; its speed is measured where the choice of int8 hangs on it. */
static int resolve(const struct direct_args *a, struct recipe *ret, char why[POLICY_WHY_MAX], bool *ret_wants,
                   struct qd_error *err)
{
    const bool has_samples = a->calibration || a->statistics;
    const bool any = a->recipe.scheme == SCHEME_INT8 || a->recipe.scheme == SCHEME_AUTO;
    const double speed = any && has_samples ? int8_speed() : 0.0;
    const struct policy_facts facts = {
        .cpu_features = cpu_features(), .is_onnx = true, .int8_speed = (uint32_t)(10.0 * speed + 0.5)};
    policy_resolve(&a->recipe, &facts, ret, why);
    int r = make_wants_statistics(ret, has_samples, ret_wants, err);
    if (r == 0 && !*ret_wants && (a->statistics || a->save_statistics))
        r = err_new(err, QD_E_INVALID, "%s has no use for statistics", scheme_name(ret->scheme));
    return r;
}

int direct_onnx_run(const struct direct_args *a, struct source *s, double started, const _Atomic int *cancel,
                    onnx_progress_fn *progress, void *data, struct qd_error *err)
{
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(onnx_plan_free) struct onnx_plan *p = NULL;
    CLEANUP(statistics_free) struct statistics *statistics = NULL;
    CLEANUP(comparison_free) struct comparison *comparison = NULL;
    struct recipe recipe;
    struct made made = {.why = ""};
    char name[DATA_NAME_BYTES], path[PATH_BYTES], why[POLICY_WHY_MAX];
    struct qd_error not_compared = {0};
    bool wants = false;
    int r = resolve(a, &recipe, why, &wants, err);
    if (r == 0)
        r = onnx_data_check(a, err);
    if (r == 0)
        r = data_names(a, name, path, err);
    if (r == 0)
        r = onnx_read(s, LIMIT_HEADER_BUDGET_BYTES, &m, err);
    if (r == 0 && wants)
        r = onnx_data_statistics(a, m, s, cancel, &statistics, err);
    if (r == 0)
        r = onnx_data_plan(a, m, s, &recipe, statistics, name, cancel, &made, err);
    p = made.plan;
    if (r == 0 && !a->dry_run)
        r = write_files(a, p, s, path, progress, data, err);
    if (r < 0)
        return r;
    if (a->calibration && !a->dry_run) /* the files stand, whatever comes of it */
        r = onnx_data_compare(a, m, s, cancel, &comparison, &not_compared);
    const struct onnx_report report = {.args = a,
                                       .plan = p,
                                       .why = made.why[0] ? made.why : "asked for",
                                       .comparison = comparison,
                                       .not_compared = r < 0 ? not_compared.message : NULL,
                                       .seconds = seconds_now() - started};
    return onnx_report(&report, err);
}

/* ---- unpacking ---- */

/* "FOLDER OF OUT/NAME" */
static int beside(const char *out, const char *name, char path[PATH_BYTES], struct qd_error *err)
{
    const char *slash = strrchr(out, '/');
    const int folder = slash ? (int)(slash - out) + 1 : 0;
    return snprintf(path, PATH_BYTES, "%.*s%s", folder, out, name) < PATH_BYTES
               ? 0
               : err_new(err, QD_E_INVALID, "'%.100s...' is too long for a name", out);
}

static int write_unpacked(const struct direct_args *a, const struct onnx_pack *p, struct source *s,
                          onnx_progress_fn *progress, void *progress_data, struct qd_error *err)
{
    CLEANUP(outfile_close) struct outfile model = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    CLEANUP(outfile_close) struct outfile data = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    char path[PATH_BYTES];
    const bool has_data = p->n_parts > 1;
    int r = outfile_open(&model, a->out, a->force, err);
    if (r == 0 && has_data)
        r = beside(a->out, p->parts[1].name, path, err);
    if (r == 0 && has_data)
        r = outfile_open(&data, path, a->force, err);
    if (r == 0)
        r = onnx_unpack_run(p, s, (const int[]){model.fd, data.fd}, progress, progress_data, err);
    if (r == 0)
        r = source_check_unchanged(s, err);
    if (r == 0 && has_data)
        r = outfile_publish(&data, err);
    return r < 0 ? r : outfile_publish(&model, err);
}

int direct_onnx_unpack(const struct direct_args *a, const struct model *m, struct source *s, double started,
                       onnx_progress_fn *progress, void *data, struct qd_error *err)
{
    CLEANUP(onnx_pack_free) struct onnx_pack *p = NULL;
    int r = onnx_unpack_plan(m, &p, err);
    if (r == 0 && !a->dry_run)
        r = write_unpacked(a, p, s, progress, data, err);
    return r < 0 ? r : onnx_report_unpacked(a, p, seconds_now() - started, err);
}
