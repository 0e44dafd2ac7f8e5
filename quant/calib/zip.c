#include "quant/calib/zip.h"

#include <string.h>
#include <zlib.h>

#include "kernels/core/checked.h"

enum {
    END_BYTES = 22, /* of the end record, without its comment */
    COMMENT_BYTES_MAX = 65535,
    DIRECTORY_BYTES_MAX = 1 << 20, /* some thousands of members; an input is one */
    ENTRY_BYTES = 46,              /* of the directory, without names */
    LOCAL_BYTES = 30,
    PIECE_BYTES = 16 << 10,
    METHOD_STORED = 0,
    METHOD_DEFLATED = 8,
    FLAG_ENCRYPTED = 1,
};

/* What the directory says of a member. */
struct member {
    uint16_t flags, method;
    uint32_t crc, packed_bytes, bytes, offset;
};

struct zip_reader {
    struct source *source;
    uint64_t at, packed_left, left;
    struct member member;
    uint32_t crc;
    bool inflating;
    z_stream stream;
    uint8_t piece[PIECE_BYTES];
};

static int damaged(struct qd_error *err, const char *what)
{
    return err_new(err, QD_E_CORRUPT, "it is no sound ZIP archive: %s", what);
}

/* ---- the directory ------------------------------------------------------------------------ */

/* The end record's place in the last bytes of a file, or -1: its comment reaches exactly to the end. */
static int64_t find_end(const uint8_t *tail, size_t n)
{
    for (size_t at = n < END_BYTES ? 0 : n - END_BYTES + 1; at-- > 0;)
        if (memcmp(tail + at, "PK\5\6", 4) == 0 && (size_t)(tail[at + 20] | tail[at + 21] << 8) == n - at - END_BYTES)
            return (int64_t)at;
    return -1;
}

struct directory {
    uint32_t offset, bytes;
    uint16_t n;
};

static int read_end(struct source *s, struct directory *ret, struct qd_error *err)
{
    const uint64_t size = source_bytes(s, 0);
    const size_t n = size < END_BYTES + COMMENT_BYTES_MAX ? (size_t)size : END_BYTES + COMMENT_BYTES_MAX;
    CLEANUP(free) uint8_t *tail = malloc(n + 1);
    if (!tail)
        return err_new(err, QD_E_NO_MEMORY, "a ZIP archive");
    int r = source_read_meta(s, 0, size - n, tail, n, err);
    if (r < 0)
        return r;
    const int64_t at = find_end(tail, n);
    if (at < 0)
        return damaged(err, "its end record is missing");
    struct cursor c = cursor_over((struct bytes){tail + at + 4, END_BYTES - 4});
    const uint32_t disks = cursor_u32(&c);
    const uint16_t n_here = cursor_u16(&c);
    ret->n = cursor_u16(&c);
    ret->bytes = cursor_u32(&c);
    ret->offset = cursor_u32(&c);
    if (disks != 0 || n_here != ret->n)
        return err_new(err, QD_E_UNSUPPORTED, "it is a ZIP archive of several disks");
    if (ret->offset == UINT32_MAX || ret->n == UINT16_MAX)
        return err_new(err, QD_E_UNSUPPORTED, "it is a ZIP64 archive; save its arrays as .npy files");
    if (ret->bytes > DIRECTORY_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "its directory has %u bytes, at most %d", ret->bytes, DIRECTORY_BYTES_MAX);
    return range_inside(ret->offset, ret->bytes, size) ? 0 : damaged(err, "its directory leaves the file");
}

/* The next entry; *ret_name borrows from the directory. */
static bool next_entry(struct cursor *c, struct member *ret, struct bytes *ret_name)
{
    struct cursor fixed = cursor_over(cursor_take(c, ENTRY_BYTES));
    const uint32_t magic = cursor_u32(&fixed);
    (void)cursor_u32(&fixed); /* versions */
    ret->flags = cursor_u16(&fixed);
    ret->method = cursor_u16(&fixed);
    (void)cursor_u32(&fixed); /* time */
    ret->crc = cursor_u32(&fixed);
    ret->packed_bytes = cursor_u32(&fixed);
    ret->bytes = cursor_u32(&fixed);
    const uint16_t n_name = cursor_u16(&fixed), n_extra = cursor_u16(&fixed), n_comment = cursor_u16(&fixed);
    (void)cursor_take(&fixed, 8); /* disk, attributes */
    ret->offset = cursor_u32(&fixed);
    *ret_name = cursor_take(c, n_name);
    (void)cursor_take(c, (uint64_t)n_extra + n_comment);
    return !c->failed && magic == 0x02014b50;
}

static int find_entry(struct bytes directory, uint16_t n, const char *name, struct member *ret, struct qd_error *err)
{
    struct cursor c = cursor_over(directory);
    struct member m;
    struct bytes entry_name;
    unsigned n_found = 0;
    for (uint16_t i = 0; i < n; i++) {
        if (!next_entry(&c, &m, &entry_name))
            return damaged(err, "its directory is malformed");
        if (entry_name.n != strlen(name) || memcmp(entry_name.data, name, entry_name.n) != 0)
            continue;
        *ret = m;
        n_found++;
    }
    if (n_found == 0)
        return err_new(err, QD_E_INVALID, "it has no array '%.200s'", name);
    return n_found == 1 ? 0 : damaged(err, "a name is there twice");
}

