/*
 * Messages as C structs, printed from protocol.def: struct msg_<name> for every record and every
 * map of parameters or results. A member is
 *
 *     str   const char *      NUL-terminated; an absent OPTIONAL one is NULL
 *     bin   struct bytes      an absent OPTIONAL one has data NULL
 *     bool  bool              an absent OPTIONAL one is false, and false is not sent
 *     u32 u64 f64             an OPTIONAL one has `bool has_<name>` beside it
 *     list  const struct msg_<record> *<name> with size_t <name>_n
 *
 * Pointers borrow: when encoding from the caller, after decoding from the struct incoming.
 */
#ifndef QUANTD_IPC_MESSAGES_H
#define QUANTD_IPC_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/protocol.def"
#include "kernels/core/bytes.h"

/* clang-format off */
#define MEMBER_REQUIRED_str(name)  const char *name;
#define MEMBER_OPTIONAL_str(name)  const char *name;
#define MEMBER_REQUIRED_bin(name)  struct bytes name;
#define MEMBER_OPTIONAL_bin(name)  struct bytes name;
#define MEMBER_REQUIRED_bool(name) bool name;
#define MEMBER_OPTIONAL_bool(name) bool name;
#define MEMBER_REQUIRED_u32(name)  uint32_t name;
#define MEMBER_OPTIONAL_u32(name)  bool has_##name; uint32_t name;
#define MEMBER_REQUIRED_u64(name)  uint64_t name;
#define MEMBER_OPTIONAL_u64(name)  bool has_##name; uint64_t name;
#define MEMBER_REQUIRED_f64(name)  double name;
#define MEMBER_OPTIONAL_f64(name)  bool has_##name; double name;
#define MEMBER(kind, name, need, doc) MEMBER_##need##_##kind(name)
#define MEMBER_LIST(record, name, doc) const struct msg_##record *name; size_t name##_n;
#define MESSAGE_STRUCT(name) struct msg_##name { FIELDS_##name(MEMBER, MEMBER_LIST) };
#define MESSAGE_ENUM(name) MSG_##name,

RECORDS(MESSAGE_STRUCT)
WORKER_RECORDS(MESSAGE_STRUCT)
MESSAGES(MESSAGE_STRUCT)
WORKER_MESSAGES(MESSAGE_STRUCT)
/* clang-format on */

enum message {
    RECORDS(MESSAGE_ENUM) WORKER_RECORDS(MESSAGE_ENUM) MESSAGES(MESSAGE_ENUM) WORKER_MESSAGES(MESSAGE_ENUM) N_MESSAGES
};

/* Room for any of them. */
/* clang-format off */
#define MESSAGE_MEMBER(name) struct msg_##name name;
union any_message {
    RECORDS(MESSAGE_MEMBER) WORKER_RECORDS(MESSAGE_MEMBER) MESSAGES(MESSAGE_MEMBER) WORKER_MESSAGES(MESSAGE_MEMBER)
};
/* clang-format on */

#undef MESSAGE_MEMBER
#undef MESSAGE_ENUM
#undef MESSAGE_STRUCT

/*
 * A message and its type as two arguments, checked by the compiler:
 *     reply_encode(dst, id, MESSAGE(opened, &opened), err)
 *     incoming_decode(in, INTO(open, &params), err)
 */
#define MESSAGE(name, ptr) MSG_##name, (1 ? (ptr) : (const struct msg_##name *)NULL)
#define INTO(name, ptr)    MSG_##name, (1 ? (ptr) : (struct msg_##name *)NULL)

/* ---- what the codec, the printer of docs/protocol.md and the tests walk ------------------------ */

enum field_kind { FIELD_str, FIELD_u32, FIELD_u64, FIELD_bool, FIELD_f64, FIELD_bin, FIELD_list };

struct field {
    const char *key; /* on the wire */
    enum field_kind kind;
    bool required;
    bool has_flag;       /* a has_<name> stands at @beside */
    size_t offset;       /* of the member */
    size_t beside;       /* of has_<name>, or of <name>_n */
    enum message record; /* of a list */
    const char *doc;
};

struct message_shape {
    const char *name;
    size_t struct_bytes;
    const struct field *fields;
    size_t n_fields;
};

/* Static storage, never NULL. */
const struct message_shape *shape_of(enum message type);

/* Methods and events by index in the order of protocol.def; static storage. */
struct method {
    const char *name;
    enum message params, result;
    const char *doc;
};
struct event {
    const char *name;
    enum message params;
    const char *doc;
};
/* clang-format off */
#define METHOD_ENUM(name, params, result, doc) METHOD_##name,
enum method_number { METHODS(METHOD_ENUM) N_METHODS };
enum worker_method_number { WORKER_METHODS(METHOD_ENUM) N_WORKER_METHODS };
#undef METHOD_ENUM
#define EVENT_ENUM(name, doc) EVENT_##name,
enum event_number { EVENTS(EVENT_ENUM) N_EVENTS };
enum worker_event_number { WORKER_EVENTS(EVENT_ENUM) N_WORKER_EVENTS };
#undef EVENT_ENUM
/* clang-format on */
extern const struct method methods[N_METHODS];
extern const struct method worker_methods[N_WORKER_METHODS];
extern const struct event events[N_EVENTS];
extern const struct event worker_events[N_WORKER_EVENTS];

/* The public method or event of that name; NULL where there is none. */
const struct method *method_find(const char *name);
const struct event *event_find(const char *name);

#endif
