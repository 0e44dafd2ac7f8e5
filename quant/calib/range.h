/*
 * From what an observer saw to a range, and from a range to a scale and a zero point. Pure functions. Methods, what
 * they were taken from and how they differ: docs/calibration.md.
 */
#ifndef QUANTD_CALIB_RANGE_H
#define QUANTD_CALIB_RANGE_H

#include "statistics/observer.h"

/* Holds zero: low <= 0 <= high. */
struct range {
    double low, high;
};

/* RANGE_METHOD(NAME, name, needs_histogram, text) */
#define RANGE_METHODS(M)                                                                       \
    M(MIN_MAX, "min-max", false, "all values seen")                                            \
    M(AVERAGE, "average", false, "mean of the samples' least and greatest values")             \
    M(PERCENTILE, "percentile", true, "all but a share of values, half of it from either end") \
    M(ENTROPY, "entropy", true, "the cut whose codes lose the least information")              \
    M(MSE, "mse", true, "the ends whose codes have the least squared error")

enum range_method {
#define M(NAME, name, needs_histogram, text) RANGE_##NAME,
    RANGE_METHODS(M)
#undef M
        RANGE_N_METHODS
};

/* "min-max"; never NULL. */
const char *range_method_name(enum range_method m);

/* QD_E_INVALID with the names there are. */
int range_method_by_name(const char *name, enum range_method *ret, struct qd_error *err);

/*
 * The codes of a tensor: integers [q_min, q_max], at least three of them. Symmetric: zero's code is the middle one, and
 * q_min is not used where it is one further from it than q_max.
 */
struct code_grid {
    int32_t q_min, q_max;
    bool symmetric;
};

static const struct code_grid grid_u8 = {0, 255, false};
static const struct code_grid grid_s8 = {-128, 127, false};
static const struct code_grid grid_s8_symmetric = {-127, 127, true};

/* x86 without VNNI adds two products u8 * s8 in 16 bits: with 7 bits on one side none saturates. */
static const struct code_grid grid_u7 = {0, 127, false};
static const struct code_grid grid_s7_symmetric = {-64, 63, true};

struct range_options {
    enum range_method method;
    struct code_grid grid; /* MSE and ENTROPY: whose codes lose */
    uint32_t outside_ppm;  /* PERCENTILE: values outside, of a million; 100 is "99.99" */
};

/*
 * QD_E_INVALID where @o has no values, or no histogram and the method needs one. The range never passes what was seen
 * (and zero).
 */
int range_choose(const struct observer *o, const struct range_options *options, struct range *ret,
                 struct qd_error *err);

struct code_params {
    float scale;        /* normal, positive, finite */
    int32_t zero_point; /* the code of zero, which is always exact */
};

/*
 * scale = (high - low) / (q_max - q_min), rounded once to f32; zero_point = q_min - low / scale, to nearest even,
 * brought into the codes. Symmetric: scale = max(-low, high) / q_max, zero_point in the middle (0 for signed codes).
 * Nothing but zero: scale 1. A scale below the least normal float is that float.
 */
struct code_params range_params(struct range r, struct code_grid grid);

/*
 * The squared error, summed over all values of @h, of rounding to the codes of @p: values of a bin stand at its middle,
 * zeros are exact. For comparing ranges.
 */
double range_error(const struct histogram *h, struct code_params p, struct code_grid grid);

#endif
