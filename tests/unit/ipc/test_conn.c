#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "ipc/conn.h"
#include "ipc/handler.h"
#include "tests/test.h"

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

struct pair {
    int fds[2];
    unsigned n_before; /* descriptors of this process before the test */
};

static int make_pair(void **state)
{
    static struct pair p;
    p.n_before = n_open_fds();
    *state = &p;
    return conn_pair(p.fds, NULL);
}

static int drop_pair(void **state)
{
    struct pair *p = *state;
    (void)fd_close(p->fds[0]);
    (void)fd_close(p->fds[1]);
    return n_open_fds() == p->n_before ? 0 : -1; /* nothing leaked, whatever the test did */
}

static struct bytes text(const char *s)
{
    return (struct bytes){(const uint8_t *)s, strlen(s)};
}

/* Sends without conn_send, as a peer that keeps no rule would. */
static void send_raw(int fd, const char *s, unsigned n_fds)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * 253)];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)s, .iov_len = strlen(s)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE(sizeof(int) * n_fds)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
    for (unsigned i = 0; i < n_fds; i++)
        memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof fd);
    assert_int_equal(sendmsg(fd, &header, MSG_NOSIGNAL), strlen(s));
}

static void conn__packet_with_descriptors__arrives_whole_and_owned(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    int sent[3] = {0, 1, 2};
    assert_int_equal(conn_send(p->fds[0], text("hello"), sent, 3, NULL), 0);
    assert_int_equal(conn_recv(p->fds[1], 5, &got, NULL), 1);
    assert_int_equal(got.bytes.n, 5);
    assert_memory_equal(got.bytes.data, "hello", 5);
    assert_int_equal(got.n_fds, 3);
    assert_false(got.cut);
    CLEANUP(fd_close) int taken = packet_steal_fd(&got, 1);
    assert_true(taken >= 0);
    assert_int_equal(fcntl(taken, F_GETFD), FD_CLOEXEC);
    assert_int_equal(packet_steal_fd(&got, 1), -1);
    assert_int_equal(packet_steal_fd(&got, 3), -1);
    packet_clear(&got);
    assert_true(fcntl(taken, F_GETFD) >= 0); /* what was stolen lives on */
}

static void conn__full_65_descriptors__pass(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    int sent[PACKET_FDS_MAX + 1] = {0};
    assert_int_equal(conn_send(p->fds[0], text("x"), sent, PACKET_FDS_MAX, NULL), 0);
    assert_int_equal(conn_recv(p->fds[1], PACKET_FDS_MAX, &got, NULL), 1);
    assert_int_equal(got.n_fds, PACKET_FDS_MAX);
    assert_int_equal(conn_send(p->fds[0], text("x"), sent, PACKET_FDS_MAX + 1, NULL), QD_E_LIMIT);
}

static void conn__253_descriptors__are_all_closed_and_the_packet_is_marked(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    static const unsigned limits[] = {0, 1, 2, PACKET_FDS_MAX};
    for (unsigned i = 0; i < 4; i++) {
        send_raw(p->fds[0], "flood", 253);
        assert_int_equal(conn_recv(p->fds[1], limits[i], &got, NULL), 1);
        assert_true(got.cut);
        assert_int_equal(got.n_fds, 0);
        assert_memory_equal(got.bytes.data, "flood", 5);
        assert_int_equal(n_open_fds(), p->n_before + 2);
    }
    send_raw(p->fds[0], "two", 2); /* one more than allowed */
    assert_int_equal(conn_recv(p->fds[1], 1, &got, NULL), 1);
    assert_true(got.cut);
    send_raw(p->fds[0], "one", 1);
    assert_int_equal(conn_recv(p->fds[1], 1, &got, NULL), 1);
    assert_false(got.cut);
    assert_int_equal(got.n_fds, 1);
}

static void conn__no_descriptor_left_in_the_receiver__the_packet_is_marked(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    struct rlimit old, tight;
    int sent[4] = {0, 0, 0, 0};
    assert_int_equal(conn_send(p->fds[0], text("x"), sent, 4, NULL), 0);
    int next = dup(0);
    (void)fd_close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)next + 2, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    int r = conn_recv(p->fds[1], 4, &got, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(r, 1);
    assert_true(got.cut);
    assert_int_equal(got.n_fds, 0);
}

static void conn__packets__keep_their_borders_and_their_descriptors(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    int sent[2] = {0, 0};
    assert_int_equal(conn_send(p->fds[0], text("first"), sent, 1, NULL), 0);
    assert_int_equal(conn_send(p->fds[0], text("second!"), sent, 2, NULL), 0);
    assert_int_equal(conn_send(p->fds[0], text("third"), NULL, 0, NULL), 0);
    assert_int_equal(conn_recv(p->fds[1], 2, &got, NULL), 1);
    assert_int_equal(got.bytes.n + 100 * got.n_fds, 105);
    assert_int_equal(conn_recv(p->fds[1], 2, &got, NULL), 1);
    assert_int_equal(got.bytes.n + 100 * got.n_fds, 207);
    assert_int_equal(conn_recv(p->fds[1], 2, &got, NULL), 1);
    assert_int_equal(got.bytes.n + 100 * got.n_fds, 5);
    assert_int_equal(conn_recv(p->fds[1], 2, &got, NULL), QD_E_WOULD_BLOCK);
}

