#include "ipc/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

enum { BACKLOG = 128, CONNECT_WAIT_S = 5 };

static int address_of(const char *path, struct sockaddr_un *ret, struct qd_error *err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof ret->sun_path)
        return err_new(err, QD_E_INVALID, "socket path '%s' must have 1 to %zu bytes", path, sizeof ret->sun_path - 1);
    memcpy(ret->sun_path, path, n);
    return 0;
}

static int set_nonblocking(int fd, struct qd_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_sys(err, errno, "set socket non-blocking");
    return 0;
}

static int connect_failed(const char *path, struct qd_error *err)
{
    int reason = errno;
    if (reason == EACCES || reason == EPERM)
        return err_sys(err, reason, "connect to '%s'", path);
    int r = err_sys(err, reason, "connect to '%s'", path);
    if (reason == EAGAIN || reason == ECONNREFUSED || reason == ENOENT || reason == ENOTDIR || reason == EPROTOTYPE)
        r = QD_E_UNAVAILABLE;
    if (err)
        err->code = r;
    return r;
}

int conn_connect(const char *path, int *ret_fd, struct qd_error *err)
{
    struct sockaddr_un address;
    int r = address_of(path, &address, err);
    if (r < 0)
        return r;
    CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, errno, "make a socket");
    struct timeval wait = {.tv_sec = CONNECT_WAIT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait); /* without it a stuck daemon is waited for */
    while (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        if (errno != EINTR)
            return connect_failed(path, err);
    r = set_nonblocking(fd, err);
    if (r < 0)
        return r;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Makes room for a new socket at @path: removes one that nobody listens on. */
static int clear_stale(const char *path, struct qd_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(err, errno, "stat '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return err_new(err, QD_E_EXISTS, "'%s' exists and is no socket", path);
    CLEANUP(fd_close) int probe = -1;
    struct qd_error reason;
    int r = conn_connect(path, &probe, &reason);
    if (r == 0)
        return err_new(err, QD_E_EXISTS, "another process listens on '%s'", path);
    if (reason.sys_errno != ECONNREFUSED && reason.sys_errno != ENOENT)
        return err_new(err, QD_E_EXISTS, "socket '%s' is in use: %s", path, reason.message);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_sys(err, errno, "remove stale socket '%s'", path);
    return 0;
}

int conn_listen(const char *path, mode_t mode, int *ret_fd, struct qd_error *err)
{
    struct sockaddr_un address;
    int r = address_of(path, &address, err);
    if (r < 0)
        return r;
    r = clear_stale(path, err);
    if (r < 0)
        return r;
    CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, errno, "make a socket");
    /* The mode is set before listen(): nobody gets in between. */
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return err_sys(err, errno, "bind '%s'", path);
    if (chmod(path, mode) < 0)
        return err_sys(err, errno, "set mode of '%s'", path);
    if (listen(fd, BACKLOG) < 0)
        return err_sys(err, errno, "listen on '%s'", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int conn_accept(int listen_fd, int *ret_fd, struct qd_error *err)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EAGAIN)
            return QD_E_WOULD_BLOCK;
        if (errno == EMFILE || errno == ENFILE)
            return err_new(err, QD_E_LIMIT, "no descriptor left for a new connection");
        return err_sys(err, errno, "accept a connection");
    }
}

int conn_pair(int ret_fds[2], struct qd_error *err)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return err_sys(err, errno, "make a socket pair");
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

static int send_failed(struct qd_error *err)
{
    switch (errno) {
    case EAGAIN:
        return QD_E_WOULD_BLOCK;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return err_new(err, QD_E_UNAVAILABLE, "the peer closed the connection");
    case EMSGSIZE:
    case ENOBUFS:
    case ETOOMANYREFS:
        return err_new(err, QD_E_LIMIT, "message or descriptors do not fit the socket: %s", strerrordesc_np(errno));
    default:
        return err_sys(err, errno, "send a message");
    }
}

