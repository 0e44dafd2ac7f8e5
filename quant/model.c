#include "quant/model.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/format.h"
#include "kernels/core/name_set.h"
#include "quant/limits.h"

static const struct format *const formats[] = {
#define FORMAT(name) &format_##name,
#include "quant/format/formats.def"
#undef FORMAT
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

/* What else people call a model; refused by what it is, not by what it is called. */
static const struct {
    size_t at;
    const char *magic;
    size_t n;
    const char *what;
    const char *hint;
} foreign[] = {
#define MAGIC(text) text, sizeof text - 1
    {0, MAGIC("PK\x03\x04"), "a zip archive (a PyTorch checkpoint or a .npz)",
     "convert it to safetensors; archives with pickles run code when opened"},
    {0, MAGIC("\x80\x02"), "a Python pickle", "convert it to safetensors; a pickle runs code when opened"},
    {0, MAGIC("\x80\x03"), "a Python pickle", "convert it to safetensors; a pickle runs code when opened"},
    {0, MAGIC("\x80\x04"), "a Python pickle", "convert it to safetensors; a pickle runs code when opened"},
    {0, MAGIC("\x80\x05"), "a Python pickle", "convert it to safetensors; a pickle runs code when opened"},
    {0, MAGIC("lmgg"), "a GGML file of 2023 or before", "convert the original weights to GGUF"},
    {0, MAGIC("fmgg"), "a GGML file of 2023 or before", "convert the original weights to GGUF"},
    {0, MAGIC("tjgg"), "a GGML file of 2023 or before", "convert the original weights to GGUF"},
    {0, MAGIC("\x93NUMPY"), "a NumPy array", "store the model as safetensors"},
    {0, MAGIC("\x89HDF"), "an HDF5 file", "store the model as safetensors"},
    {4, MAGIC("TFL3"), "a TensorFlow Lite model", "give the model in GGUF or safetensors"},
    {0, MAGIC("\x1f\x8b"), "a gzip archive", "unpack it first"},
    {0, MAGIC("\x28\xb5\x2f\xfd"), "a zstd archive", "unpack it first"},
    {0,
     MAGIC("\xfd"
           "7zXZ"),
     "an xz archive", "unpack it first"},
    {257, MAGIC("ustar"), "a tar archive", "unpack it first"},
    {0,
     MAGIC("\x7f"
           "ELF"),
     "a program", "give the model file itself"},
    {0, MAGIC("version https://git-lfs"), "a Git LFS pointer, not the file",
     "run `git lfs pull` in the model's folder"},
    {0, MAGIC("<!DOCTYPE"), "a web page", "the download failed: fetch the file again"},
    {0, MAGIC("<!doctype"), "a web page", "the download failed: fetch the file again"},
    {0, MAGIC("<html"), "a web page", "the download failed: fetch the file again"},
#undef MAGIC
};

/* 0 when @head is nothing known to be foreign. */
static int refuse_foreign(struct bytes head, const char *name, struct qd_error *err)
{
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (head.n < foreign[i].at + foreign[i].n ||
            memcmp(head.data + foreign[i].at, foreign[i].magic, foreign[i].n) != 0)
            continue;
        int r = err_new(err, QD_E_UNSUPPORTED, "'%s': byte %zu: this is %s", name, foreign[i].at, foreign[i].what);
        return err_hint(err, r, "%s", foreign[i].hint);
    }
    return 0;
}

static const struct format *first_format(struct bytes head, const char *name, uint64_t n_bytes,
                                         enum recognised at_least)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (formats[i]->recognise(head, name, n_bytes) >= at_least)
            return formats[i];
    return NULL;
}

static int find_format(struct source *s, const struct format **ret, struct qd_error *err)
{
    uint8_t raw[FORMAT_HEAD_BYTES];
    uint64_t n_bytes = source_bytes(s, 0);
    struct bytes head = {raw, n_bytes < sizeof raw ? (size_t)n_bytes : sizeof raw};
    int r = source_read_meta(s, 0, 0, raw, head.n, err);
    if (r < 0)
        return r;
    const char *name = source_name(s, 0);
    const struct format *f = first_format(head, name, n_bytes, RECOGNISED_BY_CONTENT);
    if (!f) {
        r = refuse_foreign(head, name, err);
        if (r < 0)
            return r;
        f = first_format(head, name, n_bytes, RECOGNISED_BY_NAME);
    }
    if (!f) {
        r = err_new(err, QD_E_UNSUPPORTED, "'%s': byte 0: neither GGUF nor safetensors", name);
        return err_hint(err, r, "give a .gguf file, a .safetensors file, or a folder with model.safetensors");
    }
    *ret = f;
    return 0;
}

int probe_add_files(const struct probe *p, struct source *s, struct qd_error *err)
{
    int r = 0;
    for (size_t i = 0; i < p->n_files && r == 0; i++)
        r = source_add_companion(s, p->files[i].role, p->files[i].name, p->files[i].required, err);
    return r;
}

struct probe *probe_free(struct probe *p)
{
    if (p)
        (void)arena_free(p->arena); /* returns NULL */
    free(p);
    return NULL;
}

