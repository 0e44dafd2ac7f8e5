/* ONNX files gone wrong: protocol buffers, shapes, external data, graphs. */
#include <stdio.h>
#include <string.h>

#include <quantd/error.h>

#include "quant/format/onnx.h"
#include "tests/data/bad/bad_files.h"

enum { VARINT = 0, FIXED64 = 1, LEN = 2, GROUP = 3, GROUP_END = 4, FIXED32 = 5 };

/* ---- writing ---- */

static void varint(struct buffer *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buffer_put_u8(b, (uint8_t)(v | 0x80));
    buffer_put_u8(b, (uint8_t)v);
}

static void number(struct buffer *b, uint32_t field, uint64_t v)
{
    varint(b, field << 3 | VARINT);
    varint(b, v);
}

static void bytes(struct buffer *b, uint32_t field, const void *data, size_t n)
{
    varint(b, field << 3 | LEN);
    varint(b, n);
    buffer_put(b, data, n);
}

static void text(struct buffer *b, uint32_t field, const char *s)
{
    bytes(b, field, s, strlen(s));
}

/* @inner as a message of @b; empties @inner. */
static void message(struct buffer *b, uint32_t field, struct buffer *inner)
{
    bytes(b, field, inner->data, inner->n);
    buffer_clear(inner);
}

static void value_info(struct buffer *b, uint32_t field, const char *name)
{
    struct buffer dim = {0}, shape = {0}, plain = {0}, type = {0}, info = {0};
    number(&dim, 1, 4);
    message(&shape, 1, &dim);
    number(&plain, 1, ONNX_FLOAT);
    message(&plain, 2, &shape);
    message(&type, 1, &plain);
    text(&info, 1, name);
    message(&info, 2, &type);
    message(b, field, &info);
}

/* A node "op" of up to two inputs; NULL: none. */
static void node(struct buffer *b, const char *op, const char *in1, const char *in2, const char *out,
                 struct buffer *attr)
{
    struct buffer n = {0};
    if (in1)
        text(&n, 1, in1);
    if (in2)
        text(&n, 1, in2);
    if (out)
        text(&n, 2, out);
    if (op)
        text(&n, 4, op);
    if (attr)
        message(&n, 5, attr);
    message(b, 1, &n);
}

/* ModelProto around the graph that is in @graph, which it empties; the graph comes last. */
static void model(struct buffer *dst, struct buffer *graph)
{
    struct buffer opset = {0};
    number(dst, 1, 8);
    text(&opset, 1, "");
    number(&opset, 2, 17);
    message(dst, 8, &opset);
    message(dst, 7, graph);
}

static void put_tensor(struct buffer *b, const char *name, uint64_t type, const uint64_t *dims, size_t n_dims,
                       size_t n_raw)
{
    static const uint8_t zeros[256];
    for (size_t d = 0; d < n_dims; d++)
        number(b, 1, dims[d]);
    number(b, 2, type);
    text(b, 8, name);
    bytes(b, 9, zeros, n_raw);
}

/* x[4] + w[4] = y */
static void good_graph(struct buffer *g)
{
    struct buffer t = {0};
    node(g, "Add", "x", "w", "y", NULL);
    text(g, 2, "g");
    put_tensor(&t, "w", ONNX_FLOAT, (uint64_t[]){4}, 1, 16);
    message(g, 5, &t);
    value_info(g, 11, "x");
    value_info(g, 12, "y");
}

void good_onnx(struct buffer *dst)
{
    struct buffer g = {0};
    good_graph(&g);
    model(dst, &g);
}

static void use_file(struct buffer *content, const char *rule, size_t n, int code, const char *says, bad_file_use *use,
                     void *data)
{
    struct bad_file f = {.file_name = "x.onnx", .code = code, .says = says, .content = buffer_span(content)};
    (void)snprintf(f.name, sizeof f.name, "onnx %s %zu", rule, n); /* cut at worst */
    use(&f, data);
    buffer_clear(content);
}

/* A model whose graph is the good one and what is in @more, which it empties. */
static void use_graph(struct buffer *more, const char *rule, size_t n, int code, const char *says, bad_file_use *use,
                      void *data)
{
    struct buffer g = {0}, m = {0};
    good_graph(&g);
    buffer_put(&g, more->data, more->n);
    buffer_clear(more);
    model(&m, &g);
    use_file(&m, rule, n, code, says, use, data);
}

