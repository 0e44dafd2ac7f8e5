#include "kernels/core/processors.h"

#include <errno.h>
#include <stdlib.h>

#include "kernels/core/cleanup.h"

enum { FIRST_CPUS = 1024, MOST_CPUS = 1 << 20 };

/* Processors in the affinity, -errno where @get refuses a set of @n_cpus. */
static int count_of(int (*get)(pid_t, size_t, cpu_set_t *), size_t n_cpus)
{
    size_t n_bytes = CPU_ALLOC_SIZE(n_cpus);
    CLEANUP(free) cpu_set_t *set = calloc(1, n_bytes);
    if (!set)
        return -ENOMEM;
    return get(0, n_bytes, set) == 0 ? CPU_COUNT_S(n_bytes, set) : -errno;
}

unsigned processors_counted(int (*get)(pid_t pid, size_t n_bytes, cpu_set_t *set))
{
    int n = -EINVAL;
    for (size_t n_cpus = FIRST_CPUS; n == -EINVAL && n_cpus <= MOST_CPUS; n_cpus *= 2)
        n = count_of(get, n_cpus);
    return n > 0 ? (unsigned)n : 1;
}

unsigned processors_allowed(void)
{
    return processors_counted(sched_getaffinity);
}
