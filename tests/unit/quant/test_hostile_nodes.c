/* Operators on nodes that are right but for a few things: an answer or an error, never a crash. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "tests/unit/quant/node.h"

enum { INPUTS = 9, ROUNDS = 40000, DATA_BYTES = 6 * 6 * 6 * 6 * 8 };

struct input {
    enum onnx_type type;
    int n_dims;
    int64_t dims[4];
};

/* A node that can be computed. */
struct right_node {
    const char *op;
    int64_t opset;
    const char *attr; /* an integer that it needs; NULL: none */
    int64_t attr_value;
    struct input in[INPUTS]; /* up to one of type 0 */
    const char *domain;      /* NULL: ONNX's own */
    size_t n_kernel;         /* dimensions of a kernel_shape that it needs; 0: none */
};

#define F(...)                                          \
    {                                                   \
        ONNX_FLOAT, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                               \
            __VA_ARGS__                                 \
        }                                               \
    }
#define U8(...)                                         \
    {                                                   \
        ONNX_UINT8, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                               \
            __VA_ARGS__                                 \
        }                                               \
    }
#define I8(...)                                        \
    {                                                  \
        ONNX_INT8, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                              \
            __VA_ARGS__                                \
        }                                              \
    }
#define I32(...)                                        \
    {                                                   \
        ONNX_INT32, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                               \
            __VA_ARGS__                                 \
        }                                               \
    }
#define I64(...)                                        \
    {                                                   \
        ONNX_INT64, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                               \
            __VA_ARGS__                                 \
        }                                               \
    }

#define BOOL(...)                                      \
    {                                                  \
        ONNX_BOOL, sizeof(int64_t[]){__VA_ARGS__} / 8, \
        {                                              \
            __VA_ARGS__                                \
        }                                              \
    }
#define SCALAR(type) \
    {                \
        type, 0,     \
        {            \
            0        \
        }            \
    }

#define MICROSOFT "com.microsoft"
#define TRAINING  "ai.onnx.preview.training"

