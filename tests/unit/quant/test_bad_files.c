/* Every file of the bad-file corpus causes its own error, at once, and says where and what to do. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/data/bad/bad_files.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

struct verdicts {
    size_t n, n_wrong;
};

static double cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail for this clock */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void try_file(const struct bad_file *f, void *data)
{
    struct verdicts *v = data;
    struct qd_error err = {0};
    CLEANUP(model_free) struct model *m = NULL;
    double before = cpu_seconds();
    int r = model_of_bytes(f->content, f->file_name, &m, &err);
    double spent = cpu_seconds() - before;
    v->n++;
    const char *wrong = r != f->code                         ? "another code"
                        : !strstr(err.message, f->says)      ? "another message"
                        : !err.hint[0] && r != QD_E_INTERNAL ? "no hint"
                        : !strstr(err.message, f->file_name) ? "no file name"
                        : spent > 0.1                        ? "too slow"
                                                             : NULL;
    if (!wrong)
        return;
    v->n_wrong++;
    print_error("%s: %s: %d (wanted %d '%s') '%s' [%s]\n", f->name, wrong, r, f->code, f->says, err.message, err.hint);
}

static void model_read__every_bad_file__is_refused_with_its_own_error(void **state)
{
    (void)state;
    struct verdicts v = {0};
    bad_files(try_file, &v);
    print_message("# %zu bad files\n", v.n);
    assert_true(v.n >= 250);
    assert_int_equal(v.n_wrong, 0);
}

static void model_read__the_good_files_they_are_made_from__are_read(void **state)
{
    (void)state;
    CLEANUP(buffer_clear) struct buffer gguf = {0}, safetensors = {0};
    good_gguf(&gguf);
    good_safetensors(&safetensors);
    struct qd_error err;
    CLEANUP(model_free) struct model *a = NULL, *b = NULL;
    assert_int_equal(model_of_bytes(buffer_span(&gguf), "x.gguf", &a, &err), 0);
    assert_int_equal(model_of_bytes(buffer_span(&safetensors), "x.safetensors", &b, &err), 0);
    assert_int_equal(a->n_tensors, 2);
    assert_int_equal(b->n_tensors, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_read__every_bad_file__is_refused_with_its_own_error),
        cmocka_unit_test(model_read__the_good_files_they_are_made_from__are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
