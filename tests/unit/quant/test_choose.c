/* Which form "int8" is: by the share of products of matrices and of convolutions, and what codes gain on a CPU. */
#include <math.h>
#include <string.h>

#include "quant/onnx/choose.h"
#include "tests/test.h"

enum { OPERATORS = 3 };

/* A convolution, a product of matrices and a table that is looked up in, with inputs of @n elements each. */
struct small_model {
    struct onnx_attr strides;
    struct onnx_node nodes[OPERATORS];
    struct onnx_tensor tensors[OPERATORS];
    struct weight weights[OPERATORS];
    struct onnx_decision decisions[OPERATORS];
    struct onnx_plan plan;
    struct statistics *statistics;
};

static const int64_t conv_dims[] = {8, 4, 3, 3}, matrix_dims[] = {16, 32}, table_dims[] = {1000, 16};
static const int64_t by_two[] = {2, 2};
static const char *const inputs[] = {"image", "rows", "table"};

static void add_operator(struct small_model *m, size_t i, const char *op, size_t n_dims, const int64_t *dims,
                         uint32_t axis)
{
    m->nodes[i] = (struct onnx_node){.op_type = op, .domain = "", .inputs = &inputs[i], .n_inputs = 1};
    m->tensors[i] = (struct onnx_tensor){.n_dims = n_dims, .dims = dims, .n_elements = 1};
    for (size_t d = 0; d < n_dims; d++)
        m->tensors[i].n_elements *= (uint64_t)dims[d];
    m->weights[i] = (struct weight){.tensor = &m->tensors[i], .user = &m->nodes[i], .axis = axis};
    m->decisions[i] = (struct onnx_decision){.weight = &m->weights[i], .meets_codes = true};
}

static void observe(struct small_model *m, const char *edge, uint64_t n)
{
    struct edge_statistics *e;
    struct qd_error err = {0};
    assert_int_equal(statistics_edge(m->statistics, edge, false, 0, 0, &e, &err), 0);
    e->all->n = n;
}

static void begin(struct small_model *m, uint64_t image, uint64_t rows)
{
    memset(m, 0, sizeof *m);
    m->statistics = statistics_new(&(struct digest){0});
    assert_non_null(m->statistics);
    add_operator(m, 0, "Conv", 4, conv_dims, 0);
    add_operator(m, 1, "MatMul", 2, matrix_dims, 1);
    add_operator(m, 2, "Gather", 2, table_dims, 0);
    m->strides = (struct onnx_attr){.name = "strides", .kind = ONNX_ATTR_INTS, .ints = by_two, .n_ints = 2};
    m->nodes[0].attrs = &m->strides;
    m->nodes[0].n_attrs = 1;
    m->decisions[2].meets_codes = false;
    m->plan.weights = (struct weights){m->weights, OPERATORS};
    m->plan.decisions = m->decisions;
    observe(m, "image", image);
    observe(m, "rows", rows);
}

static struct int8_choice choose(struct small_model *m, double speed)
{
    struct int8_choice c;
    int8_choose(&m->plan, m->statistics, speed, &c);
    return c;
}

/* The convolution: image / 4 channels / 4 positions a stride, times 288; the matrix: rows times 32. */
static void choose__matrices__are_static_where_codes_are_faster(void **state)
{
    (void)state;
    struct small_model m;
    begin(&m, 0, 1000);
    struct int8_choice c = choose(&m, 2.0);
    assert_int_equal(c.scheme, ONNX_SCHEME_INT8_STATIC);
    assert_true(fabs(c.time - 0.5) < 1e-12);
    assert_non_null(strstr(c.why, "for 100 % of the products, of matrices"));
    c = choose(&m, 1.05);
    assert_int_equal(c.scheme, ONNX_SCHEME_INT8_WEIGHT);
    m.decisions[1].meets_codes = false; /* its activations do not suit */
    assert_true(fabs(choose(&m, 4.0).time - 1.0) < 1e-12);
    (void)statistics_free(m.statistics);
}

