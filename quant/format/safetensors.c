/*
 * The safetensors reader: one file, or a folder with an index. As strict as the format's own
 * library (safetensors:src/tensor.rs) and about duplicate names stricter. docs/formats/safetensors.md.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/format.h"
#include "quant/format/hf.h"
#include "quant/format/json.h"
#include "kernels/core/name_set.h"
#include "quant/format/stream.h"
#include "quant/limits.h"

enum { LENGTH_BYTES = 8, NOT_IN_GGUF = -1 };

static const struct dtype {
    const char *name;
    int type;      /* enum qd_type, or NOT_IN_GGUF */
    unsigned bits; /* of an element that GGUF does not hold */
} dtypes[] = {
    {"F32", QD_TYPE_F32, 0},         {"F16", QD_TYPE_F16, 0},     {"BF16", QD_TYPE_BF16, 0},
    {"F64", QD_TYPE_F64, 0},         {"I8", QD_TYPE_I8, 0},       {"I16", QD_TYPE_I16, 0},
    {"I32", QD_TYPE_I32, 0},         {"I64", QD_TYPE_I64, 0},     {"BOOL", NOT_IN_GGUF, 8},
    {"U8", NOT_IN_GGUF, 8},          {"U16", NOT_IN_GGUF, 16},    {"U32", NOT_IN_GGUF, 32},
    {"U64", NOT_IN_GGUF, 64},        {"C64", NOT_IN_GGUF, 64},    {"F4", NOT_IN_GGUF, 4},
    {"F6_E2M3", NOT_IN_GGUF, 6},     {"F6_E3M2", NOT_IN_GGUF, 6}, {"F8_E5M2", NOT_IN_GGUF, 8},
    {"F8_E4M3", NOT_IN_GGUF, 8},     {"F8_E8M0", NOT_IN_GGUF, 8}, {"F8_E4M3FNUZ", NOT_IN_GGUF, 8},
    {"F8_E5M2FNUZ", NOT_IN_GGUF, 8},
};

/* A tensor as its header tells it, with what orders the artifact. */
struct entry {
    struct tensor tensor; /* offset is in the data section until placed */
    const struct dtype
        *foreign; /* one that GGUF does not hold: only a buffer that is left out may have it; NULL: tensor.type */
    uint64_t end;
    uint64_t rank;
    uint64_t sequence; /* as read: files by name, offsets rising */
};

struct entries {
    struct entry *list; /* in the arena */
    size_t n;
    size_t room;
};

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name), n_tail = strlen(tail);
    return n > n_tail && strcmp(name + n - n_tail, tail) == 0;
}

static bool is_index(const char *name)
{
    return ends_with(name, ".safetensors.index.json");
}

static enum recognised safetensors_recognise(struct bytes head, const char *file_name, uint64_t file_bytes)
{
    struct cursor c = cursor_over(head);
    uint64_t n = cursor_u64(&c);
    uint8_t first = cursor_u8(&c);
    if (!c.failed && first == '{' && n <= LIMIT_SAFETENSORS_HEADER_BYTES && n <= file_bytes)
        return RECOGNISED_BY_CONTENT;
    return ends_with(file_name, ".safetensors") || is_index(file_name) ? RECOGNISED_BY_NAME : RECOGNISED_NOT;
}

static int entries_grow(struct entries *e, struct arena *arena, struct stream *st)
{
    if (e->n < e->room)
        return 0;
    if (e->n >= LIMIT_TENSORS)
        return stream_fail(st, QD_E_LIMIT, st->at, "more than %d tensors", LIMIT_TENSORS);
    size_t room = e->room ? 2 * e->room : 64;
    struct entry *larger = arena_alloc(arena, room, sizeof *larger);
    if (!larger)
        return stream_fail_budget(st);
    if (e->n)
        memcpy(larger, e->list, e->n * sizeof *larger);
    e->list = larger;
    e->room = room;
    return 0;
}

