#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/cpu.h"
#include "quant/calib/calibrate.h"
#include "quant/calib/dataset.h"
#include "tests/unit/quant/small_graph.h"

struct fixture {
    char path[64];
    int fd; /* of the folder at @path */
    struct small_graph *one, *two;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    (void)snprintf(f->path, sizeof f->path, "/tmp/quantd-dataset-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->one = small_graph_new(relu_neg, RELU_NEG_BYTES);
    f->two = small_graph_new(add_cast, ADD_CAST_BYTES);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", f->path);
    assert_int_equal(system(command), 0);
    (void)close(f->fd);
    (void)small_graph_free(f->one);
    (void)small_graph_free(f->two);
    free(f);
    return 0;
}

static void put(const struct fixture *f, const char *name, const void *content, size_t n)
{
    const int fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, n), n);
    (void)close(fd);
}

static void put_npy(const struct fixture *f, const char *name, const char *descr, const char *shape, const void *x,
                    size_t n)
{
    char text[256] = "\x93NUMPY\1";
    const int length =
        snprintf(text + 10, sizeof text - 10, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape);
    text[8] = (char)length;
    memcpy(text + 10 + length, x, n);
    put(f, name, text, 10 + (size_t)length + n);
}

static void put_floats(const struct fixture *f, const char *name, float first)
{
    const float x[2] = {first, first + 1};
    put_npy(f, name, "<f4", "(1, 2)", x, sizeof x);
}

static void put_int(const struct fixture *f, const char *name, int64_t x)
{
    put_npy(f, name, "<i8", "(1,)", &x, sizeof x);
}

static void dataset_next__files_in_any_order__come_by_name(void **state)
{
    struct fixture *f = *state;
    CLEANUP(dataset_free) struct dataset *d = NULL;
    put_floats(f, "b.npy", 2);
    put_floats(f, "a10.npy", 1);
    put_floats(f, "a.npy", 0);
    put(f, ".hidden", "x", 1);
    /* TensorProto: dims 1 2, float, raw */
    put(f, "c.pb", "\x08\x01\x08\x02\x10\x01\x4a\x08\0\0\x40\x40\0\0\x80\x40", 16);
    assert_int_equal(dataset_open(f->fd, NULL, f->one->graph, f->one->memory, &d, NULL), 0);
    assert_int_equal(dataset_n_samples(d), 4);
    static const char *const names[] = {"a.npy", "a10.npy", "b.npy", "c.pb"};
    for (int i = 0; i < 4; i++) {
        CLEANUP(value_release) struct value *v = NULL;
        const char *name;
        struct qd_error err = {0};
        if (dataset_next(d, &v, &name, &err) != 1)
            fail_msg("%s", err.message);
        assert_string_equal(name, names[i]);
        assert_true(((float *)v->data)[0] == (float)i);
    }
    struct value *none = NULL;
    const char *name;
    assert_int_equal(dataset_next(d, &none, &name, NULL), 0);
}

static void dataset_next__two_inputs__come_from_their_folders(void **state)
{
    struct fixture *f = *state;
    struct qd_error err = {0};
    const struct digest model = {{1}};
    CLEANUP(dataset_free) struct dataset *d = NULL;
    CLEANUP(statistics_free) struct statistics *s = statistics_new(&model);
    assert_int_equal(mkdirat(f->fd, "a", 0700) | mkdirat(f->fd, "b", 0700), 0);
    put_floats(f, "a/1.npy", 1);
    put_floats(f, "a/2.npy", 5);
    put_int(f, "b/1.npy", 100);
    put_int(f, "b/2.npy", -100);
    if (dataset_open(f->fd, NULL, f->two->graph, f->two->memory, &d, &err) < 0)
        fail_msg("%s", err.message);
    const struct calibration c = {
        .run = {.kernels = ops_native(), .team = f->two->team}, .next = dataset_next, .data = d};
    if (calibrate(f->two->graph, &c, s, &err) < 0)
        fail_msg("%s", err.message);
    const struct observer *z = statistics_find(s, "z")->all;
    assert_true(z->low == -95 && z->high == 102 && z->n_samples == 2);
}

static void expect_open(struct fixture *f, struct small_graph *g, int code, const char *says)
{
    CLEANUP(dataset_free) struct dataset *d = NULL;
    struct qd_error err = {0};
    const int r = dataset_open(f->fd, NULL, g->graph, g->memory, &d, &err);
    if (r != code || !strstr(err.message, says))
        fail_msg("%d: %s", r, err.message);
}

static void dataset_open__an_empty_folder__is_refused(void **state)
{
    struct fixture *f = *state;
    expect_open(f, f->one, QD_E_INVALID, "is empty");
}

static void dataset_open__a_file_of_another_kind_or_a_folder__is_named(void **state)
{
    struct fixture *f = *state;
    put_floats(f, "a.npy", 1);
    put(f, "notes.txt", "x", 1);
    expect_open(f, f->one, QD_E_INVALID, "'notes.txt'");
    assert_int_equal(unlinkat(f->fd, "notes.txt", 0), 0);
    assert_int_equal(mkdirat(f->fd, "more", 0700), 0);
    expect_open(f, f->one, QD_E_INVALID, "'more'");
}

