#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu.h"
#include "quant/calib/range.h"

static struct observer *observe(const float *x, uint64_t n)
{
    struct observer *o;
    assert_int_equal(observer_new(true, &o, NULL), 0);
    assert_int_equal(observer_add(o, ops_native(), x, n, NULL), 0);
    return o;
}

/* About normal: a sum of twelve uniform numbers. */
static void fill_normal(float *x, uint64_t n)
{
    uint32_t seed = 1;
    for (uint64_t i = 0; i < n; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float)(seed >> 8) / 0x1p24f;
        }
        x[i] = sum;
    }
}

static struct range choose(const struct observer *o, enum range_method method, struct code_grid grid)
{
    struct range r;
    const struct range_options options = {method, grid, 1000};
    assert_int_equal(range_choose(o, &options, &r, NULL), 0);
    return r;
}

static double true_error(const float *x, uint64_t n, struct code_params p, struct code_grid grid)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        const double code = fmin(grid.q_max, fmax(grid.q_min, rint((double)x[i] / (double)p.scale) + p.zero_point));
        const double e = (double)x[i] - (code - p.zero_point) * (double)p.scale;
        sum += e * e;
    }
    return sum;
}

static void range_params__any_range__represents_zero_and_covers_it(void **state)
{
    (void)state;
    static const struct range ranges[] = {{0, 1},        {-1, 0},    {-1, 1},      {-3e38, 3e38},  {-1e-3, 1e3},
                                          {0, 0x1p-149}, {2.5, 9.5}, {-9.5, -2.5}, {-1e-30, 1e-30}};
    const struct code_grid grids[] = {grid_u8, grid_s8, grid_s8_symmetric, grid_u7, grid_s7_symmetric};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
            const struct code_params p = range_params(ranges[i], grids[g]);
            const double step = (double)p.scale;
            assert_true(isnormal(p.scale) && p.scale > 0);
            assert_in_range(p.zero_point + 1000, grids[g].q_min + 1000, grids[g].q_max + 1000);
            assert_true((grids[g].q_max - p.zero_point) * step >= ranges[i].high - 0.51 * step);
            assert_true((grids[g].q_min - p.zero_point) * step <= ranges[i].low + 0.51 * step);
            if (grids[g].symmetric)
                assert_int_equal(p.zero_point, 0);
        }
}

static void range_params__known_ranges__have_the_values_of_the_rule(void **state)
{
    (void)state;
    struct code_params p = range_params((struct range){-1, 1.55}, grid_u8);
    assert_true(p.scale == (float)(2.55 / 255));
    assert_int_equal(p.zero_point, 100);
    p = range_params((struct range){-1, 1.55}, grid_s8);
    assert_int_equal(p.zero_point, -28);
    p = range_params((struct range){-2, 1}, grid_s8_symmetric);
    assert_true(p.scale == (float)(2.0 / 127));
    p = range_params((struct range){0, 0}, grid_s8);
    assert_true(p.scale == 1 && p.zero_point == 0);
}

static void range_choose__no_values_or_no_histogram__is_an_error(void **state)
{
    (void)state;
    struct qd_error err = {0};
    struct range r;
    CLEANUP(observer_free) struct observer *o = NULL;
    assert_int_equal(observer_new(false, &o, NULL), 0);
    const struct range_options options = {RANGE_MSE, grid_u8, 0};
    assert_int_equal(range_choose(o, &options, &r, &err), QD_E_INVALID);
    assert_int_equal(observer_add(o, ops_native(), (const float[]){1}, 1, NULL), 0);
    assert_int_equal(range_choose(o, &options, &r, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "'mse' needs a histogram"));
    assert_true(choose(o, RANGE_MIN_MAX, grid_u8).high == 1);
}

