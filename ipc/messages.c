#include "ipc/messages.h"

#include <string.h>

/* Where the flag of an optional number stands. */
/* clang-format off */
#define FLAG_NONE          .has_flag = false
#define FLAG_OF(name)      .has_flag = true, .beside = offsetof(owner, has_##name)
#define BESIDE_REQUIRED_str(name)  FLAG_NONE
#define BESIDE_REQUIRED_bin(name)  FLAG_NONE
#define BESIDE_REQUIRED_bool(name) FLAG_NONE
#define BESIDE_REQUIRED_u32(name)  FLAG_NONE
#define BESIDE_REQUIRED_u64(name)  FLAG_NONE
#define BESIDE_REQUIRED_f64(name)  FLAG_NONE
#define BESIDE_OPTIONAL_str(name)  FLAG_NONE
#define BESIDE_OPTIONAL_bin(name)  FLAG_NONE
#define BESIDE_OPTIONAL_bool(name) FLAG_NONE
#define BESIDE_OPTIONAL_u32(name)  FLAG_OF(name)
#define BESIDE_OPTIONAL_u64(name)  FLAG_OF(name)
#define BESIDE_OPTIONAL_f64(name)  FLAG_OF(name)
#define NEEDED_REQUIRED true
#define NEEDED_OPTIONAL false

#define FIELD_ROW(kind_, name, need, doc_)                                                         \
    {.key = #name, .kind = FIELD_##kind_, .required = NEEDED_##need, .offset = offsetof(owner, name), \
     BESIDE_##need##_##kind_(name), .doc = doc_},
#define LIST_ROW(record_, name, doc_)                                                              \
    {.key = #name, .kind = FIELD_list, .offset = offsetof(owner, name),                            \
     .beside = offsetof(owner, name##_n), .record = MSG_##record_, .doc = doc_},

/* A row too many, so that a message without fields has an array too. */
#define SHAPE_FUNCTION(name_)                                                                      \
    static const struct message_shape *name_##_shape(void)                                                 \
    {                                                                                              \
        typedef struct msg_##name_ owner;                                                          \
        static const struct field fields[] = {FIELDS_##name_(FIELD_ROW, LIST_ROW){.key = NULL}};   \
        static const struct message_shape shape = {.name = #name_, .struct_bytes = sizeof(owner),          \
            .fields = fields, .n_fields = sizeof fields / sizeof fields[0] - 1};                   \
        return &shape;                                                                             \
    }
RECORDS(SHAPE_FUNCTION)
WORKER_RECORDS(SHAPE_FUNCTION)
MESSAGES(SHAPE_FUNCTION)
WORKER_MESSAGES(SHAPE_FUNCTION)

#define SHAPE_ENTRY(name_) [MSG_##name_] = name_##_shape,
static const struct message_shape *(*const shapes[N_MESSAGES])(void) = {
    RECORDS(SHAPE_ENTRY) WORKER_RECORDS(SHAPE_ENTRY) MESSAGES(SHAPE_ENTRY) WORKER_MESSAGES(SHAPE_ENTRY)
};

#define METHOD_ROW(name_, params_, result_, doc_)                                                                      \
    {.name = #name_, .params = MSG_##params_, .result = MSG_##result_, .doc = doc_},
#define EVENT_ROW(name_, doc_) {.name = #name_, .params = MSG_##name_, .doc = doc_},
const struct method methods[N_METHODS] = {METHODS(METHOD_ROW)};
const struct method worker_methods[N_WORKER_METHODS] = {WORKER_METHODS(METHOD_ROW)};
const struct event events[N_EVENTS] = {EVENTS(EVENT_ROW)};
const struct event worker_events[N_WORKER_EVENTS] = {WORKER_EVENTS(EVENT_ROW)};
/* clang-format on */

const struct message_shape *shape_of(enum message type)
{
    return shapes[type]();
}

const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < N_METHODS; i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

const struct event *event_find(const char *name)
{
    for (size_t i = 0; i < N_EVENTS; i++)
        if (strcmp(events[i].name, name) == 0)
            return &events[i];
    return NULL;
}
