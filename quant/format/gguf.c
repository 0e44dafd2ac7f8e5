/*
 * The GGUF reader, v2 and v3, as strict as ggml's own (ggml:src/gguf.cpp) and stricter where that
 * one lets a count wrap. docs/formats/gguf.md is the format and lists the refusals.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "kernels/core/name_set.h"
#include "quant/format/format.h"
#include "quant/format/gguf.h"
#include "quant/format/stream.h"
#include "quant/limits.h"

enum {
    GGUF_MAGIC = 0x46554747, /* "GGUF" */
    GGUF_DEFAULT_ALIGNMENT = 32,
    KV_BYTES_MIN = 8 + 1 + 4 + 1,   /* key, type, the smallest value */
    INFO_BYTES_MIN = 8 + 4 + 4 + 8, /* name, n_dims, type, offset */
    SPLIT_NAME_TAIL = sizeof "-00001-of-00002.gguf" - 1
};

/* The header of one file: a model is one, or as many as split.count says. */
struct gguf_part {
    uint64_t n_tensors;
    uint64_t n_kv;
    uint64_t alignment;
    struct meta_table meta;
    uint16_t split_no;
    uint16_t split_count; /* 0: not split */
    struct tensor *tensors;
};

static enum recognised gguf_recognise(struct bytes head, const char *file_name, uint64_t file_bytes)
{
    (void)file_bytes; /* a short one is recognised too: its error says how short */
    struct cursor c = cursor_over(head);
    if (cursor_u32(&c) == GGUF_MAGIC)
        return RECOGNISED_BY_CONTENT;
    size_t n = strlen(file_name);
    return n > 5 && strcmp(file_name + n - 5, ".gguf") == 0 ? RECOGNISED_BY_NAME : RECOGNISED_NOT;
}

static int check_version(struct stream *st, uint32_t version)
{
    if (version == 2 || version == 3)
        return 0;
    if (version == 1) {
        int r = stream_fail(st, QD_E_UNSUPPORTED, 4, "GGUF version 1 (32-bit counts, 2023) is read by no current tool");
        return err_hint(st->err, r, "convert the model again from its original weights");
    }
    uint32_t swapped = __builtin_bswap32(version);
    if (swapped >= 1 && swapped <= 3) {
        int r = stream_fail(st, QD_E_UNSUPPORTED, 4, "written for a big-endian machine (version %u, bytes swapped)",
                            swapped);
        return err_hint(st->err, r, "convert it with gguf-py's gguf_convert_endian.py");
    }
    if (version == 0 || (version & 0xffff) == 0)
        return stream_fail(st, QD_E_CORRUPT, 4, "version %" PRIu32 " does not exist", version);
    return stream_fail(st, QD_E_UNSUPPORTED, 4, "GGUF version %" PRIu32 "; versions 2 and 3 are known", version);
}

/* A count that a header claims is believed only as far as the file could hold it. */
static int check_count(struct stream *st, uint64_t claimed, uint64_t bytes_each, uint64_t limit, const char *of)
{
    uint64_t room = stream_left(st) / bytes_each;
    if (claimed > room)
        return stream_fail(st, QD_E_CORRUPT, st->at, "%" PRIu64 " %s are claimed, the file has room for %" PRIu64,
                           claimed, of, room);
    if (claimed > limit)
        return stream_fail(st, QD_E_LIMIT, st->at, "%" PRIu64 " %s; the limit is %" PRIu64, claimed, of, limit);
    return 0;
}

static int read_prelude(struct stream *st, struct gguf_part *part)
{
    stream_doing(st, "header of part", st->file);
    uint32_t magic = stream_u32(st);
    if (!st->result && magic != GGUF_MAGIC)
        return stream_fail(st, QD_E_CORRUPT, 0, "starts with %08" PRIx32 ", not with \"GGUF\"",
                           __builtin_bswap32(magic));
    uint32_t version = stream_u32(st);
    if (st->result || check_version(st, version) < 0)
        return st->result;
    part->n_tensors = stream_u64(st);
    part->n_kv = stream_u64(st);
    if (st->result || check_count(st, part->n_tensors, INFO_BYTES_MIN, LIMIT_TENSORS, "tensors") < 0)
        return st->result;
    return check_count(st, part->n_kv, KV_BYTES_MIN, LIMIT_META_KEYS, "metadata keys");
}

