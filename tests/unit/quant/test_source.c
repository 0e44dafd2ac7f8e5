/* Sources: what may be opened, what stays beneath the folder, and whoever changes a file is noticed. */
#include "quant/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

struct place {
    char folder[TEST_PATH_MAX];
    char path[2 * TEST_PATH_MAX]; /* folder/x.gguf */
};

static void make_place(struct place *p, const char *content)
{
    folder_make(p->folder);
    (void)snprintf(p->path, sizeof p->path, "%s/x.gguf", p->folder);
    if (content)
        file_write(p->folder, "x.gguf", (struct bytes){(const uint8_t *)content, strlen(content)});
}

static int open_it(const struct place *p, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = NULL;
    return source_open(p->path, &s, err);
}

static void source_open__missing_file__says_which_and_why(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, NULL);
    struct qd_error err;
    assert_int_equal(open_it(&p, &err), QD_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "x.gguf': No such file"));
    folder_remove(p.folder);
}

static void source_open__fifo__is_refused_without_waiting(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, NULL);
    assert_int_equal(mkfifo(p.path, 0600), 0);
    struct qd_error err;
    alarm(5); /* a wait for the writer would end the test */
    assert_int_equal(open_it(&p, &err), QD_E_CORRUPT);
    alarm(0);
    assert_non_null(strstr(err.message, "a fifo, not a regular file"));
    folder_remove(p.folder);
}

static void source_open__device_and_empty_file__are_refused(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, "");
    struct qd_error err;
    assert_int_equal(open_it(&p, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "is empty"));
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open("/dev/null", &s, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "a device, not a regular file"));
    folder_remove(p.folder);
}

static void source_open__folder_without_a_model__names_what_it_looked_for(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, "x");
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open(p.folder, &s, &err), QD_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "neither model.safetensors nor model.safetensors.index.json"));
    folder_remove(p.folder);
}

static void source_from_fd__folder__is_refused_and_its_descriptor_closed(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, NULL);
    int fd = open(p.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_from_fd(fd, "x.gguf", &s, &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "a folder, not a regular file"));
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    folder_remove(p.folder);
}

typedef int opener(int folder_fd, const char *name, int *ret_fd, struct qd_error *err);

