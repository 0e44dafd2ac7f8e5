#include "artifact/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "artifact/pack.h"
#include "kernels/core/checked.h"
#include "kernels/core/name_set.h"
#include "kernels/layout/packed.h"

enum {
    TABLE_FORMAT = 1,
    TABLE_FORMAT_CODES = 2, /* of tensors: some are codes alone, and each says whether it is */
    TENSOR_FIELDS = 11,
    CODE_FIELDS = 6,
    META_FIELDS = 5
};

/* --- What both tables share --- */

static void begin_table(struct buffer *dst, uint64_t format, const char *list, size_t n)
{
    pack_map(dst, 2);
    pack_text(dst, "format");
    pack_u64(dst, format);
    pack_text(dst, list);
    pack_array(dst, (uint32_t)n);
}

/* A name may stand in a table once. */
static int take_name(struct name_set *names, const char *name, size_t i, const char *what, struct qd_error *err)
{
    size_t earlier;
    int r = name_set_add(names, name, i, &earlier);
    if (r < 0)
        return err_new(err, QD_E_NO_MEMORY, "an index of names");
    return r == 0 ? 0 : err_new(err, QD_E_CORRUPT, "%s '%s' stands there twice", what, name);
}

static int finish_encoding(const struct buffer *dst, size_t start, const char *what, struct qd_error *err)
{
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "the table of %s", what);
    if (dst->n - start > TABLE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "the table of %s has %zu bytes, at most %d", what, dst->n - start,
                       TABLE_BYTES_MAX);
    return 0;
}

/* Reads what begin_table wrote. */
static int open_table(struct cursor *c, uint64_t newest, const char *list, uint64_t *ret_format, uint32_t *ret_n,
                      struct qd_error *err)
{
    if (cursor_left(c) > TABLE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "table of %s: %zu bytes, at most %d", list, cursor_left(c), TABLE_BYTES_MAX);
    if (unpack_map(c) != 2)
        c->failed = true;
    unpack_key(c, "format");
    const uint64_t format = *ret_format = unpack_u64(c);
    if (!c->failed && (format < TABLE_FORMAT || format > newest))
        return err_new(err, QD_E_UNSUPPORTED, "table of %s: format %llu, this version knows %llu", list,
                       (unsigned long long)format, (unsigned long long)newest);
    unpack_key(c, list);
    *ret_n = unpack_array(c);
    return c->failed ? err_new(err, QD_E_CORRUPT, "table of %s: its head is malformed", list) : 0;
}

static int close_table(const struct cursor *c, const char *list, struct qd_error *err)
{
    return cursor_left(c) ? err_new(err, QD_E_CORRUPT, "table of %s: %zu bytes too many", list, cursor_left(c)) : 0;
}

/* A text of at most @max bytes without NUL, copied. NULL fails the cursor, or means that memory is out. */
static const char *take_text(struct cursor *c, struct arena *arena, size_t max)
{
    struct bytes text = unpack_str(c);
    if (text.n > max || (text.n && memchr(text.data, 0, text.n)))
        c->failed = true;
    return c->failed ? NULL : arena_text(arena, text);
}

/* --- Tensors --- */

struct code_shape tensor_codes(const struct tensor_entry *t)
{
    const struct code_entry *c = &t->codes;
    return (struct code_shape){.type = t->type == QD_TYPE_U8 ? QD_TYPE_U4 : t->type,
                               .by_columns = c->by_columns,
                               .n_rows = c->n_rows,
                               .n_cols = c->n_cols,
                               .block = c->block};
}

bool tensor_packs(const struct tensor_entry *t, enum qd_layout layout)
{
    const struct code_shape codes = tensor_codes(t);
    return t->codes.n_cols ? layout_packs_codes(layout, codes.type, codes.n_rows, codes_row(&codes))
                           : t->n_dims > 1 && layout_packs(layout, t->type, t->shape[1]);
}

static uint64_t format_of(const struct tensor_table *table)
{
    size_t i = 0;
    while (i < table->n && !table->tensors[i].codes.n_cols)
        i++;
    return i < table->n ? TABLE_FORMAT_CODES : TABLE_FORMAT;
}

static void encode_codes(const struct code_entry *c, struct buffer *dst)
{
    pack_array(dst, c->n_cols ? CODE_FIELDS : 0);
    if (!c->n_cols)
        return;
    pack_u64(dst, c->by_columns);
    pack_u64(dst, c->n_rows);
    pack_u64(dst, c->n_cols);
    pack_u64(dst, c->block);
    pack_u64(dst, c->scales);
    pack_u64(dst, c->zero_points);
}