static void conn__longest_packet__passes_and_a_longer_one_is_refused(void **state)
{
    struct pair *p = *state;
    static uint8_t big[PACKET_BYTES_MAX + 1];
    CLEANUP(packet_clear) struct packet got = {0};
    assert_int_equal(conn_send(p->fds[0], (struct bytes){big, PACKET_BYTES_MAX}, NULL, 0, NULL), 0);
    assert_int_equal(conn_recv(p->fds[1], 0, &got, NULL), 1);
    assert_int_equal(got.bytes.n, PACKET_BYTES_MAX);
    assert_int_equal(conn_send(p->fds[0], (struct bytes){big, sizeof big}, NULL, 0, NULL), QD_E_LIMIT);
    assert_int_equal(send(p->fds[0], big, sizeof big, 0), sizeof big);
    assert_int_equal(conn_recv(p->fds[1], 0, &got, NULL), QD_E_PROTOCOL);
}

static void conn__peer_gone__is_said_without_a_signal(void **state)
{
    struct pair *p = *state;
    CLEANUP(packet_clear) struct packet got = {0};
    int sent = 0;
    assert_int_equal(conn_send(p->fds[0], text("last"), &sent, 1, NULL), 0);
    p->fds[0] = fd_close(p->fds[0]);
    assert_int_equal(conn_recv(p->fds[1], 1, &got, NULL), 1);
    assert_int_equal(conn_recv(p->fds[1], 1, &got, NULL), 0);
    assert_int_equal(conn_send(p->fds[1], text("x"), NULL, 0, NULL), QD_E_UNAVAILABLE);
}

static void conn__nobody_reads__would_block(void **state)
{
    struct pair *p = *state;
    int r = 0;
    for (int i = 0; r == 0 && i < 100000; i++)
        r = conn_send(p->fds[0], text("x"), NULL, 0, NULL);
    assert_int_equal(r, QD_E_WOULD_BLOCK);
}

static void conn__listen__replaces_a_stale_socket_and_nothing_else(void **state)
{
    (void)state;
    char dir[] = "/tmp/quantd-conn-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/s", dir);
    CLEANUP(fd_close) int first = -1;
    CLEANUP(fd_close) int second = -1;
    CLEANUP(fd_close) int client = -1;
    CLEANUP(fd_close) int server = -1;
    struct qd_error err;
    struct stat st;
    assert_int_equal(conn_connect(path, &client, &err), QD_E_UNAVAILABLE);
    assert_int_equal(conn_listen(path, 0666, &first, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);
    assert_int_equal(conn_listen(path, 0666, &second, &err), QD_E_EXISTS);
    first = fd_close(first);
    assert_int_equal(conn_connect(path, &client, &err), QD_E_UNAVAILABLE);
    assert_int_equal(conn_listen(path, 0600, &first, &err), 0);
    assert_int_equal(conn_accept(first, &server, &err), QD_E_WOULD_BLOCK);
    assert_int_equal(conn_connect(path, &client, &err), 0);
    assert_int_equal(conn_accept(first, &server, &err), 0);
    struct credentials who;
    assert_int_equal(conn_credentials(server, &who, &err), 0);
    assert_int_equal(who.uid, getuid());
    assert_int_equal(who.pid, getpid());
    assert_int_equal(who.n_groups, getgroups(0, NULL));
    credentials_clear(&who);
    assert_int_equal(unlink(path), 0);
    CLEANUP(fd_close) int plain = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(conn_listen(path, 0600, &second, &err), QD_E_EXISTS);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- handlers over a real pair ----------------------------------------------------------------- */

struct served {
    unsigned n_calls;
    int kept_fd;
};
#define HANDLER_OWNER     struct served
#define TESTED_METHODS(M) M(cancel, cancel, nothing, "") M(open, open, opened, "")
TESTED_METHODS(HANDLER_DECLARE)
TESTED_METHODS(HANDLER_THUNK)
static const struct handler handlers[] = {TESTED_METHODS(HANDLER_ROW)};

int handle_cancel(struct served *owner, struct request *rq, const struct msg_cancel *p, struct qd_error *err)
{
    (void)rq;
    owner->n_calls++;
    return p->job == 7 ? 0 : err_hint(err, err_new(err, QD_E_NOT_FOUND, "no job %u", p->job), "see quantctl jobs");
}

int handle_open(struct served *owner, struct request *rq, const struct msg_open *p, struct qd_error *err)
{
    (void)p;
    (void)err;
    owner->n_calls++;
    owner->kept_fd = packet_steal_fd(rq->packet, 0);
    return 0;
}

static int serve_one(struct pair *p, struct served *s, struct buffer *reply)
{
    CLEANUP(packet_clear) struct packet got = {0};
    struct qd_error err;
    assert_int_equal(conn_recv(p->fds[1], 1, &got, NULL), 1);
    int r = request_serve(handlers, 2, s, &got, reply, &err);
    assert_int_equal(got.n_fds, 0);
    return r;
}

static int failure_of(struct bytes reply, uint32_t id, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    assert_int_equal(incoming_parse(reply, &in, err), 0);
    assert_int_equal(in.id, id);
    assert_true(in.failed);
    return incoming_error(&in, err);
}

static void request_serve__known_method__reaches_its_handler_with_its_descriptor(void **state)
{
    struct pair *p = *state;
    struct served s = {.kept_fd = -1};
    CLEANUP(buffer_clear) struct buffer wire = {0};
    CLEANUP(buffer_clear) struct buffer reply = {0};
    struct msg_open open_params = {.by_fd = true};
    int sent = 0;
    assert_int_equal(request_encode(&wire, 3, "open", MESSAGE(open, &open_params), NULL), 0);
    assert_int_equal(conn_send(p->fds[0], buffer_span(&wire), &sent, 1, NULL), 0);
    assert_int_equal(serve_one(p, &s, &reply), 0);
    assert_int_equal(s.n_calls, 1);
    assert_true(s.kept_fd >= 0);
    (void)fd_close(s.kept_fd);
}

static void request_serve__failures__are_answered_by_id(void **state)
{
    struct pair *p = *state;
    struct served s = {0};
    CLEANUP(buffer_clear) struct buffer reply = {0};
    struct qd_error err;
    struct msg_cancel cancel = {.job = 8};
    static const struct {
        const char *method;
        int code;
        const char *message, *hint;
    } cases[] = {
        {"cancel", QD_E_NOT_FOUND, "no job 8", "see quantctl jobs"},
        {"cancle", QD_E_UNSUPPORTED, "no method 'cancle'", "did you mean 'cancel'?"},
        {"frobnicate", QD_E_UNSUPPORTED, "no method 'frobnicate'", ""},
    };
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(buffer_clear) struct buffer wire = {0};
        assert_int_equal(request_encode(&wire, (uint32_t)i, cases[i].method, MESSAGE(cancel, &cancel), NULL), 0);
        assert_int_equal(conn_send(p->fds[0], buffer_span(&wire), NULL, 0, NULL), 0);
        assert_int_equal(serve_one(p, &s, &reply), 1);
        assert_int_equal(failure_of(buffer_span(&reply), (uint32_t)i, &err), cases[i].code);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.hint, cases[i].hint);
    }
    send_raw(p->fds[0],
             "\x94\x01\x05\xa6"
             "cancel\x80",
             253); /* a reply is no request */
    assert_int_equal(serve_one(p, &s, &reply), QD_E_PROTOCOL);
    send_raw(p->fds[0], "\x94\x02\x06", 1); /* half a packet */
    assert_int_equal(serve_one(p, &s, &reply), QD_E_PROTOCOL);
    assert_int_equal(s.n_calls, 1);
}

