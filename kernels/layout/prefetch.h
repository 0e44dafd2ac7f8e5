/*
 * Read-ahead for encoders that are faster than memory: the processor's own prefetcher alone keeps a stream of f32 below
 * what one thread can read (q8_0, AVX-512, through memory: 8.2 times the reference without, 10.6 with).
 */
#ifndef QUANTD_KERNELS_PREFETCH_H
#define QUANTD_KERNELS_PREFETCH_H

#include <stddef.h>

enum { PREFETCH_AHEAD = 8192 /* tried: 4096 to 16384 are alike, 32768 is worse */, PREFETCH_LINE = 64 };

/* The @n_bytes that are PREFETCH_AHEAD behind @src; advice, which may lie beyond the end of the row. */
static inline __attribute__((always_inline)) void prefetch_stream(const char *src, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes; at += PREFETCH_LINE)
        __builtin_prefetch(src + PREFETCH_AHEAD + at);
}

#endif
