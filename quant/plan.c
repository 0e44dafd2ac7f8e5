#include "quant/plan_build.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/gguf_write.h"
#include "quant/packed.h"
#include "quant/plan_rules.h"

enum {
    PROVENANCE_VERSION = 1,   /* docs/formats/provenance.md */
    QUANTIZATION_VERSION = 2, /* what general.quantization_version says of blocks laid out as ggml does today */
    META_ADDED_MAX = 16,
    DATASET_BYTES = 127, /* as many as llama-quantize keeps of the text's name */
    PLAN_BASE_BYTES = (1 << 16) + PLAN_RULES_BYTES,
};

/* --- metadata: the source's keys in order, a few set, the split ones dropped --- */

static const char *const dropped_keys[] = {"split.no", "split.count", "split.tensors.count"};

static bool is_dropped(const char *key)
{
    for (size_t i = 0; i < sizeof dropped_keys / sizeof dropped_keys[0]; i++) {
        if (strcmp(key, dropped_keys[i]) == 0)
            return true;
    }
    return false;
}

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "plan");
}

/* Sets @key in place, or appends it; @table has room. */
static void meta_set(struct meta_table *table, const char *key, struct meta_value value)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strcmp(table->entries[i].key, key) == 0) {
            table->entries[i].value = value;
            return;
        }
    }
    table->entries[table->n++] = (struct meta_entry){key, value};
}

static int meta_set_u32(struct plan *p, const char *key, uint32_t v, struct qd_error *err)
{
    uint8_t *data = arena_alloc(p->arena, 1, 4);
    if (!data)
        return no_memory(err);
    for (int i = 0; i < 4; i++)
        data[i] = (uint8_t)(v >> (8 * i));
    meta_set(&p->meta, key, (struct meta_value){.type = META_U32, .n_items = 1, .data = data});
    return 0;
}

static int meta_set_text(struct plan *p, const char *key, const char *text, struct qd_error *err)
{
    struct bytes *span = arena_alloc(p->arena, 1, sizeof *span);
    if (!span)
        return no_memory(err);
    span->data = (const uint8_t *)arena_text(p->arena, (struct bytes){(const uint8_t *)text, strlen(text)});
    if (!span->data)
        return no_memory(err);
    span->n = strlen(text);
    meta_set(&p->meta, key, (struct meta_value){.type = META_STRING, .n_items = 1, .data = span});
    return 0;
}

/* Nothing here may differ between a run by hand and one by the daemon, nor between releases that give the same tensors.
 */
static int set_provenance(struct plan *p, struct qd_error *err)
{
    char text[RECIPE_TEXT_MAX];
    recipe_text(&p->recipe, text);
    int r = meta_set_u32(p, "quantd.provenance_version", PROVENANCE_VERSION, err);
    if (r < 0)
        return r;
    r = meta_set_text(p, "quantd.scheme", scheme_name(p->recipe.scheme), err);
    if (r < 0)
        return r;
    r = meta_set_text(p, "quantd.recipe", text, err);
    if (r < 0)
        return r;
    return meta_set_u32(p, "quantd.encoder_revision", recipe_encoder_revision(&p->recipe), err);
}