/* A length and its text, NUL-terminated; NULL after a failure. NUL inside would cut the name for C readers. */
static const char *read_name(struct stream *st, struct arena *arena, uint64_t limit, const char *of)
{
    uint64_t start = st->at;
    uint64_t n = stream_u64(st);
    if (!st->result && n > stream_left(st))
        (void)stream_fail(st, QD_E_CORRUPT, start, "the %s has %" PRIu64 " bytes, the file %" PRIu64 " more", of, n,
                          stream_left(st));
    else if (!st->result && n > limit)
        (void)stream_fail(st, QD_E_LIMIT, start, "the %s has %" PRIu64 " bytes; %" PRIu64 " are allowed", of, n, limit);
    else if (!st->result && n == 0)
        (void)stream_fail(st, QD_E_CORRUPT, start, "the %s is empty", of);
    char *text = st->result ? NULL : stream_text(st, arena, n);
    if (text && strlen(text) != n) {
        (void)stream_fail(st, QD_E_CORRUPT, start, "the %s holds a NUL byte", of);
        return NULL;
    }
    return text; /* NULL: st->result says why */
}

static int read_strings(struct stream *st, struct arena *arena, uint64_t n, struct meta_value *value)
{
    struct bytes *texts = arena_alloc(arena, n, sizeof *texts);
    if (!texts)
        return stream_fail_budget(st);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = st->at;
        uint64_t n_bytes = stream_u64(st);
        if (st->result)
            return st->result;
        if (n_bytes > stream_left(st))
            return stream_fail(st, QD_E_CORRUPT, start,
                               "string %" PRIu64 " has %" PRIu64 " bytes, the file %" PRIu64 " more", i, n_bytes,
                               stream_left(st));
        if (n_bytes > LIMIT_STRING_BYTES)
            return stream_fail(st, QD_E_LIMIT, start, "string %" PRIu64 " has %" PRIu64 " bytes", i, n_bytes);
        texts[i].data = (const uint8_t *)stream_text(st, arena, n_bytes);
        texts[i].n = (size_t)n_bytes;
    }
    value->data = texts;
    return st->result;
}

/* ggml reads any byte but 0 as true; one form leaves here. */
static void make_bools_canonical(uint8_t *bools, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        bools[i] = bools[i] != 0;
}

static int read_numbers(struct stream *st, struct arena *arena, enum meta_type type, uint64_t n,
                        struct meta_value *value)
{
    size_t each = meta_type_bytes(type);
    uint8_t *numbers = arena_alloc(arena, n, each);
    if (!numbers)
        return stream_fail_budget(st);
    if (!stream_read(st, numbers, n * each)) /* n is bounded by the file: check_count */
        return st->result;
    if (type == META_BOOL)
        make_bools_canonical(numbers, n);
    value->data = numbers;
    return 0;
}

static int check_type(struct stream *st, uint32_t type)
{
    if (type < META_N_TYPES)
        return 0;
    return stream_fail(st, QD_E_CORRUPT, st->at - 4, "value type %" PRIu32 " does not exist", type);
}

static int read_array(struct stream *st, struct arena *arena, struct meta_value *value)
{
    uint32_t item = stream_u32(st);
    if (st->result || check_type(st, item) < 0)
        return st->result;
    if (item == META_ARRAY)
        return stream_fail(st, QD_E_UNSUPPORTED, st->at - 4, "an array of arrays; no reader accepts one");
    uint64_t n = stream_u64(st);
    size_t each = item == META_STRING ? 8 : meta_type_bytes((enum meta_type)item);
    if (st->result || check_count(st, n, each, LIMIT_ARRAY_ITEMS, "array items") < 0)
        return st->result;
    value->item = (enum meta_type)item;
    value->n_items = n;
    return item == META_STRING ? read_strings(st, arena, n, value) : read_numbers(st, arena, value->item, n, value);
}

