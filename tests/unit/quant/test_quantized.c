/* Quantized operators, and that results do not depend on the number of threads. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "tests/unit/quant/node.h"

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static const int64_t one[] = {1};

/* ---- QuantizeLinear, DequantizeLinear ---- */

static void quantize_linear__ties_and_edges__round_to_even_and_saturate(void **state)
{
    (void)state;
    static const float x[] = {.5f, 1.5f, 2.5f, -.5f, -1.5f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 126.5f, 127.5f};
    static const int8_t want[] = {-1, 1, 1, -1, -3, 127, -128, 127, -128, -1, 125, 127};
    static const int64_t dims[] = {12};
    static const float scale[] = {1};
    static const int8_t zero[] = {-1};
    struct node n;
    node_begin(&n, "", "QuantizeLinear", 13, 1);
    node_in(&n, ONNX_FLOAT, 1, dims, x);
    node_in(&n, ONNX_FLOAT, 1, one, scale);
    node_in(&n, ONNX_INT8, 1, one, zero);
    assert_int_equal(node_run(&n, 1), 0);
    assert_memory_equal(n.out[0]->data, want, sizeof want);
    node_end(&n);
}

static void quantize_linear__blocks_of_an_axis__have_a_scale_each(void **state)
{
    (void)state;
    static const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, scales[] = {1, 2, 4, 1, 2, 4};
    static const int64_t dims[] = {2, 5}, blocks[] = {2, 3};
    static const int8_t want[] = {1, 2, 2, 2, 1, 6, 7, 4, 4, 2}; /* 3/2 and 9/2 are ties */
    struct node n;
    node_begin(&n, "", "QuantizeLinear", 21, 1);
    node_int(&n, "axis", 1);
    node_int(&n, "block_size", 2);
    node_int(&n, "output_dtype", ONNX_INT4);
    node_in(&n, ONNX_FLOAT, 2, dims, x);
    node_in(&n, ONNX_FLOAT, 2, blocks, scales);
    assert_int_equal(node_run(&n, 1), 0);
    assert_int_equal(n.out[0]->type, ONNX_INT4);
    assert_memory_equal(n.out[0]->data, want, sizeof want);
    node_end(&n);
}

static void dequantize_linear__blocks_in_front__have_a_scale_for_each_column(void **state)
{
    (void)state;
    static const int8_t x[] = {1, 2, 3, 4, 5, 6}, zeros[] = {1, 0, 0, 1};
    static const float scales[] = {1, 10, 100, .5f}, want[] = {0, 20, 2, 40, 500, 2.5f};
    static const int64_t dims[] = {3, 2}, blocks[] = {2, 2};
    struct node n;
    node_begin(&n, "", "DequantizeLinear", 21, 1);
    node_int(&n, "axis", 0);
    node_int(&n, "block_size", 2);
    node_in(&n, ONNX_INT8, 2, dims, x);
    node_in(&n, ONNX_FLOAT, 2, blocks, scales);
    node_in(&n, ONNX_INT8, 2, blocks, zeros);
    assert_int_equal(node_run(&n, 1), 0);
    assert_memory_equal(n.out[0]->data, want, sizeof want);
    node_end(&n);
}

static void quantize_linear__scales_that_do_not_fit__are_refused_with_both_shapes(void **state)
{
    (void)state;
    static const int64_t dims[] = {2, 5}, three[] = {3};
    struct node n;
    node_begin(&n, "", "QuantizeLinear", 13, 1);
    node_in(&n, ONNX_FLOAT, 2, dims, NULL);
    node_in(&n, ONNX_FLOAT, 1, three, NULL);
    assert_int_equal(node_run(&n, 1), QD_E_INVALID);
    assert_non_null(strstr(n.err.message, "[3]"));
    assert_non_null(strstr(n.err.message, "[2,5]"));
    node_end(&n);
}

/* ---- integers ---- */

