#include "kernels/core/name_set.h"

#include <stdbool.h>
#include <string.h>
#include <sys/auxv.h>

#include "kernels/core/checked.h"
#include "kernels/core/error.h"

struct name_slot {
    const char *name; /* borrowed; NULL: free */
    uint64_t hash;
    size_t number;
};

static uint64_t rotated(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

/* One round of SipHash (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012). */
static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotated(v[1], 13) ^ v[0];
    v[3] = rotated(v[3], 16) ^ v[2];
    v[0] = rotated(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotated(v[1], 17) ^ v[2];
    v[3] = rotated(v[3], 21) ^ v[0];
    v[2] = rotated(v[2], 32);
}

/* The kernel gives every process 16 random bytes; reading them needs no system call. */
static void process_key(uint64_t key[2])
{
    const void *random = (const void *)getauxval(AT_RANDOM);
    key[0] = 0x7175616e74642031; /* an emulator may give none */
    key[1] = 0x6e616d6520736574;
    if (random)
        memcpy(key, random, 16);
}

static uint64_t name_hash(const uint64_t key[2], const char *name)
{
    uint64_t word;
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};
    size_t n = strlen(name), at = 0;
    for (; n - at >= 8; at += 8) {
        memcpy(&word, name + at, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)n << 56;
    for (size_t i = 0; at + i < n; i++)
        word |= (uint64_t)(unsigned char)name[at + i] << (8 * i);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int name_set_init(struct name_set *s, size_t n_names)
{
    size_t n_slots = 16;
    while (n_slots / 2 < n_names) {
        if (n_slots > SIZE_MAX / 4 / sizeof(struct name_slot))
            return QD_E_NO_MEMORY;
        n_slots *= 2;
    }
    struct name_slot *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return QD_E_NO_MEMORY;
    *s = (struct name_set){.slots = slots, .n_slots = n_slots};
    process_key(s->key);
    return 0;
}

/* The slot of @name, or the free one where it belongs. */
static struct name_slot *slot_of(struct name_set *s, const char *name, uint64_t hash)
{
    size_t mask = s->n_slots - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        struct name_slot *slot = &s->slots[i];
        s->probes++;
        if (!slot->name || (slot->hash == hash && strcmp(slot->name, name) == 0))
            return slot;
    }
}

static int grow(struct name_set *s)
{
    struct name_set larger;
    int r = name_set_init(&larger, s->n_slots); /* twice the slots */
    if (r < 0)
        return r;
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i].name)
            *slot_of(&larger, s->slots[i].name, s->slots[i].hash) = s->slots[i];
    larger.n_names = s->n_names;
    larger.probes += s->probes;
    name_set_clear(s);
    *s = larger;
    return 0;
}

int name_set_add(struct name_set *s, const char *name, size_t number, size_t *ret_number)
{
    if (s->n_names >= s->n_slots / 2) {
        int r = grow(s);
        if (r < 0)
            return r;
    }
    uint64_t hash = name_hash(s->key, name);
    struct name_slot *slot = slot_of(s, name, hash);
    if (slot->name) {
        *ret_number = slot->number;
        return 1;
    }
    *slot = (struct name_slot){.name = name, .hash = hash, .number = number};
    s->n_names++;
    return 0;
}

int64_t name_set_find(struct name_set *s, const char *name)
{
    if (!s->slots)
        return -1;
    const struct name_slot *slot = slot_of(s, name, name_hash(s->key, name));
    return slot->name ? (int64_t)slot->number : -1;
}

void name_set_clear(struct name_set *s)
{
    free(s->slots);
    *s = (struct name_set){0};
}
