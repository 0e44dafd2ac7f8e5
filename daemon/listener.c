#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/rights.h"
#include "kernels/core/cleanup.h"

enum { REAP_MAX = 512 /* connections looked at when a user's quota is full */ };

struct listener {
    struct daemon *daemon;
    int fd; /* owned */
    uv_poll_t poll;
    uv_timer_t pause, nudge;
    int spare[SPARE_FDS]; /* owned */
    struct peer *peers;
    struct user *users; /* owned */
    unsigned n_peers;
    struct packet packet; /* owned */
    bool stopped, said_full;
    unsigned n_handles; /* not yet closed */
    bool freeing;
};

static void on_readable(uv_poll_t *poll, int status, int ready);

/* ---- users --------------------------------------------------------------------------------------- */

static struct user *find_user(struct listener *l, uid_t uid)
{
    for (struct user *u = l->users; u; u = u->next)
        if (u->uid == uid)
            return u;
    struct user *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    *u = (struct user){.next = l->users, .uid = uid};
    l->users = u;
    return u;
}

static void forget_idle_user(struct listener *l, struct user *u)
{
    for (struct user **at = &l->users; *at; at = &(*at)->next) {
        if (*at != u || u->n_connections > 0)
            continue;
        *at = u->next;
        free(u);
        return;
    }
}

void listener_note_read(struct listener *l, struct user *u)
{
    for (struct peer *p = l->peers; p; p = p->next)
        if (p->user == u)
            peer_note_read(p);
}

/* ---- accepting -------------------------------------------------------------------------------------- */

static void fill_spares(struct listener *l)
{
    for (size_t i = 0; i < SPARE_FDS; i++)
        if (l->spare[i] < 0)
            l->spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_on(struct listener *l, bool on)
{
    if (on && !l->stopped)
        (void)uv_poll_start(&l->poll, UV_READABLE, on_readable); /* fails on a closing handle only */
    else
        (void)uv_poll_stop(&l->poll);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct listener *l = timer->data;
    fill_spares(l);
    accept_on(l, true);
}

/* Out of descriptors: with a spare one the connection is taken and closed, so that it learns of it; then a pause. */
static void shed(struct listener *l)
{
    struct qd_error err;
    int fd = -1;
    if (!l->said_full)
        log_line(LOG_AT_WARNING, "listener", "out of descriptors: connections are turned away");
    l->said_full = true;
    for (size_t i = 0; i < SPARE_FDS; i++) {
        l->spare[i] = fd_close(l->spare[i]);
        if (conn_accept(l->fd, &fd, &err) < 0)
            break;
        (void)fd_close(fd);
    }
    fill_spares(l);
    accept_on(l, false);
    (void)uv_timer_start(&l->pause, on_pause_over, ACCEPT_PAUSE_MS, 0); /* fails on a closing handle only */
}

/* Closes connections of @u whose other end is gone already but whose turn has not come. Returns how many. */
static unsigned reap_gone(struct listener *l, const struct user *u)
{
    struct pollfd fds[REAP_MAX];
    struct peer *peers[REAP_MAX];
    unsigned n = 0, n_gone = 0;
    for (struct peer *p = l->peers; p && n < REAP_MAX; p = p->next) {
        if (p->user != u)
            continue;
        peers[n] = p;
        fds[n++] = (struct pollfd){.fd = p->fd};
    }
    if (poll(fds, n, 0) <= 0)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        if (!(fds[i].revents & (POLLHUP | POLLERR)))
            continue;
        peer_close(peers[i]);
        n_gone++;
    }
    return n_gone;
}

static void turn_away(int fd, struct user *u, uint32_t quota)
{
    struct qd_error err;
    CLEANUP(buffer_clear) struct buffer b = {0};
    if (!u->said)
        log_line(LOG_AT_NOTICE, "listener", "connections turned away: quota=%u uid=%u", quota, (unsigned)u->uid);
    u->said = true;
    (void)err_new(&err, QD_E_BUSY, "user %u has %u connections already", (unsigned)u->uid, quota);
    (void)err_hint(&err, QD_E_BUSY, "close some, or raise `connections` of [limits] in quantd.conf");
    if (error_encode(&b, 0, &err, NULL) == 0)
        (void)conn_send(fd, buffer_span(&b), NULL, 0, NULL); /* it may be gone already */
    (void)fd_close(fd);
}

