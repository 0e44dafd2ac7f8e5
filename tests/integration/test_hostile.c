/* Peers that mean harm or are broken: floods, garbage, descriptors, half packets, replies never read. */
#include "tests/integration/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

enum { STRANGER = 54321 };

static int setup(void **state)
{
    *state = harness_serving_tiny("[jobs]\nthreads = 1\n[limits]\nconnections = 40\n");
    return 0;
}

/* The daemon lives, answers a fresh client, and comes back to the descriptors it had. */
static void serves_on(const struct harness *h, unsigned n_fds_before)
{
    for (int i = 0; i < 200 && harness_n_fds(h) > n_fds_before; i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(harness_n_fds(h) <= n_fds_before);
    (void)close(harness_hello(h));
}

static void raw_send(int fd, const void *data, size_t n)
{
    assert_true(send(fd, data, n, MSG_NOSIGNAL) == (ssize_t)n || errno == EPIPE || errno == ECONNRESET);
}

static void garbage__of_every_kind__costs_the_sender_its_connection_only(void **state)
{
    struct harness *h = *state;
    static const struct {
        const char *bytes;
        size_t n;
    } rows[] = {
        {"\xdf\x08\x00\x00\x00", 5}, /* a map of 134 million: 8.6 GB to msgpack-c */
        {"\x94\x00\x01\xa4open\xdf\xff\xff\xff\xff", 13},
        {"\xdd\xff\xff\xff\xff", 5},
        {"\xc1", 1},
        {"\x93\x01\x01\xc0", 4},
        {"\x94\x00\xff\xa5hello\x80", 9},
        {"hello", 5},
        {"\x94\x00\x01\xa5hello\x81\xa7version\xa1x", 20},
    };
    unsigned before = harness_n_fds(h);
    unsigned long rss = harness_rss_kib(h);
    for (size_t round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            int fd = harness_connect(h);
            raw_send(fd, rows[i].bytes, rows[i].n);
            (void)close(fd);
        }
    }
    unsigned seed = 1;
    for (int i = 0; i < 2000; i++) {
        uint8_t noise[512];
        int fd = harness_connect(h);
        size_t n = 1 + (size_t)rand_r(&seed) % sizeof noise;
        for (size_t k = 0; k < n; k++)
            noise[k] = (uint8_t)rand_r(&seed);
        raw_send(fd, noise, n);
        (void)close(fd);
    }
    serves_on(h, before);
    assert_true(harness_rss_kib(h) < rss + 16384);
}

static void packet__cut_at_every_byte__is_refused_or_served(void **state)
{
    struct harness *h = *state;
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct msg_open m = {.model = "tiny", .scheme = "q8_0", .no_build = true};
    unsigned before = harness_n_fds(h);
    assert_int_equal(request_encode(&b, 1, "open", MESSAGE(open, &m), NULL), 0);
    for (size_t n = 1; n < b.n; n++) {
        int fd = harness_hello(h);
        raw_send(fd, b.data, n);
        (void)close(fd);
    }
    serves_on(h, before);
}

static void packet__larger_than_allowed__ends_the_connection(void **state)
{
    struct harness *h = *state;
    static uint8_t big[100 << 10];
    int fd = harness_connect(h);
    raw_send(fd, big, sizeof big);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint8_t byte;
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    (void)close(fd);
    (void)close(harness_hello(h));
}

static void method__before_hello__is_refused_with_the_next_step(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_connect(h);
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct qd_error err;
    assert_int_equal(harness_call(fd, "status", MESSAGE(nothing, &(struct msg_nothing){}), &in, &p, &err),
                     QD_E_PROTOCOL);
    assert_non_null(strstr(err.hint, "hello"));
}

/* 253 descriptors are the most the kernel lets one message carry. */
static void descriptors__253_in_one_packet__are_all_closed_and_the_request_fails(void **state)
{
    struct harness *h = *state;
    CLEANUP(buffer_clear) struct buffer b = {0};
    int fds[253];
    union {
        char bytes[CMSG_SPACE(sizeof fds)];
        struct cmsghdr align;
    } control;
    unsigned before = harness_n_fds(h);
    for (int round = 0; round < 20; round++) {
        CLEANUP(fd_close) int fd = harness_hello(h);
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        struct msg_open m = {.by_fd = true, .scheme = "q8_0"};
        int source = open(harness_path(h, "models/tiny.gguf"), O_RDONLY | O_CLOEXEC);
        for (size_t i = 0; i < 253; i++)
            fds[i] = source;
        b.n = 0;
        assert_int_equal(request_encode(&b, 3, "open", MESSAGE(open, &m), NULL), 0);
        struct iovec iov = {.iov_base = b.data, .iov_len = b.n};
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        assert_int_equal(sendmsg(fd, &msg, 0), (ssize_t)b.n);
        (void)close(source);
        assert_true(harness_receive(fd, &in, &p));
        assert_true(in.failed && in.id == 3);
    }
    serves_on(h, before);
}

