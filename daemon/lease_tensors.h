/* The tables of an artifact that a lease is held on. */
#ifndef QUANTD_DAEMON_LEASE_TENSORS_H
#define QUANTD_DAEMON_LEASE_TENSORS_H

#include "artifact/tables.h"
#include "cache/store.h"

/* Pool. Reads and decodes it; strings are in @ret_arena, owned by the caller, also after a failure (or NULL). */
int lease_tensors(const struct lease *lease, struct arena **ret_arena, struct tensor_table *ret, struct qd_error *err);

/* The same of its metadata. */
int lease_metadata(const struct lease *lease, struct arena **ret_arena, struct meta_table *ret, struct qd_error *err);

#endif