static int read_value(struct stream *st, struct arena *arena, struct meta_value *value)
{
    uint32_t type = stream_u32(st);
    if (st->result || check_type(st, type) < 0)
        return st->result;
    *value = (struct meta_value){.type = (enum meta_type)type, .item = (enum meta_type)type, .n_items = 1};
    if (type == META_ARRAY)
        return read_array(st, arena, value);
    return type == META_STRING ? read_strings(st, arena, 1, value) : read_numbers(st, arena, value->type, 1, value);
}

static int read_entries(struct stream *st, struct arena *arena, struct gguf_part *part, struct name_set *keys)
{
    for (uint64_t i = 0; i < part->n_kv; i++) {
        stream_doing(st, "metadata key", i);
        uint64_t start = st->at;
        struct meta_entry *e = &part->meta.entries[i];
        e->key = read_name(st, arena, LIMIT_KEY_BYTES, "key");
        if (!e->key)
            return st->result;
        size_t earlier;
        int r = name_set_add(keys, e->key, i, &earlier);
        if (r > 0)
            return stream_fail(st, QD_E_CORRUPT, start, "'%s' stands twice: key %zu already", e->key, earlier);
        if (r < 0)
            return stream_fail_budget(st);
        if (read_value(st, arena, &e->value) < 0)
            return err_in(st->err, st->result, "metadata '%.80s'", e->key);
    }
    part->meta.n = (size_t)part->n_kv;
    return 0;
}

/*
 * The value of @key when it has @type; NULL where it is absent. Another type is an error: others would read something
 * else.
 */
static int typed(struct stream *st, const struct gguf_part *part, const char *key, enum meta_type type,
                 const void **ret)
{
    const struct meta_value *v = meta_find(&part->meta, key);
    *ret = NULL;
    if (!v)
        return 0;
    if (v->type != type)
        return stream_fail(st, QD_E_CORRUPT, st->at, "'%s' has value type %d, it must have %d", key, (int)v->type,
                           (int)type);
    *ret = v->data;
    return 0;
}

static int read_facts(struct stream *st, struct gguf_part *part)
{
    const void *alignment, *no, *count;
    if (typed(st, part, "general.alignment", META_U32, &alignment) < 0 ||
        typed(st, part, "split.no", META_U16, &no) < 0 || typed(st, part, "split.count", META_U16, &count) < 0)
        return st->result;
    uint32_t given = GGUF_DEFAULT_ALIGNMENT;
    if (alignment)
        memcpy(&given, alignment, sizeof given);
    if (!is_power_of_two(given))
        return stream_fail(st, QD_E_CORRUPT, st->at, "general.alignment is %" PRIu32 ", no power of two", given);
    part->alignment = given;
    if (no)
        memcpy(&part->split_no, no, sizeof part->split_no);
    if (count)
        memcpy(&part->split_count, count, sizeof part->split_count);
    return 0;
}

static int read_meta(struct stream *st, struct arena *arena, struct gguf_part *part)
{
    if (read_prelude(st, part) < 0)
        return st->result;
    part->meta.entries = arena_alloc(arena, part->n_kv, sizeof *part->meta.entries);
    if (!part->meta.entries)
        return stream_fail_budget(st);
    CLEANUP(name_set_clear) struct name_set keys = {0};
    if (name_set_init(&keys, 0) < 0)
        return stream_fail_budget(st);
    int r = read_entries(st, arena, part, &keys);
    if (r < 0)
        return r;
    return read_facts(st, part);
}

static const char *removed_type_name(uint32_t id)
{
    static const struct {
        uint32_t id;
        const char *name;
    } removed[] = {
        {4, "q4_2"},      {5, "q4_3"},        {31, "q4_0_4_4"},   {32, "q4_0_4_8"},
        {33, "q4_0_8_8"}, {36, "iq4_nl_4_4"}, {37, "iq4_nl_4_8"}, {38, "iq4_nl_8_8"},
    };
    for (size_t i = 0; i < sizeof removed / sizeof removed[0]; i++)
        if (removed[i].id == id)
            return removed[i].name;
    return NULL;
}

