/*
 * Policy: what "auto" means on a machine, by tables that can be read, and why in words. It decides by what a machine
 * has and by how large the model is: never by what happens to be free, never by a clock. Pure but for
 * policy_memory_bytes(). docs/adr/0017-what-auto-decides-by.md.
 */
#ifndef QUANTD_QUANT_POLICY_H
#define QUANTD_QUANT_POLICY_H

#include <stdint.h>

#include <quantd/layout.h>

#include "quant/recipe.h"

/* What is decided by. Features may be those of another machine, and of another architecture. */
struct policy_facts {
    uint64_t memory_bytes; /* MemTotal or the cgroup limit, the smaller */
    uint64_t model_bytes;  /* weights of the source */
    uint64_t n_elements;   /* of matrices; 0 where unknown */
    uint64_t cpu_features;
    uint64_t cache_bytes; /* budget of the store; 0: no limit but the disk */
    bool is_onnx;         /* the source is an ONNX model */
    uint32_t int8_speed;  /* as struct recipe's speed, where it was measured; 0: by the table */
};

/*
 * Resolves what was asked for to a recipe (@ret may be @asked): the scheme may change, and what a scheme of ONNX models
 * needs and was not said gets its default; what it has no use for goes. @ret_why[POLICY_WHY_MAX]
 * receives the rule in words, for `plan` and `show`; table version POLICY_VERSION.
 */
enum { POLICY_VERSION = 4, POLICY_WHY_MAX = 256 };
void policy_resolve(const struct recipe *asked, const struct policy_facts *facts, struct recipe *ret, char *ret_why);

/*
 * The layout that "auto" means for an artifact of @recipe, which is resolved: the one that this machine's kernels read,
 * or portable where packing gains nothing. @ret_why[POLICY_WHY_MAX]: why, in words.
 */
enum qd_layout policy_layout(const struct recipe *recipe, const struct policy_facts *facts, char *ret_why);

/* MemTotal or the cgroup's memory.max (v2, and v1), the smaller. */
uint64_t policy_memory_bytes(void);

#endif
