/*
 * Packed files: the weights of a portable artifact in the order that one kind of CPU reads them, in a container that no
 * runtime takes for weights it knows. docs/formats/packed.md. Here is what such a file says of itself; plans that make
 * one, and that make the portable file of it again, are in plan_pack.h.
 */
#ifndef QUANTD_QUANT_PACKED_H
#define QUANTD_QUANT_PACKED_H

#include <quantd/layout.h>

#include "quant/model.h"

/* A layout to pack in, by its name. Unknown, or portable: QD_E_INVALID, the nearest and all as hint. */
int layout_parse(const char *name, enum qd_layout *ret, struct qd_error *err);

/* Has the reader met a packed file? */
bool packed_is(const struct model *m);

/* QD_E_UNSUPPORTED: @m, which is packed, is no model to make something of; says what it is and the way back. */
int packed_refuse(const struct model *m, struct qd_error *err);

/*
 * The metadata of a packed file of @m in @layout, in @arena; borrows @m's. A model with keys that only packed files
 * have is QD_E_UNSUPPORTED.
 */
int packed_meta(const struct model *m, enum qd_layout layout, struct arena *arena, struct meta_table *ret,
                struct qd_error *err);

/* At most so much of @arena packed_meta takes, and as much packed_open. */
size_t packed_arena_bytes(const struct model *m);

/* The portable model that a packed file holds. */
struct packed {
    struct model model;    /* tensors at their places in the packed file; metadata of the portable one */
    enum qd_layout layout; /* of the tensors that it packs (layout_packs) */
    uint32_t alignment;    /* of the portable file */
};

/*
 * Takes apart what the reader met (packed_is), into @arena; borrows @file's. A layout that this build does not know:
 * QD_E_UNSUPPORTED; keys that do not fit the tensors: QD_E_CORRUPT.
 */
int packed_open(const struct model *file, struct arena *arena, struct packed *ret, struct qd_error *err);

#endif
