/*
 * run_model MODEL OUT [--threads=N] [--repeat=N] [--each] [INPUT=TYPE:DIMS:FILE ...]: runs a model on the executor with
 * raw little-endian inputs ("x=float32:1x3x48x320:/tmp/x.bin"), writes output I to OUT.I.bin, and prints JSON: the
 * outputs with types and shapes, milliseconds of the median run, peak bytes of values. --each: milliseconds by
 * operator, too.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu.h"
#include "quant/graph/graph.h"
#include "quant/limits.h"
#include "quant/model.h"

enum { ENDS_MAX = 64, REPEATS_MAX = 1000, OPERATORS_MAX = 200 };
static const uint64_t memory_ceiling = (uint64_t)4 << 30;

struct clock_by_operator {
    struct {
        const char *name;
        double ms;
    } list[OPERATORS_MAX];
    size_t n;
    double last;
};

static double now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int fail(const char *what)
{
    (void)fprintf(stderr, "run_model: %s\n", what);
    exit(1);
}

/* The time since the last value belongs to the operator that made this one. */
static int note_time(void *data, const char *name, const struct value *v, const struct onnx_node *node,
                     struct qd_error *err)
{
    struct clock_by_operator *k = data;
    const double now = now_ms();
    const char *op = node ? node->op_type : "input";
    size_t i = 0;
    (void)name;
    (void)v;
    (void)err;
    while (i < k->n && strcmp(k->list[i].name, op) != 0)
        i++;
    if (i == k->n && k->n < OPERATORS_MAX)
        k->list[k->n++].name = op;
    if (i < OPERATORS_MAX)
        k->list[i].ms += now - k->last;
    k->last = now;
    return 0;
}

static enum onnx_type type_by_name(const char *name, size_t n)
{
    for (int t = 1; t <= ONNX_INT4; t++)
        if (strlen(onnx_type_name((enum onnx_type)t)) == n && strncmp(onnx_type_name((enum onnx_type)t), name, n) == 0)
            return (enum onnx_type)t;
    fail("an input has a type that does not exist");
    return ONNX_UNDEFINED;
}

/* "TYPE:DIMS:FILE" */
static struct value *read_value(struct memory *m, const char *spec)
{
    struct qd_error err;
    struct value *v = NULL;
    struct shape s = {.n_dims = 0};
    const char *dims = strchr(spec, ':'), *file = dims ? strchr(dims + 1, ':') : NULL;
    if (!file)
        fail("an input is no TYPE:DIMS:FILE");
    for (const char *p = dims + 1; p < file && s.n_dims < VALUE_DIMS_MAX;) {
        char *end;
        s.dims[s.n_dims++] = strtoll(p, &end, 10);
        p = end + 1;
    }
    if (value_new(m, type_by_name(spec, (size_t)(dims - spec)), &s, &v, &err) < 0)
        fail(err.message);
    FILE *f = fopen(file + 1, "rb");
    if (!f || fread(v->data, 1, v->bytes, f) != v->bytes)
        fail("an input's file is missing or short");
    (void)fclose(f);
    return v;
}

static void write_output(const char *prefix, size_t i, const char *name, const struct value *v)
{
    char path[4096], dims[SHAPE_TEXT_BYTES];
    (void)snprintf(path, sizeof path, "%s.%zu.bin", prefix, i);
    FILE *f = fopen(path, "wb");
    const size_t n = v->kind == VALUE_TENSOR ? v->n : 0;
    if (!f || v->kind != VALUE_TENSOR || fwrite(v->data, value_element_bytes(v->type), n, f) != n)
        fail("an output cannot be written");
    (void)fclose(f);
    printf("%s{\"name\": \"%s\", \"type\": \"%s\", \"shape\": %s}", i ? ", " : "", name, onnx_type_name(v->type),
           shape_text(&v->shape, dims));
}

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct program {
    const char *model, *out;
    unsigned threads, repeats;
    bool each;
    const char *const *inputs;
    size_t n_inputs;
};

static double run(struct graph *g, const struct graph_run_options *o, struct value **in, struct value **out)
{
    struct qd_error err;
    const double start = now_ms();
    for (size_t i = 0; i < graph_n_outputs(g); i++)
        out[i] = value_release(out[i]);
    if (graph_run(g, o, in, out, &err) < 0)
        fail(err.message);
    return now_ms() - start;
}

