#include "tests/integration/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

/* A sanitizer's own memory and system calls do not fit a worker's ceiling and filter. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WORKER_SETTINGS "[jobs]\nsandbox = off\nmemory = 0\n"
#else
#define WORKER_SETTINGS ""
#endif

static unsigned n_events; /* dropped by harness_call */

/* ---- folder --------------------------------------------------------------------------------------- */

const char *harness_path(const struct harness *h, const char *name)
{
    static char ring[4][512];
    static unsigned next;
    char *dst = ring[next++ % 4];
    assert_true(snprintf(dst, sizeof ring[0], "%s/%s", h->folder, name) < (int)sizeof ring[0]);
    return dst;
}

void harness_write(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write_whole(fd, data, n), 0);
    assert_int_equal(close(fd), 0);
}

void harness_prepare(struct harness *h, const char *config)
{
    static const char *const folders[] = {"models", "run", "state", "cache", "config", "config/quantd"};
    char text[4096];
    *h = (struct harness){.folder = "/tmp/quantd-test-XXXXXX"};
    assert_non_null(mkdtemp(h->folder));
    assert_int_equal(chmod(h->folder, 0755), 0);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        assert_int_equal(mkdir(harness_path(h, folders[i]), 0755), 0);
    (void)snprintf(h->models, sizeof h->models, "%s/models", h->folder);
    (void)snprintf(h->socket, sizeof h->socket, "%s/run/quantd/quantd.sock", h->folder);
    (void)snprintf(h->log, sizeof h->log, "%s/log", h->folder);
    int n = snprintf(
        text, sizeof text,
        "[daemon]\nlog_level = debug\nworker = %s\n[watch]\nquiet = 100ms\n[cache]\nkeep_free = 1M\n" WORKER_SETTINGS
        "[root models]\npath = %s\n%s",
        HARNESS_WORKER, h->models, config ? config : "");
    assert_true(n < (int)sizeof text);
    harness_write(harness_path(h, "config/quantd/quantd.conf"), text, (size_t)n);
}

static void give_to(const struct harness *h)
{
    char command[256];
    if (h->uid == 0)
        return;
    (void)snprintf(command, sizeof command, "chown -R %u '%s/run' '%s/state' '%s/cache'", (unsigned)h->uid, h->folder,
                   h->folder, h->folder);
    assert_int_equal(system(command), 0);
}

void harness_copy_model(const struct harness *h, const char *name, const char *as)
{
    char command[1024];
    int n = snprintf(command, sizeof command, "cp -r '%s%s' '%s/%s'", name[0] == '/' ? "" : HARNESS_MODELS "/", name,
                     h->models, as);
    assert_true(n < (int)sizeof command);
    assert_int_equal(system(command), 0);
}

/* ---- process ------------------------------------------------------------------------------------------ */

static void set_environment(const struct harness *h)
{
    static const char *const variables[] = {"XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"};
    static const char *const folders[] = {"run", "state", "cache", "config"};
    static const char *const unwanted[] = {"NOTIFY_SOCKET", "LISTEN_FDS",   "LISTEN_PID",     "LISTEN_FDNAMES",
                                           "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY",
                                           "QUANTD_SOCKET"};
    char pid[16];
    for (size_t i = 0; i < 4; i++)
        (void)setenv(variables[i], harness_path(h, folders[i]), 1);
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        (void)unsetenv(unwanted[i]);
    for (size_t i = 0; i < HARNESS_ENV_MAX; i++)
        if (h->env[i])
            (void)putenv(strdup(h->env[i])); /* the environment owns it */
    if (h->listen_fd > 0) {
        (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
        (void)setenv("LISTEN_PID", pid, 1);
        (void)setenv("LISTEN_FDS", "1", 1);
    }
}

static void become_daemon(const struct harness *h)
{
    int log = open(h->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)dup2(null, 0);
    (void)dup2(log, 1);
    (void)dup2(log, 2);
    if (h->listen_fd > 0 && h->listen_fd != 3)
        (void)dup2(h->listen_fd, 3);
    else if (h->listen_fd == 3)
        (void)fcntl(3, F_SETFD, 0);
    set_environment(h);
    if (h->uid != 0 && (setgid(h->uid) < 0 || setuid(h->uid) < 0))
        _exit(125);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives its test */
    (void)execl(HARNESS_QUANTD, "quantd", "--user", (char *)NULL);
    _exit(126);
}

void harness_launch(struct harness *h)
{
    give_to(h);
    h->pid = fork();
    assert_true(h->pid >= 0);
    if (h->pid == 0)
        become_daemon(h);
}

bool harness_log_has(const struct harness *h, const char *text)
{
    int fd = open(h->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    char *content = calloc(1, (size_t)st.st_size + 1);
    assert_non_null(content);
    (void)pread_whole(fd, content, (size_t)st.st_size, 0);
    bool found = strstr(content, text) != NULL;
    free(content);
    (void)close(fd);
    return found;
}

static void show_log(const struct harness *h)
{
    char command[160];
    (void)snprintf(command, sizeof command, "tail -n 40 '%s' >&2", h->log);
    (void)!system(command);
}

static void pause_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

void harness_wait_log(const struct harness *h, const char *text)
{
    for (int i = 0; i < HARNESS_WAIT_MS / 10; i++) {
        if (harness_log_has(h, text))
            return;
        if (h->pid > 0 && waitpid(h->pid, NULL, WNOHANG | WNOWAIT) > 0)
            break;
        pause_ms(10);
    }
    show_log(h);
    fail_msg("the log never said '%s'", text);
}

void harness_start(struct harness *h)
{
    (void)unlink(h->log);
    harness_launch(h);
    harness_wait_log(h, "daemon: ready");
}

int harness_wait(struct harness *h)
{
    int status = 0;
    for (int i = 0; i < HARNESS_WAIT_MS / 10; i++) {
        pid_t pid = waitpid(h->pid, &status, WNOHANG);
        assert_true(pid >= 0);
        if (pid > 0) {
            h->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        pause_ms(10);
    }
    show_log(h);
    fail_msg("the daemon does not end");
    return -1;
}

int harness_stop(struct harness *h)
{
    assert_int_equal(kill(h->pid, SIGTERM), 0);
    return harness_wait(h);
}

void harness_kill(struct harness *h)
{
    assert_int_equal(kill(h->pid, SIGKILL), 0);
    (void)harness_wait(h);
}

void harness_remove(struct harness *h)
{
    char command[192];
    if (h->pid > 0)
        harness_kill(h);
    (void)snprintf(command, sizeof command, "chmod -R u+rwX '%s'; rm -rf '%s'", h->folder, h->folder);
    assert_int_equal(system(command), 0);
}

struct harness *harness_serving_tiny(const char *config)
{
    struct harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_prepare(h, config);
    harness_copy_model(h, "tiny-kjv.gguf", "tiny.gguf");
    harness_start(h);
    harness_wait_model(h, "tiny", "ready");
    return h;
}

int harness_teardown(void **state)
{
    struct harness *h = *state;
    int code = h->pid > 0 ? harness_stop(h) : 0;
    harness_remove(h);
    free(h);
    return code;
}

unsigned harness_n_fds(const struct harness *h)
{
    char path[64];
    unsigned n = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)h->pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

unsigned long harness_rss_kib(const struct harness *h)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)h;
    return 0; /* a sanitizer keeps what was freed */
#endif
    char path[64], line[256];
    unsigned long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)h->pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        (void)sscanf(line, "VmRSS: %lu", &kib);
    (void)fclose(f);
    return kib;
}

