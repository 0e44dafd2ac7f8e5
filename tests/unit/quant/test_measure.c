#include "tests/test.h"

#include <math.h>

#include "quant/measure.h"

static void error_fold__lanes__are_summed_as_a_tree(void **state)
{
    (void)state;
    /* 1 + 2^-53 is 1 again: only the tree's order (lane i with lane i + 8 first) keeps the small terms. */
    struct error_sums lanes = {.n = 16};
    lanes.noise[0] = 1;
    lanes.noise[1] = lanes.noise[9] = 0x1p-53;
    lanes.max_abs[11] = 3;
    struct error_total t = error_fold(&lanes);
    assert_true(t.noise == 1 + 0x1p-52);
    assert_true(t.max_abs == 3);
    assert_int_equal(t.n, 16);
}

static void error_sqnr__thousandfold_signal__is_thirty_db(void **state)
{
    (void)state;
    struct error_total t = {.noise = 1, .signal = 1000};
    assert_true(error_sqnr_db(&t) == 30.0);
    assert_true(fabs(error_rel_rmse(&t) - 0.0316227766) < 1e-9);
}

static void error_sqnr__exact_and_all_zero_tensors__have_no_error(void **state)
{
    (void)state;
    struct error_total exact = {.signal = 5};
    struct error_total zero = {0};
    assert_true(isinf(error_sqnr_db(&exact)) && error_sqnr_db(&exact) > 0);
    assert_true(error_rel_rmse(&exact) == 0);
    assert_true(isinf(error_sqnr_db(&zero)));
    assert_true(error_rel_rmse(&zero) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_fold__lanes__are_summed_as_a_tree),
        cmocka_unit_test(error_sqnr__thousandfold_signal__is_thirty_db),
        cmocka_unit_test(error_sqnr__exact_and_all_zero_tensors__have_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
