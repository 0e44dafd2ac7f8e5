/* Cast, CastLike, and the 16-bit floats that most operators compute with as float32. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/graph/types.h"

/* ---- numbers by way of a double or a 64-bit integer ---- */

static void halves_to_double(const struct ops *k, const struct value *v, uint64_t first, uint64_t n, double *dst)
{
    float wide[256];
    const enum qd_type type = v->type == ONNX_FLOAT16 ? QD_TYPE_F16 : QD_TYPE_BF16;
    k->dequantize[type](wide, (const uint16_t *)v->data + first, n);
    for (uint64_t i = 0; i < n; i++)
        dst[i] = wide[i];
}

enum { CHUNK = 256 };

struct chunk {
    bool whole; /* the source is of integers: @i holds them, else @d */
    double d[CHUNK];
    int64_t i[CHUNK];
    bool is_u64;
};

static int read_string(struct op_call *c, struct bytes s, double *ret)
{
    char *end;
    const char *text = s.data ? (const char *)s.data : "";
    *ret = strtod(text, &end);
    if (end == text || *end != '\0')
        return err_new(c->err, QD_E_INVALID, "'%.60s' is no number", text);
    return 0;
}

static int read_chunk(struct op_call *c, const struct value *v, uint64_t first, uint64_t n, struct chunk *k)
{
    int r = 0;
    k->whole = true;
    k->is_u64 = v->type == ONNX_UINT64;
    switch ((int)v->type) {
#define READ(T, type)                                               \
    case type:                                                      \
        for (uint64_t i = 0; i < n; i++)                            \
            k->i[i] = (int64_t)((const t_##T *)v->data)[first + i]; \
        return 0;
        INTEGER_TYPES(READ)
#undef READ
    case ONNX_BOOL:
    case ONNX_UINT4:
    case ONNX_UINT2:
        for (uint64_t i = 0; i < n; i++)
            k->i[i] = ((const uint8_t *)v->data)[first + i];
        return 0;
    case ONNX_INT4:
    case ONNX_INT2:
        for (uint64_t i = 0; i < n; i++)
            k->i[i] = ((const int8_t *)v->data)[first + i];
        return 0;
    default:
        break;
    }
    k->whole = false;
    if (type_is_half(v->type))
        halves_to_double(c->kernels, v, first, n, k->d);
    else
        for (uint64_t i = 0; i < n && r == 0; i++)
            if (v->type == ONNX_FLOAT)
                k->d[i] = ((const float *)v->data)[first + i];
            else if (v->type == ONNX_DOUBLE)
                k->d[i] = ((const double *)v->data)[first + i];
            else
                r = read_string(c, ((const struct bytes *)v->data)[first + i], &k->d[i]);
    return r;
}

/*
 * Toward zero, what does not fit becomes the nearest that does, NaN the smallest: what x86's cvttsd2si gives for 64
 * bits.
 */
static int64_t whole_of(double x)
{
    if (!(x > -0x1p63 && x < 0x1p63))
        return x >= 0x1p63 && x < 0x1p64 ? (int64_t)(uint64_t)x : INT64_MIN;
    return (int64_t)x;
}

/* The fewest digits that come back as the same float32, as the field writes them; INF, -INF and NaN by name. */
static void write_float(char *text, size_t n_bytes, double x)
{
    if (x != x || x == INFINITY || x == -INFINITY) {
        (void)snprintf(text, n_bytes, "%s", x != x ? "NaN" : x > 0 ? "INF" : "-INF");
        return;
    }
    for (int digits = 1; digits <= 9; digits++) {
        (void)snprintf(text, n_bytes, "%.*g", digits, x);
        if (strtof(text, NULL) == (float)x)
            return;
    }
}

static int write_string(struct op_call *c, struct value *v, uint64_t at, const struct chunk *k, uint64_t i)
{
    char text[64];
    if (k->whole)
        (void)snprintf(text, sizeof text, k->is_u64 ? "%" PRIu64 : "%" PRId64, k->i[i]);
    else
        write_float(text, sizeof text, k->d[i]);
    return value_set_string(v, at, (struct bytes){(const uint8_t *)text, strlen(text)}, c->err);
}

static double number(const struct chunk *k, uint64_t i)
{
    return !k->whole ? k->d[i] : k->is_u64 ? (double)(uint64_t)k->i[i] : (double)k->i[i];
}

static int write_chunk(struct op_call *c, struct value *v, uint64_t first, uint64_t n, const struct chunk *k)
{
    float narrow[CHUNK];
    int r = 0;
    switch ((int)v->type) {
#define WRITE(T, type)                                                                       \
    case type:                                                                               \
        for (uint64_t i = 0; i < n; i++)                                                     \
            ((t_##T *)v->data)[first + i] = (t_##T)(k->whole ? k->i[i] : whole_of(k->d[i])); \
        return 0;
        INTEGER_TYPES(WRITE)
#undef WRITE
    case ONNX_BOOL:
        for (uint64_t i = 0; i < n; i++)
            ((uint8_t *)v->data)[first + i] = k->whole ? k->i[i] != 0 : k->d[i] != 0.0;
        return 0;
    case ONNX_UINT4:
        for (uint64_t i = 0; i < n; i++)
            ((uint8_t *)v->data)[first + i] = (uint8_t)((k->whole ? k->i[i] : whole_of(k->d[i])) & 15);
        return 0;
    case ONNX_INT4:
        for (uint64_t i = 0; i < n; i++)
            ((int8_t *)v->data)[first + i] = (int8_t)((((k->whole ? k->i[i] : whole_of(k->d[i])) & 15) ^ 8) - 8);
        return 0;
    case ONNX_FLOAT:
        for (uint64_t i = 0; i < n; i++)
            ((float *)v->data)[first + i] = (float)number(k, i);
        return 0;
    case ONNX_DOUBLE:
        for (uint64_t i = 0; i < n; i++)
            ((double *)v->data)[first + i] = number(k, i);
        return 0;
    case ONNX_STRING:
        for (uint64_t i = 0; i < n && r == 0; i++)
            r = write_string(c, v, first + i, k, i);
        return r;
    default: /* 16-bit floats: value_cast lets no other through */
        for (uint64_t i = 0; i < n; i++)
            narrow[i] = (float)number(k, i);
        c->kernels->quantize[v->type == ONNX_FLOAT16 ? QD_TYPE_F16 : QD_TYPE_BF16]((uint16_t *)v->data + first, narrow,
                                                                                   n);
        return 0;
    }
}

static bool can_cast(enum onnx_type t)
{
    return (t >= ONNX_FLOAT && t <= ONNX_UINT64) || type_is_half(t) || t == ONNX_UINT4 || t == ONNX_INT4;
}

int value_cast(struct op_call *c, const struct value *v, enum onnx_type to, struct value **ret)
{
    if (!can_cast(v->type) || !can_cast(to))
        return err_new(c->err, QD_E_UNSUPPORTED, "a cast from %s to %s", onnx_type_name(v->type), onnx_type_name(to));
    CLEANUP(value_release) struct value *out = NULL;
    struct chunk k;
    int r = value_new(c->memory, to, &v->shape, &out, c->err);
    for (uint64_t at = 0; at < v->n && r == 0; at += CHUNK) {
        const uint64_t n = v->n - at < CHUNK ? v->n - at : CHUNK;
        r = read_chunk(c, v, at, n, &k);
        if (r == 0)
            r = write_chunk(c, out, at, n, &k);
    }
    if (r < 0)
        return r;
    *ret = steal(&out);
    return 0;
}

int call_number(struct op_call *c, size_t i, double *ret)
{
    const struct value *v;
    struct chunk k;
    int r = call_tensor_in(c, i, ONNX_UNDEFINED, &v);
    if (r == 0 && (v->n != 1 || !can_cast(v->type)))
        r = err_new(c->err, QD_E_INVALID, "input %zu is no single number", i);
    if (r == 0)
        r = read_chunk(c, v, 0, 1, &k);
    if (r == 0)
        *ret = number(&k, 0);
    return r;
}

static int cast_to(struct op_call *c, int64_t to)
{
    const struct value *v;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    if (v->type != (enum onnx_type)to)
        return value_cast(c, v, (enum onnx_type)to, &c->out[0]);
    call_pass(c, 0, call_in(c, 0));
    return 0;
}

int op_cast(struct op_call *c)
{
    return cast_to(c, call_int(c, "to", ONNX_UNDEFINED));
}

int op_cast_like(struct op_call *c)
{
    const struct value *like;
    int r = call_tensor_in(c, 1, ONNX_UNDEFINED, &like);
    return r < 0 ? r : cast_to(c, like->type);
}

/* ---- 16-bit floats ---- */

static bool has_half(const struct op_call *c, enum onnx_type *ret)
{
    for (size_t i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->kind == VALUE_TENSOR && type_is_half(c->in[i]->type)) {
            *ret = c->in[i]->type;
            return true;
        }
    return false;
}

static int narrow_outputs(struct op_call *c, struct value **wide, enum onnx_type type)
{
    int r = 0;
    for (size_t i = 0; i < c->n_out && r == 0; i++) {
        if (wide[i] && wide[i]->kind == VALUE_TENSOR && wide[i]->type == ONNX_FLOAT)
            r = value_cast(c, wide[i], type, &c->out[i]);
        else
            c->out[i] = value_take(wide[i]);
    }
    return r;
}

int call_widened(struct op_call *c, op_fn *fn)
{
    enum onnx_type type;
    if (!has_half(c, &type))
        return 1;
    CLEANUP(free) struct value **ends = calloc(c->n_in + c->n_out + 1, sizeof *ends);
    if (!ends)
        return err_new(c->err, QD_E_NO_MEMORY, "16-bit floats");
    int r = 0;
    for (size_t i = 0; i < c->n_in && r == 0; i++)
        if (c->in[i] && c->in[i]->kind == VALUE_TENSOR && type_is_half(c->in[i]->type))
            r = value_cast(c, c->in[i], ONNX_FLOAT, &ends[i]);
        else
            ends[i] = value_take(c->in[i]);
    struct op_call wide = *c;
    wide.in = ends;
    wide.out = ends + c->n_in;
    if (r == 0)
        r = fn(&wide);
    if (r == 0)
        r = narrow_outputs(c, wide.out, type);
    for (size_t i = 0; i < c->n_in + c->n_out; i++)
        (void)value_release(ends[i]);
    return r;
}
