#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <quantd/quantd.h>

#include "tests/test.h"
#include "tests/unit/client/fake_peer.h"

static unsigned n_open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

static void wait_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* The peer lives in this process: its own descriptors take a moment to go. */
static bool comes_down_to(unsigned n_fds)
{
    for (int i = 0; i < 200 && n_open_fds() > n_fds; i++)
        wait_ms(5);
    return n_open_fds() <= n_fds;
}

static int start(void **state)
{
    struct fake_peer *p = fake_peer_start();
    *state = p;
    return setenv("XDG_CONFIG_HOME", fake_peer_folder(p), 1); /* trusted.d and revoked.d of this test alone */
}

static int stop(void **state)
{
    fake_peer_stop(*state);
    return 0;
}

static struct qd_client *connected(struct fake_peer *p)
{
    struct qd_client *c = NULL;
    struct qd_error err;
    if (qd_connect(fake_peer_socket(p), &c, &err) < 0)
        fail_msg("%s", err.message);
    return c;
}

static int open_tiny(struct qd_client *c, enum qd_verify verify, struct qd_artifact **ret, struct qd_error *err)
{
    struct qd_open_options o = {.model = "tiny", .scheme = "q8_0", .verify = verify};
    return qd_open(c, &o, ret, err);
}

static struct qd_artifact *opened(struct qd_client *c)
{
    struct qd_artifact *a = NULL;
    struct qd_error err;
    if (open_tiny(c, QD_VERIFY_SIGNATURE, &a, &err) < 0)
        fail_msg("%s", err.message);
    return a;
}

static void qd_open__honest_peer__gives_views_into_the_mapping(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = opened(c);
    qd_client_free(c); /* the artifact outlives its client */
    assert_int_equal(qd_artifact_n_tensors(a), 2);
    const struct qd_tensor *t = qd_artifact_tensor(a, "second");
    uint64_t bytes;
    const uint8_t *map = qd_artifact_map(a, 0, &bytes);
    assert_ptr_equal(t->data, map + t->offset);
    assert_int_equal(bytes, (16 << 20) + FAKE_TAIL_BYTES);
    assert_int_equal(t->type, QD_TYPE_Q8_0);
    assert_int_equal(t->shape[1], 4);
    assert_ptr_equal(qd_artifact_tensor_at(a, 1), t);
    assert_null(qd_artifact_tensor(a, "third"));
    assert_null(qd_artifact_tensor_at(a, 2));
    assert_string_equal(qd_artifact_info(a)->model, "tiny");
    assert_int_equal(strlen(qd_artifact_info(a)->signer), 16);
    assert_string_equal(qd_artifact_file_name(a, 0), "model.gguf");
    assert_null(qd_artifact_map(a, 1, NULL));
    qd_artifact_free(a);
}

