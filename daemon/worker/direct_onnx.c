#include "daemon/worker/direct_onnx.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/worker/direct_report.h"
#include "daemon/worker/outfile.h"
#include "kernels/core/io.h"
#include "quant/limits.h"
#include "quant/onnx/scheme.h"

enum { WORST_SHOWN = 10, DATA_NAME_BYTES = LIMIT_FILE_NAME_BYTES + 1, PATH_BYTES = 4096 };

static double seconds_since(double started)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9 - started;
}

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

/* ---- reports ---- */

static int by_sqnr(const void *a, const void *b)
{
    const struct onnx_decision *x = *(const struct onnx_decision *const *)a,
                               *y = *(const struct onnx_decision *const *)b;
    const double p = onnx_decision_sqnr(x), q = onnx_decision_sqnr(y);
    return p < q ? -1 : p > q;
}

struct sums {
    size_t n_quantized;
    uint64_t before, after;
    double signal, noise;
};

static struct sums sum_up(const struct onnx_plan *p)
{
    struct sums s = {.n_quantized = 0};
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        s.n_quantized += d->reason[0] == '\0';
        s.before += d->bytes_before;
        s.after += d->bytes_after;
        s.signal += d->signal;
        s.noise += d->noise;
    }
    return s;
}

static uint64_t bytes_written(const struct onnx_plan *p)
{
    return p->output->model.n + p->output->data_bytes;
}

static void print_shape(const struct onnx_tensor *t)
{
    for (size_t d = 0; d < t->n_dims; d++)
        printf("%s%" PRId64, d ? "x" : "", t->dims[d]);
}

static void print_plan(const struct onnx_plan *p)
{
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        printf("%-40s %-14s ", d->weight->name, d->weight->user->op_type);
        print_shape(d->weight->tensor);
        printf("  %" PRIu64 " -> %" PRIu64 " bytes  %s%s%s\n", d->bytes_before, d->bytes_after, d->form,
               d->reason[0] ? ": " : "", d->reason);
    }
    printf("%" PRIu64 " bytes become %" PRIu64 "\n", p->source_bytes, bytes_written(p));
}

static void print_result(const struct direct_args *a, const struct onnx_plan *p, double seconds)
{
    const struct sums s = sum_up(p);
    printf("%s: %s, %zu of %zu weights quantized, %" PRIu64 " bytes of %" PRIu64 " (%.1f %%), %.2f s\n", a->out,
           onnx_scheme_name(p->recipe.scheme), s.n_quantized, p->weights.n, bytes_written(p), p->source_bytes,
           100.0 * (double)bytes_written(p) / (double)p->source_bytes, seconds);
    if (s.noise > 0.0)
        printf("error: SQNR %.1f dB over all quantized weights; the worst:\n", 10.0 * log10(s.signal / s.noise));
    CLEANUP(free) const struct onnx_decision **list = calloc(p->weights.n + 1, sizeof *list);
    for (size_t i = 0; list && i < p->weights.n; i++)
        list[i] = &p->decisions[i];
    if (list)
        qsort(list, p->weights.n, sizeof *list, by_sqnr);
    for (size_t i = 0; list && i < p->weights.n && i < WORST_SHOWN && list[i]->noise > 0.0; i++)
        printf("  %6.1f dB  %s (%s)\n", onnx_decision_sqnr(list[i]), list[i]->weight->name, list[i]->form);
}

static json_t *json_of_decision(const struct onnx_decision *d)
{
    const double sqnr = onnx_decision_sqnr(d);
    return json_pack("{s:s%, s:s, s:s, s:I, s:I, s:s, s:s, s:o}", "name", d->weight->name, strlen(d->weight->name),
                     "operator", d->weight->user->op_type, "form", d->form, "bytes_before", (json_int_t)d->bytes_before,
                     "bytes", (json_int_t)d->bytes_after, "reason", d->reason, "type",
                     onnx_type_name(d->weight->tensor->type), "sqnr_db",
                     isfinite(sqnr) && d->noise > 0.0 ? json_real(sqnr) : json_null());
}

static int report_json(const struct direct_args *a, const struct onnx_plan *p, double seconds, struct qd_error *err)
{
    const struct sums s = sum_up(p);
    json_t *tensors = json_array();
    for (size_t i = 0; tensors && i < p->weights.n; i++)
        (void)json_array_append_new(tensors, json_of_decision(&p->decisions[i])); /* NULL is refused */
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:I, s:i, s:i, s:o, s:f, s:o}", "output", a->out ? a->out : "", "scheme",
                  onnx_scheme_name(p->recipe.scheme), "source_bytes", (json_int_t)p->source_bytes, "bytes",
                  (json_int_t)bytes_written(p), "weights", (int)p->weights.n, "quantized", (int)s.n_quantized,
                  "sqnr_db", s.noise > 0.0 ? json_real(10.0 * log10(s.signal / s.noise)) : json_null(), "seconds",
                  seconds, "tensors", tensors);
    if (!root)
        return err_new(err, QD_E_NO_MEMORY, "the report");
    int r = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    putchar('\n');
    return r < 0 || fflush(stdout) != 0 ? err_new(err, QD_E_IO, "cannot write the report") : 0;
}

static int report(const struct direct_args *a, const struct onnx_plan *p, double seconds, struct qd_error *err)
{
    if (a->json)
        return report_json(a, p, seconds, err);
    if (a->dry_run)
        print_plan(p);
    else if (!a->quiet)
        print_result(a, p, seconds);
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

static int make_recipe(const struct direct_args *a, struct onnx_recipe *ret, struct qd_error *err)
{
    *ret = a->onnx;
    ret->again = a->recipe.requantize;
    ret->rules = a->recipe.rules;
    if (a->onnx_given || a->recipe.scheme == SCHEME_AUTO)
        return 0;
    int r = err_new(err, QD_E_INVALID, "%s is a scheme of GGUF; this is an ONNX model", scheme_name(a->recipe.scheme));
    return err_hint(err, r, "ONNX models take int8-weight, int4, f16 and bf16");
}

int direct_onnx_run(const struct direct_args *a, struct source *s, double started, onnx_progress_fn *progress,
                    void *data, struct qd_error *err)
{
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(onnx_plan_free) struct onnx_plan *p = NULL;
    struct onnx_recipe recipe;
    char name[DATA_NAME_BYTES], path[PATH_BYTES];
    int r = make_recipe(a, &recipe, err);
    if (r == 0)
        r = data_names(a, name, path, err);
    if (r == 0)
        r = onnx_read(s, LIMIT_HEADER_BUDGET_BYTES, &m, err);
    if (r == 0)
        r = onnx_plan_build(m, s, &recipe, ops_native(), name, &p, err);
    if (r == 0 && !a->dry_run)
        r = write_files(a, p, s, path, progress, data, err);
    return r < 0 ? r : report(a, p, seconds_since(started), err);
}
