/*
 * Measure: how far a tensor of the artifact is from its source. Kernels keep sums in 16 lanes;
 * here they are folded by a fixed tree, per piece (a tensor's part of one shard), and pieces are
 * added in file order: the figures do not depend on threads, on the CPU, or on a resumed run.
 */
#ifndef QUANTD_QUANT_MEASURE_H
#define QUANTD_QUANT_MEASURE_H

#include "kernels/kernels.h"

/* Sums of one piece, or of a tensor; zeroed is "nothing yet". */
struct error_total {
    double noise;   /* sum of (x - y)^2 */
    double signal;  /* sum of x^2 */
    double max_abs; /* max |x - y| */
    uint64_t n;
};

/* The lanes of @lanes, folded 16 -> 8 -> 4 -> 2 -> 1. */
struct error_total error_fold(const struct error_sums *lanes);

/* Adds @piece to @sum; the order of calls is the order of addition. */
void error_add(struct error_total *sum, const struct error_total *piece);

/* 10 log10(signal / noise) rounded to 0.0001 dB, so that C libraries agree; +inf where exact. */
double error_sqnr_db(const struct error_total *t);

/* sqrt(noise / signal); 0 where exact or where the source is all zero. */
double error_rel_rmse(const struct error_total *t);

#endif
