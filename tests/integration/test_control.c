/*
 * The shipped worker behind its door, spoken to by hand: an artifact is quantized by one, packed by the next, and what
 * does not fit together is refused.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/digest.h"
#include "daemon/worker/control.h"
#include "ipc/codec.h"
#include "ipc/conn.h"
#include "kernels/core/io.h"
#include "quant/limits.h"
#include "quant/plan_pack.h"
#include "quant/run.h"
#include "tests/test.h"

/* The shadow memory of a sanitizer fits no ceiling, and its system calls no filter. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const char *const worker_options[] = {"--no-sandbox", "--memory", "0"};
#else
static const char *const worker_options[] = {"--idle", "--memory", "134217728"};
#endif
static const char *worker_path;

/* A worker, the last packet it sent, and what stands in that. */
struct talk {
    pid_t pid;
    int fd;
    struct packet packet;
    struct incoming in;
    struct qd_error err;
};

static void talk_start(struct talk *t)
{
    int pair[2];
    *t = (struct talk){0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    t->pid = fork();
    assert_true(t->pid >= 0);
    if (t->pid == 0) {
        if (dup2(pair[1], CONTROL_FD) < 0)
            _exit(127);
        (void)execl(worker_path, worker_path, "--control", worker_options[0], worker_options[1], worker_options[2],
                    (char *)NULL);
        _exit(127);
    }
    (void)close(pair[1]);
    t->fd = pair[0];
}

/* Hangs up; the worker must take that as its end. */
static void talk_end(struct talk *t)
{
    int status;
    incoming_clear(&t->in);
    packet_clear(&t->packet);
    (void)close(t->fd);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* One request and its reply, events between them left out: 0, or the code of an error reply (t->err). */
static int ask(struct talk *t, const char *method, enum message type, const void *params, const int *fds, size_t n_fds)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    assert_int_equal(request_encode(&b, 7, method, type, params, NULL), 0);
    assert_int_equal(conn_send(t->fd, buffer_span(&b), fds, n_fds, NULL), 0);
    do {
        incoming_clear(&t->in);
        packet_reset(&t->packet);
        assert_int_equal(poll(&(struct pollfd){t->fd, POLLIN, 0}, 1, 60000), 1);
        if (conn_recv(t->fd, PACKET_FDS_MAX, &t->packet, &t->err) <= 0)
            fail_msg("%s: the worker is gone", method);
        assert_int_equal(incoming_parse(packet_span(&t->packet), &t->in, NULL), 0);
    } while (t->in.kind == INCOMING_EVENT);
    assert_int_equal(t->in.id, 7);
    return t->in.failed ? incoming_error(&t->in, &t->err) : 0;
}

static int probe(struct talk *t, int fd)
{
    const struct msg_w_probe params = {.name = "model.gguf"};
    return ask(t, "w_probe", MESSAGE(w_probe, &params), &fd, 1);
}

static int add_table(struct talk *t, int fd)
{
    const struct msg_w_add params = {.role = "tensors", .name = "tensors"};
    return ask(t, "w_add", MESSAGE(w_add, &params), &fd, 1);
}

static int plan(struct talk *t, const char *recipe, const char *layout)
{
    const struct msg_w_plan params = {.recipe = recipe, .layout = layout};
    return ask(t, "w_plan", MESSAGE(w_plan, &params), NULL, 0);
}

/* What a run makes: the payload, its tables, and what the worker read. */
struct made {
    int payload, tensors, metadata;
    struct digest witness[2];
    size_t n_witness;
};

static void run(struct talk *t, struct made *ret)
{
    struct msg_w_done done;
    const struct msg_w_run params = {.journal_tag = "key boot", .threads = 2};
    const int fds[] = {memfd_create("payload", MFD_CLOEXEC), memfd_create("journal", MFD_CLOEXEC)};
    if (ask(t, "w_run", MESSAGE(w_run, &params), fds, 2) < 0)
        fail_msg("w_run: %s", t->err.message);
    assert_int_equal(incoming_decode(&t->in, INTO(w_done, &done), NULL), 0);
    *ret = (struct made){fds[0], packet_steal_fd(&t->packet, 0), packet_steal_fd(&t->packet, 1),
                         .n_witness = done.witness_n};
    assert_true(done.witness_n <= 2);
    for (size_t i = 0; i < done.witness_n; i++)
        memcpy(ret->witness[i].bytes, done.witness[i].digest.data, DIGEST_BYTES);
    (void)close(fds[1]);
}

static void made_clear(struct made *m)
{
    (void)close(m->payload);
    (void)close(m->tensors);
    (void)close(m->metadata);
}

static struct made portable; /* q8_0 of the shipped model, by all tests that only read it */

static int setup(void **state)
{
    (void)state;
    struct talk t;
    talk_start(&t);
    int fd = open(TEST_MODEL, O_RDONLY | O_CLOEXEC);
    assert_int_equal(probe(&t, fd), 0);
    if (plan(&t, "scheme=q8_0 pure=0", NULL) < 0)
        fail_msg("%s", t.err.message);
    run(&t, &portable);
    (void)close(fd);
    talk_end(&t);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    made_clear(&portable);
    return 0;
}

static uint8_t *bytes_of(int fd, size_t *ret_n)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    assert_int_equal(pread_whole(fd, data, (size_t)st.st_size, 0), st.st_size);
    *ret_n = (size_t)st.st_size;
    return data;
}