static int find_member(struct source *s, const char *name, struct member *ret, struct qd_error *err)
{
    struct directory d = {0};
    int r = read_end(s, &d, err);
    if (r < 0)
        return r;
    CLEANUP(free) uint8_t *bytes = malloc((size_t)d.bytes + 1);
    if (!bytes)
        return err_new(err, QD_E_NO_MEMORY, "a ZIP archive");
    r = source_read_meta(s, 0, d.offset, bytes, d.bytes, err);
    return r < 0 ? r : find_entry((struct bytes){bytes, d.bytes}, d.n, name, ret, err);
}

static int check_member(const struct member *m, struct qd_error *err)
{
    if (m->flags & FLAG_ENCRYPTED)
        return err_new(err, QD_E_UNSUPPORTED, "its content is encrypted");
    if (m->method != METHOD_STORED && m->method != METHOD_DEFLATED)
        return err_new(err, QD_E_UNSUPPORTED, "its content is compressed by method %u; stored and deflated are read",
                       m->method);
    if (m->offset == UINT32_MAX || m->bytes == UINT32_MAX || m->packed_bytes == UINT32_MAX)
        return err_new(err, QD_E_UNSUPPORTED, "an array has 4 GiB or more; save it as a .npy file");
    return m->method == METHOD_STORED && m->bytes != m->packed_bytes ? damaged(err, "sizes of a stored array differ")
                                                                     : 0;
}

/* ---- the content -------------------------------------------------------------------------- */

/* Where the content begins: behind the local header, whose name and extra field have lengths of their own. */
static int find_content(struct zip_reader *z, struct qd_error *err)
{
    const uint64_t size = source_bytes(z->source, 0);
    uint8_t local[LOCAL_BYTES];
    if (!range_inside(z->member.offset, LOCAL_BYTES, size))
        return damaged(err, "an array leaves the file");
    int r = source_read_meta(z->source, 0, z->member.offset, local, LOCAL_BYTES, err);
    if (r < 0)
        return r;
    if (memcmp(local, "PK\3\4", 4) != 0)
        return damaged(err, "an array's own header is missing");
    z->at = (uint64_t)z->member.offset + LOCAL_BYTES + (uint64_t)(local[26] | local[27] << 8) +
            (uint64_t)(local[28] | local[29] << 8);
    z->packed_left = z->member.packed_bytes;
    z->left = z->member.bytes;
    return range_inside(z->at, z->packed_left, size) ? 0 : damaged(err, "an array leaves the file");
}

int zip_open(struct source *s, const char *name, struct zip_reader **ret, struct qd_error *err)
{
    CLEANUP(zip_close) struct zip_reader *z = calloc(1, sizeof *z);
    if (!z)
        return err_new(err, QD_E_NO_MEMORY, "a ZIP archive");
    z->source = s;
    z->crc = (uint32_t)crc32(0, NULL, 0);
    int r = find_member(s, name, &z->member, err);
    if (r == 0)
        r = check_member(&z->member, err);
    if (r == 0)
        r = find_content(z, err);
    if (r < 0)
        return r;
    z->inflating = z->member.method == METHOD_DEFLATED;
    if (z->inflating && inflateInit2(&z->stream, -MAX_WBITS) != Z_OK) {
        z->inflating = false;
        return err_new(err, QD_E_NO_MEMORY, "a ZIP archive");
    }
    *ret = steal(&z);
    return 0;
}

struct zip_reader *zip_close(struct zip_reader *z)
{
    if (z && z->inflating)
        (void)inflateEnd(&z->stream); /* nothing is written */
    free(z);
    return NULL;
}

uint64_t zip_bytes(const struct zip_reader *z)
{
    return z->left;
}

static int read_packed(struct zip_reader *z, void *dst, size_t n, struct qd_error *err)
{
    if (n > z->packed_left)
        return damaged(err, "an array ends too early");
    int r = source_read_meta(z->source, 0, z->at, dst, n, err);
    z->at += n;
    z->packed_left -= n;
    return r;
}

static int refill(struct zip_reader *z, struct qd_error *err)
{
    const size_t n = z->packed_left < PIECE_BYTES ? (size_t)z->packed_left : PIECE_BYTES;
    if (n == 0)
        return damaged(err, "a compressed array ends too early");
    z->stream.next_in = z->piece;
    z->stream.avail_in = (uInt)n;
    return read_packed(z, z->piece, n, err);
}

/* Each turn takes a byte or gives one, so that it ends. */
static int inflate_into(struct zip_reader *z, void *dst, size_t n, struct qd_error *err)
{
    z->stream.next_out = dst;
    z->stream.avail_out = (uInt)n;
    while (z->stream.avail_out > 0) {
        int r = z->stream.avail_in ? 0 : refill(z, err);
        if (r < 0)
            return r;
        r = inflate(&z->stream, Z_NO_FLUSH);
        if (r != Z_OK && (r != Z_STREAM_END || z->stream.avail_out > 0))
            return damaged(err, "a compressed array cannot be decompressed");
    }
    return 0;
}

int zip_read(void *reader, void *dst, size_t n, struct qd_error *err)
{
    struct zip_reader *z = reader;
    if (n > z->left || n > UINT32_MAX)
        return damaged(err, "an array ends too early");
    int r = z->inflating ? inflate_into(z, dst, n, err) : read_packed(z, dst, n, err);
    if (r < 0)
        return r;
    z->left -= n;
    z->crc = (uint32_t)crc32(z->crc, dst, (uInt)n);
    return z->left == 0 && z->crc != z->member.crc ? damaged(err, "the CRC-32 of an array is another") : 0;
}
