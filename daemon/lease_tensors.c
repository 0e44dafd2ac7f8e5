#include "daemon/lease_tensors.h"

#include <stdlib.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

enum { TABLE_ARENA_BYTES = 256 << 20 };

/* The file of @role, whole, in an arena of its own. */
static int read_table(const struct lease *lease, enum manifest_role role, struct arena **ret_arena, struct bytes *ret,
                      struct qd_error *err)
{
    const struct manifest_file *f = manifest_file(lease->manifest, role);
    *ret_arena = NULL;
    if (!f || f->bytes > TABLE_BYTES_MAX)
        return err_new(err, QD_E_CORRUPT, "the artifact has no such table");
    *ret_arena = arena_new(TABLE_ARENA_BYTES + f->bytes);
    uint8_t *raw = *ret_arena ? arena_alloc(*ret_arena, f->bytes + 1, 1) : NULL;
    if (!raw)
        return err_new(err, QD_E_NO_MEMORY, "a table of the artifact");
    ssize_t n = pread_whole(lease->fds[f - lease->manifest->files], raw, f->bytes, 0);
    if (n != (ssize_t)f->bytes)
        return err_new(err, QD_E_IO, "a table of the artifact: read %zd bytes of %llu", n,
                       (unsigned long long)f->bytes);
    *ret = (struct bytes){raw, (size_t)n};
    return 0;
}

int lease_tensors(const struct lease *lease, struct arena **ret_arena, struct tensor_table *ret, struct qd_error *err)
{
    const struct manifest *m = lease->manifest;
    uint64_t payload_bytes[MANIFEST_FILES_MAX];
    struct bytes raw;
    size_t n_payload = 0;
    for (size_t i = 0; i < m->n_files; i++)
        if (m->files[i].role == MANIFEST_PAYLOAD)
            payload_bytes[n_payload++] = m->files[i].bytes;
    int r = read_table(lease, MANIFEST_TENSORS, ret_arena, &raw, err);
    return r < 0 ? r : tensor_table_decode(raw, payload_bytes, n_payload, *ret_arena, ret, err);
}

int lease_metadata(const struct lease *lease, struct arena **ret_arena, struct meta_table *ret, struct qd_error *err)
{
    struct bytes raw;
    int r = read_table(lease, MANIFEST_METADATA, ret_arena, &raw, err);
    return r < 0 ? r : meta_table_decode(raw, *ret_arena, ret, err);
}
