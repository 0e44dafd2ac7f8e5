/*
 * Importance matrices in both forms that llama.cpp's imatrix tool writes (common/imatrix-loader.cpp,
 * tools/imatrix/imatrix.cpp), with the arithmetic of its quantize tool (tools/quantize/quantize.cpp: load_imatrix).
 * docs/formats/imatrix.md lists the layouts and the refusals.
 */
#include "quant/format/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/gguf.h"
#include "quant/format/stream.h"
#include "quant/limits.h"

enum {
    DAT_ENTRY_BYTES_MIN = 4 + 1 + 4 + 4 + 4, /* name, calls, values, the shortest of each */
    DATASET_BYTES_MAX = 1 << 16,             /* a path */
};

/* ---- what both share -------------------------------------------------------------------------- */

int imatrix_damaged(int r, struct qd_error *err)
{
    return err_hint(err, r, "fetch the importance matrix again, or make it again with llama-imatrix");
}

int imatrix_no_room(const char *file, struct qd_error *err)
{
    int r = err_new(err, QD_E_LIMIT, "'%s': the importance matrix takes more memory than the job may give it", file);
    return err_hint(err, r, "raise the ceiling: --max-memory, or worker_memory in quantd.conf");
}

static int refuse_value(const char *file, const char *name, uint64_t at, float v, struct qd_error *err)
{
    int r = err_new(err, QD_E_CORRUPT, "'%s': '%s': value %" PRIu64 " is %g, no mean of squares", file, name, at,
                    (double)v);
    return imatrix_damaged(r, err);
}

int imatrix_divide(float *sums, uint64_t n, float count, const char *file, const char *name, struct qd_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(sums[i]) || sums[i] < 0)
            return refuse_value(file, name, i, sums[i], err);
        sums[i] = sums[i] / count;
    }
    return 0;
}

/* ---- GGUF: NAME.in_sum2 [columns, experts] and NAME.counts [1, experts], all f32 -------------------- */

struct pair {
    const char *name;
    const struct tensor *sums, *counts; /* NULL: not there */
};

struct gguf_matrix {
    struct source *source;
    size_t file;
    const char *file_name;
    struct model header;
    struct pair *pairs;
    size_t n_pairs;
    struct importance *into;
};

/* "NAME" of "NAME@suffix"; NULL where @name ends otherwise, or memory is out (*ret_failed). */
static const char *without_suffix(struct arena *arena, const char *name, const char *suffix, bool *ret_failed)
{
    size_t n = strlen(name), n_suffix = strlen(suffix);
    if (n < n_suffix || strcmp(name + n - n_suffix, suffix) != 0)
        return NULL;
    const char *base = arena_text(arena, (struct bytes){(const uint8_t *)name, n - n_suffix});
    *ret_failed = !base;
    return base;
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->name, ((const struct pair *)b)->name);
}

static int refuse_half(const struct gguf_matrix *g, const char *name, const char *there, const char *missing,
                       struct qd_error *err)
{
    int r = err_new(err, QD_E_CORRUPT, "'%s': '%s' has %s and no %s", g->file_name, name, there, missing);
    return imatrix_damaged(r, err);
}

static int find_sums(struct gguf_matrix *g, struct qd_error *err)
{
    bool failed = false;
    g->pairs = arena_alloc(g->into->arena, g->header.n_tensors + 1, sizeof *g->pairs);
    for (size_t i = 0; g->pairs && i < g->header.n_tensors; i++) {
        const struct tensor *t = &g->header.tensors[i];
        const char *name = without_suffix(g->into->arena, t->name, ".in_sum2", &failed);
        if (failed)
            return imatrix_no_room(g->file_name, err);
        if (name)
            g->pairs[g->n_pairs++] = (struct pair){.name = name, .sums = t};
    }
    if (!g->pairs)
        return imatrix_no_room(g->file_name, err);
    qsort(g->pairs, g->n_pairs, sizeof *g->pairs, compare_pairs);
    return 0;
}

static int find_counts(struct gguf_matrix *g, struct qd_error *err)
{
    bool failed = false;
    for (size_t i = 0; i < g->header.n_tensors; i++) {
        const struct tensor *t = &g->header.tensors[i];
        const struct pair key = {.name = without_suffix(g->into->arena, t->name, ".counts", &failed)};
        if (failed)
            return imatrix_no_room(g->file_name, err);
        if (!key.name)
            continue;
        struct pair *p = bsearch(&key, g->pairs, g->n_pairs, sizeof key, compare_pairs);
        if (!p)
            return refuse_half(g, key.name, "counts", "in_sum2", err);
        p->counts = t;
    }
    for (size_t i = 0; i < g->n_pairs; i++)
        if (!g->pairs[i].counts)
            return refuse_half(g, g->pairs[i].name, "in_sum2", "counts", err);
    return 0;
}

