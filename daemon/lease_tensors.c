#include "daemon/lease_tensors.h"

#include <stdlib.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

enum { TABLE_ARENA_BYTES = 256 << 20 };

int lease_tensors(const struct lease *lease, struct arena **ret_arena, struct tensor_table *ret, struct qd_error *err)
{
    const struct manifest *m = lease->manifest;
    uint64_t payload_bytes[MANIFEST_FILES_MAX];
    size_t n_payload = 0, table = m->n_files;
    for (size_t i = 0; i < m->n_files; i++) {
        if (m->files[i].role == MANIFEST_PAYLOAD)
            payload_bytes[n_payload++] = m->files[i].bytes;
        if (m->files[i].role == MANIFEST_TENSORS)
            table = i;
    }
    *ret_arena = NULL;
    if (table == m->n_files || m->files[table].bytes > TABLE_BYTES_MAX)
        return err_new(err, QD_E_CORRUPT, "the artifact has no table of tensors");
    CLEANUP(free) uint8_t *raw = malloc(m->files[table].bytes + 1);
    if (!raw || !(*ret_arena = arena_new(TABLE_ARENA_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "table of tensors");
    ssize_t n = pread_whole(lease->fds[table], raw, m->files[table].bytes, 0);
    if (n != (ssize_t)m->files[table].bytes)
        return err_new(err, QD_E_IO, "table of tensors: read %zd bytes of %llu", n,
                       (unsigned long long)m->files[table].bytes);
    return tensor_table_decode((struct bytes){raw, (size_t)n}, payload_bytes, n_payload, *ret_arena, ret, err);
}
