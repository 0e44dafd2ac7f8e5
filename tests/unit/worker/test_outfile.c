#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/worker/outfile.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/quantd-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char name[128];
    (void)snprintf(name, sizeof name, "%s/out", folder);
    (void)unlink(name); /* a test may have left none */
    return rmdir(folder);
}

/* What a file system of another machine answers: no O_TMPFILE, no RENAME_NOREPLACE. */
static void be_on_nfs(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EOPNOTSUPP), SCMP_SYS(openat), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, O_TMPFILE, O_TMPFILE));
    r |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(renameat2), 1, SCMP_A4(SCMP_CMP_NE, 0));
    if (r != 0 || seccomp_load(filter) != 0)
        _exit(100);
    seccomp_release(filter);
}

static int publish_one(bool replace)
{
    char path[128];
    struct qd_error err = {0};
    (void)snprintf(path, sizeof path, "%s/out", folder);
    CLEANUP(outfile_close) struct outfile f = {.fd = -1, .folder_fd = -1};
    int r = outfile_open(&f, path, replace, &err);
    if (r == 0 && write(f.fd, "whole", 5) != 5)
        return 101;
    if (r == 0)
        r = outfile_publish(&f, &err);
    if (r < 0)
        fprintf(stderr, "# %s\n", err.message);
    return -r;
}

/* publish_one() in a process of its own. Returns the negated code. */
static int publish(bool nfs, bool replace)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (nfs)
            be_on_nfs();
        _exit(publish_one(replace));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static void assert_whole_and_alone(void)
{
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/out", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(st.st_nlink, 1); /* no hidden name is left */
}

static void outfile_publish__new_name__appears_whole(void **state)
{
    (void)state;
    for (int nfs = 0; nfs < 2; nfs++) {
        assert_int_equal(publish(nfs, false), 0);
        assert_whole_and_alone();
        assert_int_equal(remove_folder(NULL), 0);
        assert_int_equal(mkdir(folder, 0700), 0);
    }
}

static void outfile_publish__name_taken__is_kept_or_replaced_as_asked(void **state)
{
    (void)state;
    for (int nfs = 0; nfs < 2; nfs++) {
        (void)publish(nfs, true); /* so that one is there */
        assert_int_equal(publish(nfs, false), QD_E_EXISTS);
        assert_int_equal(publish(nfs, true), 0);
        assert_whole_and_alone();
    }
}

/* The name is taken while the work goes on, after outfile_open has looked. */
static void outfile_publish__name_taken_meanwhile__is_kept(void **state)
{
    (void)state;
    for (int nfs = 0; nfs < 2; nfs++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            char path[128];
            (void)snprintf(path, sizeof path, "%s/out", folder);
            (void)unlink(path); /* the test before may have left one */
            if (nfs)
                be_on_nfs();
            struct outfile f;
            int r = outfile_open(&f, path, false, NULL);
            r = r < 0 || mknod(path, S_IFREG | 0600, 0) < 0 ? -102 : outfile_publish(&f, NULL);
            outfile_close(&f);
            _exit(-r);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(-WEXITSTATUS(status), QD_E_EXISTS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(outfile_publish__new_name__appears_whole, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(outfile_publish__name_taken__is_kept_or_replaced_as_asked, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(outfile_publish__name_taken_meanwhile__is_kept, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