static int read_dtype(struct json *j, struct entry *e)
{
    struct tensor *t = &e->tensor;
    uint64_t start = j->st->at;
    const char *name = json_text(j);
    for (size_t i = 0; name && i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, name) != 0)
            continue;
        e->foreign = dtypes[i].type == NOT_IN_GGUF ? &dtypes[i] : NULL;
        t->type = e->foreign ? QD_TYPE_I8 : (enum qd_type)dtypes[i].type; /* I8: to count elements */
        return 0;
    }
    return stream_fail(j->st, QD_E_UNSUPPORTED, start, "'%.200s' has dtype '%.40s', which is unknown", t->source_name,
                       name ? name : "");
}

/* [rows, ..., row length] into shape[], the row first. */
static int read_shape(struct json *j, struct tensor *t)
{
    uint64_t start = j->st->at, stored[MODEL_DIMS_MAX];
    (void)json_begin(j, '['); /* sticks in the stream */
    while (!j->st->result && json_item(j)) {
        if (t->n_dims == MODEL_DIMS_MAX)
            return stream_fail(j->st, QD_E_UNSUPPORTED, start, "'%.200s' has more than %d dimensions", t->source_name,
                               MODEL_DIMS_MAX);
        if (!json_u64(j, &stored[t->n_dims++]))
            break;
    }
    for (uint32_t d = 0; d < MODEL_DIMS_MAX && !j->st->result; d++)
        t->shape[d] = d < t->n_dims ? stored[t->n_dims - 1 - d] : 1;
    return j->st->result;
}

static int read_offsets(struct json *j, struct entry *e)
{
    uint64_t start = j->st->at;
    if (!json_begin(j, '[') || !json_item(j) || !json_u64(j, &e->tensor.offset) || !json_item(j) ||
        !json_u64(j, &e->end) || json_item(j))
        return stream_fail(j->st, QD_E_CORRUPT, start, "'%.200s': data_offsets must be two numbers",
                           e->tensor.source_name);
    return j->st->result;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}; each once, others are skipped. */
static int read_members(struct json *j, struct entry *e)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    unsigned seen = 0;
    uint64_t start = j->st->at;
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j)) {
        unsigned k = 0;
        while (k < 3 && strcmp(json_key(j), keys[k]) != 0)
            k++;
        if (k < 3 && seen & 1u << k)
            return stream_fail(j->st, QD_E_CORRUPT, j->st->at, "'%.200s': \"%s\" stands twice", e->tensor.source_name,
                               keys[k]);
        seen |= 1u << k;
        if (k == 3)
            (void)json_skip(j); /* sticks in the stream */
        else if ((k == 0 ? read_dtype(j, e) : k == 1 ? read_shape(j, &e->tensor) : read_offsets(j, e)) < 0)
            break;
    }
    for (unsigned k = 0; k < 3; k++)
        if (!j->st->result && !(seen & 1u << k))
            return stream_fail(j->st, QD_E_CORRUPT, start, "'%.200s' has no \"%s\"", e->tensor.source_name, keys[k]);
    return j->st->result;
}

static int measure(struct json *j, uint64_t start, struct entry *e)
{
    struct tensor *t = &e->tensor;
    struct qd_error reason;
    int r = tensor_measure(t, &reason);
    if (r < 0)
        return stream_fail(j->st, r, start, "'%.200s' %s", t->source_name, reason.message);
    uint64_t bits;
    if (e->foreign && (!checked_mul(t->n_elements, e->foreign->bits, &bits) || bits % 8))
        return stream_fail(j->st, QD_E_CORRUPT, start, "'%.200s' does not take whole bytes", t->source_name);
    if (e->foreign)
        t->bytes = bits / 8;
    if (e->end < t->offset || e->end - t->offset != t->bytes)
        return stream_fail(j->st, QD_E_CORRUPT, start,
                           "'%.200s' takes %" PRIu64 " bytes by its shape, data_offsets give it [%" PRIu64 ", %" PRIu64
                           ")",
                           t->source_name, t->bytes, t->offset, e->end);
    return 0;
}

