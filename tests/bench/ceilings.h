/*
 * What a machine gives at best, to hold products against: 8-bit multiply-adds on registers alone, and bytes read from
 * memory. Each is measured by threads of the caller, in the same rounds as what is held against it.
 */
#ifndef QUANTD_TESTS_BENCH_CEILINGS_H
#define QUANTD_TESTS_BENCH_CEILINGS_H

#include <stddef.h>
#include <stdint.h>

struct ceilings {
    const char *multiply_name; /* the instruction; NULL: none is known for these features, nor multiply */
    /* Multiplies and adds that @n_rounds (at least 1) take, counted one by one. */
    double (*multiply)(size_t n_rounds);
    /* Read @n_bytes at @p (64-byte aligned, a multiple of 4096), in order, or from eight places at once, which hardware
     * that fetches ahead within a page takes better; the result depends on all of them. */
    uint64_t (*read)(const void *p, size_t n_bytes);
    uint64_t (*read_streams)(const void *p, size_t n_bytes);
};

/* The fastest that need no more than @features (kernels/cpu.h). */
struct ceilings ceilings_for(uint64_t features);

#endif
