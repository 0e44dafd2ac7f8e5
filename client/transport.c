#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/client.h"

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1: ready; 0: not within @wait_ms. */
static int wait_for(int fd, short what, int wait_ms, struct qd_error *err)
{
    int64_t until = now_ms() + wait_ms;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = what};
        int64_t left = until - now_ms();
        int r = poll(&p, 1, wait_ms < 0 ? -1 : left > 0 ? (int)left : 0);
        if (r >= 0)
            return r;
        if (errno != EINTR)
            return err_sys(err, errno, "wait for quantd");
    }
}

void client_disconnect(struct qd_client *c)
{
    c->fd = fd_close(c->fd);
    packet_reset(&c->packet);
}

static int lost(struct qd_client *c, int r, struct qd_error *err)
{
    if (r != QD_E_UNAVAILABLE && r != QD_E_PROTOCOL)
        return r;
    client_disconnect(c);
    r = err_in(err, r, "quantd at '%s'", c->path);
    return r == QD_E_UNAVAILABLE ? err_hint(err, r, "see why it stopped: journalctl -u quantd, or start it again") : r;
}

int client_send(struct qd_client *c, const int *fds, size_t n_fds, struct qd_error *err)
{
    if (c->fd < 0)
        return err_new(err, QD_E_UNAVAILABLE, "not connected to '%s'", c->path);
    int r;
    while ((r = conn_send(c->fd, buffer_span(&c->out), fds, n_fds, err)) == QD_E_WOULD_BLOCK) {
        r = wait_for(c->fd, POLLOUT, -1, err);
        if (r < 0)
            return r;
    }
    return r < 0 ? lost(c, r, err) : 0;
}

int client_receive(struct qd_client *c, int wait_ms, struct incoming *ret, struct qd_error *err)
{
    if (c->fd < 0)
        return err_new(err, QD_E_UNAVAILABLE, "not connected to '%s'", c->path);
    int r;
    while ((r = conn_recv(c->fd, PACKET_FDS_MAX, &c->packet, err)) == QD_E_WOULD_BLOCK) {
        r = wait_ms ? wait_for(c->fd, POLLIN, wait_ms, err) : 0;
        if (r <= 0)
            return r;
    }
    if (r == 0)
        r = err_new(err, QD_E_UNAVAILABLE, "the daemon closed the connection");
    if (r > 0)
        r = incoming_parse(packet_span(&c->packet), ret, err);
    return r < 0 ? lost(c, r, err) : 1;
}

/* ---- connecting -------------------------------------------------------------------------------- */

static int hello(struct qd_client *c, struct qd_error *err)
{
    struct msg_hello params = {.version = PROTOCOL_VERSION, .client = program_invocation_short_name};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_welcome welcome;
    c->out.n = 0;
    uint32_t id = ++c->last_id;
    int r = request_encode(&c->out, id, "hello", MESSAGE(hello, &params), err);
    if (r == 0)
        r = client_send(c, NULL, 0, err);
    if (r == 0)
        r = client_receive(c, HELLO_WAIT_MS, &in, err);
    if (r == 0)
        return err_new(err, QD_E_TIMEOUT, "quantd at '%s' does not answer", c->path);
    if (r < 0)
        return r;
    if (in.kind != INCOMING_REPLY || in.id != id)
        return err_new(err, QD_E_PROTOCOL, "what listens at '%s' is no quantd", c->path);
    if (in.failed)
        return incoming_error(&in, err);
    r = incoming_decode(&in, INTO(welcome, &welcome), err);
    if (r == 0 && welcome.version != PROTOCOL_VERSION)
        r = err_hint(err,
                     err_new(err, QD_E_UNSUPPORTED, "%s at '%s' speaks protocol %u, this program %d", welcome.daemon,
                             c->path, welcome.version, PROTOCOL_VERSION),
                     "use libquantd and quantd of the same release");
    return r;
}

int client_connect(struct qd_client *c, struct qd_error *err)
{
    client_disconnect(c);
    int r = conn_connect(c->path, &c->fd, err);
    if (r == QD_E_UNAVAILABLE)
        return err_hint(err, r, "is quantd running? systemctl start quantd, or for yourself: quantd --user");
    if (r == QD_E_DENIED)
        return err_hint(err, r, "the socket's permissions keep this user out");
    if (r == 0)
        r = hello(c, err);
    if (r < 0)
        client_disconnect(c);
    return r;
}

int client_reconnect(struct qd_client *c, struct qd_error *err)
{
    int64_t until = now_ms() + RECONNECT_MS;
    int r;
    while ((r = client_connect(c, err)) == QD_E_UNAVAILABLE && now_ms() < until) {
        struct timespec step = {.tv_nsec = RECONNECT_STEP_MS * 1000000L};
        (void)nanosleep(&step, NULL); /* a signal only makes the next try earlier */
    }
    return r;
}

/* ---- the public part ------------------------------------------------------------------------------ */

static char *default_path(void)
{
    static const char system_path[] = "/run/quantd/quantd.sock";
    const char *named = secure_getenv("QUANTD_SOCKET");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    char *path = NULL;
    if (named && *named)
        return strdup(named);
    if (runtime && *runtime == '/' && asprintf(&path, "%s/quantd/quantd.sock", runtime) >= 0) {
        if (access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return strdup(system_path);
}

void qd_client_free(struct qd_client *c)
{
    if (!c)
        return;
    client_disconnect(c);
    packet_clear(&c->packet);
    buffer_clear(&c->out);
    (void)trust_put(c->trust);
    free(c->path);
    free(c);
}

static inline void qd_client_free_cleanup(struct qd_client **c)
{
    qd_client_free(*c);
}

int qd_connect(const char *path, struct qd_client **ret, struct qd_error *err)
{
    CLEANUP(qd_client_free) struct qd_client *c = calloc(1, sizeof *c);
    if (!c)
        return err_new(err, QD_E_NO_MEMORY, "client");
    c->fd = -1;
    c->path = path ? strdup(path) : default_path();
    if (!c->path)
        return err_new(err, QD_E_NO_MEMORY, "client");
    int r = client_connect(c, err);
    if (r == 0)
        r = trust_get(c->path, &c->trust, err);
    if (r < 0)
        return r;
    *ret = steal(&c);
    return 0;
}

int qd_reconnect(struct qd_client *c, struct qd_error *err)
{
    return client_connect(c, err);
}

int qd_client_fd(const struct qd_client *c)
{
    return c->fd;
}
