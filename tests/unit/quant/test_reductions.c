/* Reductions and softmax give the same bits from any number of threads. */
#include <string.h>

#include "tests/test.h"
#include "tests/unit/quant/node.h"

enum { THREADS_MAX = 4, ELEMENTS = 48 * 131 * 23 };

struct reduction {
    const char *op;
    int64_t opset;
    size_t n_axes; /* of the input "axes"; 0: none is given */
    int64_t axes[2];
};

static const struct reduction reductions[] = {
    {"ReduceSum", 13, 1, {0}},       {"ReduceSum", 13, 1, {2}},    {"ReduceSum", 13, 2, {0, 2}},
    {"ReduceMean", 18, 1, {1}},      {"ReduceMax", 18, 2, {1, 2}}, {"ReduceMin", 18, 1, {0}},
    {"ReduceProd", 18, 1, {2}},      {"ReduceL1", 18, 1, {1}},     {"ReduceL2", 18, 2, {0, 1}},
    {"ReduceSumSquare", 18, 0, {0}}, {"ReduceLogSum", 18, 1, {1}}, {"ReduceLogSumExp", 18, 1, {1}},
    {"ArgMax", 13, 0, {0}},          {"Softmax", 13, 0, {0}},      {"LogSoftmax", 13, 0, {0}},
};

static float data[ELEMENTS];

static void fill(void)
{
    uint32_t seed = 9;
    for (size_t i = 0; i < ELEMENTS; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)((int32_t)seed >> 8) * 0x1p-20f;
    }
}

static void run(struct node *n, const struct reduction *r, unsigned n_threads)
{
    static const int64_t dims[] = {48, 131, 23};
    const int64_t n_axes = (int64_t)r->n_axes;
    node_begin(n, "", r->op, r->opset, n_threads);
    node_in(n, ONNX_FLOAT, 3, dims, data);
    if (r->n_axes)
        node_in(n, ONNX_INT64, 1, &n_axes, r->axes);
    if (node_run(n, 1) < 0)
        fail_msg("%s: %s", r->op, n->err.message);
}

static void reductions__any_number_of_threads__give_the_same_bits(void **state)
{
    (void)state;
    fill();
    for (size_t i = 0; i < sizeof reductions / sizeof reductions[0]; i++) {
        struct node one;
        run(&one, &reductions[i], 1);
        for (unsigned n_threads = 2; n_threads <= THREADS_MAX; n_threads++) {
            struct node many;
            run(&many, &reductions[i], n_threads);
            assert_int_equal(many.out[0]->n, one.out[0]->n);
            assert_memory_equal(many.out[0]->data, one.out[0]->data,
                                one.out[0]->n * value_element_bytes(one.out[0]->type));
            node_end(&many);
        }
        node_end(&one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reductions__any_number_of_threads__give_the_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
