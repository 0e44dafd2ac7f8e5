/*
 * Canonical MessagePack, the part of it that artifacts use: nil-free maps and arrays, unsigned
 * integers, strings, binary and float64, every one in its shortest form. Reading is strict: a
 * longer form, another type, or a length beyond the input fails the cursor (artifact/ reads files
 * of strangers, and a signature covers exact bytes). Nothing is allocated: what is read borrows.
 * Source: the MessagePack specification, github.com/msgpack/msgpack/blob/master/spec.md.
 */
#ifndef QUANTD_ARTIFACT_PACK_H
#define QUANTD_ARTIFACT_PACK_H

#include "kernels/core/bytes.h"

/* Writers append; a full memory shows as @b->failed. */
void pack_map(struct buffer *b, uint32_t n_pairs);
void pack_array(struct buffer *b, uint32_t n_items);
void pack_u64(struct buffer *b, uint64_t v);
void pack_f64(struct buffer *b, double v);
void pack_str(struct buffer *b, struct bytes text);
void pack_text(struct buffer *b, const char *text);
void pack_bin(struct buffer *b, struct bytes data);

/* Readers: the value, or zero with @c->failed. A length never exceeds what is left. */
uint32_t unpack_map(struct cursor *c);
uint32_t unpack_array(struct cursor *c);
uint64_t unpack_u64(struct cursor *c);
double unpack_f64(struct cursor *c); /* NaN fails: it has many encodings and means nothing here */
struct bytes unpack_str(struct cursor *c);
struct bytes unpack_bin(struct cursor *c);

/* Reads a string that must be @key: maps here have a fixed order of keys. */
void unpack_key(struct cursor *c, const char *key);

/* Reads exactly @n_bytes of binary into @dst, zeroed on failure. */
void unpack_raw(struct cursor *c, void *dst, size_t n_bytes);

#endif
