#include "artifact/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/core/bytes.h"
#include "kernels/core/io.h"

enum { PIECE_BYTES = 1 << 20 };

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}

void digest_hex(const struct digest *d, char dst[DIGEST_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        dst[2 * i] = digits[d->bytes[i] >> 4];
        dst[2 * i + 1] = digits[d->bytes[i] & 15];
    }
    dst[2 * DIGEST_BYTES] = '\0';
}

bool digest_parse(const char *text, struct digest *ret)
{
    if (strnlen(text, DIGEST_HEX_BYTES) != 2 * DIGEST_BYTES)
        return false;
    struct digest d;
    if (!hex_bytes(text, d.bytes, DIGEST_BYTES))
        return false;
    *ret = d;
    return true;
}

/* SHA-256 as libcrypto makes it; @ctx is wrapped so that leaf hashers are reused without allocation. */
struct leaf_hasher {
    EVP_MD_CTX *ctx; /* owned */
};

static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256; /* the process's; NULL where libcrypto has no such digest */

/* EVP_sha256() would be looked up among libcrypto's providers at every start of a hash. */
static void fetch_sha256(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
}

static int crypto_failed(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "SHA-256: out of memory, or libcrypto has no such digest");
}

struct leaf_hasher *leaf_hasher_new(void)
{
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = calloc(1, sizeof *h);
    if (!h || !(h->ctx = EVP_MD_CTX_new()))
        return NULL;
    return steal(&h);
}

struct leaf_hasher *leaf_hasher_free(struct leaf_hasher *h)
{
    if (h)
        EVP_MD_CTX_free(h->ctx);
    free(h);
    return NULL;
}

/* Starts "quantd <tag> 1\0". */
static int start_tagged(struct leaf_hasher *h, const char *tag, struct qd_error *err)
{
    static const char before[] = "quantd ", after[] = " 1"; /* the NUL of `after` is part of the tag */
    (void)pthread_once(&sha256_once, fetch_sha256);         /* fails only where it was never made */
    if (!sha256 || EVP_DigestInit_ex(h->ctx, sha256, NULL) != 1 ||
        EVP_DigestUpdate(h->ctx, before, sizeof before - 1) != 1 || EVP_DigestUpdate(h->ctx, tag, strlen(tag)) != 1 ||
        EVP_DigestUpdate(h->ctx, after, sizeof after) != 1)
        return crypto_failed(err);
    return 0;
}

static int add_u64(struct leaf_hasher *h, uint64_t v, struct qd_error *err)
{
    uint8_t raw[8];
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    return leaf_hasher_add(h, (struct bytes){raw, sizeof raw}, err);
}

int leaf_hasher_start(struct leaf_hasher *h, uint64_t shard_index, struct qd_error *err)
{
    int r = start_tagged(h, "shard", err);
    return r < 0 ? r : add_u64(h, shard_index, err);
}

int leaf_hasher_add(struct leaf_hasher *h, struct bytes piece, struct qd_error *err)
{
    if (piece.n && EVP_DigestUpdate(h->ctx, piece.data, piece.n) != 1)
        return crypto_failed(err);
    return 0;
}

int leaf_hasher_finish(struct leaf_hasher *h, struct digest *ret, struct qd_error *err)
{
    return EVP_DigestFinal_ex(h->ctx, ret->bytes, NULL) == 1 ? 0 : crypto_failed(err);
}

int digest_message(const char *tag, struct bytes message, struct digest *ret, struct qd_error *err)
{
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    if (!h)
        return crypto_failed(err);
    int r = start_tagged(h, tag, err);
    if (r == 0)
        r = leaf_hasher_add(h, message, err);
    return r < 0 ? r : leaf_hasher_finish(h, ret, err);
}

uint64_t shard_count(uint64_t file_bytes)
{
    return file_bytes / SHARD_BYTES + (file_bytes % SHARD_BYTES != 0);
}

int digest_of_leaves(uint64_t file_bytes, const struct digest *leaves, struct digest *ret, struct qd_error *err)
{
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    if (!h)
        return crypto_failed(err);
    int r = start_tagged(h, "file", err);
    if (r == 0)
        r = add_u64(h, file_bytes, err);
    if (r == 0)
        r = leaf_hasher_add(h, (struct bytes){(const uint8_t *)leaves, shard_count(file_bytes) * DIGEST_BYTES}, err);
    return r < 0 ? r : leaf_hasher_finish(h, ret, err);
}

int digest_of_bytes(struct bytes file, struct digest *ret, struct qd_error *err)
{
    uint64_t n_shards = shard_count(file.n);
    CLEANUP(free) struct digest *leaves = calloc(n_shards ? n_shards : 1, sizeof *leaves);
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    if (!leaves || !h)
        return crypto_failed(err);
    for (uint64_t i = 0; i < n_shards; i++) {
        size_t at = i * SHARD_BYTES, left = file.n - at;
        struct bytes shard = {file.data + at, left < SHARD_BYTES ? left : SHARD_BYTES};
        int r = leaf_hasher_start(h, i, err);
        if (r == 0)
            r = leaf_hasher_add(h, shard, err);
        if (r == 0)
            r = leaf_hasher_finish(h, &leaves[i], err);
        if (r < 0)
            return r;
    }
    return digest_of_leaves(file.n, leaves, ret, err);
}