/* The same with one more initializer, whose TensorProto is in @tensor. */
static void use_tensor(struct buffer *tensor, const char *rule, size_t n, int code, const char *says, bad_file_use *use,
                       void *data)
{
    struct buffer more = {0};
    message(&more, 5, tensor);
    use_graph(&more, rule, n, code, says, use, data);
}

/* ---- rules ---- */

/* Every beginning of a good file: the graph is its last field. */
static void cut(bad_file_use *use, void *data)
{
    struct buffer good = {0};
    good_onnx(&good);
    for (size_t n = 1; n < good.n; n++) {
        struct buffer b = {0};
        buffer_put(&b, good.data, n);
        use_file(&b, "cut after byte", n, QD_E_CORRUPT, "", use, data);
    }
    buffer_clear(&good);
}

/* Bytes that no protocol buffer has, behind a good model. */
static void wire(bad_file_use *use, void *data)
{
    static const struct {
        const char *content;
        size_t n;
        int code;
        const char *says;
    } tails[] = {
        {"\x00", 1, QD_E_CORRUPT, "field number 0"},
        {"\x01", 1, QD_E_CORRUPT, "field number 0"},
        {"\x02\x00", 2, QD_E_CORRUPT, "field number 0"},
        {"\x0e", 1, QD_E_CORRUPT, "wire type 6"},
        {"\x0f", 1, QD_E_CORRUPT, "wire type 7"},
        {"\x9e\x06", 2, QD_E_CORRUPT, "wire type 6"},
        {"\x80", 1, QD_E_CORRUPT, "1 bytes are needed"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10, QD_E_CORRUPT, "does not end within 64 bits"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, QD_E_CORRUPT, "does not end within 64 bits"},
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, QD_E_CORRUPT, "does not end within 64 bits"},
        {"\x80\x80\x80\x80\x10\x01", 6, QD_E_CORRUPT, "field number"},
        {"\xa2\x06\x7f", 3, QD_E_CORRUPT, "has 127 bytes"},
        {"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, QD_E_CORRUPT, "are left in its message"},
        {"\xa2\x06\x80\x80\x80\x80\x08", 7, QD_E_CORRUPT, "has 2147483648 bytes"},
        {"\xa1\x06\x00\x00", 4, QD_E_CORRUPT, "8 bytes are needed"},
        {"\xa5\x06\x00\x00", 4, QD_E_CORRUPT, "4 bytes are needed"},
        {"\xa4\x06", 2, QD_E_CORRUPT, "ends and did not begin"},
        {"\xa3\x06", 2, QD_E_CORRUPT, "does not end"},
        {"\xa3\x06\xac\x06", 4, QD_E_CORRUPT, "ends within group"},
        {"\xa3\x06\xab\x06\xa4\x06", 6, QD_E_CORRUPT, "ends within group"},
        {"\xa3\x06\x0a\x05", 4, QD_E_CORRUPT, "bytes"},
    };
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        struct buffer b = {0};
        good_onnx(&b);
        buffer_put(&b, tails[i].content, tails[i].n);
        use_file(&b, "tail", i, tails[i].code, tails[i].says, use, data);
    }
}

/* Groups and messages, one within the other, to no end. */
static void depth(bad_file_use *use, void *data)
{
    static const size_t levels[] = {33, 1000, 100000};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        struct buffer b = {0};
        good_onnx(&b);
        for (size_t k = 0; k < levels[i]; k++)
            varint(&b, 100 << 3 | GROUP);
        for (size_t k = 0; k < levels[i]; k++)
            varint(&b, 100 << 3 | GROUP_END);
        use_file(&b, "groups", levels[i], QD_E_LIMIT, "more than 32 groups", use, data);
    }
    struct buffer inner = {0};
    for (size_t k = 0; k < 40; k++) { /* If within If within If */
        struct buffer graph = {0}, attr = {0};
        text(&attr, 1, "then_branch");
        message(&attr, 6, &inner);
        number(&attr, 20, ONNX_ATTR_GRAPH);
        node(&graph, "If", NULL, NULL, "y", &attr);
        inner = graph;
    }
    use_graph(&inner, "graphs", 40, QD_E_LIMIT, "messages, one within the other", use, data);
}

