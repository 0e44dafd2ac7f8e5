/* The one-shot form on an ONNX model: an ONNX model comes out, its large tensors in OUT.data beside it. */
#ifndef QUANTD_WORKER_DIRECT_ONNX_H
#define QUANTD_WORKER_DIRECT_ONNX_H

#include "daemon/worker/direct_args.h"
#include "quant/model.h"

/*
 * @source: opened, companions included. @cancel: not 0 ends it soon. @progress is told bytes done of bytes planned and
 * the tensor. The report goes to standard output.
 */
int direct_onnx_run(const struct direct_args *args, struct source *source, double started, const _Atomic int *cancel,
                    int (*progress)(void *data, uint64_t done, uint64_t total, const char *tensor), void *data,
                    struct qd_error *err);

/*
 * The model that the packed @m, which @source holds, was made from: OUT, and beside it the data under the name that the
 * model has for them. The rest as above.
 */
int direct_onnx_unpack(const struct direct_args *args, const struct model *m, struct source *source, double started,
                       int (*progress)(void *data, uint64_t done, uint64_t total, const char *tensor), void *data,
                       struct qd_error *err);

#endif
