/*
 * node_cases FOLDER...: runs the cases of ONNX's own test data (model.onnx, test_data_set_N/input_M.pb and output_M.pb)
 * on the executor, and says so as TAP. A case whose operators are all claimed has to pass; one with an operator that is
 * not claimed is skipped with its name. --at-least=N: so many passed cases are a test of their own. --threads=N.
 */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/onnx/pb_value.h"
#include "quant/format/onnx_write.h"
#include "quant/limits.h"

enum { PATH_BYTES = 4096, ENDS_MAX = 64, SETS_MAX = 16 };
static const uint64_t memory_ceiling = (uint64_t)2 << 30;

enum verdict { PASSED, UNSUPPORTED, EXCUSED, DIFFERS, N_VERDICTS };

/* Cases that no executor with defined results can pass, or whose data contradict their model. */
static const struct {
    const char *name, *reason;
} excused[] = {
    {"test_cast_FLOAT_to_BFLOAT16", "the data are cut, not rounded (onnx#3876)"},
    {"test_castlike_FLOAT_to_BFLOAT16", "'like' has another shape than the model says"},
    {"test_castlike_FLOAT_to_BFLOAT16_expanded", "'like' has another shape than the model says"},
    {"test_castlike_BFLOAT16_to_FLOAT", "'like' has another shape than the model says"},
    {"test_castlike_BFLOAT16_to_FLOAT_expanded", "'like' has another shape than the model says"},
    {"test_adam_multiple", "the data are of an epsilon that the model does not say"},
    {"test_training_dropout", "numpy's random generator"},
    {"test_training_dropout_default", "numpy's random generator"},
    {"test_training_dropout_default_mask", "numpy's random generator"},
    {"test_training_dropout_mask", "numpy's random generator"},
};

struct options {
    const struct ops *kernels;
    struct qd_team *team;
};

struct run_of_case {
    const struct options *options;
    const char *folder;
    struct memory *memory;
    struct source *source;
    struct onnx_model *model;
    struct graph *graph;
    char reason[sizeof((struct qd_error *)0)->message + 64];
};

/* ---- comparing ---- */

/* numpy.testing.assert_allclose as ONNX's own runner calls it: rtol 1e-3, atol 1e-7. */
static bool near(double got, double wanted)
{
    if (got != got || wanted != wanted)
        return got != got && wanted != wanted;
    return got == wanted || fabs(got - wanted) <= 1e-7 + 1e-3 * fabs(wanted);
}

static double element(const struct run_of_case *c, const struct value *v, uint64_t i)
{
    float wide;
    switch ((int)v->type) {
    case ONNX_FLOAT:
        return ((const float *)v->data)[i];
    case ONNX_DOUBLE:
        return ((const double *)v->data)[i];
    case ONNX_FLOAT16:
    case ONNX_BFLOAT16:
        c->options->kernels->dequantize[v->type == ONNX_FLOAT16 ? QD_TYPE_F16 : QD_TYPE_BF16](
            &wide, (const uint16_t *)v->data + i, 1);
        return wide;
    default:
        return NAN;
    }
}

static bool same_strings(const struct bytes *a, const struct bytes *b, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (a[i].n != b[i].n || (a[i].n && memcmp(a[i].data, b[i].data, a[i].n) != 0))
            return false;
    return true;
}

static bool is_float(enum onnx_type t)
{
    return t == ONNX_FLOAT || t == ONNX_DOUBLE || t == ONNX_FLOAT16 || t == ONNX_BFLOAT16;
}

static bool compare_tensors(struct run_of_case *c, const struct value *got, const struct value *wanted)
{
    char is[SHAPE_TEXT_BYTES], due[SHAPE_TEXT_BYTES];
    if (got->type != wanted->type || !shape_equal(&got->shape, &wanted->shape)) {
        (void)snprintf(c->reason, sizeof c->reason, "%s %s, %s %s is right", onnx_type_name(got->type),
                       shape_text(&got->shape, is), onnx_type_name(wanted->type), shape_text(&wanted->shape, due));
        return false;
    }
    if (got->type == ONNX_STRING)
        return same_strings(got->data, wanted->data, got->n);
    if (!is_float(got->type))
        return got->n == 0 || memcmp(got->data, wanted->data, got->n * value_element_bytes(got->type)) == 0;
    for (uint64_t i = 0; i < got->n; i++)
        if (!near(element(c, got, i), element(c, wanted, i))) {
            (void)snprintf(c->reason, sizeof c->reason, "element %" PRIu64 " of %s is %g, %g is right", i,
                           shape_text(&got->shape, is), element(c, got, i), element(c, wanted, i));
            return false;
        }
    return true;
}

