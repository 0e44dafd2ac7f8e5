/*
 * Arena: memory that lives and dies together, under a byte budget. What a model's header may cost
 * is decided once, where the arena is made; beyond it every allocation returns NULL.
 * One thread at a time.
 */
#ifndef QUANTD_CORE_ARENA_H
#define QUANTD_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/bytes.h"
#include "kernels/core/cleanup.h"

struct arena;

struct arena *arena_new(size_t budget_bytes); /* NULL when memory is out */
struct arena *arena_free(struct arena *a);
DEFINE_CLEANUP(arena_free, struct arena *)

/* @n items of @item_bytes, zeroed, aligned to 16; NULL when the product, the budget or memory does not allow. */
void *arena_alloc(struct arena *a, uint64_t n, size_t item_bytes);

/* A NUL-terminated copy of @span; NULL as above. */
char *arena_text(struct arena *a, struct bytes span);

size_t arena_used(const struct arena *a);

#endif