static void request_serve__lost_descriptors__fail_that_request(void **state)
{
    struct pair *p = *state;
    struct served s = {0};
    struct qd_error err;
    CLEANUP(buffer_clear) struct buffer reply = {0};
    send_raw(p->fds[0],
             "\x94\xcc\x80\x05\xa4"
             "open\x81\xa5"
             "by_fd\xc3",
             253);
    assert_int_equal(serve_one(p, &s, &reply), QD_E_PROTOCOL);
    send_raw(p->fds[0], "\x94\xcc\x80", 1);
    assert_int_equal(serve_one(p, &s, &reply), QD_E_PROTOCOL);
    char raw[] = "\x94?\x05\xa4"
                 "open\x81\xa5"
                 "by_fd\xc3";
    raw[1] = '\0'; /* kind 0; sent with its NUL by hand */
    CLEANUP(buffer_clear) struct buffer wire = {0};
    buffer_put(&wire, raw, sizeof raw - 1);
    int sent[3] = {0, 0, 0};
    assert_int_equal(conn_send(p->fds[0], buffer_span(&wire), sent, 3, NULL), 0);
    assert_int_equal(serve_one(p, &s, &reply), 1);
    assert_int_equal(failure_of(buffer_span(&reply), 5, &err), QD_E_LIMIT);
    assert_int_equal(s.n_calls, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_pair, drop_pair)
    const struct CMUnitTest tests[] = {
        T(conn__packet_with_descriptors__arrives_whole_and_owned),
        T(conn__full_65_descriptors__pass),
        T(conn__253_descriptors__are_all_closed_and_the_packet_is_marked),
        T(conn__no_descriptor_left_in_the_receiver__the_packet_is_marked),
        T(conn__packets__keep_their_borders_and_their_descriptors),
        T(conn__longest_packet__passes_and_a_longer_one_is_refused),
        T(conn__peer_gone__is_said_without_a_signal),
        T(conn__nobody_reads__would_block),
        T(conn__listen__replaces_a_stale_socket_and_nothing_else),
        T(request_serve__known_method__reaches_its_handler_with_its_descriptor),
        T(request_serve__failures__are_answered_by_id),
        T(request_serve__lost_descriptors__fail_that_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
