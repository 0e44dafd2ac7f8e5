#include "daemon/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"

enum {
    EVENTS_BYTES = 16 << 10, /* a few hundred events a read */
    WATCH_MASK = IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO |
                 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK
};

struct watch {
    uv_poll_t poll;
    int fd; /* owned */
    watch_event *event;
    void *data;
};

static void tell(struct watch *w, const struct inotify_event *e)
{
    if (e->mask & IN_Q_OVERFLOW)
        w->event(-1, true, "", w->data);
    else if (!(e->mask & IN_IGNORED)) /* follows our own removal, or a deletion that was told */
        w->event(e->wd, (e->mask & IN_ISDIR) || e->len == 0, e->len > 0 ? e->name : "", w->data);
}

void watch_drain(struct watch *w)
{
    _Alignas(struct inotify_event) char events[EVENTS_BYTES];
    for (;;) {
        ssize_t n = read(w->fd, events, sizeof events);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        for (char *at = events; at < events + n;) {
            const struct inotify_event *e = (const struct inotify_event *)at;
            at += sizeof *e + e->len;
            tell(w, e);
        }
    }
}

static void on_poll(uv_poll_t *poll, int status, int ready)
{
    (void)status; /* an error shows in read() */
    (void)ready;
    watch_drain(poll->data);
}

int watch_new(uv_loop_t *loop, watch_event *event, void *data, struct watch **ret, struct qd_error *err)
{
    CLEANUP(free) struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return err_new(err, QD_E_NO_MEMORY, "watch");
    CLEANUP(fd_close) int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) {
        (void)err_sys(err, errno, "inotify_init");
        return err_hint(err, QD_E_SYSTEM, "fs.inotify.max_user_instances may be too low");
    }
    *w = (struct watch){.fd = fd, .event = event, .data = data};
    int r = uv_poll_init(loop, &w->poll, fd);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "watch: %s", uv_strerror(r));
    w->poll.data = w;
    (void)steal_fd(&fd);
    (void)uv_poll_start(&w->poll, UV_READABLE, on_poll); /* fails on a closing handle only */
    *ret = steal(&w);
    return 0;
}

static void on_close(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    (void)fd_close(w->fd);
    free(w);
}

struct watch *watch_free(struct watch *w)
{
    if (w)
        uv_close((uv_handle_t *)&w->poll, on_close);
    return NULL;
}

static int add(struct watch *w, int fd, uint32_t mask)
{
    char path[32]; /* by descriptor: the name may mean another folder by now */
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(w->fd, path, mask);
    return wd < 0 ? -errno : wd;
}

int watch_add(struct watch *w, int folder_fd)
{
    return add(w, folder_fd, WATCH_MASK);
}

int watch_add_closing(struct watch *w, int fd)
{
    return add(w, fd, IN_CLOSE_NOWRITE);
}

void watch_remove(struct watch *w, int wd)
{
    (void)inotify_rm_watch(w->fd, wd); /* EINVAL: its folder is gone */
}
