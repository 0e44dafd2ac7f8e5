/* quantd as a service: start, stop, signals, activation, notification, watchdog, and how quiet it is. */
#include "tests/integration/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"

static int setup(void **state)
{
    struct harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_prepare(h, NULL);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct harness *h = *state;
    harness_remove(h);
    free(h);
    return 0;
}

static void add_config(struct harness *h, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/config/quantd/quantd.conf.d", h->folder);
    (void)mkdir(path, 0755);
    (void)snprintf(path, sizeof path, "%s/config/quantd/quantd.conf.d/%s", h->folder, name);
    harness_write(path, text, strlen(text));
}

static void start_and_stop__folders_and_socket__have_their_modes(void **state)
{
    struct harness *h = *state;
    static const struct {
        const char *name;
        mode_t mode;
    } rows[] = {{"state/quantd", 0700},
                {"cache/quantd", 0700},
                {"run/quantd", 0755},
                {"run/quantd/quantd.sock", 0600},
                {"state/quantd/quantd.key", 0600},
                {"run/quantd/quantd.pub", 0644}};
    struct stat st;
    harness_start(h);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(stat(harness_path(h, rows[i].name), &st), 0);
        assert_int_equal(st.st_mode & 07777, rows[i].mode);
    }
    assert_int_equal(harness_stop(h), 0);
    assert_int_equal(stat(h->socket, &st), -1);
}

static void start__socket_left_by_a_killed_daemon__is_replaced(void **state)
{
    struct harness *h = *state;
    harness_start(h);
    harness_kill(h);
    harness_start(h);
    (void)close(harness_hello(h));
    assert_int_equal(harness_stop(h), 0);
}

static void start__another_daemon_has_the_cache__exits_and_says_so(void **state)
{
    struct harness *h = *state;
    harness_start(h);
    pid_t first = h->pid;
    harness_launch(h);
    assert_int_equal(harness_wait(h), 75);
    h->pid = first;
    assert_true(harness_log_has(h, "cache"));
    (void)close(harness_hello(h));
    assert_int_equal(harness_stop(h), 0);
}

static void start__bad_value__exits_78_with_file_and_line(void **state)
{
    struct harness *h = *state;
    add_config(h, "10-bad.conf", "[jobs]\nthreads = many\n");
    harness_launch(h);
    assert_int_equal(harness_wait(h), 78);
    assert_true(harness_log_has(h, "10-bad.conf:2"));
}

static void start__unknown_key__warns_with_the_nearest_and_serves(void **state)
{
    struct harness *h = *state;
    add_config(h, "10-odd.conf", "[jobs]\nthread = 1\n");
    harness_start(h);
    assert_true(harness_log_has(h, "did you mean 'threads'?"));
    assert_int_equal(harness_stop(h), 0);
}

static void sighup__new_root__is_watched_and_a_bad_file_changes_nothing(void **state)
{
    struct harness *h = *state;
    char text[256];
    harness_start(h);
    assert_int_equal(mkdir(harness_path(h, "more"), 0755), 0);
    (void)snprintf(text, sizeof text, "[root more]\npath = %s/more\n", h->folder);
    add_config(h, "10-more.conf", text);
    harness_write(harness_path(h, "more/extra.gguf"), "GGUF", 4);
    assert_int_equal(kill(h->pid, SIGHUP), 0);
    harness_wait_model(h, "extra", "ready");
    add_config(h, "20-bad.conf", "[jobs]\nthreads = many\n");
    assert_int_equal(kill(h->pid, SIGHUP), 0);
    harness_wait_log(h, "stays in force");
    harness_wait_model(h, "extra", "ready");
    assert_int_equal(harness_stop(h), 0);
}

static void sighup__stopped_behind_it__ends_well(void **state)
{
    struct harness *h = *state;
    for (unsigned i = 0; i < 10; i++) {
        harness_start(h);
        assert_int_equal(kill(h->pid, SIGHUP), 0);
        (void)usleep(200 * i);
        assert_int_equal(harness_stop(h), 0);
    }
}

static uint64_t budget_now(const struct harness *h)
{
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_status_report m;
    struct qd_error err;
    assert_int_equal(harness_call(fd, "status", MESSAGE(nothing, &(struct msg_nothing){}), &in, &p, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(status_report, &m), &err), 0);
    return m.cache_budget;
}