static int read_type(struct stream *st, struct tensor *t)
{
    uint32_t id = stream_u32(st);
    if (st->result)
        return st->result;
    int type = id > INT32_MAX ? -1 : qd_type_by_ggml_id((int32_t)id);
    if (type >= 0) {
        t->type = (enum qd_type)type;
        return 0;
    }
    const char *removed = removed_type_name(id);
    if (!removed)
        return stream_fail(st, QD_E_UNSUPPORTED, st->at - 4, "'%s' has element type %" PRIu32 ", which is unknown",
                           t->name, id);
    int r = stream_fail(st, QD_E_UNSUPPORTED, st->at - 4,
                        "'%s' has element type %s (%" PRIu32 "), which GGUF has given up", t->name, removed, id);
    return err_hint(st->err, r, "fetch the model in a current type, or convert it from its original weights");
}

static int read_shape(struct stream *st, struct tensor *t)
{
    t->n_dims = stream_u32(st);
    if (!st->result && t->n_dims > MODEL_DIMS_MAX)
        return stream_fail(st, QD_E_CORRUPT, st->at - 4, "'%s' has %" PRIu32 " dimensions; %d are allowed", t->name,
                           t->n_dims, MODEL_DIMS_MAX);
    for (uint32_t d = 0; d < MODEL_DIMS_MAX; d++) {
        t->shape[d] = d < t->n_dims ? stream_u64(st) : 1;
        if (t->shape[d] > INT64_MAX)
            return stream_fail(st, QD_E_CORRUPT, st->at - 8, "'%s' has %" PRId64 " elements in dimension %" PRIu32,
                               t->name, (int64_t)t->shape[d], d);
    }
    return st->result;
}

static int read_info(struct stream *st, struct arena *arena, struct tensor *t)
{
    uint64_t start = st->at;
    t->name = t->source_name = read_name(st, arena, LIMIT_GGUF_NAME_BYTES, "name");
    if (!t->name || read_shape(st, t) < 0 || read_type(st, t) < 0)
        return st->result;
    t->offset = stream_u64(st); /* in the data section, until placed */
    t->file = (uint32_t)st->file;
    t->row_order = ROWS_AS_STORED;
    if (st->result)
        return st->result;
    struct qd_error reason;
    int r = tensor_measure(t, &reason);
    return r < 0 ? stream_fail(st, r, start, "'%s' %s", t->name, reason.message) : 0;
}

/* ggml's rule: each offset is the sum of the padded sizes before it; no gaps, no order of one's own. */
static int place_tensors(struct stream *st, struct gguf_part *part)
{
    uint64_t data_start, expected = 0;
    if (!checked_align(st->at, part->alignment, &data_start))
        return stream_fail(st, QD_E_CORRUPT, st->at, "the data section starts beyond any file");
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        struct tensor *t = &part->tensors[i];
        stream_doing(st, "tensor", i);
        if (t->offset != expected)
            return stream_fail(st, QD_E_CORRUPT, st->at, "'%s' has offset %" PRIu64 ", it must have %" PRIu64, t->name,
                               t->offset, expected);
        if (!checked_add(expected, t->bytes, &expected) || !checked_align(expected, part->alignment, &expected) ||
            !checked_add(data_start, t->offset, &t->offset))
            return stream_fail(st, QD_E_CORRUPT, st->at, "'%s' ends beyond any file", t->name);
    }
    return 0;
}

static int read_tensors(struct stream *st, struct arena *arena, struct gguf_part *part)
{
    part->tensors = arena_alloc(arena, part->n_tensors, sizeof *part->tensors);
    if (!part->tensors)
        return stream_fail_budget(st);
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        stream_doing(st, "tensor", i);
        int r = read_info(st, arena, &part->tensors[i]);
        if (r < 0)
            return r;
    }
    return place_tensors(st, part);
}

static int read_part(struct source *s, size_t file, struct arena *arena, struct gguf_part *part, struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, file, 0, source_bytes(s, file), err);
    if (!st)
        return QD_E_NO_MEMORY;
    int r = read_meta(st, arena, part);
    return r < 0 ? r : read_tensors(st, arena, part);
}

int gguf_read_header(struct source *s, size_t file, struct model *m, struct qd_error *err)
{
    struct gguf_part part = {0};
    int r = read_part(s, file, m->arena, &part, err);
    if (r < 0)
        return r;
    m->format = format_gguf.name;
    m->architecture = "";
    m->tensors = part.tensors;
    m->n_tensors = (size_t)part.n_tensors;
    m->meta = part.meta;
    return 0;
}