/* onnxruntime#14642: two products of u8 by s8 leave 16 bits, where x86 without VNNI saturates. */
static void matmul_integer__codes_at_their_extremes__is_exact(void **state)
{
    (void)state;
    enum { M = 5, N = 7, K = 1003 };
    static const int64_t a_dims[] = {M, K}, b_dims[] = {K, N}, b_zeros[] = {N};
    static uint8_t a[M * K], a_zero[1] = {0};
    static int8_t b[K * N], zeros[N] = {0, -128, 127, 1, 0, 0, -1};
    for (int i = 0; i < M * K; i++)
        a[i] = i % 11 ? 255 : 0;
    for (int i = 0; i < K * N; i++)
        b[i] = i % 13 ? (i % N % 2 ? -128 : 127) : 0;
    struct node n;
    node_begin(&n, "", "MatMulInteger", 10, 1);
    node_in(&n, ONNX_UINT8, 2, a_dims, a);
    node_in(&n, ONNX_INT8, 2, b_dims, b);
    node_in(&n, ONNX_UINT8, 1, one, a_zero);
    node_in(&n, ONNX_INT8, 1, b_zeros, zeros);
    assert_int_equal(node_run(&n, 1), 0);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            int64_t sum = 0;
            for (int k = 0; k < K; k++)
                sum += (int64_t)a[i * K + k] * (b[k * N + j] - zeros[j]);
            assert_int_equal(((int32_t *)n.out[0]->data)[i * N + j], sum);
        }
    node_end(&n);
}

static void conv_integer__pads_and_groups__are_as_the_definition_says(void **state)
{
    (void)state;
    enum { C = 4, O = 6, S = 5, G = 2 };
    static const int64_t x_dims[] = {1, C, S, S}, w_dims[] = {O, C / G, 3, 3}, pads[] = {1, 1, 1, 1};
    static uint8_t x[C * S * S];
    static int8_t w[O * C / G * 9];
    static const uint8_t zero[] = {100};
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = (uint8_t)next(&seed);
    for (size_t i = 0; i < sizeof w; i++)
        w[i] = (int8_t)next(&seed);
    struct node n;
    node_begin(&n, "", "ConvInteger", 10, 1);
    node_ints(&n, "pads", 4, pads);
    node_int(&n, "group", G);
    node_in(&n, ONNX_UINT8, 4, x_dims, x);
    node_in(&n, ONNX_INT8, 4, w_dims, w);
    node_in(&n, ONNX_UINT8, 0, NULL, zero);
    assert_int_equal(node_run(&n, 1), 0);
    for (int o = 0; o < O; o++)
        for (int p = 0; p < S * S; p++) {
            int32_t sum = 0;
            for (int k = 0; k < C / G * 9; k++) {
                const int row = p / S + k % 9 / 3 - 1, column = p % S + k % 3 - 1,
                          channel = o / (O / G) * (C / G) + k / 9;
                if (row >= 0 && row < S && column >= 0 && column < S)
                    sum += (x[(channel * S + row) * S + column] - 100) * w[o * C / G * 9 + k];
            }
            assert_int_equal(((int32_t *)n.out[0]->data)[o * S * S + p], sum);
        }
    node_end(&n);
}

static void matmul_nbits__four_bits_with_zero_points__is_the_product_of_what_they_stand_for(void **state)
{
    (void)state;
    enum { K = 40, N = 3, BLOCK = 16, BLOCKS = 3 };
    static const int64_t a_dims[] = {2, K}, b_dims[] = {N, BLOCKS, BLOCK / 2}, s_dims[] = {N * BLOCKS},
                         z_dims[] = {N * 2};
    static float a[2 * K], scales[N * BLOCKS];
    static uint8_t b[N * BLOCKS * BLOCK / 2], zeros[N * 2];
    uint32_t seed = 1;
    for (int i = 0; i < 2 * K; i++)
        a[i] = (float)(next(&seed) % 17) - 8;
    for (int i = 0; i < N * BLOCKS; i++)
        scales[i] = 1.0f / (float)(1 + i % 4);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)next(&seed);
    for (size_t i = 0; i < sizeof zeros; i++)
        zeros[i] = (uint8_t)next(&seed);
    struct node n;
    node_begin(&n, "com.microsoft", "MatMulNBits", 1, 1);
    node_int(&n, "K", K);
    node_int(&n, "N", N);
    node_int(&n, "block_size", BLOCK);
    node_in(&n, ONNX_FLOAT, 2, a_dims, a);
    node_in(&n, ONNX_UINT8, 3, b_dims, b);
    node_in(&n, ONNX_FLOAT, 1, s_dims, scales);
    node_in(&n, ONNX_UINT8, 1, z_dims, zeros);
    assert_int_equal(node_run(&n, 1), 0);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < K; k++) {
                const int at = k / BLOCK, q = b[(j * BLOCKS + at) * BLOCK / 2 + k % BLOCK / 2] >> k % 2 * 4 & 15;
                sum += (double)a[i * K + k] * (q - (zeros[j * 2 + at / 2] >> at % 2 * 4 & 15)) *
                       (double)scales[j * BLOCKS + at];
            }
            assert_true(fabs(((float *)n.out[0]->data)[i * N + j] - sum) < 1e-3);
        }
    node_end(&n);
}