static void dataset_open__inputs_that_do_not_pair__are_named(void **state)
{
    struct fixture *f = *state;
    expect_open(f, f->two, QD_E_INVALID, "no folder 'a'");
    assert_int_equal(mkdirat(f->fd, "a", 0700) | mkdirat(f->fd, "b", 0700), 0);
    put_floats(f, "a/1.npy", 1);
    put_floats(f, "a/2.npy", 1);
    put_int(f, "b/1.npy", 1);
    expect_open(f, f->two, QD_E_INVALID, "input 'b' has 1 samples, input 'a' has 2");
    put_int(f, "b/3.npy", 1);
    expect_open(f, f->two, QD_E_INVALID, "'a/2.npy' and 'b/3.npy'");
}

static void dataset_open__a_link_as_folder__is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(symlinkat("/tmp", f->fd, "a"), 0);
    expect_open(f, f->two, QD_E_DENIED, "symbolic link");
}

/* The first sample is refused with that code and words. */
static void expect_next(struct fixture *f, struct small_graph *g, int code, const char *says)
{
    CLEANUP(dataset_free) struct dataset *d = NULL;
    struct value *in[2] = {NULL, NULL};
    struct qd_error err = {0};
    const char *name;
    assert_int_equal(dataset_open(f->fd, NULL, g->graph, g->memory, &d, NULL), 0);
    const int r = dataset_next(d, in, &name, &err);
    if (r != code || !strstr(err.message, says) || !strstr(err.message, "calibration data '"))
        fail_msg("%d: %s", r, err.message);
    (void)value_release(in[0]);
    (void)value_release(in[1]);
}

static void dataset_next__bad_files__are_named(void **state)
{
    struct fixture *f = *state;
    put(f, "a.npy", "", 0);
    expect_next(f, f->one, QD_E_CORRUPT, "'a.npy'");
    put(f, "a.npy", "PK\3\4 and so on", 14);
    expect_next(f, f->one, QD_E_CORRUPT, "no .npy file");
    put_int(f, "a.npy", 1);
    expect_next(f, f->one, QD_E_INVALID, "it is of int64, input 'x' of float32");
    assert_int_equal(unlinkat(f->fd, "a.npy", 0), 0);
    put(f, "a.pb", "\xff\xff\xff\xff\xff", 5);
    expect_next(f, f->one, QD_E_CORRUPT, "'a.pb'");
    assert_int_equal(unlinkat(f->fd, "a.pb", 0), 0);
    assert_int_equal(symlinkat("/etc/passwd", f->fd, "a.npy"), 0);
    expect_next(f, f->one, QD_E_DENIED, "symbolic link");
    assert_int_equal(unlinkat(f->fd, "a.npy", 0), 0);
    assert_int_equal(mkfifoat(f->fd, "a.npy", 0600), 0);
    expect_next(f, f->one, QD_E_CORRUPT, "regular file");
    assert_int_equal(unlinkat(f->fd, "a.npy", 0), 0);
    assert_int_equal(mkdirat(f->fd, "a.npy", 0700), 0);
    expect_next(f, f->one, QD_E_CORRUPT, "regular file");
}

static void dataset_next__another_rank_or_fixed_dimension__is_named(void **state)
{
    struct fixture *f = *state;
    const float x[3] = {1, 2, 3};
    assert_int_equal(mkdirat(f->fd, "a", 0700) | mkdirat(f->fd, "b", 0700), 0);
    put_int(f, "b/1.npy", 1);
    put_npy(f, "a/1.npy", "<f4", "(3,)", x, sizeof x);
    expect_next(f, f->two, QD_E_INVALID, "it has 1 dimensions, input 'a' has 2");
    put_npy(f, "a/1.npy", "<f4", "(1, 3)", x, sizeof x);
    expect_next(f, f->two, QD_E_INVALID, "dimension 1 is 3, that of input 'a' is 2");
}

static void digest_of(struct fixture *f, struct digest *ret)
{
    CLEANUP(dataset_free) struct dataset *d = NULL;
    assert_int_equal(dataset_open(f->fd, NULL, f->one->graph, f->one->memory, &d, NULL), 0);
    assert_int_equal(dataset_digest(d, NULL, ret, NULL), 0);
}

static void dataset_digest__content_or_name_changed__is_another(void **state)
{
    struct fixture *f = *state;
    struct digest first, again, content, name;
    put_floats(f, "a.npy", 1);
    digest_of(f, &first);
    digest_of(f, &again);
    put_floats(f, "a.npy", 2);
    digest_of(f, &content);
    put_floats(f, "a.npy", 1);
    assert_int_equal(renameat(f->fd, "a.npy", f->fd, "b.npy"), 0);
    digest_of(f, &name);
    assert_true(digest_equal(&first, &again));
    assert_false(digest_equal(&first, &content));
    assert_false(digest_equal(&first, &name));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(dataset_next__files_in_any_order__come_by_name),
        CASE(dataset_next__two_inputs__come_from_their_folders),
        CASE(dataset_open__an_empty_folder__is_refused),
        CASE(dataset_open__a_file_of_another_kind_or_a_folder__is_named),
        CASE(dataset_open__inputs_that_do_not_pair__are_named),
        CASE(dataset_open__a_link_as_folder__is_refused),
        CASE(dataset_next__bad_files__are_named),
        CASE(dataset_next__another_rank_or_fixed_dimension__is_named),
        CASE(dataset_digest__content_or_name_changed__is_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