static void qd_meta__every_getter__answers_by_type(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = opened(c);
    const char *text;
    size_t n;
    uint64_t u;
    int64_t i;
    double f;
    struct qd_error err;
    assert_int_equal(qd_meta_string(a, "general.architecture", &text, &n, &err), 0);
    assert_string_equal(text, "llama");
    assert_int_equal(qd_meta_u64(a, "llama.block_count", &u, &err), 0);
    assert_int_equal(u, 7);
    assert_int_equal(qd_meta_f64(a, "llama.block_count", &f, &err), 0);
    assert_true(f == 7);
    assert_int_equal(qd_meta_count(a, "tokens", &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(qd_meta_item_string(a, "tokens", 1, &text, NULL, &err), 0);
    assert_string_equal(text, "a");
    assert_int_equal(qd_meta_item_i64(a, "ids", 0, &i, &err), 0);
    assert_int_equal(i, -1);
    assert_int_equal(qd_meta_item_u64(a, "ids", 0, &u, &err), QD_E_INVALID);
    assert_int_equal(qd_meta_item_u64(a, "ids", 3, &u, &err), QD_E_NOT_FOUND);
    assert_int_equal(qd_meta_u64(a, "ids", &u, &err), QD_E_INVALID);
    assert_int_equal(qd_meta_string(a, "none", &text, &n, &err), QD_E_NOT_FOUND);
    assert_string_equal(qd_meta_type_name(a, "ids"), "array of i32");
    assert_string_equal(qd_meta_key_at(a, 3), "ids");
    assert_null(qd_meta_key_at(a, 4));
    qd_artifact_free(a);
    qd_client_free(c);
}

/* Every lie is refused before a view exists, and nothing of it stays open. */
static void qd_open__lying_peer__is_refused_and_leaks_nothing(void **state)
{
    static const struct {
        enum peer_lie lie;
        int code;
        const char *says;
    } lies[] = {
        {PEER_BAD_SIGNATURE, QD_E_UNTRUSTED, "signature"},
        {PEER_BAD_TABLE, QD_E_CORRUPT, "tensors does not have the digest"},
        {PEER_SHORT_PAYLOAD, QD_E_CORRUPT, "its manifest says"},
        {PEER_FIFO, QD_E_CORRUPT, "not a regular file"},
        {PEER_FEW_FDS, QD_E_PROTOCOL, "descriptors"},
        {PEER_OTHER_KEY, QD_E_CORRUPT, "is of artifact abab"},
        {PEER_GARBAGE, QD_E_PROTOCOL, "ends before"},
        {PEER_SAYS_NO, QD_E_NOT_FOUND, "no model 'tinny'"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct qd_client *c = connected(*state);
        struct qd_artifact *a = NULL;
        struct qd_error err;
        unsigned before = n_open_fds();
        fake_peer_lie(*state, lies[i].lie);
        assert_int_equal(open_tiny(c, QD_VERIFY_SIGNATURE, &a, &err), lies[i].code);
        assert_non_null(strstr(err.message, lies[i].says));
        assert_null(a);
        qd_client_free(c);
        assert_true(comes_down_to(before));
        fake_peer_lie(*state, PEER_HONEST);
    }
}

static void qd_open__same_lies_while_the_artifact_is_known__are_refused_too(void **state)
{
    static const enum peer_lie lies[] = {PEER_BAD_SIGNATURE, PEER_SHORT_PAYLOAD, PEER_FIFO, PEER_FEW_FDS,
                                         PEER_OTHER_KEY};
    struct qd_client *c = connected(*state);
    struct qd_artifact *held = opened(c), *a;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        fake_peer_lie(*state, lies[i]);
        assert_true(open_tiny(c, QD_VERIFY_SIGNATURE, &a, NULL) < 0);
    }
    assert_non_null(qd_artifact_tensor(held, "first")); /* what is held lives on */
    qd_artifact_free(held);
    qd_client_free(c);
}

static void qd_meta__damaged_metadata__is_refused_at_the_first_question(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_error err;
    uint64_t u;
    fake_peer_lie(*state, PEER_BAD_METADATA);
    struct qd_artifact *a = opened(c);
    assert_int_equal(qd_meta_u64(a, "llama.block_count", &u, &err), QD_E_CORRUPT);
    assert_null(qd_meta_key_at(a, 0));
    qd_artifact_free(a);
    qd_client_free(c);
}

static void qd_connect__other_protocol_version__says_both(void **state)
{
    struct qd_client *c = NULL;
    struct qd_error err;
    fake_peer_lie(*state, PEER_OTHER_VERSION);
    assert_int_equal(qd_connect(fake_peer_socket(*state), &c, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "speaks protocol 2, this program 1"));
    assert_null(c);
}

static void qd_connect__nobody_listens__says_how_to_start_it(void **state)
{
    (void)state;
    struct qd_client *c = NULL;
    struct qd_error err;
    assert_int_equal(qd_connect("/tmp/quantd-no-such/quantd.sock", &c, &err), QD_E_UNAVAILABLE);
    assert_non_null(strstr(err.hint, "quantd --user"));
}

static void qd_open__daemon_vanishes_mid_open__is_repeated_on_a_new_connection(void **state)
{
    struct qd_client *c = connected(*state);
    fake_peer_lie(*state, PEER_VANISHES_ONCE);
    struct qd_artifact *a = opened(c);
    assert_int_equal(fake_peer_requests(*state), 2);
    assert_int_equal(fake_peer_connections(*state), 2);
    qd_artifact_free(a);
    qd_client_free(c);
}

static void qd_open__daemon_vanishes_for_ever__ends_with_an_answer(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a;
    struct qd_error err;
    fake_peer_lie(*state, PEER_VANISHES);
    assert_int_equal(open_tiny(c, QD_VERIFY_SIGNATURE, &a, &err), QD_E_UNAVAILABLE);
    assert_int_equal(fake_peer_requests(*state), 4); /* once and three repeats */
    qd_client_free(c);
}

static void qd_call__method_that_must_not_happen_twice__is_not_repeated(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_error err;
    fake_peer_lie(*state, PEER_VANISHES_ONCE);
    assert_int_equal(qd_call(c, "prune", NULL, NULL, NULL, NULL, &err), QD_E_UNAVAILABLE);
    assert_non_null(strstr(err.message, "may or may not have been done"));
    assert_int_equal(fake_peer_requests(*state), 1);
    qd_client_free(c);
}

static int note_progress(const struct qd_progress *p, void *data)
{
    uint64_t *last = data;
    assert_true(p->done_bytes == 40 || p->done_bytes == 80); /* 60 is of another request */
    *last = p->done_bytes;
    return 0;
}

static int stop_at_once(const struct qd_progress *p, void *data)
{
    (void)p;
    (void)data;
    return 1;
}

static void qd_open__progress__is_told_for_this_request_alone(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a;
    uint64_t last = 0;
    struct qd_open_options o = {.model = "tiny", .progress = note_progress, .progress_data = &last};
    fake_peer_lie(*state, PEER_TELLS_PROGRESS);
    assert_int_equal(qd_open(c, &o, &a, NULL), 0);
    assert_int_equal(last, 80);
    qd_artifact_free(a);
    o.progress = stop_at_once;
    assert_int_equal(qd_open(c, &o, &a, NULL), QD_E_CANCELLED);
    assert_int_equal(qd_client_fd(c), -1); /* so that the daemon knows */
    fake_peer_lie(*state, PEER_HONEST);
    qd_artifact_free(opened(c)); /* and the client goes on */
    qd_client_free(c);
}

static void qd_open_step__polled__comes_to_the_artifact(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_open_options o = {.model = "tiny"};
    struct qd_open_request *r;
    struct qd_artifact *a = NULL;
    struct qd_error err;
    assert_int_equal(qd_open_start(c, &o, &r, &err), 0);
    for (int result = 0; result == 0;) {
        struct pollfd p = {.fd = qd_client_fd(c), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 5000), 1);
        result = qd_open_step(r, &a, &err);
        assert_true(result >= 0);
    }
    assert_non_null(a);
    qd_open_cancel(r);
    qd_artifact_free(a);
    assert_int_equal(qd_open_start(c, &o, &r, &err), 0);
    qd_open_cancel(r); /* before an answer */
    qd_artifact_free(opened(c));
    qd_client_free(c);
}

/* Each peer signs with a key of its own: what other tests left in this process is another envelope. */
static void qd_open__again__tells_the_daemon_which_envelope_is_here(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *first = opened(c);
    assert_int_equal(fake_peer_informed(*state), 0);
    for (unsigned i = 1; i <= 2; i++) {
        struct qd_artifact *again = opened(c);
        assert_int_equal(fake_peer_informed(*state), i);
        qd_artifact_free(again);
    }
    qd_artifact_free(first);
    qd_client_free(c);
}

static void qd_open__again__shares_mapping_and_descriptors(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *first = opened(c);
    wait_ms(50);
    unsigned before = n_open_fds();
    struct qd_artifact *second = opened(c);
    assert_ptr_equal(qd_artifact_map(first, 0, NULL), qd_artifact_map(second, 0, NULL));
    assert_true(comes_down_to(before));
    fake_peer_replace_payload(*state); /* a rebuilt object: the same bytes in another file */
    struct qd_artifact *third = opened(c);
    assert_ptr_not_equal(qd_artifact_map(first, 0, NULL), qd_artifact_map(third, 0, NULL));
    qd_artifact_free(first);
    qd_artifact_free(second);
    qd_artifact_free(third);
    assert_true(comes_down_to(before - 1)); /* nothing is kept open of what nobody holds */
    struct qd_artifact *fourth = opened(c);
    assert_memory_equal(qd_artifact_tensor(fourth, "first")->data,
                        (const uint8_t *)qd_artifact_map(fourth, 0, NULL) + 4096, 4096);
    qd_artifact_free(fourth);
    qd_client_free(c);
}

static void qd_verify__flipped_bit__is_found_in_its_shard_alone(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a, *none = NULL;
    struct qd_error err;
    fake_peer_flip_payload(*state, 100); /* shard 0, which holds "first" */
    assert_int_equal(open_tiny(c, QD_VERIFY_LAZY, &a, &err), 0);
    assert_null(qd_artifact_tensor(a, "first"));
    const struct qd_tensor *second = qd_artifact_tensor(a, "second");
    assert_non_null(second);
    assert_int_equal(qd_tensor_verify(a, qd_artifact_tensor_at(a, 0), &err), QD_E_CORRUPT);
    assert_non_null(strstr(err.message, "between bytes 0 and 16777216"));
    assert_int_equal(qd_artifact_verify(a, &err), QD_E_CORRUPT);
    assert_int_equal(open_tiny(c, QD_VERIFY_FULL, &none, &err), QD_E_CORRUPT);
    assert_null(none);
    fake_peer_flip_payload(*state, 100);
    assert_int_equal(qd_artifact_verify(a, &err), 0);
    assert_non_null(qd_artifact_tensor(a, "first"));
    qd_artifact_free(a);
    qd_client_free(c);
}

static int open_layout(struct qd_client *c, const char *layout, struct qd_artifact **ret, struct qd_error *err)
{
    struct qd_open_options o = {.model = "tiny", .scheme = "q8_0", .layout = layout};
    return qd_open(c, &o, ret, err);
}

static void qd_open__packed_artifact__says_which_tensors_are_packed(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = NULL;
    struct qd_error err;
    fake_peer_layout(*state, "r4k4p128");
    assert_int_equal(open_layout(c, "native", &a, &err), 0);
    assert_string_equal(qd_artifact_info(a)->layout, "r4k4p128");
    assert_int_equal(qd_artifact_tensor(a, "first")->layout, QD_LAYOUT_PORTABLE); /* f32, one dimension */
    assert_int_equal(qd_artifact_tensor(a, "second")->layout, QD_LAYOUT_R4K4P128);
    qd_artifact_free(a);
    fake_peer_layout(*state, "r8k4p128"); /* four rows are no group of it */
    assert_int_equal(open_layout(c, "r8k4p128", &a, &err), 0);
    assert_int_equal(qd_artifact_tensor(a, "second")->layout, QD_LAYOUT_PORTABLE);
    qd_artifact_free(a);
    qd_client_free(c);
}

static void qd_open__layout_that_this_library_does_not_know__is_refused(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = NULL;
    struct qd_error err;
    fake_peer_layout(*state, "r99k9");
    assert_int_equal(open_layout(c, "native", &a, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "layout 'r99k9'"));
    assert_non_null(strstr(err.hint, "update libquantd"));
    assert_null(a);
    qd_client_free(c);
}

static void qd_open__another_layout_than_what_is_known__tells_the_daemon_of_none(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = NULL;
    qd_artifact_free(opened(c));
    assert_int_equal(open_layout(c, "r4k4p128", &a, NULL), 0);
    assert_int_equal(fake_peer_informed(*state), 0);
    qd_artifact_free(a);
    assert_int_equal(open_layout(c, "portable", &a, NULL), 0);
    assert_int_equal(fake_peer_informed(*state), 1);
    qd_artifact_free(a);
    qd_client_free(c);
}

static void qd_tensor_matrix__experts__are_matrices_one_after_the_other(void **state)
{
    (void)state;
    static const uint8_t data[2 * 3 * 4 * 34];
    const struct qd_tensor t = {.name = "experts",
                                .type = QD_TYPE_Q8_0,
                                .n_dims = 4,
                                .shape = {32, 4, 3, 2, 1, 1, 1, 1},
                                .bytes = sizeof data,
                                .data = data,
                                .layout = QD_LAYOUT_R4K4P128};
    struct qd_matrix m;
    struct qd_error err;
    assert_int_equal(qd_tensor_matrix(&t, 5, &m, &err), 0);
    assert_ptr_equal(m.data, data + 5 * 4 * 34);
    assert_int_equal(m.n_rows, 4);
    assert_int_equal(m.n_cols, 32);
    assert_int_equal(m.type, QD_TYPE_Q8_0);
    assert_int_equal(m.layout, QD_LAYOUT_R4K4P128);
    assert_int_equal(qd_tensor_matrix(&t, 6, &m, &err), QD_E_INVALID);
    assert_string_equal(err.message, "tensor 'experts' has 6 matrices, not 7");
}

static void qd_tensor_matrix__tensor_that_is_none__says_why(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = opened(c);
    struct qd_matrix m;
    struct qd_error err;
    assert_int_equal(qd_tensor_matrix(qd_artifact_tensor(a, "first"), 0, &m, &err), QD_E_INVALID);
    assert_string_equal(err.message, "tensor 'first' has 1 dimension: matrices have 2 to 4");
    assert_int_equal(qd_tensor_matrix(qd_artifact_tensor(a, "third"), 0, &m, &err), QD_E_NOT_FOUND);
    struct qd_tensor t = *qd_artifact_tensor(a, "second");
    assert_int_equal(qd_tensor_matrix(&t, 0, &m, &err), 0);
    assert_int_equal(qd_tensor_matrix(&t, UINT64_MAX, &m, &err), QD_E_INVALID);
    t.bytes--; /* one that was made by hand */
    assert_int_equal(qd_tensor_matrix(&t, 0, &m, &err), QD_E_INVALID);
    t.shape[0] = 31;
    assert_int_equal(qd_tensor_matrix(&t, 0, &m, &err), QD_E_INVALID);
    qd_artifact_free(a);
    qd_client_free(c);
}

static void pub_path(const struct fake_peer *p, char dst[128])
{
    (void)snprintf(dst, 128, "%s/quantd.pub", fake_peer_folder(p));
}

static void qd_open__key_that_others_may_write__is_not_trusted(void **state)
{
    char path[128];
    struct qd_artifact *a;
    struct qd_error err;
    pub_path(*state, path);
    assert_int_equal(chmod(path, 0666), 0);
    struct qd_client *c = connected(*state);
    assert_int_equal(open_tiny(c, QD_VERIFY_SIGNATURE, &a, &err), QD_E_UNTRUSTED);
    assert_non_null(strstr(err.hint, "others than its owner can write it"));
    qd_client_free(c);
}

static void qd_open__key_revoked_while_connected__is_refused_within_a_second(void **state)
{
    char path[160];
    struct qd_artifact *a;
    struct qd_error err;
    struct qd_client *c = connected(*state);
    struct qd_artifact *held = opened(c);
    (void)snprintf(path, sizeof path, "%s/quantd", fake_peer_folder(*state));
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/quantd/revoked.d", fake_peer_folder(*state));
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(path, sizeof path, "%s/quantd/revoked.d/bad.pub", fake_peer_folder(*state));
    fake_peer_write_key(*state, path);
    wait_ms(900);
    assert_int_equal(open_tiny(c, QD_VERIFY_SIGNATURE, &a, &err), QD_E_UNTRUSTED);
    assert_non_null(strstr(err.message, "revoked"));
    assert_int_equal(unlink(path), 0);
    wait_ms(900);
    qd_artifact_free(opened(c));
    qd_artifact_free(held);
    qd_client_free(c);
}

static void qd_open__key_gone_from_beside_the_socket__trusted_d_is_enough(void **state)
{
    char path[160];
    struct qd_artifact *a;
    pub_path(*state, path);
    assert_int_equal(unlink(path), 0);
    struct qd_client *c = connected(*state);
    assert_int_equal(open_tiny(c, QD_VERIFY_SIGNATURE, &a, NULL), QD_E_UNTRUSTED);
    qd_client_free(c);
    (void)snprintf(path, sizeof path, "mkdir -p %s/quantd/trusted.d", fake_peer_folder(*state));
    assert_int_equal(system(path), 0);
    (void)snprintf(path, sizeof path, "%s/quantd/trusted.d/mine.pub", fake_peer_folder(*state));
    fake_peer_write_key(*state, path);
    c = connected(*state);
    qd_artifact_free(opened(c));
    qd_client_free(c);
}

static void *read_views(void *data)
{
    struct qd_artifact *a = data;
    uintptr_t sum = 0;
    for (int i = 0; i < 2000; i++) {
        const char *text;
        sum += ((const uint8_t *)qd_artifact_tensor(a, i % 2 ? "first" : "second")->data)[i % 100];
        sum += (uintptr_t)qd_meta_string(a, "general.architecture", &text, NULL, NULL);
        sum += (uintptr_t)qd_tensor_verify(a, qd_artifact_tensor_at(a, 1), NULL);
    }
    return (void *)sum;
}

static void qd_artifact__read_from_four_threads__is_the_same_everywhere(void **state)
{
    struct qd_client *c = connected(*state);
    struct qd_artifact *a = opened(c);
    pthread_t threads[4];
    void *sums[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_views, a), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], &sums[i]), 0);
    for (int i = 1; i < 4; i++)
        assert_ptr_equal(sums[i], sums[0]);
    qd_artifact_free(a);
    qd_client_free(c);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        T(qd_open__honest_peer__gives_views_into_the_mapping),
        T(qd_meta__every_getter__answers_by_type),
        T(qd_open__lying_peer__is_refused_and_leaks_nothing),
        T(qd_open__same_lies_while_the_artifact_is_known__are_refused_too),
        T(qd_meta__damaged_metadata__is_refused_at_the_first_question),
        T(qd_connect__other_protocol_version__says_both),
        T(qd_connect__nobody_listens__says_how_to_start_it),
        T(qd_open__daemon_vanishes_mid_open__is_repeated_on_a_new_connection),
        T(qd_open__daemon_vanishes_for_ever__ends_with_an_answer),
        T(qd_call__method_that_must_not_happen_twice__is_not_repeated),
        T(qd_open__progress__is_told_for_this_request_alone),
        T(qd_open_step__polled__comes_to_the_artifact),
        T(qd_open__again__tells_the_daemon_which_envelope_is_here),
        T(qd_open__again__shares_mapping_and_descriptors),
        T(qd_verify__flipped_bit__is_found_in_its_shard_alone),
        T(qd_open__packed_artifact__says_which_tensors_are_packed),
        T(qd_open__layout_that_this_library_does_not_know__is_refused),
        T(qd_open__another_layout_than_what_is_known__tells_the_daemon_of_none),
        T(qd_tensor_matrix__experts__are_matrices_one_after_the_other),
        T(qd_tensor_matrix__tensor_that_is_none__says_why),
        T(qd_open__key_that_others_may_write__is_not_trusted),
        T(qd_open__key_revoked_while_connected__is_refused_within_a_second),
        T(qd_open__key_gone_from_beside_the_socket__trusted_d_is_enough),
        T(qd_artifact__read_from_four_threads__is_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
