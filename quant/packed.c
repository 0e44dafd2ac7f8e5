#include "quant/packed.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/meta_build.h"
#include "quant/plan.h"

#define ARCHITECTURE "quantd-packed" /* what runtimes look up first, and do not know */
enum {
    ALIGNMENT_DEFAULT = 32,  /* of a file that says none (gguf.md) */
    ALIGNMENT_MAX = 1 << 20, /* of the portable file: its header is padded to it in memory */
    SHAPE_ITEMS_MAX = 1 + MODEL_DIMS_MAX,
    META_ADDED = 7,
    ARENA_BASE_BYTES = 1 << 12,
};

/* The two keys that the portable file has as well, and those that say what they were and what the bytes are. */
static const char key_architecture[] = "general.architecture", key_alignment[] = "general.alignment";
static const char key_layout[] = "quantd.layout", key_prefix[] = "quantd.packed.";
static const char key_old_architecture[] = "quantd.packed.architecture";
static const char key_old_alignment[] = "quantd.packed.alignment"; /* 0: the portable file says none */
static const char key_types[] = "quantd.packed.types", key_shapes[] = "quantd.packed.shapes";

int layout_parse(const char *name, enum qd_layout *ret, struct qd_error *err)
{
    const char *names[QD_N_LAYOUTS] = {NULL}; /* without portable there is room for the end */
    for (int i = 0, n = 0; i < QD_N_LAYOUTS; i++) {
        if (i == QD_LAYOUT_PORTABLE)
            continue;
        names[n] = qd_layout_info((enum qd_layout)i)->name;
        if (strcmp(names[n++], name) != 0)
            continue;
        *ret = (enum qd_layout)i;
        return 0;
    }
    return err_unknown_name(err, "layout", name, nearest_name(name, names), names);
}

bool packed_is(const struct model *m)
{
    return strcmp(m->architecture, ARCHITECTURE) == 0;
}

/* A scalar string; NULL where @key is none. */
static const struct meta_value *string_of(const struct meta_table *meta, const char *key)
{
    const struct meta_value *v = meta_find(meta, key);
    return v && v->type == META_STRING ? v : NULL;
}

/* Its text, which the reader has ended by a NUL; "" for NULL. */
static const char *text_of(const struct meta_value *v)
{
    return v ? (const char *)((const struct bytes *)v->data)->data : "";
}

int packed_refuse(const struct model *m, struct qd_error *err)
{
    int r = err_new(err, QD_E_UNSUPPORTED, "this is a packed file (layout '%.64s'), not a model to quantize or pack",
                    text_of(string_of(&m->meta, key_layout)));
    return err_hint(err, r,
                    "'quantctl unpack FILE -o OUT' gives the portable file; a model's original is better still");
}

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "keys of a packed file");
}

/* --- making one --- */

static bool is_own_key(const char *key)
{
    return strcmp(key, key_layout) == 0 || strncmp(key, key_prefix, sizeof key_prefix - 1) == 0;
}

/* The portable file's keys in their order, two of them with other values. */
static int put_keys(struct meta_build *b, const struct meta_table *from, struct qd_error *err)
{
    for (size_t i = 0; i < from->n; i++) {
        const struct meta_entry *e = &from->entries[i];
        if (is_own_key(e->key))
            return err_new(err, QD_E_UNSUPPORTED, "the model has the key '%s', which is one of packed files", e->key);
        if (strcmp(e->key, key_architecture) == 0)
            meta_put_text(b, "", key_architecture, ARCHITECTURE);
        else if (strcmp(e->key, key_alignment) == 0)
            meta_put_u32(b, "", key_alignment, PLAN_ALIGNMENT);
        else
            meta_put_entry(b, e);
    }
    return 0;
}

/* The two that were replaced, or put behind the others, as they were. */
static int put_replaced(struct meta_build *b, const struct meta_table *from, struct qd_error *err)
{
    const struct meta_value *architecture = string_of(from, key_architecture);
    const struct meta_value *alignment = meta_find(from, key_alignment);
    uint32_t old = 0;
    if (alignment)
        memcpy(&old, alignment->data, sizeof old); /* a u32, and a power of two: the reader refuses another */
    if (old > ALIGNMENT_MAX)
        return err_new(err, QD_E_LIMIT, "tensors are aligned to %" PRIu32 " bytes, at most %d", old, ALIGNMENT_MAX);
    if (!alignment)
        meta_put_u32(b, "", key_alignment, PLAN_ALIGNMENT);
    if (architecture)
        meta_put_entry(b, &(struct meta_entry){key_old_architecture, *architecture});
    else
        meta_put_text(b, "", key_architecture, ARCHITECTURE);
    if (old != PLAN_ALIGNMENT)
        meta_put_u32(b, "", key_old_alignment, old);
    return 0;
}