static void choose__convolutions__keep_floats(void **state)
{
    (void)state;
    struct small_model m;
    begin(&m, 16 * 100, 9 * 100); /* 28,800 products each */
    struct int8_choice c = choose(&m, 1e9);
    assert_true(fabs(c.time - 0.75) < 1e-6);
    assert_int_equal(c.scheme, ONNX_SCHEME_INT8_STATIC);
    c = choose(&m, 2.0);
    assert_true(fabs(c.time - 1.0) < 1e-12);
    assert_int_equal(c.scheme, ONNX_SCHEME_INT8_WEIGHT);
    assert_non_null(strstr(c.why, "weights alone run as fast as float32"));
    (void)statistics_free(m.statistics);
}

/* Half of the products are of convolutions between codes, 288 for an element of the result. */
static void choose__convolutions_between_codes__pay_for_their_elements(void **state)
{
    (void)state;
    static const char *const made[] = {"made"};
    struct small_model m;
    begin(&m, 16 * 100, 9 * 100);
    m.nodes[0].outputs = made;
    m.nodes[0].n_outputs = 1;
    m.decisions[0].gives_codes = true;
    observe(&m, "made", 100);
    const double codes = 16.0 * (16 * 100 + 100) / 57600.0;
    assert_true(fabs(choose(&m, 2.0).time - (0.5 + codes)) < 1e-12);
    assert_true(fabs(choose(&m, 1e9).time - codes) < 1e-6);
    (void)statistics_free(m.statistics);
}

static struct int8_choice judge(double static_noise, double weights_noise)
{
    struct value_error a = {.name = "y", .deviation = {.signal = 1.0, .noise = static_noise}},
                       b = {.name = "y", .deviation = {.signal = 1.0, .noise = weights_noise}};
    const struct comparison with_static = {.outputs = &a, .n_outputs = 1};
    const struct comparison with_weights = {.outputs = &b, .n_outputs = 1};
    struct int8_choice c = {.scheme = ONNX_SCHEME_INT8_STATIC, .time = 0.5, .why = "time"};
    int8_judge(&with_static, &with_weights, &c);
    return c;
}

static void judge__error__is_weighed_against_that_of_weights_alone(void **state)
{
    (void)state;
    assert_int_equal(judge(1e-2, 2e-3).scheme, ONNX_SCHEME_INT8_STATIC); /* 7 dB more */
    struct int8_choice c = judge(1e-2, 1e-3);
    assert_int_equal(c.scheme, ONNX_SCHEME_INT8_WEIGHT); /* 10 dB more */
    assert_non_null(strstr(c.why, "an output at 20.0 dB where weights alone have it at 30.0"));
    assert_int_equal(judge(9e-5, 1e-9).scheme, ONNX_SCHEME_INT8_STATIC); /* near all the same */
    assert_int_equal(judge(0.0, 0.0).scheme, ONNX_SCHEME_INT8_STATIC);
}

static void choose__no_products__is_weights_alone(void **state)
{
    (void)state;
    struct small_model m;
    begin(&m, 0, 0);
    assert_int_equal(choose(&m, 4.0).scheme, ONNX_SCHEME_INT8_WEIGHT);
    (void)statistics_free(m.statistics);
}

/* It is measured: a ratio of times that are not nothing. */
static void int8_speed__this_cpu__is_a_ratio_of_times(void **state)
{
    (void)state;
    const double speed = int8_speed();
    assert_true(speed > 0.05 && speed < 100.0 && speed != 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choose__matrices__are_static_where_codes_are_faster),
        cmocka_unit_test(choose__convolutions__keep_floats),
        cmocka_unit_test(choose__convolutions_between_codes__pay_for_their_elements),
        cmocka_unit_test(judge__error__is_weighed_against_that_of_weights_alone),
        cmocka_unit_test(choose__no_products__is_weights_alone),
        cmocka_unit_test(int8_speed__this_cpu__is_a_ratio_of_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
