/*
 * Quantizing an ONNX model: which changes a scheme makes. The plan reads every weight once (scales), the run reads it
 * again (codes); nothing of a tensor stays in memory but its scales. docs/formats/onnx-quantized.md.
 */
#ifndef QUANTD_ONNX_SCHEME_H
#define QUANTD_ONNX_SCHEME_H

#include "quant/calib/deviation.h"
#include "quant/calib/range.h"
#include "statistics/statistics.h"
#include "quant/format/onnx_write.h"
#include "quant/onnx/weights.h"
#include "quant/tensor_rules.h"

/* S(name, NAME, text) */
#define ONNX_SCHEMES(S)                                                                                             \
    S("int8-weight", INT8_WEIGHT,                                                                                   \
      "weights as int8, a scale for each channel, DequantizeLinear before their operators")                         \
    S("int8-static", INT8_STATIC, "int8-weight, and activations as uint8 with ranges from calibration")             \
    S("int8-dynamic", INT8_DYNAMIC, "products and convolutions of integers, activations with ranges of the moment") \
    S("int4", INT4, "products' weights with 4 bits by blocks, the others as int8-weight")                           \
    S("f16", F16, "weights as float16, Cast before their operators")                                                \
    S("bf16", BF16, "weights as bfloat16, Cast before their operators")

enum onnx_scheme {
#define S(name, NAME, text) ONNX_SCHEME_##NAME,
    ONNX_SCHEMES(S)
#undef S
        N_ONNX_SCHEMES
};

struct onnx_recipe {
    enum onnx_scheme scheme;
    uint32_t block;           /* of int4: 32, 64 or 128 elements along k with a scale of their own */
    bool asymmetric;          /* of int4: with a zero point for each block */
    bool again;               /* a model that is quantized already is quantized again */
    enum range_method method; /* of int8-static: how ranges follow from statistics */
    /*
     * Of a weight's codes under int8-static: 8, or 7 (-63 to 63). CPUs that add two products u8 * s8 in 16 bits (x86
     * without VNNI: vpmaddubsw) saturate with 8, and runtimes then compute something else (onnxruntime#14642).
     */
    uint32_t bits;
    const char *rules; /* quant/tensor_rules.h: "keep" alone has a meaning here; "" for none */
};

const char *onnx_scheme_name(enum onnx_scheme s);

/* The matrix that codes are, with tensors that are made beside them (artifact/tables.h, struct code_entry). */
struct onnx_matrix {
    const struct onnx_tensor *scales;      /* NULL: they are none */
    const struct onnx_tensor *zero_points; /* NULL: none */
    bool by_columns;
    uint64_t n_rows, n_cols, block;
};

/* What becomes of a weight. */
struct onnx_decision {
    const struct weight *weight;
    const struct onnx_tensor *codes; /* that is made for it; NULL where the weight stays */
    struct onnx_matrix matrix;       /* that they are */
    const char *form;                /* "int8 by axis 0", "4 bits, blocks of 32", "float32" */
    const char *reason;              /* why it stays, or "" */
    const char *note;                /* what else there is to say, or NULL */
    bool meets_codes;                /* int8-static: the operator's input is quantized, too */
    bool gives_codes;                /* and its result, so that a runtime computes it with integers alone */
    uint64_t bytes_before, bytes_after;
    struct deviation deviation; /* set by the run */
};

struct onnx_plan {
    struct arena *arena; /* owned */
    struct onnx_recipe recipe;
    struct tensor_rules *rules; /* owned; NULL: none */
    struct weights weights;
    struct onnx_decision *decisions; /* [weights.n] */
    struct onnx_edits edits;
    struct onnx_output *output; /* owned */
    uint64_t source_bytes;      /* of the model's files */
};

/*
 * @m and @s outlive the plan. @statistics: of the model's activations, for int8-static; else NULL. A model that is
 * quantized already: QD_E_UNSUPPORTED by node, unless the recipe says again; one without weights to quantize:
 * QD_E_UNSUPPORTED.
 */
int onnx_plan_build(const struct onnx_model *m, struct source *s, const struct onnx_recipe *recipe,
                    const struct statistics *statistics, const struct ops *ops, const char *data_name,
                    struct onnx_plan **ret, struct qd_error *err);
struct onnx_plan *onnx_plan_free(struct onnx_plan *p);
DEFINE_CLEANUP(onnx_plan_free, struct onnx_plan *)

/* Does int8-static want to know the range of input @input of @n? And that of what @n makes? */
bool onnx_static_wants(const struct onnx_node *n, size_t input);
bool onnx_static_wants_result(const struct onnx_node *n);

#endif
