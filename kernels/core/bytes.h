/*
 * Bytes: a borrowed span, a bounded reader over one (cursor), and a growing buffer.
 * Integers are little-endian on the wire whatever the host.
 */
#ifndef QUANTD_CORE_BYTES_H
#define QUANTD_CORE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/core/cleanup.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tensors and metadata are used in memory as they stand in the files, little-endian: a big-endian port "
               "has to convert them");

struct bytes {
    const uint8_t *data; /* borrowed */
    size_t n;
};

/* A cursor never reads past its end; after a failed read @failed stays true and results are zero. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

struct cursor cursor_over(struct bytes span);

static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

/* {NULL, 0} on failure. */
static inline struct bytes cursor_take(struct cursor *c, uint64_t n_bytes)
{
    if (c->failed || n_bytes > cursor_left(c)) {
        c->failed = true;
        return (struct bytes){0};
    }
    struct bytes taken = {.data = c->at, .n = (size_t)n_bytes};
    c->at += n_bytes;
    return taken;
}

static inline uint8_t cursor_u8(struct cursor *c)
{
    struct bytes b = cursor_take(c, 1);
    return b.n ? b.data[0] : 0;
}

uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);

/*
 * @n_bytes bytes from twice as many digits 0-9a-f at @text; false, with @dst in any state, where another character
 * stands.
 */
bool hex_bytes(const char *text, uint8_t *dst, size_t n_bytes);

/* An owned, growing buffer. After a failed allocation @failed stays true and appends do nothing. */
struct buffer {
    uint8_t *data; /* owned */
    size_t n;
    size_t capacity;
    bool failed;
};

/* Room for @more bytes and no more: a large content that is known ahead is not doubled. */
void buffer_reserve(struct buffer *b, size_t more);

void buffer_put(struct buffer *b, const void *data, size_t n_bytes);
void buffer_put_u8(struct buffer *b, uint8_t v);
void buffer_put_u16(struct buffer *b, uint16_t v);
void buffer_put_u32(struct buffer *b, uint32_t v);
void buffer_put_u64(struct buffer *b, uint64_t v);
void buffer_put_zeros(struct buffer *b, size_t n_bytes);
void buffer_printf(struct buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct bytes buffer_span(const struct buffer *b);
void buffer_clear(struct buffer *b); /* frees; @b is empty and usable again */

static inline void buffer_clear_cleanup(struct buffer *b)
{
    buffer_clear(b);
}

#endif
