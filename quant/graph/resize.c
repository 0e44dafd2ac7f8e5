/* Resize and Upsample: one axis after the other. onnx:docs/Operators.md. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/graph/mix.h"
#include "quant/graph/row.h"
#include "quant/graph/taps.h"
#include "quant/graph/types.h"

struct resize {
    struct op_call *call;
    const struct value *x;
    struct resampling how;
    struct axis_resize axes[VALUE_DIMS_MAX]; /* of all dimensions */
    uint32_t listed[VALUE_DIMS_MAX];         /* dimensions that scales, sizes and roi speak of */
    uint32_t n_listed;
    float fill;
};

/* ---- what is asked ---- */

static int bad_list(struct op_call *c, const char *what, uint64_t n, uint32_t due)
{
    return err_new(c->err, QD_E_INVALID, "%s has %" PRIu64 " items, %" PRIu32 " are due", what, n, due);
}

static int resize_axes(struct resize *z)
{
    int64_t axes[VALUE_DIMS_MAX];
    size_t n;
    bool given, seen[VALUE_DIMS_MAX] = {false};
    int r = call_ints(z->call, "axes", -1, axes, VALUE_DIMS_MAX, &n, &given);
    z->n_listed = given ? (uint32_t)n : z->x->shape.n_dims;
    for (uint32_t i = 0; i < z->n_listed && r == 0; i++) {
        r = call_axis(z->call, given ? axes[i] : i, z->x->shape.n_dims, &z->listed[i]);
        if (r == 0 && seen[z->listed[i]])
            r = err_new(z->call->err, QD_E_INVALID, "axis %" PRIu32 " is listed twice", z->listed[i]);
        if (r == 0)
            seen[z->listed[i]] = true;
    }
    return r;
}

static int set_scale(struct resize *z, uint32_t i, float scale)
{
    struct axis_resize *a = &z->axes[z->listed[i]];
    const float exact = scale * (float)a->n_in;
    if (!(scale > 0.0f) || !(exact < 0x1p40f))
        return err_new(z->call->err, QD_E_INVALID, "an axis of %" PRId64 " is scaled by %g", a->n_in, (double)scale);
    a->scale = scale;
    a->length = exact;
    a->n_out = (int64_t)exact;
    return 0;
}

static int resize_by_scales(struct resize *z, const float *scales, uint64_t n)
{
    int r = n == z->n_listed ? 0 : bad_list(z->call, "'scales'", n, z->n_listed);
    for (uint32_t i = 0; i < z->n_listed && r == 0; i++)
        r = set_scale(z, i, scales[i]);
    return r;
}

/* One scale for all listed axes: the least or the greatest that @sizes ask for. */
static void keep_aspect(struct resize *z, const int64_t *sizes, bool larger)
{
    float scale = larger ? 0.0f : INFINITY;
    for (uint32_t i = 0; i < z->n_listed; i++) {
        const float one = (float)sizes[i] / (float)z->axes[z->listed[i]].n_in;
        scale = (larger ? one > scale : one < scale) ? one : scale;
    }
    for (uint32_t i = 0; i < z->n_listed; i++) {
        struct axis_resize *a = &z->axes[z->listed[i]];
        a->n_out = (int64_t)floorf(scale * (float)a->n_in + 0.5f);
        a->scale = scale;
        a->length = scale * (float)a->n_in;
    }
}

static int resize_by_sizes(struct resize *z, size_t input)
{
    struct op_call *c = z->call;
    int64_t sizes[VALUE_DIMS_MAX];
    size_t n;
    bool given;
    int r = call_ints(c, "", (int)input, sizes, VALUE_DIMS_MAX, &n, &given);
    if (r == 0 && n != z->n_listed)
        r = bad_list(c, "'sizes'", n, z->n_listed);
    for (uint32_t i = 0; i < z->n_listed && r == 0; i++) {
        struct axis_resize *a = &z->axes[z->listed[i]];
        if (sizes[i] < 0 || sizes[i] > INT32_MAX || (a->n_in == 0 && sizes[i] > 0))
            r = err_new(c->err, QD_E_INVALID, "an axis of %" PRId64 " to a size of %" PRId64, a->n_in, sizes[i]);
        a->n_out = sizes[i];
        a->length = (float)sizes[i];
        a->scale = a->n_in ? (float)sizes[i] / (float)a->n_in : 1.0f;
    }
    if (r < 0 || call_text_is(c, "keep_aspect_ratio_policy", "stretch", "stretch") || z->x->n == 0)
        return r;
    keep_aspect(z, sizes, call_text_is(c, "keep_aspect_ratio_policy", "not_smaller", "stretch"));
    return 0;
}

