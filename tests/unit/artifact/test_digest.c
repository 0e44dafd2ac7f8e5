#include "artifact/digest.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "artifact/manifest.h"
#include "artifact/source_id.h"
#include "kernels/core/io.h"
#include "tests/test.h"

/* Expected values: the definitions in docs/formats/digest.md, computed with Python's hashlib. */
#define HEX_EMPTY   "93929f979353baeed26d3bd064fcef467700928d53de6f4820a6ea7471bb0fca"
#define HEX_ABC     "bca830502ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3dd3fa"
#define HEX_SHARD   "6d39f0ecd4c533c68994e1119eeb60c2138d695d01a3e9886faff647163c83da"
#define HEX_SHARD_1 "ee4aa23f624c75d4e9b26ecb4544818eea6bee2c2ca33909bafdae0e5a23f916"
#define HEX_2SHARDS "346156178d1a241e15672dad85ad9b7c8725f66a8e1333c86a03ccd5df7c63b7"
#define HEX_MESSAGE "032998047d16d1d7bc5232104b6f2054d8511ff2fdbcc6dc941c2f26285f471c"
#define HEX_SOURCE  "42501c70b0ba7b179d1233057b5e9dfd289e84b2744bc231c03d2c7c407c37b4"
#define HEX_KEY     "99ec21ce89a0c72748ec4f566fd204ace291e7ab9435e2ecfef205142c1c2deb"

static void assert_digest(const struct digest *d, const char *hex)
{
    char shown[DIGEST_HEX_BYTES];
    digest_hex(d, shown);
    assert_string_equal(shown, hex);
}

/* A memfd of @n bytes that count 0..250 and start again. */
static int counting_file(size_t n)
{
    int fd = memfd_create("counting", MFD_CLOEXEC);
    assert_true(fd >= 0);
    CLEANUP(free) uint8_t *data = malloc(n ? n : 1);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(i % 251);
    assert_int_equal(pwrite_whole(fd, data, n, 0), 0);
    return fd;
}

static void digest_of_bytes__known_messages__give_the_known_digests(void **state)
{
    (void)state;
    struct digest d;
    assert_int_equal(digest_of_bytes((struct bytes){NULL, 0}, &d, NULL), 0);
    assert_digest(&d, HEX_EMPTY);
    assert_int_equal(digest_of_bytes((struct bytes){(const uint8_t *)"abc", 3}, &d, NULL), 0);
    assert_digest(&d, HEX_ABC);
    assert_int_equal(digest_message("key", (struct bytes){(const uint8_t *)"abc", 3}, &d, NULL), 0);
    assert_digest(&d, HEX_MESSAGE);
}

static void digest_file__around_shard_borders__is_the_same_for_any_number_of_threads(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *hex;
    } cases[] = {
        {0, HEX_EMPTY}, {SHARD_BYTES, HEX_SHARD}, {SHARD_BYTES + 1, HEX_SHARD_1}, {2 * SHARD_BYTES + 5, HEX_2SHARDS}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CLEANUP(fd_close) int fd = counting_file(cases[i].n);
        for (unsigned threads = 1; threads <= 3; threads++) {
            struct digest d, again;
            CLEANUP(free) struct digest *leaves = NULL;
            _Atomic uint64_t done = 0;
            assert_int_equal(digest_file(fd, cases[i].n, threads, &d, &leaves, NULL, &done, NULL), 0);
            assert_digest(&d, cases[i].hex);
            assert_int_equal(done, cases[i].n);
            assert_int_equal(digest_of_leaves(cases[i].n, leaves, &again, NULL), 0);
            assert_true(digest_equal(&d, &again));
        }
    }
}

static void digest_file__another_size_than_expected__is_source_changed(void **state)
{
    (void)state;
    CLEANUP(fd_close) int fd = counting_file(100);
    struct digest d;
    struct qd_error err;
    assert_int_equal(digest_file(fd, 99, 1, &d, NULL, NULL, NULL, &err), QD_E_SOURCE_CHANGED);
    assert_int_equal(digest_file(fd, 101, 1, &d, NULL, NULL, NULL, &err), QD_E_SOURCE_CHANGED);
    assert_int_equal(digest_file(fd, UINT64_MAX, 1, &d, NULL, NULL, NULL, &err), QD_E_SOURCE_CHANGED);
}

static void digest_file__cancelled__stops(void **state)
{
    (void)state;
    CLEANUP(fd_close) int fd = counting_file(100);
    struct digest d;
    struct qd_error err;
    _Atomic int cancel = 1;
    assert_int_equal(digest_file(fd, 100, 1, &d, NULL, &cancel, NULL, &err), QD_E_CANCELLED);
}

