#include "tests/test.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/notify.h"

/* A bound socket; @path as in NOTIFY_SOCKET, '@' for abstract. */
static int bound(int type, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))), 0);
    return fd;
}

static void hears(const char *path)
{
    int fd = bound(SOCK_DGRAM, path);
    char got[64] = "";
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
    assert_int_equal(notify_send("READY=1\nSTATUS=%d roots", 2), 1);
    assert_true(recv(fd, got, sizeof got - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(got, "READY=1\nSTATUS=2 roots");
    (void)close(fd);
}

static void notify_send__path_socket__hears_the_lines(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/quantd-notify-%d", (int)getpid());
    hears(path);
    (void)unlink(path);
}

static void notify_send__abstract_socket__hears_the_lines(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "@quantd-notify-%d", (int)getpid());
    hears(path);
}

static void notify_send__nobody_asked__is_nothing(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(notify_send("READY=1"), 0);
}

static void notify_send__socket_gone__is_an_error_and_no_signal(void **state)
{
    (void)state;
    assert_int_equal(setenv("NOTIFY_SOCKET", "/tmp/quantd-no-such-socket", 1), 0);
    assert_int_equal(notify_send("READY=1"), QD_E_SYSTEM);
}

static void notify_watchdog_ms__is_half_and_only_for_us(void **state)
{
    (void)state;
    char pid[16];
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
    assert_int_equal(notify_watchdog_ms(), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "3000000", 1), 0);
    assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
    assert_int_equal(notify_watchdog_ms(), 1500);
    assert_int_equal(setenv("WATCHDOG_PID", "1", 1), 0);
    assert_int_equal(notify_watchdog_ms(), 0);
    assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "nonsense", 1), 0);
    assert_int_equal(notify_watchdog_ms(), 0);
}

/* Puts @fd where the service manager would: descriptor 3. */
static void hand_over(int fd, const char *names)
{
    char pid[16];
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (fd != 3) {
        assert_int_equal(dup2(fd, 3), 3);
        (void)close(fd);
    }
    assert_int_equal(setenv("LISTEN_PID", pid, 1), 0);
    assert_int_equal(setenv("LISTEN_FDS", "1", 1), 0);
    assert_int_equal(names ? setenv("LISTEN_FDNAMES", names, 1) : unsetenv("LISTEN_FDNAMES"), 0);
}

static void listen_fd_take__listening_seqpacket__is_taken_once(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "@quantd-listen-%d", (int)getpid());
    int fd = bound(SOCK_SEQPACKET, path), got = -1;
    assert_int_equal(listen(fd, 1), 0);
    hand_over(fd, "quantd.socket");
    struct qd_error err;
    assert_int_equal(listen_fd_take("quantd.socket", &got, &err), 1);
    assert_int_equal(got, 3);
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(got, F_GETFL) & O_NONBLOCK);
    assert_null(getenv("LISTEN_FDS"));
    assert_int_equal(listen_fd_take("quantd.socket", &got, &err), 0);
    (void)close(3);
}

static void listen_fd_take__stream_socket__is_refused_with_the_next_step(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "@quantd-stream-%d", (int)getpid());
    int fd = bound(SOCK_STREAM, path), got = -1;
    assert_int_equal(listen(fd, 1), 0);
    hand_over(fd, NULL);
    struct qd_error err;
    assert_int_equal(listen_fd_take("quantd.socket", &got, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "ListenSequentialPacket"));
    assert_int_equal(got, -1);
    (void)close(3);
}

static void listen_fd_take__meant_for_another_process__is_left_alone(void **state)
{
    (void)state;
    int got = -1;
    struct qd_error err;
    assert_int_equal(setenv("LISTEN_PID", "1", 1), 0);
    assert_int_equal(setenv("LISTEN_FDS", "1", 1), 0);
    assert_int_equal(listen_fd_take("quantd.socket", &got, &err), 0);
    assert_int_equal(got, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notify_send__path_socket__hears_the_lines),
        cmocka_unit_test(notify_send__abstract_socket__hears_the_lines),
        cmocka_unit_test(notify_send__nobody_asked__is_nothing),
        cmocka_unit_test(notify_send__socket_gone__is_an_error_and_no_signal),
        cmocka_unit_test(notify_watchdog_ms__is_half_and_only_for_us),
        cmocka_unit_test(listen_fd_take__listening_seqpacket__is_taken_once),
        cmocka_unit_test(listen_fd_take__stream_socket__is_refused_with_the_next_step),
        cmocka_unit_test(listen_fd_take__meant_for_another_process__is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
