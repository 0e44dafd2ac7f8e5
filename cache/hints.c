#include "cache/hints.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/core/io.h"

/*
 * The file: a head of 16 bytes, then records of 80: five little-endian u64 (dev, ino, size, mtime
 * and ctime in ns), the digest, and 8 bytes of check (digest of the 72 before). Later records win.
 */
enum { HEAD_BYTES = 16, RECORD_BYTES = 80, CHECK_AT = 72, YOUNG_NS = 100 * 1000 * 1000 };

static const char head[HEAD_BYTES] = "quantd hints 1\n";

struct hint {
    uint64_t stamp[5]; /* dev, ino, size, mtime, ctime */
    struct digest digest;
    uint64_t age; /* rises with every put */
    bool used;
};

enum { N_SLOTS = 2 * HINTS_MAX };

struct hints {
    pthread_mutex_t lock;
    int fd;             /* owned */
    char *path;         /* owned */
    struct hint *slots; /* owned, [N_SLOTS], open addressing by (dev, ino): one hint a file */
    size_t n;
    uint64_t n_records; /* in the file, the outdated ones too */
    uint64_t age;
};

static uint64_t stamp_ns(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000 + (uint64_t)t->tv_nsec;
}

static void object_stamp_of(const struct stat *st, uint64_t *ret)
{
    ret[0] = (uint64_t)st->st_dev;
    ret[1] = (uint64_t)st->st_ino;
    ret[2] = (uint64_t)st->st_size;
    ret[3] = stamp_ns(&st->st_mtim);
    ret[4] = stamp_ns(&st->st_ctim);
}

/* The slot of that file, or the free one where it belongs. */
static struct hint *slot_of(struct hints *h, const uint64_t *stamp)
{
    uint64_t mix = (stamp[0] * 0x9e3779b97f4a7c15u) ^ (stamp[1] * 0xd6e8feb86659fd93u);
    for (size_t i = (size_t)(mix ^ mix >> 32);; i++) {
        struct hint *hint = &h->slots[i & (N_SLOTS - 1)];
        if (!hint->used || (hint->stamp[0] == stamp[0] && hint->stamp[1] == stamp[1]))
            return hint;
    }
}

static void remember(struct hints *h, const uint64_t *stamp, const struct digest *digest)
{
    struct hint *hint = slot_of(h, stamp);
    h->n += !hint->used;
    hint->used = true;
    memcpy(hint->stamp, stamp, sizeof hint->stamp);
    hint->digest = *digest;
    hint->age = h->age++;
}

/* Half of the hints go, the older ones: rare, and lookups of them only hash again. */
static int forget_old(struct hints *h, struct qd_error *err)
{
    struct hint *old = h->slots;
    struct hint *fresh = calloc(N_SLOTS, sizeof *fresh);
    if (!fresh)
        return err_new(err, QD_E_NO_MEMORY, "%d hints", HINTS_MAX);
    uint64_t keep_from = h->age - HINTS_MAX / 2;
    h->slots = fresh;
    h->n = 0;
    for (size_t i = 0; i < N_SLOTS; i++) {
        if (!old[i].used || old[i].age < keep_from)
            continue;
        *slot_of(h, old[i].stamp) = old[i];
        h->n++;
    }
    free(old);
    return 0;
}

static int pack_record(const uint64_t *stamp, const struct digest *digest, struct buffer *dst, struct qd_error *err)
{
    size_t start = dst->n;
    for (size_t i = 0; i < 5; i++)
        buffer_put_u64(dst, stamp[i]);
    buffer_put(dst, digest->bytes, DIGEST_BYTES);
    struct digest check = {0};
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "a hint");
    int r = digest_message("hint", (struct bytes){dst->data + start, CHECK_AT}, &check, err);
    buffer_put(dst, check.bytes, RECORD_BYTES - CHECK_AT);
    return r;
}

/* False when the record is damaged. */
static bool unpack_record(const uint8_t *raw, uint64_t *stamp, struct digest *digest)
{
    struct digest check;
    if (digest_message("hint", (struct bytes){raw, CHECK_AT}, &check, NULL) < 0 ||
        memcmp(check.bytes, raw + CHECK_AT, RECORD_BYTES - CHECK_AT) != 0)
        return false;
    struct cursor c = cursor_over((struct bytes){raw, RECORD_BYTES});
    for (size_t i = 0; i < 5; i++)
        stamp[i] = cursor_u64(&c);
    memcpy(digest->bytes, cursor_take(&c, DIGEST_BYTES).data, DIGEST_BYTES);
    return true;
}

/* Reads what is whole; returns where the next record goes. */
static uint64_t load(struct hints *h)
{
    char start[HEAD_BYTES];
    if (pread_whole(h->fd, start, HEAD_BYTES, 0) != HEAD_BYTES || memcmp(start, head, HEAD_BYTES) != 0)
        return 0;
    uint8_t raw[RECORD_BYTES];
    uint64_t at = HEAD_BYTES, stamp[5];
    struct digest digest;
    while (pread_whole(h->fd, raw, RECORD_BYTES, at) == RECORD_BYTES && unpack_record(raw, stamp, &digest)) {
        if (h->n >= HINTS_MAX && forget_old(h, NULL) < 0)
            break; /* the rest is dropped: hints are disposable */
        remember(h, stamp, &digest);
        h->n_records++;
        at += RECORD_BYTES;
    }
    return at;
}

