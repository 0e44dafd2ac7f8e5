/*
 * Operators that copy elements into another order: Transpose, Expand, Tile, Concat, Split, Slice, Pad and their like.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/arrange.h"
#include "quant/graph/types.h"
#include "quant/graph/view.h"

static int copy_view(struct op_call *c, size_t i, const struct value *v, const struct view *view,
                     const struct shape *shape)
{
    struct value *out;
    int r = call_tensor(c, i, v->type, shape, &out);
    return r < 0 ? r : view_copy(c, v, view, out);
}

static struct shape shape_of_view(const struct view *v)
{
    struct shape s = {.n_dims = v->n_dims};
    memcpy(s.dims, v->dims, v->n_dims * sizeof s.dims[0]);
    return s;
}

/* ---- Transpose ---- */

int op_transpose(struct op_call *c)
{
    const struct value *v;
    int64_t perm[VALUE_DIMS_MAX];
    bool seen[VALUE_DIMS_MAX] = {false}, given;
    size_t n;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "perm", -1, perm, VALUE_DIMS_MAX, &n, &given);
    if (r < 0)
        return r;
    if (given && n != v->shape.n_dims)
        return err_new(c->err, QD_E_INVALID, "'perm' lists %zu axes of %" PRIu32, n, v->shape.n_dims);
    const struct view whole = view_whole(&v->shape);
    struct view t = whole;
    for (uint32_t d = 0; d < whole.n_dims; d++) {
        uint32_t from = whole.n_dims - 1 - d;
        if (given)
            r = call_axis(c, perm[d], whole.n_dims, &from);
        if (r < 0 || seen[from])
            return r < 0 ? r : err_new(c->err, QD_E_INVALID, "'perm' lists axis %" PRIu32 " twice", from);
        seen[from] = true;
        t.dims[d] = whole.dims[from];
        t.strides[d] = whole.strides[from];
    }
    const struct shape s = shape_of_view(&t);
    return copy_view(c, 0, v, &t, &s);
}

/* ---- Expand and Tile ---- */

int op_expand(struct op_call *c)
{
    const struct value *v;
    struct shape wanted = {.n_dims = 0}, s;
    size_t n = 0;
    bool given = false;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "shape", 1, wanted.dims, VALUE_DIMS_MAX, &n, &given);
    wanted.n_dims = (uint32_t)n;
    if (r == 0)
        r = call_broadcast(c, &v->shape, &wanted, &s);
    if (r < 0)
        return r;
    const struct view whole = view_whole(&v->shape);
    struct view t = {.n_dims = s.n_dims};
    for (uint32_t d = 0; d < s.n_dims; d++) {
        const uint32_t skipped = s.n_dims - whole.n_dims;
        t.dims[d] = s.dims[d];
        t.strides[d] = d < skipped || whole.dims[d - skipped] == 1 ? 0 : whole.strides[d - skipped];
    }
    return copy_view(c, 0, v, &t, &s);
}

int op_tile(struct op_call *c)
{
    const struct value *v;
    int64_t repeats[VALUE_DIMS_MAX];
    size_t n = 0;
    bool given = false;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "", 1, repeats, VALUE_DIMS_MAX, &n, &given);
    if (r < 0)
        return r;
    if (n != v->shape.n_dims)
        return err_new(c->err, QD_E_INVALID, "%zu repeats for %" PRIu32 " dimensions", n, v->shape.n_dims);
    const struct view whole = view_whole(&v->shape);
    struct view t = {.n_dims = 2 * whole.n_dims};
    struct shape s = v->shape;
    for (uint32_t d = 0; d < whole.n_dims; d++) {
        t.dims[2 * d] = repeats[d] < 0 ? 0 : repeats[d];
        t.strides[2 * d] = 0;
        t.dims[2 * d + 1] = whole.dims[d];
        t.strides[2 * d + 1] = whole.strides[d];
        if (__builtin_mul_overflow(s.dims[d], t.dims[2 * d], &s.dims[d]))
            return err_new(c->err, QD_E_LIMIT, "more elements than can be counted");
    }
    return copy_view(c, 0, v, &t, &s);
}

/* ---- Concat and Split ---- */

