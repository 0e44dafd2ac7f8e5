/*
 * A recipe holds every choice that can change a byte of the artifact; its canonical text is part
 * of the key. What a user asks for is a scheme; "auto" is resolved by policy before a recipe exists.
 */
#ifndef QUANTD_QUANT_RECIPE_H
#define QUANTD_QUANT_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include <quantd/dtype.h>

#include "artifact/digest.h"
#include "kernels/core/error.h"

enum { RECIPE_TEXT_MAX = 256 };

#define SCHEMES(S)    \
    S(f16, F16, 1)    \
    S(bf16, BF16, 32) \
    S(q8_0, Q8_0, 7)  \
    S(q4_0, Q4_0, 2)

enum scheme {
    SCHEME_AUTO, /* what a request may say; a recipe never holds it */
#define S(name, NAME, file_type) SCHEME_##NAME,
    SCHEMES(S)
#undef S
        N_SCHEMES
};

struct recipe {
    enum scheme scheme;       /* not SCHEME_AUTO */
    bool pure;                /* one type for every matrix that its rows allow, the fall-back otherwise */
    bool weighted;            /* by an importance matrix */
    struct digest importance; /* of its content, where weighted */
};

const char *scheme_name(enum scheme s);
enum qd_type scheme_type(enum scheme s);
uint32_t scheme_file_type(enum scheme s); /* general.file_type */

/* An unknown name is QD_E_INVALID, with the nearest one and the list as hint. */
int scheme_parse(const char *name, enum scheme *ret, struct qd_error *err);

/* Canonical text such as "scheme=q4_0 pure=1"; where weighted with " imatrix=<64 hex digits>". @dst[RECIPE_TEXT_MAX] */
void recipe_text(const struct recipe *r, char *dst);
int recipe_parse(const char *text, struct recipe *ret, struct qd_error *err);

/* Rises only when the bytes of this recipe's types or steps change. */
uint32_t recipe_encoder_revision(const struct recipe *r);

/* Facts that "auto" decides by: never free memory, only what the machine has. */
struct policy_facts {
    uint64_t memory_bytes; /* MemTotal or the cgroup limit, the smaller */
    uint64_t model_bytes;  /* weights of the source */
    uint64_t n_elements;   /* of matrices; 0 where unknown */
    uint64_t cpu_features;
};

/*
 * Resolves a request to a recipe. @ret_why[256] receives the rule in words, for `plan` and `show`; table version
 * POLICY_VERSION.
 */
enum { POLICY_VERSION = 1, POLICY_WHY_MAX = 256 };
int policy_resolve(enum scheme asked, bool pure, const struct policy_facts *facts, struct recipe *ret, char *ret_why,
                   struct qd_error *err);

/* MemTotal or the cgroup's memory.max (v2, and v1), the smaller. */
uint64_t policy_memory_bytes(void);

#endif