/* The type's name and the shape of each tensor: its dimensions, counted and listed. */
static int put_tensors(struct meta_build *b, const struct model *m, struct qd_error *err)
{
    struct bytes *types = arena_alloc(b->arena, m->n_tensors + 1, sizeof *types);
    uint64_t *shapes = arena_alloc(b->arena, m->n_tensors + 1, SHAPE_ITEMS_MAX * sizeof *shapes), n = 0;
    if (!types || !shapes)
        return no_memory(err);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        const char *name = qd_type_info(t->type)->name;
        types[i] = (struct bytes){(const uint8_t *)name, strlen(name)};
        shapes[n++] = t->n_dims;
        for (uint32_t d = 0; d < t->n_dims; d++)
            shapes[n++] = t->shape[d];
    }
    meta_put_array(b, key_types, META_STRING, m->n_tensors, types);
    meta_put_array(b, key_shapes, META_U64, n, shapes);
    return 0;
}

int packed_meta(const struct model *m, enum qd_layout layout, struct arena *arena, struct meta_table *ret,
                struct qd_error *err)
{
    struct meta_build b = {.arena = arena, .room = m->meta.n + META_ADDED};
    b.table.entries = arena_alloc(arena, b.room, sizeof *b.table.entries);
    if (!b.table.entries)
        return no_memory(err);
    int r = put_keys(&b, &m->meta, err);
    if (r == 0)
        r = put_replaced(&b, &m->meta, err);
    if (r == 0)
        r = put_tensors(&b, m, err);
    meta_put_text(&b, "", key_layout, qd_layout_info(layout)->name);
    if (r < 0)
        return r;
    if (b.failed)
        return no_memory(err);
    *ret = b.table;
    return 0;
}

size_t packed_arena_bytes(const struct model *m)
{
    size_t a_tensor = sizeof(struct tensor) + sizeof(struct bytes) + SHAPE_ITEMS_MAX * sizeof(uint64_t);
    return ARENA_BASE_BYTES + (m->n_tensors + 1) * a_tensor + (m->meta.n + META_ADDED) * sizeof(struct meta_entry);
}

/* --- opening one --- */

static int corrupt(const char *key, const char *what, struct qd_error *err)
{
    int r = err_new(err, QD_E_CORRUPT, "this is no sound packed file: '%s' %s", key, what);
    return err_hint(err, r, "the file is damaged, or was not written by quantd");
}

static int open_layout(const struct model *file, enum qd_layout *ret, struct qd_error *err)
{
    const struct meta_value *v = string_of(&file->meta, key_layout);
    const char *name = text_of(v);
    if (!v)
        return corrupt(key_layout, "is missing", err);
    if (layout_parse(name, ret, NULL) == 0)
        return 0;
    int r =
        err_new(err, QD_E_UNSUPPORTED, "the file is packed in layout '%.64s', which this version does not know", name);
    return err_hint(err, r, "unpack it with the version that packed it, or a later one");
}

/* What of the portable file's own keys is said elsewhere. */
struct old_keys {
    const struct meta_value *architecture; /* NULL: it has none */
    uint32_t alignment;                    /* 0: it says none */
};

static int open_old(const struct model *file, struct old_keys *ret, struct qd_error *err)
{
    const struct meta_value *v = meta_find(&file->meta, key_old_alignment);
    ret->architecture = string_of(&file->meta, key_old_architecture);
    ret->alignment = PLAN_ALIGNMENT;
    if (!meta_find(&file->meta, key_alignment))
        return corrupt(key_alignment, "is missing", err);
    if (!ret->architecture && meta_find(&file->meta, key_old_architecture))
        return corrupt(key_old_architecture, "is no text", err);
    if (v && v->type != META_U32)
        return corrupt(key_old_alignment, "is no u32", err);
    if (v)
        memcpy(&ret->alignment, v->data, sizeof ret->alignment);
    if (ret->alignment && (!is_power_of_two(ret->alignment) || ret->alignment > ALIGNMENT_MAX))
        return corrupt(key_old_alignment, "is no power of two that files have", err);
    return 0;
}

