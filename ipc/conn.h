/*
 * Conn: packets over SOCK_SEQPACKET Unix sockets, with descriptors. Sockets are non-blocking and
 * close-on-exec; SIGPIPE is never raised. Functions return 0 or a negative code:
 * QD_E_WOULD_BLOCK when the socket is not ready (poll and repeat; nothing is written to @err),
 * QD_E_UNAVAILABLE when the peer is gone.
 */
#ifndef QUANTD_IPC_CONN_H
#define QUANTD_IPC_CONN_H

#include <sys/types.h>

#include "ipc/packet.h"
#include "kernels/core/error.h"

/* Connects to the socket at @path. Nobody listens or no such path: QD_E_UNAVAILABLE. A full backlog is waited for, 5 s.
 */
int conn_connect(const char *path, int *ret_fd, struct qd_error *err);

/*
 * Binds and listens at @path with @mode. A socket file that nobody listens on is replaced; one
 * that is in use is QD_E_EXISTS, anything but a socket is left alone (QD_E_EXISTS).
 */
int conn_listen(const char *path, mode_t mode, int *ret_fd, struct qd_error *err);

/* The next connection; QD_E_WOULD_BLOCK when there is none, QD_E_LIMIT when this process is out of descriptors. */
int conn_accept(int listen_fd, int *ret_fd, struct qd_error *err);

/* A connected pair: the control socket of a worker. Both ends are close-on-exec and non-blocking. */
int conn_pair(int ret_fds[2], struct qd_error *err);

/* Sends one packet; @fds stay the caller's. All or nothing. */
int conn_send(int fd, struct bytes message, const int *fds, size_t n_fds, struct qd_error *err);

/*
 * Receives one packet into @p, which is reset first; takes at most @max_fds descriptors. 1 when
 * @p holds a packet, 0 when the peer closed. More descriptors than @max_fds, or none free in this
 * process: all of the packet's are closed and @p->cut is set, so that the request can be failed by its id.
 * More than PACKET_BYTES_MAX bytes: QD_E_PROTOCOL, the rest is lost.
 */
int conn_recv(int fd, size_t max_fds, struct packet *p, struct qd_error *err);

/* Who is at the other end, as the kernel recorded it at connect. */
struct credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* owned; supplementary groups */
    size_t n_groups;
};
int conn_credentials(int fd, struct credentials *ret, struct qd_error *err);
void credentials_clear(struct credentials *c);

#endif
