#include "artifact/pack.h"

#include <endian.h>
#include <math.h>
#include <string.h>

/* MessagePack is big-endian. */
static void put_big_endian(struct buffer *b, uint8_t head, uint64_t v, unsigned n_bytes)
{
    buffer_put_u8(b, head);
    for (unsigned i = n_bytes; i-- > 0;)
        buffer_put_u8(b, (uint8_t)(v >> (8 * i)));
}

void pack_map(struct buffer *b, uint32_t n_pairs)
{
    if (n_pairs < 16)
        buffer_put_u8(b, (uint8_t)(0x80 | n_pairs));
    else if (n_pairs <= UINT16_MAX)
        put_big_endian(b, 0xde, n_pairs, 2);
    else
        put_big_endian(b, 0xdf, n_pairs, 4);
}

void pack_array(struct buffer *b, uint32_t n_items)
{
    if (n_items < 16)
        buffer_put_u8(b, (uint8_t)(0x90 | n_items));
    else if (n_items <= UINT16_MAX)
        put_big_endian(b, 0xdc, n_items, 2);
    else
        put_big_endian(b, 0xdd, n_items, 4);
}

void pack_u64(struct buffer *b, uint64_t v)
{
    if (v < 0x80)
        buffer_put_u8(b, (uint8_t)v);
    else if (v <= UINT8_MAX)
        put_big_endian(b, 0xcc, v, 1);
    else if (v <= UINT16_MAX)
        put_big_endian(b, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        put_big_endian(b, 0xce, v, 4);
    else
        put_big_endian(b, 0xcf, v, 8);
}

void pack_f64(struct buffer *b, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_big_endian(b, 0xcb, bits, 8);
}

void pack_str(struct buffer *b, struct bytes text)
{
    if (text.n < 32)
        buffer_put_u8(b, (uint8_t)(0xa0 | text.n));
    else if (text.n <= UINT8_MAX)
        put_big_endian(b, 0xd9, text.n, 1);
    else if (text.n <= UINT16_MAX)
        put_big_endian(b, 0xda, text.n, 2);
    else if (text.n <= UINT32_MAX)
        put_big_endian(b, 0xdb, text.n, 4);
    else
        b->failed = true;
    buffer_put(b, text.data, text.n);
}

void pack_text(struct buffer *b, const char *text)
{
    pack_str(b, (struct bytes){(const uint8_t *)text, strlen(text)});
}

void pack_bin(struct buffer *b, struct bytes data)
{
    if (data.n <= UINT8_MAX)
        put_big_endian(b, 0xc4, data.n, 1);
    else if (data.n <= UINT16_MAX)
        put_big_endian(b, 0xc5, data.n, 2);
    else if (data.n <= UINT32_MAX)
        put_big_endian(b, 0xc6, data.n, 4);
    else
        b->failed = true;
    buffer_put(b, data.data, data.n);
}

/* @n_bytes big-endian; fails when the value would have fit a form that ends at @shorter_max. */
static uint64_t take_big_endian(struct cursor *c, unsigned n_bytes, uint64_t shorter_max)
{
    struct bytes b = cursor_take(c, n_bytes);
    uint64_t v = 0;
    for (size_t i = 0; i < b.n; i++)
        v = v << 8 | b.data[i];
    if (v <= shorter_max)
        c->failed = true;
    return c->failed ? 0 : v;
}

/* Containers: @n items of a byte at least must still be there. */
static uint32_t bounded(struct cursor *c, uint64_t n, uint64_t least_bytes)
{
    if (n * least_bytes > cursor_left(c))
        c->failed = true;
    return c->failed ? 0 : (uint32_t)n;
}

uint32_t unpack_map(struct cursor *c)
{
    uint8_t head = cursor_u8(c);
    uint64_t n = 0;
    if ((head & 0xf0) == 0x80)
        n = head & 0x0f;
    else if (head == 0xde)
        n = take_big_endian(c, 2, 15);
    else if (head == 0xdf)
        n = take_big_endian(c, 4, UINT16_MAX);
    else
        c->failed = true;
    return bounded(c, n, 2);
}

uint32_t unpack_array(struct cursor *c)
{
    uint8_t head = cursor_u8(c);
    uint64_t n = 0;
    if ((head & 0xf0) == 0x90)
        n = head & 0x0f;
    else if (head == 0xdc)
        n = take_big_endian(c, 2, 15);
    else if (head == 0xdd)
        n = take_big_endian(c, 4, UINT16_MAX);
    else
        c->failed = true;
    return bounded(c, n, 1);
}

uint64_t unpack_u64(struct cursor *c)
{
    uint8_t head = cursor_u8(c);
    if (head < 0x80)
        return head;
    switch (head) {
    case 0xcc:
        return take_big_endian(c, 1, 0x7f);
    case 0xcd:
        return take_big_endian(c, 2, UINT8_MAX);
    case 0xce:
        return take_big_endian(c, 4, UINT16_MAX);
    case 0xcf:
        return take_big_endian(c, 8, UINT32_MAX);
    default:
        c->failed = true;
        return 0;
    }
}

double unpack_f64(struct cursor *c)
{
    if (cursor_u8(c) != 0xcb)
        c->failed = true;
    struct bytes raw = cursor_take(c, 8);
    uint64_t bits = 0;
    if (raw.n)
        memcpy(&bits, raw.data, sizeof bits);
    bits = be64toh(bits);
    double v;
    memcpy(&v, &bits, sizeof v);
    if (isnan(v))
        c->failed = true;
    return c->failed ? 0 : v;
}

struct bytes unpack_str(struct cursor *c)
{
    uint8_t head = cursor_u8(c);
    uint64_t n = 0;
    if ((head & 0xe0) == 0xa0)
        n = head & 0x1f;
    else if (head == 0xd9)
        n = take_big_endian(c, 1, 31);
    else if (head == 0xda)
        n = take_big_endian(c, 2, UINT8_MAX);
    else if (head == 0xdb)
        n = take_big_endian(c, 4, UINT16_MAX);
    else
        c->failed = true;
    return cursor_take(c, n);
}

struct bytes unpack_bin(struct cursor *c)
{
    uint8_t head = cursor_u8(c);
    uint64_t n = 0;
    if (head == 0xc4)
        n = cursor_u8(c);
    else if (head == 0xc5)
        n = take_big_endian(c, 2, UINT8_MAX);
    else if (head == 0xc6)
        n = take_big_endian(c, 4, UINT16_MAX);
    else
        c->failed = true;
    return cursor_take(c, n);
}

void unpack_key(struct cursor *c, const char *key)
{
    struct bytes text = unpack_str(c);
    if (text.n != strlen(key) || memcmp(text.data, key, text.n) != 0)
        c->failed = true;
}

void unpack_raw(struct cursor *c, void *dst, size_t n_bytes)
{
    struct bytes raw = unpack_bin(c);
    memset(dst, 0, n_bytes);
    if (c->failed || raw.n != n_bytes)
        c->failed = true;
    else
        memcpy(dst, raw.data, n_bytes);
}
