#include "daemon/worker/direct_onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/worker/onnx_report.h"
#include "daemon/worker/outfile.h"
#include "kernels/core/io.h"
#include "kernels/cpu.h"
#include "quant/limits.h"
#include "quant/model.h"
#include "quant/onnx/choose.h"
#include "quant/onnx/samples.h"

enum { DATA_NAME_BYTES = LIMIT_FILE_NAME_BYTES + 1, PATH_BYTES = 4096 };

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

/* ---- samples ---- */

enum { EXECUTOR_MEMORY = 512 << 20, COMPARED_SAMPLES = 16 };

/* How far the samples are, for people. */
struct watch {
    const char *what; /* "calibrating" */
    bool quiet, terminal, told;
    double started, told_at;
};

/* On a terminal a line that is written over; elsewhere, after some seconds, one now and then. */
static int tell_sample(void *data, uint64_t n_done, uint64_t n_samples)
{
    struct watch *w = data;
    const double now = seconds_since(w->started), every = w->terminal ? 0.1 : 5.0;
    if (w->quiet || now - w->told_at < every)
        return 0;
    w->told_at = now;
    w->told = true;
    fprintf(stderr, "%s%s: %" PRIu64 " of %" PRIu64 " samples%s", w->terminal ? "\r" : "", w->what, n_done, n_samples,
            w->terminal ? "" : "\n");
    return 0;
}

static int open_folder(const char *path, struct qd_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int r = err_sys(err, errno, "open the calibration data '%s'", path);
    return err_hint(err, r, "a folder with a .npy or .pb file for each sample is due");
}

/* The user's samples, opened for one pass; samples_close() ends it. */
struct samples {
    struct onnx_samples options;
    struct watch watch;
};

static int samples_open(struct samples *s, const struct direct_args *a, const char *what, struct qd_error *err)
{
    *s = (struct samples){.watch = {.what = what, .quiet = a->quiet, .terminal = isatty(STDERR_FILENO) != 0}};
    s->watch.started = seconds_since(0.0);
    s->options = (struct onnx_samples){.folder_fd = open_folder(a->calibration, err),
                                       .memory_bytes = EXECUTOR_MEMORY,
                                       .progress = tell_sample,
                                       .progress_data = &s->watch};
    return s->options.folder_fd < 0 ? s->options.folder_fd : qd_team_new(a->n_threads, &s->options.team, err);
}

static void samples_close(struct samples *s)
{
    if (s->watch.told && s->watch.terminal)
        fputc('\n', stderr);
    qd_team_free(s->options.team);
    if (s->options.folder_fd >= 0)
        (void)close(s->options.folder_fd);
}

/* Data that are not there are said before any work. */
static int check_data(const struct direct_args *a, struct qd_error *err)
{
    CLEANUP(fd_close) int folder = a->calibration ? open_folder(a->calibration, err) : -1;
    return a->calibration && folder < 0 ? folder : 0;
}

/* Statistics for int8-static; no other scheme has any. */
static int calibrate_model(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                           enum onnx_scheme scheme, struct statistics **ret, struct qd_error *err)
{
    struct samples samples;
    if (scheme != ONNX_SCHEME_INT8_STATIC)
        return 0;
    if (!a->calibration)
        return err_hint(err, err_new(err, QD_E_INVALID, "int8-static needs calibration data"),
                        "--calibration FOLDER with samples of the model's inputs; int8-weight needs none");
    int r = samples_open(&samples, a, "calibrating", err);
    if (r == 0)
        r = onnx_calibrate(m, s, &samples.options, ret, err);
    samples_close(&samples);
    return r;
}

/* The error of what was written, over the first of the samples. */
static int compare_written(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                           struct comparison **ret, struct qd_error *err)
{
    CLEANUP(source_free) struct source *made = NULL;
    CLEANUP(onnx_model_free) struct onnx_model *other = NULL;
    CLEANUP(probe_free) struct probe *probe = NULL;
    struct samples samples;
    int r = source_open(a->out, &made, err);
    if (r == 0)
        r = model_probe(made, &probe, err);
    if (r == 0)
        r = probe_add_files(probe, made, err);
    if (r == 0)
        r = onnx_read(made, LIMIT_HEADER_BUDGET_BYTES, &other, err);
    if (r < 0)
        return r;
    r = samples_open(&samples, a, "comparing", err);
    if (r == 0)
        r = onnx_compare(m, s, other, made, &samples.options, COMPARED_SAMPLES, ret, err);
    samples_close(&samples);
    return r;
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
        ret->scheme = a->calibration ? ONNX_SCHEME_INT8_STATIC : ONNX_SCHEME_INT8_WEIGHT;
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

int direct_onnx_run(const struct direct_args *a, struct source *s, double started, onnx_progress_fn *progress,
                    void *data, struct qd_error *err)
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
        r = check_data(a, err);
    if (r == 0)
        r = data_names(a, name, path, err);
    if (r == 0)
        r = onnx_read(s, LIMIT_HEADER_BUDGET_BYTES, &m, err);
    if (r == 0)
        r = calibrate_model(a, m, s, recipe.scheme, &statistics, err);
    if (r == 0)
        r = make_plan(a, m, s, &recipe, statistics, name, &p, &choice, err);
    if (r == 0 && !a->dry_run)
        r = write_files(a, p, s, path, progress, data, err);
    if (r < 0)
        return r;
    if (a->calibration && !a->dry_run) /* the files stand, whatever comes of it */
        r = compare_written(a, m, s, &comparison, &not_compared);
    const struct onnx_report report = {.args = a,
                                       .plan = p,
                                       .why = choice.why,
                                       .comparison = comparison,
                                       .not_compared = r < 0 ? not_compared.message : NULL,
                                       .seconds = seconds_since(started)};
    return onnx_report(&report, err);
}