static const struct right_node nodes[] = {
    {"Softmax", 13, NULL, 0, {F(2, 3, 4)}},
    {"LogSoftmax", 11, NULL, 0, {F(2, 3, 4)}},
    {"Hardmax", 13, "axis", 1, {F(2, 3, 4)}},
    {"BatchNormalization", 9, NULL, 0, {F(2, 3, 4, 4), F(3), F(3), F(3), F(3)}},
    {"BatchNormalization", 15, "training_mode", 1, {F(2, 3, 4, 4), F(3), F(3), F(3), F(3)}},
    {"InstanceNormalization", 6, NULL, 0, {F(2, 4, 3), F(4), F(4)}},
    {"GroupNormalization", 21, "num_groups", 2, {F(2, 4, 3), F(4), F(4)}},
    {"GroupNormalization", 18, "num_groups", 2, {F(2, 4, 3), F(2), F(2)}},
    {"LayerNormalization", 17, NULL, 0, {F(2, 3, 4), F(4), F(4)}},
    {"RMSNormalization", 23, NULL, 0, {F(3, 4), F(4)}},
    {"MeanVarianceNormalization", 13, NULL, 0, {F(2, 3, 4, 4)}},
    {"LRN", 13, "size", 3, {F(2, 3, 4, 4)}},
    {"RNN", 14, NULL, 0, {F(3, 2, 4), F(1, 5, 4), F(1, 5, 5), F(1, 10), I32(2), F(1, 2, 5)}},
    {"GRU", 14, "linear_before_reset", 1, {F(3, 2, 4), F(1, 15, 4), F(1, 15, 5), F(1, 30), I32(2), F(1, 2, 5)}},
    {"GRU", 14, NULL, 0, {F(3, 2, 4), F(1, 15, 4), F(1, 15, 5), F(1, 30), I32(2), F(1, 2, 5)}},
    {"LSTM", 14, NULL, 0, {F(3, 2, 4), F(1, 20, 4), F(1, 20, 5), F(1, 40), I32(2), F(1, 2, 5), F(1, 2, 5), F(1, 15)}},
    {"QuantizeLinear", 13, NULL, 0, {F(2, 3, 4), F(3), U8(3)}},
    {"QuantizeLinear", 21, "block_size", 2, {F(2, 3, 4), F(2, 2, 4), U8(2, 2, 4)}},
    {"DequantizeLinear", 21, "block_size", 2, {I8(2, 4, 3), F(2, 2, 3), I8(2, 2, 3)}},
    {"DequantizeLinear", 13, NULL, 0, {U8(2, 3, 4), F(3), U8(3)}},
    {"DynamicQuantizeLinear", 11, NULL, 0, {F(3, 4)}},
    {"Resize", 18, NULL, 0, {F(1, 2, 4, 5), F(8), F(4)}},
    {"Resize", 18, NULL, 0, {F(1, 2, 4, 5), F(8), F(0), I64(4)}},
    {"Upsample", 9, NULL, 0, {F(1, 2, 4, 5), F(4)}},
    {"MatMulInteger", 10, NULL, 0, {U8(2, 3, 4), I8(4, 5), U8(1), I8(5)}},
    {"QLinearMatMul", 10, NULL, 0, {U8(3, 4), F(1), U8(1), I8(4, 5), F(5), I8(5), F(1), U8(1)}},
    {"ConvInteger", 10, NULL, 0, {U8(1, 4, 5, 5), I8(6, 4, 3, 3), U8(1), I8(6)}},
    {"QLinearConv", 10, NULL, 0, {U8(1, 4, 5, 5), F(1), U8(1), I8(6, 4, 3, 3), F(6), I8(6), F(1), U8(1), I32(6)}},
    {"NegativeLogLikelihoodLoss", 13, NULL, 0, {F(2, 3, 4), I64(2, 4), F(3)}},
    {"SoftmaxCrossEntropyLoss", 13, NULL, 0, {F(2, 3, 4), I64(2, 4), F(3)}},
    {"DFT", 17, "onesided", 1, {F(2, 8, 1), I64(1)}},
    {"DFT", 20, "inverse", 1, {F(2, 5, 2)}},
    {"STFT", 17, NULL, 0, {F(2, 12, 1), I64(1), F(4)}},
    {"HannWindow", 17, NULL, 0, {I64(1)}},
    {"MelWeightMatrix", 17, NULL, 0, {I64(1), I64(1), I32(1), F(1), F(1)}},
    {"MatMulNBits", 1, "K", 32, {F(2, 32), U8(3, 2, 8), F(6), U8(3)}, MICROSOFT},
    {"SkipLayerNormalization", 1, NULL, 0, {F(2, 3, 4), F(3, 4), F(4), F(4), F(4)}, MICROSOFT},
    {"QLinearAdd", 1, NULL, 0, {U8(3, 4), F(1), U8(1), U8(4), F(1), U8(1), F(1), U8(1)}, MICROSOFT},
    {"QLinearConcat", 1, "axis", 0, {F(1), U8(1), U8(3, 4), F(1), U8(1), U8(2, 4), F(1), U8(1)}, MICROSOFT},
    {"DynamicQuantizeMatMul", 1, NULL, 0, {F(3, 4), U8(4, 5), F(5), U8(5), F(5)}, MICROSOFT},
    {"MatMulIntegerToFloat", 1, NULL, 0, {U8(3, 4), U8(4, 5), F(1), F(5), U8(1), U8(5), F(5)}, MICROSOFT},
    {"Momentum", 1, NULL, 0, {F(1), I64(1), F(3), F(3), F(3)}, TRAINING},
    {"Adam", 1, NULL, 0, {F(1), I64(1), F(3), F(3), F(3), F(3)}, TRAINING},

    /* element by element */
    {"Add", 14, NULL, 0, {F(2, 3, 4), F(3, 1)}},
    {"Div", 14, NULL, 0, {I32(3, 4), I32(4)}},
    {"Mod", 13, NULL, 0, {I64(3, 4), I64(4)}},
    {"Mod", 13, "fmod", 1, {F(3, 4), F(4)}},
    {"Pow", 15, NULL, 0, {I32(3, 4), F(4)}},
    {"BitShift", 11, NULL, 0, {U8(3, 4), U8(4)}},
    {"Equal", 13, NULL, 0, {I64(3, 4), I64(3, 1)}},
    {"Max", 13, NULL, 0, {F(3, 4), F(4), F(2, 1, 1)}},
    {"PRelu", 16, NULL, 0, {F(2, 3, 4), F(3, 1)}},
    {"Where", 16, NULL, 0, {BOOL(3, 4), F(4), F(3, 1)}},
    {"Clip", 13, NULL, 0, {F(3, 4), SCALAR(ONNX_FLOAT), SCALAR(ONNX_FLOAT)}},
    {"Cast", 13, "to", ONNX_INT32, {F(3, 4)}},
    {"Cast", 13, "to", ONNX_STRING, {I64(3, 4)}},
    {"Abs", 13, NULL, 0, {I64(3, 4)}},
    {"Shrink", 9, NULL, 0, {I8(3, 4)}},
    {"Gelu", 20, NULL, 0, {F(3, 4)}},
    /* shapes */
    {"Reshape", 14, "allowzero", 0, {F(1, 2), I64(2)}},
    {"Flatten", 13, "axis", 1, {F(2, 3, 4)}},
    {"Squeeze", 13, NULL, 0, {F(1, 3, 1), I64(1)}},
    {"Unsqueeze", 13, NULL, 0, {F(2, 3), I64(1)}},
    {"Shape", 15, "start", 1, {F(2, 3, 4)}},
    {"ConstantOfShape", 9, NULL, 0, {I64(3)}},
    {"Range", 11, NULL, 0, {SCALAR(ONNX_INT64), SCALAR(ONNX_INT64), SCALAR(ONNX_INT64)}},
    {"Transpose", 13, NULL, 0, {F(2, 3, 4)}},
    {"Expand", 13, NULL, 0, {F(3, 1), I64(3)}},
    {"Tile", 13, NULL, 0, {F(2, 3), I64(2)}},
    {"Concat", 13, "axis", 1, {F(2, 3), F(2, 4), F(2, 1)}},
    {"Split", 13, "axis", 1, {F(2, 4)}},
    {"Split", 13, "axis", 0, {F(2, 4), I64(2)}},
    {"Slice", 13, NULL, 0, {F(3, 4), I64(2), I64(2), I64(2), I64(2)}},
    {"Pad", 18, NULL, 0, {F(3, 4), I64(4), SCALAR(ONNX_FLOAT)}},
    {"DepthToSpace", 13, "blocksize", 2, {F(1, 4, 2, 3)}},
    {"SpaceToDepth", 13, "blocksize", 2, {F(1, 2, 4, 2)}},
    {"Trilu", 14, "upper", 1, {F(3, 4), SCALAR(ONNX_INT64)}},
    {"EyeLike", 9, "k", 1, {F(3, 4)}},
    /* indices */
    {"Gather", 13, "axis", 1, {F(2, 3, 4), I64(2, 2)}},
    {"GatherElements", 13, "axis", 1, {F(3, 3), I64(3, 2)}},
    {"GatherND", 13, "batch_dims", 0, {F(3, 3, 2), I64(2, 2)}},
    {"ScatterElements", 18, "axis", 1, {F(3, 3), I64(3, 2), F(3, 2)}},
    {"ScatterND", 18, NULL, 0, {F(3, 3, 2), I64(2, 2), F(2, 2)}},
    {"NonZero", 13, NULL, 0, {I32(3, 4)}},
    {"Compress", 11, "axis", 0, {F(3, 4), BOOL(3)}},
    {"OneHot", 11, "axis", -1, {I64(3), SCALAR(ONNX_INT64), F(2)}},
    {"ReverseSequence", 10, "time_axis", 0, {F(3, 4), I64(4)}},
    {"SplitToSequence", 11, "axis", 1, {F(2, 4), SCALAR(ONNX_INT64)}},
    {"SequenceConstruct", 11, NULL, 0, {F(2, 4), F(3)}},
    {"TopK", 11, "axis", -1, {F(3, 4), I64(1)}},
    {"Unique", 11, "sorted", 0, {I64(3, 4)}},
    {"Unique", 11, "axis", 1, {F(3, 4)}},
    /* reductions */
    {"ReduceSum", 13, "keepdims", 0, {F(2, 3, 4), I64(1)}},
    {"ReduceMean", 18, NULL, 0, {F(2, 3, 4), I64(2)}},
    {"ReduceL1", 18, NULL, 0, {I64(3, 4), I64(1)}},
    {"ReduceProd", 18, NULL, 0, {I32(3, 4)}},
    {"ReduceLogSumExp", 18, NULL, 0, {F(3, 4)}},
    {"ArgMax", 13, "axis", 1, {F(2, 3, 4)}},
    {"CumSum", 14, "reverse", 1, {I32(3, 4), SCALAR(ONNX_INT32)}},
    /* products and windows */
    {"MatMul", 13, NULL, 0, {F(2, 3, 4), F(4, 5)}},
    {"MatMul", 13, NULL, 0, {I64(3, 4), I64(4)}},
    {"Gemm", 13, "transB", 1, {F(3, 4), F(5, 4), F(5)}},
    {"Einsum", 12, NULL, 0, {F(2, 3, 4), F(2, 4, 3)}},
    {"GridSample", 16, "align_corners", 1, {F(1, 2, 4, 5), F(1, 3, 2, 2)}},
    {"NonMaxSuppression", 11, NULL, 0, {F(1, 6, 4), F(1, 2, 6), I64(1), F(1), F(1)}},
    {"Conv", 11, "group", 1, {F(1, 4, 5, 5), F(6, 4, 3, 3), F(6)}},
    {"Conv", 11, "group", 4, {F(1, 4, 5, 5), F(4, 1, 3, 3), F(4)}},
    {"ConvTranspose", 11, "group", 1, {F(1, 4, 3, 3), F(4, 2, 2, 2), F(2)}},
    {"MaxPool", 12, NULL, 0, {F(1, 2, 5, 5)}, NULL, 2},
    {"AveragePool", 19, NULL, 0, {F(1, 2, 5, 5)}, NULL, 2},
    {"LpPool", 18, NULL, 0, {F(1, 2, 5, 5)}, NULL, 2},
    {"GlobalAveragePool", 1, NULL, 0, {F(1, 2, 5, 5)}},
    {"GlobalMaxPool", 1, NULL, 0, {F(1, 2, 5)}},
    {"MaxUnpool", 11, NULL, 0, {F(1, 1, 2, 2), I64(1, 1, 2, 2)}, NULL, 2},
};