static bool compare(struct run_of_case *c, const struct value *got, const struct value *wanted)
{
    (void)snprintf(c->reason, sizeof c->reason, "differs");
    if (got->kind != wanted->kind)
        return false;
    if (got->kind == VALUE_TENSOR)
        return compare_tensors(c, got, wanted);
    if (got->kind == VALUE_NOTHING)
        return true;
    bool same = got->n == wanted->n;
    for (uint64_t i = 0; same && i < got->n; i++)
        same = compare(c, ((struct value **)got->data)[i], ((struct value **)wanted->data)[i]);
    return same;
}

/* The test data hold bfloat16 as uint16. */
static void take_bfloat16(const struct onnx_value_info *info, struct value *v)
{
    if (v && v->kind == VALUE_TENSOR && info->type == ONNX_BFLOAT16 && v->type == ONNX_UINT16)
        v->type = ONNX_BFLOAT16;
}

/* ---- running ---- */

static int read_inputs(struct run_of_case *c, const char *set, struct value **in, struct qd_error *err)
{
    char path[PATH_BYTES];
    const size_t n = graph_n_inputs(c->graph);
    int r = n <= ENDS_MAX ? 0 : err_new(err, QD_E_LIMIT, "%zu inputs", n);
    for (size_t i = 0; i < n && r == 0; i++) {
        (void)snprintf(path, sizeof path, "%s/%s/input_%zu.pb", c->folder, set, i);
        r = pb_value_read(path, graph_input(c->graph, i)->kind, c->memory, &in[i], err);
        take_bfloat16(graph_input(c->graph, i), in[i]);
    }
    return r;
}

static enum verdict check_outputs(struct run_of_case *c, const char *set, struct value **out)
{
    char path[PATH_BYTES];
    struct qd_error err;
    for (size_t i = 0; i < graph_n_outputs(c->graph); i++) {
        CLEANUP(value_release) struct value *wanted = NULL;
        (void)snprintf(path, sizeof path, "%s/%s/output_%zu.pb", c->folder, set, i);
        if (pb_value_read(path, c->model->graph->outputs[i].kind, c->memory, &wanted, &err) < 0) {
            (void)snprintf(c->reason, sizeof c->reason, "%s", err.message);
            return DIFFERS;
        }
        take_bfloat16(&c->model->graph->outputs[i], wanted);
        if (!compare(c, out[i], wanted))
            return DIFFERS;
    }
    return PASSED;
}

static enum verdict run_set(struct run_of_case *c, const char *set)
{
    struct value *in[ENDS_MAX] = {NULL}, *out[ENDS_MAX] = {NULL};
    const struct graph_run_options o = {.kernels = c->options->kernels, .team = c->options->team};
    struct qd_error err;
    enum verdict v = DIFFERS;
    int r = read_inputs(c, set, in, &err);
    if (r == 0)
        r = graph_run(c->graph, &o, in, out, &err);
    if (r < 0)
        (void)snprintf(c->reason, sizeof c->reason, "%s", err.message);
    else
        v = check_outputs(c, set, out);
    for (size_t i = 0; i < ENDS_MAX; i++) {
        (void)value_release(in[i]);
        (void)value_release(out[i]);
    }
    return v;
}

static enum verdict run_sets(struct run_of_case *c)
{
    char set[32], path[PATH_BYTES];
    for (int i = 0; i < SETS_MAX; i++) {
        (void)snprintf(set, sizeof set, "test_data_set_%d", i);
        (void)snprintf(path, sizeof path, "%s/%s", c->folder, set);
        DIR *d = opendir(path);
        if (!d)
            return PASSED;
        (void)closedir(d);
        const enum verdict v = run_set(c, set);
        if (v != PASSED)
            return v;
    }
    return PASSED;
}

/* Written without a change, a model is the very same file. */
static bool same_when_written(struct run_of_case *c)
{
    const struct onnx_edits none = {.n_drops = 0};
    CLEANUP(onnx_output_free) struct onnx_output *out = NULL;
    CLEANUP(free) uint8_t *file = malloc(source_bytes(c->source, 0));
    struct qd_error err;
    int r = onnx_write_plan(c->model, c->source, &none, "x.data", UINT64_MAX, &out, &err);
    if (r == 0)
        r = source_read_meta(c->source, 0, 0, file, source_bytes(c->source, 0), &err);
    (void)snprintf(c->reason, sizeof c->reason, "%s",
                   r < 0 ? err.message : "written without a change it is another file");
    return r == 0 && out->model.n == source_bytes(c->source, 0) && memcmp(out->model.data, file, out->model.n) == 0;
}