/* As much of a text as llama-quantize keeps, without a half character at the end. */
static void cut_text(const char *text, char dst[DATASET_BYTES + 1])
{
    size_t n = strnlen(text, DATASET_BYTES);
    while (n > 0 && text[n] && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    memcpy(dst, text, n);
    dst[n] = '\0';
}

/*
 * What llama-quantize says of an importance matrix, and its digest. The file's name is not said: two names of one
 * content have one key, so they must make one file.
 */
static int set_importance(struct plan *p, const struct importance *i, struct qd_error *err)
{
    char dataset[DATASET_BYTES + 1], hex[DIGEST_HEX_BYTES];
    if (!i)
        return 0;
    cut_text(i->dataset ? i->dataset : "", dataset);
    digest_hex(&i->digest, hex);
    int r =
        meta_set_text(p, "quantize.imatrix.file", strcmp(i->form, "gguf") == 0 ? "imatrix.gguf" : "imatrix.dat", err);
    if (r == 0 && i->dataset)
        r = meta_set_text(p, "quantize.imatrix.dataset", dataset, err);
    if (r == 0)
        r = meta_set_u32(p, "quantize.imatrix.entries_count", (uint32_t)i->n_entries, err); /* at most LIMIT_TENSORS */
    if (r == 0 && i->n_chunks)
        r = meta_set_u32(p, "quantize.imatrix.chunks_count", i->n_chunks, err);
    return r < 0 ? r : meta_set_text(p, "quantd.imatrix", hex, err);
}

static int plan_meta(struct plan *p, const struct importance *importance, struct qd_error *err)
{
    const struct meta_table *from = &p->model->meta;
    p->meta.entries = arena_alloc(p->arena, from->n + META_ADDED_MAX, sizeof *p->meta.entries);
    if (!p->meta.entries)
        return no_memory(err);
    for (size_t i = 0; i < from->n; i++) {
        if (!is_dropped(from->entries[i].key))
            p->meta.entries[p->meta.n++] = from->entries[i];
    }
    int r = meta_set_u32(p, "general.quantization_version", QUANTIZATION_VERSION, err);
    if (r < 0)
        return r;
    r = meta_set_u32(p, "general.file_type", scheme_file_type(p->recipe.scheme), err);
    if (r < 0)
        return r;
    r = meta_set_u32(p, "general.alignment", PLAN_ALIGNMENT, err);
    if (r == 0)
        r = set_importance(p, importance, err);
    return r < 0 ? r : set_provenance(p, err);
}

/* --- tensors: type by the rules, then bytes and offsets --- */

static int too_large(const struct tensor *t, struct qd_error *err)
{
    return err_new(err, QD_E_LIMIT, "tensor '%s': its place in the output passes 2^64 bytes", t->name);
}

static int refuse_unweighted(const struct plan *p, const struct plan_tensor *pt, bool weighted, struct qd_error *err)
{
    const char *type = qd_type_info(pt->type)->name;
    if (weighted) {
        int r = err_new(err, QD_E_INVALID, "tensor '%s': the importance matrix has nothing for it, and %s needs it",
                        pt->source->name, type);
        return err_hint(err, r, "make the matrix again from this model over more text, or choose another scheme");
    }
    int r = err_new(err, QD_E_INVALID, "tensor '%s' becomes %s in scheme %s, which needs an importance matrix",
                    pt->source->name, type, scheme_name(p->recipe.scheme));
    return err_hint(err, r, "make one with llama-imatrix and give it by --imatrix FILE, or choose another scheme");
}

/* The importance of a tensor whose type is decided. */
static int plan_importance(struct plan *p, const struct importance *importance, struct plan_tensor *pt,
                           struct qd_error *err)
{
    char reason[PLAN_REASON_BYTES];
    pt->importance = importance_for(importance, pt->source, pt->type);
    if (!pt->importance)
        return pt->type != pt->source->type &&
                       importance_required(pt->source->name, pt->type, scheme_file_type(p->recipe.scheme))
                   ? refuse_unweighted(p, pt, importance != NULL, err)
                   : 0;
    (void)snprintf(reason, sizeof reason, "%s; weighted", pt->reason); /* cut: for people */
    pt->reason = arena_text(p->arena, (struct bytes){(const uint8_t *)reason, strlen(reason)});
    return pt->reason ? 0 : no_memory(err);
}

int plan_place(struct plan *p, struct plan_tensor *pt, uint32_t alignment, uint64_t *at, struct qd_error *err)
{
    const struct tensor *t = pt->source;
    uint64_t row_bytes = qd_type_row_bytes(pt->type, t->shape[0]);
    uint64_t n_rows = t->n_elements ? t->n_elements / t->shape[0] : 0;
    if (n_rows && !row_bytes)
        return err_new(err, QD_E_INTERNAL, "tensor '%s': rows of %" PRIu64 " do not divide into %s", t->name,
                       t->shape[0], qd_type_info(pt->type)->name);
    pt->offset = *at;
    if (!checked_mul(row_bytes, n_rows, &pt->bytes) || !checked_add(*at, pt->bytes, at) ||
        !checked_align(*at, alignment, at))
        return too_large(t, err);
    p->source_bytes += t->bytes;
    return 0;
}

/* Offsets are relative to the data section until the header's size is known. */
static int plan_tensors(struct plan *p, const struct importance *importance, uint64_t *ret_data_bytes,
                        struct qd_error *err)
{
    uint64_t at = 0;
    p->n_tensors = p->model->n_tensors;
    p->tensors = arena_alloc(p->arena, p->n_tensors + 1, sizeof *p->tensors);
    CLEANUP(free) struct type_choice *choices = calloc(p->n_tensors + 1, sizeof *choices);
    if (!p->tensors || !choices)
        return no_memory(err);
    int r = plan_decide(p->model, &p->recipe, p->arena, choices, err);
    for (size_t i = 0; r == 0 && i < p->n_tensors; i++) {
        p->tensors[i] =
            (struct plan_tensor){.source = &p->model->tensors[i], .type = choices[i].type, .reason = choices[i].reason};
        r = plan_importance(p, importance, &p->tensors[i], err);
        if (r == 0)
            r = plan_place(p, &p->tensors[i], PLAN_ALIGNMENT, &at, err);
    }
    if (r < 0)
        return r;
    *ret_data_bytes = at;
    return 0;
}

/* How the header says a tensor: as it is, or where the output is packed, as so many bytes. */
static struct gguf_tensor header_tensor(const struct plan *p, const struct plan_tensor *pt)
{
    struct gguf_tensor t = {
        .name = pt->source->name, .type = pt->type, .n_dims = pt->source->n_dims, .offset = pt->offset};
    memcpy(t.shape, pt->source->shape, sizeof t.shape);
    if (p->to != QD_LAYOUT_PORTABLE) {
        t.type = QD_TYPE_I8;
        t.n_dims = 1;
        t.shape[0] = pt->bytes;
    }
    return t;
}

int plan_finish(struct plan *p, const struct meta_table *written, uint32_t alignment, uint64_t data_bytes,
                struct qd_error *err)
{
    CLEANUP(free) struct gguf_tensor *list = calloc(p->n_tensors + 1, sizeof *list);
    if (!list)
        return no_memory(err);
    for (size_t i = 0; i < p->n_tensors; i++)
        list[i] = header_tensor(p, &p->tensors[i]);
    int r = gguf_header(written, list, p->n_tensors, alignment, &p->header, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p->n_tensors; i++)
        p->tensors[i].offset += p->header.n;
    if (!checked_add(p->header.n, data_bytes, &p->file_bytes) || p->file_bytes > INT64_MAX)
        return err_new(err, QD_E_LIMIT, "the output would pass 2^63 bytes");
    return 0;
}

struct plan *plan_new(const struct model *m, size_t arena_bytes)
{
    CLEANUP(plan_free) struct plan *p = calloc(1, sizeof *p);
    if (!p || !(p->arena = arena_new(arena_bytes)))
        return NULL;
    p->model = m;
    p->file_name = "model.gguf";
    return steal(&p);
}

static size_t arena_budget(const struct model *m)
{
    size_t per_tensor = sizeof(struct plan_tensor) + 2 * PLAN_REASON_BYTES;
    return PLAN_BASE_BYTES + (m->n_tensors + 1) * per_tensor + (m->meta.n + META_ADDED_MAX) * sizeof(struct meta_entry);
}

static bool is_of_recipe(const struct importance *i, const struct recipe *r)
{
    return r->weighted ? i && digest_equal(&i->digest, &r->importance) : !i;
}

int plan_build(const struct model *m, const struct recipe *r, const struct importance *importance, struct plan **ret,
               struct qd_error *err)
{
    if (!is_of_recipe(importance, r))
        return err_new(err, QD_E_INTERNAL, "the importance matrix is not the recipe's");
    if (packed_is(m))
        return packed_refuse(m, err);
    if (!(scheme_families(r->scheme) & FAMILY_GGUF)) {
        int e = err_new(err, QD_E_INVALID, "%s is a scheme of ONNX models", scheme_name(r->scheme));
        return err_hint(err, e, "of this model ask for q8_0, q4_k_m, ...: see quantctl(1)");
    }
    CLEANUP(plan_free) struct plan *p = plan_new(m, arena_budget(m));
    if (!p)
        return no_memory(err);
    p->recipe = *r;
    p->borrowed_bytes = importance ? arena_used(importance->arena) : 0;

    uint64_t data_bytes = 0;
    int done = plan_meta(p, importance, err);
    if (done == 0)
        done = plan_tensors(p, importance, &data_bytes, err);
    if (done == 0)
        done = plan_finish(p, &p->meta, PLAN_ALIGNMENT, data_bytes, err);
    if (done < 0)
        return done;
    *ret = steal(&p);
    return 0;
}

struct plan *plan_free(struct plan *p)
{
    if (!p)
        return NULL;
    buffer_clear(&p->header);
    (void)arena_free(p->arena); /* returns NULL by convention */
    free(p);
    return NULL;
}

/* --- for people --- */

static void print_tensor(const struct plan_tensor *pt, struct buffer *dst)
{
    const struct tensor *t = pt->source;
    char shape[96];
    size_t n = 0;
    for (uint32_t d = 0; d < t->n_dims; d++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRIu64, d ? " x " : "", t->shape[d]);
    shape[n] = 0;
    buffer_printf(dst, "%-32s %-16s %5s -> %-5s %12" PRIu64 " at %-12" PRIu64 " %s\n", t->name, shape,
                  qd_type_info(t->type)->name, qd_type_info(pt->type)->name, pt->bytes, pt->offset, pt->reason);
}

static void print_sums(const struct plan *p, struct buffer *dst)
{
    uint64_t n_of[QD_N_TYPES] = {0}, n_elements = 0, n_bytes = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        n_of[p->tensors[i].type]++;
        n_elements += p->tensors[i].source->n_elements;
        n_bytes += p->tensors[i].bytes;
    }
    buffer_printf(dst, "%zu tensors:", p->n_tensors);
    for (int type = 0; type < QD_N_TYPES; type++) {
        if (n_of[type])
            buffer_printf(dst, " %" PRIu64 " %s", n_of[type], qd_type_info((enum qd_type)type)->name);
    }
    double bits = n_elements ? (double)n_bytes * 8 / (double)n_elements : 0;
    buffer_printf(dst,
                  "; %" PRIu64 " -> %" PRIu64 " bytes of weights, %.2f bits per weight; file of %" PRIu64 " bytes\n",
                  p->source_bytes, n_bytes, bits, p->file_bytes);
}

int plan_print(const struct plan *p, struct buffer *dst)
{
    char text[RECIPE_TEXT_MAX];
    if (plan_moves(p))
        (void)snprintf(text, sizeof text, "layout %s -> %s", qd_layout_info(p->from)->name,
                       qd_layout_info(p->to)->name); /* fits */
    else
        recipe_text(&p->recipe, text);
    buffer_printf(dst, "%s from %s, architecture '%s', %s\n", p->file_name, p->model->format, p->model->architecture,
                  text);
    for (size_t i = 0; i < p->n_tensors; i++)
        print_tensor(&p->tensors[i], dst);
    print_sums(p, dst);
    return dst->failed ? QD_E_NO_MEMORY : 0;
}