static void range_choose__constants_zeros_and_denormals__are_defined_for_every_method(void **state)
{
    (void)state;
    static const float constants[] = {0, -0.0f, 3.5f, -3.5f, 0x1p-149f, -0x1p-149f, FLT_MAX, -FLT_MAX};
    const struct code_grid grids[] = {grid_u8, grid_s8_symmetric};
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        const float x[3] = {constants[i], constants[i], constants[i]};
        CLEANUP(observer_free) struct observer *o = observe(x, 3);
        for (int m = 0; m < RANGE_N_METHODS; m++)
            for (int g = 0; g < 2; g++) {
                const struct range r = choose(o, (enum range_method)m, grids[g]);
                const double step = (double)range_params(r, grids[g]).scale;
                assert_true(r.low <= 0 && r.high >= 0 && isfinite(r.low) && isfinite(r.high));
                assert_true(r.low >= fmin((double)x[0], 0) && r.high <= fmax((double)x[0], 0));
                assert_true(isnormal(step));
            }
    }
}

static void range_choose__percentile__leaves_out_that_share(void **state)
{
    (void)state;
    enum { N = 100000 };
    static float x[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)i - N / 2;
    CLEANUP(observer_free) struct observer *o = observe(x, N);
    const struct range r = choose(o, RANGE_PERCENTILE, grid_u8); /* 1000 ppm: 50 values from either end */
    assert_true(r.low >= -50000 && r.low <= -49950);
    assert_true(r.high <= 50000 && r.high >= 49950 - 1);
    const struct range_options most = {RANGE_PERCENTILE, grid_u8, 500000};
    struct range half;
    assert_int_equal(range_choose(o, &most, &half, NULL), 0);
    assert_true(fabs(half.low + 25000) <= 64 && fabs(half.high - 25000) <= 64);
}

static void range_choose__normal_values_with_one_outlier__are_cut_by_mse_and_entropy(void **state)
{
    (void)state;
    enum { N = 50000 };
    static float x[N];
    fill_normal(x, N);
    x[77] = 40;
    CLEANUP(observer_free) struct observer *o = observe(x, N);
    const struct code_grid grids[] = {grid_u8, grid_s8_symmetric};
    for (int g = 0; g < 2; g++) {
        const struct range all = choose(o, RANGE_MIN_MAX, grids[g]), mse = choose(o, RANGE_MSE, grids[g]),
                           kl = choose(o, RANGE_ENTROPY, grids[g]);
        assert_true(all.high == 40);
        assert_true(kl.high < 20 && kl.high > 1);
        assert_true(mse.high < 40);
        assert_true(true_error(x, N, range_params(mse, grids[g]), grids[g]) <
                    true_error(x, N, range_params(all, grids[g]), grids[g]));
    }
}

static void range_error__normal_values__is_near_the_error_of_the_values_themselves(void **state)
{
    (void)state;
    enum { N = 50000 };
    static float x[N];
    fill_normal(x, N);
    CLEANUP(observer_free) struct observer *o = observe(x, N);
    for (double high = 0.5; high < 8; high += 0.25) {
        const struct range r = {-high, high};
        const struct code_params p = range_params(r, grid_u8);
        const double estimate = range_error(o->histogram, p, grid_u8), truth = true_error(x, N, p, grid_u8);
        assert_true(fabs(estimate - truth) < 0.03 * truth);
    }
}

static void range_method_by_name__a_wrong_name__lists_those_there_are(void **state)
{
    (void)state;
    enum range_method m;
    struct qd_error err = {0};
    for (int i = 0; i < RANGE_N_METHODS; i++) {
        assert_int_equal(range_method_by_name(range_method_name((enum range_method)i), &m, &err), 0);
        assert_int_equal(m, i);
    }
    assert_int_equal(range_method_by_name("entropie", &m, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "entropy"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_params__any_range__represents_zero_and_covers_it),
        cmocka_unit_test(range_params__known_ranges__have_the_values_of_the_rule),
        cmocka_unit_test(range_choose__no_values_or_no_histogram__is_an_error),
        cmocka_unit_test(range_choose__constants_zeros_and_denormals__are_defined_for_every_method),
        cmocka_unit_test(range_choose__percentile__leaves_out_that_share),
        cmocka_unit_test(range_choose__normal_values_with_one_outlier__are_cut_by_mse_and_entropy),
        cmocka_unit_test(range_error__normal_values__is_near_the_error_of_the_values_themselves),
        cmocka_unit_test(range_method_by_name__a_wrong_name__lists_those_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