/* Right ones for two operands of three dimensions, mostly. */
static const char *const equations[] = {
    "bij,bjk->bik",    "bij,bjk",      "...ij,...jk->...ik", "iij,ijk->k", "aaa,aaa->a", "bij , bjk -> ",
    "b...,b...->...b", "bij,bjk->bzz", "bij,bjk->bb",        "bij",        "bij,,",      "....,...",
    "bij,bjk->bik,",   "1ij,bjk",      "b..j,bjk",           "->",         "",           "abcdefghijklm,n",
    "bij,bjk-",
};
enum { N_NODES = sizeof nodes / sizeof nodes[0] };

static const char *const int_names[] = {"axis",
                                        "block_size",
                                        "num_groups",
                                        "size",
                                        "hidden_size",
                                        "layout",
                                        "group",
                                        "training_mode",
                                        "linear_before_reset",
                                        "ignore_index",
                                        "output_dtype",
                                        "antialias",
                                        "exclude_outside",
                                        "input_forget",
                                        "keepdims",
                                        "noop_with_empty_axes",
                                        "k",
                                        "to",
                                        "start",
                                        "end",
                                        "batch_dims",
                                        "batch_axis",
                                        "time_axis",
                                        "blocksize",
                                        "largest",
                                        "select_last_index",
                                        "exclusive",
                                        "ceil_mode",
                                        "storage_order",
                                        "count_include_pad",
                                        "p",
                                        "transA"};
