#include "quant/journal.h"

#include <errno.h>
#include <string.h>

#include "kernels/core/io.h"

#define JOURNAL_MAGIC "QDJRNL\0\1"
enum {
    MAGIC_BYTES = 8,
    TAG_MAX = 4096,
    RECORD_MARK = 0x5251444a, /* "JDQR" */
    RECORD_HEAD_BYTES = 4 + 4 + 8 + DIGEST_BYTES,
};

/* magic, shape, tag length, tag, then the digest of all that. */
static int journal_head(const char *tag, const struct digest *shape, struct buffer *dst, struct qd_error *err)
{
    size_t n = strlen(tag);
    if (n > TAG_MAX)
        return err_new(err, QD_E_INVALID, "journal tag of %zu bytes", n);
    buffer_put(dst, JOURNAL_MAGIC, MAGIC_BYTES);
    buffer_put(dst, shape->bytes, DIGEST_BYTES);
    buffer_put_u32(dst, (uint32_t)n);
    buffer_put(dst, tag, n);
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    struct digest sum;
    int r = digest_message("journal head", buffer_span(dst), &sum, err);
    if (r < 0)
        return r;
    buffer_put(dst, sum.bytes, DIGEST_BYTES);
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "journal") : 0;
}

/* 1 when the file starts with exactly @head. */
static int journal_matches(int fd, struct bytes head, struct qd_error *err)
{
    CLEANUP(free) uint8_t *found = malloc(head.n);
    if (!found)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    ssize_t got = pread_whole(fd, found, head.n, 0);
    if (got < 0)
        return err_sys(err, (int)-got, "read the journal");
    return (size_t)got == head.n && memcmp(found, head.data, head.n) == 0;
}

static int journal_cut(struct journal *j, uint64_t at, struct qd_error *err)
{
    j->at = at;
    return ftruncate(j->fd, (off_t)at) < 0 ? err_sys(err, errno, "truncate the journal") : 0;
}

int journal_start(struct journal *j, int fd, const char *tag, const struct digest *shape, struct qd_error *err)
{
    *j = (struct journal){.fd = fd};
    if (fd < 0)
        return 0;
    CLEANUP(buffer_clear) struct buffer head = {0};
    int r = journal_head(tag, shape, &head, err);
    if (r < 0)
        return r;
    int same = journal_matches(fd, buffer_span(&head), err);
    if (same != 0) {
        j->at = head.n;
        return same;
    }
    r = journal_cut(j, 0, err);
    if (r < 0)
        return r;
    r = pwrite_whole(fd, head.data, head.n, 0);
    if (r < 0)
        return err_sys(err, -r, "write the journal");
    j->at = head.n;
    return 0;
}

/* The record's digest covers its head and body. */
static int record_sum(const struct buffer *record, struct digest *ret, struct qd_error *err)
{
    return digest_message("journal record", buffer_span(record), ret, err);
}

/* Reads @n bytes at @at behind what @dst holds: 1, or 0 where the file ends before. */
static int read_more(const struct journal *j, uint64_t at, size_t n, struct buffer *dst, struct qd_error *err)
{
    size_t before = dst->n;
    buffer_reserve(dst, n);
    buffer_put_zeros(dst, n);
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    ssize_t got = pread_whole(j->fd, dst->data + before, n, at);
    if (got < 0)
        return err_sys(err, (int)-got, "read the journal");
    return (size_t)got == n;
}

/* A whole record into @record (head and body): its bytes on disk, or 0 where there is none. */
static int64_t read_record(const struct journal *j, struct buffer *record, struct qd_error *err)
{
    int r = read_more(j, j->at, RECORD_HEAD_BYTES, record, err);
    if (r <= 0)
        return r;
    struct cursor c = cursor_over(buffer_span(record));
    uint32_t mark = cursor_u32(&c), body = cursor_u32(&c);
    if (mark != RECORD_MARK || body > JOURNAL_BODY_MAX)
        return 0;
    r = read_more(j, j->at + RECORD_HEAD_BYTES, body, record, err);
    if (r <= 0)
        return r;
    struct digest told, sum;
    ssize_t got = pread_whole(j->fd, told.bytes, DIGEST_BYTES, j->at + record->n);
    if (got != DIGEST_BYTES)
        return got < 0 ? err_sys(err, (int)-got, "read the journal") : 0;
    r = record_sum(record, &sum, err);
    if (r < 0)
        return r;
    return digest_equal(&told, &sum) ? (int64_t)record->n + DIGEST_BYTES : 0;
}

int journal_next(struct journal *j, struct journal_record *ret, struct qd_error *err)
{
    if (j->fd < 0)
        return 0;
    CLEANUP(buffer_clear) struct buffer record = {0};
    int64_t n = read_record(j, &record, err);
    if (n < 0)
        return (int)n;
    if (n == 0)
        return journal_cut(j, j->at, err);
    struct cursor c = cursor_over(buffer_span(&record));
    (void)cursor_u64(&c); /* mark and length, seen by read_record */
    ret->unit = cursor_u64(&c);
    memcpy(ret->leaf.bytes, cursor_take(&c, DIGEST_BYTES).data, DIGEST_BYTES);
    buffer_reserve(&ret->body, cursor_left(&c));
    buffer_put(&ret->body, c.at, cursor_left(&c));
    if (ret->body.failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    j->at += (uint64_t)n;
    return 1;
}

int journal_forget(struct journal *j, const struct journal_record *last, struct qd_error *err)
{
    return journal_cut(j, j->at - (RECORD_HEAD_BYTES + last->body.n + DIGEST_BYTES), err);
}

void journal_record(struct buffer *record, size_t body_bytes)
{
    buffer_reserve(record, RECORD_HEAD_BYTES + body_bytes + DIGEST_BYTES);
    buffer_put_zeros(record, RECORD_HEAD_BYTES);
}

int journal_append(struct journal *j, uint64_t unit, const struct digest *leaf, struct buffer *record,
                   struct qd_error *err)
{
    struct digest sum;
    if (j->fd < 0)
        return 0;
    if (record->failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    if (record->n > RECORD_HEAD_BYTES + JOURNAL_BODY_MAX)
        return err_new(err, QD_E_LIMIT, "journal record of %zu bytes", record->n);
    CLEANUP(buffer_clear) struct buffer head = {0};
    buffer_put_u32(&head, RECORD_MARK);
    buffer_put_u32(&head, (uint32_t)(record->n - RECORD_HEAD_BYTES));
    buffer_put_u64(&head, unit);
    buffer_put(&head, leaf->bytes, DIGEST_BYTES);
    if (head.failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    memcpy(record->data, head.data, head.n);
    int r = record_sum(record, &sum, err);
    if (r < 0)
        return r;
    buffer_put(record, sum.bytes, DIGEST_BYTES);
    if (record->failed)
        return err_new(err, QD_E_NO_MEMORY, "journal");
    r = pwrite_whole(j->fd, record->data, record->n, j->at);
    if (r < 0)
        return err_sys(err, -r, "write the journal");
    j->at += record->n;
    return 0;
}
