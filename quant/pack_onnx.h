/*
 * Packed files of ONNX artifacts, and back (docs/formats/packed.md, "Of ONNX models"). The model and its data are two
 * tensors of bytes in a packed file; within them the codes of matrices, and scales and zero points that move with them,
 * change places. What the matrices are, the artifact's table of tensors says; the packed file says it again.
 */
#ifndef QUANTD_QUANT_PACK_ONNX_H
#define QUANTD_QUANT_PACK_ONNX_H

#include <quantd/layout.h>

#include "quant/format/onnx_write.h"
#include "quant/model.h"

enum { ONNX_PARTS = 2 /* the model, its data */ };

/* A file of the portable artifact, and the bytes of the packed one that it is. */
struct onnx_part {
    const char *name; /* "model.onnx" */
    uint64_t offset, bytes;
};

struct onnx_pack {
    struct arena *arena; /* owned */
    enum qd_layout layout;
    struct onnx_part parts[ONNX_PARTS];
    size_t n_parts;
    struct onnx_run *runs; /* what changes places, in file order */
    size_t n_runs;
    size_t n_matrices;
    struct buffer header;        /* owned; of the packed file, where one is made */
    uint64_t file_bytes;         /* of it */
    uint64_t bytes;              /* of all parts */
    struct tensor_table tensors; /* of the packed artifact: those of the portable one, where they lie now */
    struct tensor_table as_read; /* of the portable one; packing alone, as is: */
    struct meta_table meta;      /* its metadata */
};

#define PORTABLE_METADATA_ROLE "metadata" /* of its file in a source, beside PORTABLE_TABLE_ROLE's */

/*
 * From the artifact whose model is file 0 of @s and whose data, where it has some, are its file 1, with the tables that
 * its files of those roles hold; @budget_bytes bounds what that may cost. Nothing to pack is no error.
 * QD_E_LIMIT: rows too long to be packed.
 */
int onnx_pack_plan(struct source *s, enum qd_layout layout, size_t budget_bytes, struct onnx_pack **ret,
                   struct qd_error *err);

/* Is the packed file @m, as its reader met it, that of an ONNX model? */
bool onnx_packed_is(const struct model *m);

/* And back, from what it says. QD_E_CORRUPT: what that is does not fit the file. */
int onnx_unpack_plan(const struct model *m, struct onnx_pack **ret, struct qd_error *err);

struct onnx_pack *onnx_pack_free(struct onnx_pack *p);
DEFINE_CLEANUP(onnx_pack_free, struct onnx_pack *)

/* Writes the packed file to @fd; or the parts, unpacked from file 0 of @s, to @fds[n_parts]. */
int onnx_pack_run(const struct onnx_pack *p, struct source *s, int fd, onnx_progress_fn *progress, void *data,
                  struct qd_error *err);
int onnx_unpack_run(const struct onnx_pack *p, struct source *s, const int *fds, onnx_progress_fn *progress, void *data,
                    struct qd_error *err);

#endif