static void encode_tensor(const struct tensor_entry *t, uint64_t format, struct buffer *dst)
{
    pack_array(dst, TENSOR_FIELDS + (format == TABLE_FORMAT_CODES));
    pack_text(dst, t->name);
    pack_text(dst, qd_type_info(t->type)->name);
    pack_text(dst, qd_type_info(t->source_type)->name);
    pack_array(dst, t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++)
        pack_u64(dst, t->shape[i]);
    pack_u64(dst, t->file);
    pack_u64(dst, t->offset);
    pack_u64(dst, t->bytes);
    pack_text(dst, t->reason);
    pack_f64(dst, t->sqnr_db);
    pack_f64(dst, t->rel_rmse);
    pack_f64(dst, t->max_abs);
    if (format == TABLE_FORMAT_CODES)
        encode_codes(&t->codes, dst);
}

static bool name_is_fine(const char *name)
{
    size_t n = strnlen(name, TABLE_NAME_MAX + 1);
    return n > 0 && n <= TABLE_NAME_MAX;
}

/* Rules that need no payload sizes; what encode refuses, decode refuses too. */
static int check_tensor(const struct tensor_entry *t, struct qd_error *err)
{
    if (!name_is_fine(t->name))
        return err_new(err, QD_E_CORRUPT, "a tensor has no name, or one over %d bytes", TABLE_NAME_MAX);
    if (!qd_type_info(t->type) || !qd_type_info(t->source_type))
        return err_new(err, QD_E_CORRUPT, "tensor '%s': unknown element type", t->name);
    if (t->n_dims > TABLE_DIMS_MAX)
        return err_new(err, QD_E_CORRUPT, "tensor '%s': %u dimensions, at most %d", t->name, t->n_dims, TABLE_DIMS_MAX);
    if (isnan(t->sqnr_db) || isnan(t->rel_rmse) || isnan(t->max_abs))
        return err_new(err, QD_E_CORRUPT, "tensor '%s': its error figures hold a NaN", t->name);

    const struct qd_type_info *type = qd_type_info(t->type);
    uint64_t row = t->n_dims ? t->shape[0] : 1, bytes;
    if (row % type->block_elements || !checked_mul(row / type->block_elements, type->block_bytes, &bytes))
        return err_new(err, QD_E_CORRUPT, "tensor '%s': rows of %llu are no whole blocks of %s", t->name,
                       (unsigned long long)row, type->name);
    for (uint32_t i = 1; i < t->n_dims; i++)
        if (!checked_mul(bytes, t->shape[i], &bytes))
            return err_new(err, QD_E_CORRUPT, "tensor '%s': its shape overflows", t->name);
    if (bytes != t->bytes)
        return err_new(err, QD_E_CORRUPT, "tensor '%s': %llu bytes, its shape needs %llu", t->name,
                       (unsigned long long)t->bytes, (unsigned long long)bytes);
    return 0;
}

static int bad_codes(const struct tensor_entry *t, const char *what, struct qd_error *err)
{
    return err_new(err, QD_E_CORRUPT, "tensor '%s': as codes alone, %s", t->name, what);
}

/* Tensor @i of @table, whose other tensors are checked: do codes, scales and zero points fit each other? */
static int check_codes(const struct tensor_table *table, size_t i, struct qd_error *err)
{
    const struct tensor_entry *t = &table->tensors[i];
    const struct code_entry *c = &t->codes;
    if (!c->n_cols)
        return 0;
    const bool is_codes = layout_is_codes(t->type) || t->type == QD_TYPE_U8;
    const struct code_shape shape = tensor_codes(t);
    const char *flaw = is_codes ? codes_flaw(&shape) : "codes have another";
    if (flaw)
        return err_new(err, QD_E_CORRUPT, "tensor '%s': as codes alone, its type or shape is none: %s", t->name, flaw);
    if (codes_bytes(&shape) != t->bytes)
        return bad_codes(t, "its bytes do not fit their shape", err);
    if (c->scales >= table->n || table->tensors[c->scales].type != QD_TYPE_F32 ||
        table->tensors[c->scales].bytes != c->n_rows * codes_n_scales(&shape) * sizeof(float))
        return bad_codes(t, "its scales are none", err);
    if (c->zero_points && (c->zero_points > table->n || shape.type != QD_TYPE_U4 ||
                           table->tensors[c->zero_points - 1].bytes != codes_zero_bytes(&shape)))
        return bad_codes(t, "its zero points are none", err);
    return 0;
}

