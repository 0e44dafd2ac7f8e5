#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/known.h"
#include "kernels/core/io.h"

enum { OLD_ENOUGH_MS = 150 }; /* hint_put remembers no file that was written just now */

struct house {
    char folder[64], first[96];
    struct known *known;
    struct hints *hints;
};

static void path_of(const struct house *h, const char *name, char dst[96])
{
    (void)snprintf(dst, 96, "%s/%s", h->folder, name);
}

/* Writes the file anew and remembers a digest of @byte for it, as a job that has hashed it would. */
static struct stat put(struct house *h, const char *name, uint8_t byte)
{
    char path[96];
    struct stat st;
    struct digest d;
    path_of(h, name, path);
    CLEANUP(fd_close) int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write_whole(fd, &byte, 1), 0);
    assert_int_equal(fstat(fd, &st), 0);
    (void)nanosleep(&(struct timespec){.tv_nsec = OLD_ENOUGH_MS * 1000000}, NULL);
    memset(d.bytes, byte, DIGEST_BYTES);
    assert_int_equal(hint_put(h->hints, &st, &d, NULL), 0);
    return st;
}

static int begin(void **state)
{
    static struct house h;
    char path[96];
    h = (struct house){.folder = "/tmp/quantd-known-XXXXXX"};
    assert_non_null(mkdtemp(h.folder));
    path_of(&h, "known", path);
    assert_int_equal(known_open(path, &h.known, NULL), 0);
    path_of(&h, "hints", path);
    assert_int_equal(hints_open(path, &h.hints, NULL), 0);
    path_of(&h, "a.safetensors", h.first);
    *state = &h;
    return 0;
}

static int end(void **state)
{
    struct house *h = *state;
    char command[96];
    (void)known_close(h->known);
    (void)hints_close(h->hints);
    (void)snprintf(command, sizeof command, "rm -r '%s'", h->folder);
    return system(command);
}

/* As source_identity makes it of two files of one byte each. */
static struct digest identity_of(uint8_t first, uint8_t second)
{
    struct source_file_id files[] = {{.role = "model", .name = "a.safetensors", .bytes = 1},
                                     {.role = "model", .name = "b.safetensors", .bytes = 1}};
    struct digest d;
    memset(files[0].digest.bytes, first, DIGEST_BYTES);
    memset(files[1].digest.bytes, second, DIGEST_BYTES);
    assert_int_equal(source_identity(files, 2, &d, NULL), 0);
    return d;
}

static bool identity_is(struct house *h, uint8_t first, uint8_t second)
{
    struct digest expected = identity_of(first, second), d;
    return known_identity(h->known, h->hints, h->first, -1, NULL, 0, &d) && digest_equal(&d, &expected);
}

static void known_identity__asked_again__is_the_same_until_a_file_changes(void **state)
{
    struct house *h = *state;
    const struct source_file_id files[] = {{.role = "model", .name = "a.safetensors"},
                                           {.role = "model", .name = "b.safetensors"}};
    struct stat first = put(h, files[0].name, 1);
    (void)put(h, files[1].name, 2);
    assert_int_equal(known_put(h->known, &first, 0, files, 2, NULL), 0);
    assert_true(identity_is(h, 1, 2));
    assert_true(identity_is(h, 1, 2));
    (void)put(h, files[1].name, 3); /* a companion's content, the first file untouched */
    assert_true(identity_is(h, 1, 3));
    first = put(h, files[0].name, 4);
    assert_false(identity_is(h, 4, 3)); /* the first file is another now: its list is to be learned again */
    assert_int_equal(known_put(h->known, &first, 0, files, 2, NULL), 0);
    assert_true(identity_is(h, 4, 3));
}

static void known_identity__companion_gone__is_not_known(void **state)
{
    struct house *h = *state;
    struct digest d;
    char path[96];
    const struct source_file_id files[] = {{.role = "model", .name = "a.safetensors"},
                                           {.role = "model", .name = "b.safetensors"}};
    struct stat first = put(h, files[0].name, 1);
    (void)put(h, files[1].name, 2);
    assert_int_equal(known_put(h->known, &first, 0, files, 2, NULL), 0);
    assert_true(identity_is(h, 1, 2));
    path_of(h, files[1].name, path);
    assert_int_equal(unlink(path), 0);
    assert_false(known_identity(h->known, h->hints, h->first, -1, NULL, 0, &d));
}

static void known_has__companion_gone__is_true_until_the_first_file_changes(void **state)
{
    struct house *h = *state;
    const struct source_file_id files[] = {{.role = "model", .name = "a.safetensors"},
                                           {.role = "model", .name = "gone.safetensors"}};
    struct stat first = put(h, files[0].name, 1);
    struct file_stamp stamp = stamp_of(&first);
    assert_false(known_has(h->known, &stamp));
    assert_int_equal(known_put(h->known, &first, 0, files, 2, NULL), 0);
    assert_true(known_has(h->known, &stamp));
    first = put(h, files[0].name, 2);
    stamp = stamp_of(&first);
    assert_false(known_has(h->known, &stamp));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(known_identity__asked_again__is_the_same_until_a_file_changes, begin, end),
        cmocka_unit_test_setup_teardown(known_identity__companion_gone__is_not_known, begin, end),
        cmocka_unit_test_setup_teardown(known_has__companion_gone__is_true_until_the_first_file_changes, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
