#include "cache/sign.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cache/hints.h"
#include "tests/test.h"

struct place {
    char folder[64], key[96], hints[96];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    (void)strcpy(p->folder, "/tmp/quantd-sign-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->key, sizeof p->key, "%s/quantd.key", p->folder);
    (void)snprintf(p->hints, sizeof p->hints, "%s/hints", p->folder);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", p->folder);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static void change_byte(const char *path, off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t b;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    (void)fd_close(fd);
}

static void signing_key__made_at_the_first_start__is_the_same_at_the_next(void **state)
{
    const struct place *p = *state;
    CLEANUP(signing_key_free) struct signing_key *first = NULL;
    CLEANUP(signing_key_free) struct signing_key *second = NULL;
    bool created = false;
    struct stat st;
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &first, &created, NULL), 0);
    assert_true(created);
    assert_int_equal(stat(p->key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 104);
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &second, &created, NULL), 0);
    assert_false(created);
    assert_memory_equal(signing_key_public(first), signing_key_public(second), PUBLIC_KEY_BYTES);
}

static void signing_key__any_byte_changed_or_cut__is_corrupt_and_left_alone(void **state)
{
    const struct place *p = *state;
    struct signing_key *key = NULL;
    struct qd_error err;
    struct stat before, after;
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, NULL), 0);
    key = signing_key_free(key);
    for (off_t at = 0; at < 104; at++) {
        change_byte(p->key, at);
        assert_int_equal(stat(p->key, &before), 0);
        assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, &err), QD_E_CORRUPT);
        assert_int_equal(stat(p->key, &after), 0);
        assert_true(before.st_ino == after.st_ino);
        change_byte(p->key, at);
    }
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, &err), 0);
    key = signing_key_free(key);
    assert_int_equal(truncate(p->key, 0), 0);
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, &err), QD_E_CORRUPT);
    assert_true(strlen(err.hint) > 0);
}

static void signing_key__open_to_others__is_denied(void **state)
{
    const struct place *p = *state;
    struct signing_key *key = NULL;
    struct qd_error err;
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, NULL), 0);
    key = signing_key_free(key);
    assert_int_equal(chmod(p->key, 0640), 0);
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, &err), QD_E_DENIED);
}

static void signing_key__a_credential__comes_first_and_is_not_rotated(void **state)
{
    const struct place *p = *state;
    char credentials[96], other[96];
    CLEANUP(signing_key_free) struct signing_key *credential = NULL;
    CLEANUP(signing_key_free) struct signing_key *loaded = NULL;
    struct signing_key *rotated = NULL;
    struct qd_error err;
    bool created;
    (void)snprintf(credentials, sizeof credentials, "%s/credentials", p->folder);
    (void)snprintf(other, sizeof other, "%s/state", p->folder);
    assert_int_equal(mkdir(credentials, 0700), 0);
    assert_int_equal(mkdir(other, 0700), 0);
    assert_int_equal(signing_key_load_or_create(credentials, NULL, &credential, NULL, NULL), 0);
    assert_int_equal(signing_key_load_or_create(other, credentials, &loaded, &created, NULL), 0);
    assert_false(created);
    assert_memory_equal(signing_key_public(credential), signing_key_public(loaded), PUBLIC_KEY_BYTES);
    assert_int_equal(signing_key_rotate(other, credentials, &rotated, &err), QD_E_UNSUPPORTED);
}

static void signing_key_rotate__the_old_public_key__stays_trusted_in_retired(void **state)
{
    const struct place *p = *state;
    char retired[96];
    CLEANUP(signing_key_free) struct signing_key *old = NULL;
    CLEANUP(signing_key_free) struct signing_key *new = NULL;
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    (void)snprintf(retired, sizeof retired, "%s/retired", p->folder);
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &old, NULL, NULL), 0);
    assert_int_equal(signing_key_rotate(p->folder, NULL, &new, NULL), 0);
    assert_true(memcmp(signing_key_public(old), signing_key_public(new), PUBLIC_KEY_BYTES) != 0);
    assert_int_equal(keyring_trust_folder(k, retired, NULL), 0);
    assert_true(keyring_trusts(k, signing_key_id(old)));
    assert_false(keyring_trusts(k, signing_key_id(new)));
    change_byte(p->key, 20); /* a damaged key is what one rotates away from */
    struct signing_key *third = NULL;
    assert_int_equal(signing_key_rotate(p->folder, NULL, &third, NULL), 0);
    signing_key_free(third);
}

static void manifest_seal__its_envelope__verifies_with_the_published_key(void **state)
{
    const struct place *p = *state;
    char pub[96];
    CLEANUP(signing_key_free) struct signing_key *key = NULL;
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    CLEANUP(buffer_clear) struct buffer sealed = {0};
    struct envelope e;
    (void)snprintf(pub, sizeof pub, "%s/quantd.pub", p->folder);
    assert_int_equal(signing_key_load_or_create(p->folder, NULL, &key, NULL, NULL), 0);
    assert_int_equal(signing_key_publish(key, pub, "test", NULL), 0);
    assert_int_equal(signing_key_publish(key, pub, "again", NULL), 0);
    assert_int_equal(keyring_trust_file(k, pub, NULL), 0);
    assert_int_equal(manifest_seal(key, (struct bytes){(const uint8_t *)"any bytes", 9}, &sealed, NULL), 0);
    assert_int_equal(envelope_decode(buffer_span(&sealed), &e, NULL), 0);
    assert_int_equal(envelope_verify(&e, k, NULL), 0);
}

