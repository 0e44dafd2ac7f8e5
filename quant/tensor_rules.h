/*
 * Rules of one's own: tensors whose name matches a POSIX extended regular expression become a type
 * that the user names, or stay as they are. The first rule that matches anywhere in the name holds.
 * In a recipe they are text, " tensor=REGEX=TYPE" or " keep=REGEX" each, with spaces, '%' and what
 * is no printable ASCII as %XX. Pure.
 */
#ifndef QUANTD_QUANT_TENSOR_RULES_H
#define QUANTD_QUANT_TENSOR_RULES_H

#include <stddef.h>

#include "kernels/core/arena.h"
#include "kernels/core/cleanup.h"
#include "quant/recipe.h"

enum {
    /* Every name is matched against every rule: 60,000 names (limits.h) and 32 rules take a second. */
    TENSOR_RULES_MAX = 32,
    /* Names have 63 bytes in GGUF; the C library's compiler recurses with the pattern's length. */
    TENSOR_PATTERN_MAX = 255,
    /*
     * Length times what repetitions multiply it by ("+" doubles, {n} makes n copies) when it is compiled. At this size
     * the worst pattern tried took 5 ms and 1 MB, at ten times it 9 s and 500 MB; and the daemon compiles what clients
     * send.
     */
    TENSOR_PATTERN_WORK_MAX = 512
};

/*
 * Adds a rule to canonical text @rules[RECIPE_RULES_BYTES]; @type NULL: keep. A pattern that does not compile, that
 * means something else here than in other programs (\d, (?:), or that is beyond a limit, and a type that is none:
 * QD_E_INVALID or QD_E_LIMIT with the next step, and @rules as they were.
 */
int tensor_rules_add(char *rules, const char *pattern, const char *type, struct qd_error *err);

/* Turns the %XX of canonical text into bytes, in place. */
void tensor_rules_unescape(char *text);

/* The types that canonical @rules name, a bit each. */
uint64_t tensor_rules_types(const char *rules);

struct tensor_rules;

/* Compiles what tensor_rules_add made; @ret is owned by the caller, its texts live in @arena. */
int tensor_rules_compile(const char *rules, struct arena *arena, struct tensor_rules **ret, struct qd_error *err);
struct tensor_rules *tensor_rules_free(struct tensor_rules *r);
DEFINE_CLEANUP(tensor_rules_free, struct tensor_rules *)

struct tensor_rule {
    bool keep;
    enum qd_type type; /* unless keep */
    const char *text;  /* as a user writes it: "--tensor 'ffn_down=q6_k'" */
};

/* The first rule that @name matches, or NULL; notes which rules ever matched. One thread. */
const struct tensor_rule *tensor_rules_match(struct tensor_rules *r, const char *name);

/* The first rule that no name matched, or NULL. */
const struct tensor_rule *tensor_rules_unused(const struct tensor_rules *r);

#endif
