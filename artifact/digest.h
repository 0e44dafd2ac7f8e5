/*
 * Content digests: a domain-separated SHA-256 tree over shards of 16 MiB.
 *
 *     leaf(i) = SHA-256("quantd shard 1\0" || u64le i || bytes of shard i)
 *     file    = SHA-256("quantd file 1\0" || u64le file bytes || leaf(0) || leaf(1) ...)
 *
 * One pass, parallel by shard, and a reader can check just the shards it touches. An empty file
 * has no leaves. Everything else that is digested (source lists, keys) is a small message under a
 * tag of its own: digest_message. SHA-256 is libcrypto's, which uses SHA-NI or the Arm extension.
 */
#ifndef QUANTD_ARTIFACT_DIGEST_H
#define QUANTD_ARTIFACT_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/core/bytes.h"
#include "kernels/core/error.h"

enum { DIGEST_BYTES = 32, DIGEST_HEX_BYTES = 2 * DIGEST_BYTES + 1, SHARD_BYTES = 16 << 20 };

struct digest {
    uint8_t bytes[DIGEST_BYTES];
};

bool digest_equal(const struct digest *a, const struct digest *b);

/* 64 lower-case hex digits and a NUL. */
void digest_hex(const struct digest *d, char dst[DIGEST_HEX_BYTES]);

/* The only parser of digests from text: exactly 64 lower-case hex digits. False on anything else. */
bool digest_parse(const char *text, struct digest *ret);

/* SHA-256("quantd <tag> 1\0" || message). Cannot fail but for memory, which aborts the call with QD_E_NO_MEMORY. */
int digest_message(const char *tag, struct bytes message, struct digest *ret, struct qd_error *err);

/* A leaf in pieces: start, add in order, finish. One hasher is used by one thread at a time and can be started again.
 */
struct leaf_hasher;
struct leaf_hasher *leaf_hasher_new(void); /* NULL when memory is out */
struct leaf_hasher *leaf_hasher_free(struct leaf_hasher *h);
DEFINE_CLEANUP(leaf_hasher_free, struct leaf_hasher *)
int leaf_hasher_start(struct leaf_hasher *h, uint64_t shard_index, struct qd_error *err);
int leaf_hasher_add(struct leaf_hasher *h, struct bytes piece, struct qd_error *err);
int leaf_hasher_finish(struct leaf_hasher *h, struct digest *ret, struct qd_error *err);

/* Number of shards of a file of @file_bytes. */
uint64_t shard_count(uint64_t file_bytes);

/* The file's digest from its leaves, @leaves[shard_count(@file_bytes)]. */
int digest_of_leaves(uint64_t file_bytes, const struct digest *leaves, struct digest *ret, struct qd_error *err);

/* The digest of bytes in memory (small files such as tables). */
int digest_of_bytes(struct bytes file, struct digest *ret, struct qd_error *err);

/*
 * Reads @fd whole with pread and digests it. @ret_leaves, when given, receives the
 * shard_count() leaves (owned by the caller, free()). A file that is shorter or longer
 * than @file_bytes at the end is QD_E_SOURCE_CHANGED. @cancel, when given, is polled between
 * pieces of 1 MiB: non-zero stops with QD_E_CANCELLED. @done_bytes, when given, is advanced
 * (relaxed atomic) as bytes are hashed. @n_threads >= 1 share the shards.
 */
int digest_file(int fd, uint64_t file_bytes, unsigned n_threads, struct digest *ret, struct digest **ret_leaves,
                const _Atomic int *cancel, _Atomic uint64_t *done_bytes, struct qd_error *err);

#endif
