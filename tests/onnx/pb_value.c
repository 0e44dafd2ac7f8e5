#include "tests/onnx/pb_value.h"

#include "quant/format/protobuf.h"

enum { FILE_BUDGET = 64 << 20, ITEMS_MAX = 1 << 16 };

/* onnx:onnx/onnx-data.proto */
enum { SEQUENCE_TENSORS = 3, SEQUENCE_SEQUENCES = 5, OPTIONAL_TENSOR = 3, OPTIONAL_SEQUENCE = 5 };

struct file {
    struct source *source;
    struct arena *arena;
    struct memory *memory;
    struct qd_error *err;
};

static int read_tensor(struct file *f, const struct onnx_range *at, struct value **ret)
{
    const struct onnx_tensor *t;
    int r = onnx_tensor_read(f->source, at, f->arena, &t, f->err);
    return r < 0 ? r : value_from_tensor(f->memory, f->source, t, ret, f->err);
}

/* Ranges of field @number in the message at @in. */
static int list_field(struct file *f, const struct onnx_range *in, uint32_t number, struct onnx_range *list,
                      size_t *ret_n)
{
    CLEANUP(free) struct stream *st = stream_new(f->source, 0, in->offset, in->offset + in->bytes, f->err);
    struct pb_field p;
    *ret_n = 0;
    while (st && pb_next(st, &p)) {
        if (p.number == number && p.wire == PB_BYTES && *ret_n < ITEMS_MAX)
            list[(*ret_n)++] = (struct onnx_range){p.at, p.bytes};
        (void)pb_skip(st, &p);
    }
    return st ? st->result : QD_E_NO_MEMORY;
}

static int read_sequence(struct file *f, const struct onnx_range *in, struct value **ret)
{
    CLEANUP(free) struct onnx_range *list = calloc(ITEMS_MAX, sizeof *list);
    CLEANUP(value_release) struct value *v = NULL;
    size_t n;
    int r = list_field(f, in, SEQUENCE_TENSORS, list, &n);
    if (r == 0)
        r = value_sequence(f->memory, ONNX_UNDEFINED, n, &v, f->err);
    for (size_t i = 0; i < n && r == 0; i++)
        r = read_tensor(f, &list[i], &((struct value **)v->data)[i]);
    if (r == 0)
        *ret = steal(&v);
    return r;
}

/* An optional that holds something is that something. */
static int read_optional(struct file *f, const struct onnx_range *in, struct value **ret)
{
    CLEANUP(free) struct onnx_range *list = calloc(ITEMS_MAX, sizeof *list);
    size_t n;
    int r = list_field(f, in, OPTIONAL_TENSOR, list, &n);
    if (r < 0 || n == 1)
        return r < 0 ? r : read_tensor(f, &list[0], ret);
    r = list_field(f, in, OPTIONAL_SEQUENCE, list, &n);
    if (r < 0 || n == 1)
        return r < 0 ? r : read_sequence(f, &list[0], ret);
    return value_nothing(f->memory, ONNX_UNDEFINED, ret, f->err);
}

/* An empty file is an empty message: a source has to have a byte, so it never gets there. */
static int read_kind(struct file *f, enum onnx_kind kind, struct value **ret)
{
    const struct onnx_range whole = {0, source_bytes(f->source, 0)};
    if (kind == ONNX_KIND_SEQUENCE)
        return read_sequence(f, &whole, ret);
    return kind == ONNX_KIND_OPTIONAL ? read_optional(f, &whole, ret) : read_tensor(f, NULL, ret);
}

int pb_value_read(const char *path, enum onnx_kind kind, struct memory *m, struct value **ret, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = NULL;
    CLEANUP(arena_free) struct arena *a = arena_new(FILE_BUDGET);
    int r = source_open(path, &s, err);
    if (r < 0)
        return r;
    struct file f = {.source = s, .arena = a, .memory = m, .err = err};
    return read_kind(&f, kind, ret);
}