/* The portable file's keys: what put_keys and put_replaced did, undone. */
static int open_keys(const struct model *file, const struct old_keys *old, struct arena *arena, struct meta_table *ret,
                     struct qd_error *err)
{
    struct meta_build b = {.arena = arena, .room = file->meta.n + 1};
    b.table.entries = arena_alloc(arena, b.room, sizeof *b.table.entries);
    if (!b.table.entries)
        return no_memory(err);
    for (size_t i = 0; i < file->meta.n; i++) {
        const struct meta_entry *e = &file->meta.entries[i];
        bool architecture = strcmp(e->key, key_architecture) == 0, alignment = strcmp(e->key, key_alignment) == 0;
        if (architecture && old->architecture)
            meta_put_entry(&b, &(struct meta_entry){key_architecture, *old->architecture});
        else if (alignment && old->alignment)
            meta_put_u32(&b, "", key_alignment, old->alignment);
        else if (!architecture && !alignment && !is_own_key(e->key))
            meta_put_entry(&b, e);
    }
    if (b.failed)
        return no_memory(err);
    *ret = b.table;
    return 0;
}

/* An array of @item with @n_min items at least; NULL after an error. */
static const struct meta_value *array_of(const struct model *file, const char *key, enum meta_type item, uint64_t n_min,
                                         struct qd_error *err)
{
    const struct meta_value *v = meta_find(&file->meta, key);
    if (v && v->type == META_ARRAY && v->item == item && v->n_items >= n_min)
        return v;
    (void)corrupt(key, v ? "does not list the file's tensors" : "is missing", err); /* the caller returns the code */
    return NULL;
}

/* A portable tensor from its name in the list of types, and from @shape, of which *n numbers are left. */
static int open_tensor(struct tensor *t, struct bytes type, const uint64_t **shape, uint64_t *n, struct qd_error *err)
{
    char name[16] = "";
    uint64_t n_bytes = t->bytes, n_dims = *n ? **shape : UINT64_MAX;
    if (t->type != QD_TYPE_I8 || t->n_dims != 1)
        return err_new(err, QD_E_CORRUPT, "tensor '%s' of a packed file is no row of bytes", t->name);
    if (type.n < sizeof name)
        memcpy(name, type.data, type.n);
    int found = qd_type_by_name(name);
    if (found < 0)
        return err_new(err, QD_E_CORRUPT, "tensor '%s': the file is packed from a type that is unknown", t->name);
    if (n_dims > MODEL_DIMS_MAX || n_dims >= *n)
        return corrupt(key_shapes, "does not list the file's tensors", err);
    t->type = (enum qd_type)found;
    t->n_dims = (uint32_t)n_dims;
    for (uint32_t d = 0; d < MODEL_DIMS_MAX; d++)
        t->shape[d] = d < n_dims ? (*shape)[1 + d] : 1;
    *shape += 1 + n_dims;
    *n -= 1 + n_dims;
    struct qd_error reason;
    if (tensor_measure(t, &reason) < 0)
        return err_new(err, QD_E_CORRUPT, "tensor '%s' of a packed file %s", t->name, reason.message);
    if (t->bytes != n_bytes)
        return err_new(err, QD_E_CORRUPT, "tensor '%s': its shape takes %" PRIu64 " bytes, it has %" PRIu64, t->name,
                       t->bytes, n_bytes);
    return 0;
}

static int open_tensors(const struct model *file, struct arena *arena, struct tensor **ret, struct qd_error *err)
{
    const struct meta_value *types = array_of(file, key_types, META_STRING, file->n_tensors, err);
    const struct meta_value *shapes = types ? array_of(file, key_shapes, META_U64, file->n_tensors, err) : NULL;
    if (!types || !shapes)
        return QD_E_CORRUPT;
    struct tensor *tensors = arena_alloc(arena, file->n_tensors + 1, sizeof *tensors);
    if (!tensors)
        return no_memory(err);
    const uint64_t *shape = shapes->data;
    uint64_t n = shapes->n_items;
    for (size_t i = 0; i < file->n_tensors; i++) {
        tensors[i] = file->tensors[i];
        int r = open_tensor(&tensors[i], ((const struct bytes *)types->data)[i], &shape, &n, err);
        if (r < 0)
            return r;
    }
    if (n || types->n_items != file->n_tensors)
        return corrupt(n ? key_shapes : key_types, "lists more tensors than there are", err);
    *ret = tensors;
    return 0;
}

int packed_open(const struct model *file, struct arena *arena, struct packed *ret, struct qd_error *err)
{
    struct old_keys old = {0};
    struct packed p = {.model = {.format = file->format, .n_tensors = file->n_tensors}};
    int r = open_layout(file, &p.layout, err);
    if (r == 0)
        r = open_old(file, &old, err);
    if (r == 0)
        r = open_keys(file, &old, arena, &p.model.meta, err);
    if (r == 0)
        r = open_tensors(file, arena, &p.model.tensors, err);
    if (r < 0)
        return r;
    p.model.architecture = text_of(old.architecture);
    p.alignment = old.alignment ? old.alignment : ALIGNMENT_DEFAULT;
    *ret = p;
    return 0;
}
