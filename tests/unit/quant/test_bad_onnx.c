/* Every ONNX file of the bad-file corpus causes its own error, at once, and says where and what to do. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "quant/format/onnx.h"
#include "tests/data/bad/bad_files.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

enum { LEAST_CASES = 300 };

struct verdicts {
    size_t n, n_wrong;
    char folder[TEST_PATH_MAX];
};

static double cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail for this clock */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Opens folder/name as the worker does: probe, companions, model. */
static int open_onnx(const char *folder, const char *name, struct onnx_model **ret, struct source **ret_source,
                     struct qd_error *err)
{
    char path[2 * TEST_PATH_MAX];
    CLEANUP(probe_free) struct probe *p = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name); /* cut: open fails */
    int r = source_open(path, ret_source, err);
    if (r == 0)
        r = model_probe(*ret_source, &p, err);
    for (size_t i = 0; r == 0 && i < p->n_files; i++)
        r = source_add_companion(*ret_source, p->files[i].role, p->files[i].name, p->files[i].required, err);
    return r < 0 ? r : onnx_read(*ret_source, LIMIT_HEADER_BUDGET_BYTES, ret, err);
}

static void try_file(const struct bad_file *f, void *data)
{
    struct verdicts *v = data;
    struct qd_error err = {0};
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(source_free) struct source *s = NULL;
    file_write(v->folder, f->file_name, f->content);
    const double before = cpu_seconds();
    const int r = open_onnx(v->folder, f->file_name, &m, &s, &err);
    const double spent = cpu_seconds() - before;
    v->n++;
    const char *wrong = r != f->code                         ? "another code"
                        : !strstr(err.message, f->says)      ? "another message"
                        : !err.hint[0] && r != QD_E_INTERNAL ? "no hint"
                        : spent > 0.1                        ? "too slow"
                                                             : NULL;
    if (!wrong)
        return;
    v->n_wrong++;
    print_error("%s: %s: %d (wanted %d '%s') '%s' [%s]\n", f->name, wrong, r, f->code, f->says, err.message, err.hint);
}

static void onnx_read__every_bad_file__is_refused_with_its_own_error(void **state)
{
    (void)state;
    struct verdicts v = {0};
    folder_make(v.folder);
    bad_onnx_files(try_file, &v);
    folder_remove(v.folder);
    print_message("# %zu bad files\n", v.n);
    assert_true(v.n >= LEAST_CASES);
    assert_int_equal(v.n_wrong, 0);
}

static void onnx_read__the_good_file_they_are_made_from__is_read(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX];
    struct qd_error err;
    CLEANUP(buffer_clear) struct buffer good = {0};
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(source_free) struct source *s = NULL;
    folder_make(folder);
    good_onnx(&good);
    file_write(folder, "x.onnx", buffer_span(&good));
    assert_int_equal(open_onnx(folder, "x.onnx", &m, &s, &err), 0);
    assert_int_equal(m->graph->n_nodes, 1);
    assert_string_equal(m->graph->nodes[0].op_type, "Add");
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onnx_read__every_bad_file__is_refused_with_its_own_error),
        cmocka_unit_test(onnx_read__the_good_file_they_are_made_from__is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
