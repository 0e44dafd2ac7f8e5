/* The series behind functions.h, without a branch: functions.c and functions_array.c give the same bits by them. */
#ifndef QUANTD_GRAPH_FUNCTIONS_NEAR_H
#define QUANTD_GRAPH_FUNCTIONS_NEAR_H

#include <stdint.h>
#include <string.h>

#define LN2_HIGH    0x1.62e42fee00000p-1 /* 33 bits: its products with an exponent are exact */
#define LN2_LOW     0x1.a39ef35793c76p-33
#define LOG2_E      0x1.71547652b82fep+0
#define ROUND_SHIFT 0x1.8p52 /* added and taken away: the nearest integer of what is below 2^51 */

/* e^r - 1 for |r| <= 0.35: the series to r^14, from the small end. */
static inline double expm1_near(double r)
{
    double p = 1.0 / 87178291200.0;
    p = p * r + 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    return r + r * r * p;
}

/* 2^k; @shifted is ROUND_SHIFT + k, k that of a normal number. */
static inline double power_of_shifted(double shifted)
{
    uint64_t u;
    memcpy(&u, &shifted, sizeof u);
    u = (u + 1023) << 52; /* what stands above the low 12 bits is pushed out */
    memcpy(&shifted, &u, sizeof u);
    return shifted;
}

/* e^x for x in [-746, 710] and NaN. Scaled in two steps: 2^k alone may be no normal number. */
static inline double exp_within(double x)
{
    const double k = (x * LOG2_E + ROUND_SHIFT) - ROUND_SHIFT;
    const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    const double half = (k * 0.5 + ROUND_SHIFT) - ROUND_SHIFT;
    return (1.0 + expm1_near(r)) * power_of_shifted(half + ROUND_SHIFT) * power_of_shifted((k - half) + ROUND_SHIFT);
}

/* erf(a) / a for z = a * a in [0, 1]: interpolated at 12 Chebyshev points of the exact function, 1e-17 off. */
static inline double erf_near(double z)
{
    double p = -0x1.ac9585a44fe29p-31;
    p = p * z + 0x1.d76af6ca49787p-27;
    p = p * z - 0x1.5c131500d3f88p-23;
    p = p * z + 0x1.b981d78881a5dp-20;
    p = p * z - 0x1.f4ca838adb73bp-17;
    p = p * z + 0x1.f9a2be4f731a1p-14;
    p = p * z - 0x1.c02db0665e53dp-11;
    p = p * z + 0x1.565bccfa44156p-8;
    p = p * z - 0x1.b82ce31203772p-6;
    p = p * z + 0x1.ce2f21a040f66p-4;
    p = p * z - 0x1.812746b0379c1p-2;
    return p * z + 0x1.20dd750429b6dp+0;
}

/* (1 - erf(a)) e^(a^2) for a in [1, 6]; interpolated in (a - 3) / (a + 3) at 15 Chebyshev points, 2e-16 off. */
static inline double erfc_scaled(double a)
{
    const double t = (a - 3.0) / (a + 3.0);
    double p = 0x1.57a5fe2b9b75ep-20;
    p = p * t + 0x1.0f9a79cee3e31p-19;
    p = p * t - 0x1.0cb4611cc29f6p-17;
    p = p * t - 0x1.af2329d757293p-17;
    p = p * t + 0x1.0cb1db32e0c9fp-14;
    p = p * t + 0x1.7b9fc8eb630e9p-15;
    p = p * t - 0x1.39085a31b18abp-11;
    p = p * t + 0x1.73101ea8fe252p-11;
    p = p * t + 0x1.17c838fea5806p-8;
    p = p * t - 0x1.8fa58eb5bd68fp-6;
    p = p * t + 0x1.258b13b0139fep-4;
    p = p * t - 0x1.336ffbef08cbbp-3;
    p = p * t + 0x1.f6ff20410599bp-3;
    p = p * t - 0x1.4e102b9cf8512p-2;
    return p * t + 0x1.6e9827d229d2dp-3;
}

#endif