static void connections__beyond_the_quota__are_turned_away_and_come_back(void **state)
{
    struct harness *h = *state;
    int fds[40];
    unsigned before = harness_n_fds(h);
    for (size_t i = 0; i < 40; i++)
        fds[i] = harness_hello(h);
    int over = harness_connect(h);
    struct pollfd p = {.fd = over, .events = POLLIN};
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet packet = {0};
    struct qd_error err;
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_true(harness_receive(over, &in, &packet));
    assert_int_equal(incoming_error(&in, &err), QD_E_BUSY);
    (void)close(over);
    for (size_t i = 0; i < 40; i++)
        (void)close(fds[i]);
    serves_on(h, before);
}

static void connects__twenty_thousand_in_a_row__leave_nothing(void **state)
{
    struct harness *h = *state;
    unsigned before = harness_n_fds(h);
    unsigned long rss = harness_rss_kib(h);
    for (int i = 0; i < 20000; i++)
        (void)close(harness_connect(h));
    serves_on(h, before);
    assert_true(harness_rss_kib(h) < rss + 8192);
}

/* Asks and never reads: its replies with descriptors stay in its socket, one of them at most. */
static void peer_that_never_reads__holds_one_reply_and_others_are_served(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int deaf = harness_hello(h);
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet p = {0};
    struct qd_error err;
    struct msg_opened opened;
    assert_int_equal(harness_open(fd, "tiny", "q8_0", &opened, &p, &err), 0);
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct msg_open m = {.model = "tiny", .scheme = "q8_0"};
    for (uint32_t i = 0; i < 500; i++) {
        b.n = 0;
        assert_int_equal(request_encode(&b, i, "open", MESSAGE(open, &m), NULL), 0);
        if (send(deaf, b.data, b.n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
    }
    for (int i = 0; i < 50; i++)
        assert_int_equal(harness_open(fd, "tiny", "q8_0", &opened, &p, &err), 0);
    /* now it reads: every request that was taken is answered in order */
    for (uint32_t i = 0; i < 20; i++) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet packet = {0};
        assert_true(harness_receive(deaf, &in, &packet));
        assert_int_equal(in.id, i);
        assert_int_equal(packet.n_fds, opened.n_files + 1);
    }
}

struct importance_row {
    const char *what;
    int flags;
    const char *path; /* below the folder; NULL: none */
    size_t n_fds;
    int code;
};

static void ask_for(struct harness *h, const struct importance_row *row, bool plan)
{
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(fd_close) int file = row->path ? open(harness_path(h, row->path), row->flags | O_CLOEXEC) : -1;
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct qd_error err = {0};
    const struct msg_open to_open = {.model = "tiny", .scheme = "q4_0", .imatrix = true};
    const struct msg_plan to_plan = {.model = "tiny", .scheme = "q4_0", .imatrix = true};
    const int fds[] = {file, file, file};
    if (plan)
        harness_request(fd, 7, "plan", MESSAGE(plan, &to_plan), fds, row->n_fds);
    else
        harness_request(fd, 7, "open", MESSAGE(open, &to_open), fds, row->n_fds);
    while (harness_receive(fd, &in, &p) && in.kind != INCOMING_REPLY)
        incoming_clear(&in);
    assert_true(in.failed && in.id == 7);
    if (incoming_error(&in, &err) != row->code)
        fail_msg("%s: %d '%s'", row->what, err.code, err.message);
}

/* An open and a plan with what no importance matrix is; each is answered with an error, and no descriptor stays. */
static void imatrix__without_a_fit_descriptor__is_refused(void **state)
{
    struct harness *h = *state;
    static const struct importance_row rows[] = {
        {"no descriptor", O_RDONLY, NULL, 0, QD_E_INVALID},
        {"a folder", O_RDONLY, "models", 1, QD_E_INVALID},
        {"only for writing", O_WRONLY, "written", 1, QD_E_DENIED},
        {"only a place", O_PATH, "written", 1, QD_E_DENIED},
        {"empty", O_RDONLY, "empty", 1, QD_E_CORRUPT},
        {"a model", O_RDONLY, "models/tiny.gguf", 1, QD_E_UNSUPPORTED},
        {"three descriptors", O_RDONLY, "written", 3, QD_E_LIMIT},
    };
    harness_write(harness_path(h, "written"), "text", 4);
    harness_write(harness_path(h, "empty"), "", 0);
    ask_for(h, &rows[5], false);
    unsigned before = harness_n_fds(h); /* with what the first job of a daemon opens for ever */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ask_for(h, &rows[i], false);
        ask_for(h, &rows[i], true);
    }
    serves_on(h, before);
}

