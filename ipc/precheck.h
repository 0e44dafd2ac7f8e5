/*
 * Precheck: is this one well-formed MessagePack object within limits? Reads headers only,
 * allocates nothing, recurses never. Every byte that msgpack-c sees has passed here: five bytes
 * (df 08 00 00 00) make it reserve 8.6 GB otherwise.
 */
#ifndef QUANTD_IPC_PRECHECK_H
#define QUANTD_IPC_PRECHECK_H

#include "kernels/core/bytes.h"
#include "kernels/core/error.h"

enum {
    PRECHECK_DEPTH_MAX = 8, /* [reply [ {result} [list] {record} value ] ] needs 5 */
    PRECHECK_OBJECTS_MAX =
        32768 /* in one message; a page of short records has 19,000; msgpack-c spends 24 bytes on each: 800 KB */
};

/*
 * Takes exactly one object off the front of @c. Refused with QD_E_PROTOCOL: a count or length
 * beyond the bytes that are left, nesting beyond PRECHECK_DEPTH_MAX, more than
 * PRECHECK_OBJECTS_MAX objects, extension types, the unused byte c1. @ret is its span.
 */
int precheck_next(struct cursor *c, struct bytes *ret, struct qd_error *err);

/* The same for a whole message: one object and nothing behind it. */
int precheck(struct bytes message, struct qd_error *err);

#endif
