/*
 * An observer: what is known of the values of an edge of a graph (or of a channel of it, or of a row of weights) after
 * any number of samples, in constant memory. One pass; the result does not depend on the order of samples, on the
 * number of threads or on the CPU, and two of them merge to the observer of all samples, bit for bit.
 */
#ifndef QUANTD_STATISTICS_OBSERVER_H
#define QUANTD_STATISTICS_OBSERVER_H

#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"
#include "kernels/kernels.h"
#include "statistics/exact_sum.h"
#include "statistics/histogram.h"

struct observer {
    uint64_t n;                   /* values */
    uint64_t n_samples;           /* that had values */
    float low, high;              /* of all values; never -0; both 0 where there are none */
    struct exact_sum lows, highs; /* of the least and the greatest value of each sample */
    struct histogram *histogram;  /* owned; NULL: not wanted, or not known */
};

/* @with_histogram: percentile, entropy and error ranges need it, at 32 KiB; extremes and their averages do not. */
int observer_new(bool with_histogram, struct observer **ret, struct qd_error *err);
struct observer *observer_free(struct observer *o);
DEFINE_CLEANUP(observer_free, struct observer *)

/*
 * One sample: @n values. NaN or Inf: QD_E_INVALID whose message says which element, for a caller that adds tensor and
 * sample; the observer is then unchanged. @kernels may be NULL: then slower.
 */
int observer_add(struct observer *o, const struct ops *kernels, const float *x, uint64_t n, struct qd_error *err);

/* One sample of @n values of which the extremes alone are known; @o has no histogram. As above. */
int observer_add_range(struct observer *o, uint64_t n, float low, float high, struct qd_error *err);

/* Without a histogram on one side there is none afterwards. */
void observer_merge(struct observer *o, const struct observer *other);

/* The mean of the samples' least and greatest values; 0 where there are no samples. */
double observer_mean_low(const struct observer *o);
double observer_mean_high(const struct observer *o);

#endif