static void requests__too_many_unanswered__are_refused_not_queued(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    unsigned n_busy = 0, n_answers = 0;
    struct msg_open m = {.model = "tiny", .scheme = "f16"};
    for (uint32_t i = 0; i < 100; i++)
        harness_request(fd, i, "open", MESSAGE(open, &m), NULL, 0);
    while (n_answers < 100) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        struct qd_error err;
        assert_true(harness_receive(fd, &in, &p));
        if (in.kind != INCOMING_REPLY)
            continue;
        n_answers++;
        n_busy += in.failed && incoming_error(&in, &err) == QD_E_BUSY;
    }
    assert_true(n_busy >= 1 && n_busy < 100);
}

/* What is sent to it fails from then on, in the middle of whatever the daemon does for its many requests. */
static void peer_that_stops_listening__with_requests_under_way__costs_only_itself(void **state)
{
    struct harness *h = *state;
    struct qd_error err;
    static const char *const schemes[] = {"f16", "bf16", "q4_0"};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(fd_close) int deaf = harness_hello(h);
        CLEANUP(fd_close) int other = harness_hello(h);
        CLEANUP(packet_clear) struct packet p = {0};
        struct msg_opened opened;
        struct msg_open m = {.model = "tiny", .scheme = schemes[i]};
        struct msg_plan plan = {.model = "tiny", .scheme = schemes[i]};
        for (uint32_t id = 1; id <= 8; id++)
            harness_request(deaf, id, "open", MESSAGE(open, &m), NULL, 0);
        for (uint32_t id = 9; id <= 12; id++)
            harness_request(deaf, id, "plan", MESSAGE(plan, &plan), NULL, 0);
        assert_int_equal(shutdown(deaf, SHUT_RD), 0);
        assert_int_equal(harness_open(other, "tiny", schemes[i], &opened, &p, &err), 0);
    }
    (void)close(harness_hello(h));
}

/* A daemon that may have few descriptors: the flood takes them all, and the daemon stays. */
static void descriptors__of_the_daemon_run_out__it_pauses_and_recovers(void **state)
{
    (void)state;
    struct harness h;
    int fds[200];
    harness_prepare(&h, "[limits]\nconnections = 1000\n");
    harness_start(&h);
    const struct rlimit low = {.rlim_cur = 64, .rlim_max = 64};
    assert_int_equal(prlimit(h.pid, RLIMIT_NOFILE, &low, NULL), 0);
    for (size_t i = 0; i < 200; i++)
        fds[i] = harness_connect(&h);
    harness_wait_log(&h, "out of descriptors");
    for (size_t i = 0; i < 200; i++)
        (void)close(fds[i]);
    (void)nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    (void)close(harness_hello(&h));
    assert_int_equal(harness_stop(&h), 0);
    harness_remove(&h);
}

/* ---- another user ---------------------------------------------------------------------------------------- */

/* Runs @body as uid STRANGER in a child; its exit status. */
static int as_stranger(int (*body)(const struct harness *h), const struct harness *h)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setgid(STRANGER) < 0 || setuid(STRANGER) < 0)
            _exit(99);
        _exit(body(h));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int call_open(const struct harness *h, const char *model, struct packet *p)
{
    struct qd_error err;
    struct msg_opened m;
    int fd = harness_hello(h), r = harness_open(fd, model, "q8_0", &m, p, &err);
    (void)close(fd);
    return r;
}

static int open_private(const struct harness *h)
{
    CLEANUP(packet_clear) struct packet p = {0};
    return call_open(h, "tiny", &p) == QD_E_DENIED ? 0 : 1;
}

