/*
 * How far a graph is from another that was made of it: both run over the same samples, outputs are compared whole, and
 * every value that both make under one name by up to COMPARE_KEPT of its elements, evenly spread. Memory is that of one
 * run and of those elements, however many samples there are.
 */
#ifndef QUANTD_CALIB_COMPARE_H
#define QUANTD_CALIB_COMPARE_H

#include "kernels/core/arena.h"
#include "quant/calib/calibrate.h"
#include "quant/calib/deviation.h"

enum {
    COMPARE_KEPT = 2048,
    COMPARE_VALUES_MAX = 1 << 14, /* what comes later is not compared; outputs always are */
};

/* Over all samples. */
struct value_error {
    const char *name, *op; /* of the value and of the node that makes it */
    struct deviation deviation;
};

struct comparison {
    struct arena *arena;        /* owned: names */
    struct value_error *values; /* owned: float32 values that nodes make, in the order in which they were first made */
    size_t n_values;
    struct value_error *outputs; /* owned: the graph's outputs that are float32 */
    size_t n_outputs;
    uint64_t n_samples;
};

/*
 * @c: kernels, team, cancel; next and data, which gives inputs of @exact; progress. At most @n_samples of them. @other
 * has to have the same inputs and outputs: else QD_E_INVALID.
 */
int compare_graphs(struct graph *exact, struct graph *other, const struct calibration *c, uint64_t n_samples,
                   struct comparison **ret, struct qd_error *err);
struct comparison *comparison_free(struct comparison *c);
DEFINE_CLEANUP(comparison_free, struct comparison *)

#endif