static int floats_at(struct op_call *c, size_t i, const struct value **ret)
{
    *ret = NULL;
    if (call_in(c, i) && call_in(c, i)->n == 0)
        return 0; /* an empty list counts as none */
    return call_in(c, i) ? call_tensor_in(c, i, ONNX_FLOAT, ret) : 0;
}

static int resize_region(struct resize *z)
{
    const struct value *roi;
    int r = floats_at(z->call, 1, &roi);
    if (r == 0 && (!roi || roi->n != 2 * z->n_listed))
        r = bad_list(z->call, "'roi'", roi ? roi->n : 0, 2 * z->n_listed);
    for (uint32_t i = 0; i < z->n_listed && r == 0; i++) {
        z->axes[z->listed[i]].start = ((const float *)roi->data)[i];
        z->axes[z->listed[i]].end = ((const float *)roi->data)[z->n_listed + i];
    }
    return r;
}

/* Sizes where they are given, else scales. */
static int resize_amounts(struct resize *z, size_t scales_in)
{
    struct op_call *c = z->call;
    const struct onnx_attr *a = call_attr(c, "scales");
    const struct value *scales;
    if (a && a->kind == ONNX_ATTR_FLOATS)
        return resize_by_scales(z, a->floats, a->n_floats);
    if (scales_in == 2 && call_in(c, 3) && call_in(c, 3)->n > 0)
        return resize_by_sizes(z, 3);
    int r = floats_at(c, scales_in, &scales);
    if (r == 0 && !scales)
        r = z->n_listed == 0 ? 0 : err_new(c->err, QD_E_INVALID, "neither scales nor sizes");
    return r < 0 || !scales ? r : resize_by_scales(z, scales->data, scales->n);
}

static int unknown(struct op_call *c, const char *what, struct bytes name)
{
    return err_new(c->err, QD_E_UNSUPPORTED, "%s '%.*s'", what, (int)(name.n < 60 ? name.n : 60),
                   name.n ? (const char *)name.data : "");
}

static int find_name(const char *const *names, size_t n, struct bytes name)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(names[i]) == name.n && memcmp(names[i], name.data, name.n) == 0)
            return (int)i;
    return -1;
}

