#include "quant/graph/value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"

/* ---- memory ---- */

enum {
    KEPT_MAX = 64,               /* freed blocks that wait for the next value of about their size */
    KEPT_LEAST_BYTES = 16 << 10, /* smaller ones are quick to have from malloc */
};

/* Before each block; as long as the alignment of what follows. */
struct block {
    uint64_t bytes; /* that can be used */
    uint8_t pad[VALUE_ALIGNMENT - sizeof(uint64_t)];
};
_Static_assert(sizeof(struct block) == VALUE_ALIGNMENT, "elements stand right behind it");

struct memory {
    uint64_t ceiling, used, peak; /* kept blocks are not in @used */
    struct block *kept[KEPT_MAX];
    size_t n_kept;
    uint64_t kept_bytes;
};

struct memory *memory_new(uint64_t ceiling_bytes)
{
    struct memory *m = calloc(1, sizeof *m);
    if (m)
        m->ceiling = ceiling_bytes;
    return m;
}

static void drop_kept(struct memory *m)
{
    while (m->n_kept > 0)
        free(m->kept[--m->n_kept]);
    m->kept_bytes = 0;
}

struct memory *memory_free(struct memory *m)
{
    if (m)
        drop_kept(m);
    free(m);
    return NULL;
}

uint64_t memory_used(const struct memory *m)
{
    return m->used;
}

uint64_t memory_peak(const struct memory *m)
{
    return m->peak;
}

/* The smallest kept block that holds @bytes and wastes no more than as much again; NULL where there is none. */
static struct block *take_kept(struct memory *m, uint64_t bytes)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < m->n_kept; i++)
        if (m->kept[i]->bytes >= bytes && m->kept[i]->bytes / 2 <= bytes &&
            (best == SIZE_MAX || m->kept[i]->bytes < m->kept[best]->bytes))
            best = i;
    if (best == SIZE_MAX)
        return NULL;
    struct block *b = m->kept[best];
    m->kept[best] = m->kept[--m->n_kept];
    m->kept_bytes -= b->bytes;
    return b;
}

static struct block *fresh_block(struct memory *m, uint64_t bytes)
{
    uint64_t rounded;
    if (!checked_align(bytes, VALUE_ALIGNMENT, &rounded) || rounded > m->ceiling || rounded > m->ceiling - m->used)
        return NULL;
    if (rounded + m->used + m->kept_bytes > m->ceiling)
        drop_kept(m);
    struct block *b = aligned_alloc(VALUE_ALIGNMENT, (size_t)(sizeof *b + rounded));
    if (b)
        b->bytes = rounded;
    return b;
}

int memory_take(struct memory *m, uint64_t bytes, void **ret, struct qd_error *err)
{
    struct block *b = bytes >= KEPT_LEAST_BYTES ? take_kept(m, bytes) : NULL;
    if (!b)
        b = fresh_block(m, bytes);
    if (!b) {
        int r = err_new(err, QD_E_LIMIT,
                        "%" PRIu64 " bytes more are needed, %" PRIu64 " are in use, %" PRIu64 " are allowed", bytes,
                        m->used, m->ceiling);
        return err_hint(err, r, "allow more memory, or run with smaller inputs");
    }
    m->used += b->bytes;
    if (m->used > m->peak)
        m->peak = m->used;
    *ret = b + 1;
    return 0;
}

void memory_give(struct memory *m, void *data)
{
    if (!data)
        return;
    struct block *b = (struct block *)data - 1;
    m->used -= b->bytes;
    if (b->bytes < KEPT_LEAST_BYTES || m->n_kept == KEPT_MAX) {
        free(b);
        return;
    }
    m->kept[m->n_kept++] = b;
    m->kept_bytes += b->bytes;
}

/* ---- shapes ---- */

int shape_count(const struct shape *s, uint64_t *ret, struct qd_error *err)
{
    uint64_t n = 1;
    bool empty = false;
    char text[SHAPE_TEXT_BYTES];
    for (uint32_t d = 0; d < s->n_dims; d++) {
        if (s->dims[d] < 0)
            return err_new(err, QD_E_INVALID, "a shape %s has a negative dimension", shape_text(s, text));
        empty = empty || s->dims[d] == 0;
        if (s->dims[d] && (!checked_mul(n, (uint64_t)s->dims[d], &n) || n > (uint64_t)1 << 58))
            return err_new(err, QD_E_LIMIT, "a shape %s has more elements than can be counted", shape_text(s, text));
    }
    *ret = empty ? 0 : n;
    return 0;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    return a->n_dims == b->n_dims && memcmp(a->dims, b->dims, a->n_dims * sizeof a->dims[0]) == 0;
}

char *shape_text(const struct shape *s, char dst[SHAPE_TEXT_BYTES])
{
    size_t at = 0;
    dst[at++] = '[';
    for (uint32_t d = 0; d < s->n_dims; d++)
        at += (size_t)snprintf(dst + at, SHAPE_TEXT_BYTES - at, "%s%" PRId64, d ? "," : "", s->dims[d]);
    dst[at++] = ']';
    dst[at] = '\0';
    return dst;
}