/* Fields of each message with another wire type than theirs. */
static void wires(bad_file_use *use, void *data)
{
    static const struct {
        char where; /* Model, Graph, Node, Tensor, Attribute, Info */
        uint32_t field, wire;
    } list[] = {
        {'M', 1, LEN},     {'M', 2, VARINT},  {'M', 7, VARINT},   {'M', 8, VARINT},   {'M', 14, VARINT},
        {'M', 25, VARINT}, {'M', 1, FIXED64}, {'M', 7, FIXED32},  {'G', 1, VARINT},   {'G', 2, VARINT},
        {'G', 5, VARINT},  {'G', 11, VARINT}, {'G', 12, VARINT},  {'G', 13, VARINT},  {'G', 15, VARINT},
        {'G', 1, FIXED64}, {'N', 1, VARINT},  {'N', 2, VARINT},   {'N', 3, VARINT},   {'N', 4, VARINT},
        {'N', 5, VARINT},  {'N', 7, VARINT},  {'N', 8, VARINT},   {'N', 4, FIXED32},  {'T', 1, FIXED64},
        {'T', 2, LEN},     {'T', 4, VARINT},  {'T', 5, FIXED32},  {'T', 6, VARINT},   {'T', 7, FIXED64},
        {'T', 8, VARINT},  {'T', 9, VARINT},  {'T', 10, FIXED32}, {'T', 11, FIXED32}, {'T', 13, VARINT},
        {'T', 14, LEN},    {'A', 1, VARINT},  {'A', 2, VARINT},   {'A', 3, LEN},      {'A', 4, VARINT},
        {'A', 5, VARINT},  {'A', 6, VARINT},  {'A', 7, VARINT},   {'A', 8, FIXED32},  {'A', 9, VARINT},
        {'A', 10, VARINT}, {'A', 11, VARINT}, {'A', 20, LEN},     {'A', 21, VARINT},  {'A', 22, VARINT},
        {'I', 1, VARINT},  {'I', 2, VARINT},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct buffer field = {0}, outer = {0}, more = {0}, b = {0};
        varint(&field, list[i].field << 3 | list[i].wire);
        if (list[i].wire == FIXED64 || list[i].wire == FIXED32)
            buffer_put_zeros(&field, list[i].wire == FIXED64 ? 8 : 4);
        else
            varint(&field, 0);
        switch (list[i].where) {
        case 'M':
            good_onnx(&b);
            buffer_put(&b, field.data, field.n);
            buffer_clear(&field);
            use_file(&b, "wire", i, QD_E_CORRUPT, "has wire type", use, data);
            continue;
        case 'A':
            message(&outer, 5, &field);
            message(&more, 1, &outer);
            break;
        case 'G':
            more = field;
            break;
        default:
            message(&more, list[i].where == 'N' ? 1 : list[i].where == 'T' ? 5 : 11, &field);
        }
        use_graph(&more, "wire", i, QD_E_CORRUPT, "has wire type", use, data);
    }
}

/* Every element type: a byte too many, a byte too few, and elements in a field that is another type's. */
static void payloads(bad_file_use *use, void *data)
{
    for (int type = ONNX_FLOAT; type <= ONNX_INT2; type++) {
        struct buffer t = {0}, u = {0};
        const uint64_t dims[] = {3};
        const size_t right = (3 * onnx_type_bits((enum onnx_type)type) + 7) / 8;
        put_tensor(&t, "t", (uint64_t)type, dims, 1, right + 1);
        use_tensor(&t, "a byte more of type", (size_t)type, QD_E_CORRUPT, "'t'", use, data);
        put_tensor(&u, "t", (uint64_t)type, dims, 1, right ? right - 1 : 5);
        use_tensor(&u, "a byte less of type", (size_t)type, QD_E_CORRUPT, "'t'", use, data);
    }
    for (uint32_t field = 4; field <= 11; field++) {
        if (field == 8 || field == 9)
            continue;
        struct buffer t = {0};
        number(&t, 1, 1);
        number(&t, 2, field == 4 ? ONNX_INT64 : ONNX_FLOAT);
        text(&t, 8, "t");
        bytes(&t, field, "\0\0\0\0\0\0\0", field == 4 ? 4 : field == 10 ? 8 - 1 + 1 : 1);
        use_tensor(&t, "elements in field", field, QD_E_CORRUPT, field == 4 || field > 4 ? "'t' of" : "", use, data);
    }
}

