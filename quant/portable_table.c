#include "quant/portable_table.h"

#include <inttypes.h>
#include <string.h>

struct portable_table *portable_table_free(struct portable_table *t)
{
    if (t)
        (void)arena_free(t->arena); /* returns NULL by convention */
    free(t);
    return NULL;
}

int portable_table_file(const struct source *s)
{
    return source_find_role(s, PORTABLE_TABLE_ROLE);
}

static bool is_of(const struct tensor_entry *e, const struct tensor *t)
{
    return strcmp(e->name, t->name) == 0 && e->type == t->type && e->n_dims == t->n_dims &&
           memcmp(e->shape, t->shape, sizeof t->shape) == 0 && e->file == t->file && e->offset == t->offset &&
           e->bytes == t->bytes;
}

static int check_same(const struct tensor_table *table, const struct model *m, struct qd_error *err)
{
    if (table->n != m->n_tensors)
        return err_new(err, QD_E_CORRUPT, "the table lists %zu tensors, the file holds %zu", table->n, m->n_tensors);
    for (size_t i = 0; i < table->n; i++)
        if (!is_of(&table->tensors[i], &m->tensors[i]))
            return err_new(err, QD_E_CORRUPT, "tensor %zu is '%s' in the file, and is not in the table as it is there",
                           i, m->tensors[i].name);
    return 0;
}

static int read_raw(struct source *s, size_t file, size_t budget_bytes, struct bytes *ret, struct qd_error *err)
{
    uint64_t n = source_bytes(s, file);
    if (n > TABLE_BYTES_MAX || n > budget_bytes)
        return err_new(err, QD_E_LIMIT, "a tensor table of %" PRIu64 " bytes", n);
    CLEANUP(free) uint8_t *raw = malloc((size_t)n + 1);
    if (!raw)
        return err_new(err, QD_E_NO_MEMORY, "a tensor table of %" PRIu64 " bytes", n);
    int r = source_read_meta(s, file, 0, raw, (size_t)n, err);
    if (r < 0)
        return r;
    *ret = (struct bytes){steal(&raw), (size_t)n};
    return 0;
}

int portable_table_read(struct source *s, size_t file, const struct model *m, size_t budget_bytes,
                        struct portable_table **ret, struct qd_error *err)
{
    struct bytes raw = {0};
    int r = read_raw(s, file, budget_bytes, &raw, err);
    if (r < 0)
        return r;
    CLEANUP(free) const uint8_t *owned = raw.data;
    CLEANUP(portable_table_free) struct portable_table *t = calloc(1, sizeof *t);
    if (!t || !(t->arena = arena_new(budget_bytes - raw.n)))
        return err_new(err, QD_E_NO_MEMORY, "a tensor table");
    const uint64_t payload_bytes = source_bytes(s, 0);
    r = tensor_table_decode(raw, &payload_bytes, 1, t->arena, &t->table, err);
    if (r == 0)
        r = check_same(&t->table, m, err);
    if (r < 0)
        return r;
    *ret = steal(&t);
    return 0;
}
