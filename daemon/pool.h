/*
 * Blocking work (hashing, fsync, folder scans) on libuv's pool threads; the answer comes back on
 * the loop. @work runs on a pool thread and touches only @data; @done runs on the loop, once,
 * also at shutdown (with QD_E_CANCELLED where the work never started).
 */
#ifndef QUANTD_DAEMON_POOL_H
#define QUANTD_DAEMON_POOL_H

#include <uv.h>

#include "kernels/core/error.h"

typedef int pool_work(void *data, struct qd_error *err);
typedef void pool_done(void *data, int result, const struct qd_error *err);

int pool_submit(uv_loop_t *loop, pool_work *work, pool_done *done, void *data, struct qd_error *err);

/*
 * The same for what a client may ask for and what takes long (checks of whole artifacts): two at once, the others wait
 * their turn, so that however many are asked for, threads are left for hashing, sealing and scans. libuv's pool has
 * four.
 */
int pool_submit_long(uv_loop_t *loop, pool_work *work, pool_done *done, void *data, struct qd_error *err);

/* Work submitted and not yet done. */
unsigned pool_pending(void);

#endif