/* The same paths through openat2 and through the walk by components. */
static void try_paths(opener *open_one)
{
    static const struct {
        const char *name;
        int code; /* 0: opened; 1: missing */
    } cases[] = {
        {"file", 0},
        {"sub/file", 0},
        {"./sub//file", 0},
        {"none", 1},
        {"sub/none", 1},
        {"none/file", 1},
        {"link", QD_E_DENIED},
        {"linked/file", QD_E_DENIED},
        {"up", QD_E_DENIED},
        {"dangling", QD_E_DENIED},
        {"../file", QD_E_DENIED},
        {"sub/../file", QD_E_DENIED},
        {"..", QD_E_DENIED},
        {"/etc/passwd", QD_E_DENIED},
        {"", QD_E_DENIED},
        {"sub/..", QD_E_DENIED},
        {"linked/../../file", QD_E_DENIED},
    };
    struct place p;
    make_place(&p, NULL);
    CLEANUP(fd_close) int folder = open(p.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    file_write(p.folder, "file", (struct bytes){(const uint8_t *)"x", 1});
    assert_int_equal(mkdirat(folder, "sub", 0700), 0);
    CLEANUP(fd_close) int sub = openat(folder, "sub", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(fd_close) int made = openat(sub, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(symlinkat("file", folder, "link"), 0);
    assert_int_equal(symlinkat("sub", folder, "linked"), 0);
    assert_int_equal(symlinkat("..", folder, "up"), 0);
    assert_int_equal(symlinkat("nowhere", folder, "dangling"), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_error err = {0};
        CLEANUP(fd_close) int fd = -2;
        int r = open_one(folder, cases[i].name, &fd, &err);
        if (r != (cases[i].code > 0 ? 0 : cases[i].code))
            print_error("'%s': %d %s\n", cases[i].name, r, err.message);
        assert_int_equal(r, cases[i].code > 0 ? 0 : cases[i].code);
        if (cases[i].code == 1)
            assert_int_equal(fd, -1);
        if (cases[i].code == 0)
            assert_true(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC);
        fd = fd < 0 ? -1 : fd;
    }
    assert_int_equal(unlinkat(sub, "file", 0), 0);
    folder_remove(p.folder);
}

static void open_beneath__hostile_names__stay_in_the_folder(void **state)
{
    (void)state;
    try_paths(open_beneath);
}

/* As Hugging Face's cache: links out of the folder. */
static void source_open__folder_of_links__is_refused_but_by_who_acts_with_own_rights(void **state)
{
    (void)state;
    struct place p, blobs;
    struct qd_error err;
    make_place(&p, NULL);
    make_place(&blobs, "a model");
    CLEANUP(fd_close) int folder = open(p.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(symlinkat(blobs.path, folder, "model.safetensors"), 0);
    assert_int_equal(symlinkat(blobs.path, folder, "config.json"), 0);
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open(p.folder, &s, &err), QD_E_DENIED);
    assert_non_null(strstr(err.message, "is a symbolic link"));
    assert_non_null(strstr(err.hint, "cp -rL"));
    assert_int_equal(source_open_following(p.folder, &s, &err), 0);
    assert_int_equal(source_add_companion(s, "config", "config.json", 0, &err), 0);
    assert_int_equal(source_n_files(s), 2);
    assert_int_equal(source_add_companion(s, "weights", "../x.gguf", 0, &err),
                     QD_E_DENIED); /* a name that the model gives */
    assert_int_equal(source_add_companion(s, "weights", blobs.path, 0, &err), QD_E_DENIED);
    folder_remove(p.folder);
    folder_remove(blobs.folder);
}

static void open_beneath_walk__hostile_names__get_the_same_verdicts(void **state)
{
    (void)state;
    try_paths(open_beneath_walk);
}

static void source_add__same_name_twice__is_refused(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, "content");
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open(p.path, &s, &err), 0);
    int fd = open(p.path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(source_add(s, fd, "weights", "x.gguf", &err), QD_E_INVALID);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken, and closed */
    folder_remove(p.folder);
}

enum { BIG = 3 * SOURCE_GRANULE_BYTES + 5 };

/* A file of three granules and five bytes: byte i is i / 1000. */
static struct source *open_big(struct place *p)
{
    make_place(p, NULL);
    uint8_t *content = malloc(BIG);
    assert_non_null(content);
    for (size_t i = 0; i < BIG; i++)
        content[i] = (uint8_t)(i / 1000);
    file_write(p->folder, "x.gguf", (struct bytes){content, BIG});
    free(content);
    struct qd_error err;
    struct source *s = NULL;
    assert_int_equal(source_open(p->path, &s, &err), 0);
    source_set_witness(s, 1);
    return s;
}

static void source_read_meta__across_granules__gives_the_files_bytes(void **state)
{
    (void)state;
    struct place p;
    CLEANUP(source_free) struct source *s = open_big(&p);
    uint8_t got[4000];
    struct qd_error err;
    uint64_t at = SOURCE_GRANULE_BYTES - 1234;
    assert_int_equal(source_read_meta(s, 0, at, got, sizeof got, &err), 0);
    for (size_t i = 0; i < sizeof got; i++)
        assert_int_equal(got[i], (uint8_t)((at + i) / 1000));
    assert_int_equal(source_read_meta(s, 0, BIG - 1, got, 2, &err), QD_E_CORRUPT);
    assert_int_equal(source_read_meta(s, 0, UINT64_MAX, got, 2, &err), QD_E_CORRUPT);
    folder_remove(p.folder);
}

static void source_read_granule__last_one__is_short(void **state)
{
    (void)state;
    struct place p;
    CLEANUP(source_free) struct source *s = open_big(&p);
    uint8_t *got = malloc(SOURCE_GRANULE_BYTES);
    struct qd_error err;
    assert_int_equal(source_read_granule(s, 0, 0, got, &err), SOURCE_GRANULE_BYTES);
    assert_int_equal(source_read_granule(s, 0, 3, got, &err), 5);
    assert_int_equal(source_read_granule(s, 0, 4, got, &err), QD_E_INTERNAL);
    free(got);
    folder_remove(p.folder);
}

/* A dirty shared mapping changes the content with size, mtime and ctime unmoved: only the witness tells. */
static void source_read_granule__metadata_changed_through_a_mapping__is_noticed(void **state)
{
    (void)state;
    struct place p;
    CLEANUP(source_free) struct source *s = open_big(&p);
    CLEANUP(fd_close) int fd = open(p.path, O_RDWR | O_CLOEXEC);
    uint8_t *map = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    map[0] = map[0]; /* the first write of a page moves the times; do that before */
    uint8_t got[16], *granule = malloc(SOURCE_GRANULE_BYTES);
    struct qd_error err;
    assert_int_equal(source_read_meta(s, 0, 2 * SOURCE_GRANULE_BYTES, got, sizeof got, &err), 0);
    assert_int_equal(source_read_granule(s, 0, 2, granule, &err), SOURCE_GRANULE_BYTES);
    map[2 * SOURCE_GRANULE_BYTES + 500] ^= 1;
    assert_int_equal(source_read_granule(s, 0, 2, granule, &err), QD_E_SOURCE_CHANGED);
    assert_non_null(strstr(err.message, "'x.gguf' changed while it was read"));
    assert_int_equal(source_read_granule(s, 0, 1, granule, &err),
                     SOURCE_GRANULE_BYTES);                       /* no metadata: the shard digests tell */
    assert_int_equal(source_read_meta(s, 0, 0, got, 1, &err), 0); /* another granule takes the cache */
    assert_int_equal(source_read_meta(s, 0, 2 * SOURCE_GRANULE_BYTES, got, 1, &err), QD_E_SOURCE_CHANGED);
    (void)munmap(map, BIG);
    free(granule);
    folder_remove(p.folder);
}

static void source__truncated_under_us__is_an_error_and_no_signal(void **state)
{
    (void)state;
    struct place p;
    CLEANUP(source_free) struct source *s = open_big(&p);
    uint8_t *granule = malloc(SOURCE_GRANULE_BYTES);
    struct qd_error err;
    assert_int_equal(source_check_unchanged(s, &err), 0);
    assert_int_equal(truncate(p.path, SOURCE_GRANULE_BYTES + 7), 0);
    assert_int_equal(source_read_granule(s, 0, 0, granule, &err), SOURCE_GRANULE_BYTES);
    assert_int_equal(source_read_granule(s, 0, 1, granule, &err), QD_E_SOURCE_CHANGED);
    assert_non_null(strstr(err.message, "became shorter"));
    assert_int_equal(source_check_unchanged(s, &err), QD_E_SOURCE_CHANGED);
    assert_non_null(strstr(err.message, "became shorter"));
    free(granule);
    folder_remove(p.folder);
}

static void source_check_unchanged__grown_or_rewritten__says_how(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, "0123456789");
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL, *t = NULL;
    assert_int_equal(source_open(p.path, &s, &err), 0);
    CLEANUP(fd_close) int fd = open(p.path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite_whole(fd, "xx", 2, 9), 0);
    assert_int_equal(source_check_unchanged(s, &err), QD_E_SOURCE_CHANGED);
    assert_non_null(strstr(err.message, "grew"));
    assert_int_equal(source_open(p.path, &t, &err), 0);
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(futimens(fd, times), 0);
    assert_int_equal(source_check_unchanged(t, &err), QD_E_SOURCE_CHANGED);
    assert_non_null(strstr(err.message, "was written to"));
    folder_remove(p.folder);
}

static void source_check_unchanged__replaced_by_rename__reads_on_from_the_old_file(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, "old content");
    struct qd_error err;
    CLEANUP(source_free) struct source *s = NULL;
    assert_int_equal(source_open(p.path, &s, &err), 0);
    file_write(p.folder, "new", (struct bytes){(const uint8_t *)"new content", 11});
    char from[2 * TEST_PATH_MAX];
    (void)snprintf(from, sizeof from, "%s/new", p.folder);
    (void)usleep(20000); /* file times move by ticks of the kernel's clock */
    assert_int_equal(rename(from, p.path), 0);
    char got[3];
    assert_int_equal(source_read_meta(s, 0, 0, got, 3, &err), 0);
    assert_memory_equal(got, "old", 3);
    assert_int_equal(source_check_unchanged(s, &err), QD_E_SOURCE_CHANGED); /* its last link went: ctime */
    folder_remove(p.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_open__missing_file__says_which_and_why),
        cmocka_unit_test(source_open__fifo__is_refused_without_waiting),
        cmocka_unit_test(source_open__device_and_empty_file__are_refused),
        cmocka_unit_test(source_open__folder_without_a_model__names_what_it_looked_for),
        cmocka_unit_test(source_from_fd__folder__is_refused_and_its_descriptor_closed),
        cmocka_unit_test(open_beneath__hostile_names__stay_in_the_folder),
        cmocka_unit_test(source_open__folder_of_links__is_refused_but_by_who_acts_with_own_rights),
        cmocka_unit_test(open_beneath_walk__hostile_names__get_the_same_verdicts),
        cmocka_unit_test(source_add__same_name_twice__is_refused),
        cmocka_unit_test(source_read_meta__across_granules__gives_the_files_bytes),
        cmocka_unit_test(source_read_granule__last_one__is_short),
        cmocka_unit_test(source_read_granule__metadata_changed_through_a_mapping__is_noticed),
        cmocka_unit_test(source__truncated_under_us__is_an_error_and_no_signal),
        cmocka_unit_test(source_check_unchanged__grown_or_rewritten__says_how),
        cmocka_unit_test(source_check_unchanged__replaced_by_rename__reads_on_from_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