static int read_entry(struct json *j, struct arena *arena, struct name_set *names, struct entries *entries)
{
    struct stream *st = j->st;
    uint64_t start = st->at;
    if (j->n_text == 0 || j->n_text > LIMIT_TENSOR_NAME_BYTES || strlen(json_key(j)) != j->n_text)
        return stream_fail(st, QD_E_LIMIT, start, "a name of %zu bytes; 1 to %d, none of them NUL, are allowed",
                           j->n_text, LIMIT_TENSOR_NAME_BYTES);
    int r = entries_grow(entries, arena, st);
    if (r < 0)
        return r;
    struct entry *e = &entries->list[entries->n];
    *e = (struct entry){.tensor = {.file = (uint32_t)st->file}};
    e->tensor.source_name = arena_text(arena, (struct bytes){j->text.data, j->n_text});
    if (!e->tensor.source_name)
        return stream_fail_budget(st);
    size_t earlier;
    r = name_set_add(names, e->tensor.source_name, entries->n, &earlier);
    if (r > 0)
        return stream_fail(st, QD_E_CORRUPT, start, "'%.200s' stands twice: tensor %zu already", e->tensor.source_name,
                           earlier);
    if (r < 0)
        return stream_fail_budget(st);
    r = read_members(j, e);
    if (r == 0)
        r = measure(j, start, e);
    entries->n += r == 0;
    return r;
}

/* "__metadata__": texts only; it says nothing that the artifact needs. */
static void skip_metadata(struct json *j)
{
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j))
        (void)json_text(j); /* sticks in the stream */
}

static int read_header(struct stream *st, struct arena *arena, struct entries *entries)
{
    CLEANUP(json_clear) struct json j = {.st = st};
    CLEANUP(name_set_clear) struct name_set names = {0};
    if (name_set_init(&names, 0) < 0)
        return stream_fail_budget(st);
    size_t first = entries->n;
    bool metadata = false;
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        stream_doing(st, "tensor", entries->n - first);
        if (strcmp(json_key(&j), "__metadata__") != 0) {
            (void)read_entry(&j, arena, &names, entries); /* sticks in the stream */
            continue;
        }
        if (metadata)
            return stream_fail(st, QD_E_CORRUPT, st->at, "\"__metadata__\" stands twice");
        metadata = true;
        skip_metadata(&j);
    }
    (void)json_end(&j); /* sticks in the stream */
    return st->result;
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->tensor.offset != y->tensor.offset)
        return x->tensor.offset < y->tensor.offset ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->tensor.source_name, y->tensor.source_name); /* empty tensors share an offset */
}

/* Sorted, the ranges must cover the data section: no hole, no overlap, nothing behind. Offsets become the file's. */
static int place(struct stream *st, struct entry *list, size_t n, uint64_t data_start, uint64_t data_bytes)
{
    uint64_t covered = 0;
    stream_doing(st, "tensor", 0);
    if (n)
        qsort(list, n, sizeof *list, by_offset);
    for (size_t i = 0; i < n; i++) {
        struct tensor *t = &list[i].tensor;
        if (t->offset != covered)
            return stream_fail(st, QD_E_CORRUPT, data_start,
                               "'%.200s' starts at data byte %" PRIu64 ", the ones before it end at %" PRIu64 ": %s",
                               t->source_name, t->offset, covered, t->offset > covered ? "a hole" : "they overlap");
        covered = list[i].end;
        if (covered > data_bytes)
            return stream_fail(st, QD_E_CORRUPT, data_start,
                               "'%.200s' ends at data byte %" PRIu64 ", the file holds %" PRIu64, t->source_name,
                               covered, data_bytes);
        t->offset += data_start; /* both are inside the file */
    }
    if (covered != data_bytes)
        return stream_fail(st, QD_E_CORRUPT, data_start,
                           "tensors end at data byte %" PRIu64 ", the file holds %" PRIu64, covered, data_bytes);
    return 0;
}

static int read_length(struct stream *st, uint64_t *ret)
{
    uint64_t n = stream_u64(st);
    if (st->result)
        return st->result;
    if (n > LIMIT_SAFETENSORS_HEADER_BYTES)
        return stream_fail(st, QD_E_LIMIT, 0, "a length of %" PRIu64 " bytes; %d are allowed", n,
                           LIMIT_SAFETENSORS_HEADER_BYTES);
    if (n > stream_left(st))
        return stream_fail(st, QD_E_CORRUPT, 0, "a length of %" PRIu64 " bytes, the file has %" PRIu64 " more", n,
                           stream_left(st));
    *ret = n;
    return 0;
}

