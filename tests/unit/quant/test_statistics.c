#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cpu.h"
#include "quant/calib/range.h"
#include "statistics/statistics.h"

enum { BUDGET = 16 << 20 };

static const struct digest model = {{1, 2, 3}};

static struct statistics *new_statistics(uint8_t set)
{
    const struct digest data = {{set}};
    struct statistics *s = statistics_new(&model);
    assert_non_null(s);
    assert_int_equal(statistics_add_set(s, &data, NULL), 0);
    return s;
}

/* Samples number [@from, @to) of two edges, one of them with two channels. */
static void watch(struct statistics *s, int from, int to)
{
    for (int i = from; i < to; i++) {
        const float x[6] = {(float)i, -0.5f * (float)i, 0, 3, 1e-3f * (float)i, (float)(i % 7) * 1e4f};
        struct edge_statistics *e;
        assert_int_equal(statistics_edge(s, "b", true, 1, 2, &e, NULL), 0);
        assert_int_equal(observer_add(e->all, ops_native(), x, 6, NULL), 0);
        for (int c = 0; c < 2; c++)
            assert_int_equal(observer_add(e->channels[c], ops_native(), x + 3 * c, 3, NULL), 0);
        assert_int_equal(statistics_edge(s, "a", false, 0, 0, &e, NULL), 0);
        assert_int_equal(observer_add(e->all, ops_native(), x, 4, NULL), 0);
    }
}

static void encode(const struct statistics *s, struct buffer *b)
{
    assert_int_equal(statistics_encode(s, b, NULL), 0);
}

static void assert_same(const struct statistics *a, const struct statistics *b)
{
    CLEANUP(buffer_clear) struct buffer x = {0}, y = {0};
    encode(a, &x);
    encode(b, &y);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n);
}

static void statistics_merge__two_sets__are_the_statistics_of_both(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *all = new_statistics(7), *a = new_statistics(7), *b = new_statistics(9);
    assert_int_equal(statistics_add_set(all, &b->sets[0], NULL), 0);
    watch(all, 1, 200);
    watch(a, 1, 77);
    watch(b, 77, 200);
    assert_int_equal(statistics_merge(b, a, NULL), 0);
    assert_same(all, b);
}

static void statistics_merge__another_model_or_the_same_set__is_refused(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *a = new_statistics(7), *b = new_statistics(7), *c = new_statistics(8);
    struct qd_error err = {0};
    assert_int_equal(statistics_merge(a, b, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "count twice"));
    c->model.bytes[5] = 1;
    assert_int_equal(statistics_merge(a, c, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "another model"));
}

static void statistics_merge__other_channels__is_refused_by_name(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *a = new_statistics(7), *b = new_statistics(8);
    struct edge_statistics *e;
    struct qd_error err = {0};
    assert_int_equal(statistics_edge(a, "x", false, 1, 3, &e, NULL), 0);
    assert_int_equal(statistics_edge(b, "x", false, 1, 4, &e, NULL), 0);
    assert_int_equal(statistics_merge(a, b, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "'x'"));
    assert_int_equal(statistics_edge(a, "x", false, 2, 3, &e, &err), QD_E_INVALID);
}

static void statistics_edge__many_in_any_order__are_found(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1);
    struct edge_statistics *e;
    char name[16];
    for (int i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof name, "edge%d", i * 263 % 500);
        assert_int_equal(statistics_edge(s, name, false, 0, 0, &e, NULL), 0);
        assert_string_equal(e->name, name);
    }
    assert_int_equal(s->n_edges, 500);
    for (int i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof name, "edge%d", i);
        assert_non_null(statistics_find(s, name));
    }
    assert_null(statistics_find(s, "edge500"));
}

static void statistics_decode__what_was_encoded__gives_the_same_ranges(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1), *back = NULL;
    CLEANUP(buffer_clear) struct buffer b = {0};
    watch(s, 1, 50);
    encode(s, &b);
    assert_int_equal(statistics_decode(buffer_span(&b), BUDGET, &back, NULL), 0);
    assert_same(s, back);
    for (int m = 0; m < RANGE_N_METHODS; m++) {
        const struct range_options o = {(enum range_method)m, grid_u8, 1000};
        struct range x, y;
        assert_int_equal(range_choose(statistics_find(s, "b")->all, &o, &x, NULL), 0);
        assert_int_equal(range_choose(statistics_find(back, "b")->all, &o, &y, NULL), 0);
        assert_memory_equal(&x, &y, sizeof x);
    }
    CLEANUP(statistics_free) struct statistics *more = new_statistics(2);
    watch(more, 50, 60);
    assert_int_equal(statistics_merge(back, more, NULL), 0); /* what was read can grow */
}