static int check_pair(const struct gguf_matrix *g, const struct pair *p, struct qd_error *err)
{
    uint64_t n = p->sums->n_elements, n_counts = p->counts->n_elements;
    if (p->name[0] && p->sums->type == QD_TYPE_F32 && p->counts->type == QD_TYPE_F32 && n && n_counts &&
        n % n_counts == 0)
        return 0;
    int r = err_new(
        err, QD_E_CORRUPT,
        "'%s': '%s' has %" PRIu64 " sums in %s and %" PRIu64 " counts in %s; both must be f32, and the counts "
        "divide the sums",
        g->file_name, p->name, n, qd_type_info(p->sums->type)->name, n_counts, qd_type_info(p->counts->type)->name);
    return imatrix_damaged(r, err);
}

static int read_floats(const struct gguf_matrix *g, const struct tensor *t, float **ret, struct qd_error *err)
{
    float *values = arena_alloc(g->into->arena, t->n_elements, sizeof *values);
    if (!values)
        return imatrix_no_room(g->file_name, err);
    *ret = values;
    return source_read_meta(g->source, g->file, t->offset, values, (size_t)t->bytes, err); /* fits: it was allocated */
}

/* The peer rounds a count to a whole number; an expert that saw nothing has 1 everywhere. */
static int divide_expert(const struct gguf_matrix *g, const char *name, float *sums, uint64_t n, float raw_count,
                         struct qd_error *err)
{
    if (!(raw_count >= 0) || raw_count >= 0x1p62f) {
        int r = err_new(err, QD_E_CORRUPT, "'%s': '%s' has a count of %g", g->file_name, name, (double)raw_count);
        return imatrix_damaged(r, err);
    }
    float count = roundf(raw_count);
    int r = imatrix_divide(sums, n, count > 0 ? count : 1, g->file_name, name, err);
    for (uint64_t i = 0; r == 0 && count == 0 && i < n; i++)
        sums[i] = 1;
    return r;
}

static int read_pair(const struct gguf_matrix *g, const struct pair *p, struct importance_entry *ret,
                     struct qd_error *err)
{
    float *values = NULL, *counts = NULL;
    int r = check_pair(g, p, err);
    if (r == 0)
        r = read_floats(g, p->sums, &values, err);
    if (r == 0)
        r = read_floats(g, p->counts, &counts, err);
    if (r < 0)
        return r;
    uint64_t columns = p->sums->n_elements / p->counts->n_elements;
    for (uint64_t k = 0; r == 0 && k < p->counts->n_elements; k++)
        r = divide_expert(g, p->name, values + k * columns, columns, counts[k], err);
    *ret = (struct importance_entry){
        .name = p->name, .values = values, .n = (size_t)p->sums->n_elements, .n_counts = p->counts->n_elements};
    return r;
}

static const struct meta_value *need(const struct gguf_matrix *g, const char *key, enum meta_type type,
                                     enum meta_type item, struct qd_error *err)
{
    const struct meta_value *v = meta_find(&g->header.meta, key);
    if (v && v->type == type && v->item == item)
        return v;
    (void)err_new(err, QD_E_UNSUPPORTED, "'%s' is no importance matrix: '%s' is %s", g->file_name, key,
                  v ? "of another type" : "missing"); /* NULL says it */
    (void)err_hint(err, QD_E_UNSUPPORTED, "give a file that llama-imatrix wrote; a model is none");
    return NULL;
}

static int read_facts(struct gguf_matrix *g, struct qd_error *err)
{
    const struct meta_value *datasets = need(g, "imatrix.datasets", META_ARRAY, META_STRING, err);
    const struct meta_value *chunks = datasets ? need(g, "imatrix.chunk_count", META_U32, META_U32, err) : NULL;
    if (!chunks || !need(g, "imatrix.chunk_size", META_U32, META_U32, err))
        return QD_E_UNSUPPORTED;
    memcpy(&g->into->n_chunks, chunks->data, sizeof g->into->n_chunks);
    if (datasets->n_items)
        g->into->dataset = (const char *)((const struct bytes *)datasets->data)->data; /* ends with NUL */
    return 0;
}

int imatrix_read_gguf(struct source *s, size_t file, struct importance *i, struct qd_error *err)
{
    struct gguf_matrix g = {
        .source = s, .file = file, .file_name = source_name(s, file), .header = {.arena = i->arena}, .into = i};
    i->form = "gguf";
    int r = gguf_read_header(s, file, &g.header, err);
    if (r == 0)
        r = read_facts(&g, err);
    if (r == 0)
        r = model_check(&g.header, s, err);
    if (r == 0)
        r = find_sums(&g, err);
    if (r == 0)
        r = find_counts(&g, err);
    if (r < 0)
        return r;
    i->entries = arena_alloc(i->arena, g.n_pairs, sizeof *i->entries);
    if (!i->entries)
        return imatrix_no_room(g.file_name, err);
    while (r == 0 && i->n_entries < g.n_pairs) {
        r = read_pair(&g, &g.pairs[i->n_entries], &i->entries[i->n_entries], err);
        i->n_entries++;
    }
    return r;
}

