#include "quant/calib/npy.h"

#include <string.h>

#include "kernels/core/checked.h"

enum {
    PREFIX_BYTES = 8,        /* magic, version */
    HEADER_BYTES_MAX = 8192, /* of text; NumPy's own reader takes 10000 */
};

static const struct {
    const char *descr;
    enum onnx_type type;
} types[] = {
    {"<f4", ONNX_FLOAT}, {"<f8", ONNX_DOUBLE}, {"<f2", ONNX_FLOAT16}, {"|u1", ONNX_UINT8},
    {"|i1", ONNX_INT8},  {"<u2", ONNX_UINT16}, {"<i2", ONNX_INT16},   {"<u4", ONNX_UINT32},
    {"<i4", ONNX_INT32}, {"<u8", ONNX_UINT64}, {"<i8", ONNX_INT64},   {"|b1", ONNX_BOOL},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

/* The header's text, a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
struct header {
    const char *at;
    enum onnx_type type;
    struct shape shape;
    bool has_type, has_order, has_shape;
};

static void skip_space(struct header *h)
{
    while (*h->at == ' ' || *h->at == '\n' || *h->at == '\t')
        h->at++;
}

static bool take(struct header *h, const char *text)
{
    skip_space(h);
    const size_t n = strlen(text);
    if (strncmp(h->at, text, n) != 0)
        return false;
    h->at += n;
    return true;
}

static int malformed(struct qd_error *err)
{
    return err_new(err, QD_E_CORRUPT, "its .npy header is malformed");
}

static int read_descr(struct header *h, struct qd_error *err)
{
    if (!take(h, "'"))
        return err_new(err, QD_E_UNSUPPORTED, "an array of structures; one of numbers is needed");
    const size_t n = strcspn(h->at, "'");
    if (h->at[n] == '\0')
        return malformed(err);
    for (size_t i = 0; i < N_TYPES; i++)
        if (strlen(types[i].descr) == n && strncmp(types[i].descr, h->at, n) == 0) {
            h->type = types[i].type;
            h->has_type = true;
            h->at += n + 1;
            return 0;
        }
    int r = err_new(err, QD_E_UNSUPPORTED, "its elements are '%.*s', which is not read", n < 40 ? (int)n : 40, h->at);
    return err_hint(err, r, "save it with array.astype(numpy.float32), or another little-endian type of numbers");
}

static int read_order(struct header *h, struct qd_error *err)
{
    h->has_order = true;
    if (take(h, "False"))
        return 0;
    if (!take(h, "True"))
        return malformed(err);
    int r = err_new(err, QD_E_UNSUPPORTED, "its elements are in Fortran order");
    return err_hint(err, r, "save it with numpy.ascontiguousarray(array)");
}

static bool read_dim(struct header *h, int64_t *ret)
{
    uint64_t n = 0;
    skip_space(h);
    if (*h->at < '0' || *h->at > '9')
        return false;
    for (; *h->at >= '0' && *h->at <= '9'; h->at++)
        if (!checked_mul(n, 10, &n) || !checked_add(n, (uint64_t)(*h->at - '0'), &n) || n > INT64_MAX)
            return false;
    *ret = (int64_t)n;
    return true;
}

static int read_shape(struct header *h, struct qd_error *err)
{
    if (!take(h, "("))
        return malformed(err);
    h->has_shape = true;
    while (!take(h, ")")) {
        if (h->shape.n_dims == VALUE_DIMS_MAX)
            return err_new(err, QD_E_LIMIT, "it has more than %d dimensions", VALUE_DIMS_MAX);
        if (!read_dim(h, &h->shape.dims[h->shape.n_dims++]) || (!take(h, ",") && *h->at != ')'))
            return malformed(err);
    }
    return 0;
}

static int read_pair(struct header *h, struct qd_error *err)
{
    if (!h->has_type && take(h, "'descr':"))
        return read_descr(h, err);
    if (!h->has_order && take(h, "'fortran_order':"))
        return read_order(h, err);
    if (!h->has_shape && take(h, "'shape':"))
        return read_shape(h, err);
    return malformed(err);
}

static int parse_header(const char *text, struct header *h, struct qd_error *err)
{
    *h = (struct header){.at = text};
    if (!take(h, "{"))
        return malformed(err);
    while (!take(h, "}")) {
        int r = read_pair(h, err);
        if (r < 0)
            return r;
        if (!take(h, ",") && *h->at != '}')
            return malformed(err);
    }
    skip_space(h);
    return *h->at == '\0' && h->has_type && h->has_order && h->has_shape ? 0 : malformed(err);
}

/* The text of the header into @text, NUL-terminated; *ret_left: bytes that follow it. */
static int read_header(const struct npy_input *in, char text[HEADER_BYTES_MAX + 1], uint64_t *ret_left,
                       struct qd_error *err)
{
    uint8_t prefix[PREFIX_BYTES + 4] = {0};
    if (in->bytes < PREFIX_BYTES + 2)
        return err_new(err, QD_E_CORRUPT, "it is too short for a .npy file");
    int r = in->read(in->data, prefix, PREFIX_BYTES, err);
    if (r < 0)
        return r;
    if (memcmp(prefix, "\x93NUMPY", 6) != 0)
        return err_new(err, QD_E_CORRUPT, "it is no .npy file: its first bytes are others");
    if (prefix[6] < 1 || prefix[6] > 3)
        return err_new(err, QD_E_UNSUPPORTED, "it is a .npy file of version %u.%u; 1 to 3 are known", prefix[6],
                       prefix[7]);
    const size_t n_length = prefix[6] == 1 ? 2 : 4;
    uint64_t left = in->bytes - PREFIX_BYTES;
    if (left < n_length)
        return err_new(err, QD_E_CORRUPT, "it ends within its .npy header");
    r = in->read(in->data, prefix + PREFIX_BYTES, n_length, err);
    if (r < 0)
        return r;
    struct cursor c = cursor_over((struct bytes){prefix + PREFIX_BYTES, 4});
    const uint32_t n = cursor_u32(&c);
    left -= n_length;
    if (n > HEADER_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "its .npy header has %u bytes, at most %d", n, HEADER_BYTES_MAX);
    if (n > left)
        return err_new(err, QD_E_CORRUPT, "it ends within its .npy header");
    text[n] = '\0';
    *ret_left = left - n;
    r = in->read(in->data, text, n, err);
    return r == 0 && strlen(text) != n ? malformed(err) : r;
}

static int check_bools(const struct value *v, struct qd_error *err)
{
    const uint8_t *x = v->data;
    for (uint64_t i = 0; v->type == ONNX_BOOL && i < v->n; i++)
        if (x[i] > 1)
            return err_new(err, QD_E_CORRUPT, "element %llu of an array of bool is %u", (unsigned long long)i, x[i]);
    return 0;
}

int npy_read(const struct npy_input *in, struct memory *m, struct value **ret, struct qd_error *err)
{
    char text[HEADER_BYTES_MAX + 1];
    struct header h;
    uint64_t left = 0, n, n_bytes, room;
    int r = read_header(in, text, &left, err);
    if (r == 0)
        r = parse_header(text, &h, err);
    if (r == 0)
        r = shape_count(&h.shape, &n, err);
    if (r < 0)
        return r;
    if (!checked_mul(n, value_element_bytes(h.type), &n_bytes) || n_bytes != left)
        return err_new(err, QD_E_CORRUPT, "it has %llu bytes of elements, and its shape says another number",
                       (unsigned long long)left);
    CLEANUP(value_release) struct value *v = NULL;
    r = value_new(m, h.type, &h.shape, &v, err);
    for (uint64_t at = 0; r == 0 && at < n_bytes; at += room) {
        room = n_bytes - at < 1 << 20 ? n_bytes - at : 1 << 20;
        r = in->read(in->data, (uint8_t *)v->data + at, (size_t)room, err);
    }
    if (r == 0)
        r = check_bools(v, err);
    if (r == 0)
        *ret = steal(&v);
    return r;
}