static void statistics_decode__every_prefix_and_a_byte_more__is_refused(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1), *back = NULL;
    CLEANUP(buffer_clear) struct buffer b = {0};
    watch(s, 1, 5);
    encode(s, &b);
    for (size_t n = 0; n < b.n; n++) {
        struct qd_error err = {0};
        assert_int_equal(statistics_decode((struct bytes){b.data, n}, BUDGET, &back, &err), QD_E_CORRUPT);
        assert_non_null(strstr(err.message, "statistics"));
    }
    buffer_put_u8(&b, 0);
    assert_int_equal(statistics_decode(buffer_span(&b), BUDGET, &back, NULL), QD_E_CORRUPT);
}

static void statistics_decode__any_byte_changed__is_refused_or_means_what_it_says(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1);
    CLEANUP(buffer_clear) struct buffer b = {0};
    watch(s, 1, 5);
    encode(s, &b);
    for (size_t i = 0; i < b.n; i++)
        for (unsigned change = 1; change < 256; change += 2) {
            CLEANUP(statistics_free) struct statistics *back = NULL;
            CLEANUP(buffer_clear) struct buffer again = {0};
            b.data[i] ^= (uint8_t)change;
            const int r = statistics_decode(buffer_span(&b), BUDGET, &back, NULL);
            assert_true(r == 0 || r == QD_E_CORRUPT || r == QD_E_LIMIT || r == QD_E_UNSUPPORTED);
            if (r == 0) {
                encode(back, &again);
                assert_int_equal(again.n, b.n);
                assert_memory_equal(again.data, b.data, b.n);
            }
            b.data[i] ^= (uint8_t)change;
        }
}

/* What @change does to an edge with a histogram is noticed, and said. */
static void expect_refused(void (*change)(struct observer *o), const char *says)
{
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1), *back = NULL;
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct qd_error err = {0};
    watch(s, 1, 5);
    change(statistics_find(s, "b")->all);
    encode(s, &b);
    assert_int_equal(statistics_decode(buffer_span(&b), BUDGET, &back, &err), QD_E_CORRUPT);
    if (!strstr(err.message, "tensor 'b'") || !strstr(err.message, says))
        fail_msg("%s", err.message);
}

static void count_more(struct observer *o)
{
    o->n++;
}

static void count_beyond_64_bits(struct observer *o)
{
    o->histogram->n_zeros = UINT64_MAX;
}

static void widen_bins(struct observer *o)
{
    o->histogram->exponent++;
}

static void turn_around(struct observer *o)
{
    const float low = o->low;
    o->low = o->high;
    o->high = low;
}

static void have_more_samples_than_values(struct observer *o)
{
    o->n_samples = o->n + 1;
}

static void be_infinite(struct observer *o)
{
    o->high = INFINITY;
}

static void be_minus_zero(struct observer *o)
{
    o->high = -0.0f;
}

static void statistics_decode__an_edge_that_contradicts_itself__is_refused_by_name(void **state)
{
    (void)state;
    expect_refused(count_more, "counts more or fewer values");
    expect_refused(count_beyond_64_bits, "overflow");
    expect_refused(widen_bins, "another width");
    expect_refused(turn_around, "contradict");
    expect_refused(have_more_samples_than_values, "contradict");
    expect_refused(be_infinite, "malformed");
    expect_refused(be_minus_zero, "malformed");
}

static void statistics_decode__more_histograms_than_the_budget__is_refused(void **state)
{
    (void)state;
    CLEANUP(statistics_free) struct statistics *s = new_statistics(1), *back = NULL;
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct edge_statistics *e;
    char name[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "%d", i);
        assert_int_equal(statistics_edge(s, name, true, 0, 0, &e, NULL), 0);
    }
    encode(s, &b);
    assert_int_equal(statistics_decode(buffer_span(&b), 1 << 20, &back, NULL), QD_E_LIMIT);
    assert_int_equal(statistics_decode(buffer_span(&b), BUDGET, &back, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_merge__two_sets__are_the_statistics_of_both),
        cmocka_unit_test(statistics_merge__another_model_or_the_same_set__is_refused),
        cmocka_unit_test(statistics_merge__other_channels__is_refused_by_name),
        cmocka_unit_test(statistics_edge__many_in_any_order__are_found),
        cmocka_unit_test(statistics_decode__what_was_encoded__gives_the_same_ranges),
        cmocka_unit_test(statistics_decode__every_prefix_and_a_byte_more__is_refused),
        cmocka_unit_test(statistics_decode__any_byte_changed__is_refused_or_means_what_it_says),
        cmocka_unit_test(statistics_decode__an_edge_that_contradicts_itself__is_refused_by_name),
        cmocka_unit_test(statistics_decode__more_histograms_than_the_budget__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
