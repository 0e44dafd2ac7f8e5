/*
 * Source identity: the digest of the canonical list of a source's files. Also what the worker
 * must prove that it read: the two lists are compared before anything is signed.
 */
#ifndef QUANTD_ARTIFACT_SOURCE_ID_H
#define QUANTD_ARTIFACT_SOURCE_ID_H

#include "artifact/digest.h"

enum { SOURCE_FILES_MAX = 1024 }; /* the largest split models have a few hundred parts */

struct source_file_id {
    const char *role; /* borrows; "weights" "index" "config" "tokenizer" */
    const char *name; /* borrows; relative to the model's folder */
    uint64_t bytes;
    struct digest digest;
};

/* Order of @files does not matter: the list is sorted by (role, name) and packed as canonical msgpack. */
int source_identity(const struct source_file_id *files, size_t n_files, struct digest *ret, struct qd_error *err);

#endif