/* Adds the tensors of one file. */
static int read_file(struct source *s, size_t file, struct arena *arena, struct entries *entries, struct qd_error *err)
{
    uint64_t file_bytes = source_bytes(s, file), n_header = 0;
    CLEANUP(free) struct stream *st = stream_new(s, file, 0, file_bytes, err);
    if (!st)
        return QD_E_NO_MEMORY;
    stream_doing(st, "header of file", file);
    int r = read_length(st, &n_header);
    if (r < 0)
        return r;
    if (stream_peek(st) != '{')
        return stream_fail(st, QD_E_CORRUPT, LENGTH_BYTES, "it does not start with '{'");
    st->end = LENGTH_BYTES + n_header;
    size_t first = entries->n;
    r = read_header(st, arena, entries);
    if (r < 0)
        return r;
    return place(st, entries->list + first, entries->n - first, st->end, file_bytes - st->end);
}

/* --- The index of a model in several files --- */

struct index {
    const char **tensors; /* in the arena: tensors[i] is in files[i] */
    const char **files;   /* texts shared: one per file */
    size_t n, room;
    const char **names; /* the files, each once, sorted */
    size_t n_names;
};

static int check_file_name(struct stream *st, const char *name, size_t n)
{
    if (n == 0 || n > LIMIT_FILE_NAME_BYTES || strlen(name) != n || strchr(name, '/') || strstr(name, "..") ||
        name[0] == '.')
        return stream_fail(st, QD_E_DENIED, st->at,
                           "file name '%.80s' must stay in the model's folder: no '/', no '..'", name);
    if (!ends_with(name, ".safetensors"))
        return stream_fail(st, QD_E_UNSUPPORTED, st->at, "'%.80s' is no .safetensors file", name);
    return 0;
}

/* The one copy of @name; NULL with the stream failed. */
static const char *shared_name(struct json *j, struct arena *arena, struct name_set *seen, struct index *x)
{
    const char *name = json_text(j);
    if (!name || check_file_name(j->st, name, j->n_text) < 0)
        return NULL;
    int64_t known = name_set_find(seen, name);
    if (known >= 0)
        return x->names[known];
    if (x->n_names >= LIMIT_SOURCE_FILES) {
        (void)stream_fail(j->st, QD_E_LIMIT, j->st->at, "more than %d files", LIMIT_SOURCE_FILES); /* NULL says it */
        return NULL;
    }
    size_t ignored;
    const char *copy = arena_text(arena, (struct bytes){(const uint8_t *)name, j->n_text});
    if (!copy || name_set_add(seen, copy, x->n_names, &ignored) < 0) {
        (void)stream_fail_budget(j->st); /* NULL says it */
        return NULL;
    }
    x->names[x->n_names++] = copy;
    return copy;
}

static int index_grow(struct stream *st, struct arena *arena, struct index *x)
{
    if (x->n < x->room)
        return 0;
    if (x->n >= LIMIT_TENSORS)
        return stream_fail(st, QD_E_LIMIT, st->at, "more than %d tensors", LIMIT_TENSORS);
    size_t room = x->room ? 2 * x->room : 256;
    const char **tensors = arena_alloc(arena, room, sizeof *tensors), **files = arena_alloc(arena, room, sizeof *files);
    if (!tensors || !files)
        return stream_fail_budget(st);
    if (x->n) {
        memcpy(tensors, x->tensors, x->n * sizeof *tensors);
        memcpy(files, x->files, x->n * sizeof *files);
    }
    x->tensors = tensors;
    x->files = files;
    x->room = room;
    return 0;
}

