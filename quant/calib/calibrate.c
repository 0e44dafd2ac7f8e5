#include "quant/calib/calibrate.h"

#include <string.h>

struct watch {
    const struct calibration *calibration;
    struct statistics *statistics;
    const char *sample;
};

/* [batch, channel, ...]: each channel of each member of the batch lies in one piece. */
static int observe_channels(const struct watch *w, const struct edge_statistics *e, const struct value *v,
                            struct qd_error *err)
{
    const float *x = v->data;
    const uint64_t n_pieces = (uint64_t)v->shape.dims[0] * e->n_channels, n = n_pieces ? v->n / n_pieces : 0;
    int r = 0;
    for (uint64_t i = 0; i < n_pieces && r == 0; i++)
        r = observer_add(e->channels[i % e->n_channels], w->calibration->run.kernels, x + i * n, n, err);
    return r;
}

static int observe_value(const struct watch *w, const char *name, const struct value *v, struct qd_error *err)
{
    const bool by_channel = w->calibration->channels && v->shape.n_dims > 1 && v->shape.dims[1] > 0 &&
                            v->shape.dims[1] <= STATISTICS_CHANNELS_MAX;
    struct edge_statistics *e;
    int r = statistics_edge(w->statistics, name, w->calibration->histograms, by_channel,
                            by_channel ? (uint32_t)v->shape.dims[1] : 0, &e, err);
    if (r == 0)
        r = observer_add(e->all, w->calibration->run.kernels, v->data, v->n, err);
    return r == 0 && by_channel ? observe_channels(w, e, v, err) : r;
}

static int observe(void *data, const char *name, const struct value *v, const struct onnx_node *node,
                   struct qd_error *err)
{
    const struct watch *w = data;
    const struct calibration *c = w->calibration;
    if (v->kind != VALUE_TENSOR || v->type != ONNX_FLOAT || name[0] == '\0')
        return 0;
    if ((node && strcmp(node->op_type, "Constant") == 0) || (c->wants && !c->wants(c->data, name, node)))
        return 0;
    int r = observe_value(w, name, v, err);
    return r < 0 ? err_in(err, r, "tensor '%.200s'", name) : r;
}

/* One sample: 1, or 0 where there are no more. */
static int run_sample(struct graph *g, struct watch *w, const struct graph_run_options *o, struct value **in,
                      struct value **out, struct qd_error *err)
{
    int r = w->calibration->next(w->calibration->data, in, &w->sample, err);
    if (r <= 0)
        return r;
    r = graph_run(g, o, in, out, err);
    values_release(out, graph_n_outputs(g));
    return r < 0 ? err_in(err, r, "sample '%.200s'", w->sample) : 1;
}

int calibrate(struct graph *g, const struct calibration *c, struct statistics *s, struct qd_error *err)
{
    struct watch w = {.calibration = c, .statistics = s};
    struct graph_run_options o = c->run;
    o.observe = observe;
    o.observe_data = &w;
    const size_t n_in = graph_n_inputs(g);
    CLEANUP(free) struct value **ends = calloc(n_in + graph_n_outputs(g) + 1, sizeof *ends);
    if (!ends)
        return err_new(err, QD_E_NO_MEMORY, "calibration");

    uint64_t n_done = 0;
    int r;
    do {
        r = run_sample(g, &w, &o, ends, ends + n_in, err);
        values_release(ends, n_in);
        if (r > 0 && c->progress) {
            const int stop = c->progress(c->data, ++n_done, err);
            r = stop ? stop : 1;
        } else if (r > 0) {
            n_done++;
        }
    } while (r == 1);
    if (r == 0 && n_done == 0)
        return err_new(err, QD_E_INVALID, "the calibration data has no sample");
    return r;
}
