#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu.h"
#include "statistics/observer.h"

enum { N = 5003 };

static struct observer *new_observer(void)
{
    struct observer *o;
    assert_int_equal(observer_new(true, &o, NULL), 0);
    return o;
}

static void add(struct observer *o, const float *x, uint64_t n)
{
    assert_int_equal(observer_add(o, ops_native(), x, n, NULL), 0);
}

/* Values of many magnitudes, some zeros of either sign. */
static void fill(float *x, uint64_t n, uint32_t seed)
{
    for (uint64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float sign = seed >> 31 ? -1.0f : 1.0f;
        x[i] = seed % 11 == 0 ? sign * 0.0f : sign * ldexpf((float)(seed >> 8 & 0xffff), (int)(seed >> 24 & 31) - 20);
    }
}

static void assert_same(const struct observer *a, const struct observer *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->n_samples, b->n_samples);
    assert_memory_equal(&a->low, &b->low, sizeof a->low);
    assert_memory_equal(&a->high, &b->high, sizeof a->high);
    assert_memory_equal(&a->lows, &b->lows, sizeof a->lows);
    assert_memory_equal(&a->highs, &b->highs, sizeof a->highs);
    assert_memory_equal(a->histogram, b->histogram, sizeof *a->histogram);
}

static void observer_merge__two_halves__are_the_observer_of_all(void **state)
{
    (void)state;
    static float x[N];
    for (uint32_t seed = 1; seed < 20; seed++) {
        fill(x, N, seed);
        CLEANUP(observer_free) struct observer *all = new_observer(), *a = new_observer(), *b = new_observer();
        const uint64_t cut = seed * 200;
        add(all, x, cut);
        add(all, x + cut, N - cut);
        add(a, x, cut);
        add(b, x + cut, N - cut);
        observer_merge(b, a); /* the other way round */
        assert_same(all, b);
        assert_int_equal(histogram_count(all->histogram), N);
    }
}

static void histogram_merge__narrow_and_wide_bins__are_the_same_either_way(void **state)
{
    (void)state;
    const float small[] = {1e-3f, -2e-3f, 3e-3f, 0}, large[] = {1e3f, -5e2f, 3};
    CLEANUP(observer_free)
    struct observer *all = new_observer(), *a = new_observer(), *b = new_observer(), *c = new_observer();
    add(all, small, 4);
    add(all, large, 3);
    add(a, small, 4);
    add(b, large, 3);
    observer_merge(c, a);
    observer_merge(a, b); /* wide into narrow */
    observer_merge(b, c); /* narrow into wide */
    assert_same(all, a);
    assert_same(all, b);
}

static void observer_add__samples_in_another_order__give_the_same_bits(void **state)
{
    (void)state;
    enum { SAMPLES = 50, EACH = 100 };
    static float x[SAMPLES * EACH];
    fill(x, SAMPLES * EACH, 3);
    CLEANUP(observer_free) struct observer *up = new_observer(), *down = new_observer();
    for (int i = 0; i < SAMPLES; i++) {
        add(up, x + i * EACH, EACH);
        add(down, x + (SAMPLES - 1 - i) * EACH, EACH);
    }
    assert_same(up, down);
}

static void observer_add__a_nan_or_infinity__says_where_and_changes_nothing(void **state)
{
    (void)state;
    float x[40] = {1, 2, 3};
    CLEANUP(observer_free) struct observer *o = new_observer(), *before = new_observer();
    add(o, x, 3);
    add(before, x, 3);
    struct qd_error err = {0};
    x[37] = NAN;
    assert_int_equal(observer_add(o, ops_native(), x, 40, &err), QD_E_INVALID);
    assert_string_equal(err.message, "element 37 of 40 is NaN");
    x[5] = -INFINITY;
    assert_int_equal(observer_add(o, ops_native(), x, 40, &err), QD_E_INVALID);
    assert_string_equal(err.message, "element 5 of 40 is infinite");
    assert_same(o, before);
}

static void histogram_add__every_value__lies_in_its_bin(void **state)
{
    (void)state;
    static const float values[] = {1.0f,    -1.0f,   0x1p-149f, -0x1p-149f, FLT_MAX, -FLT_MAX,
                                   FLT_MIN, 1000.5f, -3.25f,    4096.0f,    -4096.0f};
    static struct histogram h;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        const float x = values[i];
        histogram_clear(&h);
        histogram_add(&h, &x, 1, x, x);
        uint32_t bin = 0;
        while (h.bins[bin] == 0)
            bin++;
        assert_int_equal(h.bins[bin], 1);
        assert_true(histogram_edge(&h, bin) <= (double)x && (double)x < histogram_edge(&h, bin + 1));
        const uint32_t from_zero = bin >= HISTOGRAM_SIDE ? bin - HISTOGRAM_SIDE : HISTOGRAM_SIDE - 1 - bin;
        if (h.exponent > HISTOGRAM_EXPONENT_MIN)
            assert_in_range(from_zero, HISTOGRAM_SIDE / 2 - 1, HISTOGRAM_SIDE - 1); /* as narrow as can be */
        assert_true(h.exponent <= HISTOGRAM_EXPONENT_MAX);
    }
}

static void exact_sum__values_that_cancel__leave_the_small_one(void **state)
{
    (void)state;
    struct exact_sum s = {{0}};
    exact_sum_add(&s, FLT_MAX);
    exact_sum_add(&s, 0x1p-149f);
    exact_sum_add(&s, -FLT_MAX);
    assert_true(exact_sum_value(&s) == 0x1p-149);
    exact_sum_add(&s, -1.5f);
    assert_true(exact_sum_value(&s) == -1.5);
    for (int i = 0; i < 1000; i++)
        exact_sum_add(&s, -FLT_MAX);
    assert_true(exact_sum_value(&s) == -1000.0 * (double)FLT_MAX);
}

static void observer_mean__samples__is_that_of_their_extremes(void **state)
{
    (void)state;
    CLEANUP(observer_free) struct observer *o = new_observer();
    assert_true(observer_mean_low(o) == 0);
    add(o, (const float[]){-1, 5, 2}, 3);
    add(o, (const float[]){-4, 3}, 2);
    add(o, NULL, 0);
    assert_true(observer_mean_low(o) == -2.5);
    assert_true(observer_mean_high(o) == 4);
    assert_int_equal(o->n_samples, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(observer_merge__two_halves__are_the_observer_of_all),
        cmocka_unit_test(histogram_merge__narrow_and_wide_bins__are_the_same_either_way),
        cmocka_unit_test(observer_add__samples_in_another_order__give_the_same_bits),
        cmocka_unit_test(observer_add__a_nan_or_infinity__says_where_and_changes_nothing),
        cmocka_unit_test(histogram_add__every_value__lies_in_its_bin),
        cmocka_unit_test(exact_sum__values_that_cancel__leave_the_small_one),
        cmocka_unit_test(observer_mean__samples__is_that_of_their_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
