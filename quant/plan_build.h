/*
 * What the makers of plans share (plan.c, plan_pack.c): places of tensors, then the header that says them. Internal to
 * quant.
 */
#ifndef QUANTD_QUANT_PLAN_BUILD_H
#define QUANTD_QUANT_PLAN_BUILD_H

#include "quant/plan.h"

/* A plan for @m without tensors, whose arena has @arena_bytes; NULL where memory is out. */
struct plan *plan_new(const struct model *m, size_t arena_bytes);

/*
 * Puts @pt, whose type is decided, at @at bytes into the data section, and raises @at to where the next tensor may
 * start.
 */
int plan_place(struct plan *p, struct plan_tensor *pt, uint32_t alignment, uint64_t *at, struct qd_error *err);

/* The header that says @written and the tensors; offsets become those in the file, which holds @data_bytes of them. */
int plan_finish(struct plan *p, const struct meta_table *written, uint32_t alignment, uint64_t data_bytes,
                struct qd_error *err);

#endif
