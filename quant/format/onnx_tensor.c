#include "quant/format/onnx_tensor.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/protobuf.h"
#include "quant/limits.h"

enum { FLOAT_DATA = 4, INT32_DATA = 5, STRING_DATA = 6, INT64_DATA = 7, DOUBLE_DATA = 10, UINT64_DATA = 11 };

/*
 * onnx:onnx/onnx.proto: which field holds the elements of a type that are not raw, and how many of them a value of it.
 */
static const struct type_row {
    const char *name;
    unsigned bits;        /* of an element */
    uint32_t typed_field; /* 0: raw alone */
    unsigned values;      /* of that field for an element; 0: several elements share a value */
} types[] = {
    [ONNX_UNDEFINED] = {"undefined", 0, 0, 0},
    [ONNX_FLOAT] = {"float32", 32, FLOAT_DATA, 1},
    [ONNX_UINT8] = {"uint8", 8, INT32_DATA, 1},
    [ONNX_INT8] = {"int8", 8, INT32_DATA, 1},
    [ONNX_UINT16] = {"uint16", 16, INT32_DATA, 1},
    [ONNX_INT16] = {"int16", 16, INT32_DATA, 1},
    [ONNX_INT32] = {"int32", 32, INT32_DATA, 1},
    [ONNX_INT64] = {"int64", 64, INT64_DATA, 1},
    [ONNX_STRING] = {"string", 0, STRING_DATA, 1},
    [ONNX_BOOL] = {"bool", 8, INT32_DATA, 1},
    [ONNX_FLOAT16] = {"float16", 16, INT32_DATA, 1},
    [ONNX_DOUBLE] = {"float64", 64, DOUBLE_DATA, 1},
    [ONNX_UINT32] = {"uint32", 32, UINT64_DATA, 1},
    [ONNX_UINT64] = {"uint64", 64, UINT64_DATA, 1},
    [ONNX_COMPLEX64] = {"complex64", 64, FLOAT_DATA, 2},
    [ONNX_COMPLEX128] = {"complex128", 128, DOUBLE_DATA, 2},
    [ONNX_BFLOAT16] = {"bfloat16", 16, INT32_DATA, 1},
    [ONNX_FLOAT8E4M3FN] = {"float8e4m3fn", 8, INT32_DATA, 1},
    [ONNX_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", 8, INT32_DATA, 1},
    [ONNX_FLOAT8E5M2] = {"float8e5m2", 8, INT32_DATA, 1},
    [ONNX_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", 8, INT32_DATA, 1},
    [ONNX_UINT4] = {"uint4", 4, INT32_DATA, 0},
    [ONNX_INT4] = {"int4", 4, INT32_DATA, 0},
    [ONNX_FLOAT4E2M1] = {"float4e2m1", 4, INT32_DATA, 0},
    [ONNX_FLOAT8E8M0] = {"float8e8m0", 8, INT32_DATA, 1},
    [ONNX_UINT2] = {"uint2", 2, INT32_DATA, 0},
    [ONNX_INT2] = {"int2", 2, INT32_DATA, 0},
};

static const struct type_row *type_row(enum onnx_type type)
{
    return (unsigned)type < sizeof types / sizeof types[0] ? &types[type] : &types[ONNX_UNDEFINED];
}

unsigned onnx_type_bits(enum onnx_type type)
{
    return type_row(type)->bits;
}

const char *onnx_type_name(enum onnx_type type)
{
    return type_row(type)->name;
}

/* Elements of a byte-wise packed type share bytes; the count was checked when the tensor was read. */
uint64_t onnx_tensor_bytes(const struct onnx_tensor *t)
{
    const unsigned bits = onnx_type_bits(t->type);
    return bits >= 8 ? t->n_elements * (bits / 8) : (t->n_elements * bits + 7) / 8;
}

/* ---- settling ---- */

static int tensor_fail(struct stream *st, const struct onnx_tensor *t, int code, uint64_t at, const char *reason)
{
    return stream_fail(st, code, at, "'%.200s' %s", t->name, reason);
}

static int count_elements(struct stream *st, struct onnx_tensor *t, uint64_t start)
{
    uint64_t n = 1;
    bool empty = false;
    for (size_t d = 0; d < t->n_dims; d++) {
        if (t->dims[d] < 0)
            return stream_fail(st, QD_E_CORRUPT, start, "'%.200s' has a dimension of %" PRId64, t->name, t->dims[d]);
        empty = empty || t->dims[d] == 0;
    }
    for (size_t d = 0; d < t->n_dims && !empty; d++)
        if (!checked_mul(n, (uint64_t)t->dims[d], &n) || n > INT64_MAX / 16)
            return tensor_fail(st, t, QD_E_CORRUPT, start, "has more elements than can be counted");
    t->n_elements = empty ? 0 : n;
    return 0;
}

/* Values that the typed field has to hold. */
static uint64_t typed_values(const struct onnx_tensor *t)
{
    const struct type_row *row = type_row(t->type);
    return row->values ? t->n_elements * row->values : onnx_tensor_bytes(t);
}

/* 4- and 2-bit elements of int32_data: a byte's worth a value (onnx:onnx/onnx.proto, int32_data). */
static int settle_typed(struct stream *st, struct onnx_tensor *t, uint64_t start)
{
    const struct type_row *row = type_row(t->type);
    t->storage = ONNX_TYPED;
    if (t->typed_field && t->typed_field != row->typed_field)
        return stream_fail(st, QD_E_CORRUPT, start, "'%.200s' of %s has its elements in field %u", t->name, row->name,
                           t->typed_field);
    if (t->n_typed != typed_values(t))
        return stream_fail(st, QD_E_CORRUPT, start,
                           "'%.200s' has %" PRIu64 " values, its shape and type (%s) make %" PRIu64, t->name,
                           t->n_typed, row->name, typed_values(t));
    return 0;
}

static int settle_raw(struct stream *st, struct onnx_tensor *t)
{
    t->storage = ONNX_RAW;
    if (t->type == ONNX_STRING)
        return tensor_fail(st, t, QD_E_CORRUPT, t->offset, "is of strings and has raw data");
    if (t->typed_field)
        return tensor_fail(st, t, QD_E_CORRUPT, t->offset, "has raw data and typed data");
    if (t->bytes != onnx_tensor_bytes(t))
        return stream_fail(st, QD_E_CORRUPT, t->offset,
                           "'%.200s' has %" PRIu64 " bytes of data, its shape and type (%s) make %" PRIu64, t->name,
                           t->bytes, onnx_type_name(t->type), onnx_tensor_bytes(t));
    return 0;
}

/* ---- external data ---- */

struct external {
    const char *location, *offset, *length;
};

static int take_entry(struct stream *st, const struct onnx_tensor *t, const struct onnx_prop *e, struct external *x,
                      uint64_t start)
{
    const char **slot = strcmp(e->key, "location") == 0 ? &x->location
                        : strcmp(e->key, "offset") == 0 ? &x->offset
                        : strcmp(e->key, "length") == 0 ? &x->length
                                                        : NULL;
    if (slot && *slot)
        return stream_fail(st, QD_E_CORRUPT, start, "'%.200s' says twice where its data are: two entries '%s'", t->name,
                           e->key);
    if (slot)
        *slot = e->value; /* others ("checksum", "basepath") say nothing that is needed */
    return 0;
}

/* Does every component name something beneath where the path starts? Of forms that mean the same file only one does. */
static bool stays_beneath(const char *path)
{
    bool stays = true;
    for (const char *p = path; stays; p++) {
        const size_t n = strcspn(p, "/");
        stays = n > 0 && !(n == 1 && p[0] == '.') && !(n == 2 && p[0] == '.' && p[1] == '.');
        p += n;
        if (*p == '\0')
            break;
    }
    return stays;
}

/* A name in the model's folder, or in one beneath it; what else a location could be reaches for other files. */
static int check_location(struct stream *st, const struct onnx_tensor *t, const char *location, uint64_t start)
{
    const char *reason = NULL;
    if (!location || !location[0])
        reason = "says no location";
    else if (strchr(location, '\\') || !stays_beneath(location))
        reason = "is no path beneath the model's folder";
    else if (strlen(location) > LIMIT_FILE_NAME_BYTES)
        reason = "is longer than a file's name can be";
    if (!reason)
        return 0;
    return stream_fail(st, QD_E_DENIED, start, "'%.200s': external data '%.80s' %s", t->name, location ? location : "",
                       reason);
}

/* Decimal digits alone; false where there is anything else or more than fits. */
static bool parse_number(const char *text, uint64_t *ret)
{
    uint64_t v = 0;
    for (const char *p = text; *p; p++)
        if (*p < '0' || *p > '9' || !checked_mul(v, 10, &v) || !checked_add(v, (uint64_t)(*p - '0'), &v))
            return false;
    *ret = v;
    return text[0] != '\0';
}

static int place_external(struct stream *st, struct onnx_tensor *t, const struct external *x, uint64_t start)
{
    const int file = source_find(st->source, x->location);
    uint64_t offset = 0, bytes = 0;
    if (file <= 0)
        return stream_fail(st, QD_E_NOT_FOUND, start, "'%.200s': external data '%.255s' is missing beside the model",
                           t->name, x->location);
    const uint64_t file_bytes = source_bytes(st->source, (size_t)file);
    if ((x->offset && !parse_number(x->offset, &offset)) || (x->length && !parse_number(x->length, &bytes)))
        return stream_fail(st, QD_E_CORRUPT, start,
                           "'%.200s': offset '%.30s' or length '%.30s' of external data is no number", t->name,
                           x->offset ? x->offset : "", x->length ? x->length : "");
    if (!x->length)
        bytes = onnx_tensor_bytes(t);
    if (!range_inside(offset, bytes, file_bytes))
        return stream_fail(st, QD_E_CORRUPT, start,
                           "'%.200s': external data of %" PRIu64 " bytes at %" PRIu64
                           " of '%.255s', which has %" PRIu64,
                           t->name, bytes, offset, x->location, file_bytes);
    t->file = (uint32_t)file;
    t->offset = offset;
    t->bytes = bytes;
    return settle_raw(st, t);
}

static bool is_noted(const struct probe *p, const char *name)
{
    for (size_t i = 0; i < p->n_files; i++)
        if (strcmp(p->files[i].name, name) == 0)
            return true;
    return false;
}

static int note_companion(struct stream *st, struct probe *p, const char *name)
{
    if (is_noted(p, name))
        return 0;
    if (!p->files)
        p->files = arena_alloc(p->arena, LIMIT_SOURCE_FILES, sizeof *p->files);
    if (!p->files)
        return stream_fail_budget(st);
    if (p->n_files + 1 >= LIMIT_SOURCE_FILES)
        return stream_fail(st, QD_E_LIMIT, st->at, "external data are in more than %d files", LIMIT_SOURCE_FILES - 1);
    p->files[p->n_files++] = (struct probe_file){.role = "weights", .name = name, .required = 1};
    return 0;
}

static int settle_external(struct stream *st, struct probe *probe, struct onnx_tensor *t, uint64_t start)
{
    struct external x = {0};
    t->external = true;
    for (size_t i = 0; i < t->n_entries && !st->result; i++)
        (void)take_entry(st, t, &t->entries[i], &x, start); /* a failure sticks */
    if (!st->result && (t->has_raw || t->typed_field))
        return tensor_fail(st, t, QD_E_CORRUPT, start, "has data of its own and external data");
    if (!st->result && t->type == ONNX_STRING)
        return tensor_fail(st, t, QD_E_CORRUPT, start, "is of strings and has external data");
    if (!st->result)
        (void)check_location(st, t, x.location, start);
    if (st->result)
        return st->result;
    return probe ? note_companion(st, probe, x.location) : place_external(st, t, &x, start);
}

int onnx_tensor_settle(struct stream *st, struct probe *probe, struct onnx_tensor *t, uint64_t start)
{
    if (t->type <= ONNX_UNDEFINED || (unsigned)t->type >= sizeof types / sizeof types[0])
        return stream_fail(st, QD_E_UNSUPPORTED, start, "'%.200s' is of data type %d, which is unknown", t->name,
                           t->type);
    if (t->location != 0 && t->location != 1)
        return stream_fail(st, QD_E_CORRUPT, start, "'%.200s' is at location %d, which does not exist", t->name,
                           t->location);
    int r = count_elements(st, t, start);
    if (r < 0)
        return r;
    if (t->location == 1)
        return settle_external(st, probe, t, start);
    return t->has_raw && t->type != ONNX_STRING ? settle_raw(st, t) : settle_typed(st, t, start);
}

/* ---- loading ---- */

static int load_raw(struct source *s, const struct onnx_tensor *t, void *dst, struct qd_error *err)
{
    for (uint64_t done = 0; done < t->bytes;) {
        const uint64_t left = t->bytes - done;
        const size_t n = left < SOURCE_GRANULE_BYTES ? (size_t)left : SOURCE_GRANULE_BYTES;
        int r = source_read_meta(s, t->file, t->offset + done, (uint8_t *)dst + done, n, err);
        if (r < 0)
            return err_in(err, r, "tensor '%.200s'", t->name);
        done += n;
    }
    return 0;
}

/* Value @i of the typed field, narrowed to the bytes of an element. */
static void put_typed(const struct onnx_tensor *t, uint8_t *dst, uint64_t i, uint64_t bits)
{
    const struct type_row *row = type_row(t->type);
    const size_t width = row->values ? row->bits / 8 / row->values : 1;
    memcpy(dst + i * width, &bits, width);
}

static uint64_t typed_value(struct stream *st, uint32_t field)
{
    return field == FLOAT_DATA ? stream_u32(st) : field == DOUBLE_DATA ? stream_u64(st) : pb_varint(st);
}

/* Whoever changes the file between two reads is noticed here, by the count, and at the end, by the witness. */
static int load_typed(struct source *s, const struct onnx_tensor *t, uint8_t *dst, struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, 0, t->range.offset, t->range.offset + t->range.bytes, err);
    if (!st)
        return QD_E_NO_MEMORY;
    struct pb_field f;
    uint64_t n = 0;
    while (pb_next(st, &f)) {
        if (f.number != t->typed_field) {
            (void)pb_skip(st, &f); /* a failure sticks */
            continue;
        }
        if (f.wire != PB_BYTES && n < t->n_typed)
            put_typed(t, dst, n++, f.value);
        const uint64_t after = st->end;
        st->end = f.wire == PB_BYTES ? f.at + f.bytes : st->at;
        while (!st->result && st->at < st->end && n < t->n_typed)
            put_typed(t, dst, n++, typed_value(st, t->typed_field));
        st->end = after;
    }
    if (st->result)
        return st->result;
    return n == t->n_typed ? 0
                           : err_new(err, QD_E_SOURCE_CHANGED, "'%s' changed while tensor '%.200s' was read",
                                     source_name(s, 0), t->name);
}

int onnx_tensor_load(struct source *s, const struct onnx_tensor *t, void *dst, struct qd_error *err)
{
    if (t->storage == ONNX_SPARSE || t->type == ONNX_STRING)
        return err_new(err, QD_E_UNSUPPORTED, "tensor '%.200s' is %s", t->name,
                       t->type == ONNX_STRING ? "of strings" : "sparse");
    if (t->memory) {
        memcpy(dst, t->memory, t->bytes);
        return 0;
    }
    return t->storage == ONNX_RAW ? load_raw(s, t, dst, err) : load_typed(s, t, dst, err);
}

int onnx_tensor_strings(struct source *s, const struct onnx_tensor *t, struct arena *arena, const struct bytes **ret,
                        struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, 0, t->range.offset, t->range.offset + t->range.bytes, err);
    struct bytes *list = arena_alloc(arena, t->n_typed + 1, sizeof *list);
    if (!st)
        return QD_E_NO_MEMORY;
    if (!list)
        return stream_fail_budget(st);
    struct pb_field f;
    for (uint64_t n = 0; pb_next(st, &f);) {
        if (f.number != STRING_DATA || n == t->n_typed) {
            (void)pb_skip(st, &f); /* a failure sticks */
            continue;
        }
        list[n].data = (const uint8_t *)stream_text(st, arena, f.bytes);
        list[n++].n = (size_t)f.bytes;
    }
    *ret = list;
    return st->result;
}
