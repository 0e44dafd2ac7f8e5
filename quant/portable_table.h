/*
 * The tensor table of a portable artifact, as a file of the source that a packed one is made from: what it says of
 * types, shapes, reasons and quality is as true of the packed artifact.
 */
#ifndef QUANTD_QUANT_PORTABLE_TABLE_H
#define QUANTD_QUANT_PORTABLE_TABLE_H

#include "quant/model.h"

#define PORTABLE_TABLE_ROLE "tensors" /* of its file in a source */

struct portable_table {
    struct arena *arena; /* owned: all of it lives there */
    struct tensor_table table;
};

/* The file of @s that has its role; -1 where none has. */
int portable_table_file(const struct source *s);

/*
 * Reads file @file of @s: through source_read_meta, so that a witness covers what was read; @budget_bytes bounds what
 * it may cost in memory. A table that is not that of @m, which file 0 holds, tensor by tensor at the same places:
 * QD_E_CORRUPT.
 */
int portable_table_read(struct source *s, size_t file, const struct model *m, size_t budget_bytes,
                        struct portable_table **ret, struct qd_error *err);
struct portable_table *portable_table_free(struct portable_table *t);
DEFINE_CLEANUP(portable_table_free, struct portable_table *)

#endif
