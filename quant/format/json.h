/*
 * A pull reader of JSON (RFC 8259) over a stream: no tree, no recursion, memory only for the text
 * at hand. Headers of safetensors may have 100 MB; a tree of that would be gigabytes. Strict: UTF-8
 * is checked, numbers follow the grammar, surrogates come in pairs. Errors say file and byte.
 *
 * The caller asks for what it expects; a failure sticks in the stream (st->result).
 *
 *     json_begin(&j, '{');
 *     while (json_member(&j))       // false at the end and after a failure
 *         if (strcmp(json_key(&j), "shape") == 0) ... else json_skip(&j);
 */
#ifndef QUANTD_QUANT_JSON_H
#define QUANTD_QUANT_JSON_H

#include "kernels/core/bytes.h"
#include "quant/format/stream.h"

enum json_kind { JSON_NONE, JSON_OBJECT, JSON_ARRAY, JSON_TEXT, JSON_NUMBER, JSON_BOOL, JSON_NULL };

struct json {
    struct stream *st;  /* borrowed */
    struct buffer text; /* owned: the last key or text, NUL-terminated */
    size_t n_text;      /* its bytes; more than strlen where it holds NUL */
    unsigned depth;
    uint64_t started; /* bit d: the container at depth d has an item */
};

void json_clear(struct json *j);
static inline void json_clear_cleanup(struct json *j)
{
    json_clear(j);
}

/* What comes next, without taking it; JSON_NONE after a failure or where no value can start. */
enum json_kind json_peek(struct json *j);

/* Takes the opening '{' or '['. */
bool json_begin(struct json *j, char open);

/*
 * The next member or item of the container: true with its key read (member), false at its end, which is taken, or after
 * a failure.
 */
bool json_member(struct json *j);
bool json_item(struct json *j);
const char *json_key(const struct json *j);

/* The next value as text: NUL-terminated in @j until the next call; NULL after a failure. */
const char *json_text(struct json *j);
bool json_u64(struct json *j, uint64_t *ret); /* an integer, not negative, in digits alone */
bool json_number(struct json *j, double *ret);
bool json_bool(struct json *j, bool *ret);
bool json_skip(struct json *j); /* the next value whole */

/* Nothing but space may follow. */
bool json_end(struct json *j);

#endif
