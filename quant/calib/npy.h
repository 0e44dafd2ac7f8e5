/*
 * NumPy's format of an array, .npy versions 1 to 3, as a value. Source: numpy:numpy/lib/format.py (module docstring).
 * Little-endian and C order; numbers and bool. What else there is (objects, that is pickles; structures; strings;
 * Fortran order; big-endian) is refused by name.
 */
#ifndef QUANTD_CALIB_NPY_H
#define QUANTD_CALIB_NPY_H

#include "quant/graph/value.h"

/* Where the bytes come from: a file, or a member of an archive. */
struct npy_input {
    int (*read)(void *data, void *dst, size_t n, struct qd_error *err); /* all @n of them, in order */
    void *data;
    uint64_t bytes; /* that there are */
};

/*
 * Memory is charged to @m before an element is read, and only for as many bytes as there are. Errors are a reason
 * alone: QD_E_CORRUPT, QD_E_UNSUPPORTED, QD_E_LIMIT; the caller names the file.
 */
int npy_read(const struct npy_input *in, struct memory *m, struct value **ret, struct qd_error *err);

#endif
