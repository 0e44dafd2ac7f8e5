/*
 * The service manager's two protocols, without libsystemd (their authors ask for that): what we
 * tell it (sd_notify(3): one datagram of lines to $NOTIFY_SOCKET, path or abstract), and the
 * sockets that it hands us (sd_listen_fds(3)). Also the watchdog's interval.
 * Without the environment variables every function is a successful nothing.
 */
#ifndef QUANTD_DAEMON_NOTIFY_H
#define QUANTD_DAEMON_NOTIFY_H

#include <stdint.h>

#include "kernels/core/error.h"

/* Sends the lines, such as "READY=1\nSTATUS=watching 2 roots". 1: sent; 0: nobody listens; negative: QD_E_SYSTEM. */
int notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "RELOADING=1" with the monotonic time that systemd 253 asks for; followed by notify_send("READY=1"). */
int notify_reloading(void);

/* How often the watchdog wants to be fed: half of $WATCHDOG_USEC in ms, when $WATCHDOG_PID is ours or unset; 0: never.
 */
uint64_t notify_watchdog_ms(void);

/*
 * The socket handed over as @name in $LISTEN_FDNAMES, or the first one where names are not given.
 * Checked to be a listening AF_UNIX SOCK_SEQPACKET socket; made close-on-exec and non-blocking.
 * 1 and @ret_fd; 0 where $LISTEN_PID is not ours or there is none; QD_E_INVALID for any other kind
 * of socket. Unsets the variables, so that children do not see them.
 */
int listen_fd_take(const char *name, int *ret_fd, struct qd_error *err);

#endif
