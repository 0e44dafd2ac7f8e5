#include "kernels/core/arena.h"

#include <stdalign.h>
#include <string.h>

#include "kernels/core/checked.h"

enum { FIRST_CHUNK_BYTES = 4 * 1024, CHUNK_BYTES = 64 * 1024, ARENA_ALIGN = 16 };

struct chunk {
    struct chunk *next; /* owned */
    size_t used;
    size_t capacity;
    alignas(ARENA_ALIGN) uint8_t data[];
};

struct arena {
    struct chunk *chunks; /* owned; the newest first */
    size_t budget;
    size_t used;
};

struct arena *arena_new(size_t budget_bytes)
{
    struct arena *a = calloc(1, sizeof *a);
    if (a)
        a->budget = budget_bytes;
    return a;
}

struct arena *arena_free(struct arena *a)
{
    if (!a)
        return NULL;
    for (struct chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
    return NULL;
}

static struct chunk *arena_chunk_with(struct arena *a, size_t n_bytes)
{
    if (a->chunks && a->chunks->capacity - a->chunks->used >= n_bytes)
        return a->chunks;
    size_t grown = a->chunks ? 2 * a->chunks->capacity : FIRST_CHUNK_BYTES; /* few pages where little is needed */
    size_t usual = grown < CHUNK_BYTES ? grown : CHUNK_BYTES;
    size_t capacity = n_bytes > usual ? n_bytes : usual;
    struct chunk *c = calloc(1, sizeof *c + capacity);
    if (!c)
        return NULL;
    c->capacity = capacity;
    c->next = a->chunks;
    a->chunks = c;
    return c;
}

void *arena_alloc(struct arena *a, uint64_t n, size_t item_bytes)
{
    uint64_t wanted;
    if (!checked_mul(n, item_bytes, &wanted) || !checked_align(wanted, ARENA_ALIGN, &wanted))
        return NULL;
    if (wanted == 0)
        wanted = ARENA_ALIGN;
    if (wanted > a->budget - a->used)
        return NULL;
    struct chunk *c = arena_chunk_with(a, (size_t)wanted);
    if (!c)
        return NULL;
    void *taken = c->data + c->used;
    c->used += (size_t)wanted;
    a->used += (size_t)wanted;
    return taken;
}

char *arena_text(struct arena *a, struct bytes span)
{
    char *text = span.n == SIZE_MAX ? NULL : arena_alloc(a, span.n + 1, 1);
    if (text && span.n)
        memcpy(text, span.data, span.n);
    return text;
}

size_t arena_used(const struct arena *a)
{
    return a->used;
}
