#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"

enum { LISTEN_FD_FIRST = 3, LISTEN_FDS_MAX = 64 };

/* '@' at the start stands for the NUL of an abstract address. */
static socklen_t notify_address(const char *path, struct sockaddr_un *ret)
{
    size_t n = strlen(path);
    if (n < 2 || n >= sizeof ret->sun_path || (path[0] != '/' && path[0] != '@'))
        return 0;
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path, path, n);
    if (path[0] == '@') {
        ret->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}

int notify_send(const char *fmt, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    if (!path)
        return 0;
    socklen_t address_bytes = notify_address(path, &address);
    if (address_bytes == 0)
        return QD_E_SYSTEM;

    char text[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text)
        return QD_E_SYSTEM;

    CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        sendto(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address, address_bytes) < 0)
        return QD_E_SYSTEM;
    return 1;
}

int notify_reloading(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return notify_send("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

static int pid_is_ours(const char *text)
{
    char *end;
    errno = 0;
    long pid = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && pid == (long)getpid();
}

uint64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && !pid_is_ours(pid)))
        return 0;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(usec, &end, 10);
    if (errno != 0 || *end != '\0' || v < 2000)
        return 0;
    return v / 2000;
}

/* Index of @name in the colon-separated @names, or -1. */
static int name_index(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; names; i++) {
        if (strncmp(names, name, n) == 0 && (names[n] == ':' || names[n] == '\0'))
            return i;
        names = strchr(names, ':');
        names = names ? names + 1 : NULL;
    }
    return -1;
}

static int check_listening(int fd, struct qd_error *err)
{
    int type = 0, listening = 0;
    socklen_t n = sizeof type;
    struct sockaddr_un address;
    socklen_t address_bytes = sizeof address;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
        return err_sys(err, errno, "socket handed over as descriptor %d", fd);
    n = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0)
        return err_sys(err, errno, "socket handed over as descriptor %d", fd);
    if (getsockname(fd, (struct sockaddr *)&address, &address_bytes) < 0 || address.sun_family != AF_UNIX ||
        type != SOCK_SEQPACKET || !listening) {
        (void)err_new(err, QD_E_INVALID,
                      "descriptor %d handed over by the service manager is no listening Unix SEQPACKET socket", fd);
        return err_hint(err, QD_E_INVALID, "the socket unit says ListenSequentialPacket=");
    }
    return 0;
}

static int make_own(int fd, struct qd_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_sys(err, errno, "socket handed over as descriptor %d", fd);
    return 0;
}

static int listen_index(const char *name, int n_fds)
{
    const char *names = getenv("LISTEN_FDNAMES");
    int i = names ? name_index(names, name) : 0;
    return i >= 0 && i < n_fds ? i : 0; /* one socket under another name is still the one meant */
}

int listen_fd_take(const char *name, int *ret_fd, struct qd_error *err)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || !count || !pid_is_ours(pid))
        return 0;
    int n_fds = atoi(count);
    if (n_fds < 1 || n_fds > LISTEN_FDS_MAX)
        return 0;

    int fd = LISTEN_FD_FIRST + listen_index(name, n_fds);
    (void)unsetenv("LISTEN_PID"); /* cannot fail: the names are constants */
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    int r = check_listening(fd, err);
    if (r == 0)
        r = make_own(fd, err);
    if (r < 0)
        return r;
    *ret_fd = fd;
    return 1;
}
