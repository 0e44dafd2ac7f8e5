#include "kernels/core/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Nothing is a place of its own: arithmetic on a null pointer is undefined, adding 0 included. */
struct cursor cursor_over(struct bytes span)
{
    static const uint8_t nothing[1];
    const uint8_t *at = span.data ? span.data : nothing;
    return (struct cursor){.at = at, .end = at + span.n};
}

static uint64_t cursor_little_endian(struct cursor *c, size_t n_bytes)
{
    struct bytes b = cursor_take(c, n_bytes);
    uint64_t v = 0;
    for (size_t i = 0; i < b.n; i++)
        v |= (uint64_t)b.data[i] << (8 * i);
    return v;
}

uint16_t cursor_u16(struct cursor *c)
{
    return (uint16_t)cursor_little_endian(c, 2);
}

uint32_t cursor_u32(struct cursor *c)
{
    return (uint32_t)cursor_little_endian(c, 4);
}

uint64_t cursor_u64(struct cursor *c)
{
    return cursor_little_endian(c, 8);
}

/* False and failed when memory is out. */
static bool grow_to(struct buffer *b, size_t capacity)
{
    uint8_t *grown = realloc(b->data, capacity);
    if (!grown) {
        b->failed = true;
        return false;
    }
    b->data = grown;
    b->capacity = capacity;
    return true;
}

/* Room for @more bytes, growing by doubling. False and failed when memory is out. */
static bool have_room(struct buffer *b, size_t more)
{
    if (b->failed)
        return false;
    if (more <= b->capacity - b->n)
        return true;
    size_t want = b->capacity ? b->capacity : 256;
    while (want - b->n < more) {
        if (want > SIZE_MAX / 2) {
            b->failed = true;
            return false;
        }
        want *= 2;
    }
    return grow_to(b, want);
}

void buffer_reserve(struct buffer *b, size_t more)
{
    if (b->failed || more <= b->capacity - b->n)
        return;
    if (more > SIZE_MAX - b->n)
        b->failed = true;
    else
        (void)grow_to(b, b->n + more); /* a failure stays in the buffer */
}

void buffer_put(struct buffer *b, const void *data, size_t n_bytes)
{
    if (n_bytes == 0 || !have_room(b, n_bytes))
        return;
    memcpy(b->data + b->n, data, n_bytes);
    b->n += n_bytes;
}

static void buffer_put_little_endian(struct buffer *b, uint64_t v, size_t n_bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < n_bytes; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    buffer_put(b, raw, n_bytes);
}

void buffer_put_u8(struct buffer *b, uint8_t v)
{
    buffer_put(b, &v, 1);
}

void buffer_put_u16(struct buffer *b, uint16_t v)
{
    buffer_put_little_endian(b, v, 2);
}

void buffer_put_u32(struct buffer *b, uint32_t v)
{
    buffer_put_little_endian(b, v, 4);
}

void buffer_put_u64(struct buffer *b, uint64_t v)
{
    buffer_put_little_endian(b, v, 8);
}

void buffer_put_zeros(struct buffer *b, size_t n_bytes)
{
    if (n_bytes == 0 || !have_room(b, n_bytes))
        return;
    memset(b->data + b->n, 0, n_bytes);
    b->n += n_bytes;
}

void buffer_printf(struct buffer *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !have_room(b, (size_t)n + 1))
        return;
    va_start(args, fmt);
    (void)vsnprintf((char *)b->data + b->n, (size_t)n + 1, fmt, args); /* measured above */
    va_end(args);
    b->n += (size_t)n; /* the NUL stays behind the end: text is usable as a C string */
}

struct bytes buffer_span(const struct buffer *b)
{
    return (struct bytes){.data = b->data, .n = b->n};
}

void buffer_clear(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){0};
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hex_bytes(const char *text, uint8_t *dst, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        int high = hex_value(text[2 * i]), low = high < 0 ? -1 : hex_value(text[2 * i + 1]);
        if (low < 0)
            return false;
        dst[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
