#include "tests/test.h"

#include <string.h>

#include "quant/calib/npy.h"

struct text_input {
    struct bytes content;
    size_t at;
};

static int read_text(void *data, void *dst, size_t n, struct qd_error *err)
{
    struct text_input *t = data;
    if (n > t->content.n - t->at)
        return err_new(err, QD_E_INTERNAL, "read beyond what there is");
    memcpy(dst, t->content.data + t->at, n);
    t->at += n;
    return 0;
}

static int read_bytes(struct bytes content, struct memory *m, struct value **ret, struct qd_error *err)
{
    struct text_input t = {content, 0};
    return npy_read(&(struct npy_input){read_text, &t, content.n}, m, ret, err);
}

/* A file with that version, header and elements. */
static void make(struct buffer *b, uint8_t version, const char *header, const void *elements, size_t n)
{
    buffer_put(b, "\x93NUMPY", 6);
    buffer_put_u8(b, version);
    buffer_put_u8(b, 0);
    if (version == 1)
        buffer_put_u16(b, (uint16_t)strlen(header));
    else
        buffer_put_u32(b, (uint32_t)strlen(header));
    buffer_put(b, header, strlen(header));
    buffer_put(b, elements, n);
}

#define FLOATS "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n"

static void npy_read__floats_of_each_version__are_a_value(void **state)
{
    (void)state;
    const float x[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    for (uint8_t version = 1; version <= 3; version++) {
        CLEANUP(buffer_clear) struct buffer b = {0};
        CLEANUP(value_release) struct value *v = NULL;
        struct memory *m = memory_new(1 << 16);
        make(&b, version, FLOATS, x, sizeof x);
        assert_int_equal(read_bytes(buffer_span(&b), m, &v, NULL), 0);
        assert_int_equal(v->type, ONNX_FLOAT);
        assert_true(shape_equal(&v->shape, &(struct shape){2, {2, 3}}));
        assert_memory_equal(v->data, x, sizeof x);
        v = value_release(v);
        (void)memory_free(m);
    }
}

static void npy_read__other_forms_of_headers__are_read(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_bytes;
        enum onnx_type type;
        uint32_t n_dims;
    } good[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, ONNX_FLOAT, 0},
        {"{'shape': (3,), 'fortran_order': False, 'descr': '<i8'}\n", 24, ONNX_INT64, 1},
        {"{'descr':'|u1','fortran_order':False,'shape':(2,2)}", 4, ONNX_UINT8, 2},
        {"{'descr': '|b1', 'fortran_order': False, 'shape': (4,), }\n", 4, ONNX_BOOL, 1},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (0, 5), }\n", 0, ONNX_FLOAT16, 2},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), }", 8, ONNX_DOUBLE,
         12},
    };
    static const uint8_t zeros[64];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CLEANUP(buffer_clear) struct buffer b = {0};
        CLEANUP(value_release) struct value *v = NULL;
        struct memory *m = memory_new(1 << 16);
        make(&b, 1, good[i].header, zeros, good[i].n_bytes);
        assert_int_equal(read_bytes(buffer_span(&b), m, &v, NULL), 0);
        assert_int_equal(v->type, good[i].type);
        assert_int_equal(v->shape.n_dims, good[i].n_dims);
        v = value_release(v);
        (void)memory_free(m);
    }
}

#define HEAD "{'descr': '<f4', 'fortran_order': False, 'shape': "