static enum verdict run_model(struct run_of_case *c)
{
    char path[PATH_BYTES];
    struct qd_error err;
    (void)snprintf(path, sizeof path, "%s/model.onnx", c->folder);
    int r = source_open(path, &c->source, &err);
    if (r == 0)
        r = onnx_read(c->source, LIMIT_HEADER_BUDGET_BYTES, &c->model, &err);
    if (r == 0 && !same_when_written(c))
        return DIFFERS;
    if (r == 0)
        r = graph_prepare(c->model, c->source, c->memory, &c->graph, &err);
    if (r == 0)
        return run_sets(c);
    (void)snprintf(c->reason, sizeof c->reason, "%s", err.message);
    return r == QD_E_UNSUPPORTED ? UNSUPPORTED : DIFFERS;
}

static const char *excuse(const char *name)
{
    for (size_t i = 0; i < sizeof excused / sizeof excused[0]; i++)
        if (strcmp(excused[i].name, name) == 0)
            return excused[i].reason;
    return NULL;
}

static enum verdict run_case(const struct options *o, const char *folder)
{
    static size_t number;
    const char *name = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    struct run_of_case c = {.options = o, .folder = folder, .memory = memory_new(memory_ceiling)};
    enum verdict v = run_model(&c);
    if (v == DIFFERS && excuse(name)) {
        v = EXCUSED;
        (void)snprintf(c.reason, sizeof c.reason, "%s", excuse(name));
    }
    (void)graph_free(c.graph);
    (void)onnx_model_free(c.model);
    (void)source_free(c.source);
    if (memory_used(c.memory) != 0) {
        printf("Bail out! %s: %" PRIu64 " bytes are still in use\n", folder, memory_used(c.memory));
        exit(1);
    }
    (void)memory_free(c.memory);
    if (v == DIFFERS)
        printf("# %s\n", c.reason);
    printf("%s %zu - %s%s%s\n", v == DIFFERS ? "not ok" : "ok", ++number, name,
           v == UNSUPPORTED || v == EXCUSED ? " # SKIP " : "", v == UNSUPPORTED || v == EXCUSED ? c.reason : "");
    return v;
}

static int is_case(const struct dirent *d)
{
    return strncmp(d->d_name, "test_", 5) == 0;
}

/* All cases in @folder, or @folder itself where it is one. */
static void run_folder(const struct options *o, const char *folder, size_t counts[N_VERDICTS])
{
    struct dirent **list = NULL;
    char path[PATH_BYTES];
    const int n = scandir(folder, &list, is_case, alphasort);
    bool is_one = false;
    for (int i = 0; i < n; i++)
        is_one |= strncmp(list[i]->d_name, "test_data_set_", 14) == 0;
    if (is_one)
        counts[run_case(o, folder)]++;
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (!is_one)
            counts[run_case(o, path)]++;
        free(list[i]);
    }
    free(list);
}

int main(int argc, char **argv)
{

    struct options o = {.kernels = ops_native()};
    size_t counts[N_VERDICTS] = {0}, at_least = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--at-least=", 11) == 0)
            at_least = strtoul(argv[i] + 11, NULL, 10);
        else if (strncmp(argv[i], "--threads=", 10) == 0)
            (void)qd_team_new((unsigned)strtoul(argv[i] + 10, NULL, 10), &o.team, NULL);
        else
            run_folder(&o, argv[i], counts);
    }
    const size_t n = counts[PASSED] + counts[UNSUPPORTED] + counts[EXCUSED] + counts[DIFFERS];
    printf("# %zu pass, %zu not supported, %zu excused, %zu fail\n", counts[PASSED], counts[UNSUPPORTED],
           counts[EXCUSED], counts[DIFFERS]);
    printf("%s %zu - at least %zu cases pass\n1..%zu\n", counts[PASSED] >= at_least ? "ok" : "not ok", n + 1, at_least,
           n + 1);
    qd_team_free(o.team);
    return counts[DIFFERS] > 0 || counts[PASSED] < at_least;
}