static int concat_shape(struct op_call *c, struct value *const *v, size_t n, uint32_t axis, struct shape *s)
{
    for (size_t i = 1; i < n; i++) {
        char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
        struct shape like = v[i]->shape;
        if (v[i]->type != v[0]->type)
            return err_new(c->err, QD_E_INVALID, "a %s among %s", onnx_type_name(v[i]->type),
                           onnx_type_name(v[0]->type));
        if (like.n_dims == s->n_dims)
            like.dims[axis] = v[0]->shape.dims[axis];
        if (!shape_equal(&like, &v[0]->shape))
            return err_new(c->err, QD_E_INVALID, "shapes %s and %s do not fit side by side along axis %" PRIu32,
                           shape_text(&v[0]->shape, a), shape_text(&v[i]->shape, b), axis);
        if (__builtin_add_overflow(s->dims[axis], v[i]->shape.dims[axis], &s->dims[axis]))
            return err_new(c->err, QD_E_LIMIT, "more elements than can be counted");
    }
    return 0;
}

/* @v side by side along @axis into output 0. */
int concat_values(struct op_call *c, struct value *const *v, size_t n, int64_t axis)
{
    uint32_t at;
    struct value *out;
    struct shape s = v[0]->shape;
    int r = call_axis(c, axis, s.n_dims, &at);
    if (r == 0)
        r = concat_shape(c, v, n, at, &s);
    if (r == 0)
        r = call_tensor(c, 0, v[0]->type, &s, &out);
    if (r < 0 || out->n == 0)
        return r;
    const uint64_t outer = dims_product(&s, 0, at), row = dims_product(&s, at, s.n_dims);
    uint64_t start = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const uint64_t part = dims_product(&v[i]->shape, at, v[i]->shape.n_dims);
        for (uint64_t o = 0; o < outer && r == 0; o++)
            r = value_copy(out, o * row + start, v[i], o * part, part, c->err);
        start += part;
    }
    return r;
}

int op_concat(struct op_call *c)
{
    const struct value *v;
    for (size_t i = 0; i < c->n_in; i++) {
        int r = call_tensor_in(c, i, ONNX_UNDEFINED, &v);
        if (r < 0)
            return r;
    }
    if (c->n_in == 0)
        return err_new(c->err, QD_E_INVALID, "has no inputs");
    return concat_values(c, c->in, c->n_in, call_int(c, "axis", 1));
}

static int split_sizes(struct op_call *c, int64_t whole, int64_t *sizes)
{
    size_t n = 0;
    bool given = false;
    int r = call_ints(c, "split", c->opset >= 13 || c->opset < 2 ? 1 : -1, sizes, c->n_out, &n, &given);
    if (r < 0)
        return r;
    const int64_t parts = (int64_t)c->n_out, each = (whole + parts - 1) / parts;
    for (int64_t i = 0; i < parts && !given; i++) { /* even, the last one smaller (num_outputs) */
        const int64_t rest = whole - i * each;
        sizes[i] = rest < 0 ? 0 : rest < each ? rest : each;
    }
    if (given && n != c->n_out)
        return err_new(c->err, QD_E_INVALID, "'split' lists %zu sizes for %zu outputs", n, c->n_out);
    int64_t left = whole;
    for (int64_t i = 0; i < parts; i++) {
        if (sizes[i] < 0 || sizes[i] > left)
            return err_new(c->err, QD_E_INVALID, "part %" PRId64 " has %" PRId64 ", %" PRId64 " are left of the axis",
                           i, sizes[i], left);
        left -= sizes[i];
    }
    return left == 0
               ? 0
               : err_new(c->err, QD_E_INVALID, "%" PRId64 " of the axis' %" PRId64 " are in no part", left, whole);
}

int op_split(struct op_call *c)
{
    enum { PARTS_MAX = 4096 };
    int64_t sizes[PARTS_MAX];
    const struct value *v;
    uint32_t axis;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_axis(c, call_int(c, "axis", 0), v->shape.n_dims, &axis);
    if (r == 0 && (c->n_out > PARTS_MAX || c->n_out == 0))
        r = err_new(c->err, QD_E_LIMIT, "%zu parts", c->n_out);
    if (r == 0)
        r = split_sizes(c, v->shape.dims[axis], sizes);
    struct view part = r == 0 ? view_whole(&v->shape) : (struct view){0};
    for (size_t i = 0; i < c->n_out && r == 0; i++) {
        part.dims[axis] = sizes[i];
        const struct shape s = shape_of_view(&part);
        r = copy_view(c, i, v, &part, &s);
        part.base += sizes[i] * part.strides[axis];
    }
    return r;
}

/* ---- Slice ---- */

struct slicing {
    int64_t starts[VALUE_DIMS_MAX], ends[VALUE_DIMS_MAX], axes[VALUE_DIMS_MAX], steps[VALUE_DIMS_MAX];
    size_t n, n_ends, n_axes, n_steps;
};