/*
 * The name of part @no (from 0) of @count, after the pattern PREFIX-00001-of-00002.gguf that @any follows; NULL when it
 * does not, or when memory is out.
 */
static const char *part_name(struct arena *arena, const char *any, unsigned no, unsigned count)
{
    size_t n = strlen(any);
    char tail[SPLIT_NAME_TAIL + 16];
    (void)snprintf(tail, sizeof tail, "-of-%05u.gguf", count); /* fits: both are u16 */
    size_t n_tail = strlen(tail);
    if (n <= n_tail + 6 || strcmp(any + n - n_tail, tail) != 0 || any[n - n_tail - 6] != '-')
        return NULL;
    size_t n_prefix = n - n_tail - 6;
    char *name = arena_alloc(arena, n + 1, 1);
    if (name)
        (void)snprintf(name, n + 1, "%.*s-%05u%s", (int)n_prefix, any, no + 1, tail); /* as long as @any */
    return name;
}

/* The first file must be part 1 of its split; what it says decides which files belong to it. */
static int check_first(const struct gguf_part *part, const char *name, struct arena *arena, struct qd_error *err)
{
    if (part->split_count <= 1)
        return 0;
    if (part->split_count > LIMIT_SOURCE_FILES)
        return err_new(err, QD_E_LIMIT, "'%s': split into %u files; the limit is %d", name, part->split_count,
                       LIMIT_SOURCE_FILES);
    const char *first = part_name(arena, name, 0, part->split_count);
    if (part->split_no != 0) {
        int r = err_new(err, QD_E_INVALID, "'%s' is part %u of a model split into %u files", name, part->split_no + 1u,
                        part->split_count);
        return err_hint(err, r, "give the first part%s%s", first ? ": " : "", first ? first : "");
    }
    if (!first || strcmp(first, name) != 0) {
        int r = err_new(err, QD_E_INVALID,
                        "'%s' is part 1 of %u, but its name does not say so; the other parts cannot be found", name,
                        part->split_count);
        return err_hint(err, r, "restore the names PREFIX-00001-of-%05u.gguf and so on", part->split_count);
    }
    return 0;
}

static int gguf_probe(struct source *s, struct probe *p, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *scratch = arena_new(LIMIT_HEADER_BUDGET_BYTES);
    if (!scratch)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    CLEANUP(free) struct stream *st = stream_new(s, 0, 0, source_bytes(s, 0), err);
    if (!st)
        return QD_E_NO_MEMORY;
    struct gguf_part part = {0};
    int r = read_meta(st, scratch, &part);
    if (r == 0)
        r = check_first(&part, source_name(s, 0), scratch, err);
    if (r < 0)
        return r;
    p->role = "weights";
    if (part.split_count <= 1)
        return 0;
    p->files = arena_alloc(p->arena, part.split_count - 1u, sizeof *p->files);
    for (unsigned i = 1; i < part.split_count; i++) {
        const char *name = p->files ? part_name(p->arena, source_name(s, 0), i, part.split_count) : NULL;
        if (!name)
            return err_new(err, QD_E_NO_MEMORY, "names of the parts of '%s'", source_name(s, 0));
        p->files[p->n_files++] = (struct probe_file){.role = "weights", .name = name, .required = 1};
    }
    return 0;
}

/* Part @no of the split that @first starts. */
static int read_later_part(struct source *s, struct arena *arena, const struct gguf_part *first, unsigned no,
                           struct gguf_part *ret, struct qd_error *err)
{
    const char *name = part_name(arena, source_name(s, 0), no, first->split_count);
    if (!name)
        return err_new(err, QD_E_NO_MEMORY, "names of the parts of '%s'", source_name(s, 0));
    int file = source_find(s, name);
    if (file < 0) {
        int r = err_new(err, QD_E_NOT_FOUND, "'%s', part %u of %u, is missing", name, no + 1, first->split_count);
        return err_hint(err, r, "fetch '%s' into the same folder", name);
    }
    int r = read_part(s, (size_t)file, arena, ret, err);
    if (r < 0)
        return r;
    if (ret->split_no != no || ret->split_count != first->split_count) {
        r = err_new(err, QD_E_CORRUPT, "'%s' says that it is part %u of %u, its name part %u of %u", name,
                    ret->split_no + 1u, ret->split_count, no + 1, first->split_count);
        return err_hint(err, r, "the parts come from different models: fetch them again");
    }
    return 0;
}

