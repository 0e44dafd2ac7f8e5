/* How far numbers are from what they stand for: sums over pairs, in the order in which they are added. */
#ifndef QUANTD_CALIB_DEVIATION_H
#define QUANTD_CALIB_DEVIATION_H

#include <math.h>

struct deviation {
    double signal, noise; /* sums of squares: of the exact numbers, of the differences */
    double dot, other;    /* of products of both; of squares of the other numbers */
    double max_abs;       /* largest difference */
};

static inline void deviation_add(struct deviation *d, double exact, double other)
{
    d->signal += exact * exact;
    d->noise += (exact - other) * (exact - other);
    d->dot += exact * other;
    d->other += other * other;
    d->max_abs = fmax(d->max_abs, fabs(exact - other));
}

static inline void deviation_merge(struct deviation *d, const struct deviation *more)
{
    d->signal += more->signal;
    d->noise += more->noise;
    d->dot += more->dot;
    d->other += more->other;
    d->max_abs = fmax(d->max_abs, more->max_abs);
}

/* Signal over noise in decibels; INFINITY where there is no difference. */
static inline double deviation_sqnr(const struct deviation *d)
{
    return d->noise > 0.0 ? 10.0 * log10(d->signal / d->noise) : INFINITY;
}

/* Of the angle between both; 1 where both are nothing. */
static inline double deviation_cosine(const struct deviation *d)
{
    if (d->signal == 0.0 || d->other == 0.0)
        return d->signal == d->other ? 1.0 : 0.0;
    return d->dot / (sqrt(d->signal) * sqrt(d->other));
}

#endif
