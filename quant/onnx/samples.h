/*
 * What needs samples of a model's inputs: statistics for int8-static, and the error of what was made. The samples are a
 * folder, or files of the model's source (quant/calib/dataset.h).
 */
#ifndef QUANTD_ONNX_SAMPLES_H
#define QUANTD_ONNX_SAMPLES_H

#include "quant/calib/compare.h"
#include "quant/onnx/scheme.h"
#include "statistics/statistics.h"

/* After each sample. Non-zero ends the work with that result. */
typedef int onnx_samples_fn(void *data, uint64_t n_done, uint64_t n_samples);

struct onnx_samples {
    int folder_fd;             /* borrowed; -1: the source's own files of calibration data */
    struct qd_team *team;      /* borrowed */
    uint64_t memory_bytes;     /* ceiling of the executor's values and constants */
    onnx_samples_fn *progress; /* may be NULL */
    void *progress_data;
    const _Atomic int *cancel; /* may be NULL */
};

/* Statistics of all that int8-static wants to know of @m, over all samples; @model: what they say they are of. */
int onnx_calibrate(const struct onnx_model *m, struct source *s, const struct onnx_samples *o,
                   const struct digest *model, struct statistics **ret, struct qd_error *err);

/*
 * How far what @p would write is from @m, over at most @n_samples: written to memory alone, so of more than
 * TRIAL_BYTES_MAX it is QD_E_LIMIT. @data_name: as @p was built with.
 */
enum { TRIAL_BYTES_MAX = 64 << 20, TRIAL_SAMPLES = 8 };
int onnx_try(const struct onnx_model *m, struct source *s, const struct onnx_plan *p, const char *data_name,
             const struct onnx_samples *o, uint64_t n_samples, struct comparison **ret, struct qd_error *err);

/* How far @other, made of @m, is from it, over at most @n_samples. */
int onnx_compare(const struct onnx_model *m, struct source *s, const struct onnx_model *other,
                 struct source *other_source, const struct onnx_samples *o, uint64_t n_samples, struct comparison **ret,
                 struct qd_error *err);

#endif