static void read_weight_map(struct json *j, struct arena *arena, struct index *x)
{
    CLEANUP(name_set_clear) struct name_set files = {0}, tensors = {0};
    if (name_set_init(&files, 0) < 0 || name_set_init(&tensors, 0) < 0) {
        (void)stream_fail_budget(j->st); /* sticks in the stream */
        return;
    }
    (void)json_begin(j, '{'); /* sticks in the stream */
    while (!j->st->result && json_member(j)) {
        stream_doing(j->st, "weight_map entry", x->n);
        if (index_grow(j->st, arena, x) < 0)
            return;
        size_t earlier;
        const char *tensor = arena_text(arena, (struct bytes){j->text.data, strlen(json_key(j))});
        int r = tensor ? name_set_add(&tensors, tensor, x->n, &earlier) : QD_E_LIMIT;
        if (r > 0)
            (void)stream_fail(j->st, QD_E_CORRUPT, j->st->at, "'%.200s' stands twice: entry %zu already", tensor,
                              earlier); /* sticks */
        else if (r < 0)
            (void)stream_fail_budget(j->st); /* sticks in the stream */
        x->tensors[x->n] = tensor;
        x->files[x->n] = j->st->result ? NULL : shared_name(j, arena, &files, x);
        x->n += !j->st->result;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int read_index(struct source *s, struct arena *arena, struct index *ret, struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, 0, 0, source_bytes(s, 0), err);
    if (!st)
        return QD_E_NO_MEMORY;
    CLEANUP(json_clear) struct json j = {.st = st};
    struct index x = {.names = arena_alloc(arena, LIMIT_SOURCE_FILES, sizeof *x.names)};
    stream_doing(st, "index", 0);
    if (!x.names)
        return stream_fail_budget(st);
    bool map = false;
    (void)json_begin(&j, '{'); /* sticks in the stream */
    while (!st->result && json_member(&j)) {
        if (strcmp(json_key(&j), "weight_map") != 0) {
            (void)json_skip(&j); /* sticks in the stream */
            continue;
        }
        if (map)
            return stream_fail(st, QD_E_CORRUPT, st->at, "\"weight_map\" stands twice");
        map = true;
        read_weight_map(&j, arena, &x);
    }
    if (!json_end(&j))
        return st->result;
    if (x.n == 0)
        return stream_fail(st, QD_E_CORRUPT, 0, "no \"weight_map\", or an empty one");
    qsort(x.names, x.n_names, sizeof *x.names, by_name);
    *ret = x;
    return 0;
}

/* Each tensor is where the map says. Tensors that the map does not name are the model's too: headers are trusted. */
static int check_index(struct source *s, const struct index *x, const struct entries *entries, struct qd_error *err)
{
    CLEANUP(name_set_clear) struct name_set names = {0};
    if (name_set_init(&names, entries->n) < 0)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    size_t earlier;
    for (size_t i = 0; i < entries->n; i++) {
        int r = name_set_add(&names, entries->list[i].tensor.source_name, i, &earlier);
        if (r > 0)
            return err_new(err, QD_E_CORRUPT, "tensor '%.200s' stands in '%s' and in '%s'",
                           entries->list[i].tensor.source_name, source_name(s, entries->list[earlier].tensor.file),
                           source_name(s, entries->list[i].tensor.file));
        if (r < 0)
            return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    }
    for (size_t i = 0; i < x->n; i++) {
        int64_t at = name_set_find(&names, x->tensors[i]);
        if (at >= 0 && strcmp(source_name(s, entries->list[at].tensor.file), x->files[i]) == 0)
            continue;
        int r = err_new(err, QD_E_CORRUPT, "'%s' says that tensor '%.200s' is in '%s', which does not hold it",
                        source_name(s, 0), x->tensors[i], x->files[i]);
        return err_hint(err, r, "index and files come from different versions: fetch them again");
    }
    return 0;
}

static int missing_file(const char *name, struct qd_error *err)
{
    int r = err_new(err, QD_E_NOT_FOUND, "'%s' belongs to the model and is missing", name);
    return err_hint(err, r, "fetch '%s' into the same folder", name);
}

static int read_indexed(struct source *s, struct arena *arena, struct entries *entries, struct qd_error *err)
{
    struct index x;
    int r = read_index(s, arena, &x, err);
    for (size_t i = 0; r == 0 && i < x.n_names; i++) {
        int file = source_find(s, x.names[i]);
        r = file < 0 ? missing_file(x.names[i], err) : read_file(s, (size_t)file, arena, entries, err);
    }
    return r < 0 ? r : check_index(s, &x, entries, err);
}

/* model-00001-of-00003.safetensors alone is a part of a model, not a model. */
static int refuse_lone_part(const char *name, struct qd_error *err)
{
    unsigned no, count;
    int n = 0;
    const char *dash = strstr(name, "-of-");
    if (!dash || dash - name < 6 || sscanf(dash - 6, "-%5u-of-%5u.safetensors%n", &no, &count, &n) != 2 || n == 0 ||
        count < 2)
        return 0;
    int r = err_new(err, QD_E_INVALID, "'%s' is part %u of %u of a model", name, no, count);
    return err_hint(err, r, "give the folder, or the file that ends in .safetensors.index.json");
}

static int safetensors_probe(struct source *s, struct probe *p, struct qd_error *err)
{
    bool indexed = is_index(source_name(s, 0));
    struct index x = {0};
    p->role = indexed ? "index" : "weights";
    int r = indexed ? read_index(s, p->arena, &x, err) : refuse_lone_part(source_name(s, 0), err);
    if (r < 0)
        return r;
    p->files = arena_alloc(p->arena, x.n_names + hf_n_companions, sizeof *p->files);
    if (!p->files)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    for (size_t i = 0; i < x.n_names; i++)
        p->files[p->n_files++] = (struct probe_file){.role = "weights", .name = x.names[i], .required = 1};
    memcpy(p->files + p->n_files, hf_companions, hf_n_companions * sizeof *p->files);
    p->n_files += hf_n_companions;
    return 0;
}

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static int refuse_dtype(const struct entry *e, struct source *s, struct qd_error *err)
{
    int r = err_new(err, QD_E_UNSUPPORTED, "'%s': '%.200s' has dtype %s, which GGUF does not hold",
                    source_name(s, e->tensor.file), e->tensor.source_name, e->foreign->name);
    return err_hint(
        err, r,
        "save weights as F32, F16 or BF16 and leave out masks and position ids, or convert the model to GGUF with "
        "llama.cpp's convert_hf_to_gguf.py");
}

/* Names, row orders and the artifact's order; buffers that llama.cpp computes are left out. */
static int take_tensors(const struct hf_config *c, struct source *s, struct model *m, struct entries *entries,
                        struct qd_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < entries->n; i++) {
        entries->list[i].sequence = i;
        int r = hf_tensor_name(c, m->arena, &entries->list[i].tensor, &entries->list[i].rank, err);
        if (entries->list[i].foreign && r != HF_DROPPED)
            return refuse_dtype(&entries->list[i], s, err);
        if (r < 0)
            return r;
        if (r == HF_NAMED)
            entries->list[n++] = entries->list[i];
    }
    if (n)
        qsort(entries->list, n, sizeof *entries->list, by_rank);
    m->tensors = arena_alloc(m->arena, n, sizeof *m->tensors);
    if (!m->tensors)
        return err_new(err, QD_E_LIMIT, "the headers need more memory than a model may use");
    for (size_t i = 0; i < n; i++)
        m->tensors[m->n_tensors++] = entries->list[i].tensor;
    return 0;
}