static void sighup__new_budget__holds_for_the_open_store(void **state)
{
    struct harness *h = *state;
    harness_start(h);
    assert_int_equal(budget_now(h), 0);
    add_config(h, "10-budget.conf", "[cache]\nbudget = 64M\n");
    assert_int_equal(kill(h->pid, SIGHUP), 0);
    for (int i = 0; i < 200 && budget_now(h) == 0; i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(budget_now(h), 64 << 20);
    assert_int_equal(harness_stop(h), 0);
}

static void open__budget_smaller_than_what_the_disk_keeps_free__builds(void **state)
{
    struct harness *h = *state;
    struct qd_error err;
    struct msg_opened opened;
    CLEANUP(packet_clear) struct packet p = {0};
    add_config(h, "10-budget.conf", "[cache]\nbudget = 16M\nkeep_free = 64M\n");
    harness_copy_model(h, "tiny-kjv.gguf", "tiny.gguf");
    harness_start(h);
    harness_wait_model(h, "tiny", "ready");
    CLEANUP(fd_close) int fd = harness_hello(h);
    assert_int_equal(harness_open(fd, "tiny", "q8_0", &opened, &p, &err), 0);
    assert_int_equal(harness_stop(h), 0);
}

static void sigterm__while_a_client_waits__the_client_is_answered(void **state)
{
    struct harness *h = *state;
    harness_start(h);
    int fd = harness_hello(h);
    harness_write(harness_path(h, "models/big-00001-of-00002.gguf"), "GGUF", 4);
    int file = open(harness_path(h, "models/slow.gguf"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    struct msg_open m = {.model = "slow", .scheme = "q8_0"};
    assert_int_equal(write(file, "GG", 2), 2);
    harness_request(fd, 9, "open", MESSAGE(open, &m), NULL, 0);
    assert_int_equal(kill(h->pid, SIGTERM), 0);
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    bool answered = harness_receive(fd, &in, &p);
    assert_true(!answered || in.failed); /* an answer, or the end of the connection when it came too late */
    assert_int_equal(harness_wait(h), 0);
    (void)close(file);
    (void)close(fd);
}

/* What the pool answers after the parts are gone must not ask them. */
static void sigterm__in_the_middle_of_checks__ends_in_order(void **state)
{
    struct harness *h = *state;
    struct msg_open strict = {.model = "tiny", .scheme = "q8_0", .strict = true};
    harness_copy_model(h, "tiny-kjv.gguf", "tiny.gguf");
    for (int round = 0; round < 12; round++) {
        int fds[4];
        harness_start(h);
        harness_wait_model(h, "tiny", "ready");
        for (size_t i = 0; i < 4; i++)
            fds[i] = harness_hello(h);
        for (uint32_t id = 1; id <= 15; id++)
            for (size_t i = 0; i < 4; i++) {
                harness_request(fds[i], 3 * id, "open", MESSAGE(open, &strict), NULL, 0);
                harness_request(fds[i], 3 * id + 1, "verify", MESSAGE(verify, &(struct msg_verify){0}), NULL, 0);
                harness_request(fds[i], 3 * id + 2, "status", MESSAGE(nothing, &(struct msg_nothing){}), NULL, 0);
            }
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000 * round}, NULL);
        assert_int_equal(kill(h->pid, SIGTERM), 0);
        assert_int_equal(harness_wait(h), 0);
        for (size_t i = 0; i < 4; i++)
            (void)close(fds[i]);
    }
}

static int bound(int type, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void socket_activation__client_connected_before_the_start__is_served(void **state)
{
    struct harness *h = *state;
    struct qd_error err;
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    assert_int_equal(mkdir(harness_path(h, "run/quantd"), 0755), 0);
    h->listen_fd = bound(SOCK_SEQPACKET, h->socket);
    assert_int_equal(listen(h->listen_fd, 16), 0);
    CLEANUP(fd_close) int fd = harness_connect(h);
    struct msg_hello hello = {.version = 1};
    harness_request(fd, 1, "hello", MESSAGE(hello, &hello), NULL, 0);
    harness_start(h);
    assert_true(harness_receive(fd, &in, &p));
    assert_int_equal(incoming_decode(&in, INTO(welcome, &(struct msg_welcome){0}), &err), 0);
    assert_int_equal(harness_stop(h), 0);
    struct stat st;
    assert_int_equal(stat(h->socket, &st), 0); /* the service manager's own: left alone */
    (void)close(h->listen_fd);
}

/* Reads datagrams until one holds @text; false after @ms. */
static bool hears(int fd, const char *text, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, ms) > 0) {
        char got[1100];
        ssize_t n = recv(fd, got, sizeof got - 1, 0);
        assert_true(n >= 0);
        got[n] = '\0';
        if (strstr(got, text))
            return true;
    }
    return false;
}

