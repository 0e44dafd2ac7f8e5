/* Every ONNX file of the bad-file corpus causes its own error, at once, and says where and what to do. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "quant/format/onnx.h"
#include "tests/data/bad/bad_files.h"
#include "tests/test.h"
#include "tests/unit/quant/files.h"

enum { LEAST_CASES = 300, OPENS = 3000, WEIGHTS = 4, PAUSE_US = 20 };

/* A sanitizer makes everything slower by some ten times. */
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
#define SECONDS_MAX 1.0
#else
#define SECONDS_MAX 0.1
#endif

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
    if (r == 0)
        r = probe_add_files(p, *ret_source, err);
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
                        : spent > SECONDS_MAX                ? "too slow"
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

/* ---- a companion that changes under the reader's hands ---- */

struct swapper {
    const char *folder, *secret;
    _Atomic bool stop;
};

/* w.bin is a file, a link to a file outside, a file, ... */
static void *swap_for_ever(void *data)
{
    struct swapper *s = data;
    char file[2 * TEST_PATH_MAX], link[2 * TEST_PATH_MAX], name[2 * TEST_PATH_MAX];
    (void)snprintf(file, sizeof file, "%s/file", s->folder);
    (void)snprintf(link, sizeof link, "%s/link", s->folder);
    (void)snprintf(name, sizeof name, "%s/w.bin", s->folder);
    const float good[WEIGHTS] = {1, 1, 1, 1};
    while (!s->stop) {
        file_write(s->folder, "file", (struct bytes){(const uint8_t *)good, sizeof good});
        if (symlink(s->secret, link) < 0 || rename(file, name) < 0 || usleep(PAUSE_US) < 0 || rename(link, name) < 0 ||
            usleep(PAUSE_US) < 0)
            break;
    }
    return NULL;
}

/* A model whose weight is 16 bytes of w.bin. */
static void external_model(struct buffer *dst)
{
    static const uint8_t tensor[] = "\x08\x04\x10\x01\x42\x01w\x6a\x11\x0a\x08location\x12\x05w.bin\x70\x01";
    static const uint8_t head[] = "\x08\x08\x42\x04\x0a\x00\x10\x11";
    static const uint8_t node[] = "\x0a\x0c\x0a\x01w\x12\x01y\x22\x04Relu";
    buffer_put(dst, head, sizeof head - 1);
    buffer_put_u8(dst, 0x3a);
    buffer_put_u8(dst, (uint8_t)(sizeof node - 1 + 2 + sizeof tensor - 1));
    buffer_put(dst, node, sizeof node - 1);
    buffer_put_u8(dst, 0x2a);
    buffer_put_u8(dst, sizeof tensor - 1);
    buffer_put(dst, tensor, sizeof tensor - 1);
}

/* Opens the model once: 1 with the good weights, 0 where it was refused. */
static int open_once(const char *folder)
{
    struct qd_error err;
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    CLEANUP(source_free) struct source *s = NULL;
    float w[WEIGHTS] = {0};
    const int r = open_onnx(folder, "m.onnx", &m, &s, &err);
    if (r < 0) {
        assert_true(r == QD_E_DENIED || r == QD_E_NOT_FOUND);
        return 0;
    }
    assert_int_equal(onnx_tensor_load(s, &m->graph->initializers[0], w, &err), 0);
    for (int i = 0; i < WEIGHTS; i++)
        assert_true(w[i] == 1.0f);
    return 1;
}

static void onnx_read__companion_swapped_with_a_link__never_reads_what_the_link_names(void **state)
{
    (void)state;
    char folder[TEST_PATH_MAX], outside[TEST_PATH_MAX], secret[2 * TEST_PATH_MAX];
    const float bad[WEIGHTS] = {2, 2, 2, 2};
    CLEANUP(buffer_clear) struct buffer model = {0};
    pthread_t thread;
    folder_make(folder);
    folder_make(outside);
    file_write(outside, "secret", (struct bytes){(const uint8_t *)bad, sizeof bad});
    (void)snprintf(secret, sizeof secret, "%s/secret", outside);
    external_model(&model);
    file_write(folder, "m.onnx", buffer_span(&model));
    struct swapper s = {.folder = folder, .secret = secret};
    assert_int_equal(pthread_create(&thread, NULL, swap_for_ever, &s), 0);
    int n_read = 0;
    for (int i = 0; i < OPENS; i++)
        n_read += open_once(folder);
    s.stop = true;
    (void)pthread_join(thread, NULL);
    print_message("# %d of %d opens met the file, the others the link\n", n_read, OPENS);
    assert_true(n_read > 0 && n_read < OPENS);
    folder_remove(folder);
    folder_remove(outside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(onnx_read__every_bad_file__is_refused_with_its_own_error),
        cmocka_unit_test(onnx_read__the_good_file_they_are_made_from__is_read),
        cmocka_unit_test(onnx_read__companion_swapped_with_a_link__never_reads_what_the_link_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
