#include "quant/graph/codes.h"

#include <inttypes.h>
#include <string.h>

#include "quant/graph/row.h"
#include "quant/graph/types.h"

/* X(C type, its types of codes) */
#define CODE_TYPES(X)                        \
    X(u8, ONNX_UINT8, 0, UINT8_MAX)          \
    X(i8, ONNX_INT8, INT8_MIN, INT8_MAX)     \
    X(u16, ONNX_UINT16, 0, UINT16_MAX)       \
    X(i16, ONNX_INT16, INT16_MIN, INT16_MAX) \
    X(i32, ONNX_INT32, INT32_MIN, INT32_MAX) \
    X(u8, ONNX_UINT4, 0, 15)                 \
    X(i8, ONNX_INT4, -8, 7)                  \
    X(u8, ONNX_UINT2, 0, 3)                  \
    X(i8, ONNX_INT2, -2, 1)

bool codes_range(enum onnx_type type, int32_t *ret_least, int32_t *ret_greatest)
{
#define RANGE(T, code, least, greatest) \
    if (type == code) {                 \
        *ret_least = least;             \
        *ret_greatest = greatest;       \
        return true;                    \
    }
    CODE_TYPES(RANGE)
#undef RANGE
    return false;
}

void codes_load(enum onnx_type type, const void *data, uint64_t first, size_t n, int32_t *dst)
{
#define LOAD(T, code, least, greatest) \
    if (type == code)                  \
        for (size_t i = 0; i < n; i++) \
            dst[i] = ((const t_##T *)data)[first + i];
    CODE_TYPES(LOAD)
#undef LOAD
}

void codes_store(enum onnx_type type, void *data, uint64_t first, size_t n, const int32_t *src)
{
#define STORE(T, code, least, greatest) \
    if (type == code)                   \
        for (size_t i = 0; i < n; i++)  \
            ((t_##T *)data)[first + i] = (t_##T)src[i];
    CODE_TYPES(STORE)
#undef STORE
}

int32_t code_at(const struct value *v, uint64_t i)
{
    int32_t code = 0;
    if (v)
        codes_load(v->type, v->data, i, 1, &code);
    return code;
}

/* ---- scales ---- */

enum { RUN_OF_ONE_SCALE = 4096 };

static struct scales one_scale(uint64_t n)
{
    return (struct scales){.n_runs = (n + RUN_OF_ONE_SCALE - 1) / RUN_OF_ONE_SCALE,
                           .run = RUN_OF_ONE_SCALE,
                           .row = n,
                           .per_row = UINT64_MAX,
                           .n_axis = 1,
                           .block = 1};
}

/* @step: scales that lie beside each other for one index of the blocks: 1, or those behind the axis. */
static struct scales scales_of_axis(const struct value *x, uint32_t axis, uint64_t block, bool blocked)
{
    const uint64_t n_axis = (uint64_t)x->shape.dims[axis], inner = dims_product(&x->shape, axis + 1, x->shape.n_dims);
    const uint64_t n_blocks = (n_axis - 1) / block + 1;
    struct scales s = {.row = n_axis * inner, .n_axis = n_axis, .block = block, .step = blocked ? inner : 1};
    s.scales_per_row = blocked ? n_blocks * inner : 0;
    s.run = inner;
    s.per_row = n_axis;
    s.stride = blocked;
    if (inner == 1 && blocked) { /* a block is a run of one scale */
        s.run = block;
        s.per_row = n_blocks;
        s.block = 1;
        s.stride = 0;
    } else if (inner == 1) { /* all of the axis is a run, with a scale each */
        s.run = n_axis;
        s.per_row = 1;
        s.stride = 1;
    }
    s.n_runs = x->n / s.row * s.per_row;
    return s;
}

struct scale_run scales_run(const struct scales *s, uint64_t i)
{
    const uint64_t row = i / s->per_row, at = i % s->per_row;
    const uint64_t first = at * s->run, left = s->row - first;
    return (struct scale_run){.first = row * s->row + first,
                              .n = left < s->run ? left : s->run,
                              .scale = row * s->scales_per_row + at / s->block * s->step,
                              .stride = s->stride};
}

static int misfit(struct op_call *c, const struct value *x, const struct value *scale)
{
    char text[SHAPE_TEXT_BYTES], of[SHAPE_TEXT_BYTES];
    return err_new(c->err, QD_E_INVALID, "scales of shape %s for a tensor of shape %s", shape_text(&scale->shape, text),
                   shape_text(&x->shape, of));
}

static bool blocks_fit(const struct value *x, const struct value *scale, uint32_t axis, uint64_t block)
{
    bool fits = x->shape.n_dims == scale->shape.n_dims;
    for (uint32_t d = 0; d < x->shape.n_dims && fits; d++) {
        const uint64_t n = (uint64_t)x->shape.dims[d];
        fits = (uint64_t)scale->shape.dims[d] == (d == axis ? (n - 1) / block + 1 : n);
    }
    return fits;
}

int scales_of(struct op_call *c, const struct value *x, const struct value *scale, const struct value *zero,
              struct scales *ret)
{
    const int64_t block = call_int(c, "block_size", 0);
    uint32_t axis = 0;
    int r = 0;
    if (zero && !shape_equal(&zero->shape, &scale->shape) && (zero->n != 1 || scale->n != 1))
        return misfit(c, zero, scale);
    if (scale->n == 1 && block <= 0) {
        *ret = one_scale(x->n);
        return 0;
    }
    if (x->shape.n_dims != 1 || call_attr(c, "axis"))
        r = call_axis(c, call_int(c, "axis", 1), x->shape.n_dims, &axis);
    if (r < 0)
        return r;
    if (x->n == 0) {
        *ret = (struct scales){.per_row = 1};
        return 0;
    }
    if (block > 0 ? !blocks_fit(x, scale, axis, (uint64_t)block)
                  : scale->shape.n_dims != 1 || scale->shape.dims[0] != x->shape.dims[axis])
        return misfit(c, x, scale);
    *ret = scales_of_axis(x, axis, block > 0 ? (uint64_t)block : 1, block > 0);
    return 0;
}
