/* Functions of arrays: loops without a branch, which a compiler makes vectors of (built with -O3). */
#include <math.h>

#include "quant/graph/functions.h"
#include "quant/graph/functions_near.h"

static inline double clamped(double x, double low, double high)
{
    x = x > high ? high : x; /* NaN stays */
    return x < low ? low : x;
}

static inline float narrow(double x)
{
    return (float)x;
}

void fn_exp_array(float *dst, const float *src, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        dst[i] = narrow(exp_within(clamped(src[i], -746.0, 710.0)));
}

void fn_exp_array_d(double *dst, const double *src, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        dst[i] = exp_within(clamped(src[i], -746.0, 710.0));
}

/* (e^2a - 1) / (e^2a + 1), where e^2a - 1 is a series for small a; the sign of zero comes back by copysign. */
void fn_tanh_array(float *dst, const float *src, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const double a = clamped(fabs((double)src[i]) * 2.0, 0.0, 40.0);
        const double near = expm1_near(clamped(a, 0.0, 0.35)), far = exp_within(a) - 1.0;
        const double t = a < 0.35 ? near : far;
        dst[i] = narrow(copysign(t / (t + 2.0), src[i]));
    }
}

void fn_sigmoid_array(float *dst, const float *src, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        dst[i] = narrow(1.0 / (1.0 + exp_within(clamped(-(double)src[i], -746.0, 709.0))));
}

void fn_erf_array(float *dst, const float *src, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const double a = clamped(fabs((double)src[i]), 0.0, 6.0), z = a * a;
        const double near = a * erf_near(z), far = 1.0 - exp_within(-z) * erfc_scaled(a);
        dst[i] = narrow(copysign(a < 1.0 ? near : far, src[i]));
    }
}
