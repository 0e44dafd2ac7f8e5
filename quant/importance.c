#include "quant/importance.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "kernels/kernels.h"
#include "quant/format/imatrix.h"
#include "quant/limits.h"

enum { GGUF_MAGIC = 0x46554747, FILE_TYPE_Q2_K_S = 21 /* llama.cpp:include/llama.h */ };

/* ---- reading -------------------------------------------------------------------------------- */

struct importance *importance_free(struct importance *i)
{
    if (i)
        (void)arena_free(i->arena); /* returns NULL by convention */
    free(i);
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct importance_entry *)a)->name, ((const struct importance_entry *)b)->name);
}

static int sort_entries(struct importance *i, const char *file, struct qd_error *err)
{
    if (i->n_entries == 0)
        return imatrix_damaged(err_new(err, QD_E_CORRUPT, "'%s': an importance matrix without entries", file), err);
    qsort(i->entries, i->n_entries, sizeof *i->entries, compare_names);
    for (size_t k = 1; k < i->n_entries; k++)
        if (strcmp(i->entries[k - 1].name, i->entries[k].name) == 0)
            return imatrix_damaged(err_new(err, QD_E_CORRUPT, "'%s': '%s' stands twice", file, i->entries[k].name),
                                   err);
    return 0;
}

static int read_form(struct source *s, size_t file, struct importance *i, struct qd_error *err)
{
    uint8_t raw[4] = {0};
    size_t n = source_bytes(s, file) < sizeof raw ? (size_t)source_bytes(s, file) : sizeof raw;
    int r = source_read_meta(s, file, 0, raw, n, err);
    if (r < 0)
        return r;
    struct cursor c = cursor_over((struct bytes){raw, n});
    return cursor_u32(&c) == GGUF_MAGIC ? imatrix_read_gguf(s, file, i, err) : imatrix_read_dat(s, file, i, err);
}

int importance_read(struct source *s, size_t file, size_t budget_bytes, struct importance **ret, struct qd_error *err)
{
    const char *name = source_name(s, file);
    uint64_t n_bytes = source_bytes(s, file);
    if (n_bytes > LIMIT_IMPORTANCE_BYTES) {
        int r = err_new(err, QD_E_LIMIT, "'%s': an importance matrix of %" PRIu64 " bytes; the limit is %d", name,
                        n_bytes, LIMIT_IMPORTANCE_BYTES);
        return err_hint(err, r, "no known model needs this much: give the file that llama-imatrix wrote");
    }
    CLEANUP(importance_free) struct importance *i = calloc(1, sizeof *i);
    if (!i || !(i->arena = arena_new(budget_bytes)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", name);
    int r = read_form(s, file, i, err);
    if (r == 0)
        r = sort_entries(i, name, err);
    if (r == 0)
        r = digest_file(source_fd(s, file), n_bytes, 1, &i->digest, NULL, NULL, NULL, err);
    if (r < 0)
        return r;
    *ret = steal(&i);
    return 0;
}

int importance_file(const struct source *s)
{
    return source_find_role(s, IMPORTANCE_ROLE);
}

/* ---- use -------------------------------------------------------------------------------------- */

static const struct importance_entry *find(const struct importance *i, const char *tensor)
{
    const struct importance_entry key = {.name = tensor};
    return bsearch(&key, i->entries, i->n_entries, sizeof key, compare_names);
}

const float *importance_of(const struct importance *i, const char *tensor, size_t *ret_n)
{
    const struct importance_entry *e = find(i, tensor);
    *ret_n = e ? e->n : 0;
    return e ? e->values : NULL;
}

static bool is_token_embedding(const char *tensor)
{
    return strcmp(tensor, "token_embd.weight") == 0 || strcmp(tensor, "per_layer_token_embd.weight") == 0;
}

/* Columns times experts; a fourth dimension is nothing that the field knows. */
static bool fits(const struct importance_entry *e, const struct tensor *t)
{
    uint64_t n;
    return t->n_dims >= 1 && t->shape[3] == 1 && checked_mul(t->shape[0], t->shape[2], &n) && n == e->n;
}

static int refuse_size(const struct importance_entry *e, const struct tensor *t, struct qd_error *err)
{
    int r =
        err_new(err, QD_E_INVALID,
                "tensor '%s' has %" PRIu64 " columns and %" PRIu64 " experts, the importance matrix %zu values for it",
                t->name, t->shape[0], t->shape[2], e->n);
    return err_hint(err, r, "it was made from another model: make it again from this one (llama-imatrix -m MODEL)");
}

static int check_entry(const struct importance_entry *e, const struct tensor *t, struct qd_error *err)
{
    if (!fits(e, t))
        return is_token_embedding(t->name) ? 0 : refuse_size(e, t, err);
    if (e->n_counts <= 1 || e->n_counts == t->shape[2])
        return 0;
    int r = err_new(err, QD_E_INVALID,
                    "tensor '%s' has %" PRIu64 " experts, the importance matrix counts for %" PRIu64 " of them",
                    t->name, t->shape[2], e->n_counts);
    return err_hint(err, r, "it was made from another model: make it again from this one (llama-imatrix -m MODEL)");
}

int importance_check(const struct importance *i, const struct model *m, struct qd_error *err)
{
    size_t n_used = 0;
    for (size_t k = 0; k < m->n_tensors; k++) {
        const struct tensor *t = &m->tensors[k];
        const struct importance_entry *e = find(i, t->name);
        int r = e ? check_entry(e, t, err) : 0;
        if (r < 0)
            return r;
        n_used += e && fits(e, t);
    }
    if (n_used > 0)
        return 0;
    int r = err_new(err, QD_E_INVALID,
                    "the importance matrix fits no tensor of the model: of its %zu entries the first is '%.63s'",
                    i->n_entries, i->entries[0].name);
    return err_hint(err, r, "give the one that was made from this model (llama-imatrix -m MODEL)");
}

const float *importance_for(const struct importance *i, const struct tensor *t, enum qd_type type)
{
    const struct importance_entry *e = i ? find(i, t->name) : NULL;
    if (!e || !fits(e, t) || t->type == type)
        return NULL;
    return ops_for(0)->quantize_weighted[type] ? e->values : NULL; /* every encoder has a scalar form: no CPU matters */
}

bool importance_required(const char *tensor, enum qd_type type, uint32_t file_type)
{
    static const bool required[QD_N_TYPES] = {
        [QD_TYPE_IQ1_S] = true,  [QD_TYPE_IQ1_M] = true, [QD_TYPE_IQ2_XXS] = true,
        [QD_TYPE_IQ2_XS] = true, [QD_TYPE_IQ2_S] = true, [QD_TYPE_IQ3_XXS] = true,
    };
    if (is_token_embedding(tensor) || strcmp(tensor, "output.weight") == 0)
        return false;
    return required[type] || (type == QD_TYPE_Q2_K && file_type == FILE_TYPE_Q2_K_S);
}