/* --- Hints --- */

static struct stat file_stat(uint64_t ino, uint64_t ctime)
{
    struct stat st;
    memset(&st, 0, sizeof st);
    st.st_dev = 5;
    st.st_ino = ino;
    st.st_size = 1000;
    st.st_mtim.tv_sec = 1600000000;
    st.st_ctim.tv_sec = (time_t)ctime;
    return st;
}

static struct digest some_digest(unsigned n)
{
    struct digest d;
    assert_int_equal(digest_message("test", (struct bytes){(const uint8_t *)&n, sizeof n}, &d, NULL), 0);
    return d;
}

static void hints__put_and_opened_again__are_known_and_any_other_stat_is_not(void **state)
{
    const struct place *p = *state;
    struct hints *h = NULL;
    struct digest d = some_digest(1), got;
    struct stat st = file_stat(7, 1600000001);
    assert_int_equal(hints_open(p->hints, &h, NULL), 0);
    assert_false(hint_get(h, &st, &got));
    assert_int_equal(hint_put(h, &st, &d, NULL), 0);
    h = hints_close(h);
    assert_int_equal(hints_open(p->hints, &h, NULL), 0);
    assert_true(hint_get(h, &st, &got));
    assert_true(digest_equal(&got, &d));
    struct stat other = st;
    other.st_size++;
    assert_false(hint_get(h, &other, &got));
    other = st;
    other.st_mtim.tv_nsec++;
    assert_false(hint_get(h, &other, &got));
    other = st;
    other.st_ctim.tv_nsec++;
    assert_false(hint_get(h, &other, &got));
    other = st;
    other.st_dev++;
    assert_false(hint_get(h, &other, &got));
    hints_close(h);
}

static void hint_put__a_file_changed_a_moment_ago__is_not_remembered(void **state)
{
    const struct place *p = *state;
    struct hints *h = NULL;
    struct digest d = some_digest(1);
    struct stat st = file_stat(7, 0);
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &st.st_ctim), 0);
    assert_int_equal(hints_open(p->hints, &h, NULL), 0);
    assert_int_equal(hint_put(h, &st, &d, NULL), 0);
    assert_int_equal(hints_count(h), 0);
    hints_close(h);
}

static void hints__damaged_at_any_place__lose_hints_but_never_lie(void **state)
{
    const struct place *p = *state;
    enum { N = 5 };
    for (off_t at = 0; at < 16 + N * 80; at += 3) {
        struct hints *h = NULL;
        (void)unlink(p->hints);
        assert_int_equal(hints_open(p->hints, &h, NULL), 0);
        for (unsigned i = 0; i < N; i++) {
            struct stat st = file_stat(i, 1600000001);
            struct digest d = some_digest(i);
            assert_int_equal(hint_put(h, &st, &d, NULL), 0);
        }
        h = hints_close(h);
        change_byte(p->hints, at);
        assert_int_equal(hints_open(p->hints, &h, NULL), 0);
        assert_true(hints_count(h) < N);
        for (unsigned i = 0; i < N; i++) {
            struct stat st = file_stat(i, 1600000001);
            struct digest d = some_digest(i), got;
            if (hint_get(h, &st, &got))
                assert_true(digest_equal(&got, &d));
        }
        hints_close(h);
    }
}

static void hints__more_than_fit__forget_the_older_half(void **state)
{
    const struct place *p = *state;
    struct hints *h = NULL;
    struct digest d = some_digest(1), got;
    assert_int_equal(hints_open(p->hints, &h, NULL), 0);
    for (unsigned i = 0; i <= HINTS_MAX; i++) {
        struct stat st = file_stat(i, 1600000001);
        assert_int_equal(hint_put(h, &st, &d, NULL), 0);
    }
    struct stat oldest = file_stat(0, 1600000001), newest = file_stat(HINTS_MAX, 1600000001);
    assert_false(hint_get(h, &oldest, &got));
    assert_true(hint_get(h, &newest, &got));
    assert_true(hints_count(h) <= HINTS_MAX);
    h = hints_close(h);
    assert_int_equal(hints_open(p->hints, &h, NULL), 0);
    assert_true(hint_get(h, &newest, &got));
    hints_close(h);
}

#define PLACE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(signing_key__made_at_the_first_start__is_the_same_at_the_next),
        PLACE_TEST(signing_key__any_byte_changed_or_cut__is_corrupt_and_left_alone),
        PLACE_TEST(signing_key__open_to_others__is_denied),
        PLACE_TEST(signing_key__a_credential__comes_first_and_is_not_rotated),
        PLACE_TEST(signing_key_rotate__the_old_public_key__stays_trusted_in_retired),
        PLACE_TEST(manifest_seal__its_envelope__verifies_with_the_published_key),
        PLACE_TEST(hints__put_and_opened_again__are_known_and_any_other_stat_is_not),
        PLACE_TEST(hint_put__a_file_changed_a_moment_ago__is_not_remembered),
        PLACE_TEST(hints__damaged_at_any_place__lose_hints_but_never_lie),
        PLACE_TEST(hints__more_than_fit__forget_the_older_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
