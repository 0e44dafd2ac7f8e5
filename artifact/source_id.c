#include "artifact/source_id.h"

#include <stdlib.h>
#include <string.h>

#include "artifact/pack.h"

static int by_role_and_name(const void *a, const void *b)
{
    const struct source_file_id *x = a, *y = b;
    int order = strcmp(x->role, y->role);
    return order ? order : strcmp(x->name, y->name);
}

static int check_list(const struct source_file_id *sorted, size_t n_files, struct qd_error *err)
{
    for (size_t i = 1; i < n_files; i++)
        if (by_role_and_name(&sorted[i - 1], &sorted[i]) == 0)
            return err_new(err, QD_E_INVALID, "source file '%s' is listed twice as %s", sorted[i].name, sorted[i].role);
    return 0;
}

static void pack_source_file(const struct source_file_id *f, struct buffer *dst)
{
    pack_map(dst, 4);
    pack_text(dst, "role");
    pack_text(dst, f->role);
    pack_text(dst, "name");
    pack_text(dst, f->name);
    pack_text(dst, "bytes");
    pack_u64(dst, f->bytes);
    pack_text(dst, "digest");
    pack_bin(dst, (struct bytes){f->digest.bytes, DIGEST_BYTES});
}

int source_identity(const struct source_file_id *files, size_t n_files, struct digest *ret, struct qd_error *err)
{
    if (n_files == 0 || n_files > SOURCE_FILES_MAX)
        return err_new(err, QD_E_LIMIT, "a source of %zu files, 1 to %d are allowed", n_files, SOURCE_FILES_MAX);
    CLEANUP(free) struct source_file_id *sorted = calloc(n_files, sizeof *sorted);
    if (!sorted)
        return err_new(err, QD_E_NO_MEMORY, "a list of %zu source files", n_files);
    memcpy(sorted, files, n_files * sizeof *files);
    qsort(sorted, n_files, sizeof *sorted, by_role_and_name);
    int r = check_list(sorted, n_files, err);
    if (r < 0)
        return r;

    CLEANUP(buffer_clear) struct buffer list = {0};
    pack_array(&list, (uint32_t)n_files);
    for (size_t i = 0; i < n_files; i++)
        pack_source_file(&sorted[i], &list);
    if (list.failed)
        return err_new(err, QD_E_NO_MEMORY, "a list of %zu source files", n_files);
    return digest_message("source", buffer_span(&list), ret, err);
}