static void qlinear_add__codes__are_those_of_the_sum(void **state)
{
    (void)state;
    static const int64_t dims[] = {4};
    static const uint8_t a[] = {0, 10, 200, 255}, b[] = {5, 10, 100, 255}, zero[] = {5}, want[] = {3, 10, 150, 255};
    static const float scale[] = {.5f}, out[] = {1};
    struct node n;
    node_begin(&n, "com.microsoft", "QLinearAdd", 1, 1);
    for (int i = 0; i < 2; i++) {
        node_in(&n, ONNX_UINT8, 1, dims, i ? b : a);
        node_in(&n, ONNX_FLOAT, 0, NULL, scale);
        node_in(&n, ONNX_UINT8, 0, NULL, zero);
    }
    node_in(&n, ONNX_FLOAT, 0, NULL, out);
    node_in(&n, ONNX_UINT8, 0, NULL, zero);
    assert_int_equal(node_run(&n, 1), 0);
    assert_memory_equal(n.out[0]->data, want, sizeof want);
    node_end(&n);
}

/* ---- threads ---- */

struct threaded {
    const char *op;
    int64_t opset;
    int n_in;
    enum onnx_type types[5];
    int n_dims[5];
    int64_t dims[5][4];
};

static const struct threaded threaded[] = {
    {"Softmax", 13, 1, {ONNX_FLOAT}, {2}, {{700, 333}}},
    {"LayerNormalization", 17, 2, {ONNX_FLOAT, ONNX_FLOAT}, {2, 1}, {{700, 333}, {333}}},
    {"LSTM", 14, 3, {ONNX_FLOAT, ONNX_FLOAT, ONNX_FLOAT}, {3, 3, 3}, {{9, 3, 64}, {1, 512, 64}, {1, 512, 128}}},
    {"GRU", 14, 3, {ONNX_FLOAT, ONNX_FLOAT, ONNX_FLOAT}, {3, 3, 3}, {{9, 3, 64}, {1, 384, 64}, {1, 384, 128}}},
    {"MatMulInteger", 10, 2, {ONNX_UINT8, ONNX_INT8}, {3, 2}, {{2, 77, 300}, {300, 129}}},
    {"ConvInteger", 10, 2, {ONNX_UINT8, ONNX_INT8}, {4, 4}, {{2, 16, 33, 31}, {24, 16, 3, 3}}},
    {"QuantizeLinear", 13, 2, {ONNX_FLOAT, ONNX_FLOAT}, {2, 1}, {{500, 300}, {300}}},
};

static void run_threaded(const struct threaded *t, unsigned n_threads, struct node *n)
{
    static float data[400000];
    uint32_t seed = 1;
    node_begin(n, "", t->op, t->opset, n_threads);
    for (int i = 0; i < t->n_in; i++) {
        for (size_t k = 0; k < sizeof data / sizeof *data; k++)
            data[k] = ((float)next(&seed) - 0x1p23f) * 0x1p-24f;
        node_in(n, t->types[i], t->n_dims[i], t->dims[i], data);
    }
    assert_int_equal(node_run(n, 1), 0);
}

static void operators__any_number_of_threads__give_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof threaded / sizeof threaded[0]; i++) {
        struct node single, several;
        run_threaded(&threaded[i], 1, &single);
        run_threaded(&threaded[i], 3, &several);
        assert_int_equal(single.out[0]->n, several.out[0]->n);
        assert_memory_equal(single.out[0]->data, several.out[0]->data,
                            single.out[0]->n * value_element_bytes(single.out[0]->type));
        node_end(&single);
        node_end(&several);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_linear__ties_and_edges__round_to_even_and_saturate),
        cmocka_unit_test(quantize_linear__blocks_of_an_axis__have_a_scale_each),
        cmocka_unit_test(dequantize_linear__blocks_in_front__have_a_scale_for_each_column),
        cmocka_unit_test(quantize_linear__scales_that_do_not_fit__are_refused_with_both_shapes),
        cmocka_unit_test(matmul_integer__codes_at_their_extremes__is_exact),
        cmocka_unit_test(conv_integer__pads_and_groups__are_as_the_definition_says),
        cmocka_unit_test(matmul_nbits__four_bits_with_zero_points__is_the_product_of_what_they_stand_for),
        cmocka_unit_test(qlinear_add__codes__are_those_of_the_sum),
        cmocka_unit_test(operators__any_number_of_threads__give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
