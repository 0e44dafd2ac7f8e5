/*
 * Writing an ONNX model that was read and changed. Changes are a list: messages that go, nodes and tensors that come,
 * node inputs with another name. Everything else is copied byte for byte from the source, what this project does not
 * know included; without changes the very same file comes out.
 *
 * onnx_write_plan() makes the model's file in memory, with every tensor of @external_from bytes or more replaced by a
 * reference into one data file at a multiple of 4096, so that it maps; onnx_write_data() then writes that file in
 * slices. Sizes and offsets are fixed by the plan.
 */
#ifndef QUANTD_QUANT_ONNX_WRITE_H
#define QUANTD_QUANT_ONNX_WRITE_H

#include "kernels/core/bytes.h"
#include "quant/format/onnx.h"

enum { ONNX_DATA_ALIGNMENT = 4096, ONNX_EXTERNAL_FROM = 1024 };

/* Bytes [offset, offset + n) of a payload into @dst; asked for in rising order, each once. */
typedef int onnx_make_fn(void *data, uint64_t offset, size_t n, void *dst, struct qd_error *err);

/* A tensor that is made: its payload stands in @tensor.memory, or @make tells it piece by piece. */
struct onnx_made {
    struct onnx_tensor tensor; /* name, type, dims, n_elements, bytes; raw */
    onnx_make_fn *make;
    void *make_data;
};

struct onnx_rename {
    uint64_t node; /* range.offset of it */
    size_t input;
    const char *name;
};

/* A node or an initializer that comes; one of them is set. */
struct onnx_addition {
    uint64_t graph;  /* range.offset of it */
    uint64_t before; /* range.offset of the node that it stands before; 0: behind all nodes */
    const struct onnx_node *node;
    const struct onnx_made *tensor;
};

/* Lists are borrowed and need no order, but additions of one place stand in the order in which they come. */
struct onnx_edits {
    const uint64_t *drops; /* range.offset of nodes, initializers and value infos */
    size_t n_drops;
    const struct onnx_rename *renames;
    size_t n_renames;
    const struct onnx_addition *additions;
    size_t n_additions;
    const struct onnx_opset *opsets; /* instead of the model's; NULL: those stay */
    size_t n_opsets;
    int64_t ir_version;            /* 0: as it is */
    const struct onnx_prop *props; /* added to metadata_props */
    size_t n_props;
};

struct onnx_payload {
    const struct onnx_tensor *copied; /* of the source; NULL: @made */
    const struct onnx_made *made;
    uint64_t offset, bytes; /* in the data file */
};

struct onnx_output {
    struct buffer model;           /* owned: the .onnx file */
    struct onnx_payload *payloads; /* owned; by rising offset */
    size_t n_payloads;
    uint64_t data_bytes; /* of the data file; 0: there is none */
};

/*
 * @data_name: the data file's name beside the model. @external_from: UINT64_MAX leaves every tensor where it is, except
 * external ones, whose location stays as the source says it.
 */
int onnx_write_plan(const struct onnx_model *m, struct source *s, const struct onnx_edits *edits, const char *data_name,
                    uint64_t external_from, struct onnx_output **ret, struct qd_error *err);
struct onnx_output *onnx_output_free(struct onnx_output *o);
DEFINE_CLEANUP(onnx_output_free, struct onnx_output *)

/* Called with the bytes written so far; non-zero ends the writing with it. */
typedef int onnx_progress_fn(void *data, uint64_t done_bytes, uint64_t total_bytes, const char *tensor);

/* Writes the payloads at their offsets to @fd. */
int onnx_write_data(const struct onnx_output *o, struct source *s, int fd, onnx_progress_fn *progress,
                    void *progress_data, struct qd_error *err);

#endif