static int take_meta(struct source *s, const struct hf_config *c, struct model *m, struct qd_error *err)
{
    struct meta_build b = {.arena = m->arena};
    hf_config_put(c, &b);
    int r = hf_tokenizer_put(s, c, &b, err);
    if (r < 0)
        return r;
    if (b.failed)
        return err_new(err, QD_E_LIMIT, "'%s': the metadata need more memory than a model may use", source_name(s, 0));
    m->meta = b.table;
    const struct meta_value *v = meta_find(&m->meta, "general.architecture");
    m->architecture = v ? (const char *)((const struct bytes *)v->data)->data : "";
    return 0;
}

static int safetensors_read(struct source *s, struct model *m, struct qd_error *err)
{
    struct entries entries = {0};
    struct hf_config c;
    int r = hf_config_read(s, source_find(s, "config.json"), &c, err);
    if (r < 0)
        return r;
    bool indexed = is_index(source_name(s, 0));
    if (!indexed)
        r = refuse_lone_part(source_name(s, 0), err);
    if (r == 0)
        r = indexed ? read_indexed(s, m->arena, &entries, err) : read_file(s, 0, m->arena, &entries, err);
    if (r == 0)
        r = take_tensors(&c, s, m, &entries, err);
    return r < 0 ? r : take_meta(s, &c, m, err);
}

const struct format format_safetensors = {
    .name = "safetensors", .recognise = safetensors_recognise, .probe = safetensors_probe, .read = safetensors_read};
