#include "daemon/peer.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cache/store.h"
#include "daemon/config.h"
#include "daemon/handlers.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/rights.h"
#include "kernels/core/cleanup.h"

struct outgoing {
    struct outgoing *next;
    struct buffer bytes; /* owned */
    int envelope_fd;     /* owned; -1: goes without */
    struct lease *lease; /* owned */
    size_t n_files;      /* of the lease that go with it */
};

static void watch_socket(struct peer *p);

static struct outgoing *outgoing_free(struct outgoing *o)
{
    if (!o)
        return NULL;
    buffer_clear(&o->bytes);
    (void)fd_close(o->envelope_fd);
    (void)lease_release(o->lease);
    free(o);
    return NULL;
}

/* ---- end ------------------------------------------------------------------------------------- */

void peer_abandon(struct peer *p)
{
    while (p->pending) {
        struct pending *gone = p->pending;
        pending_done(gone);
        if (gone->abandon)
            gone->abandon(gone);
    }
}

/* From the loop: nobody who is just answering has a pending of ours in his hands. */
static void on_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    peer_abandon(p);
    (void)fd_close(p->fd);
    credentials_clear(&p->who);
    free(p);
}

void peer_close(struct peer *p)
{
    if (p->closing)
        return;
    p->closing = true;
    for (struct outgoing *o = p->first, *next; o; o = next) {
        next = o->next;
        p->user->queued_bytes -= o->bytes.n;
        (void)outgoing_free(o);
    }
    p->first = p->last = NULL;
    p->user->n_fds -= p->n_fds_unread;
    p->n_fds_unread = 0;
    listener_forget(p->daemon->listener, p);
    uv_close((uv_handle_t *)&p->poll, on_closed);
}

static void drop(struct peer *p, const char *why)
{
    log_line(LOG_AT_NOTICE, "peer", "dropped: %s uid=%u pid=%d", why, (unsigned)p->who.uid, (int)p->who.pid);
    peer_close(p);
}

/* ---- out -------------------------------------------------------------------------------------- */

/* Bytes that the peer has not read yet: 0 says that it has every descriptor we sent. */
static bool has_read_all(const struct peer *p)
{
    int n = 0;
    return ioctl(p->fd, SIOCOUTQ, &n) == 0 && n == 0;
}

static void note_read(struct peer *p)
{
    if (p->n_fds_unread > 0 && has_read_all(p)) {
        p->user->n_fds -= p->n_fds_unread;
        p->n_fds_unread = 0;
    }
}

static bool may_send_fds(struct peer *p, size_t n)
{
    uint32_t quota = p->daemon->config->fds_per_uid;
    note_read(p);
    if (p->user->n_fds + n > quota)
        listener_note_read(p->daemon->listener, p->user);
    return p->n_fds_unread == 0 && (p->user->n_fds + n <= quota || p->user->n_fds == 0);
}

void peer_note_read(struct peer *p)
{
    note_read(p);
}

/* 0: sent; QD_E_WOULD_BLOCK: not now; anything else: the peer is gone. */
static int send_now(struct peer *p, const struct outgoing *o)
{
    struct qd_error err;
    int fds[PACKET_FDS_MAX];
    size_t n = 0;
    if (o->envelope_fd >= 0)
        fds[n++] = o->envelope_fd;
    for (size_t i = 0; o->lease && i < o->n_files && n < PACKET_FDS_MAX; i++)
        fds[n++] = o->lease->fds[i];
    if (n > 0 && !may_send_fds(p, n))
        return QD_E_WOULD_BLOCK;
    int r = conn_send(p->fd, buffer_span(&o->bytes), fds, n, &err);
    if (r == 0) {
        p->n_fds_unread += (uint32_t)n;
        p->user->n_fds += (uint32_t)n;
    }
    return r;
}

static void enqueue(struct peer *p, struct outgoing *o)
{
    uint64_t quota = p->daemon->config->bytes_per_uid;
    if (p->last)
        p->last->next = o;
    else
        p->first = o;
    p->last = o;
    p->queued_bytes += o->bytes.n;
    p->user->queued_bytes += o->bytes.n;
    if (p->user->queued_bytes > quota) {
        drop(p, "its user leaves too much unread");
        return;
    }
    if (p->stuck_since_ms == 0) {
        p->stuck_since_ms = uv_now(p->daemon->loop);
        listener_watch_stuck(p->daemon->listener);
    }
    watch_socket(p);
}

/* Takes @o's content. */
static void send_or_queue(struct peer *p, struct outgoing *from)
{
    int r = p->first ? QD_E_WOULD_BLOCK : send_now(p, from);
    if (r == 0)
        return;
    if (r != QD_E_WOULD_BLOCK) {
        peer_close(p);
        return;
    }
    struct outgoing *o = calloc(1, sizeof *o);
    if (!o) {
        drop(p, "out of memory");
        return;
    }
    *o = *from;
    if (from->envelope_fd >= 0)
        o->envelope_fd = dup(from->envelope_fd);
    from->bytes = (struct buffer){0};
    from->lease = NULL;
    if (from->envelope_fd >= 0 && o->envelope_fd < 0) {
        (void)outgoing_free(o);
        drop(p, "no descriptor is left for its reply");
        return;
    }
    enqueue(p, o);
}

static void send_queue(struct peer *p)
{
    while (p->first && !p->closing) {
        struct outgoing *o = p->first;
        int r = send_now(p, o);
        if (r == QD_E_WOULD_BLOCK)
            return;
        if (r < 0) {
            peer_close(p);
            return;
        }
        p->first = o->next;
        p->last = o->next ? p->last : NULL;
        p->queued_bytes -= o->bytes.n;
        p->user->queued_bytes -= o->bytes.n;
        p->stuck_since_ms = p->first ? uv_now(p->daemon->loop) : 0;
        (void)outgoing_free(o);
    }
}

