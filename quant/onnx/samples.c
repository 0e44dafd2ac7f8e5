#include "quant/onnx/samples.h"

#include <errno.h>
#include <sys/mman.h>

#include "kernels/core/io.h"
#include "kernels/core/name_set.h"
#include "quant/calib/dataset.h"
#include "quant/limits.h"
#include "quant/onnx/scheme.h"

/* A model ready to run, and the samples that it runs on. */
struct session {
    const struct onnx_samples *options;
    struct name_set wanted; /* owned, as all below: what operators with integers take, and what they make */
    struct memory *memory;
    struct graph *graph;
    struct dataset *dataset;
    uint64_t n_samples; /* that will be run */
};

static int session_begin(struct session *s, const struct onnx_samples *o, const struct onnx_model *m,
                         struct source *source, struct qd_error *err)
{
    *s = (struct session){.options = o, .memory = memory_new(o->memory_bytes)};
    int r = s->memory && name_set_init(&s->wanted, 64) == 0 ? graph_prepare(m, source, s->memory, &s->graph, err)
                                                            : err_new(err, QD_E_NO_MEMORY, "the executor");
    if (r == 0)
        r = dataset_open(o->folder_fd, source, s->graph, s->memory, &s->dataset, err);
    if (r == 0)
        s->n_samples = dataset_n_samples(s->dataset);
    return r;
}

static void session_end(struct session *s)
{
    (void)dataset_free(s->dataset); /* these return NULL */
    (void)graph_free(s->graph);
    (void)memory_free(s->memory);
    name_set_clear(&s->wanted);
}

static int next_sample(void *data, struct value **inputs, const char **ret_name, struct qd_error *err)
{
    return dataset_next(((struct session *)data)->dataset, inputs, ret_name, err);
}

static int tell(void *data, uint64_t n_done, struct qd_error *err)
{
    const struct session *s = data;
    const struct onnx_samples *o = s->options;
    (void)err;
    return o->progress ? o->progress(o->progress_data, n_done, s->n_samples) : 0;
}

static struct calibration calibration_of(struct session *s)
{
    return (struct calibration){
        .run = {.kernels = ops_native(), .team = s->options->team, .cancel = s->options->cancel},
        .histograms = true,
        .next = next_sample,
        .progress = tell,
        .data = s};
}

/* ---- statistics ---- */

static int want(struct name_set *wanted, const char *name, struct qd_error *err)
{
    size_t earlier;
    return name_set_add(wanted, name, 0, &earlier) < 0 ? err_new(err, QD_E_NO_MEMORY, "the list of activations") : 0;
}

static int want_edges(struct name_set *wanted, const struct onnx_graph *g, struct qd_error *err)
{
    int r = 0;
    for (size_t i = 0; i < g->n_nodes && r == 0; i++) {
        const struct onnx_node *n = &g->nodes[i];
        if (n->n_inputs && onnx_static_wants(n, 0))
            r = want(wanted, n->inputs[0], err);
        if (r == 0 && n->n_outputs && onnx_static_wants_result(n))
            r = want(wanted, n->outputs[0], err);
        for (size_t a = 0; a < n->n_attrs; a++)
            for (size_t k = 0; k < n->attrs[a].n_graphs && r == 0; k++)
                r = want_edges(wanted, &n->attrs[a].graphs[k], err);
    }
    return r;
}

static bool is_wanted(void *data, const char *name, const struct onnx_node *node)
{
    struct session *s = data;
    (void)node;
    return name_set_find(&s->wanted, name) >= 0;
}

static int gather(struct session *s, const struct onnx_model *m, struct statistics *made, struct qd_error *err)
{
    struct digest set;
    int r = want_edges(&s->wanted, m->graph, err);
    if (r == 0)
        r = dataset_digest(s->dataset, s->options->cancel, &set, err);
    if (r == 0)
        r = statistics_add_set(made, &set, err);
    struct calibration c = calibration_of(s);
    c.wants = is_wanted;
    return r < 0 ? r : calibrate(s->graph, &c, made, err);
}

int onnx_calibrate(const struct onnx_model *m, struct source *source, const struct onnx_samples *o,
                   const struct digest *model, struct statistics **ret, struct qd_error *err)
{
    CLEANUP(statistics_free) struct statistics *made = statistics_new(model);
    struct session s;
    int r = session_begin(&s, o, m, source, err);
    if (r == 0)
        r = made ? gather(&s, m, made, err) : err_new(err, QD_E_NO_MEMORY, "statistics");
    session_end(&s);
    if (r == 0)
        *ret = steal(&made);
    return r;
}

/* ---- the error ---- */

int onnx_compare(const struct onnx_model *m, struct source *source, const struct onnx_model *other,
                 struct source *other_source, const struct onnx_samples *o, uint64_t n_samples, struct comparison **ret,
                 struct qd_error *err)
{
    struct session s;
    CLEANUP(graph_free) struct graph *g = NULL;
    int r = session_begin(&s, o, m, source, err);
    if (r == 0)
        r = graph_prepare(other, other_source, s.memory, &g, err);
    if (r == 0 && s.n_samples > n_samples)
        s.n_samples = n_samples;
    const struct calibration c = calibration_of(&s);
    if (r == 0)
        r = compare_graphs(s.graph, g, &c, n_samples, ret, err);
    g = graph_free(g); /* before its memory */
    session_end(&s);
    return r;
}

/* ---- before it is written ---- */

static int memory_file(const char *name, int *ret_fd, struct qd_error *err)
{
    *ret_fd = memfd_create(name, MFD_CLOEXEC);
    return *ret_fd < 0 ? err_sys(err, errno, "memory for a trial") : 0;
}

static int write_trial(const struct onnx_plan *p, struct source *s, int model_fd, int data_fd, struct qd_error *err)
{
    int r = p->output->data_bytes ? onnx_write_data(p->output, s, data_fd, NULL, NULL, err) : 0;
    if (r < 0)
        return r;
    r = pwrite_whole(model_fd, p->output->model.data, p->output->model.n, 0);
    return r < 0 ? err_sys(err, -r, "memory for a trial") : 0;
}

int onnx_try(const struct onnx_model *m, struct source *s, const struct onnx_plan *p, const char *data_name,
             const struct onnx_samples *o, uint64_t n_samples, struct comparison **ret, struct qd_error *err)
{
    CLEANUP(source_free) struct source *made = NULL;
    CLEANUP(onnx_model_free) struct onnx_model *other = NULL;
    CLEANUP(fd_close) int model_fd = -1;
    CLEANUP(fd_close) int data_fd = -1;
    if (p->output->data_bytes + p->output->model.n > TRIAL_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "more than %d MiB of codes", TRIAL_BYTES_MAX >> 20);
    int r = memory_file("trial-model", &model_fd, err);
    if (r == 0)
        r = memory_file("trial-data", &data_fd, err);
    if (r == 0)
        r = write_trial(p, s, model_fd, data_fd, err);
    if (r == 0)
        r = source_from_fd(steal_fd(&model_fd), "model.onnx", &made, err);
    if (r == 0 && p->output->data_bytes)
        r = source_add(made, steal_fd(&data_fd), "weights", data_name, err);
    if (r < 0)
        return r;
    source_set_witness(made, 0);
    r = onnx_read(made, LIMIT_HEADER_BUDGET_BYTES, &other, err);
    return r < 0 ? r : onnx_compare(m, s, other, made, o, n_samples, ret, err);
}
