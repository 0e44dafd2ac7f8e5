/*
 * A histogram of f32 whose memory does not grow with what it counts. Bins are 2^exponent wide, so that zero is an edge;
 * where a value lies outside, bins are joined in pairs and are twice as wide. Which bin a value falls in is exact, and
 * floor(floor(x / w) / 2) = floor(x / 2w): counts are the same in whatever order values came, and two histograms merge
 * to that of all their values, bit for bit. Zeros are not in a bin but counted apart: behind a ReLU they are most of
 * all values, and any range represents them.
 */
#ifndef QUANTD_STATISTICS_HISTOGRAM_H
#define QUANTD_STATISTICS_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

enum {
    /* On each side of zero; the largest value uses more than half of a side: 4 to 8 bins a step of 8-bit codes. */
    HISTOGRAM_SIDE = 2048,
    HISTOGRAM_BINS = 2 * HISTOGRAM_SIDE,
    HISTOGRAM_EXPONENT_MIN = -160, /* the least denormal is in bin 2^11 of it, so it widens at once */
    HISTOGRAM_EXPONENT_MAX = 117,  /* the greatest float is in its last bin */
};

struct histogram {
    int32_t exponent; /* bin i holds [(i - SIDE) * 2^exponent, (i - SIDE + 1) * 2^exponent) */
    uint64_t n_zeros;
    uint64_t bins[HISTOGRAM_BINS];
};

/* Empty, with the narrowest bins. */
void histogram_clear(struct histogram *h);

/* Counts @n values, all finite. @low and @high: the least and the greatest of them, or beyond. */
void histogram_add(struct histogram *h, const float *x, uint64_t n, float low, float high);

void histogram_merge(struct histogram *h, const struct histogram *other);

/* The exponent of a histogram whose least and greatest values are these. */
int32_t histogram_exponent(float low, float high);

/* Values counted, zeros included. */
uint64_t histogram_count(const struct histogram *h);

/* The lower edge of bin @i; of HISTOGRAM_BINS: the upper edge of the last. Exact. */
double histogram_edge(const struct histogram *h, uint32_t i);

#endif
