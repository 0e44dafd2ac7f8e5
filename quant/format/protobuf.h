/*
 * Protocol buffers on the wire, read forward from a stream whose @end is that of the message: field by field, nothing
 * allocated, unknown fields skipped. protobuf:docs/programming-guides/encoding.md.
 */
#ifndef QUANTD_QUANT_PROTOBUF_H
#define QUANTD_QUANT_PROTOBUF_H

#include "quant/format/stream.h"

enum pb_wire { PB_VARINT = 0, PB_64 = 1, PB_BYTES = 2, PB_GROUP = 3, PB_GROUP_END = 4, PB_32 = 5 };

struct pb_field {
    uint32_t number;
    enum pb_wire wire;
    uint64_t value; /* of PB_VARINT, PB_64, PB_32 */
    uint64_t start; /* of the tag, in the file */
    uint64_t at;    /* of the content of PB_BYTES; the stream stands there */
    uint64_t bytes; /* of it; lies inside the message */
};

/* The next field up to @st->end; false at the end and after a failure. The content of PB_BYTES is not taken. */
bool pb_next(struct stream *st, struct pb_field *ret);

/* Passes over what pb_next left: the content of PB_BYTES, or a group with all its groups. */
bool pb_skip(struct stream *st, const struct pb_field *f);

/* A varint of at most 10 bytes. */
uint64_t pb_varint(struct stream *st);

static inline float pb_float(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } u = {bits};
    return u.value;
}

#endif