static const char *const list_names[] = {"axes", "pads",           "strides",      "dilations", "kernel_shape",
                                         "perm", "output_padding", "output_shape", "split"};
static const char *const texts[][2] = {
    {"direction", "bidirectional"},
    {"direction", "reverse"},
    {"mode", "linear"},
    {"mode", "cubic"},
    {"mode", ""},
    {"auto_pad", "SAME_UPPER"},
    {"auto_pad", "VALID"},
    {"reduction", "none"},
    {"coordinate_transformation_mode", "tf_crop_and_resize"},
    {"coordinate_transformation_mode", "align_corners"},
    {"keep_aspect_ratio_policy", "not_larger"},
    {"nearest_mode", "ceil"},
    {"nearest_mode", "x"},
    {"mode", "reflect"},
    {"mode", "edge"},
    {"mode", "wrap"},
    {"mode", "CRD"},
    {"reduction", "add"},
    {"reduction", "mul"},
    {"direction", "LEFT"},
    {"auto_pad", "SAME_LOWER"},
};
static const int64_t numbers[] = {0, 1, -1, 2, 3, 4, 8, -3, 7, 12, INT32_MAX, INT64_MAX, INT64_MIN, (int64_t)1 << 32};
static const int64_t kernel_shape[] = {2, 2};
static const float floats[] = {1, 2, .5f, 1.5f, 3, 1, .6f, -1, 0, 1e30f, -1e30f, INFINITY, NAN};
static const enum onnx_type types[] = {ONNX_FLOAT, ONNX_UINT8,   ONNX_INT8,   ONNX_INT32, ONNX_INT64,
                                       ONNX_BOOL,  ONNX_FLOAT16, ONNX_DOUBLE, ONNX_INT4,  ONNX_UINT16};

