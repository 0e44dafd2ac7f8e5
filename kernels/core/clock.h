/* Seconds that never go back, from a beginning without meaning. */
#ifndef QUANTD_CORE_CLOCK_H
#define QUANTD_CORE_CLOCK_H

#include <time.h>

static inline double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