static int check_total(const struct gguf_part *first, uint64_t n_tensors, const char *name, struct qd_error *err)
{
    const struct meta_value *v = meta_find(&first->meta, "split.tensors.count");
    int32_t total;
    if (!v || first->split_count <= 1)
        return 0;
    if (v->type != META_I32)
        return err_new(err, QD_E_CORRUPT, "'%s': split.tensors.count has value type %d, it must be i32", name,
                       (int)v->type);
    memcpy(&total, v->data, sizeof total);
    if (total >= 0 && (uint64_t)total == n_tensors)
        return 0;
    int r = err_new(err, QD_E_CORRUPT, "'%s': split.tensors.count is %" PRId32 ", the parts hold %" PRIu64 " tensors",
                    name, total, n_tensors);
    return err_hint(err, r, "the parts come from different models: fetch them again");
}

/* One list of tensors from the parts, in order of the parts. */
static int join_tensors(struct model *m, const struct gguf_part *parts, size_t n_parts, const char *name,
                        struct qd_error *err)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_parts; i++)
        n += parts[i].n_tensors; /* at most LIMIT_TENSORS each */
    if (n > LIMIT_TENSORS)
        return err_new(err, QD_E_LIMIT, "'%s': %" PRIu64 " tensors; the limit is %d", name, n, LIMIT_TENSORS);
    int r = check_total(&parts[0], n, name, err);
    if (r < 0)
        return r;
    m->n_tensors = (size_t)n;
    m->tensors = n_parts == 1 ? parts[0].tensors : arena_alloc(m->arena, n, sizeof *m->tensors);
    if (!m->tensors)
        return err_new(err, QD_E_LIMIT, "'%s': the headers need more memory than a model may use", name);
    struct tensor *to = m->tensors;
    for (size_t i = 0; i < n_parts && n_parts > 1; to += parts[i++].n_tensors)
        memcpy(to, parts[i].tensors, (size_t)parts[i].n_tensors * sizeof *to);
    return 0;
}

static bool is_about_split(const char *key)
{
    static const char *const keys[] = {"split.no", "split.count", "split.tensors.count"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* Metadata of the whole: the first part's, without what is said about the split. */
static int take_meta(struct model *m, const struct gguf_part *first, const char *name, struct qd_error *err)
{
    const struct meta_value *architecture = meta_find(&first->meta, "general.architecture");
    if (architecture && architecture->type != META_STRING)
        return err_new(err, QD_E_CORRUPT, "'%s': general.architecture has value type %d, it must be a string", name,
                       (int)architecture->type);
    m->architecture = architecture ? (const char *)((const struct bytes *)architecture->data)->data : "";
    m->meta.entries = first->meta.entries;
    for (size_t i = 0; i < first->meta.n; i++)
        if (!is_about_split(first->meta.entries[i].key))
            m->meta.entries[m->meta.n++] = first->meta.entries[i];
    return 0;
}

static int gguf_read(struct source *s, struct model *m, struct qd_error *err)
{
    const char *name = source_name(s, 0);
    struct gguf_part first = {0};
    int r = read_part(s, 0, m->arena, &first, err);
    if (r == 0)
        r = check_first(&first, name, m->arena, err);
    if (r < 0)
        return r;
    size_t n_parts = first.split_count > 1 ? first.split_count : 1;
    struct gguf_part *parts = arena_alloc(m->arena, n_parts, sizeof *parts);
    if (!parts)
        return err_new(err, QD_E_LIMIT, "'%s': the headers need more memory than a model may use", name);
    parts[0] = first;
    for (unsigned i = 1; i < n_parts && r == 0; i++)
        r = read_later_part(s, m->arena, &first, i, &parts[i], err);
    if (r == 0)
        r = join_tensors(m, parts, n_parts, name, err);
    return r < 0 ? r : take_meta(m, &first, name, err);
}

const struct format format_gguf = {.name = "gguf", .recognise = gguf_recognise, .probe = gguf_probe, .read = gguf_read};
