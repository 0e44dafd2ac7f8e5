#include "quant/graph/functions.h"

#include <math.h>
#include <string.h>

#include "quant/graph/functions_near.h"

#define PI_2 0x1.921fb54442d18p+0
#define PI   0x1.921fb54442d18p+1

static uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double of_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

double fn_exp_d(double x)
{
    return exp_within(x > 710.0 ? 710.0 : x < -746.0 ? -746.0 : x);
}

double fn_expm1_d(double x)
{
    return x == 0.0 ? x : x > -0.35 && x < 0.35 ? expm1_near(x) : fn_exp_d(x) - 1.0;
}

/* 1/23, 1/21, ... 1/3 */
enum { N_ODD = 11 };
static const double inverse_odd[N_ODD] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                          1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};

/* log((1 + s) / (1 - s)) = 2 (s + s^3/3 + ...) for |s| < 0.172 */
static double log_series(double s)
{
    const double z = s * s;
    double p = 0.0;
    for (int i = 0; i < N_ODD; i++)
        p = p * z + inverse_odd[i];
    return 2.0 * (s + s * (z * p));
}

double fn_log_d(double x)
{
    if (!(x > 0.0))
        return x == 0.0 ? -INFINITY : NAN;
    if (x == INFINITY)
        return x;
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t u = bits_of(x);
    e += (int64_t)(u >> 52) - 1023;
    double m = of_bits((u & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 0x1.6a09e667f3bcdp+0) { /* sqrt(2) */
        m *= 0.5;
        e++;
    }
    const double k = (double)e;
    return k * LN2_HIGH + (log_series((m - 1.0) / (m + 1.0)) + k * LN2_LOW);
}

double fn_log1p_d(double x)
{
    const double u = 1.0 + x;
    if (u == 1.0)
        return x;
    return u == INFINITY || !(u > 0.0) ? fn_log_d(u) : fn_log_d(u) * (x / (u - 1.0));
}

double fn_tanh_d(double x)
{
    if (x != x)
        return x;
    const double a = x < 0.0 ? -x : x;
    const double t = a > 20.0 ? 1.0 : fn_expm1_d(2.0 * a);
    const double y = a > 20.0 ? 1.0 : t / (t + 2.0);
    return x < 0.0 ? -y : a == 0.0 ? x : y;
}

double fn_erf_d(double x)
{
    const double a = fabs(x), z = a * a;
    if (a < 1.0)
        return x * erf_near(z);
    return copysign(a < 6.0 ? 1.0 - exp_within(-z) * erfc_scaled(a) : a >= 6.0 ? 1.0 : a, x);
}

/* ---- angles ---- */

static double sin_near(double r)
{
    const double z = r * r;
    double p = -1.0 / 121645100408832000.0;
    p = p * z + 1.0 / 355687428096000.0;
    p = p * z - 1.0 / 1307674368000.0;
    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800.0;
    p = p * z + 1.0 / 362880.0;
    p = p * z - 1.0 / 5040.0;
    p = p * z + 1.0 / 120.0;
    p = p * z - 1.0 / 6.0;
    return r + r * z * p;
}

static double cos_near(double r)
{
    const double z = r * r;
    double p = 1.0 / 2432902008176640000.0;
    p = p * z - 1.0 / 6402373705728000.0;
    p = p * z + 1.0 / 20922789888000.0;
    p = p * z - 1.0 / 87178291200.0;
    p = p * z + 1.0 / 479001600.0;
    p = p * z - 1.0 / 3628800.0;
    p = p * z + 1.0 / 40320.0;
    p = p * z - 1.0 / 720.0;
    p = p * z + 1.0 / 24.0;
    return 1.0 - 0.5 * z + z * z * p;
}

/* x = quarter * pi/2 + r, |r| <= pi/4 and a little; pi/2 in parts of 24 bits: their products with k are exact. */
static double reduce(double x, int *quarter)
{
    if (x < -0x1p29 || x > 0x1p29)
        x = fmod(x, 2.0 * PI); /* exact */
    const double k = (x * (1.0 / PI_2) + ROUND_SHIFT) - ROUND_SHIFT;
    *quarter = (int)((int64_t)k & 3);
    return (((x - k * 0x1.921fb40000000p+0) - k * 0x1.4442d00000000p-24) - k * 0x1.8469880000000p-48) -
           k * 0x1.8cc51701b839ap-72;
}

static double sine(double x, int turn)
{
    if (!(x > -INFINITY && x < INFINITY))
        return NAN;
    int q;
    const double r = reduce(x, &q);
    q = (q + turn) & 3;
    const double y = q & 1 ? cos_near(r) : sin_near(r);
    return q & 2 ? -y : y;
}

double fn_sin_d(double x)
{
    return x == 0.0 ? x : sine(x, 0);
}

double fn_cos_d(double x)
{
    return sine(x, 1);
}

double fn_tan_d(double x)
{
    return fn_sin_d(x) / fn_cos_d(x);
}

/* Two half-angle steps bring [0, 1] down to 0.2, where the series to x^23 is enough. */
static double atan_unit(double x)
{
    double y = x;
    for (int i = 0; i < 2; i++)
        y = y / (1.0 + sqrt(1.0 + y * y));
    const double z = y * y;
    double p = 0.0;
    for (int i = 0; i < N_ODD; i++)
        p = inverse_odd[i] - p * z;
    return 4.0 * (y - y * (z * p));
}

double fn_atan_d(double x)
{
    if (x != x || x == 0.0)
        return x;
    const double a = x < 0.0 ? -x : x;
    const double y = a > 1.0 ? PI_2 - atan_unit(1.0 / a) : atan_unit(a);
    return x < 0.0 ? -y : y;
}

double fn_asin_d(double x)
{
    return 2.0 * fn_atan_d(x / (1.0 + sqrt((1.0 - x) * (1.0 + x))));
}

double fn_acos_d(double x)
{
    return x == -1.0 ? PI : 2.0 * fn_atan_d(sqrt((1.0 - x) / (1.0 + x)));
}

/* ---- hyperbolic ---- */

double fn_sinh_d(double x)
{
    const double a = x < 0.0 ? -x : x;
    const double t = fn_expm1_d(a);
    const double y = a > 700.0 ? 0.5 * fn_exp_d(0.5 * a) * fn_exp_d(0.5 * a) : 0.5 * (t + t / (t + 1.0));
    return x < 0.0 ? -y : a == 0.0 ? x : y;
}

double fn_cosh_d(double x)
{
    const double a = x < 0.0 ? -x : x;
    if (a > 700.0)
        return 0.5 * fn_exp_d(0.5 * a) * fn_exp_d(0.5 * a);
    const double e = fn_exp_d(a);
    return 0.5 * (e + 1.0 / e);
}

double fn_asinh_d(double x)
{
    const double a = x < 0.0 ? -x : x;
    const double y =
        a > 0x1p30 ? fn_log_d(a) + 0x1.62e42fefa39efp-1 : fn_log1p_d(a + a * a / (1.0 + sqrt(1.0 + a * a)));
    return x < 0.0 ? -y : a == 0.0 ? x : y;
}

double fn_acosh_d(double x)
{
    if (x > 0x1p30)
        return fn_log_d(x) + 0x1.62e42fefa39efp-1;
    if (!(x >= 1.0))
        return NAN;
    const double t = x - 1.0;
    return fn_log1p_d(t + sqrt(2.0 * t + t * t));
}

double fn_atanh_d(double x)
{
    const double a = fabs(x);
    return copysign(0.5 * fn_log1p_d(2.0 * a / (1.0 - a)), x);
}

/* ---- powers ---- */

static int is_odd(double y)
{
    return y > -0x1p53 && y < 0x1p53 && y - 2.0 * floor(0.5 * y) == 1.0;
}

/* Small whole powers by products; others by e^(y log x), as C's pow() has their edges. */
double fn_pow_d(double x, double y)
{
    if (y == 0.0 || x == 1.0)
        return 1.0;
    if (x != x || y != y)
        return NAN;
    const double n = y < 0.0 ? -y : y;
    if (n <= 16.0 && floor(n) == n) {
        double p = x;
        for (int i = 1; i < (int)n; i++)
            p *= x;
        return y < 0.0 ? 1.0 / p : p;
    }
    if (y == 0.5 && x >= 0.0)
        return sqrt(x) + 0.0; /* of -0 it is 0 */
    const double a = x < 0.0 ? -x : x;
    const int whole = floor(y) == y;
    if (x < 0.0 && !whole && a != INFINITY)
        return NAN;
    if (a == 1.0)
        return x < 0.0 && is_odd(y) ? -1.0 : 1.0;
    const double p = fn_exp_d(y * fn_log_d(a));
    return signbit(x) && is_odd(y) ? -p : p;
}

double fn_sigmoid_d(double x)
{
    return 1.0 / (1.0 + fn_exp_d(-x));
}

/* log(1 + e^x) without overflow. */
double fn_softplus_d(double x)
{
    return x > 0.0 ? x + fn_log1p_d(fn_exp_d(-x)) : fn_log1p_d(fn_exp_d(x));
}
