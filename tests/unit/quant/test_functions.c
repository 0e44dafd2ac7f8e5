#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "quant/graph/functions.h"

typedef long double exact_fn(long double x);

static long double sigmoid_exact(long double x)
{
    return 1 / (1 + expl(-x));
}

static long double softplus_exact(long double x)
{
    return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x));
}

struct function {
    const char *name;
    double (*ours)(double);
    exact_fn *exact;
    double low, high; /* where it is tried */
    double ulps;      /* that the double may be off */
};

static const struct function functions[] = {
    {"exp", fn_exp_d, expl, -120, 100, 2},
    {"exp of small", fn_exp_d, expl, -1e-3, 1e-3, 1},
    {"exp of doubles", fn_exp_d, expl, -740, 709, 2},
    {"expm1", fn_expm1_d, expm1l, -40, 80, 4},
    {"expm1 of small", fn_expm1_d, expm1l, -.5, .5, 4},
    {"log", fn_log_d, logl, 0, 3e38, 2},
    {"log of small", fn_log_d, logl, 0, 2, 3},
    {"log1p", fn_log1p_d, log1pl, -1, 1, 4},
    {"log1p of large", fn_log1p_d, log1pl, 1, 1e30, 2},
    {"tanh", fn_tanh_d, tanhl, -22, 22, 4},
    {"tanh of small", fn_tanh_d, tanhl, -.3, .3, 4},
    {"erf", fn_erf_d, erfl, -6.5, 6.5, 3},
    {"erf of small", fn_erf_d, erfl, -1, 1, 3},
    {"sin", fn_sin_d, sinl, -40, 40, 2},
    {"sin of large", fn_sin_d, sinl, -5e8, 5e8, 3},
    {"cos", fn_cos_d, cosl, -40, 40, 2},
    {"cos of large", fn_cos_d, cosl, -5e8, 5e8, 3},
    {"tan", fn_tan_d, tanl, -40, 40, 5},
    {"asin", fn_asin_d, asinl, -1, 1, 5},
    {"acos", fn_acos_d, acosl, -1, 1, 5},
    {"atan", fn_atan_d, atanl, -20, 20, 4},
    {"sinh", fn_sinh_d, sinhl, -90, 90, 4},
    {"sinh of small", fn_sinh_d, sinhl, -.5, .5, 4},
    {"cosh", fn_cosh_d, coshl, -90, 90, 3},
    {"asinh", fn_asinh_d, asinhl, -1e10, 1e10, 4},
    {"asinh of small", fn_asinh_d, asinhl, -2, 2, 6},
    {"acosh", fn_acosh_d, acoshl, 1, 1e10, 4},
    {"acosh of small", fn_acosh_d, acoshl, 1, 3, 6},
    {"atanh", fn_atanh_d, atanhl, -1, 1, 6},
    {"sigmoid", fn_sigmoid_d, sigmoid_exact, -100, 100, 3},
    {"softplus", fn_softplus_d, softplus_exact, -100, 100, 4},
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0], N_POINTS = 20000 };

/* A point of [low, high]: every other one spread over magnitudes. */
static double point(const struct function *f, unsigned i, uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    const double u = (double)*seed / 0x1p32, x = f->low + (f->high - f->low) * u;
    return i % 2 ? x : f->low >= 0 ? f->low + (x - f->low) * exp2(-40 * u) : x * exp2(-20 * u);
}

/* Units in the last place, of a format with @bits of mantissa and least exponent @least, that @x is off. */
static double ulps_off(double x, long double exact, int bits, int least)
{
    if (isnan(x) || isinf(x) || (double)exact == x)
        return (isnan(x) && isnan(exact)) || (double)exact == x ? 0 : 1e9;
    int e;
    (void)frexpl(exact, &e);
    return (double)(fabsl((long double)x - exact) / ldexpl(1, (e > least ? e : least) - bits));
}

static void functions__doubles__are_near_the_exact_value(void **state)
{
    (void)state;
    for (unsigned k = 0; k < N_FUNCTIONS; k++) {
        const struct function *f = &functions[k];
        double worst = 0, at = 0;
        uint32_t seed = 1;
        for (unsigned i = 0; i < N_POINTS; i++) {
            const double x = point(f, i, &seed), off = ulps_off(f->ours(x), f->exact(x), 53, -1021);
            if (off > worst) {
                worst = off;
                at = x;
            }
        }
        if (worst > f->ulps)
            fail_msg("%s is %g units off at %.17g", f->name, worst, at);
    }
}

static void functions__floats__are_rounded_as_the_exact_value_nearly_always(void **state)
{
    (void)state;
    for (unsigned k = 0; k < N_FUNCTIONS; k++) {
        const struct function *f = &functions[k];
        uint32_t seed = 7;
        for (unsigned i = 0; i < N_POINTS; i++) {
            const float x = (float)point(f, i, &seed);
            const long double exact = f->exact(x);
            const float y = (float)f->ours(x);
            if (isinf(y) ? fabsl(exact) < 3.402823e38L : ulps_off(y, exact, 24, -125) > 0.501)
                fail_msg("%s is %g units off at %.9g", f->name, ulps_off(y, exact, 24, -125), (double)x);
        }
    }
}

