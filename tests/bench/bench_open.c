/*
 * How fast is a warm open? Through libquantd, beside a bare epoll echo that passes one descriptor a
 * reply: the floor of any daemon that hands out files over a socket. One run, one machine, closed loop.
 *
 *     bench_open SOCKET MODEL SCHEME [SECONDS [MODEL ...]]
 *
 * first: an artifact that the process has not opened before (one of MODEL ...); signature, tables and
 * mapping are all to do. first of process: the same as a fresh process's first act, its page faults
 * included. repeated: the process knows the artifact, and either holds a handle (kept) or has freed the last
 * one (freed).
 */
#include <quantd/quantd.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/conn.h"

enum { CLIENTS_MAX = 256, FIRST_SAMPLES = 200, FIRST_ROUNDS = 20, SAMPLES_MAX = 1 << 20, ECHO_BYTES = 64, FAILED = 1 };

static const char *socket_path, *model, *scheme;
static double seconds = 2;
static uint32_t samples[SAMPLES_MAX]; /* nanoseconds */
static size_t n_samples;

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const char *what, const struct qd_error *err)
{
    fprintf(stderr, "bench_open: %s: %s\n", what, err ? err->message : strerror(errno));
    exit(FAILED);
}

static void note(uint64_t since)
{
    if (n_samples < SAMPLES_MAX)
        samples[n_samples++] = (uint32_t)(now_ns() - since);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double quantile_us(double q)
{
    return n_samples ? samples[(size_t)(q * (double)(n_samples - 1))] / 1e3 : 0;
}

/* Prints a row; returns the rate. */
static double report(const char *what, unsigned n_clients, double took_s)
{
    double rate = (double)n_samples / took_s;
    qsort(samples, n_samples, sizeof samples[0], by_size);
    printf("%-16s %4u clients  p50 %8.1f us  p99 %8.1f us  %9.0f /s\n", what, n_clients, quantile_us(0.5),
           quantile_us(0.99), rate);
    (void)fflush(stdout);
    n_samples = 0;
    return rate;
}

/* ---- the echo ------------------------------------------------------------------------------------------- */

static void echo_serve(int listen_fd)
{
    static struct packet packet;
    int file = memfd_create("echo", MFD_CLOEXEC);
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ready[64], on = {.events = EPOLLIN, .data.fd = listen_fd};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (file < 0 || loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, listen_fd, &on) < 0)
        _exit(FAILED);
    for (;;) {
        int n = epoll_wait(loop, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd, accepted;
            if (fd == listen_fd) {
                if (conn_accept(listen_fd, &accepted, NULL) < 0)
                    continue;
                on.data.fd = accepted;
                (void)epoll_ctl(loop, EPOLL_CTL_ADD, accepted, &on);
            } else if (conn_recv(fd, 1, &packet, NULL) == 1) {
                (void)conn_send(fd, packet_span(&packet), &file, 1, NULL);
            } else {
                (void)close(fd);
            }
        }
    }
}

struct echo_client {
    int fd;
    uint64_t started;
};

static void echo_start(struct echo_client *c)
{
    static const uint8_t message[ECHO_BYTES];
    c->started = now_ns();
    if (conn_send(c->fd, (struct bytes){message, sizeof message}, NULL, 0, NULL) < 0)
        die("echo", NULL);
}

static double echo_run(const char *path, unsigned n_clients)
{
    static struct echo_client clients[CLIENTS_MAX];
    static struct packet packet;
    struct epoll_event ready[64];
    struct qd_error err;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < n_clients; i++) {
        struct epoll_event on = {.events = EPOLLIN, .data.u32 = i};
        if (conn_connect(path, &clients[i].fd, &err) < 0)
            die("echo", &err);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, clients[i].fd, &on) < 0)
            die("epoll", NULL);
        echo_start(&clients[i]);
    }
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) {
        int n = epoll_wait(loop, ready, 64, 1000);
        for (int i = 0; i < n; i++) {
            struct echo_client *c = &clients[ready[i].data.u32];
            if (conn_recv(c->fd, 1, &packet, NULL) != 1 || packet.n_fds != 1)
                continue;
            packet_reset(&packet);
            note(c->started);
            echo_start(c);
        }
    }
    double rate = report("echo", n_clients, (double)(now_ns() - begin) / 1e9);
    for (unsigned i = 0; i < n_clients; i++)
        (void)close(clients[i].fd);
    (void)close(loop);
    return rate;
}

/* ---- opens -------------------------------------------------------------------------------------------------- */

struct open_client {
    struct qd_client *client;
    struct qd_open_request *request;
    uint64_t started;
};

static void open_start(struct open_client *c)
{
    struct qd_open_options o = {.model = model, .scheme = scheme, .no_build = true};
    struct qd_error err;
    c->started = now_ns();
    if (qd_open_start(c->client, &o, &c->request, &err) < 0)
        die("open", &err);
}

static void open_finish(struct open_client *c)
{
    struct qd_artifact *a;
    struct qd_error err;
    int r = qd_open_step(c->request, &a, &err);
    if (r < 0)
        die("open", &err);
    if (r == 0)
        return;
    note(c->started);
    qd_artifact_free(a);
    qd_open_cancel(c->request);
    open_start(c);
}

