#include "statistics/observer.h"

#include <math.h>

enum { LANES = 16 };

int observer_new(bool with_histogram, struct observer **ret, struct qd_error *err)
{
    CLEANUP(observer_free) struct observer *o = calloc(1, sizeof *o);
    if (o && with_histogram)
        o->histogram = malloc(sizeof *o->histogram);
    if (!o || (with_histogram && !o->histogram))
        return err_new(err, QD_E_NO_MEMORY, "an observer");
    if (with_histogram)
        histogram_clear(o->histogram);
    *ret = steal(&o);
    return 0;
}

struct observer *observer_free(struct observer *o)
{
    if (o)
        free(o->histogram);
    free(o);
    return NULL;
}

/* The least and the greatest of @n > 0 values, -0 made 0. By lanes, for a compiler's vectors. */
static void extremes(const float *x, uint64_t n, float *ret_low, float *ret_high)
{
    float low[LANES], high[LANES];
    uint64_t i = 0;
    for (int lane = 0; lane < LANES; lane++)
        low[lane] = high[lane] = x[0];
    for (; n - i >= LANES; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            low[lane] = x[i + lane] < low[lane] ? x[i + lane] : low[lane];
            high[lane] = x[i + lane] > high[lane] ? x[i + lane] : high[lane];
        }
    for (int lane = 0; i < n; i++, lane++) {
        low[lane] = x[i] < low[lane] ? x[i] : low[lane];
        high[lane] = x[i] > high[lane] ? x[i] : high[lane];
    }
    for (int lane = 1; lane < LANES; lane++) {
        low[0] = low[lane] < low[0] ? low[lane] : low[0];
        high[0] = high[lane] > high[0] ? high[lane] : high[0];
    }
    *ret_low = low[0] + 0.0f;
    *ret_high = high[0] + 0.0f;
}

static void widen_extremes(struct observer *o, float low, float high)
{
    const bool first = o->n_samples == 0;
    o->low = first || low < o->low ? low : o->low;
    o->high = first || high > o->high ? high : o->high;
}

static uint64_t find_nonfinite(const float *x, uint64_t n)
{
    uint64_t i = 0;
    while (i < n && isfinite(x[i]))
        i++;
    return i;
}

int observer_add(struct observer *o, const struct ops *kernels, const float *x, uint64_t n, struct qd_error *err)
{
    if (n == 0)
        return 0;
    const uint64_t bad = kernels ? kernels->find_nonfinite(x, n) : find_nonfinite(x, n);
    if (bad < n)
        return err_new(err, QD_E_INVALID, "element %llu of %llu is %s", (unsigned long long)bad, (unsigned long long)n,
                       x[bad] != x[bad] ? "NaN" : "infinite");
    float low, high;
    extremes(x, n, &low, &high);
    widen_extremes(o, low, high);
    exact_sum_add(&o->lows, low);
    exact_sum_add(&o->highs, high);
    o->n_samples++;
    o->n += n;
    if (o->histogram)
        histogram_add(o->histogram, x, n, low, high);
    return 0;
}

int observer_add_range(struct observer *o, uint64_t n, float low, float high, struct qd_error *err)
{
    if (n == 0)
        return 0;
    if (!isfinite(low) || !isfinite(high) || low > high)
        return err_new(err, QD_E_INVALID, "a range from %g to %g", (double)low, (double)high);
    widen_extremes(o, low + 0.0f, high + 0.0f); /* never -0 */
    exact_sum_add(&o->lows, low);
    exact_sum_add(&o->highs, high);
    o->n_samples++;
    o->n += n;
    return 0;
}

void observer_merge(struct observer *o, const struct observer *other)
{
    if (o->histogram && other->histogram) {
        histogram_merge(o->histogram, other->histogram);
    } else {
        free(o->histogram);
        o->histogram = NULL;
    }
    if (other->n_samples)
        widen_extremes(o, other->low, other->high);
    exact_sum_merge(&o->lows, &other->lows);
    exact_sum_merge(&o->highs, &other->highs);
    o->n_samples += other->n_samples;
    o->n += other->n;
}

/* Rounding does not bring it past the extremes, nor does a file that says nonsense. */
static double mean_within(const struct observer *o, const struct exact_sum *sum)
{
    const double mean = o->n_samples ? exact_sum_value(sum) / (double)o->n_samples : 0;
    const double high = mean < (double)o->high ? mean : (double)o->high;
    return high > (double)o->low ? high : (double)o->low;
}

double observer_mean_low(const struct observer *o)
{
    return mean_within(o, &o->lows);
}

double observer_mean_high(const struct observer *o)
{
    return mean_within(o, &o->highs);
}