static void leaf_hasher__pieces_of_any_size__give_the_leaf_of_the_whole(void **state)
{
    (void)state;
    static uint8_t data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    struct digest whole, pieces, other;
    assert_int_equal(leaf_hasher_start(h, 3, NULL), 0);
    assert_int_equal(leaf_hasher_add(h, (struct bytes){data, sizeof data}, NULL), 0);
    assert_int_equal(leaf_hasher_finish(h, &whole, NULL), 0);
    assert_int_equal(leaf_hasher_start(h, 3, NULL), 0);
    for (size_t at = 0, n = 1; at < sizeof data; at += n, n = n * 3 < sizeof data - at ? n * 3 : sizeof data - at)
        assert_int_equal(leaf_hasher_add(h, (struct bytes){data + at, n}, NULL), 0);
    assert_int_equal(leaf_hasher_finish(h, &pieces, NULL), 0);
    assert_true(digest_equal(&whole, &pieces));
    assert_int_equal(leaf_hasher_start(h, 4, NULL), 0);
    assert_int_equal(leaf_hasher_add(h, (struct bytes){data, sizeof data}, NULL), 0);
    assert_int_equal(leaf_hasher_finish(h, &other, NULL), 0);
    assert_false(digest_equal(&whole, &other)); /* shards cannot be swapped */
}

static void digest_parse__anything_but_64_lower_case_hex_digits__is_refused(void **state)
{
    (void)state;
    struct digest d, unchanged = {{7}};
    assert_true(digest_parse(HEX_ABC, &d));
    assert_digest(&d, HEX_ABC);
    static const char *const bad[] = {
        "",
        "..",
        "../" HEX_ABC,
        HEX_ABC "0",
        HEX_ABC "\n",
        " " HEX_ABC,
        "BCA830502ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3dd3fa",
        "bca830502ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3dd3f",
        "gca830502ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3dd3fa",
        "bca8305/2ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3dd3fa",
        "sha256:a830502ceca16148f9d94f92a1f38fd7099bae9582f1dacf7cb248ab3d",
    };
    d = unchanged;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(digest_parse(bad[i], &d));
    assert_true(digest_equal(&d, &unchanged));
    for (int c = 0; c < 256; c++) { /* every byte in every third place */
        for (size_t at = 0; at < 64; at += 3) {
            char text[] = HEX_ABC;
            text[at] = (char)c;
            bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
            assert_int_equal(digest_parse(text, &d), hex);
        }
    }
}

static void source_identity__order_of_files__does_not_matter(void **state)
{
    (void)state;
    struct source_file_id a = {.role = "weights", .name = "model.safetensors", .bytes = 65536};
    struct source_file_id b = {.role = "config", .name = "config.json", .bytes = 128};
    memset(a.digest.bytes, 2, DIGEST_BYTES);
    memset(b.digest.bytes, 1, DIGEST_BYTES);
    struct digest d;
    assert_int_equal(source_identity((struct source_file_id[]){a, b}, 2, &d, NULL), 0);
    assert_digest(&d, HEX_SOURCE);
    assert_int_equal(source_identity((struct source_file_id[]){b, a}, 2, &d, NULL), 0);
    assert_digest(&d, HEX_SOURCE);
    struct digest other;
    a.bytes++;
    assert_int_equal(source_identity((struct source_file_id[]){b, a}, 2, &other, NULL), 0);
    assert_false(digest_equal(&d, &other));
}

static void source_identity__no_files_or_one_twice__is_refused(void **state)
{
    (void)state;
    struct source_file_id a = {.role = "weights", .name = "x"};
    struct digest d;
    struct qd_error err;
    assert_int_equal(source_identity(&a, 0, &d, &err), QD_E_LIMIT);
    assert_int_equal(source_identity((struct source_file_id[]){a, a}, 2, &d, &err), QD_E_INVALID);
}

static void artifact_key__every_part__counts(void **state)
{
    (void)state;
    struct digest source, key, other;
    memset(source.bytes, 3, DIGEST_BYTES);
    assert_int_equal(artifact_key(&source, "scheme=q8_0 pure=0", "portable", 1, &key, NULL), 0);
    assert_digest(&key, HEX_KEY);
    assert_int_equal(artifact_key(&source, "scheme=q8_0 pure=1", "portable", 1, &other, NULL), 0);
    assert_false(digest_equal(&key, &other));
    assert_int_equal(artifact_key(&source, "scheme=q8_0 pure=0", "packed", 1, &other, NULL), 0);
    assert_false(digest_equal(&key, &other));
    assert_int_equal(artifact_key(&source, "scheme=q8_0 pure=0", "portable", 2, &other, NULL), 0);
    assert_false(digest_equal(&key, &other));
    source.bytes[31] ^= 1;
    assert_int_equal(artifact_key(&source, "scheme=q8_0 pure=0", "portable", 1, &other, NULL), 0);
    assert_false(digest_equal(&key, &other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_of_bytes__known_messages__give_the_known_digests),
        cmocka_unit_test(digest_file__around_shard_borders__is_the_same_for_any_number_of_threads),
        cmocka_unit_test(digest_file__another_size_than_expected__is_source_changed),
        cmocka_unit_test(digest_file__cancelled__stops),
        cmocka_unit_test(leaf_hasher__pieces_of_any_size__give_the_leaf_of_the_whole),
        cmocka_unit_test(digest_parse__anything_but_64_lower_case_hex_digits__is_refused),
        cmocka_unit_test(source_identity__order_of_files__does_not_matter),
        cmocka_unit_test(source_identity__no_files_or_one_twice__is_refused),
        cmocka_unit_test(artifact_key__every_part__counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
