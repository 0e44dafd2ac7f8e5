#include "statistics/histogram.h"

#include <string.h>

/* 2^e of a normal double. */
static double power_of_two(int32_t e)
{
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void histogram_clear(struct histogram *h)
{
    *h = (struct histogram){.exponent = HISTOGRAM_EXPONENT_MIN};
}

/* Twice the width: bins 2i and 2i + 1 become one, counted from zero on both sides. */
static void widen(struct histogram *h)
{
    for (int i = 0; i < HISTOGRAM_SIDE / 2; i++) /* from zero outwards: what is read was not yet written */
        h->bins[HISTOGRAM_SIDE + i] = h->bins[HISTOGRAM_SIDE + 2 * i] + h->bins[HISTOGRAM_SIDE + 2 * i + 1];
    for (int i = 0; i < HISTOGRAM_SIDE / 2; i++)
        h->bins[HISTOGRAM_SIDE - 1 - i] = h->bins[HISTOGRAM_SIDE - 1 - 2 * i] + h->bins[HISTOGRAM_SIDE - 2 - 2 * i];
    memset(h->bins, 0, HISTOGRAM_SIDE / 2 * sizeof *h->bins);
    memset(h->bins + HISTOGRAM_BINS - HISTOGRAM_SIDE / 2, 0, HISTOGRAM_SIDE / 2 * sizeof *h->bins);
    h->exponent++;
}

static void widen_to(struct histogram *h, int32_t exponent)
{
    while (h->exponent < exponent)
        widen(h);
}

/* The narrowest bins, not narrower than those of @from, that hold @low and @high. */
static int32_t exponent_for(int32_t from, float low, float high)
{
    while ((double)high >= HISTOGRAM_SIDE * power_of_two(from) || (double)low < -HISTOGRAM_SIDE * power_of_two(from))
        from++;
    return from;
}

int32_t histogram_exponent(float low, float high)
{
    return exponent_for(HISTOGRAM_EXPONENT_MIN, low, high);
}

void histogram_add(struct histogram *h, const float *x, uint64_t n, float low, float high)
{
    widen_to(h, exponent_for(h->exponent, low, high));
    const double scale = power_of_two(-h->exponent);
    uint64_t n_zeros = 0;
    for (uint64_t i = 0; i < n; i++) {
        const double at = (double)x[i] * scale; /* exact */
        const int32_t towards_zero = (int32_t)at, bin = towards_zero - (at < (double)towards_zero);
        if (x[i] == 0)
            n_zeros++;
        else
            h->bins[bin + HISTOGRAM_SIDE]++;
    }
    h->n_zeros += n_zeros;
}

void histogram_merge(struct histogram *h, const struct histogram *other)
{
    struct histogram copy = *other;
    widen_to(h, copy.exponent);
    widen_to(&copy, h->exponent);
    for (uint32_t i = 0; i < HISTOGRAM_BINS; i++)
        h->bins[i] += copy.bins[i];
    h->n_zeros += copy.n_zeros;
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t n = h->n_zeros;
    for (uint32_t i = 0; i < HISTOGRAM_BINS; i++)
        n += h->bins[i];
    return n;
}

double histogram_edge(const struct histogram *h, uint32_t i)
{
    return ((double)i - HISTOGRAM_SIDE) * power_of_two(h->exponent);
}