static void take(struct listener *l, int fd)
{
    struct qd_error err;
    struct credentials who = {0};
    struct peer *p = NULL;
    if (conn_credentials(fd, &who, &err) < 0) {
        (void)fd_close(fd);
        return;
    }
    struct user *u = find_user(l, who.uid);
    uint32_t quota = l->daemon->config->connections_per_uid;
    if (u && u->n_connections >= quota && reap_gone(l, u) > 0)
        u = find_user(l, who.uid); /* its last connection may have taken the user along */
    if (!u || u->n_connections >= quota) {
        credentials_clear(&who);
        if (u)
            turn_away(fd, u, quota);
        else
            (void)fd_close(fd);
        return;
    }
    if (peer_new(l->daemon, fd, &who, u, &p, &err) < 0) {
        log_error("listener", &err);
        credentials_clear(&who);
        forget_idle_user(l, u);
        return;
    }
    u->n_connections++;
    l->n_peers++;
    p->next = l->peers;
    if (l->peers)
        l->peers->prev = p;
    l->peers = p;
}

static void on_readable(uv_poll_t *poll, int status, int ready)
{
    struct listener *l = poll->data;
    struct qd_error err;
    (void)status; /* an error shows in accept */
    (void)ready;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = -1, r = conn_accept(l->fd, &fd, &err);
        if (r == QD_E_LIMIT) {
            shed(l);
            return;
        }
        if (r < 0)
            return;
        l->said_full = false;
        take(l, fd);
    }
}

/* ---- stuck peers ---------------------------------------------------------------------------------------- */

static void on_nudge(uv_timer_t *timer)
{
    struct listener *l = timer->data;
    bool stuck = false;
    for (struct peer *p = l->peers, *next; p; p = next) {
        next = p->next;
        stuck |= p->first && peer_nudge(p);
    }
    if (!stuck)
        (void)uv_timer_stop(&l->nudge);
}

void listener_watch_stuck(struct listener *l)
{
    if (!uv_is_active((uv_handle_t *)&l->nudge))
        (void)uv_timer_start(&l->nudge, on_nudge, NUDGE_MS, NUDGE_MS); /* fails on a closing handle only */
}

/* ---- the rest ----------------------------------------------------------------------------------------------- */

static void free_if_closed(struct listener *l)
{
    if (!l->freeing || l->n_handles > 0)
        return;
    for (size_t i = 0; i < SPARE_FDS; i++)
        (void)fd_close(l->spare[i]);
    (void)fd_close(l->fd);
    for (struct user *u = l->users, *next; u; u = next) {
        next = u->next;
        free(u);
    }
    packet_clear(&l->packet);
    free(l);
}

static void on_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    l->n_handles--;
    free_if_closed(l);
}

void listener_forget(struct listener *l, struct peer *p)
{
    if (p->prev)
        p->prev->next = p->next;
    else
        l->peers = p->next;
    if (p->next)
        p->next->prev = p->prev;
    l->n_peers--;
    p->user->n_connections--;
    p->user->said = false;
    if (p->user->n_connections == 0)
        forget_idle_user(l, p->user);
    p->user = NULL;
}

struct packet *listener_packet(struct listener *l)
{
    return &l->packet;
}

void listener_look_at_rights(struct listener *l)
{
    for (struct peer *p = l->peers; p; p = p->next)
        p->admin = rights_is_admin(l->daemon->config, &p->who);
}

unsigned listener_n_peers(const struct listener *l)
{
    return l->n_peers;
}

void listener_tell(struct listener *l, const char *event, enum message type, const void *params, bool jobs,
                   bool (*may)(const struct peer *p, const void *data), const void *data)
{
    if (!l || l->freeing)
        return;
    for (struct peer *p = l->peers, *next; p; p = next) {
        next = p->next;
        if (p->wants_events && (!jobs || p->wants_jobs) && (!may || may(p, data)))
            peer_event(p, event, type, params);
    }
}

int listener_new(struct daemon *d, int fd, struct qd_error *err)
{
    CLEANUP(fd_close) int owned = fd;
    CLEANUP(free) struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return err_new(err, QD_E_NO_MEMORY, "listener");
    *l = (struct listener){.daemon = d, .fd = fd, .n_handles = 3};
    for (size_t i = 0; i < SPARE_FDS; i++)
        l->spare[i] = -1;
    fill_spares(l);
    int r = uv_poll_init(d->loop, &l->poll, fd);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "listener: %s", uv_strerror(r));
    (void)uv_timer_init(d->loop, &l->pause); /* never fails */
    (void)uv_timer_init(d->loop, &l->nudge);
    l->poll.data = l->pause.data = l->nudge.data = l;
    (void)steal_fd(&owned);
    d->listener = steal(&l);
    accept_on(d->listener, true);
    return 0;
}

void listener_stop(struct listener *l)
{
    l->stopped = true;
    accept_on(l, false);
    (void)uv_timer_stop(&l->pause);
}

struct listener *listener_free(struct listener *l)
{
    if (!l)
        return NULL;
    listener_stop(l);
    while (l->peers) {
        struct peer *p = l->peers;
        peer_close(p);
        peer_abandon(p); /* the catalog and the jobs go with us: what the pool still answers must not ask them */
    }
    l->freeing = true;
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->pause, on_closed);
    uv_close((uv_handle_t *)&l->nudge, on_closed);
    return NULL;
}