/* ---- values ---- */

size_t value_element_bytes(enum onnx_type type)
{
    if (type == ONNX_STRING)
        return sizeof(struct bytes);
    const unsigned bits = onnx_type_bits(type);
    return bits == 0 ? 0 : bits < 8 ? 1 : bits / 8;
}

static int value_begin(struct memory *m, enum value_kind kind, enum onnx_type type, struct value **ret,
                       struct qd_error *err)
{
    struct value *v = calloc(1, sizeof *v);
    if (!v)
        return err_new(err, QD_E_NO_MEMORY, "a value");
    *v = (struct value){.kind = kind, .type = type, .refs = 1, .memory = m};
    *ret = v;
    return 0;
}

static int value_data(struct value *v, size_t item_bytes, struct qd_error *err)
{
    if (!checked_mul(v->n, item_bytes, &v->bytes))
        return err_new(err, QD_E_LIMIT, "a value has more bytes than can be counted");
    int r = memory_take(v->memory, v->bytes ? v->bytes : 1, &v->data, err);
    if (r == 0 && (v->kind == VALUE_SEQUENCE || v->type == ONNX_STRING))
        memset(v->data, 0, v->bytes);
    return r;
}

int value_new(struct memory *m, enum onnx_type type, const struct shape *shape, struct value **ret,
              struct qd_error *err)
{
    uint64_t n;
    int r = shape_count(shape, &n, err);
    if (r < 0)
        return r;
    if (value_element_bytes(type) == 0)
        return err_new(err, QD_E_UNSUPPORTED, "a tensor of %s", onnx_type_name(type));
    CLEANUP(value_release) struct value *v = NULL;
    r = value_begin(m, VALUE_TENSOR, type, &v, err);
    if (r < 0)
        return r;
    v->shape = *shape;
    v->n = n;
    r = value_data(v, value_element_bytes(type), err);
    if (r < 0)
        return r;
    *ret = steal(&v);
    return 0;
}

int value_sequence(struct memory *m, enum onnx_type type, uint64_t n, struct value **ret, struct qd_error *err)
{
    CLEANUP(value_release) struct value *v = NULL;
    int r = value_begin(m, VALUE_SEQUENCE, type, &v, err);
    if (r < 0)
        return r;
    v->n = n;
    r = value_data(v, sizeof(struct value *), err);
    if (r < 0)
        return r;
    *ret = steal(&v);
    return 0;
}

int value_nothing(struct memory *m, enum onnx_type type, struct value **ret, struct qd_error *err)
{
    return value_begin(m, VALUE_NOTHING, type, ret, err);
}

int value_reshaped(struct value *src, const struct shape *shape, struct value **ret, struct qd_error *err)
{
    uint64_t n;
    char from[SHAPE_TEXT_BYTES], to[SHAPE_TEXT_BYTES];
    int r = shape_count(shape, &n, err);
    if (r < 0)
        return r;
    if (n != src->n)
        return err_new(err, QD_E_INVALID, "a tensor of shape %s cannot become one of %s", shape_text(&src->shape, from),
                       shape_text(shape, to));
    struct value *v = NULL;
    r = value_begin(src->memory, VALUE_TENSOR, src->type, &v, err);
    if (r < 0)
        return r;
    v->owner = value_take(src->owner ? src->owner : src);
    v->shape = *shape;
    v->n = n;
    v->data = src->data;
    *ret = v;
    return 0;
}

struct value *value_take(struct value *v)
{
    if (v)
        v->refs++;
    return v;
}

static void release_data(struct value *v)
{
    if (v->owner) { /* of the elements */
        (void)value_release(v->owner);
        return;
    }
    struct value **items = v->data;
    struct bytes *strings = v->data;
    for (uint64_t i = 0; v->data && v->kind == VALUE_SEQUENCE && i < v->n; i++)
        (void)value_release(items[i]);
    for (uint64_t i = 0; v->data && v->kind == VALUE_TENSOR && v->type == ONNX_STRING && i < v->n; i++)
        free((void *)strings[i].data); /* ours: value_set_string */
    memory_give(v->memory, v->data);
}

struct value *value_release(struct value *v)
{
    if (v && --v->refs == 0) {
        release_data(v);
        free(v);
    }
    return NULL;
}

int value_set_string(struct value *v, uint64_t i, struct bytes text, struct qd_error *err)
{
    struct bytes *strings = v->data;
    uint8_t *copy = malloc(text.n + 1);
    if (!copy)
        return err_new(err, QD_E_NO_MEMORY, "a string of %zu bytes", text.n);
    if (text.n)
        memcpy(copy, text.data, text.n);
    copy[text.n] = '\0';
    free((void *)strings[i].data);
    strings[i] = (struct bytes){copy, text.n};
    return 0;
}
