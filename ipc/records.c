#include "ipc/records.h"

#include "ipc/fields.h"
#include "ipc/precheck.h"

enum { RECORD_CHUNK_BYTES = 1024, ARRAY_32 = 0xdd, ARRAY_16 = 0xdc, ARRAY_FIXED = 0x90 };

int records_begin(struct buffer *dst, uint32_t n, struct qd_error *err)
{
    msgpack_packer pk = packer_into(dst);
    (void)msgpack_pack_array(&pk, n);
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "list of %u records", n) : 0;
}

int record_encode(struct buffer *dst, enum message record, const void *item, struct qd_error *err)
{
    size_t start = dst->n;
    msgpack_packer pk = packer_into(dst);
    int r = wire_fields(&pk, record, item, err);
    if (r == 0 && dst->failed)
        r = err_new(err, QD_E_NO_MEMORY, "record of a list");
    if (r < 0)
        dst->n = start;
    return r;
}

static bool read_array_header(struct cursor *c, uint32_t *ret)
{
    uint8_t first = cursor_u8(c);
    unsigned n_bytes = first == ARRAY_32 ? 4 : first == ARRAY_16 ? 2 : 0;
    uint32_t n = n_bytes ? 0 : first & 0x0fu;
    for (unsigned i = 0; i < n_bytes; i++)
        n = n << 8 | cursor_u8(c);
    *ret = n;
    return !c->failed && (n_bytes || (first & 0xf0) == ARRAY_FIXED);
}

int record_reader_open(struct bytes list, struct record_reader *ret, struct qd_error *err)
{
    struct record_reader r = {.cursor = cursor_over(list)};
    if (!read_array_header(&r.cursor, &r.n_left))
        return err_new(err, QD_E_PROTOCOL, "no list of records");
    if (r.n_left > cursor_left(&r.cursor))
        return err_new(err, QD_E_PROTOCOL, "list of %u records in %zu bytes", r.n_left, list.n);
    r.zone = msgpack_zone_new(RECORD_CHUNK_BYTES);
    if (!r.zone)
        return err_new(err, QD_E_NO_MEMORY, "reader of records");
    *ret = r;
    return 0;
}

void record_reader_clear(struct record_reader *r)
{
    if (r->zone)
        msgpack_zone_free(r->zone);
    *r = (struct record_reader){0};
}

int record_read(struct record_reader *r, enum message record, void *ret, struct qd_error *err)
{
    if (r->n_left == 0)
        return 0;
    struct bytes span;
    msgpack_object object;
    msgpack_zone_clear(r->zone);
    int result = precheck_next(&r->cursor, &span, err);
    if (result == 0)
        result = unpack_object(span, r->zone, &object, err);
    if (result == 0)
        result = unpack_fields(&object, record, r->zone, ret, err);
    if (result < 0)
        return result;
    r->n_left--;
    return 1;
}

int64_t record_skip(struct record_reader *r, uint32_t n, struct qd_error *err)
{
    int64_t skipped = 0;
    for (; n > 0 && r->n_left > 0; n--, r->n_left--, skipped++) {
        struct bytes span;
        int result = precheck_next(&r->cursor, &span, err);
        if (result < 0)
            return result;
    }
    return skipped;
}
