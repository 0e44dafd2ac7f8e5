/*
 * A recipe holds every choice that can change a byte of the artifact; its canonical text is part
 * of the key. A plain value: copied, compared by its text. What a user asks for is a recipe too,
 * whose scheme may be "auto"; policy.h resolves that before anything is planned.
 */
#ifndef QUANTD_QUANT_RECIPE_H
#define QUANTD_QUANT_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include <quantd/dtype.h>

#include "artifact/digest.h"
#include "kernels/core/error.h"
#include "quant/calib/range.h"

enum {
    /* Of one's own rules, as canonical text: with the rest it is in every packet, journal and manifest of a job. */
    RECIPE_RULES_BYTES = 1024,
    RECIPE_TEXT_MAX = 384 + RECIPE_RULES_BYTES
};

/*
 * S(name, NAME, type, general.file_type): the schemes, which are llama-quantize's (include/llama.h: llama_ftype).
 * Append only.
 */
#define SCHEMES(S)                     \
    S(f16, F16, F16, 1)                \
    S(bf16, BF16, BF16, 32)            \
    S(q8_0, Q8_0, Q8_0, 7)             \
    S(q4_0, Q4_0, Q4_0, 2)             \
    S(q4_1, Q4_1, Q4_1, 3)             \
    S(q5_0, Q5_0, Q5_0, 8)             \
    S(q5_1, Q5_1, Q5_1, 9)             \
    S(q2_k, Q2_K, Q2_K, 10)            \
    S(q2_k_s, Q2_K_S, Q2_K, 21)        \
    S(q3_k_s, Q3_K_S, Q3_K, 11)        \
    S(q3_k_m, Q3_K_M, Q3_K, 12)        \
    S(q3_k_l, Q3_K_L, Q3_K, 13)        \
    S(q4_k_s, Q4_K_S, Q4_K, 14)        \
    S(q4_k_m, Q4_K_M, Q4_K, 15)        \
    S(q5_k_s, Q5_K_S, Q5_K, 16)        \
    S(q5_k_m, Q5_K_M, Q5_K, 17)        \
    S(q6_k, Q6_K, Q6_K, 18)            \
    S(iq4_nl, IQ4_NL, IQ4_NL, 25)      \
    S(iq4_xs, IQ4_XS, IQ4_XS, 30)      \
    S(tq1_0, TQ1_0, TQ1_0, 36)         \
    S(tq2_0, TQ2_0, TQ2_0, 37)         \
    S(mxfp4_moe, MXFP4_MOE, MXFP4, 38) \
    S(f32, F32, F32, 0)

/* O(name, NAME): those of ONNX models alone (docs/formats/onnx-quantized.md); f16 and bf16 are of both. Append only. */
#define ONNX_ONLY_SCHEMES(O)        \
    O("int8", INT8)                 \
    O("int8-weight", INT8_WEIGHT)   \
    O("int8-static", INT8_STATIC)   \
    O("int8-dynamic", INT8_DYNAMIC) \
    O("int4", INT4)

enum scheme {
    SCHEME_AUTO, /* what a request may say; a resolved recipe never holds it */
#define S(name, NAME, type, file_type) SCHEME_##NAME,
    SCHEMES(S)
#undef S
#define O(name, NAME) SCHEME_##NAME,
        ONNX_ONLY_SCHEMES(O)
#undef O
            N_SCHEMES
};

/* What a model is written as: a tensor file (GGUF; safetensors become one), or an ONNX model. Bits. */
enum model_family { FAMILY_GGUF = 1, FAMILY_ONNX = 2 };

struct recipe {
    enum scheme scheme;
    bool pure;         /* one type for every matrix that its rows allow, the fall-back otherwise */
    bool leave_output; /* output.weight stays as it is */
    bool requantize;   /* a quantized source may be quantized again */
    bool weighted;     /* by an importance matrix */
    bool has_output, has_embedding;
    enum qd_type output, embedding; /* of the output matrix and of the token embedding */
    struct digest importance;       /* of the importance matrix, where weighted */
    /* Of ONNX models (quant/onnx/scheme.h); 0 where the scheme does not ask. */
    uint32_t bits;  /* of a code that meets codes: 8, or 7 */
    uint32_t block; /* of int4: 32, 64 or 128 */
    bool asymmetric, has_method;
    enum range_method method;
    bool has_statistics;
    struct digest statistics; /* that an application sent, where has_statistics */
    uint32_t speed;           /* of int8: products with codes in the time of ten with floats, what it chooses by */
    char rules[RECIPE_RULES_BYTES]; /* tensor_rules.h; "" for none */
};

const char *scheme_name(enum scheme s);
unsigned scheme_families(enum scheme s); /* of enum model_family; auto is of both */
enum qd_type scheme_type(enum scheme s);
uint32_t scheme_file_type(enum scheme s); /* general.file_type */

/*
 * Upper case and the names q3_k, q4_k, q5_k (of the _m ones) are understood. An unknown name is QD_E_INVALID, with the
 * nearest one and the list as hint.
 */
int scheme_parse(const char *name, enum scheme *ret, struct qd_error *err);

/* A type that we can make; else QD_E_INVALID with the list as hint. */
int target_type_parse(const char *name, enum qd_type *ret, struct qd_error *err);

/*
 * Sets one choice by the key that canonical texts, messages and options share: scheme, pure, bits, block, asymmetric,
 * method, speed, statistics (64 hex digits), output, embedding, leave_output, requantize (0 or 1), imatrix (64 hex
 * digits), tensor (REGEX=TYPE, adds a rule), keep (REGEX, adds one).
 * A wrong value: QD_E_INVALID or QD_E_LIMIT, and @r as it was.
 */
int recipe_set(struct recipe *r, const char *key, const char *value, struct qd_error *err);

/*
 * Canonical text such as "scheme=q4_0 pure=1 output=q8_0 keep=ffn_gate": scheme and pure, then in the order above what
 * differs from the default. @dst[RECIPE_TEXT_MAX].
 */
void recipe_text(const struct recipe *r, char *dst);

bool recipe_equal(const struct recipe *a, const struct recipe *b);

/* Takes a canonical text of a resolved recipe, and nothing else. */
int recipe_parse(const char *text, struct recipe *ret, struct qd_error *err);

/* Rises only when the bytes of some type or step that this recipe can use change. */
uint32_t recipe_encoder_revision(const struct recipe *r);

#endif
