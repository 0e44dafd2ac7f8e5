/*
 * From a recipe to the plan of an ONNX model: which scheme of quant/onnx/scheme.h it comes to. One way for the daemon
 * and for the one-shot form.
 */
#ifndef QUANTD_ONNX_MAKE_H
#define QUANTD_ONNX_MAKE_H

#include "quant/onnx/choose.h"
#include "quant/onnx/samples.h"
#include "quant/recipe.h"

/* What the model's file calls the file of its large tensors, and what both are called in an artifact. */
#define ONNX_MODEL_NAME "model.onnx"
#define ONNX_DATA_NAME  "model.onnx.data"

/*
 * The statistics that @r has a use for: false where it has none, so that nobody gathers them. @r is resolved
 * (policy.h). A scheme of GGUF, or one that needs samples where there are none (@has_samples, which statistics of
 * earlier ones are as well): QD_E_INVALID.
 */
int make_wants_statistics(const struct recipe *r, bool has_samples, bool *ret, struct qd_error *err);

struct made {
    struct onnx_plan *plan;     /* owned */
    char why[CHOICE_WHY_BYTES]; /* the form of int8; "" where the recipe names it */
};

/*
 * @statistics: where they are wanted; NULL: none. @samples: what int8 compares its forms over; NULL: it goes by time
 * alone. @r outlives the plan.
 */
int make_plan(const struct onnx_model *m, struct source *s, const struct recipe *r, const struct statistics *statistics,
              const struct onnx_samples *samples, const struct ops *ops, const char *data_name, struct made *ret,
              struct qd_error *err);

#endif