int model_probe(struct source *s, struct probe **ret, struct qd_error *err)
{
    const struct format *f;
    int r = find_format(s, &f, err);
    if (r < 0)
        return r;
    CLEANUP(probe_free) struct probe *p = calloc(1, sizeof *p);
    if (!p || !(p->arena = arena_new(LIMIT_HEADER_BUDGET_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    p->format = f->name;
    r = f->probe(s, p, err);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}

struct model *model_free(struct model *m)
{
    if (m)
        (void)arena_free(m->arena); /* returns NULL */
    free(m);
    return NULL;
}

int model_read(struct source *s, size_t budget_bytes, struct model **ret, struct qd_error *err)
{
    const struct format *f;
    int r = find_format(s, &f, err);
    if (r < 0)
        return r;
    CLEANUP(model_free) struct model *m = calloc(1, sizeof *m);
    if (!m || !(m->arena = arena_new(budget_bytes)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    m->format = f->name;
    m->architecture = "";
    r = f->read(s, m, err);
    if (r == 0)
        r = model_check(m, s, err);
    if (r < 0)
        return r;
    *ret = steal(&m);
    return 0;
}

int tensor_measure(struct tensor *t, struct qd_error *err)
{
    const struct qd_type_info *type = qd_type_info(t->type);
    uint64_t n = 1;
    bool empty = false;
    for (uint32_t d = 0; d < MODEL_DIMS_MAX; d++)
        empty = empty || t->shape[d] == 0;
    for (uint32_t d = 0; d < MODEL_DIMS_MAX && !empty; d++)
        if (!checked_mul(n, t->shape[d], &n) || n > INT64_MAX)
            return err_new(err, QD_E_CORRUPT,
                           "has more elements than can be counted: %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64,
                           t->shape[0], t->shape[1], t->shape[2], t->shape[3]);
    if (t->shape[0] % type->block_elements)
        return err_new(err, QD_E_CORRUPT, "has rows of %" PRIu64 " elements, no multiple of %s's %" PRIu32, t->shape[0],
                       type->name, type->block_elements);
    t->n_elements = empty ? 0 : n;
    if (!checked_mul(t->n_elements / type->block_elements, type->block_bytes, &t->bytes))
        return err_new(err, QD_E_CORRUPT, "has more bytes than can be counted");
    return 0;
}

/* The next step for a file whose content cannot be right. */
static int hint_damaged(int r, struct qd_error *err)
{
    return err_hint(err, r, "the file is damaged, or was written by a faulty tool: fetch or convert it again");
}

static int check_tensor(const struct tensor *t, const struct source *s, struct qd_error *err)
{
    if (!t->name || !t->name[0] || strlen(t->name) > LIMIT_TENSOR_NAME_BYTES)
        return hint_damaged(err_new(err, QD_E_LIMIT, "'%s': a tensor's name is empty or longer than %d bytes",
                                    source_name(s, 0), LIMIT_TENSOR_NAME_BYTES),
                            err);
    if (t->n_dims > MODEL_DIMS_MAX || (unsigned)t->type >= QD_N_TYPES || t->file >= source_n_files(s))
        return err_new(err, QD_E_INTERNAL, "tensor '%s' was read wrongly", t->name);
    struct tensor again = *t;
    struct qd_error reason;
    int r = tensor_measure(&again, &reason);
    if (r < 0)
        return hint_damaged(err_new(err, r, "'%s': tensor '%s' %s", source_name(s, t->file), t->name, reason.message),
                            err);
    if (again.n_elements != t->n_elements || again.bytes != t->bytes)
        return err_new(err, QD_E_INTERNAL, "tensor '%s' was measured wrongly", t->name);
    uint64_t file_bytes = source_bytes(s, t->file);
    if (range_inside(t->offset, t->bytes, file_bytes))
        return 0;
    r = err_new(err, QD_E_CORRUPT,
                "'%s': byte %" PRIu64 ": tensor '%s' needs %" PRIu64 " bytes from here, the file ends at byte %" PRIu64,
                source_name(s, t->file), t->offset, t->name, t->bytes, file_bytes);
    return err_hint(err, r, "the file is cut short: fetch it again and compare its size");
}

/* Rotary pairs: heads divide the rows, and each head has an even number of them. */
static int check_row_order(const struct tensor *t, const struct source *s, struct qd_error *err)
{
    uint64_t rows = t->shape[0] ? t->n_elements / t->shape[0] : 0;
    uint64_t all = t->n_dims == 1 ? t->shape[0] : rows; /* a bias has an element where a matrix has a row */
    if (t->row_order == ROWS_AS_STORED || (t->head_rows >= 2 && t->head_rows % 2 == 0 && all % t->head_rows == 0))
        return 0;
    int r = err_new(err, QD_E_CORRUPT,
                    "'%s': tensor '%s' has %" PRIu64 " rows, which %" PRIu64 " rows a head do not divide into pairs",
                    source_name(s, t->file), t->name, all, t->head_rows);
    return hint_damaged(r, err);
}

int model_check(const struct model *m, const struct source *s, struct qd_error *err)
{
    if (m->n_tensors > LIMIT_TENSORS || m->meta.n > LIMIT_META_KEYS)
        return err_new(err, QD_E_LIMIT, "'%s': %zu tensors and %zu metadata keys; the limits are %d and %d",
                       source_name(s, 0), m->n_tensors, m->meta.n, LIMIT_TENSORS, LIMIT_META_KEYS);
    CLEANUP(name_set_clear) struct name_set names = {0};
    if (name_set_init(&names, m->n_tensors) < 0)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        int r = check_tensor(t, s, err);
        if (r == 0)
            r = check_row_order(t, s, err);
        if (r < 0)
            return r;
        size_t earlier;
        r = name_set_add(&names, t->name, i, &earlier);
        if (r > 0) {
            r = err_new(err, QD_E_CORRUPT, "'%s': byte %" PRIu64 ": tensor %zu is called '%s', as tensor %zu is",
                        source_name(s, t->file), t->offset, i, t->name, earlier);
            return hint_damaged(r, err);
        }
        if (r < 0)
            return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    }
    return 0;
}

const struct tensor *model_find(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    return NULL;
}