static void notify__life_of_the_service__is_told(void **state)
{
    struct harness *h = *state;
    char variable[256], path[128];
    (void)snprintf(path, sizeof path, "%s/notify", h->folder);
    (void)snprintf(variable, sizeof variable, "NOTIFY_SOCKET=%s", path);
    h->env[0] = variable;
    CLEANUP(fd_close) int fd = bound(SOCK_DGRAM, path);
    harness_start(h);
    assert_true(hears(fd, "READY=1", 5000));
    assert_int_equal(kill(h->pid, SIGHUP), 0);
    assert_true(hears(fd, "RELOADING=1\nMONOTONIC_USEC=", 5000));
    assert_true(hears(fd, "READY=1", 5000));
    assert_int_equal(kill(h->pid, SIGTERM), 0);
    assert_true(hears(fd, "STOPPING=1", 5000));
    assert_int_equal(harness_wait(h), 0);
}

static void watchdog__interval_given__is_fed_and_a_stopped_loop_is_not(void **state)
{
    struct harness *h = *state;
    char variable[256], path[128];
    (void)snprintf(path, sizeof path, "%s/notify", h->folder);
    (void)snprintf(variable, sizeof variable, "NOTIFY_SOCKET=%s", path);
    h->env[0] = variable;
    h->env[1] = "WATCHDOG_USEC=200000";
    CLEANUP(fd_close) int fd = bound(SOCK_DGRAM, path);
    harness_start(h);
    for (int i = 0; i < 3; i++)
        assert_true(hears(fd, "WATCHDOG=1", 1000));
    assert_int_equal(kill(h->pid, SIGSTOP), 0);
    while (hears(fd, "WATCHDOG=1", 150))
        ; /* what was on its way */
    assert_false(hears(fd, "WATCHDOG=1", 600));
    assert_int_equal(kill(h->pid, SIGCONT), 0);
    assert_int_equal(harness_stop(h), 0);
}

/* Voluntary and involuntary switches of every thread: a wake-up is one at least. */
static unsigned long n_wakeups(const struct harness *h)
{
    char command[128], line[64];
    unsigned long n = 0;
    (void)snprintf(command, sizeof command,
                   "cat /proc/%d/task/*/status | awk '/^voluntary_ctxt/ { n += $2 } END { print n }'", (int)h->pid);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    (void)pclose(f);
    n = strtoul(line, NULL, 10);
    return n;
}

/* 10 s, or QUANTD_TEST_IDLE_S: the long form says 60. */
static void idle__a_hundred_models_and_a_client__not_one_wakeup(void **state)
{
    struct harness *h = *state;
    const char *seconds = getenv("QUANTD_TEST_IDLE_S");
    char name[64];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "models/m%d.gguf", i);
        harness_write(harness_path(h, name), "GGUF", 4);
    }
    harness_start(h);
    CLEANUP(fd_close) int fd = harness_hello(h);
    harness_wait_model(h, "m99", "ready");
    (void)sleep(2);
    unsigned long before = n_wakeups(h);
    (void)sleep(seconds ? (unsigned)atoi(seconds) : 10);
    unsigned long woken = n_wakeups(h) - before;
    print_message("# idle: %lu wake-ups, RSS %lu KiB\n", woken, harness_rss_kib(h));
    assert_int_equal(woken, 0);
    assert_int_equal(harness_stop(h), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(start_and_stop__folders_and_socket__have_their_modes),
        T(start__socket_left_by_a_killed_daemon__is_replaced),
        T(start__another_daemon_has_the_cache__exits_and_says_so),
        T(start__bad_value__exits_78_with_file_and_line),
        T(start__unknown_key__warns_with_the_nearest_and_serves),
        T(sighup__new_root__is_watched_and_a_bad_file_changes_nothing),
        T(sighup__new_budget__holds_for_the_open_store),
        T(open__budget_smaller_than_what_the_disk_keeps_free__builds),
        T(sigterm__while_a_client_waits__the_client_is_answered),
        T(sigterm__in_the_middle_of_checks__ends_in_order),
        T(socket_activation__client_connected_before_the_start__is_served),
        T(sighup__stopped_behind_it__ends_well),
        T(notify__life_of_the_service__is_told),
        T(watchdog__interval_given__is_fed_and_a_stopped_loop_is_not),
        T(idle__a_hundred_models_and_a_client__not_one_wakeup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
