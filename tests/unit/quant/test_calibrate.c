#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu.h"
#include "quant/calib/calibrate.h"
#include "tests/unit/quant/small_graph.h"

enum { VALUES = 6 };

struct fixture {
    struct small_graph *small;
    struct statistics *statistics;
    int n_samples, n_given, stop_after;
    float bad; /* stands in the second sample */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const struct digest model = {{1}};
    f->small = small_graph_new(relu_neg, RELU_NEG_BYTES);
    f->statistics = statistics_new(&model);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    (void)statistics_free(f->statistics);
    (void)small_graph_free(f->small);
    free(f);
    return 0;
}

/* Sample i is [1, 2, 3] of 3i - 4 ... 3i + 1, by channel 3i - 4 ... 3i - 2 and the rest. */
static int next(void *data, struct value **inputs, const char **ret_name, struct qd_error *err)
{
    struct fixture *f = data;
    if (f->n_given == f->n_samples)
        return 0;
    int r = value_new(f->small->memory, ONNX_FLOAT, &(struct shape){3, {1, 2, 3}}, &inputs[0], err);
    if (r < 0)
        return r;
    for (int k = 0; k < VALUES; k++)
        ((float *)inputs[0]->data)[k] = (float)(3 * f->n_given + k - 4);
    if (f->n_given == 1 && f->bad != 0)
        ((float *)inputs[0]->data)[4] = f->bad;
    *ret_name = f->n_given++ == 1 ? "second" : "another";
    return 1;
}

static int progress(void *data, uint64_t n_done, struct qd_error *err)
{
    const struct fixture *f = data;
    return f->stop_after && n_done == (uint64_t)f->stop_after ? err_new(err, QD_E_CANCELLED, "enough") : 0;
}

static bool all_but_x(void *data, const char *name, const struct onnx_node *node)
{
    (void)data;
    return node && strcmp(name, "x") != 0;
}

static struct calibration calibration_of(struct fixture *f)
{
    return (struct calibration){.run = {.kernels = ops_native(), .team = f->small->team},
                                .histograms = true,
                                .channels = true,
                                .next = next,
                                .progress = progress,
                                .data = f};
}

static void calibrate__three_samples__observes_every_edge(void **state)
{
    struct fixture *f = *state;
    struct qd_error err = {0};
    f->n_samples = 3;
    const struct calibration c = calibration_of(f);
    if (calibrate(f->small->graph, &c, f->statistics, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(f->statistics->n_edges, 3);
    const struct edge_statistics *x = statistics_find(f->statistics, "x"), *y = statistics_find(f->statistics, "y"),
                                 *z = statistics_find(f->statistics, "z");
    assert_true(x->all->low == -4 && x->all->high == 7 && x->all->n == 18 && x->all->n_samples == 3);
    assert_true(y->all->low == 0 && y->all->high == 7);
    assert_true(z->all->low == -7 && z->all->high == 0);
    assert_true(observer_mean_high(y->all) == 4); /* 1, 4, 7 */
    assert_int_equal(x->n_channels, 2);
    assert_true(x->channels[0]->low == -4 && x->channels[0]->high == 4);
    assert_true(x->channels[1]->low == -1 && x->channels[1]->high == 7);
    assert_int_equal(y->all->histogram->n_zeros, 7);
}

static void calibrate__many_samples__cost_the_memory_of_one(void **state)
{
    struct fixture *f = *state;
    f->n_samples = 2;
    const struct calibration c = calibration_of(f);
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, NULL), 0);
    const uint64_t peak = memory_peak(f->small->memory);
    f->n_samples = 2000;
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, NULL), 0);
    assert_int_equal(memory_peak(f->small->memory), peak);
}

static void calibrate__a_nan__is_named_by_tensor_and_sample(void **state)
{
    struct fixture *f = *state;
    struct qd_error err = {0};
    f->n_samples = 3;
    f->bad = NAN;
    const struct calibration c = calibration_of(f);
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "sample 'second'"));
    assert_non_null(strstr(err.message, "tensor 'x': element 4 of 6 is NaN"));
}

static void calibrate__no_sample__is_an_error(void **state)
{
    struct fixture *f = *state;
    const struct calibration c = calibration_of(f);
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, NULL), QD_E_INVALID);
}

static void calibrate__stopped_by_progress__ends_there(void **state)
{
    struct fixture *f = *state;
    f->n_samples = 10;
    f->stop_after = 4;
    const struct calibration c = calibration_of(f);
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, NULL), QD_E_CANCELLED);
    assert_int_equal(f->n_given, 4);
}

static void calibrate__edges_not_wanted__are_left_out(void **state)
{
    struct fixture *f = *state;
    f->n_samples = 1;
    struct calibration c = calibration_of(f);
    c.wants = all_but_x;
    c.histograms = c.channels = false;
    assert_int_equal(calibrate(f->small->graph, &c, f->statistics, NULL), 0);
    assert_int_equal(f->statistics->n_edges, 2);
    assert_null(statistics_find(f->statistics, "y")->all->histogram);
    assert_int_equal(statistics_find(f->statistics, "y")->n_channels, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calibrate__three_samples__observes_every_edge, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate__many_samples__cost_the_memory_of_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate__a_nan__is_named_by_tensor_and_sample, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate__no_sample__is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate__stopped_by_progress__ends_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calibrate__edges_not_wanted__are_left_out, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