static double open_run(unsigned n_clients, bool kept)
{
    static struct open_client clients[CLIENTS_MAX];
    struct epoll_event ready[64];
    struct qd_error err;
    struct qd_artifact *held = NULL;
    struct qd_open_options o = {.model = model, .scheme = scheme, .no_build = true};
    int loop = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < n_clients; i++) {
        struct epoll_event on = {.events = EPOLLIN, .data.u32 = i};
        if (qd_connect(socket_path, &clients[i].client, &err) < 0)
            die("connect", &err);
        if (kept && !held && qd_open(clients[i].client, &o, &held, &err) < 0)
            die("open", &err);
        if (epoll_ctl(loop, EPOLL_CTL_ADD, qd_client_fd(clients[i].client), &on) < 0)
            die("epoll", NULL);
    }
    for (unsigned i = 0; i < n_clients; i++)
        open_start(&clients[i]);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) {
        int n = epoll_wait(loop, ready, 64, 1000);
        for (int i = 0; i < n; i++)
            open_finish(&clients[ready[i].data.u32]);
    }
    double rate = report(kept ? "repeated, kept" : "repeated, freed", n_clients, (double)(now_ns() - begin) / 1e9);
    for (unsigned i = 0; i < n_clients; i++) {
        qd_open_cancel(clients[i].request);
        qd_client_free(clients[i].client);
    }
    qd_artifact_free(held);
    (void)close(loop);
    return rate;
}

/*
 * Nanoseconds of an open of @name, which this process has not opened before. The handle is kept: nothing is torn down
 * meanwhile.
 */
static uint32_t first_open(struct qd_client *c, const char *name)
{
    struct qd_open_options o = {.model = name, .scheme = scheme, .no_build = true};
    struct qd_artifact *a;
    struct qd_error err;
    uint64_t begin = now_ns();
    if (qd_open(c, &o, &a, &err) < 0)
        die("open", &err);
    uint32_t took = (uint32_t)(now_ns() - begin);
    if (qd_artifact_n_tensors(a) == 0)
        die("an artifact without tensors", NULL);
    return took;
}

/* A process of its own: connects, opens @names once each, and sends what each took. */
static void open_each(int out, char *const *names, size_t n)
{
    struct qd_client *c;
    struct qd_error err;
    if (qd_connect(socket_path, &c, &err) < 0)
        die("connect", &err);
    for (size_t i = 0; i < n; i++) {
        uint32_t took = first_open(c, names[i]);
        if (write(out, &took, sizeof took) != sizeof took)
            _exit(FAILED);
    }
    _exit(0);
}

/* @rounds processes open @names once each; the first @n_cold opens of a process are not counted. */
static void first_run(const char *what, unsigned rounds, char *const *names, size_t n, size_t n_cold)
{
    uint64_t begin = now_ns();
    uint32_t took;
    for (unsigned round = 0; round < rounds; round++) {
        int ends[2], status;
        if (pipe(ends) < 0)
            die("pipe", NULL);
        pid_t child = fork();
        if (child == 0)
            open_each(ends[1], names, n);
        (void)close(ends[1]);
        for (size_t i = 0; i < n; i++) {
            if (child < 0 || read(ends[0], &took, sizeof took) != sizeof took)
                die("a first open", NULL);
            if (i >= n_cold)
                samples[n_samples++] = took;
        }
        (void)close(ends[0]);
        (void)waitpid(child, &status, 0);
    }
    (void)report(what, 1, (double)(now_ns() - begin) / 1e9);
}

int main(int argc, char **argv)
{
    static const unsigned n_clients[] = {1, 16, CLIENTS_MAX};
    char folder[] = "/tmp/bench-open.XXXXXX", path[sizeof folder + 8];
    struct qd_error err;
    int listen_fd;
    if (argc < 4) {
        fprintf(stderr, "usage: %s SOCKET MODEL SCHEME [SECONDS [MODEL ...]]\n", argv[0]);
        return 64;
    }
    socket_path = argv[1];
    model = argv[2];
    scheme = argv[3];
    seconds = argc > 4 ? atof(argv[4]) : seconds;
    first_run("first of process", FIRST_SAMPLES, argv + 2, 1, 0);
    if (argc > 6)
        first_run("first", FIRST_ROUNDS, argv + 5, (size_t)argc - 5, 1);
    if (!mkdtemp(folder))
        die("mkdtemp", NULL);
    (void)snprintf(path, sizeof path, "%s/echo", folder);
    if (conn_listen(path, 0600, &listen_fd, &err) < 0)
        die("echo", &err);
    pid_t server = fork();
    if (server == 0)
        echo_serve(listen_fd);
    (void)close(listen_fd);
    for (size_t i = 0; i < sizeof n_clients / sizeof n_clients[0]; i++) {
        double echo = echo_run(path, n_clients[i]);
        double kept = open_run(n_clients[i], true);
        double freed = open_run(n_clients[i], false);
        printf("%-16s %4u clients  kept %.2f  freed %.2f of the echo's rate\n", "ratio", n_clients[i], kept / echo,
               freed / echo);
    }
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    (void)unlink(path);
    return rmdir(folder) < 0;
}
