/* Verification of payload bytes: by shard against the signed list, or every byte against the manifest. */
#include <pthread.h>
#include <string.h>

#include "client/artifact.h"
#include "kernels/core/error.h"
#include "kernels/core/processors.h"

enum { VERIFY_THREADS_MAX = 4 };

static int rebuild_hint(struct qd_error *err, int r)
{
    return err_hint(err, r, "quantctl verify finds damaged artifacts and rebuilds them");
}

/* The leaves of all payload files, in order. Under the lock. */
static int load_leaves(struct shared *s, struct qd_error *err)
{
    const struct manifest_file *m = manifest_file(&s->manifest, MANIFEST_SHARDS);
    CLEANUP(free) void *raw = NULL;
    if (!m)
        return err_new(err, QD_E_UNSUPPORTED, "the manifest names no list of shards");
    if (m->bytes != (uint64_t)s->n_leaves * DIGEST_BYTES)
        return err_new(err, QD_E_CORRUPT, "the list of shards has %llu bytes for %u shards",
                       (unsigned long long)m->bytes, s->n_leaves);
    int r = shared_read(s, (size_t)(m - s->manifest.files), &raw, err);
    if (r == 0)
        s->leaves = steal(&raw);
    return r;
}

static int prepare(struct shared *s, struct qd_error *err)
{
    int r = s->leaves ? 0 : load_leaves(s, err);
    if (r < 0 || s->verified)
        return r;
    s->verified = calloc(s->n_leaves, 1);
    return s->verified ? 0 : err_new(err, QD_E_NO_MEMORY, "marks of %u shards", s->n_leaves);
}

/* Shard @i of payload @file, digested from the mapping: what was checked is what is seen. */
static int check_shard(const struct shared *s, uint32_t file, uint64_t i, struct leaf_hasher *h, struct qd_error *err)
{
    const struct manifest_file *m = &s->manifest.files[file];
    uint64_t start = i * SHARD_BYTES;
    uint64_t n = m->bytes - start < SHARD_BYTES ? m->bytes - start : SHARD_BYTES;
    struct digest d;
    int r = leaf_hasher_start(h, i, err);
    if (r == 0)
        r = leaf_hasher_add(h, (struct bytes){(const uint8_t *)s->files[file].map + start, (size_t)n}, err);
    if (r == 0)
        r = leaf_hasher_finish(h, &d, err);
    if (r < 0 || digest_equal(&d, &s->leaves[s->files[file].first_shard + i]))
        return r;
    return rebuild_hint(err, err_new(err, QD_E_CORRUPT, "%s is damaged between bytes %llu and %llu", m->name,
                                     (unsigned long long)start, (unsigned long long)(start + n)));
}

static int check_range(struct shared *s, const struct qd_tensor *t, struct qd_error *err)
{
    int r = prepare(s, err);
    if (r < 0 || t->bytes == 0)
        return r;
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = NULL;
    uint64_t last = (t->offset + t->bytes - 1) / SHARD_BYTES; /* inside the file: the table was checked */
    for (uint64_t i = t->offset / SHARD_BYTES; i <= last; i++) {
        uint8_t *mark = &s->verified[s->files[t->file].first_shard + i];
        if (*mark)
            continue;
        if (!h && !(h = leaf_hasher_new()))
            return err_new(err, QD_E_NO_MEMORY, "shard of %s", t->name);
        r = check_shard(s, t->file, i, h, err);
        if (r < 0)
            return r;
        *mark = 1;
    }
    return 0;
}

int qd_tensor_verify(struct qd_artifact *a, const struct qd_tensor *t, struct qd_error *err)
{
    (void)pthread_mutex_lock(&a->shared->lock); /* fails only where it was never made */
    int r = check_range(a->shared, t, err);
    (void)pthread_mutex_unlock(&a->shared->lock);
    return r < 0 ? err_in(err, r, "tensor '%s'", t->name) : 0;
}

static unsigned threads_allowed(void)
{
    unsigned n = processors_allowed();
    return n < VERIFY_THREADS_MAX ? n : VERIFY_THREADS_MAX;
}

static int check_file(const struct shared *s, size_t i, unsigned n_threads, struct qd_error *err)
{
    const struct manifest_file *m = &s->manifest.files[i];
    struct digest d;
    int r = digest_file(s->files[i].fd, m->bytes, n_threads, &d, NULL, NULL, NULL, err);
    if (r == QD_E_SOURCE_CHANGED)
        return rebuild_hint(err, err_new(err, QD_E_CORRUPT, "%s has not the length that was signed", m->name));
    if (r < 0)
        return err_in(err, r, "%s", m->name);
    if (!digest_equal(&d, &m->digest))
        return rebuild_hint(err, err_new(err, QD_E_CORRUPT, "%s does not have the digest that was signed", m->name));
    return 0;
}

int qd_artifact_verify(struct qd_artifact *a, struct qd_error *err)
{
    unsigned n_threads = threads_allowed();
    int r = 0;
    for (size_t i = 0; r == 0 && i < a->shared->manifest.n_files; i++)
        r = check_file(a->shared, i, n_threads, err);
    return r < 0 ? err_in(err, r, "artifact of '%s'", a->shared->info.model) : 0;
}
