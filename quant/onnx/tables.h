/*
 * What an artifact says of an ONNX model that was made: its initializers and where they stand, facts of the model, and
 * how far it is from its source. docs/formats/onnx-quantized.md lists the keys.
 */
#ifndef QUANTD_ONNX_TABLES_H
#define QUANTD_ONNX_TABLES_H

#include "artifact/tables.h"
#include "quant/calib/compare.h"
#include "quant/onnx/make.h"
#include "quant/run.h"

enum { TABLES_WORST = 10 };

/* The element type of an artifact's table; -1 where it has none. */
int table_type_of(enum onnx_type type);

struct onnx_tables {
    struct arena *arena; /* owned: all below */
    struct tensor_table tensors;
    struct meta_table meta;
    struct quality_sums quality;
};

/*
 * @output: the model as read from what was written, its files in the artifact's order. @comparison: with the source,
 * over samples; NULL: there were none. All are borrowed by the result.
 */
int onnx_tables_make(const struct made *made, const struct onnx_model *output, const struct comparison *comparison,
                     struct onnx_tables **ret, struct qd_error *err);
struct onnx_tables *onnx_tables_free(struct onnx_tables *t);
DEFINE_CLEANUP(onnx_tables_free, struct onnx_tables *)

/* Values of @c by their error, the worst first: a list that the caller frees; NULL when memory is out. */
const struct value_error **worst_values(const struct comparison *c);

#endif