int tensor_table_encode(const struct tensor_table *table, struct buffer *dst, struct qd_error *err)
{
    if (table->n > TABLE_TENSORS_MAX)
        return err_new(err, QD_E_LIMIT, "%zu tensors, at most %d", table->n, TABLE_TENSORS_MAX);
    size_t start = dst->n;
    const uint64_t format = format_of(table);
    begin_table(dst, format, "tensors", table->n);
    for (size_t i = 0; i < table->n; i++) {
        int r = check_tensor(&table->tensors[i], err);
        if (r == 0)
            r = check_codes(table, i, err);
        if (r < 0)
            return err_in(err, r == QD_E_CORRUPT ? QD_E_INVALID : r, "table of tensors");
        encode_tensor(&table->tensors[i], format, dst);
    }
    return finish_encoding(dst, start, "tensors", err);
}

static void decode_type(struct cursor *c, enum qd_type *ret)
{
    struct bytes text = unpack_str(c);
    char name[16] = {0};
    int type = -1;
    if (text.n > 0 && text.n < sizeof name) {
        memcpy(name, text.data, text.n);
        type = qd_type_by_name(name);
    }
    if (type < 0)
        c->failed = true;
    else
        *ret = (enum qd_type)type;
}

static void decode_shape(struct cursor *c, struct tensor_entry *t)
{
    t->n_dims = unpack_array(c);
    if (t->n_dims > TABLE_DIMS_MAX) {
        c->failed = true;
        return;
    }
    for (uint32_t i = 0; i < t->n_dims; i++)
        t->shape[i] = unpack_u64(c);
    for (uint32_t i = t->n_dims; i < TABLE_DIMS_MAX; i++)
        t->shape[i] = 1;
}

static void decode_codes(struct cursor *c, struct code_entry *ret)
{
    const uint32_t n = unpack_array(c);
    *ret = (struct code_entry){.n_cols = 0};
    if (n == 0)
        return;
    const uint64_t by_columns = unpack_u64(c);
    ret->by_columns = by_columns == 1;
    ret->n_rows = unpack_u64(c);
    ret->n_cols = unpack_u64(c);
    ret->block = unpack_u64(c);
    const uint64_t scales = unpack_u64(c), zero_points = unpack_u64(c);
    ret->scales = (uint32_t)scales;
    ret->zero_points = (uint32_t)zero_points;
    if (n != CODE_FIELDS || by_columns > 1 || !ret->n_cols || scales > UINT32_MAX || zero_points > UINT32_MAX)
        c->failed = true;
}

static void decode_tensor(struct cursor *c, uint64_t format, struct arena *arena, struct tensor_entry *t)
{
    if (unpack_array(c) != TENSOR_FIELDS + (format == TABLE_FORMAT_CODES))
        c->failed = true;
    t->name = take_text(c, arena, TABLE_NAME_MAX);
    decode_type(c, &t->type);
    decode_type(c, &t->source_type);
    decode_shape(c, t);
    uint64_t file = unpack_u64(c);
    if (file > UINT32_MAX)
        c->failed = true;
    t->file = (uint32_t)file;
    t->offset = unpack_u64(c);
    t->bytes = unpack_u64(c);
    t->reason = take_text(c, arena, TABLE_NAME_MAX);
    t->sqnr_db = unpack_f64(c);
    t->rel_rmse = unpack_f64(c);
    t->max_abs = unpack_f64(c);
    t->codes = (struct code_entry){.n_cols = 0};
    if (format == TABLE_FORMAT_CODES)
        decode_codes(c, &t->codes);
}

static int check_place(const struct tensor_entry *t, const uint64_t *payload_bytes, size_t n_payload,
                       struct qd_error *err)
{
    if (t->file >= n_payload || !range_inside(t->offset, t->bytes, payload_bytes[t->file]))
        return err_new(err, QD_E_CORRUPT, "tensor '%s' lies outside its file", t->name);
    return 0;
}