static void assert_same_bytes(int a, int b)
{
    size_t n_a, n_b;
    uint8_t *x = bytes_of(a, &n_a), *y = bytes_of(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
}

static void assert_digest_of(int fd, const struct digest *d)
{
    struct stat st;
    struct digest want;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(digest_file(fd, (uint64_t)st.st_size, 1, &want, NULL, NULL, NULL, NULL), 0);
    assert_true(digest_equal(&want, d));
}

/* The same by this process: packed in @layout. */
static int packed_here(enum qd_layout layout)
{
    int out = memfd_create("packed", MFD_CLOEXEC);
    CLEANUP(source_free) struct source *s = NULL;
    CLEANUP(model_free) struct model *m = NULL;
    CLEANUP(plan_free) struct plan *p = NULL;
    CLEANUP(run_result_free) struct run_result *result = NULL;
    const struct run_options o = {
        .ops = ops_for(0), .n_threads = 1, .out_fd = out, .journal_fd = -1, .journal_tag = ""};
    assert_int_equal(source_from_fd(dup(portable.payload), "model.gguf", &s, NULL), 0);
    assert_int_equal(model_read(s, LIMIT_HEADER_BUDGET_BYTES, &m, NULL), 0);
    assert_int_equal(plan_pack(m, layout, NULL, &p, NULL), 0);
    assert_int_equal(plan_run(s, p, &o, &result, NULL), 0);
    return out;
}

static void w_plan__layout__packs_behind_the_door(void **state)
{
    (void)state;
    for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++) {
        struct talk t;
        struct made packed;
        talk_start(&t);
        assert_int_equal(probe(&t, portable.payload), 0);
        assert_int_equal(add_table(&t, portable.tensors), 0);
        if (plan(&t, NULL, qd_layout_info((enum qd_layout)layout)->name) < 0)
            fail_msg("%s", t.err.message);
        run(&t, &packed);
        int want = packed_here((enum qd_layout)layout);
        assert_same_bytes(packed.payload, want);
        assert_same_bytes(packed.metadata, portable.metadata);
        assert_int_equal(packed.n_witness, 2);
        assert_digest_of(portable.payload, &packed.witness[0]);
        assert_digest_of(portable.tensors, &packed.witness[1]);
        (void)close(want);
        made_clear(&packed);
        talk_end(&t);
    }
}

/* What is asked of a worker that has seen the payload, and has the table where @with_table. */
static void assert_refused(int payload, int table, const char *recipe, const char *layout, int code, const char *words)
{
    struct talk t;
    talk_start(&t);
    assert_int_equal(probe(&t, payload), 0);
    if (table >= 0)
        assert_int_equal(add_table(&t, table), 0);
    int r = plan(&t, recipe, layout);
    if (r != code || !strstr(t.err.message, words))
        fail_msg("%d: %s", r, t.err.message);
    talk_end(&t);
}

static void w_plan__what_does_not_fit__is_refused(void **state)
{
    (void)state;
    struct stat st;
    size_t n;
    uint8_t *table = bytes_of(portable.tensors, &n);
    int other = memfd_create("tensors", MFD_CLOEXEC), packed = packed_here(QD_LAYOUT_R8K4P128);
    int model = open(TEST_MODEL, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(model, &st), 0);
    assert_int_equal(pwrite_whole(other, table, n - 1, 0), 0);
    assert_refused(portable.payload, portable.tensors, NULL, NULL, QD_E_PROTOCOL, "neither a recipe nor a layout");
    assert_refused(portable.payload, -1, NULL, "r8k4p128", QD_E_PROTOCOL, "without the artifact's tensor table");
    assert_refused(portable.payload, portable.tensors, NULL, "r8k8", QD_E_INVALID, "unknown layout 'r8k8'");
    assert_refused(portable.payload, portable.tensors, NULL, "portable", QD_E_INVALID, "unknown layout 'portable'");
    assert_refused(portable.payload, other, NULL, "r8k4p128", QD_E_CORRUPT, "table of tensors");
    assert_refused(portable.payload, portable.metadata, NULL, "r8k4p128", QD_E_CORRUPT, "table of tensors");
    assert_refused(model, portable.tensors, NULL, "r8k4p128", QD_E_CORRUPT, "is not in the table");
    assert_refused(packed, portable.tensors, NULL, "r8k4p128", QD_E_CORRUPT, "is not in the table");
    assert_refused(packed, -1, "scheme=q8_0 pure=0", NULL, QD_E_UNSUPPORTED, "packed file (layout 'r8k4p128')");
    free(table);
    (void)close(other);
    (void)close(packed);
    (void)close(model);
}

int main(int argc, char **argv)
{
    (void)argc;
    worker_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(w_plan__layout__packs_behind_the_door),
        cmocka_unit_test(w_plan__what_does_not_fit__is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
