/* Model metadata: read and digest-checked at the first question, then shared by all handles. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/artifact.h"
#include "kernels/core/error.h"

enum { META_ARENA_BYTES = 1 << 30 }; /* the table itself is at most 256 MiB; a text of it takes 16 bytes and a NUL */

/*
 * Texts get the NUL that C wants. It overwrites the header of what follows in the packed table, which was
 * read and is not needed again; after the last there is a byte to spare.
 */
static void terminate_texts(const struct meta_table *table)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct meta_value *v = &table->entries[i].value;
        const struct bytes *texts = v->data;
        bool is_text = v->type == META_STRING || (v->type == META_ARRAY && v->item == META_STRING);
        for (uint64_t k = 0; is_text && k < v->n_items; k++)
            if (texts[k].data)
                ((uint8_t *)(uintptr_t)texts[k].data)[texts[k].n] = '\0';
    }
}

static int load_locked(struct shared *s, struct qd_error *err)
{
    const struct manifest_file *m = manifest_file(&s->manifest, MANIFEST_METADATA);
    CLEANUP(free) void *raw = NULL;
    if (!m)
        return err_new(err, QD_E_NOT_FOUND, "the artifact holds no model metadata");
    int r = shared_read(s, (size_t)(m - s->manifest.files), &raw, err);
    if (r < 0)
        return r;
    CLEANUP(arena_free) struct arena *arena = arena_new(META_ARENA_BYTES);
    if (!arena)
        return err_new(err, QD_E_NO_MEMORY, "model metadata");
    r = meta_table_decode((struct bytes){raw, (size_t)m->bytes}, arena, &s->meta, err);
    if (r < 0)
        return r;
    terminate_texts(&s->meta);
    s->meta_raw = steal(&raw);
    s->meta_arena = steal(&arena);
    s->meta_loaded = true;
    return 0;
}

static int load(struct qd_artifact *a, struct qd_error *err)
{
    struct shared *s = a->shared;
    (void)pthread_mutex_lock(&s->lock); /* fails only where it was never made */
    int r = s->meta_loaded ? 0 : load_locked(s, err);
    (void)pthread_mutex_unlock(&s->lock);
    return r < 0 ? err_in(err, r, "metadata of '%s'", s->info.model) : 0;
}

static int find(struct qd_artifact *a, const char *key, const struct meta_value **ret, struct qd_error *err)
{
    int r = load(a, err);
    if (r < 0)
        return r;
    const struct meta_value *v = meta_find(&a->shared->meta, key);
    if (!v)
        return err_new(err, QD_E_NOT_FOUND, "'%s' has no metadata key '%s'", a->shared->info.model, key);
    *ret = v;
    return 0;
}

static enum meta_type item_type(const struct meta_value *v)
{
    return v->type == META_ARRAY ? v->item : v->type;
}

/* Item @i of @key: a scalar has one, at 0. */
static int find_item(struct qd_artifact *a, const char *key, size_t i, const struct meta_value **ret,
                     struct qd_error *err)
{
    int r = find(a, key, ret, err);
    if (r == 0 && i >= (*ret)->n_items)
        r = err_new(err, QD_E_NOT_FOUND, "metadata key '%s' has %llu items, not %zu", key,
                    (unsigned long long)(*ret)->n_items, i + 1);
    return r;
}