/* Before opset 11: asymmetric and floor, whatever attributes say. */
static int resize_how(struct resize *z, bool old)
{
#define NAME(name, expr) #name,
    static const char *const coordinates[] = {COORDINATES(NAME)}, *const nearest[] = {NEAREST_MODES(NAME)};
#undef NAME
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    struct op_call *c = z->call;
    struct bytes mode = call_text(c, "mode", "nearest");
    const struct bytes coordinate = call_text(c, "coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
    const struct bytes rounding = call_text(c, "nearest_mode", old ? "floor" : "round_prefer_floor");
    const int m = call_text_is(c, "mode", "bilinear", "") ? RESAMPLE_LINEAR : find_name(modes, 3, mode);
    const int k = find_name(coordinates, N_COORDINATES, coordinate), n = find_name(nearest, N_NEAREST_MODES, rounding);
    if (m < 0 || k < 0 || n < 0)
        return m < 0   ? unknown(c, "mode", mode)
               : k < 0 ? unknown(c, "coordinate_transformation_mode", coordinate)
                       : unknown(c, "nearest_mode", rounding);
    z->how = (struct resampling){.mode = (enum resample)m,
                                 .coordinate = (enum coordinate)k,
                                 .nearest = (enum nearest)n,
                                 .cubic_a = call_float(c, "cubic_coeff_a", -0.75f),
                                 .exclude_outside = call_int(c, "exclude_outside", 0) != 0,
                                 .antialias = call_int(c, "antialias", 0) != 0};
    z->fill = call_float(c, "extrapolation_value", 0.0f);
    return 0;
}

/* ---- passes ---- */

struct pass {
    const struct taps *taps;
    const uint8_t *src;
    uint8_t *dst;
    uint64_t n_in, n_out, inner, bytes; /* elements behind the axis; bytes of an element */
    bool copies;                        /* one tap: elements of any type */
};

/* Row i: output index i % n_out before inner elements. */
static void pass_rows(void *data, uint64_t first, uint64_t end)
{
    const struct pass *p = data;
    for (uint64_t i = first; i < end; i++) {
        const uint64_t at = i % p->n_out, n = p->taps->n;
        const uint8_t *src = p->src + i / p->n_out * p->n_in * p->inner * p->bytes;
        uint8_t *dst = p->dst + i * p->inner * p->bytes;
        if (p->copies)
            memcpy(dst, src + p->taps->index[at] * p->inner * p->bytes, p->inner * p->bytes);
        else
            mix_rows((float *)dst, (const float *)src, p->taps->index + at * n, p->taps->weight + at * n, n, p->inner);
    }
}

static bool changes(const struct resize *z, uint32_t d)
{
    const struct axis_resize *a = &z->axes[d];
    return a->n_in != a->n_out || a->scale != 1.0f || z->how.coordinate == COORDINATE_tf_crop_and_resize;
}

/* *io, of @shape, becomes the same with axis @d resized; *shape follows. */
static int resize_pass(struct resize *z, uint32_t d, const struct taps *taps, struct value **io)
{
    struct value *out = NULL;
    struct shape shape = (*io)->shape;
    shape.dims[d] = z->axes[d].n_out;
    int r = value_new(z->call->memory, (*io)->type, &shape, &out, z->call->err);
    if (r < 0)
        return r;
    const uint64_t inner = dims_product(&shape, d + 1, shape.n_dims);
    struct pass p = {taps,
                     (*io)->data,
                     out->data,
                     (uint64_t)z->axes[d].n_in,
                     (uint64_t)z->axes[d].n_out,
                     inner,
                     value_element_bytes(out->type),
                     z->how.mode == RESAMPLE_NEAREST};
    if (out->n > 0)
        call_rows(z->call, out->n / inner, inner * taps->n + 8, pass_rows, &p);
    (void)value_release(*io);
    *io = out;
    return 0;
}

/* What lies outside of the region in axis @d becomes @fill. */
static void fill_outside(const struct resize *z, uint32_t d, const struct taps *taps, struct value *out)
{
    const uint64_t n = (uint64_t)out->shape.dims[d], inner = dims_product(&out->shape, d + 1, out->shape.n_dims);
    for (uint64_t row = 0; out->n > 0 && row < out->n / inner; row++)
        for (uint64_t i = 0; i < inner && taps->outside[row % n]; i++)
            ((float *)out->data)[row * inner + i] = z->fill;
}

static int resize_run(struct resize *z)
{
    struct taps taps[VALUE_DIMS_MAX] = {{0}};
    struct value *v = value_take((struct value *)z->x);
    int r = 0;
    for (uint32_t d = z->x->shape.n_dims; d-- > 0 && r == 0;)
        if (changes(z, d) && z->x->n > 0) {
            r = taps_make(z->call, &z->how, &z->axes[d], &taps[d]);
            if (r == 0)
                r = resize_pass(z, d, &taps[d], &v);
        }
    for (uint32_t d = 0; d < z->x->shape.n_dims; d++) {
        if (r == 0 && taps[d].block && z->how.coordinate == COORDINATE_tf_crop_and_resize)
            fill_outside(z, d, &taps[d], v);
        memory_give(z->call->memory, taps[d].block);
    }
    if (r == 0)
        call_pass(z->call, 0, v);
    (void)value_release(v);
    return r;
}

/* Of no elements: only the shape changes. */
static int resize_empty(struct resize *z)
{
    struct shape shape = z->x->shape;
    struct value *out;
    for (uint32_t d = 0; d < shape.n_dims; d++)
        shape.dims[d] = z->axes[d].n_out;
    int r = call_tensor(z->call, 0, z->x->type, &shape, &out);
    if (r == 0 && out->n > 0)
        r = err_new(z->call->err, QD_E_INVALID, "a tensor without elements cannot be resized to one with some");
    return r;
}

static int resize(struct op_call *c, size_t scales_in, bool old)
{
    struct resize z = {.call = c};
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &z.x);
    for (uint32_t d = 0; r == 0 && d < z.x->shape.n_dims; d++)
        z.axes[d] =
            (struct axis_resize){.n_in = z.x->shape.dims[d], .n_out = z.x->shape.dims[d], .scale = 1.0f, .end = 1.0f};
    if (r == 0)
        r = resize_how(&z, old);
    if (r == 0)
        r = resize_axes(&z);
    if (r == 0)
        r = resize_amounts(&z, scales_in);
    if (r == 0 && z.how.coordinate == COORDINATE_tf_crop_and_resize)
        r = resize_region(&z);
    if (r < 0)
        return r;
    const bool mixes = z.how.mode != RESAMPLE_NEAREST || z.how.coordinate == COORDINATE_tf_crop_and_resize;
    if (z.x->type == ONNX_STRING || (mixes && z.x->type != ONNX_FLOAT))
        return err_new(c->err, QD_E_UNSUPPORTED, "a tensor of %s in this mode", onnx_type_name(z.x->type));
    return z.x->n == 0 ? resize_empty(&z) : resize_run(&z);
}

int op_resize(struct op_call *c)
{
    WIDEN(c, op_resize);
    return c->opset < 11 ? resize(c, 1, true) : resize(c, 2, false);
}

int op_upsample(struct op_call *c)
{
    WIDEN(c, op_upsample);
    return resize(c, 1, true);
}