static uint32_t next(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*seed * below >> 32);
}

#define ANY(list) list[next(seed, sizeof list / sizeof list[0])]

/* Mostly small and sensible; codes of any value. */
static void fill(enum onnx_type type, void *data, uint32_t *seed)
{
    for (size_t i = 0; i < DATA_BYTES / 8; i++)
        if (type == ONNX_FLOAT)
            ((float *)data)[i] = next(seed, 8) ? floats[next(seed, 7)] : ANY(floats);
        else if (type == ONNX_INT64)
            ((int64_t *)data)[i] = next(seed, 16) ? (int64_t)next(seed, 3) : ANY(numbers);
        else if (type == ONNX_INT32)
            ((int32_t *)data)[i] = next(seed, 16) ? (int32_t)next(seed, 3) : (int32_t)ANY(numbers);
        else
            ((uint8_t *)data)[i] = (uint8_t)next(seed, type == ONNX_BOOL ? 2 : 256);
}

static void add_input(struct node *n, uint32_t *seed, const struct input *right)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 0, 6};
    struct input in = *right;
    uint64_t data[DATA_BYTES / 8] = {0};
    if (!next(seed, 16))
        in.type = ANY(types);
    if (!next(seed, 24))
        in.n_dims = (int)next(seed, 6) - 1;
    for (int d = 0; d < in.n_dims && d < 4; d++)
        if (!next(seed, 24))
            in.dims[d] = ANY(sizes);
    fill(in.type, data, seed);
    node_in(n, in.type, in.n_dims, in.dims, data);
}

