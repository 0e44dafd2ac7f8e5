#include "daemon/worker/direct_onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/worker/direct_report.h"
#include "daemon/worker/outfile.h"
#include "kernels/core/io.h"
#include "kernels/core/name_set.h"
#include "kernels/cpu.h"
#include "quant/calib/calibrate.h"
#include "quant/calib/dataset.h"
#include "quant/limits.h"
#include "quant/onnx/choose.h"

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

static void print_plan(const struct onnx_plan *p, const char *why)
{
    printf("%s: %s\n", onnx_scheme_name(p->recipe.scheme), why);
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        printf("%-40s %-14s ", d->weight->name, d->weight->user->op_type);
        print_shape(d->weight->tensor);
        printf("  %" PRIu64 " -> %" PRIu64 " bytes  %s%s%s\n", d->bytes_before, d->bytes_after, d->form,
               d->reason[0] ? ": " : "", d->reason);
    }
    printf("%" PRIu64 " bytes become %" PRIu64 "\n", p->source_bytes, bytes_written(p));
}

static void print_result(const struct direct_args *a, const struct onnx_plan *p, const char *why, double seconds)
{
    const struct sums s = sum_up(p);
    const enum onnx_scheme scheme = p->recipe.scheme;
    const bool narrow =
        (scheme == ONNX_SCHEME_INT8_STATIC || scheme == ONNX_SCHEME_INT8_DYNAMIC) && p->recipe.bits == 7;
    printf("%s: %s%s, %zu of %zu weights quantized, %" PRIu64 " bytes of %" PRIu64 " (%.1f %%), %.2f s\n", a->out,
           onnx_scheme_name(p->recipe.scheme), narrow ? " (7 bits: this CPU adds products in 16)" : "", s.n_quantized,
           p->weights.n, bytes_written(p), p->source_bytes, 100.0 * (double)bytes_written(p) / (double)p->source_bytes,
           seconds);
    printf("scheme: %s\n", why);
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

static int report_json(const struct direct_args *a, const struct onnx_plan *p, const char *why, double seconds,
                       struct qd_error *err)
{
    const struct sums s = sum_up(p);
    json_t *tensors = json_array();
    for (size_t i = 0; tensors && i < p->weights.n; i++)
        (void)json_array_append_new(tensors, json_of_decision(&p->decisions[i])); /* NULL is refused */
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:o, s:f, s:o}", "output", a->out ? a->out : "", "scheme",
                  onnx_scheme_name(p->recipe.scheme), "why", why, "source_bytes", (json_int_t)p->source_bytes, "bytes",
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

static int report(const struct direct_args *a, const struct onnx_plan *p, const char *why, double seconds,
                  struct qd_error *err)
{
    if (a->json)
        return report_json(a, p, why, seconds, err);
    if (a->dry_run)
        print_plan(p, why);
    else if (!a->quiet)
        print_result(a, p, why, seconds);
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

/* ---- calibration ---- */

enum { CALIBRATION_MEMORY = 512 << 20, PROGRESS_EVERY_MS = 500 };

/* What the names of observed values are found in, and how far the samples are. */
struct watch {
    struct name_set wanted;  /* owned: inputs of operators that meet integers */
    struct dataset *dataset; /* owned */
    bool quiet, terminal, told;
    double started, told_at;
};

static int want_inputs(struct name_set *wanted, const struct onnx_graph *g, struct qd_error *err)
{
    int r = 0;
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        const struct onnx_node *n = &g->nodes[i];
        size_t earlier;
        if (n->n_inputs && onnx_static_wants(n, 0) && name_set_add(wanted, n->inputs[0], i, &earlier) < 0)
            r = err_new(err, QD_E_NO_MEMORY, "the list of activations");
        for (size_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; k < n->attrs[a].n_graphs && r == 0; k++)
                r = want_inputs(wanted, &n->attrs[a].graphs[k], err);
    }
    return r;
}

static bool is_wanted(void *data, const char *name, const struct onnx_node *node)
{
    struct watch *w = data;
    (void)node;
    return name_set_find(&w->wanted, name) >= 0;
}

static int next_sample(void *data, struct value **inputs, const char **ret_name, struct qd_error *err)
{
    return dataset_next(((struct watch *)data)->dataset, inputs, ret_name, err);
}

/* On a terminal a line that is written over; elsewhere, after some seconds, one now and then. */
static int tell_sample(void *data, uint64_t n_done, struct qd_error *err)
{
    struct watch *w = data;
    const double now = seconds_since(w->started), every = w->terminal ? 0.1 : 5.0;
    (void)err;
    if (w->quiet || now - w->told_at < every)
        return 0;
    w->told_at = now;
    w->told = true;
    fprintf(stderr, "%scalibrating: %" PRIu64 " of %" PRIu64 " samples%s", w->terminal ? "\r" : "", n_done,
            dataset_n_samples(w->dataset), w->terminal ? "" : "\n");
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

static int run_samples(const struct direct_args *a, struct graph *g, struct watch *w, struct statistics *s, int folder,
                       struct memory *memory, struct qd_error *err)
{
    struct qd_team *team = NULL;
    struct digest set;
    int r = dataset_open(folder, g, memory, &w->dataset, err);
    if (r == 0)
        r = dataset_digest(w->dataset, &set, err);
    if (r == 0)
        r = statistics_add_set(s, &set, err);
    if (r == 0)
        r = qd_team_new(a->n_threads, &team, err);
    const struct calibration c = {.run = {.kernels = ops_native(), .team = team},
                                  .histograms = true,
                                  .next = next_sample,
                                  .wants = is_wanted,
                                  .progress = tell_sample,
                                  .data = w};
    if (r == 0)
        r = calibrate(g, &c, s, err);
    if (w->told && w->terminal)
        fputc('\n', stderr);
    qd_team_free(team);
    return r;
}

static int gather(const struct direct_args *a, const struct onnx_model *m, struct source *s, int folder,
                  struct statistics **ret, struct qd_error *err)
{
    struct memory *memory = memory_new(CALIBRATION_MEMORY);
    struct graph *g = NULL;
    struct watch w = {.quiet = a->quiet, .terminal = isatty(STDERR_FILENO) != 0};
    struct digest model = {0}; /* of whom does not matter: the statistics are used here and now */
    struct statistics *made = statistics_new(&model);
    w.started = seconds_since(0.0);
    int r = memory && made && name_set_init(&w.wanted, 64) == 0 ? want_inputs(&w.wanted, m->graph, err)
                                                                : err_new(err, QD_E_NO_MEMORY, "calibration");
    if (r == 0)
        r = graph_prepare(m, s, memory, &g, err);
    if (r == 0)
        r = run_samples(a, g, &w, made, folder, memory, err);
    (void)dataset_free(w.dataset);
    (void)graph_free(g);
    (void)memory_free(memory);
    name_set_clear(&w.wanted);
    if (r < 0)
        (void)statistics_free(made);
    else
        *ret = made;
    return r;
}

/* Statistics for int8-static; no other scheme has any. */
static int calibrate_model(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                           enum onnx_scheme scheme, struct statistics **ret, struct qd_error *err)
{
    const bool is_static = scheme == ONNX_SCHEME_INT8_STATIC;
    if (is_static && !a->calibration)
        return err_hint(err, err_new(err, QD_E_INVALID, "int8-static needs calibration data"),
                        "--calibration FOLDER with samples of the model's inputs; int8-weight needs none");
    if (!is_static)
        return a->calibration ? err_new(err, QD_E_INVALID, "%s takes no calibration data", onnx_scheme_name(scheme))
                              : 0;
    CLEANUP(fd_close) int folder = open_folder(a->calibration, err);
    return folder < 0 ? folder : gather(a, m, s, folder, ret, err);
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
    struct onnx_recipe recipe;
    char name[DATA_NAME_BYTES], path[PATH_BYTES];
    struct int8_choice choice = {.why = ""};
    int r = make_recipe(a, &recipe, err);
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
    return r < 0 ? r : report(a, p, choice.why, seconds_since(started), err);
}
