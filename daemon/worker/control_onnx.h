/*
 * The worker's side of a job on an ONNX model: plan, which runs the model over samples where the recipe asks for that,
 * then the run, which writes the model and its data and says how far they are from the source. What control.h says of
 * the conversation holds; there is no journal: a run that is stopped begins again.
 */
#ifndef QUANTD_DAEMON_WORKER_CONTROL_ONNX_H
#define QUANTD_DAEMON_WORKER_CONTROL_ONNX_H

#include "quant/onnx/make.h"
#include "quant/onnx/tables.h"

struct onnx_job_env { /* borrowed; the same for plan and run */
    struct source *source;
    uint64_t memory_bytes; /* ceiling of the process; 0: none */
    unsigned n_threads;
    const _Atomic int *cancel;
    /* @step: "calibrating" or "comparing", while samples are run; else NULL. */
    void (*progress)(void *data, uint64_t done_bytes, uint64_t total_bytes, const char *what, const char *step);
    void *data;
};

struct onnx_job {
    struct onnx_model *model; /* owned, as all below */
    struct made made;
    struct onnx_model *output;      /* after the run: what was written, as read again */
    struct comparison *comparison;  /* after the run; NULL: there were no samples */
    struct onnx_tables *tables;     /* after the run; of both */
    struct source_file_id *witness; /* after the run; of calibration data one entry with the name "*" */
    size_t n_witness;
    struct recipe recipe;
};

/* Reads the model, calibrates, plans. @recipe: canonical text. */
int onnx_job_plan(const struct onnx_job_env *env, const char *recipe, struct onnx_job **ret, struct qd_error *err);

/* A tensor_plan record for each weight. */
int onnx_job_table(const struct onnx_job *j, struct buffer *dst, struct qd_error *err);

/* Takes the descriptors, also on failure; @data_fd: -1 where the plan has no data file. */
int onnx_job_run(struct onnx_job *j, const struct onnx_job_env *env, int model_fd, int data_fd, struct qd_error *err);

struct onnx_job *onnx_job_free(struct onnx_job *j);
DEFINE_CLEANUP(onnx_job_free, struct onnx_job *)

#endif