/* ---- the older form: numbers of 32 bits, names and floats one after the other ------------------------ */

/* A number that the peer holds in an int32_t and that counts something. */
static uint32_t read_count(struct stream *st, const char *of)
{
    uint32_t v = stream_u32(st);
    if (!st->result && v > INT32_MAX)
        (void)stream_fail(st, QD_E_CORRUPT, st->at - 4, "%" PRId32 " %s", (int32_t)v, of); /* 0 says it */
    return st->result ? 0 : v;
}

static const char *read_text(struct stream *st, struct arena *arena, uint32_t limit, const char *of)
{
    uint64_t at = st->at;
    uint32_t n = read_count(st, of);
    if (!st->result && n > limit)
        (void)stream_fail(st, QD_E_CORRUPT, at, "%" PRIu32 " %s; %" PRIu32 " are allowed", n, of, limit);
    const char *text = st->result ? NULL : stream_text(st, arena, n);
    if (text && strlen(text) != n)
        (void)stream_fail(st, QD_E_CORRUPT, at, "the text holds a NUL byte");
    return st->result ? NULL : text;
}

static int read_dat_values(struct stream *st, struct arena *arena, struct importance_entry *e)
{
    const char *file = source_name(st->source, st->file);
    uint32_t n_calls = read_count(st, "calls");
    uint32_t n = read_count(st, "values");
    if (st->result)
        return st->result;
    if (n == 0 || n > stream_left(st) / sizeof(float))
        return stream_fail(st, QD_E_CORRUPT, st->at - 4, "%" PRIu32 " values, and %" PRIu64 " bytes follow", n,
                           stream_left(st));
    float *values = arena_alloc(arena, n, sizeof *values);
    if (!values)
        return st->result = imatrix_no_room(file, st->err);
    if (!stream_read(st, values, n * sizeof *values))
        return st->result;
    *e = (struct importance_entry){.name = e->name, .values = values, .n = n};
    return st->result = imatrix_divide(values, n, n_calls ? (float)n_calls : 1, file, e->name, st->err);
}

static int read_dat_entry(struct stream *st, struct arena *arena, struct importance_entry *e)
{
    e->name = read_text(st, arena, LIMIT_TENSOR_NAME_BYTES, "bytes of name");
    if (e->name && !e->name[0])
        return stream_fail(st, QD_E_CORRUPT, st->at - 4, "the name is empty");
    return e->name ? read_dat_values(st, arena, e) : st->result;
}

/* Chunks and the text's name, which files of early 2024 lack. */
static int read_dat_tail(struct stream *st, struct importance *i)
{
    stream_doing(st, "number of chunks of matrix", 0);
    if (stream_left(st) == 0)
        return st->result;
    i->n_chunks = read_count(st, "chunks");
    if (st->result || stream_left(st) == 0)
        return st->result;
    const char *dataset = read_text(st, i->arena, DATASET_BYTES_MAX, "bytes of the text's name");
    if (st->result)
        return st->result;
    i->dataset = dataset[0] ? dataset : NULL;
    if (stream_left(st) == 0)
        return 0;
    return stream_fail(st, QD_E_CORRUPT, st->at, "%" PRIu64 " bytes follow where the matrix ends", stream_left(st));
}

int imatrix_read_dat(struct source *s, size_t file, struct importance *i, struct qd_error *err)
{
    CLEANUP(free) struct stream *st = stream_new(s, file, 0, source_bytes(s, file), err);
    if (!st)
        return QD_E_NO_MEMORY;
    uint32_t n = stream_u32(st);
    i->form = "dat";
    if (st->result || n == 0 || n > stream_left(st) / DAT_ENTRY_BYTES_MIN) {
        int r = err_new(err, QD_E_UNSUPPORTED, "'%s' is no importance matrix: neither GGUF nor the older form",
                        source_name(s, file));
        return err_hint(err, r, "give a file that llama-imatrix wrote");
    }
    i->entries = arena_alloc(i->arena, n, sizeof *i->entries);
    if (!i->entries)
        return imatrix_no_room(source_name(s, file), err);
    for (; st->result == 0 && i->n_entries < n; i->n_entries++) {
        stream_doing(st, "entry", i->n_entries);
        if (read_dat_entry(st, i->arena, &i->entries[i->n_entries]) < 0)
            return st->result;
    }
    return read_dat_tail(st, i);
}
