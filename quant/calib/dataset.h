/*
 * Calibration data: a folder of samples for the inputs of a graph, one sample in memory at a time.
 *
 *   one input        every file is a sample: FOLDER/0001.npy
 *   several inputs   a sub-folder each, named as the input is; the files of a sample have the same name but for what
 *                    follows the last dot: FOLDER/state/0001.npy, FOLDER/input/0001.pb
 *   archives         every file is a sample with all inputs, arrays by their names (numpy.savez): FOLDER/0001.npz
 *
 * .npy is NumPy's format, .pb a TensorProto as ONNX's own test data has it; .png, .jpg and .wav become values as
 * "preprocess.ini" beside them says (preparation.h). Samples come in the order of the bytes of
 * their names. Names that begin with a dot are left alone; any other file is an error, so that nobody calibrates with
 * less than was meant. Files are opened beneath the folder's descriptor; no path is ever made. The folder's files may
 * also be files of a source, with the role CALIBRATION_ROLE and names that begin with the folder's.
 */
#ifndef QUANTD_CALIB_DATASET_H
#define QUANTD_CALIB_DATASET_H

#include "artifact/digest.h"
#include "quant/graph/graph.h"

enum {
    DATASET_SAMPLES_MAX = 1 << 16, /* accuracy stops to gain at some hundreds */
};

#define CALIBRATION_ROLE "calibration"

struct dataset;

/*
 * The folder that @folder_fd has open, or, where that is negative, files of @source. Both stay the caller's; they, @g
 * and @m outlive the dataset. Samples that are missing for an input,
 * a file of another kind, an empty folder: QD_E_INVALID by name.
 */
int dataset_open(int folder_fd, struct source *source, const struct graph *g, struct memory *m, struct dataset **ret,
                 struct qd_error *err);
struct dataset *dataset_free(struct dataset *d);
DEFINE_CLEANUP(dataset_free, struct dataset *)

uint64_t dataset_n_samples(const struct dataset *d);

/*
 * The next sample, as calibrate() asks for it (a sample_fn, quant/calib/calibrate.h). A file that cannot be read, or
 * whose type or rank is not what the graph declares, is an error by the file's name.
 */
int dataset_next(void *dataset, struct value **inputs, const char **ret_name, struct qd_error *err);

/*
 * Of the names, sizes and contents of all files, in order: which data it was, for a recipe and statistics. @cancel: not
 * 0 ends it soon with QD_E_CANCELLED; may be NULL.
 */
int dataset_digest(const struct dataset *d, const _Atomic int *cancel, struct digest *ret, struct qd_error *err);

#endif