static void shapes(bad_file_use *use, void *data)
{
    static const struct {
        uint64_t dims[4];
        size_t n;
        const char *says;
    } list[] = {
        {{5}, 1, "has 16 bytes of data, its shape and type (float32) make 20"},
        {{0}, 1, "make 0"},
        {{2, 3}, 2, "make 24"},
        {{4, 0}, 2, "make 0"},
        {{UINT64_MAX}, 1, "has a dimension of -1"},
        {{4, UINT64_MAX - 3}, 2, "has a dimension of -4"},
        {{1ull << 63}, 1, "has a dimension of -9223372036854775808"},
        {{1ull << 62}, 1, "more elements than can be counted"},
        {{1ull << 32, 1ull << 32}, 2, "more elements than can be counted"},
        {{1ull << 31, 1ull << 31, 1ull << 31}, 3, "more elements than can be counted"},
        {{1ull << 29}, 1, "make 2147483648"},
        {{1ull << 30}, 1, "make 4294967296"},
        {{1ull << 40}, 1, "make 4398046511104"},
        {{INT64_MAX}, 1, "more elements than can be counted"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct buffer t = {0};
        put_tensor(&t, "t", ONNX_FLOAT, list[i].dims, list[i].n, 16);
        use_tensor(&t, "shape", i, QD_E_CORRUPT, list[i].says, use, data);
    }
    static const uint64_t types[] = {0, 27, 100, 1ull << 31, UINT64_MAX};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct buffer t = {0};
        put_tensor(&t, "t", types[i], (uint64_t[]){4}, 1, 16);
        use_tensor(&t, "type", i, QD_E_UNSUPPORTED, "which is unknown", use, data);
    }
}

static void entry(struct buffer *t, const char *key, const char *value, size_t n)
{
    struct buffer e = {0};
    text(&e, 1, key);
    bytes(&e, 2, value, n);
    message(t, 13, &e);
}

static void external_tensor(struct buffer *t)
{
    number(t, 1, 4);
    number(t, 2, ONNX_FLOAT);
    text(t, 8, "t");
    number(t, 14, 1);
}

