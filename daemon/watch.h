/*
 * Watch: change events of folders through one inotify descriptor in the loop. Events are hints
 * ("something happened below this folder"); whoever hears one looks for himself.
 */
#ifndef QUANTD_DAEMON_WATCH_H
#define QUANTD_DAEMON_WATCH_H

#include <stdbool.h>
#include <uv.h>

#include "kernels/core/error.h"

struct watch;

/* @wd: the folder, -1 when the kernel's queue ran over (anything may have happened); @name "" for the folder itself. */
typedef void watch_event(int wd, bool is_folder, const char *name, void *data);

int watch_new(uv_loop_t *loop, watch_event *event, void *data, struct watch **ret, struct qd_error *err);

/* Stops; freed when the loop has let go of the handle. Returns NULL. */
struct watch *watch_free(struct watch *w);

/*
 * Watches the folder that @folder_fd has open; the same folder gives the same number. Any thread.
 * Returns the number, or -errno (ENOSPC: fs.inotify.max_user_watches is reached).
 */
int watch_add(struct watch *w, int folder_fd);

/*
 * The same for a regular file that @fd has open, and for one thing alone: that somebody who could read it has closed
 * it, or let go of its last mapping.
 */
int watch_add_closing(struct watch *w, int fd);

/* Unknown numbers are fine: the kernel drops a watch whose folder is gone by itself. */
void watch_remove(struct watch *w, int wd);

/* Hears now what is in the queue already. */
void watch_drain(struct watch *w);

#endif
