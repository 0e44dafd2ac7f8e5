#include "tests/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "quant/calib/dataset.h"
#include "quant/calib/zip.h"
#include "tests/unit/quant/small_graph.h"

/* ---- a writer of archives ---- */

struct archive {
    struct buffer file, directory;
    uint16_t n;
};

static uint32_t crc_of(struct bytes b)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < b.n; i++) {
        crc ^= b.data[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* What local headers and the directory have in common. */
static void put_facts(struct buffer *b, struct bytes content, uint16_t method, size_t n_packed, const char *name)
{
    buffer_put_u16(b, 20);
    buffer_put_u16(b, 0);
    buffer_put_u16(b, method);
    buffer_put_u32(b, 0);
    buffer_put_u32(b, crc_of(content));
    buffer_put_u32(b, (uint32_t)n_packed);
    buffer_put_u32(b, (uint32_t)content.n);
    buffer_put_u16(b, (uint16_t)strlen(name));
    buffer_put_u16(b, 0);
}

/* @deflated: as one block that is stored. */
static void add(struct archive *a, const char *name, struct bytes content, bool deflated)
{
    const uint32_t offset = (uint32_t)a->file.n;
    const size_t n_packed = content.n + (deflated ? 5 : 0);
    buffer_put(&a->file, "PK\3\4", 4);
    put_facts(&a->file, content, deflated ? 8 : 0, n_packed, name);
    buffer_put(&a->file, name, strlen(name));
    if (deflated) {
        buffer_put_u8(&a->file, 1);
        buffer_put_u16(&a->file, (uint16_t)content.n);
        buffer_put_u16(&a->file, (uint16_t)~content.n);
    }
    buffer_put(&a->file, content.data, content.n);
    buffer_put(&a->directory, "PK\1\2\0\0", 6);
    put_facts(&a->directory, content, deflated ? 8 : 0, n_packed, name);
    buffer_put_zeros(&a->directory, 10);
    buffer_put_u32(&a->directory, offset);
    buffer_put(&a->directory, name, strlen(name));
    a->n++;
}

static struct bytes finish(struct archive *a)
{
    const uint32_t offset = (uint32_t)a->file.n;
    buffer_put(&a->file, a->directory.data, a->directory.n);
    buffer_put(&a->file, "PK\5\6\0\0\0\0", 8);
    buffer_put_u16(&a->file, a->n);
    buffer_put_u16(&a->file, a->n);
    buffer_put_u32(&a->file, (uint32_t)a->directory.n);
    buffer_put_u32(&a->file, offset);
    buffer_put_u16(&a->file, 0);
    return buffer_span(&a->file);
}

static void archive_clear(struct archive *a)
{
    buffer_clear(&a->file);
    buffer_clear(&a->directory);
}

/* ---- reading ---- */

enum { CONTENT_BYTES = 300 };

static struct bytes content(void)
{
    static uint8_t x[CONTENT_BYTES];
    for (int i = 0; i < CONTENT_BYTES; i++)
        x[i] = (uint8_t)(i * 7);
    return (struct bytes){x, CONTENT_BYTES};
}

static int read_member(struct bytes file, const char *name, uint8_t *dst, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = NULL;
    CLEANUP(zip_close) struct zip_reader *z = NULL;
    const int fd = memfd_create("archive", MFD_CLOEXEC);
    assert_int_equal(write(fd, file.data, file.n), file.n);
    int r = source_from_fd(fd, "x.npz", &s, err);
    if (r == 0)
        r = zip_open(s, name, &z, err);
    if (r < 0)
        return r;
    if (zip_bytes(z) != CONTENT_BYTES)
        return err_new(err, QD_E_CORRUPT, "another size");
    for (size_t at = 0; at < CONTENT_BYTES && r == 0; at += 100)
        r = zip_read(z, dst + at, 100, err);
    return r;
}

static void zip_read__stored_and_deflated__give_the_content(void **state)
{
    (void)state;
    struct archive a = {.n = 0};
    uint8_t got[CONTENT_BYTES];
    struct qd_error err = {0};
    add(&a, "x.npy", content(), false);
    add(&a, "y.npy", content(), true);
    const struct bytes file = finish(&a);
    for (int i = 0; i < 2; i++) {
        if (read_member(file, i ? "y.npy" : "x.npy", got, &err) < 0)
            fail_msg("%s", err.message);
        assert_memory_equal(got, content().data, CONTENT_BYTES);
    }
    assert_int_equal(read_member(file, "z.npy", got, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "no array 'z.npy'"));
    archive_clear(&a);
}

static void zip_read__every_prefix__is_refused(void **state)
{
    (void)state;
    struct archive a = {.n = 0};
    uint8_t got[CONTENT_BYTES];
    add(&a, "x.npy", content(), true);
    const struct bytes file = finish(&a);
    for (size_t n = 0; n < file.n; n++)
        assert_int_equal(read_member((struct bytes){file.data, n}, "x.npy", got, NULL), QD_E_CORRUPT);
    archive_clear(&a);
}

static void zip_read__any_byte_changed__is_refused_or_gives_the_content(void **state)
{
    (void)state;
    for (int deflated = 0; deflated < 2; deflated++) {
        struct archive a = {.n = 0};
        uint8_t got[CONTENT_BYTES];
        add(&a, "x.npy", content(), deflated);
        const struct bytes file = finish(&a);
        for (size_t i = 0; i < file.n; i++)
            for (unsigned change = 1; change < 256; change <<= 1) {
                struct qd_error err = {0};
                a.file.data[i] ^= (uint8_t)change;
                const int r = read_member(file, "x.npy", got, &err);
                if (r == 0)
                    assert_memory_equal(got, content().data, CONTENT_BYTES);
                else
                    assert_true(err.message[0] &&
                                (r == QD_E_CORRUPT || r == QD_E_INVALID || r == QD_E_LIMIT || r == QD_E_UNSUPPORTED));
                a.file.data[i] ^= (uint8_t)change;
            }
        archive_clear(&a);
    }
}

/* Each change is made to the directory's entry or the end record of an archive with one member; from the end. */
static void zip_open__what_is_not_read__is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        size_t from_end; /* of the byte that is set, counted from the file's end */
        uint8_t n, byte; /* how many are set, and to what */
        int code;
        const char *says;
    } bad[] = {
        {22 + 51 - 8, 1, 1, QD_E_UNSUPPORTED, "encrypted"},
        {22 + 51 - 10, 1, 12, QD_E_UNSUPPORTED, "method 12"},
        {22 + 51 - 20, 4, 0xff, QD_E_UNSUPPORTED, "4 GiB"},
        {22 + 51 - 24, 1, 1, QD_E_CORRUPT, "sizes of a stored array"},
        {22 + 51 - 42, 2, 0xee, QD_E_CORRUPT, "leaves the file"},
        {22 + 51 - 42, 1, 1, QD_E_CORRUPT, "own header"},
        {22 + 51, 1, 0, QD_E_CORRUPT, "directory is malformed"},
        {22 - 4, 1, 1, QD_E_UNSUPPORTED, "several disks"},
        {22 - 8, 4, 2, QD_E_CORRUPT, "directory is malformed"},
        {22 - 8, 4, 0xff, QD_E_UNSUPPORTED, "ZIP64"},
        {22 - 15, 1, 1, QD_E_LIMIT, "at most"},
        {22 - 18, 1, 0xff, QD_E_CORRUPT, "leaves the file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct archive a = {.n = 0};
        uint8_t got[CONTENT_BYTES];
        struct qd_error err = {0};
        add(&a, "x.npy", content(), false);
        const struct bytes file = finish(&a);
        memset(a.file.data + file.n - bad[i].from_end, bad[i].byte, bad[i].n);
        const int r = read_member(file, "x.npy", got, &err);
        if (r != bad[i].code || !strstr(err.message, bad[i].says))
            fail_msg("case %zu: %d, %s", i, r, err.message);
        archive_clear(&a);
    }
}

static void zip_open__a_name_that_is_there_twice__is_refused(void **state)
{
    (void)state;
    struct archive a = {.n = 0};
    uint8_t got[CONTENT_BYTES];
    add(&a, "x.npy", content(), false);
    add(&a, "x.npy", content(), false);
    assert_int_equal(read_member(finish(&a), "x.npy", got, NULL), QD_E_CORRUPT);
    archive_clear(&a);
}

static void put_array(struct archive *a, const char *name, const char *header, const void *x, size_t n)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    buffer_put(&b, "\x93NUMPY\1\0", 8);
    buffer_put_u16(&b, (uint16_t)strlen(header));
    buffer_put(&b, header, strlen(header));
    buffer_put(&b, x, n);
    add(a, name, buffer_span(&b), true);
}

