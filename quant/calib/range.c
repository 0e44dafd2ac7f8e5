#include "quant/calib/range.h"

#include <float.h>
#include <string.h>

#include "quant/graph/functions.h"

static const struct {
    const char *name;
    bool needs_histogram;
} methods[] = {
#define M(NAME, name, needs_histogram, text) {name, needs_histogram},
    RANGE_METHODS(M)
#undef M
};

const char *range_method_name(enum range_method m)
{
    return methods[m].name;
}

int range_method_by_name(const char *name, enum range_method *ret, struct qd_error *err)
{
    const char *names[RANGE_N_METHODS + 1] = {NULL};
    for (int m = 0; m < RANGE_N_METHODS; m++) {
        names[m] = methods[m].name;
        if (strcmp(names[m], name) == 0) {
            *ret = (enum range_method)m;
            return 0;
        }
    }
    return err_unknown_name(err, "range method", name, nearest_name(name, names), names);
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* ---- codes -------------------------------------------------------------------------------- */

static int32_t middle(struct code_grid grid)
{
    return (int32_t)(((int64_t)grid.q_min + grid.q_max + 1) / 2);
}

static int32_t least_code(struct code_grid grid)
{
    return grid.symmetric ? 2 * middle(grid) - grid.q_max : grid.q_min;
}

/* To nearest even, of |x| < 2^51. */
static double rounded(double x)
{
    const double shift = 0x1.8p52;
    return (x + shift) - shift;
}

struct code_params range_params(struct range r, struct code_grid grid)
{
    const double low = smaller(r.low, 0), high = larger(r.high, 0);
    const double span = grid.symmetric ? larger(-low, high) : high - low;
    const double steps = grid.symmetric ? (double)grid.q_max - middle(grid) : (double)grid.q_max - grid.q_min;
    if (span == 0)
        return (struct code_params){1, grid.symmetric ? middle(grid) : (int32_t)larger(0, grid.q_min)};

    struct code_params p = {.scale = (float)larger(span / steps, (double)FLT_MIN), .zero_point = middle(grid)};
    if (!grid.symmetric) {
        const double zero = rounded(grid.q_min - low / (double)p.scale);
        p.zero_point = (int32_t)larger(grid.q_min, smaller(grid.q_max, zero));
    }
    return p;
}

/* The squared error of @x; @low and @high: the first and the last code, counted from the zero point. */
static double code_error(double x, double scale, double low, double high)
{
    const double code = rounded(larger(low, smaller(high, x / scale)));
    return (x - code * scale) * (x - code * scale);
}

/* Points of a bin that stand for its values, evenly spread: so many that eight of them are in a step, at most eight. */
static uint32_t points_a_bin(double width, double step)
{
    uint32_t n = 1;
    while (n < 8 && width * 8 > step * n)
        n *= 2;
    return n;
}

double range_error(const struct histogram *h, struct code_params p, struct code_grid grid)
{
    const double low = (double)least_code(grid) - p.zero_point, high = (double)grid.q_max - p.zero_point;
    const double width = histogram_edge(h, HISTOGRAM_SIDE + 1);
    const uint32_t n_points = points_a_bin(width, (double)p.scale);
    double sum = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BINS; i++) {
        if (h->bins[i] == 0)
            continue;
        double of_bin = 0;
        for (uint32_t k = 0; k < n_points; k++)
            of_bin +=
                code_error(histogram_edge(h, i) + width * (2 * k + 1) / (2 * n_points), (double)p.scale, low, high);
        sum += of_bin / n_points * (double)h->bins[i];
    }
    return sum;
}

/* ---- methods: each gets all that was seen in @r and may make it narrower ------------------- */

static void choose_percentile(const struct observer *o, uint32_t outside_ppm, struct range *r)
{
    const struct histogram *h = o->histogram;
    const uint64_t tail = (uint64_t)((unsigned __int128)o->n * outside_ppm / 2000000);
    uint64_t below = 0, above = 0;
    uint32_t first = 0, end = HISTOGRAM_BINS; /* bins within */
    while (first < HISTOGRAM_SIDE && (below += h->bins[first]) <= tail)
        first++;
    while (end > HISTOGRAM_SIDE && (above += h->bins[end - 1]) <= tail)
        end--;
    r->low = larger(r->low, histogram_edge(h, first));
    r->high = smaller(r->high, histogram_edge(h, end));
}

/* Counts by magnitude, zeros left out; returns how many bins are in use. */
static uint32_t fold(const struct histogram *h, uint64_t *magnitudes)
{
    uint32_t n_used = 0;
    for (uint32_t i = 0; i < HISTOGRAM_SIDE; i++) {
        magnitudes[i] = h->bins[HISTOGRAM_SIDE + i] + h->bins[HISTOGRAM_SIDE - 1 - i];
        if (magnitudes[i])
            n_used = i + 1;
    }
    return n_used;
}

