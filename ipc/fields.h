/*
 * Fields: one map of protocol.def to and from MessagePack, driven by its shape. The codec, the
 * records and the error map are made of this. Internal to ipc.
 */
#ifndef QUANTD_IPC_FIELDS_H
#define QUANTD_IPC_FIELDS_H

#include <msgpack.h>

#include "ipc/codec.h"
#include "kernels/core/error.h"

/* A packer that appends to @dst; @dst->failed says when memory ran out. */
msgpack_packer packer_into(struct buffer *dst);
void wire_key(msgpack_packer *pk, const char *key);
void wire_bool(msgpack_packer *pk, bool v);

/* The array header, the kind, and the id where the kind has one. */
void wire_start(msgpack_packer *pk, enum incoming_kind kind, uint32_t id);

/*
 * A message stands in @dst from @start on, @r says how packing went: is it whole, and does it fit? Otherwise @dst is
 * put back.
 */
int finish_message(struct buffer *dst, size_t start, int r, struct qd_error *err);

/* Bytes that are not UTF-8 are packed as '?'. QD_E_LIMIT beyond TEXT_BYTES_MAX. */
int wire_text(msgpack_packer *pk, const char *text, struct qd_error *err);
int wire_fields(msgpack_packer *pk, enum message type, const void *msg, struct qd_error *err);

/*
 * Takes @object, whose bytes lie in memory of @zone that may be written (strings are terminated in
 * place), apart into the struct of @type.
 */
int unpack_fields(const msgpack_object *object, enum message type, msgpack_zone *zone, void *ret, struct qd_error *err);

/*
 * Copies @message (which has passed precheck) into @zone and unpacks the copy; the object tree and all
 * its strings live in @zone and may be written.
 */
int unpack_object(struct bytes message, msgpack_zone *zone, msgpack_object *ret, struct qd_error *err);

/* The string of @object, terminated in place; an error where it is none, too long, not UTF-8 or holds a NUL. */
int text_of_object(const msgpack_object *object, const char **ret, struct qd_error *err);

#endif