/* Writes the file anew with what is in memory: after damage, and when most of it is outdated. */
static int rewrite(struct hints *h, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer all = {0};
    CLEANUP(buffer_clear) struct buffer tmp = {0};
    buffer_put(&all, head, HEAD_BYTES);
    for (size_t i = 0; i < N_SLOTS; i++)
        if (h->slots[i].used && pack_record(h->slots[i].stamp, &h->slots[i].digest, &all, err) < 0)
            return QD_E_NO_MEMORY;
    buffer_printf(&tmp, "%s.new", h->path);
    if (tmp.failed || all.failed)
        return err_new(err, QD_E_NO_MEMORY, "%zu hints", h->n);
    CLEANUP(fd_close) int fd = open((const char *)tmp.data, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, errno, "create '%s'", (const char *)tmp.data);
    int r = pwrite_whole(fd, all.data, all.n, 0);
    if (r < 0)
        return err_sys(err, -r, "write '%s'", (const char *)tmp.data);
    if (rename((const char *)tmp.data, h->path) < 0)
        return err_sys(err, errno, "put '%s' in place", h->path);
    (void)fd_close(h->fd);
    h->fd = steal_fd(&fd);
    h->n_records = h->n;
    return 0;
}

int hints_open(const char *path, struct hints **ret, struct qd_error *err)
{
    CLEANUP(hints_close) struct hints *h = calloc(1, sizeof *h);
    if (!h)
        return err_new(err, QD_E_NO_MEMORY, "hints");
    h->fd = -1;
    (void)pthread_mutex_init(&h->lock, NULL); /* default attributes: cannot fail on Linux */
    h->path = strdup(path);
    h->slots = calloc(N_SLOTS, sizeof *h->slots);
    if (!h->path || !h->slots)
        return err_new(err, QD_E_NO_MEMORY, "hints");
    h->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (h->fd < 0)
        return err_sys(err, errno, "open hints '%s'", path);
    uint64_t end = load(h);
    off_t size = lseek(h->fd, 0, SEEK_END);
    if (size < 0 || (uint64_t)size != end || end == 0) {
        int r = rewrite(h, err);
        if (r < 0)
            return r;
    }
    *ret = steal(&h);
    return 0;
}

struct hints *hints_close(struct hints *h)
{
    if (!h)
        return NULL;
    (void)fd_close(h->fd);
    (void)pthread_mutex_destroy(&h->lock); /* nobody holds it: the owner closes last */
    free(h->path);
    free(h->slots);
    free(h);
    return NULL;
}

bool hint_get(struct hints *h, const struct stat *st, struct digest *ret)
{
    uint64_t stamp[5];
    object_stamp_of(st, stamp);
    (void)pthread_mutex_lock(&h->lock);
    const struct hint *hint = slot_of(h, stamp);
    bool known = hint->used && memcmp(hint->stamp, stamp, sizeof stamp) == 0;
    if (known)
        *ret = hint->digest;
    (void)pthread_mutex_unlock(&h->lock);
    return known;
}

static int put_locked(struct hints *h, const uint64_t *stamp, const struct digest *digest, struct qd_error *err)
{
    int r = h->n >= HINTS_MAX ? forget_old(h, err) : 0;
    if (r < 0)
        return r;
    remember(h, stamp, digest);
    if (h->n_records > 2 * (uint64_t)h->n + 1024)
        return rewrite(h, err);
    CLEANUP(buffer_clear) struct buffer record = {0};
    r = pack_record(stamp, digest, &record, err);
    if (r < 0 || record.failed)
        return err_new(err, QD_E_NO_MEMORY, "a hint");
    r = pwrite_whole(h->fd, record.data, record.n, HEAD_BYTES + h->n_records * RECORD_BYTES);
    if (r < 0)
        return err_sys(err, -r, "append to '%s'", h->path);
    h->n_records++;
    return 0;
}

int hint_put(struct hints *h, const struct stat *st, const struct digest *digest, struct qd_error *err)
{
    uint64_t stamp[5];
    struct timespec now;
    object_stamp_of(st, stamp);
    (void)clock_gettime(CLOCK_REALTIME, &now); /* a clock that every Linux has */
    if (stamp[4] + YOUNG_NS > stamp_ns(&now))
        return 0;
    (void)pthread_mutex_lock(&h->lock);
    int r = put_locked(h, stamp, digest, err);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

size_t hints_count(struct hints *h)
{
    (void)pthread_mutex_lock(&h->lock);
    size_t n = h->n;
    (void)pthread_mutex_unlock(&h->lock);
    return n;
}