/* Of the bins [begin, end) of a level: what each that is not empty holds on average. */
static double level_mean(const uint64_t *m, uint32_t begin, uint32_t end)
{
    uint64_t sum = 0, n = 0;
    for (uint32_t i = begin; i < end; i++) {
        sum += m[i];
        n += m[i] != 0;
    }
    return n ? (double)sum / (double)n : 0;
}

/*
 * The divergence of the first @cut bins, all that lies beyond put into the last of them that is not empty, from the
 * same bins as @n_levels codes keep them. Negative: they are all empty.
 */
static double divergence(const uint64_t *m, uint32_t cut, uint64_t beyond, uint32_t n_levels)
{
    uint32_t end_used = cut;
    while (end_used > 0 && m[end_used - 1] == 0)
        end_used--;
    double inside = 0, sum = 0;
    for (uint32_t i = 0; i < end_used; i++)
        inside += (double)m[i];
    const double all = inside + (double)beyond;
    for (uint32_t level = 0; level < n_levels; level++) {
        const uint32_t begin = (uint32_t)((uint64_t)level * cut / n_levels),
                       end = (uint32_t)((uint64_t)(level + 1) * cut / n_levels);
        const double mean = level_mean(m, begin, end);
        for (uint32_t i = begin; i < end; i++) {
            const double p = ((double)m[i] + (i + 1 == end_used ? (double)beyond : 0)) / all;
            if (m[i])
                sum += p * fn_log_d(p / (mean / inside));
        }
    }
    return end_used ? larger(sum, 0) : -1;
}

enum { CUTS = 128 }; /* tried: a cut is found to 1 % */

static void choose_entropy(const struct observer *o, struct code_grid grid, struct range *r)
{
    uint64_t m[HISTOGRAM_SIDE], beyond = 0;
    const uint32_t n_used = fold(o->histogram, m), n_codes = (uint32_t)(grid.q_max - grid.q_min + 1);
    const bool one_side = !grid.symmetric && (r->low == 0 || r->high == 0);
    const uint32_t n_levels = one_side ? n_codes : n_codes / 2, stride = n_used / CUTS + 1;
    uint32_t best_cut = n_used, last = n_used;
    double best = -1;
    for (uint32_t cut = n_used; cut >= n_levels && cut > 0; cut = cut > stride ? cut - stride : 0) {
        while (last > cut)
            beyond += m[--last];
        const double d = divergence(m, cut, beyond, n_levels);
        if (d >= 0 && (best < 0 || d < best)) {
            best = d;
            best_cut = cut;
        }
    }
    const double edge = histogram_edge(o->histogram, HISTOGRAM_SIDE + best_cut);
    r->low = larger(r->low, -edge);
    r->high = smaller(r->high, edge);
}

/* Tries ends at 1/@parts, 2/@parts ... of @all (which are moved: @move_low, @move_high); keeps the best in @r. */
static void try_ends(const struct observer *o, struct code_grid grid, struct range all, bool move_low, bool move_high,
                     double *best, struct range *r)
{
    enum { PARTS = 64 };
    const struct range from = *r;
    for (int part = PARTS; part > 0; part--) {
        const double share = (double)part / PARTS;
        const struct range tried = {move_low ? all.low * share : from.low, move_high ? all.high * share : from.high};
        const double error = range_error(o->histogram, range_params(tried, grid), grid);
        if (*best < 0 || error < *best) {
            *best = error;
            *r = tried;
        }
    }
}

/* Both ends together, then either alone: 192 ranges. The widest of equals stays. */
static void choose_mse(const struct observer *o, struct code_grid grid, struct range *r)
{
    const struct range all = *r;
    double best = -1;
    try_ends(o, grid, all, true, true, &best, r);
    if (grid.symmetric || all.low == 0 || all.high == 0)
        return;
    try_ends(o, grid, all, true, false, &best, r);
    try_ends(o, grid, all, false, true, &best, r);
}

int range_choose(const struct observer *o, const struct range_options *options, struct range *ret, struct qd_error *err)
{
    const enum range_method method = options->method;
    if (o->n == 0)
        return err_new(err, QD_E_INVALID, "no values were seen, so there is no range");
    if (methods[method].needs_histogram && !o->histogram)
        return err_new(err, QD_E_INVALID, "range method '%s' needs a histogram, and the statistics have none",
                       range_method_name(method));

    struct range r = {smaller((double)o->low, 0), larger((double)o->high, 0)};
    if (method == RANGE_AVERAGE)
        r = (struct range){smaller(observer_mean_low(o), 0), larger(observer_mean_high(o), 0)};
    else if (method == RANGE_PERCENTILE)
        choose_percentile(o, options->outside_ppm, &r);
    else if (method == RANGE_ENTROPY)
        choose_entropy(o, options->grid, &r);
    else if (method == RANGE_MSE)
        choose_mse(o, options->grid, &r);
    *ret = r;
    return 0;
}