static int read_slicing(struct op_call *c, struct slicing *k)
{
    bool given;
    const bool inputs = c->opset >= 10;
    int r = call_ints(c, "starts", inputs ? 1 : -1, k->starts, VALUE_DIMS_MAX, &k->n, &given);
    if (r == 0)
        r = call_ints(c, "ends", inputs ? 2 : -1, k->ends, VALUE_DIMS_MAX, &k->n_ends, &given);
    if (r == 0)
        r = call_ints(c, "axes", inputs ? 3 : -1, k->axes, VALUE_DIMS_MAX, &k->n_axes, &given);
    for (size_t i = 0; i < VALUE_DIMS_MAX && r == 0 && !given; i++)
        k->axes[i] = (int64_t)i;
    if (r == 0 && !given)
        k->n_axes = k->n;
    if (r == 0)
        r = call_ints(c, "steps", inputs ? 4 : -1, k->steps, VALUE_DIMS_MAX, &k->n_steps, &given);
    for (size_t i = 0; i < VALUE_DIMS_MAX && r == 0 && !given; i++)
        k->steps[i] = 1;
    if (r == 0 && !given)
        k->n_steps = k->n;
    if (r == 0 && (k->n_ends != k->n || k->n_axes != k->n || k->n_steps != k->n))
        r = err_new(c->err, QD_E_INVALID, "%zu starts, %zu ends, %zu axes and %zu steps", k->n, k->n_ends, k->n_axes,
                    k->n_steps);
    return r;
}

static int64_t limit(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* numpy's rule for start:end:step within @n. */
static int slice_axis(struct op_call *c, struct view *v, uint32_t axis, int64_t start, int64_t end, int64_t step)
{
    const int64_t n = v->dims[axis];
    if (step == 0)
        return err_new(c->err, QD_E_INVALID, "a step of 0 along axis %" PRIu32, axis);
    if (step < -INT32_MAX)
        step = -INT32_MAX; /* so that it can be negated */
    if (step > INT32_MAX)
        step = INT32_MAX;
    start = start < 0 ? (start < -n ? -1 : start + n) : start;
    end = end < 0 ? (end < -n ? -1 : end + n) : end;
    start = step > 0 ? limit(start, 0, n) : limit(start, -1, n - 1);
    end = step > 0 ? limit(end, 0, n) : limit(end, -1, n - 1);
    const int64_t span = step > 0 ? end - start : start - end, by = step > 0 ? step : -step;
    v->dims[axis] = span > 0 ? (span + by - 1) / by : 0;
    if (v->dims[axis] > 0)
        v->base += start * v->strides[axis];
    v->strides[axis] *= v->dims[axis] > 1 ? step : 0;
    return 0;
}

int op_slice(struct op_call *c)
{
    const struct value *v;
    struct slicing k;
    bool seen[VALUE_DIMS_MAX] = {false};
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = read_slicing(c, &k);
    if (r < 0)
        return r;
    struct view t = view_whole(&v->shape);
    for (size_t i = 0; i < k.n && r == 0; i++) {
        uint32_t axis;
        r = call_axis(c, k.axes[i], t.n_dims, &axis);
        if (r == 0 && seen[axis])
            r = err_new(c->err, QD_E_INVALID, "axis %" PRIu32 " is listed twice", axis);
        if (r == 0) {
            seen[axis] = true;
            r = slice_axis(c, &t, axis, k.starts[i], k.ends[i], k.steps[i]);
        }
    }
    if (r < 0)
        return r;
    const struct shape s = shape_of_view(&t);
    return copy_view(c, 0, v, &t, &s);
}

/* ---- Pad ---- */

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

struct padding {
    const struct value *in;
    struct value *out;
    int64_t before[VALUE_DIMS_MAX];
    enum pad_mode mode;
    const void *fill;
};

/* Where position @x of a padded axis is taken from; -1: the fill. */
static int64_t pad_source(const struct padding *p, int64_t x, int64_t n)
{
    if (x >= 0 && x < n)
        return x;
    if (p->mode == PAD_CONSTANT)
        return -1;
    if (p->mode == PAD_EDGE)
        return x < 0 ? 0 : n - 1;
    if (p->mode == PAD_WRAP)
        return ((x % n) + n) % n;
    const int64_t period = n > 1 ? 2 * (n - 1) : 1, at = ((x % period) + period) % period;
    return at < n ? at : period - at;
}

static int pad_mode_of(struct op_call *c, enum pad_mode *ret)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (call_text_is(c, "mode", names[i], "constant")) {
            *ret = (enum pad_mode)i;
            return 0;
        }
    return err_new(c->err, QD_E_UNSUPPORTED, "a mode of this name");
}

