/*
 * A set of names, each with a number: duplicates are found and names looked up in constant time,
 * so that checking a header is linear (llama.cpp#19856: 100,000 names pairwise took minutes). The
 * hash is SipHash-1-3 keyed per process, so a file cannot be made whose names all collide.
 */
#ifndef QUANTD_CORE_NAME_SET_H
#define QUANTD_CORE_NAME_SET_H

#include "kernels/core/arena.h"

struct name_set {
    struct name_slot *slots; /* owned; free by name_set_clear */
    size_t n_slots;          /* a power of two, at least twice the names */
    size_t n_names;
    uint64_t key[2]; /* of the hash; the process's */
    uint64_t probes; /* slots looked at so far; what the linear-time test counts */
};

/* Room for @n_names; more can be added, the set grows. 0 or QD_E_NO_MEMORY as a bare code. */
int name_set_init(struct name_set *s, size_t n_names);

/* Adds @name (borrowed) with @number. 0 when new; 1 when it was there, *ret_number then is the earlier one's. */
int name_set_add(struct name_set *s, const char *name, size_t number, size_t *ret_number);

/* The number of @name, -1 where it is not in the set. */
int64_t name_set_find(struct name_set *s, const char *name);
void name_set_clear(struct name_set *s);

static inline void name_set_clear_cleanup(struct name_set *s)
{
    name_set_clear(s);
}

#endif