static int find_scalar(struct qd_artifact *a, const char *key, const struct meta_value **ret, struct qd_error *err)
{
    int r = find(a, key, ret, err);
    if (r == 0 && (*ret)->type == META_ARRAY)
        r = err_hint(err, err_new(err, QD_E_INVALID, "metadata key '%s' is an array", key),
                     "use the qd_meta_item_ functions");
    return r;
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

/* Packed little-endian items to one of the three widest forms. */
struct number {
    enum { NUMBER_UINT, NUMBER_INT, NUMBER_FLOAT, NUMBER_NONE } kind;
    uint64_t u;
    int64_t i; /* negative */
    double f;
};

static uint64_t little_endian(const uint8_t *at, size_t n_bytes)
{
    uint64_t v = 0;
    for (size_t k = 0; k < n_bytes; k++)
        v |= (uint64_t)at[k] << (8 * k);
    return v;
}

static struct number of_signed(uint64_t raw, size_t n_bytes)
{
    int64_t v = (int64_t)(raw << (64 - 8 * n_bytes)) >> (64 - 8 * n_bytes);
    return v < 0 ? (struct number){.kind = NUMBER_INT, .i = v} : (struct number){.kind = NUMBER_UINT, .u = (uint64_t)v};
}

static struct number number_at(const struct meta_value *v, size_t i)
{
    size_t n_bytes = meta_type_bytes(item_type(v));
    uint64_t raw = n_bytes ? little_endian((const uint8_t *)v->data + i * n_bytes, n_bytes) : 0;
    uint32_t raw32 = (uint32_t)raw;
    struct number n = {.kind = NUMBER_NONE};
    float f32;
    switch (item_type(v)) {
    case META_U8:
    case META_U16:
    case META_U32:
    case META_U64:
    case META_BOOL:
        return (struct number){.kind = NUMBER_UINT, .u = raw};
    case META_I8:
    case META_I16:
    case META_I32:
    case META_I64:
        return of_signed(raw, n_bytes);
    case META_F32:
        memcpy(&f32, &raw32, sizeof f32);
        return (struct number){.kind = NUMBER_FLOAT, .f = (double)f32};
    case META_F64:
        n.kind = NUMBER_FLOAT;
        memcpy(&n.f, &raw, sizeof n.f);
        return n;
    case META_STRING:
    case META_ARRAY:
    case META_N_TYPES:
        break;
    }
    return n;
}

static int wrong_type(struct qd_artifact *a, const char *key, const char *wanted, struct qd_error *err)
{
    return err_new(err, QD_E_INVALID, "metadata key '%s' is of type %s, not %s", key, qd_meta_type_name(a, key),
                   wanted);
}

static int as_u64(struct qd_artifact *a, const char *key, struct number n, uint64_t *ret, struct qd_error *err)
{
    if (n.kind != NUMBER_UINT)
        return wrong_type(a, key, "a non-negative integer", err);
    *ret = n.u;
    return 0;
}

static int as_f64(struct qd_artifact *a, const char *key, struct number n, double *ret, struct qd_error *err)
{
    if (n.kind == NUMBER_NONE)
        return wrong_type(a, key, "a number", err);
    *ret = n.kind == NUMBER_FLOAT ? n.f : n.kind == NUMBER_INT ? (double)n.i : (double)n.u;
    return 0;
}

int qd_meta_u64(struct qd_artifact *a, const char *key, uint64_t *ret, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_scalar(a, key, &v, err);
    return r < 0 ? r : as_u64(a, key, number_at(v, 0), ret, err);
}

int qd_meta_f64(struct qd_artifact *a, const char *key, double *ret, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_scalar(a, key, &v, err);
    return r < 0 ? r : as_f64(a, key, number_at(v, 0), ret, err);
}

int qd_meta_item_u64(struct qd_artifact *a, const char *key, size_t i, uint64_t *ret, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_item(a, key, i, &v, err);
    return r < 0 ? r : as_u64(a, key, number_at(v, i), ret, err);
}

int qd_meta_item_f64(struct qd_artifact *a, const char *key, size_t i, double *ret, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_item(a, key, i, &v, err);
    return r < 0 ? r : as_f64(a, key, number_at(v, i), ret, err);
}

int qd_meta_item_i64(struct qd_artifact *a, const char *key, size_t i, int64_t *ret, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_item(a, key, i, &v, err);
    if (r < 0)
        return r;
    struct number n = number_at(v, i);
    if (n.kind == NUMBER_INT)
        *ret = n.i;
    else if (n.kind == NUMBER_UINT && n.u <= INT64_MAX)
        *ret = (int64_t)n.u;
    else
        return wrong_type(a, key, "an integer that fits 64 bits with sign", err);
    return 0;
}

/* ---- strings, keys, types -------------------------------------------------------------------------------- */

static int as_string(struct qd_artifact *a, const char *key, const struct meta_value *v, size_t i, const char **ret,
                     size_t *ret_bytes, struct qd_error *err)
{
    if (item_type(v) != META_STRING)
        return wrong_type(a, key, "a string", err);
    const struct bytes *text = (const struct bytes *)v->data + i;
    *ret = text->n ? (const char *)text->data : "";
    if (ret_bytes)
        *ret_bytes = text->n;
    return 0;
}

int qd_meta_string(struct qd_artifact *a, const char *key, const char **ret, size_t *ret_bytes, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_scalar(a, key, &v, err);
    return r < 0 ? r : as_string(a, key, v, 0, ret, ret_bytes, err);
}

int qd_meta_item_string(struct qd_artifact *a, const char *key, size_t i, const char **ret, size_t *ret_bytes,
                        struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find_item(a, key, i, &v, err);
    return r < 0 ? r : as_string(a, key, v, i, ret, ret_bytes, err);
}

int qd_meta_count(struct qd_artifact *a, const char *key, size_t *ret_items, struct qd_error *err)
{
    const struct meta_value *v = NULL;
    int r = find(a, key, &v, err);
    if (r == 0)
        *ret_items = (size_t)v->n_items;
    return r;
}

const char *qd_meta_key_at(struct qd_artifact *a, size_t i)
{
    return load(a, NULL) == 0 && i < a->shared->meta.n ? a->shared->meta.entries[i].key : NULL;
}

const char *qd_meta_type_name(struct qd_artifact *a, const char *key)
{
    static const char *const names[META_N_TYPES][2] = {
        [META_U8] = {"u8", "array of u8"},
        [META_I8] = {"i8", "array of i8"},
        [META_U16] = {"u16", "array of u16"},
        [META_I16] = {"i16", "array of i16"},
        [META_U32] = {"u32", "array of u32"},
        [META_I32] = {"i32", "array of i32"},
        [META_F32] = {"f32", "array of f32"},
        [META_BOOL] = {"bool", "array of bool"},
        [META_STRING] = {"string", "array of string"},
        [META_U64] = {"u64", "array of u64"},
        [META_I64] = {"i64", "array of i64"},
        [META_F64] = {"f64", "array of f64"},
    };
    const struct meta_value *v = NULL;
    return find(a, key, &v, NULL) == 0 ? names[item_type(v)][v->type == META_ARRAY] : NULL;
}
