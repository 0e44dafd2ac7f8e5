/* What --direct says on standard output: the plan, or what came of it, in words or as JSON. */
#ifndef QUANTD_WORKER_DIRECT_REPORT_H
#define QUANTD_WORKER_DIRECT_REPORT_H

#include "daemon/worker/direct_args.h"
#include "quant/run.h"

struct report { /* borrows all of it */
    const struct direct_args *args;
    const struct model *model;
    const struct plan *plan;
    const struct run_result *result; /* NULL: not run */
    const char *why;                 /* the scheme */
    double seconds;
};

int report_plan(const struct report *report, struct qd_error *err);
int report_result(const struct report *report, struct qd_error *err);

/* What a model's names hold never moves a terminal: control bytes other than the newline become '?'. */
void make_printable(char *text, size_t n);

#endif
