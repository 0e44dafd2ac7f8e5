/*
 * An importance matrix: for each column of a model's matrices how much an error in it matters (the mean square of what
 * came in there over some text), as llama.cpp's imatrix tool writes it, in GGUF or in its older form. A value: never
 * changed after importance_read returned it. docs/formats/imatrix.md is the format and lists what is refused.
 *
 * The numbers are those that llama-quantize computes, in float: sums divided by their counts; an expert that saw
 * nothing has 1 everywhere. All are finite and not negative.
 */
#ifndef QUANTD_QUANT_IMPORTANCE_H
#define QUANTD_QUANT_IMPORTANCE_H

#include "artifact/digest.h"
#include "kernels/core/arena.h"
#include "quant/model.h"
#include "quant/source.h"

#define IMPORTANCE_ROLE "imatrix" /* of its file in a source */

struct importance_entry {
    const char *name;    /* of the tensor */
    const float *values; /* [n], a row of columns for each expert */
    size_t n;
    uint64_t n_counts; /* experts that were counted each by itself; 0: the older form does not say */
};

struct importance {
    struct arena *arena;              /* owned: everything below lives in it */
    struct importance_entry *entries; /* sorted by name, no name twice */
    size_t n_entries;
    const char *form;     /* "gguf", or "dat": the older one */
    const char *dataset;  /* the first text it was made from, as the file names it; NULL: it does not say */
    uint32_t n_chunks;    /* of that text; 0: it does not say */
    struct digest digest; /* of the file's content: what a recipe holds */
};

/*
 * Reads file @file of @s: through source_read_meta, so that a witness covers what was read. @budget_bytes bounds what
 * it may cost in memory: QD_E_LIMIT beyond. A file that is no importance matrix is QD_E_UNSUPPORTED.
 */
int importance_read(struct source *s, size_t file, size_t budget_bytes, struct importance **ret, struct qd_error *err);
struct importance *importance_free(struct importance *i);
DEFINE_CLEANUP(importance_free, struct importance *)

/* The file of @s that has the role of an importance matrix; -1 where none has. */
int importance_file(const struct source *s);

/* The values for a tensor and how many; NULL where there are none. */
const float *importance_of(const struct importance *i, const char *tensor, size_t *ret_n);

/*
 * Does it belong to @m? Every entry for a tensor of @m must have its columns and experts (the token embedding's own may
 * differ, as in the field, and is then not used); some entry must be for one. Else QD_E_INVALID with both sizes.
 */
int importance_check(const struct importance *i, const struct model *m, struct qd_error *err);

/*
 * What the encoder of @t is given: NULL where @i has nothing for it, or where encoding to @type looks at no importance.
 * Checked before.
 */
const float *importance_for(const struct importance *i, const struct tensor *t, enum qd_type type);

/*
 * Is a tensor of that name worthless in @type without importance? As the field has it: the iq1, iq2 and iq3_xxs types,
 * and q2_k in a file of type q2_k_s; never the token embedding and the output. @file_type: general.file_type.
 */
bool importance_required(const char *tensor, enum qd_type type, uint32_t file_type);

#endif
