/* How many processors this process may use: its affinity, which containers and taskset narrow. */
#ifndef QUANTD_CORE_PROCESSORS_H
#define QUANTD_CORE_PROCESSORS_H

#include <sched.h>
#include <sys/types.h>

/* At least 1. */
unsigned processors_allowed(void);

/*
 * The same by @get, which is sched_getaffinity(2) but in tests. The kernel refuses (EINVAL) a set
 * that is smaller than its own, so the set grows until it is large enough: machines with more than
 * the 1,024 processors of a cpu_set_t exist.
 */
unsigned processors_counted(int (*get)(pid_t pid, size_t n_bytes, cpu_set_t *set));

#endif
