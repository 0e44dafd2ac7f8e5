/*
 * Calibration: runs a graph over samples, one at a time, and observes the edges that are wanted. Memory is that of one
 * run and of the statistics, however many samples there are.
 */
#ifndef QUANTD_CALIB_CALIBRATE_H
#define QUANTD_CALIB_CALIBRATE_H

#include "statistics/statistics.h"
#include "quant/graph/graph.h"

/*
 * The next sample: a reference for each input of the graph into @inputs, which is all NULL, and its name, good until
 * the next call. 1: there is one; 0: that was all; negative: an error. What is in @inputs is the caller's then, too.
 */
typedef int sample_fn(void *data, struct value **inputs, const char **ret_name, struct qd_error *err);

/* Whether the value @name, made by @node (NULL: an input), is to be observed. */
typedef bool calibrate_wants_fn(void *data, const char *name, const struct onnx_node *node);

/* After each sample. Non-zero ends the calibration with that result. */
typedef int calibrate_progress_fn(void *data, uint64_t n_done, struct qd_error *err);

struct calibration {
    struct graph_run_options run; /* kernels, team, cancel; the observer is calibrate's */
    bool histograms;              /* 32 KiB an edge; without them percentile, entropy and mse cannot be chosen */
    bool channels;                /* extremes by channel, too: axis 1 of values with two dimensions or more */
    sample_fn *next;
    calibrate_wants_fn *wants;       /* NULL: all */
    calibrate_progress_fn *progress; /* may be NULL */
    void *data;                      /* of next, wants, progress */
};

/*
 * Adds what it saw to @s; float32 tensors are observed, others are left alone. No sample at all: QD_E_INVALID. NaN or
 * Inf in an observed tensor: QD_E_INVALID by tensor and sample. After a failure @s is of no use.
 */
int calibrate(struct graph *g, const struct calibration *c, struct statistics *s, struct qd_error *err);

#endif