static const struct {
    const char *header; /* followed by 24 bytes */
    int code;
} bad[] = {
    {"", QD_E_CORRUPT},
    {"{", QD_E_CORRUPT},
    {"{}", QD_E_CORRUPT},
    {"[]", QD_E_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False}", QD_E_CORRUPT},
    {"{'descr': '<f4', 'shape': (2, 3)}", QD_E_CORRUPT},
    {"{'fortran_order': False, 'shape': (2, 3)}", QD_E_CORRUPT},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", QD_E_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'shape': (2, 3)}", QD_E_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}", QD_E_CORRUPT},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (2, 3)}", QD_E_CORRUPT},
    {"{'descr': '<f4, 'fortran_order': False, 'shape': (2, 3)}", QD_E_UNSUPPORTED},
    {"{'descr': '<f4", QD_E_CORRUPT},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}", QD_E_UNSUPPORTED},
    {"{'descr': '=f4', 'fortran_order': False, 'shape': (2, 3)}", QD_E_UNSUPPORTED},
    {"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", QD_E_UNSUPPORTED},
    {"{'descr': '<U4', 'fortran_order': False, 'shape': (3,)}", QD_E_UNSUPPORTED},
    {"{'descr': '|S4', 'fortran_order': False, 'shape': (6,)}", QD_E_UNSUPPORTED},
    {"{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}", QD_E_UNSUPPORTED},
    {"{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}", QD_E_UNSUPPORTED},
    {"{'descr': '', 'fortran_order': False, 'shape': (2, 3)}", QD_E_UNSUPPORTED},
    {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (6,)}", QD_E_UNSUPPORTED},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", QD_E_UNSUPPORTED},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}", QD_E_CORRUPT},
    {HEAD "(2, 4)}", QD_E_CORRUPT},
    {HEAD "(2, 2)}", QD_E_CORRUPT},
    {HEAD "(0,)}", QD_E_CORRUPT},
    {HEAD "()}", QD_E_CORRUPT},
    {HEAD "(6)", QD_E_CORRUPT},
    {HEAD "6}", QD_E_CORRUPT},
    {HEAD "(,)}", QD_E_CORRUPT},
    {HEAD "(2,, 3)}", QD_E_CORRUPT},
    {HEAD "(2 3)}", QD_E_CORRUPT},
    {HEAD "(-2, -3)}", QD_E_CORRUPT},
    {HEAD "(2, 3", QD_E_CORRUPT},
    {HEAD "(2, 3)} x", QD_E_CORRUPT},
    {HEAD "(2, 3)}}", QD_E_CORRUPT},
    {HEAD "(0x2, 3)}", QD_E_CORRUPT},
    {HEAD "(2.0, 3)}", QD_E_CORRUPT},
    {HEAD "(9223372036854775808,)}", QD_E_CORRUPT},
    {HEAD "(99999999999999999999999999,)}", QD_E_CORRUPT},
    {HEAD "(4294967296, 4294967296)}", QD_E_LIMIT},
    {HEAD "(4611686018427387904, 4)}", QD_E_LIMIT},
    {HEAD "(1152921504606846976,)}", QD_E_LIMIT},
    {HEAD "(1000000000000,)}", QD_E_CORRUPT},
    {HEAD "(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6)}", QD_E_LIMIT},
    {"{'descr': '|b1', 'fortran_order': False, 'shape': (24,)}", QD_E_CORRUPT}, /* an element is 2 */
};

static void npy_read__bad_headers__are_refused_with_a_reason(void **state)
{
    (void)state;
    static const uint8_t elements[24] = {1, 2};
    struct memory *m = memory_new(1 << 16);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CLEANUP(buffer_clear) struct buffer b = {0};
        struct value *v = NULL;
        struct qd_error err = {0};
        make(&b, 1, bad[i].header, elements, sizeof elements);
        const int r = read_bytes(buffer_span(&b), m, &v, &err);
        if (r != bad[i].code || err.message[0] == '\0' || v)
            fail_msg("%s: %d, %s", bad[i].header, r, err.message);
    }
    assert_int_equal(memory_used(m), 0);
    (void)memory_free(m);
}

static void npy_read__every_prefix_and_a_byte_more__is_refused(void **state)
{
    (void)state;
    const float x[6] = {0};
    struct memory *m = memory_new(1 << 16);
    for (uint8_t version = 1; version <= 2; version++) {
        CLEANUP(buffer_clear) struct buffer b = {0};
        struct value *v = NULL;
        make(&b, version, FLOATS, x, sizeof x);
        buffer_put_u8(&b, 0);
        for (size_t n = 0; n <= b.n; n++)
            if (n + 1 != b.n)
                assert_int_equal(read_bytes((struct bytes){b.data, n}, m, &v, NULL), QD_E_CORRUPT);
    }
    (void)memory_free(m);
}

static void npy_read__wrong_magic_version_or_a_long_header__is_refused(void **state)
{
    (void)state;
    struct memory *m = memory_new(1 << 16);
    CLEANUP(buffer_clear) struct buffer b = {0}, c = {0}, d = {0};
    struct value *v = NULL;
    struct qd_error err = {0};
    make(&b, 4, FLOATS, "", 0);
    assert_int_equal(read_bytes(buffer_span(&b), m, &v, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "version 4.0"));
    make(&c, 1, FLOATS, "", 0);
    c.data[0] = 'P';
    assert_int_equal(read_bytes(buffer_span(&c), m, &v, &err), QD_E_CORRUPT);
    make(&d, 2, FLOATS, "", 0);
    d.data[11] = 1; /* 16 MB of header */
    assert_int_equal(read_bytes(buffer_span(&d), m, &v, &err), QD_E_LIMIT);
    (void)memory_free(m);
}

static void npy_read__more_than_the_memory__is_refused(void **state)
{
    (void)state;
    const float x[6] = {0};
    struct memory *m = memory_new(16);
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct value *v = NULL;
    make(&b, 1, FLOATS, x, sizeof x);
    assert_int_equal(read_bytes(buffer_span(&b), m, &v, NULL), QD_E_LIMIT);
    (void)memory_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_read__floats_of_each_version__are_a_value),
        cmocka_unit_test(npy_read__other_forms_of_headers__are_read),
        cmocka_unit_test(npy_read__bad_headers__are_refused_with_a_reason),
        cmocka_unit_test(npy_read__every_prefix_and_a_byte_more__is_refused),
        cmocka_unit_test(npy_read__wrong_magic_version_or_a_long_header__is_refused),
        cmocka_unit_test(npy_read__more_than_the_memory__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
