/*
 * Value: a message body as a tree, for tools that need no struct per message. Immutable; the root
 * owns everything below it. Strings are checked UTF-8 without NUL bytes; bin is shown as lower-case hex text.
 */
#ifndef QUANTD_IPC_VALUE_H
#define QUANTD_IPC_VALUE_H

#include "ipc/codec.h"

enum value_kind { VALUE_NIL, VALUE_BOOL, VALUE_INT, VALUE_UINT, VALUE_NUMBER, VALUE_STRING, VALUE_ARRAY, VALUE_MAP };

struct value {
    enum value_kind kind;
    size_t n; /* items of an array or map, bytes of a string */
    union {
        bool b;
        int64_t i;  /* VALUE_INT: negative */
        uint64_t u; /* VALUE_UINT */
        double f;
        const char *text;
        const struct value *items;
    };
    const char *const *keys; /* of a map, in order */
};

/* The body of @in as a tree of its own. value_free(root) frees all of it. */
int value_of_incoming(const struct incoming *in, struct value **ret, struct qd_error *err);
struct value *value_free(struct value *root);
DEFINE_CLEANUP(value_free, struct value *)

/* ---- parameters without a struct ---------------------------------------------------------------- */

struct param {
    const char *key;
    enum { PARAM_STR, PARAM_U64, PARAM_BOOL } kind;
    const char *text;
    uint64_t number; /* also 0 or 1 for a bool */
};

/* A request of any method with @n parameters; the peer judges them. */
int request_encode_params(struct buffer *dst, uint32_t id, const char *method, const struct param *params, size_t n,
                          struct qd_error *err);

#endif
