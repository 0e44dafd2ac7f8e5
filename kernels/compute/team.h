/* Threads that share the tasks of one call at a time (quantd/matmul.h: qd_team). */
#ifndef QUANTD_KERNELS_TEAM_H
#define QUANTD_KERNELS_TEAM_H

#include <quantd/matmul.h>

/* @thread: 0 for the caller, below qd_team_threads(). */
typedef void team_task_fn(void *data, size_t task, unsigned thread);

/* Calls @run once for each task from 0 to @n_tasks - 1, in any order and by any thread; back when all are done. */
void team_run(struct qd_team *team, size_t n_tasks, team_task_fn *run, void *data);

#endif
