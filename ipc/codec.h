/*
 * Codec: messages to bytes and back. A message on the wire is a MessagePack-RPC array
 *
 *     [0, id, method, {params}]    [1, id, nil or {code, message, hint}, {result}]    [2, event, {params}]
 *
 * Encoding writes into a growing buffer and refuses to pass PACKET_BYTES_MAX. Decoding trusts
 * nothing: precheck first, then required fields, kinds, ranges, UTF-8 and lengths; unknown keys are
 * skipped, a key that comes twice is refused. One thread at a time per object.
 */
#ifndef QUANTD_IPC_CODEC_H
#define QUANTD_IPC_CODEC_H

#include "ipc/messages.h"
#include "ipc/packet.h"
#include "kernels/core/error.h"

enum {
    TEXT_BYTES_MAX = 4096, /* any one string: a path is at most that */
    NAME_BYTES_MAX = 64,   /* of a method or event */
    LIST_ITEMS_MAX = 4096  /* records in one message; 64 KiB hold about 2,000 of the smallest */
};

/* ---- encoding: appends one message to @dst; on failure @dst is as before ----------------------- */

/*
 * QD_E_LIMIT when the message would not fit a packet or a string is too long. Bytes of a string that are not
 * UTF-8 (a file name may hold any) are sent as '?'.
 */
int request_encode(struct buffer *dst, uint32_t id, const char *method, enum message type, const void *params,
                   struct qd_error *err);
int reply_encode(struct buffer *dst, uint32_t id, enum message type, const void *result, struct qd_error *err);
int event_encode(struct buffer *dst, const char *event, enum message type, const void *params, struct qd_error *err);

/* An error reply always fits; NULL or a zero code is sent as "internal". */
int error_encode(struct buffer *dst, uint32_t id, const struct qd_error *why, struct qd_error *err);

/*
 * Cuts the list of @msg (its last one) to what fits a packet beside the rest. The list's first
 * item has index @from of @total; where items are left out and the message has a field `next`,
 * it is set. An item that does not fit alone is skipped by an empty page. Returns the number of items kept.
 */
size_t message_page(enum message type, void *msg, uint32_t from, size_t total);

/* ---- decoding ---------------------------------------------------------------------------------- */

enum incoming_kind { INCOMING_REQUEST, INCOMING_REPLY, INCOMING_EVENT };

/* One message taken apart; owns the memory that decoded messages borrow. */
struct incoming {
    enum incoming_kind kind;
    uint32_t id;       /* of a request or reply */
    const char *name;  /* method or event; "" in a reply */
    bool failed;       /* an error reply: see incoming_error */
    const void *body;  /* msgpack object: params or result */
    const void *error; /* msgpack object of an error reply */
    void *zone;        /* owned; msgpack zone */
};

/* Takes a message apart. @message may be overwritten afterwards. QD_E_PROTOCOL says what is wrong. */
int incoming_parse(struct bytes message, struct incoming *ret, struct qd_error *err);
void incoming_clear(struct incoming *in);
static inline void incoming_clear_cleanup(struct incoming *in)
{
    incoming_clear(in);
}

/* Decodes params or result into the struct of @type; pointers in @ret borrow @in. */
int incoming_decode(struct incoming *in, enum message type, void *ret, struct qd_error *err);

/* Fills @err with the peer's error, hint included; returns its code, always negative. An unknown code is QD_E_INTERNAL.
 */
int incoming_error(const struct incoming *in, struct qd_error *err);

#endif
