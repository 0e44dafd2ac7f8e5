/* What --direct says of an ONNX model on standard output: the plan, or what came of it, in words or as JSON. */
#ifndef QUANTD_WORKER_ONNX_REPORT_H
#define QUANTD_WORKER_ONNX_REPORT_H

#include "daemon/worker/direct_args.h"
#include "quant/calib/compare.h"
#include "quant/onnx/scheme.h"
#include "quant/pack_onnx.h"

struct onnx_report { /* borrows all of it */
    const struct direct_args *args;
    const struct onnx_plan *plan;
    const char *why;                     /* the scheme */
    const struct comparison *comparison; /* with the source, over samples; NULL: there is none */
    const char *not_compared;            /* why, where there should be one */
    double seconds;
};

int onnx_report(const struct onnx_report *r, struct qd_error *err);

/* Of a packed file that was unpacked, or would be (--dry-run). */
int onnx_report_unpacked(const struct direct_args *args, const struct onnx_pack *p, double seconds,
                         struct qd_error *err);

#endif
