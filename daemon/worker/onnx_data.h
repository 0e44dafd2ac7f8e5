/* What a user gives beside an ONNX model in the one-shot form: samples of its inputs, or statistics of earlier ones. */
#ifndef QUANTD_WORKER_ONNX_DATA_H
#define QUANTD_WORKER_ONNX_DATA_H

#include "daemon/worker/direct_args.h"
#include "quant/calib/compare.h"
#include "quant/onnx/make.h"
#include "statistics/statistics.h"
#include "quant/source.h"

/* Data that are not there are said before any work. */
int onnx_data_check(const struct direct_args *a, struct qd_error *err);

/*
 * Statistics for int8-static, from a file, from samples or from both, and kept where that is asked for and it is no dry
 * run. @cancel: not 0 ends it soon.
 */
int onnx_data_statistics(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                         const _Atomic int *cancel, struct statistics **ret, struct qd_error *err);

/* The plan of @r, for which int8 is tried over the first samples, where there are some. */
int onnx_data_plan(const struct direct_args *a, const struct onnx_model *m, struct source *s, const struct recipe *r,
                   const struct statistics *statistics, const char *data_name, const _Atomic int *cancel,
                   struct made *ret, struct qd_error *err);

/* How far what was written is from the source, over the first of the samples. */
int onnx_data_compare(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                      const _Atomic int *cancel, struct comparison **ret, struct qd_error *err);

#endif