int tensor_table_decode(struct bytes raw, const uint64_t *payload_bytes, size_t n_payload, struct arena *arena,
                        struct tensor_table *ret, struct qd_error *err)
{
    struct cursor c = cursor_over(raw);
    uint64_t format;
    uint32_t n;
    int r = open_table(&c, TABLE_FORMAT_CODES, "tensors", &format, &n, err);
    if (r < 0)
        return r;
    if (n > TABLE_TENSORS_MAX || n > cursor_left(&c) / TENSOR_FIELDS)
        return err_new(err, QD_E_LIMIT, "table of tensors: %u tensors in %zu bytes", n, raw.n);
    CLEANUP(name_set_clear) struct name_set names = {0};
    if (name_set_init(&names, n) < 0)
        return err_new(err, QD_E_NO_MEMORY, "an index of %u names", n);
    struct tensor_table table = {.tensors = arena_alloc(arena, n, sizeof *table.tensors), .n = n};
    if (!table.tensors)
        return err_new(err, QD_E_LIMIT, "table of tensors: %u tensors are beyond the memory budget", n);
    for (size_t i = 0; i < n; i++) {
        struct tensor_entry *t = &table.tensors[i];
        decode_tensor(&c, format, arena, t);
        if (c.failed)
            return err_new(err, QD_E_CORRUPT, "table of tensors: tensor %zu is malformed", i);
        if (!t->name || !t->reason)
            return err_new(err, QD_E_LIMIT, "table of tensors: its texts are beyond the memory budget");
        r = check_tensor(t, err);
        if (r == 0)
            r = check_place(t, payload_bytes, n_payload, err);
        if (r == 0)
            r = take_name(&names, t->name, i, "tensor", err);
        if (r < 0)
            return err_in(err, r, "table of tensors");
    }
    r = close_table(&c, "tensors", err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = check_codes(&table, i, err);
    if (r == 0 && format != format_of(&table))
        r = err_new(err, QD_E_CORRUPT, "table of tensors: of codes alone, and none are");
    if (r == 0)
        *ret = table;
    return r;
}

/* --- Metadata --- */

size_t meta_type_bytes(enum meta_type type)
{
    static const uint8_t bytes[META_N_TYPES] = {
        [META_U8] = 1,  [META_I8] = 1,   [META_U16] = 2, [META_I16] = 2, [META_U32] = 4, [META_I32] = 4,
        [META_F32] = 4, [META_BOOL] = 1, [META_U64] = 8, [META_I64] = 8, [META_F64] = 8,
    };
    return (unsigned)type < META_N_TYPES ? bytes[type] : 0;
}

const struct meta_value *meta_find(const struct meta_table *table, const char *key)
{
    for (size_t i = 0; i < table->n; i++)
        if (strcmp(table->entries[i].key, key) == 0)
            return &table->entries[i].value;
    return NULL;
}

/* The type of each item: the value's own, or an array's. META_ARRAY where that is none. */
static enum meta_type item_type(const struct meta_value *v)
{
    enum meta_type type = v->type == META_ARRAY ? v->item : v->type;
    return (unsigned)type < META_N_TYPES ? type : META_ARRAY;
}

static int check_meta(const char *key, const struct meta_value *v, struct qd_error *err)
{
    size_t n = strnlen(key, TABLE_KEY_MAX + 1);
    if (n == 0 || n > TABLE_KEY_MAX)
        return err_new(err, QD_E_CORRUPT, "a key is empty, or over %d bytes", TABLE_KEY_MAX);
    if ((unsigned)v->type >= META_N_TYPES || item_type(v) == META_ARRAY)
        return err_new(err, QD_E_CORRUPT, "key '%s': no known type (arrays of arrays are none)", key);
    if (v->type != META_ARRAY && (v->n_items != 1 || v->item != v->type))
        return err_new(err, QD_E_CORRUPT, "key '%s': a scalar of %llu items", key, (unsigned long long)v->n_items);
    const uint8_t *bools = item_type(v) == META_BOOL ? v->data : NULL;
    for (uint64_t i = 0; bools && i < v->n_items; i++)
        if (bools[i] > 1)
            return err_new(err, QD_E_CORRUPT, "key '%s': a bool is %u", key, bools[i]);
    return 0;
}

static int encode_meta(const struct meta_entry *e, struct buffer *dst, struct qd_error *err)
{
    struct meta_value v = e->value;
    if (v.type != META_ARRAY)
        v.item = v.type; /* writers need not set it */
    int r = check_meta(e->key, &v, err);
    if (r < 0)
        return r;
    uint64_t n_bytes;
    if (v.n_items > UINT32_MAX || !checked_mul(v.n_items, meta_type_bytes(v.item), &n_bytes) ||
        n_bytes > TABLE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "key '%s': %llu items", e->key, (unsigned long long)v.n_items);
    pack_array(dst, META_FIELDS);
    pack_text(dst, e->key);
    pack_u64(dst, v.type);
    pack_u64(dst, v.item);
    pack_u64(dst, v.n_items);
    if (v.item != META_STRING) {
        pack_bin(dst, (struct bytes){v.data, n_bytes});
        return 0;
    }
    const struct bytes *texts = v.data;
    pack_array(dst, (uint32_t)v.n_items);
    for (uint64_t i = 0; i < v.n_items; i++)
        pack_str(dst, texts[i]);
    return 0;
}

int meta_table_encode(const struct meta_table *table, struct buffer *dst, struct qd_error *err)
{
    if (table->n > TABLE_KEYS_MAX)
        return err_new(err, QD_E_LIMIT, "%zu keys, at most %d", table->n, TABLE_KEYS_MAX);
    size_t start = dst->n;
    begin_table(dst, TABLE_FORMAT, "metadata", table->n);
    for (size_t i = 0; i < table->n; i++) {
        int r = encode_meta(&table->entries[i], dst, err);
        if (r < 0)
            return err_in(err, r == QD_E_CORRUPT ? QD_E_INVALID : r, "table of metadata");
    }
    return finish_encoding(dst, start, "metadata", err);
}

static int decode_texts(struct cursor *c, struct arena *arena, const char *key, struct meta_value *v,
                        struct qd_error *err)
{
    if (unpack_array(c) != v->n_items)
        c->failed = true;
    struct bytes *texts = c->failed ? NULL : arena_alloc(arena, v->n_items, sizeof *texts);
    if (!texts)
        return c->failed ? 0
                         : err_new(err, QD_E_LIMIT, "key '%s': %llu strings are beyond the memory budget", key,
                                   (unsigned long long)v->n_items);
    for (uint64_t i = 0; i < v->n_items && !c->failed; i++)
        texts[i] = unpack_str(c);
    v->data = texts;
    return 0;
}

static int decode_meta_value(struct cursor *c, struct arena *arena, const char *key, struct meta_value *v,
                             struct qd_error *err)
{
    uint64_t type = unpack_u64(c), item = unpack_u64(c), n_bytes = 0;
    v->n_items = unpack_u64(c);
    if (c->failed || type >= META_N_TYPES || item >= META_N_TYPES)
        return err_new(err, QD_E_CORRUPT, "key '%s': its type is malformed", key);
    v->type = (enum meta_type)type;
    v->item = (enum meta_type)item;
    if (v->item == META_STRING)
        return decode_texts(c, arena, key, v, err);
    struct bytes data = unpack_bin(c);
    if (!checked_mul(v->n_items, meta_type_bytes(v->item), &n_bytes) || n_bytes != data.n)
        return err_new(err, QD_E_CORRUPT, "key '%s': %zu bytes for %llu items", key, data.n,
                       (unsigned long long)v->n_items);
    v->data = data.data;
    return 0;
}

static int decode_meta(struct cursor *c, struct arena *arena, struct meta_entry *e, struct qd_error *err)
{
    if (unpack_array(c) != META_FIELDS)
        c->failed = true;
    e->key = take_text(c, arena, TABLE_KEY_MAX);
    if (!e->key)
        return c->failed ? err_new(err, QD_E_CORRUPT, "a key is malformed")
                         : err_new(err, QD_E_LIMIT, "its keys are beyond the memory budget");
    int r = decode_meta_value(c, arena, e->key, &e->value, err);
    if (r == 0 && c->failed)
        r = err_new(err, QD_E_CORRUPT, "key '%s': its value is malformed", e->key);
    return r < 0 ? r : check_meta(e->key, &e->value, err);
}

int meta_table_decode(struct bytes raw, struct arena *arena, struct meta_table *ret, struct qd_error *err)
{
    struct cursor c = cursor_over(raw);
    uint64_t format;
    uint32_t n;
    int r = open_table(&c, TABLE_FORMAT, "metadata", &format, &n, err);
    if (r < 0)
        return r;
    if (n > TABLE_KEYS_MAX || n > cursor_left(&c) / META_FIELDS)
        return err_new(err, QD_E_LIMIT, "table of metadata: %u keys in %zu bytes", n, raw.n);
    CLEANUP(name_set_clear) struct name_set names = {0};
    if (name_set_init(&names, n) < 0)
        return err_new(err, QD_E_NO_MEMORY, "an index of %u names", n);
    struct meta_table table = {.entries = arena_alloc(arena, n, sizeof *table.entries), .n = n};
    if (!table.entries)
        return err_new(err, QD_E_LIMIT, "table of metadata: %u keys are beyond the memory budget", n);
    for (size_t i = 0; i < n; i++) {
        struct meta_entry *e = &table.entries[i];
        r = decode_meta(&c, arena, e, err);
        if (r == 0)
            r = take_name(&names, e->key, i, "key", err);
        if (r < 0)
            return err_in(err, r, "table of metadata");
    }
    r = close_table(&c, "metadata", err);
    if (r == 0)
        *ret = table;
    return r;
}