static void dataset_next__an_archive__has_all_inputs(void **state)
{
    (void)state;
    char path[] = "/tmp/quantd-zip-XXXXXX";
    struct archive a = {.n = 0};
    struct qd_error err = {0};
    struct value *in[2] = {NULL, NULL};
    const char *name;
    put_array(&a, "b.npy", "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", (int64_t[]){7}, 8);
    put_array(&a, "a.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}", (float[]){1, 2}, 8);
    const struct bytes file = finish(&a);
    assert_non_null(mkdtemp(path));
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int fd = openat(folder, "1.npz", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, file.data, file.n), file.n);
    (void)close(fd);

    struct small_graph *g = small_graph_new(add_cast, ADD_CAST_BYTES);
    struct dataset *d = NULL;
    if (dataset_open(folder, NULL, g->graph, g->memory, &d, &err) < 0 || dataset_next(d, in, &name, &err) != 1)
        fail_msg("%s", err.message);
    assert_true(((float *)in[0]->data)[1] == 2 && ((int64_t *)in[1]->data)[0] == 7);
    assert_int_equal(dataset_n_samples(d), 1);
    (void)value_release(in[0]);
    (void)value_release(in[1]);
    (void)dataset_free(d);
    (void)small_graph_free(g);
    assert_int_equal(unlinkat(folder, "1.npz", 0) | rmdir(path), 0);
    (void)close(folder);
    archive_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zip_read__stored_and_deflated__give_the_content),
        cmocka_unit_test(zip_read__every_prefix__is_refused),
        cmocka_unit_test(zip_read__any_byte_changed__is_refused_or_gives_the_content),
        cmocka_unit_test(zip_open__what_is_not_read__is_refused_by_name),
        cmocka_unit_test(zip_open__a_name_that_is_there_twice__is_refused),
        cmocka_unit_test(dataset_next__an_archive__has_all_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
