/* Input: an array in NumPy's format. What is read has the elements that its file ends with, and costs no more. */
#include <stdlib.h>
#include <string.h>

#include "quant/calib/npy.h"
#include "tests/fuzz/fuzz.h"

enum { CEILING_BYTES = 1 << 20 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static int read_on(void *data, void *dst, size_t n, struct qd_error *err)
{
    (void)err;
    const struct bytes piece = cursor_take(data, n);
    must(piece.n == n); /* never beyond what there is */
    if (n)
        memcpy(dst, piece.data, n);
    return 0;
}

static void check(const struct value *v, struct bytes file)
{
    const uint64_t n_bytes = v->n * value_element_bytes(v->type);
    uint64_t n;
    must(shape_count(&v->shape, &n, NULL) == 0 && n == v->n && n_bytes < file.n);
    must(n_bytes == 0 || memcmp(v->data, file.data + file.n - n_bytes, n_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct bytes file = {data, n_bytes};
    struct cursor c = cursor_over(file);
    struct memory *m = memory_new(CEILING_BYTES);
    struct value *v = NULL;
    struct qd_error err = {0};
    const int r = npy_read(&(struct npy_input){read_on, &c, n_bytes}, m, &v, &err);
    must(r == 0 || r == QD_E_CORRUPT || r == QD_E_UNSUPPORTED || r == QD_E_LIMIT);
    must(r == 0 || (err.code == r && err.message[0] && !v));
    if (r == 0)
        check(v, file);
    (void)value_release(v);
    must(memory_used(m) == 0);
    (void)memory_free(m);
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    static const char *const headers[] = {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n",
                                          "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n",
                                          "{'descr': '|b1', 'fortran_order': False, 'shape': (8,), }\n"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        CLEANUP(buffer_clear) struct buffer b = {0};
        buffer_put(&b, "\x93NUMPY\1\0", 8);
        buffer_put_u16(&b, (uint16_t)strlen(headers[i]));
        buffer_put(&b, headers[i], strlen(headers[i]));
        buffer_put(&b, "\1\0\1\1\0\0\0\1", 8);
        use(buffer_span(&b), data);
    }
}

void fuzz_more(fuzz_use *use, void *data)
{
    (void)use;
    (void)data;
}