static void pad_elements(void *data, uint64_t first, uint64_t end)
{
    const struct padding *p = data;
    const size_t bytes = value_element_bytes(p->in->type);
    for (uint64_t i = first; i < end; i++) {
        uint64_t rest = i;
        int64_t from = 0, stride = 1;
        for (uint32_t d = p->out->shape.n_dims; d-- > 0; rest /= (uint64_t)p->out->shape.dims[d]) {
            const int64_t x = (int64_t)(rest % (uint64_t)p->out->shape.dims[d]) - p->before[d];
            const int64_t at = pad_source(p, x, p->in->shape.dims[d]);
            from = at < 0 || from < 0 ? -1 : from + at * stride;
            stride *= p->in->shape.dims[d];
        }
        const void *src = from < 0 ? p->fill : (const uint8_t *)p->in->data + (size_t)from * bytes;
        memcpy((uint8_t *)p->out->data + i * bytes, src, bytes);
    }
}

static int pad_shape(struct op_call *c, struct padding *p, struct shape *s)
{
    int64_t pads[2 * VALUE_DIMS_MAX], axes[VALUE_DIMS_MAX];
    size_t n, n_axes;
    bool given, some;
    const bool inputs = c->opset >= 11;
    int r = call_ints(c, c->opset < 2 ? "paddings" : "pads", inputs ? 1 : -1, pads, 2 * VALUE_DIMS_MAX, &n, &given);
    if (r == 0)
        r = call_ints(c, "axes", c->opset >= 18 ? 3 : -1, axes, VALUE_DIMS_MAX, &n_axes, &some);
    if (r < 0)
        return r;
    if (!some)
        n_axes = s->n_dims;
    if (n != 2 * n_axes)
        return err_new(c->err, QD_E_INVALID, "%zu pads for %zu axes", n, n_axes);
    for (size_t i = 0; i < n_axes && r == 0; i++) {
        uint32_t at = (uint32_t)i;
        if (some)
            r = call_axis(c, axes[i], s->n_dims, &at);
        if (r < 0)
            return r;
        const int64_t before = pads[i], after = pads[n_axes + i], was = s->dims[at];
        p->before[at] = before;
        if (before < INT32_MIN || before > INT32_MAX || after < INT32_MIN || after > INT32_MAX ||
            was + before + after < 0)
            return err_new(c->err, QD_E_INVALID, "pads of %" PRId64 " and %" PRId64 " around %" PRId64, before, after,
                           was);
        s->dims[at] = was + before + after;
        if (p->mode != PAD_CONSTANT && was == 0 && s->dims[at] > 0)
            return err_new(c->err, QD_E_INVALID, "axis %" PRIu32 " is empty: there is nothing to repeat", at);
    }
    return r;
}

int op_pad(struct op_call *c)
{
    static const uint64_t zero[2] = {0, 0};
    struct padding p = {.fill = zero};
    const float value = call_float(c, "value", 0.0f);
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &p.in);
    if (r == 0)
        r = pad_mode_of(c, &p.mode);
    if (r < 0)
        return r;
    if (p.in->type == ONNX_STRING)
        return err_new(c->err, QD_E_UNSUPPORTED, "padding strings");
    struct shape s = p.in->shape;
    const struct value *fill = c->opset >= 11 ? call_in(c, 2) : NULL;
    if (fill && (fill->kind != VALUE_TENSOR || fill->n != 1 || fill->type != p.in->type))
        return err_new(c->err, QD_E_INVALID, "the fill is no single %s", onnx_type_name(p.in->type));
    if (fill)
        p.fill = fill->data;
    else if (p.in->type == ONNX_FLOAT)
        p.fill = &value;
    r = pad_shape(c, &p, &s);
    if (r == 0)
        r = call_tensor(c, 0, p.in->type, &s, &p.out);
    if (r == 0)
        call_rows(c, p.out->n, 4, pad_elements, &p);
    return r;
}

/* ---- depth and space ---- */

/* [N, C, H, W] as six dimensions, reordered by @perm, joined into @s. */
static int blocks(struct op_call *c, const struct value *v, const int64_t dims[6], const uint32_t perm[6],
                  const struct shape *s)
{
    struct shape six = {.n_dims = 6};
    memcpy(six.dims, dims, sizeof six.dims[0] * 6);
    const struct view whole = view_whole(&six);
    struct view t = {.n_dims = 6};
    for (uint32_t d = 0; d < 6; d++) {
        t.dims[d] = whole.dims[perm[d]];
        t.strides[d] = whole.strides[perm[d]];
    }
    return copy_view(c, 0, v, &t, s);
}

