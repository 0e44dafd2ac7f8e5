/*
 * A model as read: names, types, shapes and byte ranges of its tensors, and its metadata. A value:
 * never changed after model_read returned it. Nothing here was computed without checks, and
 * model_check (the one place) has proved that every tensor lies inside its file, that sizes are
 * products of shapes, that names are unique and that no limit of quant/limits.h is passed.
 */
#ifndef QUANTD_QUANT_MODEL_H
#define QUANTD_QUANT_MODEL_H

#include <quantd/dtype.h>

#include "artifact/tables.h"
#include "kernels/core/arena.h"
#include "quant/source.h"

enum { MODEL_DIMS_MAX = 4 }; /* what GGUF can say */

/* How rows of the source become rows of the artifact. */
enum row_order {
    ROWS_AS_STORED,
    ROWS_ROPE_PAIRED, /* Hugging Face's rotary halves to llama.cpp's interleaved pairs, per head of @head_rows */
};

struct tensor {
    const char *name; /* the artifact's name (llama.cpp's where the architecture is mapped) */
    const char *source_name;
    enum qd_type type;
    uint32_t n_dims;                /* 0 for a scalar */
    uint64_t shape[MODEL_DIMS_MAX]; /* shape[0] is the contiguous row; unused ones are 1 */
    uint64_t n_elements;
    uint32_t file;   /* index into the source */
    uint64_t offset; /* of the first byte in that file */
    uint64_t bytes;
    enum row_order row_order;
    uint64_t head_rows; /* for ROWS_ROPE_PAIRED */
};

struct model {
    struct arena *arena;      /* owned: everything below lives in it */
    const char *format;       /* "gguf" "safetensors" */
    const char *architecture; /* general.architecture, or "" */
    struct tensor *tensors;   /* in artifact order */
    size_t n_tensors;
    struct meta_table meta; /* source order; keys the output must keep */
};

/* What the first file alone tells: format, and the files that belong to it. */
struct probe_file {
    const char *role;
    const char *name; /* relative to the model's folder; checked: no "/", no "..", not empty */
    int required;
};

struct probe {
    struct arena *arena; /* owned */
    const char *format;
    const char *role; /* of the first file itself: "weights" or "index" */
    struct probe_file *files;
    size_t n_files;
};

/*
 * Looks at the first file of @s. A file of no known format: QD_E_UNSUPPORTED, with what it seems to be (pickle, zip,
 * ...).
 */
int model_probe(struct source *s, struct probe **ret, struct qd_error *err);
struct probe *probe_free(struct probe *p);

/* Opens the files that the probe found to belong to it, beside the first. */
int probe_add_files(const struct probe *p, struct source *s, struct qd_error *err);
DEFINE_CLEANUP(probe_free, struct probe *)

/*
 * Reads the headers of all files of @s (companions added before). @budget_bytes bounds what the headers may cost
 * (limits.h says how much by default).
 */
int model_read(struct source *s, size_t budget_bytes, struct model **ret, struct qd_error *err);
struct model *model_free(struct model *m);
DEFINE_CLEANUP(model_free, struct model *)

/*
 * Sets n_elements and bytes from type and shape, checked: products wrap nowhere, rows divide into blocks. The message
 * is a reason alone ("..."), without subject.
 */
int tensor_measure(struct tensor *t, struct qd_error *err);

/* The one place that validates; model_read calls it last. Linear in the number of tensors. */
int model_check(const struct model *m, const struct source *s, struct qd_error *err);

const struct tensor *model_find(const struct model *m, const char *name);

#endif