bool peer_nudge(struct peer *p)
{
    note_read(p);
    send_queue(p);
    if (p->closing || !p->first)
        return p->closing ? false : (watch_socket(p), false);
    if (uv_now(p->daemon->loop) - p->stuck_since_ms < PEER_STUCK_MS)
        return true;
    drop(p, "it leaves its replies unread");
    return false;
}

void peer_reply_lease(struct peer *p, uint32_t id, enum message type, const void *result, int envelope_fd,
                      struct lease *lease, size_t n_files)
{
    struct qd_error err;
    struct outgoing o = {.envelope_fd = envelope_fd, .lease = lease, .n_files = n_files};
    if (!p->closing) {
        if (reply_encode(&o.bytes, id, type, result, &err) < 0) {
            o.lease = lease_release(o.lease);
            o.envelope_fd = -1;
            (void)error_encode(&o.bytes, id, &err, NULL); /* always fits */
        }
        send_or_queue(p, &o);
    }
    buffer_clear(&o.bytes);
    (void)lease_release(o.lease);
}

void peer_reply(struct peer *p, uint32_t id, enum message type, const void *result)
{
    peer_reply_lease(p, id, type, result, -1, NULL, 0);
}

static void send_buffer(struct peer *p, struct buffer *bytes)
{
    struct outgoing o = {.envelope_fd = -1, .bytes = *bytes};
    *bytes = (struct buffer){0};
    if (!p->closing && o.bytes.n > 0)
        send_or_queue(p, &o);
    buffer_clear(&o.bytes);
}

void peer_fail(struct peer *p, uint32_t id, const struct qd_error *why)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    (void)error_encode(&b, id, why, NULL); /* always fits */
    send_buffer(p, &b);
}

void peer_event(struct peer *p, const char *event, enum message type, const void *params)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    if (p->closing || p->queued_bytes > PEER_EVENT_ROOM || event_encode(&b, event, type, params, NULL) < 0)
        return;
    send_buffer(p, &b);
}

/* ---- pending ------------------------------------------------------------------------------------ */

int peer_pend(struct peer *p, struct pending *pending, uint32_t id, struct qd_error *err)
{
    if (p->n_pending >= PEER_PENDING_MAX) {
        (void)err_new(err, QD_E_BUSY, "%d requests of this connection wait for their answers", PEER_PENDING_MAX);
        return err_hint(err, QD_E_BUSY, "wait for one of them, or open another connection");
    }
    pending->peer = p;
    pending->id = id;
    pending->prev = NULL;
    pending->next = p->pending;
    if (p->pending)
        p->pending->prev = pending;
    p->pending = pending;
    p->n_pending++;
    return 0;
}

void pending_done(struct pending *pending)
{
    struct peer *p = pending->peer;
    if (!p)
        return;
    if (pending->prev)
        pending->prev->next = pending->next;
    else
        p->pending = pending->next;
    if (pending->next)
        pending->next->prev = pending->prev;
    p->n_pending--;
    pending->peer = NULL;
}

/* ---- in ------------------------------------------------------------------------------------------- */

static void serve(struct peer *p, struct packet *packet)
{
    struct qd_error err;
    CLEANUP(buffer_clear) struct buffer reply = {0};
    int r = handlers_serve(p, packet, &reply, &err);
    if (r > 0)
        send_buffer(p, &reply);
    else if (r < 0 && !p->closing)
        drop(p, err.message);
}

/* One packet, then the others' turn: the poll tells again when there is more. */
static void receive(struct peer *p)
{
    struct packet *packet = listener_packet(p->daemon->listener);
    struct qd_error err;
    if (p->first) /* it has not read what we sent */
        return;
    int r = conn_recv(p->fd, REQUEST_FDS_MAX, packet, &err);
    if (r == QD_E_WOULD_BLOCK)
        return;
    if (r > 0) {
        serve(p, packet);
        packet_reset(packet);
    } else if (r == QD_E_PROTOCOL) {
        drop(p, err.message);
    } else {
        peer_close(p);
    }
}

static void on_poll(uv_poll_t *poll, int status, int ready)
{
    struct peer *p = poll->data;
    if (p->closing)
        return;
    if (status < 0) {
        peer_close(p);
        return;
    }
    if (ready & UV_WRITABLE)
        (void)peer_nudge(p);
    if (!p->closing && (ready & UV_READABLE))
        receive(p);
    else if (!p->closing && (ready & UV_DISCONNECT))
        peer_close(p);
}

/*
 * Nothing is read while something waits to be sent; a reply with descriptors waits for the listener's nudge, not for
 * room.
 */
static void watch_socket(struct peer *p)
{
    int wanted = UV_READABLE;
    if (p->first)
        wanted = UV_DISCONNECT | (p->first->lease ? 0 : UV_WRITABLE);
    if (!p->closing)
        (void)uv_poll_start(&p->poll, wanted, on_poll); /* fails on a closing handle only */
}

int peer_new(struct daemon *d, int fd, struct credentials *who, struct user *user, struct peer **ret,
             struct qd_error *err)
{
    CLEANUP(fd_close) int owned = fd;
    CLEANUP(free) struct peer *p = calloc(1, sizeof *p);
    if (!p)
        return err_new(err, QD_E_NO_MEMORY, "connection");
    *p = (struct peer){.daemon = d, .fd = fd, .user = user, .admin = rights_is_admin(d->config, who)};
    int r = uv_poll_init(d->loop, &p->poll, fd);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "connection: %s", uv_strerror(r));
    p->poll.data = p;
    p->who = *who;
    *who = (struct credentials){0};
    (void)steal_fd(&owned);
    watch_socket(p);
    *ret = steal(&p);
    return 0;
}
