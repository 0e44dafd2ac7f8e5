/*
 * The plan: type, bytes and offset of every output tensor, and why. Pure: no I/O, no clock, no
 * CPU; the same model and recipe give the same plan everywhere. It fixes every offset, so workers
 * write without locks and output never depends on the number of threads.
 */
#ifndef QUANTD_QUANT_PLAN_H
#define QUANTD_QUANT_PLAN_H

#include <quantd/layout.h>

#include "quant/importance.h"
#include "quant/model.h"
#include "quant/recipe.h"

enum { PLAN_ALIGNMENT = 4096 }; /* general.alignment: tensors start on pages, so artifacts map and share */

struct plan_tensor {
    const struct tensor *source; /* borrows the model */
    enum qd_type type;
    uint64_t offset; /* from the start of the output file */
    uint64_t bytes;
    const char *reason;      /* static text or arena: the rule behind the type */
    const float *importance; /* borrows: [matrices][columns], one matrix for each expert; NULL: none */
    enum qd_layout layout;   /* of its bytes on the packed side, where there is one; portable: they are copied */
};

struct plan {
    struct arena *arena;         /* owned */
    const struct model *model;   /* borrowed: outlives the plan; or in the arena */
    struct recipe recipe;        /* of a plan that quantizes */
    enum qd_layout from, to;     /* of the source and of the output; one of them where bytes only change places */
    const char *file_name;       /* "model.gguf" */
    struct buffer header;        /* owned: the output file up to its data */
    struct plan_tensor *tensors; /* output order = model order */
    size_t n_tensors;
    struct meta_table meta;              /* of the model that the output holds: its own keys and quantd.* provenance */
    uint64_t file_bytes;                 /* of the whole output */
    uint64_t source_bytes;               /* to be read */
    uint64_t borrowed_bytes;             /* of memory, that the plan borrows while it is in use */
    const struct tensor_table *portable; /* borrowed: what an artifact that is packed says of its tensors; NULL: none */
};

/* Do bytes only change places? */
static inline bool plan_moves(const struct plan *p)
{
    return p->from != p->to;
}

/*
 * @importance: what @r is weighted by, checked (importance_check), outlives the plan; NULL: nothing. A tensor whose
 * type needs an entry that is not there: QD_E_INVALID by name.
 */
int plan_build(const struct model *m, const struct recipe *r, const struct importance *importance, struct plan **ret,
               struct qd_error *err);
struct plan *plan_free(struct plan *p);
DEFINE_CLEANUP(plan_free, struct plan *)

/* The plan for people: a line per tensor (name, shape, type from and to, bytes, reason), then the sums. */
int plan_print(const struct plan *p, struct buffer *dst);

#endif
