#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/rights.h"
#include "kernels/core/io.h"

enum { ALICE = 5001, BOB = 5002, STAFF = 6001, CREW = 6002 };

static gid_t bob_groups[] = {CREW, STAFF};
static const struct credentials root_user = {.uid = 0}, alice = {.uid = ALICE, .gid = ALICE},
                                bob = {.uid = BOB, .gid = BOB, .groups = bob_groups, .n_groups = 2},
                                carol = {.uid = 5003, .gid = 5003};

static struct stat file_of(uid_t uid, gid_t gid, mode_t mode)
{
    return (struct stat){.st_uid = uid, .st_gid = gid, .st_mode = S_IFREG | mode};
}

static void rights_allow__mode_bits__first_class_that_fits_decides(void **state)
{
    (void)state;
    static const struct {
        const struct credentials *who;
        mode_t mode;
        bool allowed;
    } rows[] = {
        {&alice, 0400, true}, {&alice, 0044, false}, {&alice, 0000, false}, {&bob, 0040, true},    {&bob, 0404, false},
        {&bob, 0004, false},  {&carol, 0004, true},  {&carol, 0440, false}, {&root_user, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stat st = file_of(ALICE, STAFF, rows[i].mode);
        assert_int_equal(rights_allow(rows[i].who, &st, NULL, 0, 4), rows[i].allowed);
    }
}

static void rights_allow__search__is_another_bit_than_read(void **state)
{
    (void)state;
    struct stat st = file_of(ALICE, STAFF, 0701);
    assert_true(rights_allow(&carol, &st, NULL, 0, 1));
    assert_false(rights_allow(&carol, &st, NULL, 0, 4));
    assert_false(rights_allow(&bob, &st, NULL, 0, 1));
}

/* u::rw- u:bob:r-- g::--- g:CREW:r-- m::r-- o::--- in the kernel's bytes. */
static size_t acl_text(uint8_t *dst, uint16_t user_perm, uint16_t mask)
{
    const struct {
        uint16_t tag, perm;
        uint32_t id;
    } entries[] = {{0x01, 6, UINT32_MAX}, {0x02, user_perm, BOB},   {0x04, 0, UINT32_MAX},
                   {0x08, 4, CREW},       {0x10, mask, UINT32_MAX}, {0x20, 0, UINT32_MAX}};
    const uint32_t version = 2;
    memcpy(dst, &version, 4);
    memcpy(dst + 4, entries, sizeof entries);
    return 4 + sizeof entries;
}

static void rights_allow__acl_names_the_user__its_entry_decides(void **state)
{
    (void)state;
    uint8_t acl[64];
    struct stat st = file_of(ALICE, ALICE, 0640);
    size_t n = acl_text(acl, 4, 4);
    assert_true(rights_allow(&bob, &st, acl, n, 4));
    n = acl_text(acl, 0, 4);
    assert_false(rights_allow(&bob, &st, acl, n, 4)); /* although his group might */
}

static void rights_allow__acl_mask__takes_away(void **state)
{
    (void)state;
    uint8_t acl[64];
    struct stat st = file_of(ALICE, ALICE, 0600);
    size_t n = acl_text(acl, 4, 0);
    assert_false(rights_allow(&bob, &st, acl, n, 4));
}

static void rights_allow__acl_names_a_group__its_members_may(void **state)
{
    (void)state;
    uint8_t acl[64];
    gid_t groups[] = {CREW};
    struct credentials dave = {.uid = 5004, .gid = 5004, .groups = groups, .n_groups = 1};
    struct stat st = file_of(ALICE, ALICE, 0640);
    size_t n = acl_text(acl, 0, 4);
    assert_true(rights_allow(&dave, &st, acl, n, 4));
    assert_false(rights_allow(&carol, &st, acl, n, 4));
}

static void rights_allow__acl_cut_or_of_another_version__falls_back_without_reading_beyond(void **state)
{
    (void)state;
    uint8_t acl[64];
    struct stat st = file_of(ALICE, ALICE, 0604);
    size_t n = acl_text(acl, 4, 4);
    for (size_t cut = 0; cut <= n; cut++) {
        uint8_t *exact = malloc(cut + 1);
        assert_non_null(exact);
        memcpy(exact, acl, cut);
        (void)rights_allow(&bob, &st, exact, cut, 4); /* the sanitizer judges */
        free(exact);
    }
    acl[0] = 9;
    assert_true(rights_allow(&carol, &st, acl, n, 4));
}

/* Folders are what protects most models: a file of mode 0644 below a folder of mode 0700. */
static void rights_may_read__folder_above_is_closed__no(void **state)
{
    (void)state;
    char folder[] = "/tmp/quantd-rights-XXXXXX", file[64], command[96];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(file, sizeof file, "%s/m.gguf", folder);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(chmod(file, 0644), 0);
    assert_int_equal(chmod(folder, 0711), 0);
    assert_true(rights_may_read(&carol, file));
    assert_int_equal(chmod(folder, 0700), 0);
    assert_false(rights_may_read(&carol, file));
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(chmod(file, 0600), 0);
    assert_false(rights_may_read(&carol, file));
    assert_false(rights_may_read(&carol, "/tmp/quantd-no-such-file"));
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* A model of two files, of which the peer may read one only. */
static void rights_may_open__one_shard_is_closed__no(void **state)
{
    (void)state;
    char folder[] = "/tmp/quantd-rights-XXXXXX", a[64], b[64], command[96];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    (void)snprintf(a, sizeof a, "%s/a", folder);
    (void)snprintf(b, sizeof b, "%s/b", folder);
    assert_int_equal(mknod(a, S_IFREG | 0644, 0) | mknod(b, S_IFREG | 0600, 0), 0);
    assert_int_equal(chmod(a, 0644) | chmod(b, 0600), 0);
    const char *const both[] = {a, b, NULL}, *const one[] = {a, NULL};
    struct config config = {0};
    struct catalog_model m = {.name = "m", .root = folder, .files = one};
    assert_true(rights_may_open(&config, &carol, &m));
    m.files = both;
    assert_false(rights_may_open(&config, &carol, &m));

    struct config_root root = {.path = folder, .uids = {5003}, .n_uids = 1};
    config = (struct config){.roots = &root, .n_roots = 1};
    assert_true(rights_may_open(&config, &carol, &m));
    assert_false(rights_may_open(&config, &alice, &m));
    root = (struct config_root){.path = folder, .gids = {CREW}, .n_gids = 1};
    assert_true(rights_may_open(&config, &bob, &m));
    assert_false(rights_may_open(&config, &carol, &m));
    root = (struct config_root){.path = folder, .grant_all = true};
    assert_true(rights_may_open(&config, &carol, &m));
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* Judged is the file that is served: a path that leads to another one by now says nothing. */
static void rights_may_open__file_put_in_its_place__no(void **state)
{
    (void)state;
    char folder[] = "/tmp/quantd-rights-XXXXXX", a[64], b[64], command[96];
    struct stat st;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    (void)snprintf(a, sizeof a, "%s/a", folder);
    (void)snprintf(b, sizeof b, "%s/b", folder);
    assert_int_equal(mknod(a, S_IFREG | 0644, 0) | mknod(b, S_IFREG | 0644, 0), 0);
    assert_int_equal(chmod(a, 0644) | chmod(b, 0644) | stat(a, &st), 0);
    const char *const files[] = {a, NULL};
    struct config config = {0};
    struct catalog_model m = {
        .name = "m", .root = folder, .files = files, .first_file = a, .stamp = {.dev = st.st_dev, .ino = st.st_ino}};
    assert_true(rights_may_open(&config, &carol, &m));
    assert_int_equal(rename(b, a), 0);
    assert_false(rights_may_open(&config, &carol, &m));
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void rights_is_admin__root_own_uid_and_named_ones__only(void **state)
{
    (void)state;
    struct config config = {.admin_uids = {ALICE}, .n_admin_uids = 1};
    struct credentials self = {.uid = geteuid()};
    assert_true(rights_is_admin(&config, &root_user));
    assert_true(rights_is_admin(&config, &self));
    assert_true(rights_is_admin(&config, &alice));
    assert_false(rights_is_admin(&config, &bob));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_allow__mode_bits__first_class_that_fits_decides),
        cmocka_unit_test(rights_allow__search__is_another_bit_than_read),
        cmocka_unit_test(rights_allow__acl_names_the_user__its_entry_decides),
        cmocka_unit_test(rights_allow__acl_mask__takes_away),
        cmocka_unit_test(rights_allow__acl_names_a_group__its_members_may),
        cmocka_unit_test(rights_allow__acl_cut_or_of_another_version__falls_back_without_reading_beyond),
        cmocka_unit_test(rights_may_read__folder_above_is_closed__no),
        cmocka_unit_test(rights_may_open__one_shard_is_closed__no),
        cmocka_unit_test(rights_may_open__file_put_in_its_place__no),
        cmocka_unit_test(rights_is_admin__root_own_uid_and_named_ones__only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