static void functions__edges__are_those_of_c(void **state)
{
    (void)state;
    static const double edges[] = {0.0,       -0.0,       INFINITY, -INFINITY, 1.0,   -1.0,
                                   0x1p-1074, -0x1p-1074, 2.0,      -2.0,      1e300, -1e300};
    for (unsigned k = 0; k < N_FUNCTIONS; k++) {
        const struct function *f = &functions[k];
        assert_true(isnan(f->ours(NAN)));
        for (unsigned i = 0; i < sizeof edges / sizeof edges[0]; i++) {
            const double x = edges[i], y = f->ours(x), exact = (double)f->exact(x);
            if (f->exact == sinl || f->exact == cosl || f->exact == tanl)
                if (fabs(x) > 5e8 && !isinf(x))
                    continue; /* reduced by a rounded pi */
            if (isnan(exact)                 ? !isnan(y)
                : isinf(exact) || exact == 0 ? y != exact || signbit(y) != signbit(exact)
                                             : fabs(y - exact) > 1e-14 * fabs(exact) + 0x1p-1074)
                fail_msg("%s(%g) is %g, not %g", f->name, x, y, exact);
        }
    }
}

static void functions_pow__small_and_large_powers__are_near_the_exact_value(void **state)
{
    (void)state;
    uint32_t seed = 3;
    for (unsigned i = 0; i < N_POINTS; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float x = (float)(seed >> 12) / 4096.0f, y = ((float)(seed & 0xfff) - 2048.0f) / 256.0f;
        const long double exact = powl(x, y);
        if (fabsl(exact) < 3e38L && ulps_off((float)fn_pow_d(x, y), exact, 24, -125) > 0.501)
            fail_msg("%g to the power of %g is %.9g", (double)x, (double)y, fn_pow_d(x, y));
    }
}

static void functions_pow__edges__are_those_of_c(void **state)
{
    (void)state;
    static const double edges[] = {0.0,  -0.0, INFINITY, -INFINITY, 1.0,  -1.0, 2.0,   -2.0, 3.0,
                                   -3.0, 0.5,  -0.5,     1e300,     33.0, 34.0, -33.0, NAN};
    for (unsigned i = 0; i < sizeof edges / sizeof edges[0]; i++)
        for (unsigned j = 0; j < sizeof edges / sizeof edges[0]; j++) {
            const double x = edges[i], y = edges[j], ours = fn_pow_d(x, y), exact = pow(x, y);
            if (isnan(exact)                 ? !isnan(ours)
                : isinf(exact) || exact == 0 ? ours != exact || signbit(ours) != signbit(exact)
                                             : fabs(ours - exact) > 1e-13 * fabs(exact))
                fail_msg("%g to the power of %g is %g, not %g", x, y, ours, exact);
        }
}

typedef void array_fn(float *dst, const float *src, uint64_t n);

static void check_array(array_fn *array, double (*one)(double))
{
    enum { N = 4099 };
    static float src[N], dst[N];
    static const float edges[] = {0.0f,  -0.0f,   INFINITY, -INFINITY, NAN,  0x1p-149f, -0x1p-149f,
                                  89.0f, -104.0f, 1e30f,    -1e30f,    1.0f, -1.0f};
    uint32_t seed = 5;
    for (unsigned i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        src[i] =
            i < sizeof edges / sizeof edges[0] ? edges[i] : ((float)(seed >> 8) - 0x1p23f) * exp2f(-(float)(seed % 40));
    }
    array(dst, src, N);
    for (unsigned i = 0; i < N; i++) {
        const float expected = (float)one(src[i]);
        if (isnan(expected) ? !isnan(dst[i]) : memcmp(&dst[i], &expected, sizeof expected) != 0)
            fail_msg("of %.9g: %.9g, not %.9g", (double)src[i], (double)dst[i], (double)expected);
    }
}

static void functions_array__any_float__has_the_bits_of_the_single_form(void **state)
{
    (void)state;
    check_array(fn_exp_array, fn_exp_d);
    check_array(fn_tanh_array, fn_tanh_d);
    check_array(fn_sigmoid_array, fn_sigmoid_d);
    check_array(fn_erf_array, fn_erf_d);
}

/* FNV-1a. Bits of a NaN are the CPU's own. */
static uint64_t hash_double(uint64_t hash, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    for (unsigned i = 0; i < sizeof bits && !isnan(x); i++)
        hash = (hash ^ (bits >> (8 * i) & 0xff)) * UINT64_C(1099511628211);
    return hash;
}

/* The digest is that of gcc 12 with -O0, -O2 and -march=native, of clang 14, and of gcc for aarch64. */
static void functions__any_build__give_the_bits_of_the_digest(void **state)
{
    (void)state;
    uint64_t hash = UINT64_C(1469598103934665603);
    uint32_t seed = 1;
    for (unsigned i = 0; i < N_POINTS; i++) {
        seed = seed * 1664525u + 1013904223u;
        const double x = ldexp((double)(seed >> 4) - 0x1p27, -(int)(seed % 40));
        for (unsigned k = 0; k < N_FUNCTIONS; k++)
            hash = hash_double(hash, functions[k].ours(x));
        hash = hash_double(hash, fn_pow_d(fabs(x), 1.7));
    }
    assert_true(hash == UINT64_C(0x325b97e52029549e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions__doubles__are_near_the_exact_value),
        cmocka_unit_test(functions__floats__are_rounded_as_the_exact_value_nearly_always),
        cmocka_unit_test(functions__edges__are_those_of_c),
        cmocka_unit_test(functions_pow__small_and_large_powers__are_near_the_exact_value),
        cmocka_unit_test(functions_pow__edges__are_those_of_c),
        cmocka_unit_test(functions__any_build__give_the_bits_of_the_digest),
        cmocka_unit_test(functions_array__any_float__has_the_bits_of_the_single_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
