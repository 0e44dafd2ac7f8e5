/*
 * Listener: the socket, its connections, and what each user of the machine has of them.
 *
 * A flood of connections never takes the daemon down: connections per uid are bounded; spare
 * descriptors are held back, so that out of descriptors a connection is still taken and closed,
 * and accepting then pauses for a moment. Loop thread only.
 */
#ifndef QUANTD_DAEMON_LISTENER_H
#define QUANTD_DAEMON_LISTENER_H

#include "daemon/catalog.h"
#include "daemon/daemon.h"
#include "daemon/peer.h"

enum {
    ACCEPTS_PER_TURN = 64,
    ACCEPT_PAUSE_MS = 100, /* after running out of descriptors */
    NUDGE_MS = 20,         /* while some peer is stuck, and only then */
    SPARE_FDS = 4
};

struct listener;

/* Takes @fd, a listening SEQPACKET socket; sets d->listener before the first peer. */
int listener_new(struct daemon *d, int fd, struct qd_error *err);

/* No more connections; those there are stay. */
void listener_stop(struct listener *l);

/* Closes every connection. Freed when the loop has let go of all of it. Returns NULL. */
struct listener *listener_free(struct listener *l);

/* The configuration changed: who is an administrator now. */
void listener_look_at_rights(struct listener *l);

unsigned listener_n_peers(const struct listener *l);

/* Sends an event to all who subscribed, are interested in jobs (where @jobs) and whom @may (NULL: all) says yes to. */
void listener_tell(struct listener *l, const char *event, enum message type, const void *params, bool jobs,
                   bool (*may)(const struct peer *p, const void *data), const void *data);

/* ---- for peer.c ---- */
struct packet *listener_packet(struct listener *l); /* the one receive buffer of the loop */
void listener_forget(struct listener *l, struct peer *p);
void listener_watch_stuck(struct listener *l);
void listener_note_read(struct listener *l, struct user *u);
void peer_note_read(struct peer *p);

#endif
