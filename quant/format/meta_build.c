#include "quant/format/meta_build.h"

#include <stdio.h>
#include <string.h>

/* A copy of @n bytes in the arena. */
static void *copied(struct meta_build *b, const void *data, size_t n)
{
    void *copy = arena_alloc(b->arena, n, 1);
    if (copy && n)
        memcpy(copy, data, n);
    b->failed = b->failed || !copy;
    return copy;
}

static bool grow(struct meta_build *b)
{
    if (b->table.n < b->room)
        return true;
    size_t room = b->room ? 2 * b->room : 32;
    struct meta_entry *larger = arena_alloc(b->arena, room, sizeof *larger);
    if (!larger) {
        b->failed = true;
        return false;
    }
    if (b->table.n)
        memcpy(larger, b->table.entries, b->table.n * sizeof *larger);
    b->table.entries = larger;
    b->room = room;
    return true;
}

static void put(struct meta_build *b, const char *prefix, const char *key, struct meta_value value)
{
    if (b->failed || !value.data || !grow(b))
        return;
    size_t n = strlen(prefix) + strlen(key) + 1;
    char *name = arena_alloc(b->arena, n, 1);
    if (!name) {
        b->failed = true;
        return;
    }
    (void)snprintf(name, n, "%s%s", prefix, key); /* measured above */
    b->table.entries[b->table.n++] = (struct meta_entry){name, value};
}

static void put_scalar(struct meta_build *b, const char *prefix, const char *key, enum meta_type type, const void *v,
                       size_t n)
{
    put(b, prefix, key, (struct meta_value){type, type, 1, copied(b, v, n)});
}

void meta_put_u32(struct meta_build *b, const char *prefix, const char *key, uint32_t v)
{
    put_scalar(b, prefix, key, META_U32, &v, sizeof v);
}

void meta_put_f32(struct meta_build *b, const char *prefix, const char *key, float v)
{
    put_scalar(b, prefix, key, META_F32, &v, sizeof v);
}

void meta_put_bool(struct meta_build *b, const char *prefix, const char *key, bool v)
{
    uint8_t byte = v;
    put_scalar(b, prefix, key, META_BOOL, &byte, 1);
}

void meta_put_text(struct meta_build *b, const char *prefix, const char *key, const char *v)
{
    size_t n = strlen(v);
    struct bytes *text = copied(b, &(struct bytes){0}, sizeof *text);
    const uint8_t *copy = copied(b, v, n + 1);
    if (!text || !copy)
        return;
    *text = (struct bytes){copy, n};
    put(b, prefix, key, (struct meta_value){META_STRING, META_STRING, 1, text});
}

void meta_put_entry(struct meta_build *b, const struct meta_entry *e)
{
    if (!b->failed && grow(b))
        b->table.entries[b->table.n++] = *e;
}

void meta_put_array(struct meta_build *b, const char *key, enum meta_type item, uint64_t n, const void *data)
{
    put(b, "", key, (struct meta_value){META_ARRAY, item, n, data});
}