static void locations(bad_file_use *use, void *data)
{
    static const struct {
        const char *location;
        int code;
        const char *says;
    } list[] = {
        {"", QD_E_DENIED, "says no location"},
        {"/etc/passwd", QD_E_DENIED, "no path beneath the model's folder"},
        {"../x", QD_E_DENIED, "no path beneath the model's folder"},
        {"..", QD_E_DENIED, "no path beneath"},
        {".", QD_E_DENIED, "no path beneath"},
        {"./x", QD_E_DENIED, "no path beneath the model's folder"},
        {"a/b", QD_E_NOT_FOUND, "a/b"},
        {"a//b", QD_E_DENIED, "no path beneath the model's folder"},
        {"a/./b", QD_E_DENIED, "no path beneath the model's folder"},
        {"a/..", QD_E_DENIED, "no path beneath the model's folder"},
        {"a/../b", QD_E_DENIED, "no path beneath the model's folder"},
        {"a/../../b", QD_E_DENIED, "no path beneath the model's folder"},
        {"/", QD_E_DENIED, "no path beneath the model's folder"},
        {"//x", QD_E_DENIED, "no path beneath the model's folder"},
        {"x/", QD_E_DENIED, "no path beneath the model's folder"},
        {"..\\x", QD_E_DENIED, "no path beneath the model's folder"},
        {"C:\\x", QD_E_DENIED, "no path beneath the model's folder"},
        {"\\\\host\\x", QD_E_DENIED, "no path beneath the model's folder"},
        {"/proc/self/fd/0", QD_E_DENIED, "no path beneath the model's folder"},
        {"/dev/zero", QD_E_DENIED, "no path beneath the model's folder"},
        {"file:///etc/passwd", QD_E_DENIED, "no path beneath the model's folder"},
        {"gone", QD_E_NOT_FOUND, "gone"},
        {"~", QD_E_NOT_FOUND, "~"},
        {"x.onnx", QD_E_NOT_FOUND, "x.onnx"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct buffer t = {0};
        external_tensor(&t);
        entry(&t, "location", list[i].location, strlen(list[i].location));
        use_tensor(&t, "location", i, list[i].code, list[i].says, use, data);
    }
    struct buffer t = {0}, u = {0}, v = {0}, w = {0}, z = {0};
    external_tensor(&t);
    use_tensor(&t, "no location", 0, QD_E_DENIED, "says no location", use, data);
    external_tensor(&u);
    entry(&u, "location", "a\0b", 3);
    use_tensor(&u, "location with NUL", 0, QD_E_CORRUPT, "holds a NUL byte", use, data);
    char long_name[300];
    memset(long_name, 'n', sizeof long_name);
    external_tensor(&v);
    entry(&v, "location", long_name, sizeof long_name);
    use_tensor(&v, "long location", 0, QD_E_DENIED, "longer than a file's name", use, data);
    external_tensor(&w);
    entry(&w, "location", "a", 1);
    entry(&w, "location", "b", 1);
    use_tensor(&w, "two locations", 0, QD_E_CORRUPT, "two entries 'location'", use, data);
    put_tensor(&z, "t", ONNX_FLOAT, (uint64_t[]){4}, 1, 16);
    entry(&z, "location", "a", 1);
    number(&z, 14, 1);
    use_tensor(&z, "own data, too", 0, QD_E_CORRUPT, "data of its own and external data", use, data);
    static const uint64_t places[] = {2, 3, 1ull << 40};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct buffer p = {0};
        put_tensor(&p, "t", ONNX_FLOAT, (uint64_t[]){4}, 1, 16);
        number(&p, 14, places[i]);
        use_tensor(&p, "place", i, QD_E_CORRUPT, "which does not exist", use, data);
    }
}

/* ---- graphs that cannot be run ---- */

static void add_cycle(struct buffer *g, size_t n)
{
    char in[32], out[32];
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(in, sizeof in, "v%zu", i);
        (void)snprintf(out, sizeof out, "v%zu", (i + 1) % n);
        node(g, "Relu", in, NULL, out, NULL);
    }
}

static void graphs(bad_file_use *use, void *data)
{
    static const size_t sizes[] = {1, 2, 3, 100, 10000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buffer g = {0};
        add_cycle(&g, sizes[i]);
        use_graph(&g, "cycle of", sizes[i], QD_E_CORRUPT, "waits for its own result", use, data);
    }
    struct buffer g = {0};
    node(&g, "Relu", "nobody", NULL, "z", NULL);
    use_graph(&g, "missing input", 0, QD_E_CORRUPT, "Relu 'z': value 'nobody' is made by no node", use, data);
    node(&g, "Add", "x", "nobody", "z", NULL);
    use_graph(&g, "missing input", 1, QD_E_CORRUPT, "value 'nobody'", use, data);
    node(&g, "Relu", "x", NULL, "y", NULL);
    use_graph(&g, "made twice", 0, QD_E_CORRUPT, "'y' is made twice", use, data);
    node(&g, "Relu", "y", NULL, "x", NULL);
    use_graph(&g, "made twice", 1, QD_E_CORRUPT, "'x' is made twice", use, data);
    node(&g, "Relu", "x", NULL, "w", NULL);
    use_graph(&g, "made twice", 2, QD_E_CORRUPT, "'w' is made twice", use, data);
    value_info(&g, 11, "x");
    use_graph(&g, "made twice", 3, QD_E_CORRUPT, "'x' is made twice", use, data);
    struct buffer t = {0};
    put_tensor(&t, "w", ONNX_FLOAT, (uint64_t[]){4}, 1, 16);
    use_tensor(&t, "made twice", 4, QD_E_CORRUPT, "'w' is made twice", use, data);
    value_info(&g, 12, "nowhere");
    use_graph(&g, "missing output", 0, QD_E_CORRUPT, "value 'nowhere'", use, data);
    node(&g, NULL, "x", NULL, "z", NULL);
    use_graph(&g, "no operator", 0, QD_E_CORRUPT, "names no operator", use, data);
    node(&g, "", "x", NULL, "z", NULL);
    use_graph(&g, "no operator", 1, QD_E_CORRUPT, "names no operator", use, data);
    node(&g, "Relu", "x", NULL, NULL, NULL);
    use_graph(&g, "no outputs", 0, QD_E_CORRUPT, "has no outputs", use, data);
}