static void add_attributes(struct node *n, uint32_t *seed)
{
    static int64_t lists[2][8];
    for (uint32_t i = next(seed, 3); i > 0; i--)
        node_int(n, ANY(int_names), ANY(numbers));
    for (uint32_t i = next(seed, 3); i > 0; i--) {
        for (int k = 0; k < 8; k++)
            lists[i - 1][k] = next(seed, 8) ? 1 + next(seed, 2) : ANY(numbers);
        node_ints(n, ANY(list_names), next(seed, 2) ? 2 : next(seed, 9), lists[i - 1]);
    }
    for (uint32_t i = next(seed, 3); i > 0; i--) {
        const uint32_t k = next(seed, sizeof texts / sizeof texts[0]);
        node_text(n, texts[k][0], texts[k][1]);
    }
}

static void operators__nodes_with_a_few_things_wrong__answer_or_say_why(void **state)
{
    (void)state;
    uint32_t seed = 1;
    unsigned done[N_NODES] = {0};
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct right_node *right = &nodes[i % N_NODES];
        struct node n;
        node_begin(&n, right->domain ? right->domain : "", right->op, right->opset, 1);
        add_attributes(&n, &seed);
        if (right->attr)
            node_int(&n, right->attr, right->attr_value); /* the first of a name counts */
        if (strcmp(right->op, "MatMulNBits") == 0) {
            node_int(&n, "N", 3);
            node_int(&n, "block_size", 16);
        }
        if (strcmp(right->op, "Einsum") == 0)
            node_text(&n, "equation", equations[next(&seed, sizeof equations / sizeof equations[0])]);
        if (right->n_kernel)
            node_ints(&n, "kernel_shape", right->n_kernel, kernel_shape);
        for (int k = 0; k < INPUTS && right->in[k].type; k++)
            add_input(&n, &seed, &right->in[k]);
        const int r = node_run(&n, next(&seed, 2) ? 1 : 1 + next(&seed, 3));
        if (r < 0)
            assert_int_not_equal(n.err.message[0], '\0');
        done[i % N_NODES] += r == 0;
        node_end(&n);
    }
    for (unsigned i = 0; i < N_NODES; i++) /* they are not all refused at the door */
        if (done[i] < 10)
            fail_msg("%s of opset %d was computed %u times", nodes[i].op, (int)nodes[i].opset, done[i]);
}

/* No elements, and the largest dimensions that a value may have: no time is spent on them, and no product overflows. */
static void operators__zero_beside_huge_dimensions__answer_or_say_why(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{0, (int64_t)1 << 56, 2, 2},
                                        {(int64_t)1 << 40, 0, (int64_t)1 << 18, 1},
                                        {1, (int64_t)1 << 56, 0, 4},
                                        {0, 0, (int64_t)1 << 29, (int64_t)1 << 29}};
    for (size_t k = 0; k < N_NODES; k++)
        for (size_t a = 0; a < 16; a++) {
            struct node n;
            node_begin(&n, nodes[k].domain ? nodes[k].domain : "", nodes[k].op, nodes[k].opset, 1);
            if (nodes[k].attr)
                node_int(&n, nodes[k].attr, nodes[k].attr_value);
            for (int i = 0; i < INPUTS && nodes[k].in[i].type; i++)
                node_in(&n, nodes[k].in[i].type, nodes[k].in[i].n_dims, shapes[i % 2 ? a % 4 : a / 4], NULL);
            (void)node_run(&n, 1);
            node_end(&n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators__nodes_with_a_few_things_wrong__answer_or_say_why),
        cmocka_unit_test(operators__zero_beside_huge_dimensions__answer_or_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