/* ---- raw client -------------------------------------------------------------------------------------------- */

int harness_connect(const struct harness *h)
{
    struct qd_error err;
    int fd = -1;
    if (conn_connect(h->socket, &fd, &err) < 0)
        fail_msg("connect: %s", err.message);
    return fd;
}

static bool wait_for(int fd, short what)
{
    struct pollfd p = {.fd = fd, .events = what};
    int n;
    do
        n = poll(&p, 1, HARNESS_WAIT_MS);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

void harness_request(int fd, uint32_t id, const char *method, enum message type, const void *params, const int *fds,
                     size_t n_fds)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct qd_error err;
    if (request_encode(&b, id, method, type, params, &err) < 0)
        fail_msg("%s: %s", method, err.message);
    int r;
    while ((r = conn_send(fd, buffer_span(&b), fds, n_fds, &err)) == QD_E_WOULD_BLOCK)
        assert_true(wait_for(fd, POLLOUT));
    if (r < 0 && r != QD_E_UNAVAILABLE)
        fail_msg("%s: %s", method, err.message);
}

bool harness_receive(int fd, struct incoming *in, struct packet *packet)
{
    struct qd_error err;
    int r;
    while ((r = conn_recv(fd, PACKET_FDS_MAX, packet, &err)) == QD_E_WOULD_BLOCK)
        if (!wait_for(fd, POLLIN))
            fail_msg("no answer in %d ms", HARNESS_WAIT_MS);
    if (r <= 0)
        return false;
    if (incoming_parse(packet_span(packet), in, &err) < 0)
        fail_msg("answer: %s", err.message);
    return true;
}

int harness_call(int fd, const char *method, enum message type, const void *params, struct incoming *in,
                 struct packet *packet, struct qd_error *err)
{
    static uint32_t next_id = 1000;
    uint32_t id = next_id++;
    harness_request(fd, id, method, type, params, NULL, 0);
    for (;;) {
        if (!harness_receive(fd, in, packet))
            return err_new(err, QD_E_UNAVAILABLE, "the daemon closed the connection");
        if (in->kind == INCOMING_REPLY && in->id == id)
            return in->failed ? incoming_error(in, err) : 0;
        n_events++;
        incoming_clear(in);
    }
}

int harness_hello(const struct harness *h)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet packet = {0};
    struct qd_error err;
    int fd = harness_connect(h);
    struct msg_hello hello = {.version = 1, .client = "test"};
    if (harness_call(fd, "hello", MESSAGE(hello, &hello), &in, &packet, &err) < 0)
        fail_msg("hello: %s", err.message);
    return fd;
}

int harness_open(int fd, const char *model, const char *scheme, struct msg_opened *ret, struct packet *packet,
                 struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_open m = {.model = model, .scheme = scheme};
    int r = harness_call(fd, "open", MESSAGE(open, &m), &in, packet, err);
    if (r == 0)
        r = incoming_decode(&in, INTO(opened, ret), err);
    ret->key = ret->why = NULL; /* borrowed */
    return r;
}

static bool model_is(int fd, const char *name, const char *state)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet packet = {0};
    struct qd_error err;
    struct msg_model_list list;
    assert_int_equal(harness_call(fd, "models", MESSAGE(page, &(struct msg_page){0}), &in, &packet, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(model_list, &list), &err), 0);
    for (size_t i = 0; i < list.models_n; i++)
        if (strcmp(list.models[i].name, name) == 0)
            return strcmp(list.models[i].state, state) == 0;
    return false;
}

void harness_wait_model(const struct harness *h, const char *name, const char *state)
{
    CLEANUP(fd_close) int fd = harness_hello(h);
    for (int i = 0; i < HARNESS_WAIT_MS / 20; i++) {
        if (model_is(fd, name, state))
            return;
        pause_ms(20);
    }
    show_log(h);
    fail_msg("model '%s' never was %s", name, state);
}