static void attribute(struct buffer *more, const char *name, uint64_t kind, struct buffer *content)
{
    struct buffer a = {0};
    text(&a, 1, name);
    if (content)
        buffer_put(&a, content->data, content->n);
    if (content)
        buffer_clear(content);
    number(&a, 20, kind);
    node(more, "Relu", "x", NULL, "z", &a);
}

static void attributes(bad_file_use *use, void *data)
{
    static const uint64_t kinds[] = {15, 16, 1000, UINT64_MAX};
    struct buffer g = {0}, c = {0}, inner = {0};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        attribute(&g, "a", kinds[i], NULL);
        use_graph(&g, "attribute of kind", i, QD_E_UNSUPPORTED, "which is unknown", use, data);
    }
    static const uint64_t holders[] = {ONNX_ATTR_TENSOR, ONNX_ATTR_GRAPH, ONNX_ATTR_SPARSE_TENSOR};
    for (size_t i = 0; i < sizeof holders / sizeof holders[0]; i++) {
        attribute(&g, "a", holders[i], NULL);
        use_graph(&g, "attribute without its", i, QD_E_CORRUPT, "where one is due", use, data);
    }
    for (size_t i = 0; i < 2; i++) {
        put_tensor(&inner, "", ONNX_FLOAT, (uint64_t[]){1}, 1, 4);
        message(&c, 5, &inner);
    }
    attribute(&g, "a", ONNX_ATTR_TENSOR, &c);
    use_graph(&g, "attribute with two tensors", 0, QD_E_CORRUPT, "2 tensors", use, data);
    node(&inner, "Relu", "elsewhere", NULL, "q", NULL);
    message(&c, 6, &inner);
    attribute(&g, "then_branch", ONNX_ATTR_GRAPH, &c);
    use_graph(&g, "missing input within", 0, QD_E_CORRUPT, "value 'elsewhere'", use, data);
    node(&inner, "Relu", "z", NULL, "q", NULL);
    message(&c, 6, &inner);
    attribute(&g, "then_branch", ONNX_ATTR_GRAPH, &c);
    use_graph(&g, "cycle through a graph within", 0, QD_E_CORRUPT, "waits for its own result", use, data);
}

static void models(bad_file_use *use, void *data)
{
    struct buffer b = {0}, g = {0}, opset = {0};
    number(&b, 1, 8);
    use_file(&b, "no graph", 0, QD_E_CORRUPT, "holds 0 graphs", use, data);
    good_onnx(&b);
    good_graph(&g);
    message(&b, 7, &g);
    use_file(&b, "two graphs", 0, QD_E_CORRUPT, "holds 2 graphs", use, data);
    number(&b, 1, 8);
    good_graph(&g);
    message(&b, 7, &g);
    use_file(&b, "no opset", 0, QD_E_CORRUPT, "imports no operator set", use, data);
    number(&b, 1, 8);
    text(&opset, 1, "a");
    bytes(&opset, 1, "\0", 1);
    message(&b, 8, &opset);
    good_graph(&g);
    message(&b, 7, &g);
    use_file(&b, "NUL in a domain", 0, QD_E_CORRUPT, "holds a NUL byte", use, data);
    static const uint32_t names[] = {1, 2, 3, 4, 7, 8};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct buffer n = {0}, more = {0};
        bytes(&n, names[i], "a\0b", 3);
        message(&more, 1, &n);
        use_graph(&more, "NUL in a node's field", names[i], QD_E_CORRUPT, "holds a NUL byte", use, data);
    }
}

void bad_onnx_files(bad_file_use *use, void *data)
{
    cut(use, data);
    wire(use, data);
    depth(use, data);
    wires(use, data);
    payloads(use, data);
    shapes(use, data);
    locations(use, data);
    graphs(use, data);
    attributes(use, data);
    models(use, data);
}
