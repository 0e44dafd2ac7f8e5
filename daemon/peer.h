/*
 * Peer: one connection. Reads packets, has them served (handlers.c), sends replies and events.
 *
 * A peer is hostile until shown otherwise: at most one descriptor a request; while replies wait to
 * be sent it is not read from; one reply with descriptors is in flight at a time (descriptors in a
 * socket that is never read count against this process); one that leaves its replies unread for
 * PEER_STUCK_MS, or makes its user's queue pass the quota, is dropped. What a request started
 * and has not answered hangs in @pending and is abandoned when the connection ends.
 * An idle peer costs no timer. Loop thread only.
 */
#ifndef QUANTD_DAEMON_PEER_H
#define QUANTD_DAEMON_PEER_H

#include <uv.h>

#include "daemon/daemon.h"
#include "ipc/codec.h"
#include "ipc/conn.h"
#include "ipc/messages.h"
#include "kernels/core/error.h"

enum {
    REQUEST_FDS_MAX = 2,    /* a source and an importance matrix */
    PEER_PENDING_MAX = 64,  /* unanswered requests of one connection */
    PEER_STUCK_MS = 30000,  /* replies left unread so long: dropped */
    PEER_EVENT_ROOM = 16384 /* events are left out while more than this waits to be sent */
};

struct lease;

/* What one user of the machine has of ours; owned by the listener. */
struct user {
    struct user *next;
    uid_t uid;
    uint32_t n_connections;
    uint64_t queued_bytes; /* of replies not yet sent */
    uint32_t n_fds;        /* descriptors sent and, as far as we know, not yet received */
    bool said;             /* its quota was logged */
};

/* Something that will answer later: embedded in whatever waits. */
struct pending {
    struct peer *peer; /* NULL once abandoned */
    struct pending *prev, *next;
    uint32_t id;                        /* of the request */
    void (*abandon)(struct pending *p); /* the peer went; @peer is NULL already. May be NULL */
};

struct outgoing;

struct peer {
    struct daemon *daemon;
    struct user *user;
    struct peer *prev, *next; /* of the listener */
    uv_poll_t poll;
    int fd; /* owned */
    struct credentials who;
    bool admin;
    uint32_t version; /* agreed by hello; 0: not yet */
    bool wants_events, wants_jobs;
    struct pending *pending;
    uint32_t n_pending;
    struct outgoing *first, *last;
    uint64_t queued_bytes;
    uint32_t n_fds_unread;   /* of the last reply with descriptors */
    uint64_t stuck_since_ms; /* 0: not stuck */
    bool closing;
};

/* Takes @fd. */
int peer_new(struct daemon *d, int fd, struct credentials *who, struct user *user, struct peer **ret,
             struct qd_error *err);

/*
 * Ends the connection: nothing is sent or read any more. What is pending is abandoned and the peer freed when the loop
 * has let go, never from inside a call: sending to a peer that is gone closes it, and whoever answers many requests
 * goes on with the next.
 */
void peer_close(struct peer *p);

/* Abandons what is pending now: for the end of the daemon, where nobody is answering. */
void peer_abandon(struct peer *p);

/* Answers. A peer that is gone hears nothing; a reply that does not fit is sent as an error. */
void peer_reply(struct peer *p, uint32_t id, enum message type, const void *result);
void peer_fail(struct peer *p, uint32_t id, const struct qd_error *why);

/*
 * A reply with the envelope's descriptor (borrowed; -1: without it) and the first @n_files of the lease.
 * Takes @lease and releases it when the packet has left.
 */
void peer_reply_lease(struct peer *p, uint32_t id, enum message type, const void *result, int envelope_fd,
                      struct lease *lease, size_t n_files);

/* An event; left out when the peer reads too slowly. */
void peer_event(struct peer *p, const char *event, enum message type, const void *params);

/* Hangs @pending into @p for request @id. QD_E_BUSY when too many are there. */
int peer_pend(struct peer *p, struct pending *pending, uint32_t id, struct qd_error *err);
void pending_done(struct pending *pending); /* takes it out; fine when abandoned */

/*
 * Checks whether descriptors were read and sends what could not be sent before; true while still stuck. Drops it after
 * PEER_STUCK_MS.
 */
bool peer_nudge(struct peer *p);

#endif
