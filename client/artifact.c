#include "client/artifact.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/core/error.h"

int artifact_new(struct shared **s, enum qd_verify verify, const char *why, struct qd_artifact **ret,
                 struct qd_error *err)
{
    CLEANUP(qd_artifact_free) struct qd_artifact *a = calloc(1, sizeof *a);
    if (!a)
        return err_new(err, QD_E_NO_MEMORY, "artifact");
    a->shared = steal(s);
    a->why = why ? strdup(why) : NULL; /* for people: none at worst */
    a->verify = verify;
    int r = verify == QD_VERIFY_FULL ? qd_artifact_verify(a, err) : 0;
    if (r < 0)
        return r;
    *ret = steal(&a);
    return 0;
}

void qd_artifact_free(struct qd_artifact *a)
{
    if (!a)
        return;
    (void)shared_put(a->shared);
    free(a->why);
    free(a);
}

size_t qd_artifact_n_tensors(const struct qd_artifact *a)
{
    return a->shared->table.n;
}

const struct qd_tensor *qd_artifact_tensor_at(const struct qd_artifact *a, size_t i)
{
    return i < a->shared->table.n ? &a->shared->views[i] : NULL;
}

const struct qd_tensor *qd_artifact_tensor(const struct qd_artifact *a, const char *name)
{
    const struct qd_tensor *t = shared_tensor(a->shared, name);
    if (!t || a->verify != QD_VERIFY_LAZY)
        return t;
    /* The marks of what was verified have their own lock; the artifact itself stays as it is. */
    struct qd_artifact *marked = (struct qd_artifact *)(uintptr_t)a;
    return qd_tensor_verify(marked, t, NULL) == 0 ? t : NULL;
}

const struct qd_artifact_info *qd_artifact_info(const struct qd_artifact *a)
{
    return &a->shared->info;
}

const char *qd_artifact_why(const struct qd_artifact *a)
{
    return a->why ? a->why : "";
}

int qd_artifact_fd(const struct qd_artifact *a, uint32_t i)
{
    return i < a->shared->n_payload ? a->shared->files[i].fd : -1;
}

const void *qd_artifact_map(const struct qd_artifact *a, uint32_t i, uint64_t *ret_bytes)
{
    if (i >= a->shared->n_payload)
        return NULL;
    if (ret_bytes)
        *ret_bytes = a->shared->manifest.files[i].bytes;
    return a->shared->files[i].map;
}

const char *qd_artifact_file_name(const struct qd_artifact *a, uint32_t i)
{
    return i < a->shared->n_payload ? a->shared->manifest.files[i].name : NULL;
}