/* One digest_file call; the threads take shards in turn. */
struct file_hash {
    int fd;
    uint64_t file_bytes;
    struct digest *leaves; /* borrowed, [shard_count(file_bytes)] */
    const _Atomic int *cancel;
    _Atomic uint64_t *done_bytes;
    _Atomic uint64_t next_shard;
    _Atomic int failed; /* a thread has failed: the others stop */
};

struct file_hash_thread {
    struct file_hash *job;
    pthread_t thread;
    int result;
    struct qd_error error;
};

/* Reads the next piece of shard; fewer bytes than asked means that the file has shrunk. */
static int hash_piece(struct file_hash *job, struct leaf_hasher *h, uint8_t *piece, uint64_t at, size_t n,
                      struct qd_error *err)
{
    if (job->cancel && atomic_load_explicit(job->cancel, memory_order_relaxed))
        return err_new(err, QD_E_CANCELLED, "hashing was cancelled");
    ssize_t got = pread_whole(job->fd, piece, n, at);
    if (got < 0)
        return err_sys(err, (int)-got, "read at offset %llu", (unsigned long long)at);
    if ((size_t)got != n)
        return err_new(err, QD_E_SOURCE_CHANGED, "the file ends at %llu of %llu bytes",
                       (unsigned long long)(at + (uint64_t)got), (unsigned long long)job->file_bytes);
    if (job->done_bytes)
        atomic_fetch_add_explicit(job->done_bytes, n, memory_order_relaxed);
    return leaf_hasher_add(h, (struct bytes){piece, n}, err);
}

static int hash_shard(struct file_hash *job, struct leaf_hasher *h, uint8_t *piece, uint64_t shard,
                      struct qd_error *err)
{
    uint64_t at = shard * SHARD_BYTES, end = at + SHARD_BYTES;
    if (end > job->file_bytes)
        end = job->file_bytes;
    int r = leaf_hasher_start(h, shard, err);
    while (r == 0 && at < end) {
        size_t n = end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES;
        r = hash_piece(job, h, piece, at, n, err);
        at += n;
    }
    return r < 0 ? r : leaf_hasher_finish(h, &job->leaves[shard], err);
}

static int hash_shards(struct file_hash *job, struct qd_error *err)
{
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    CLEANUP(free) uint8_t *piece = malloc(PIECE_BYTES);
    if (!h || !piece)
        return err_new(err, QD_E_NO_MEMORY, "a hashing thread's buffer");
    uint64_t n_shards = shard_count(job->file_bytes), shard;
    while ((shard = atomic_fetch_add(&job->next_shard, 1)) < n_shards) {
        if (atomic_load(&job->failed))
            return 0; /* whoever failed says why */
        int r = hash_shard(job, h, piece, shard, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void *hash_thread(void *data)
{
    struct file_hash_thread *t = data;
    t->result = hash_shards(t->job, &t->error);
    if (t->result < 0)
        atomic_store(&t->job->failed, 1);
    return NULL;
}

/* Runs on this thread and on up to @n_threads - 1 more; a thread that cannot start is done without. */
static int hash_with_threads(struct file_hash *job, unsigned n_threads, struct qd_error *err)
{
    enum { THREADS_MAX = 64 };
    CLEANUP(free) struct file_hash_thread *t = calloc(THREADS_MAX, sizeof *t);
    if (!t)
        return err_new(err, QD_E_NO_MEMORY, "hashing threads");
    if (n_threads > THREADS_MAX)
        n_threads = THREADS_MAX;
    unsigned n = 1;
    for (t[0].job = job; n < n_threads && n < shard_count(job->file_bytes); n++) {
        t[n].job = job;
        if (pthread_create(&t[n].thread, NULL, hash_thread, &t[n]) != 0)
            break;
    }
    (void)hash_thread(&t[0]);
    for (unsigned i = 1; i < n; i++)
        (void)pthread_join(t[i].thread, NULL); /* started above: cannot fail */
    for (unsigned i = 0; i < n; i++) {
        if (t[i].result < 0) {
            if (err)
                *err = t[i].error;
            return t[i].result;
        }
    }
    return 0;
}

/* The size at this moment; also keeps the leaf array no larger than a real file's. */
static int check_size(int fd, uint64_t file_bytes, struct qd_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat");
    if ((uint64_t)st.st_size != file_bytes)
        return err_new(err, QD_E_SOURCE_CHANGED, "the file has %llu bytes, %llu were expected",
                       (unsigned long long)st.st_size, (unsigned long long)file_bytes);
    return 0;
}

int digest_file(int fd, uint64_t file_bytes, unsigned n_threads, struct digest *ret, struct digest **ret_leaves,
                const _Atomic int *cancel, _Atomic uint64_t *done_bytes, struct qd_error *err)
{
    int r = check_size(fd, file_bytes, err);
    if (r < 0)
        return r;
    uint64_t n_shards = shard_count(file_bytes);
    CLEANUP(free) struct digest *leaves = calloc(n_shards ? n_shards : 1, sizeof *leaves);
    if (!leaves)
        return err_new(err, QD_E_NO_MEMORY, "%llu leaves", (unsigned long long)n_shards);
    struct file_hash job = {
        .fd = fd, .file_bytes = file_bytes, .leaves = leaves, .cancel = cancel, .done_bytes = done_bytes};
    r = hash_with_threads(&job, n_threads, err);
    if (r == 0)
        r = check_size(fd, file_bytes, err);
    if (r == 0)
        r = digest_of_leaves(file_bytes, leaves, ret, err);
    if (r == 0 && ret_leaves)
        *ret_leaves = steal(&leaves);
    return r;
}