static void report(const struct program *p, struct graph *g, struct value **out, double ms, const struct memory *m,
                   const struct clock_by_operator *k)
{
    printf("{\"outputs\": [");
    for (size_t i = 0; i < graph_n_outputs(g); i++)
        write_output(p->out, i, graph_output_name(g, i), out[i]);
    printf("], \"ms\": %.3f, \"peak_bytes\": %" PRIu64, ms, memory_peak(m));
    for (size_t i = 0; p->each && i < k->n; i++)
        printf("%s\"%s\": %.3f", i ? ", " : ", \"each\": {", k->list[i].name, k->list[i].ms);
    printf("%s}\n", p->each ? "}" : "");
}

static struct value *find_input(const struct program *p, struct memory *m, const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; i < p->n_inputs; i++)
        if (strncmp(p->inputs[i], name, n) == 0 && p->inputs[i][n] == '=')
            return read_value(m, p->inputs[i] + n + 1);
    return NULL;
}

/* The model with the files that hold its external data. */
static int open_model(const char *path, struct source **ret, struct qd_error *err)
{
    CLEANUP(probe_free) struct probe *p = NULL;
    int r = source_open(path, ret, err);
    if (r == 0)
        r = model_probe(*ret, &p, err);
    if (r == 0)
        r = probe_add_files(p, *ret, err);
    return r;
}

static void run_program(const struct program *p)
{
    struct qd_error err;
    struct source *s = NULL;
    struct onnx_model *model = NULL;
    struct graph *g = NULL;
    struct memory *m = memory_new(memory_ceiling);
    struct qd_team *team = NULL;
    struct clock_by_operator k = {.n = 0};
    struct value *in[ENDS_MAX] = {NULL}, *out[ENDS_MAX] = {NULL};
    double times[REPEATS_MAX];
    if (open_model(p->model, &s, &err) < 0 || onnx_read(s, LIMIT_HEADER_BUDGET_BYTES, &model, &err) < 0 ||
        graph_prepare(model, s, m, &g, &err) < 0 || qd_team_new(p->threads, &team, &err) < 0)
        fail(err.message);
    for (size_t i = 0; i < graph_n_inputs(g); i++)
        in[i] = find_input(p, m, graph_input(g, i)->name);
    struct graph_run_options o = {.kernels = ops_native(), .team = team};
    (void)run(g, &o, in, out); /* loads the constants */
    for (unsigned i = 0; i < p->repeats; i++)
        times[i] = run(g, &o, in, out);
    qsort(times, p->repeats, sizeof *times, by_time);
    if (p->each) {
        o.observe = note_time;
        o.observe_data = &k;
        k.last = now_ms();
        (void)run(g, &o, in, out);
    }
    report(p, g, out, p->repeats ? times[p->repeats / 2] : 0.0, m, &k);
    for (size_t i = 0; i < ENDS_MAX; i++) {
        (void)value_release(in[i]);
        (void)value_release(out[i]);
    }
    qd_team_free(team);
    (void)graph_free(g);
    (void)onnx_model_free(model);
    (void)source_free(s);
    (void)memory_free(m);
}

int main(int argc, char **argv)
{
    struct program p = {.threads = 1, .repeats = 1};
    const char *inputs[ENDS_MAX];
    if (argc < 3)
        fail("usage: run_model MODEL OUT [--threads=N] [--repeat=N] [--each] [INPUT=TYPE:DIMS:FILE ...]");
    p.model = argv[1];
    p.out = argv[2];
    p.inputs = inputs;
    for (int i = 3; i < argc; i++) {
        if (strncmp(argv[i], "--threads=", 10) == 0)
            p.threads = (unsigned)strtoul(argv[i] + 10, NULL, 10);
        else if (strncmp(argv[i], "--repeat=", 9) == 0)
            p.repeats = (unsigned)strtoul(argv[i] + 9, NULL, 10) % REPEATS_MAX;
        else if (strcmp(argv[i], "--each") == 0)
            p.each = true;
        else if (p.n_inputs < ENDS_MAX)
            inputs[p.n_inputs++] = argv[i];
    }
    run_program(&p);
    return 0;
}