int conn_send(int fd, struct bytes message, const int *fds, size_t n_fds, struct qd_error *err)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
    } control;
    if (message.n > PACKET_BYTES_MAX || n_fds > PACKET_FDS_MAX)
        return err_new(err, QD_E_LIMIT, "message of %zu bytes and %zu descriptors", message.n, n_fds);
    struct iovec part = {.iov_base = (void *)(uintptr_t)message.data, .iov_len = message.n};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (n_fds > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        memset(control.bytes, 0, header.msg_controllen); /* the padding goes to the kernel too */
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        *rights = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * n_fds)};
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * n_fds);
    }
    while (sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        if (errno != EINTR)
            return send_failed(err);
    return 0;
}

/* Owns every descriptor of the control data, whatever it came as. */
static void take_fds(struct msghdr *header, struct packet *p)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (!packet_add_fd(p, fd)) {
                (void)fd_close(fd);
                p->cut = true;
            }
        }
    }
}

static int reserve_packet(struct packet *p, struct qd_error *err)
{
    if (p->bytes.capacity >= PACKET_BYTES_MAX)
        return 0;
    uint8_t *grown = realloc(p->bytes.data, PACKET_BYTES_MAX);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "a packet of %d bytes", PACKET_BYTES_MAX);
    p->bytes.data = grown;
    p->bytes.capacity = PACKET_BYTES_MAX;
    return 0;
}

static int recv_failed(struct qd_error *err)
{
    if (errno == EAGAIN)
        return QD_E_WOULD_BLOCK;
    if (errno == ECONNRESET)
        return err_new(err, QD_E_UNAVAILABLE, "the peer closed the connection");
    return err_sys(err, errno, "receive a message");
}

static void drop_fds(struct packet *p)
{
    for (size_t i = 0; i < p->n_fds; i++)
        (void)fd_close(p->fds[i]); /* none was stolen yet */
    p->n_fds = 0;
    p->cut = true;
}

int conn_recv(int fd, size_t max_fds, struct packet *p, struct qd_error *err)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
    } control;
    packet_reset(p);
    int r = reserve_packet(p, err);
    if (r < 0)
        return r;
    if (max_fds > PACKET_FDS_MAX)
        max_fds = PACKET_FDS_MAX;
    struct iovec part = {.iov_base = p->bytes.data, .iov_len = PACKET_BYTES_MAX};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = max_fds ? CMSG_LEN(sizeof(int) * max_fds) : 0};
    ssize_t n;
    while ((n = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0)
        if (errno != EINTR)
            return recv_failed(err);
    take_fds(&header, p);
    if (p->cut || header.msg_flags & MSG_CTRUNC)
        drop_fds(p);
    if (header.msg_flags & MSG_TRUNC) {
        packet_reset(p);
        return err_new(err, QD_E_PROTOCOL, "message is longer than %d bytes", PACKET_BYTES_MAX);
    }
    p->bytes.n = (size_t)n;
    return n > 0;
}

/* @ret_groups: owned by the caller, NULL for none. */
static int peer_groups(int fd, gid_t **ret_groups, size_t *ret_n, struct qd_error *err)
{
    CLEANUP(free) gid_t *groups = NULL;
    socklen_t n_bytes = 0, had;
    while (had = n_bytes, getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n_bytes) < 0) {
        if (errno != ERANGE || n_bytes <= had)
            return err_sys(err, errno, "ask for the peer's groups");
        gid_t *grown = realloc(groups, n_bytes); /* the kernel said how many */
        if (!grown)
            return err_new(err, QD_E_NO_MEMORY, "the peer's groups");
        groups = grown;
    }
    *ret_n = n_bytes / sizeof(gid_t);
    *ret_groups = steal(&groups);
    return 0;
}

int conn_credentials(int fd, struct credentials *ret, struct qd_error *err)
{
    struct ucred cred;
    socklen_t n_bytes = sizeof cred;
    gid_t *groups = NULL;
    size_t n_groups = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n_bytes) < 0)
        return err_sys(err, errno, "ask for the peer's credentials");
    int r = peer_groups(fd, &groups, &n_groups, err);
    if (r < 0 && cred.uid != 0 && cred.uid != geteuid()) /* they may do all: qemu-user 7.2 cannot tell any groups */
        return r;
    *ret =
        (struct credentials){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid, .groups = groups, .n_groups = n_groups};
    return 0;
}

void credentials_clear(struct credentials *c)
{
    free(c->groups);
    *c = (struct credentials){0};
}