static int list_is_empty(const struct harness *h)
{
    CLEANUP(incoming_clear) struct incoming in = {0}, artifacts = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_model_list models;
    struct msg_artifact_list list;
    struct qd_error err;
    int fd = harness_hello(h);
    if (harness_call(fd, "models", MESSAGE(page, &(struct msg_page){0}), &in, &p, &err) < 0 ||
        incoming_decode(&in, INTO(model_list, &models), &err) < 0)
        return 2;
    if (harness_call(fd, "artifacts", MESSAGE(page, &(struct msg_page){0}), &artifacts, &p, &err) < 0 ||
        incoming_decode(&artifacts, INTO(artifact_list, &list), &err) < 0)
        return 3;
    return models.models_n == 0 && list.artifacts_n == 0 ? 0 : 4;
}

static int admin_is_denied(const struct harness *h)
{
    static const char *const which[] = {"remove", "pin", "unpin"};
    struct qd_error err;
    int fd = harness_hello(h);
    struct msg_which m = {.artifact = "tiny:q8_0"};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        if (harness_call(fd, which[i], MESSAGE(which, &m), &in, &p, &err) != QD_E_DENIED)
            return 1;
    }
    CLEANUP(incoming_clear) struct incoming a = {0}, b = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    if (harness_call(fd, "rescan", MESSAGE(nothing, &(struct msg_nothing){}), &a, &p, &err) != QD_E_DENIED)
        return 2;
    return harness_call(fd, "prune", MESSAGE(prune, &(struct msg_prune){.all = true}), &b, &p, &err) == QD_E_DENIED ? 0
                                                                                                                    : 3;
}

static int open_public_and_try_to_write(const struct harness *h)
{
    CLEANUP(packet_clear) struct packet p = {0};
    char path[64], byte;
    if (call_open(h, "tiny", &p) < 0)
        return 1;
    for (size_t i = 0; i < p.n_fds; i++) {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", p.fds[i]);
        int again = open(path, O_RDONLY | O_CLOEXEC);
        if (again < 0 || pread(again, &byte, 1, 0) != 1)
            return 2;
        (void)close(again);
        if (i == 0)
            continue; /* the envelope's memfd is sealed */
        if (open(path, O_RDWR | O_CLOEXEC) >= 0 || open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) >= 0 ||
            fchmod(p.fds[i], 0666) == 0 || ftruncate(p.fds[i], 0) == 0 || write(p.fds[i], "x", 1) >= 0 ||
            truncate(path, 0) == 0)
            return 3;
    }
    return 0;
}

static void another_user__may_only_what_he_could_read(void **state)
{
    struct harness *h = *state;
    CLEANUP(packet_clear) struct packet p = {0};
    if (geteuid() != 0) {
        print_message("# two users need root: left out\n");
        return;
    }
    assert_int_equal(call_open(h, "tiny", &p), 0);
    assert_int_equal(chmod(h->socket, 0666), 0); /* as in system mode */
    assert_int_equal(chmod(harness_path(h, "models/tiny.gguf"), 0600), 0);
    harness_wait_model(h, "tiny", "ready");
    assert_int_equal(as_stranger(list_is_empty, h), 0);
    assert_int_equal(as_stranger(open_private, h), 0);
    assert_int_equal(as_stranger(admin_is_denied, h), 0);
    assert_int_equal(chmod(harness_path(h, "models/tiny.gguf"), 0644), 0);
    assert_int_equal(as_stranger(open_public_and_try_to_write, h), 0);
    assert_int_equal(chmod(h->models, 0700), 0);
    assert_int_equal(as_stranger(open_private, h), 0);
    assert_int_equal(chmod(h->models, 0755), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        T(garbage__of_every_kind__costs_the_sender_its_connection_only),
        T(packet__cut_at_every_byte__is_refused_or_served),
        T(packet__larger_than_allowed__ends_the_connection),
        T(method__before_hello__is_refused_with_the_next_step),
        T(descriptors__253_in_one_packet__are_all_closed_and_the_request_fails),
        T(connections__beyond_the_quota__are_turned_away_and_come_back),
        T(connects__twenty_thousand_in_a_row__leave_nothing),
        T(peer_that_never_reads__holds_one_reply_and_others_are_served),
        T(requests__too_many_unanswered__are_refused_not_queued),
        T(imatrix__without_a_fit_descriptor__is_refused),
        T(peer_that_stops_listening__with_requests_under_way__costs_only_itself),
        cmocka_unit_test(descriptors__of_the_daemon_run_out__it_pauses_and_recovers),
        T(another_user__may_only_what_he_could_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