static int image_of_blocks(struct op_call *c, const struct value **v, int64_t *b)
{
    *b = call_int(c, "blocksize", 0);
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, v);
    bool small = r == 0 && (*v)->shape.n_dims == 4 && *b >= 1 && *b <= 1 << 15; /* so that products can be taken */
    for (uint32_t d = 0; small && d < 4; d++)
        small = (*v)->shape.dims[d] <= INT32_MAX;
    char text[SHAPE_TEXT_BYTES];
    if (r == 0 && !small)
        r = err_new(c->err, QD_E_INVALID, "blocks of %" PRId64 " in %s", *b, shape_text(&(*v)->shape, text));
    return r;
}

int op_depth_to_space(struct op_call *c)
{
    const struct value *v;
    int64_t b;
    int r = image_of_blocks(c, &v, &b);
    if (r < 0)
        return r;
    const int64_t *d = v->shape.dims;
    if (d[1] % (b * b))
        return err_new(c->err, QD_E_INVALID, "%" PRId64 " channels do not divide into blocks of %" PRId64, d[1], b * b);
    const struct shape s = {.n_dims = 4, .dims = {d[0], d[1] / (b * b), d[2] * b, d[3] * b}};
    const bool columns_first = call_text_is(c, "mode", "CRD", "DCR");
    const int64_t dcr[6] = {d[0], b, b, s.dims[1], d[2], d[3]}, crd[6] = {d[0], s.dims[1], b, b, d[2], d[3]};
    return blocks(c, v, columns_first ? crd : dcr,
                  columns_first ? (uint32_t[6]){0, 1, 4, 2, 5, 3} : (uint32_t[6]){0, 3, 4, 1, 5, 2}, &s);
}

int op_space_to_depth(struct op_call *c)
{
    const struct value *v;
    int64_t b;
    int r = image_of_blocks(c, &v, &b);
    if (r < 0)
        return r;
    const int64_t *d = v->shape.dims;
    if (d[2] % b || d[3] % b)
        return err_new(c->err, QD_E_INVALID, "%" PRId64 " x %" PRId64 " does not divide into blocks of %" PRId64, d[2],
                       d[3], b);
    const struct shape s = {.n_dims = 4, .dims = {d[0], d[1] * b * b, d[2] / b, d[3] / b}};
    return blocks(c, v, (int64_t[6]){d[0], d[1], d[2] / b, b, d[3] / b, b}, (uint32_t[6]){0, 3, 5, 1, 2, 4}, &s);
}

/* ---- triangles and diagonals ---- */

int op_trilu(struct op_call *c)
{
    const struct value *v;
    struct value *out;
    int64_t k = 0;
    size_t n = 0;
    bool given = false;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0)
        r = call_ints(c, "", 1, &k, 1, &n, &given);
    if (r == 0 && (v->shape.n_dims < 2 || v->type == ONNX_STRING))
        r = err_new(c->err, QD_E_INVALID, "no matrices");
    if (r == 0)
        r = call_tensor(c, 0, v->type, &v->shape, &out);
    if (r < 0)
        return r;
    const size_t bytes = value_element_bytes(v->type);
    const int64_t rows = v->shape.dims[v->shape.n_dims - 2], columns = v->shape.dims[v->shape.n_dims - 1];
    const bool upper = call_int(c, "upper", 1) != 0;
    k = limit(k, -(INT64_MAX / 4), INT64_MAX / 4);
    if (v->n)
        memcpy(out->data, v->data, v->n * bytes);
    for (uint64_t i = 0; i < v->n; i++) {
        const int64_t x = (int64_t)(i % (uint64_t)columns), y = (int64_t)(i / (uint64_t)columns % (uint64_t)rows);
        if (upper ? x < y + k : x > y + k)
            memset((uint8_t *)out->data + i * bytes, 0, bytes);
    }
    return 0;
}

int op_eye_like(struct op_call *c)
{
    const struct value *v;
    const struct shape *s;
    CLEANUP(value_release) struct value *ones = NULL;
    int r = call_tensor_in(c, 0, ONNX_UNDEFINED, &v);
    if (r == 0 && v->shape.n_dims != 2)
        r = err_new(c->err, QD_E_INVALID, "no matrix");
    if (r < 0)
        return r;
    s = &v->shape;
    r = value_new(c->memory, ONNX_DOUBLE, s, &ones, c->err);
    if (r < 0)
        return r;
    const int64_t k = call_int(c, "k", 0);
    for (uint64_t i = 0; i < ones->n; i++)
        ((double *)ones->data)[i] = (int64_t)(i % (uint64_t)s->dims[1]) - (int64_t)(i / (uint64_t)s->dims[1]) == k;
    return value_cast(c, ones, (enum onnx_type)call_int(c, "dtype", v->type), &c->out[0]);
}
