#include "quant/graph/window.h"

#include <inttypes.h>
#include <string.h>

enum { PAD_MAX = 1 << 24 };

static int begin(struct op_call *c, const struct shape *x, struct window *w)
{
    if (x->n_dims < 3 || x->n_dims > 2 + WINDOW_DIMS)
        return err_new(c->err, QD_E_UNSUPPORTED, "an image of %" PRIu32 " dimensions beside batch and channel",
                       x->n_dims < 2 ? 0 : x->n_dims - 2);
    *w = (struct window){.n_dims = x->n_dims - 2};
    for (int d = 0; d < WINDOW_DIMS; d++)
        w->in[d] = w->out[d] = w->kernel[d] = w->stride[d] = w->dilation[d] = 1;
    for (uint32_t d = 0; d < w->n_dims; d++)
        w->in[WINDOW_DIMS - w->n_dims + d] = x->dims[2 + d];
    return 0;
}

/* Attribute @name [n_dims] into the last dimensions of @dst, each from @least on. */
static int read_list(struct op_call *c, const struct window *w, const char *name, int64_t least, int64_t *dst)
{
    int64_t list[WINDOW_DIMS];
    size_t n;
    bool given;
    int r = call_ints(c, name, -1, list, WINDOW_DIMS, &n, &given);
    if (r < 0 || !given)
        return r;
    if (n != w->n_dims)
        return err_new(c->err, QD_E_INVALID, "'%s' lists %zu numbers for %" PRIu32 " dimensions", name, n, w->n_dims);
    for (size_t d = 0; d < n; d++) {
        if (list[d] < least || list[d] > PAD_MAX)
            return err_new(c->err, QD_E_INVALID, "'%s' says %" PRId64, name, list[d]);
        dst[WINDOW_DIMS - n + d] = list[d];
    }
    return 0;
}

static int read_pads(struct op_call *c, struct window *w)
{
    int64_t list[2 * WINDOW_DIMS];
    size_t n;
    bool given;
    int r = call_ints(c, "pads", -1, list, 2 * WINDOW_DIMS, &n, &given);
    if (r < 0 || !given)
        return r;
    if (n != 2 * w->n_dims)
        return err_new(c->err, QD_E_INVALID, "'pads' lists %zu numbers for %" PRIu32 " dimensions", n, w->n_dims);
    for (uint32_t d = 0; d < w->n_dims; d++) {
        const int64_t before = list[d], after = list[w->n_dims + d];
        if (before < 0 || after < 0 || before > PAD_MAX || after > PAD_MAX)
            return err_new(c->err, QD_E_INVALID, "'pads' says %" PRId64 " and %" PRId64, before, after);
        w->before[WINDOW_DIMS - w->n_dims + d] = before;
        w->after[WINDOW_DIMS - w->n_dims + d] = after;
    }
    return 0;
}

/* Elements that a window spans. */
static int64_t span(const struct window *w, int d)
{
    return (w->kernel[d] - 1) * w->dilation[d] + 1;
}

/* SAME: as many outputs as strides fit into the image; the odd pad goes behind (UPPER) or before (LOWER). */
static void same_pads(struct window *w, int d, bool upper, int64_t missing)
{
    missing = missing < 0 ? 0 : missing;
    w->before[d] = upper ? missing / 2 : missing - missing / 2;
    w->after[d] = missing - w->before[d];
}

static int count_outputs(struct op_call *c, struct window *w, int d, bool ceil_mode)
{
    const int64_t room = w->in[d] + w->before[d] + w->after[d] - span(w, d);
    if (room < 0)
        return err_new(c->err, QD_E_INVALID,
                       "a window of %" PRId64 " over %" PRId64 " elements with pads of %" PRId64 " and %" PRId64,
                       span(w, d), w->in[d], w->before[d], w->after[d]);
    w->out[d] = room / w->stride[d] + 1;
    if (!ceil_mode || room % w->stride[d] == 0)
        return 0;
    /* One more, unless it would begin in the pads behind. */
    w->out[d] += w->out[d] * w->stride[d] < w->in[d] + w->before[d];
    return 0;
}

static int place(struct op_call *c, struct window *w)
{
    const bool upper = call_text_is(c, "auto_pad", "SAME_UPPER", "NOTSET");
    const bool lower = call_text_is(c, "auto_pad", "SAME_LOWER", "NOTSET");
    const bool valid = call_text_is(c, "auto_pad", "VALID", "NOTSET");
    const bool ceil_mode = call_int(c, "ceil_mode", 0) != 0;
    int r = upper || lower || valid ? 0 : read_pads(c, w);
    for (int d = WINDOW_DIMS - (int)w->n_dims; d < WINDOW_DIMS && r == 0; d++) {
        const int64_t n = (w->in[d] + w->stride[d] - 1) / w->stride[d];
        if (upper || lower)
            same_pads(w, d, upper, (n - 1) * w->stride[d] + span(w, d) - w->in[d]);
        r = count_outputs(c, w, d, ceil_mode && !(upper || lower));
    }
    return r;
}

/* onnx:docs/Operators.md, ConvTranspose: the result has stride * (in - 1) + span elements and some more or less. */
static int place_turned(struct op_call *c, struct window *w)
{
    int64_t more[WINDOW_DIMS] = {0}, wanted[WINDOW_DIMS] = {-1, -1, -1};
    const bool upper = call_text_is(c, "auto_pad", "SAME_UPPER", "NOTSET");
    const bool lower = call_text_is(c, "auto_pad", "SAME_LOWER", "NOTSET");
    const bool has_shape = call_attr(c, "output_shape") != NULL;
    int r = upper || lower || has_shape ? 0 : read_pads(c, w);
    if (r == 0)
        r = read_list(c, w, "output_padding", 0, more);
    if (r == 0)
        r = read_list(c, w, "output_shape", 0, wanted);
    for (int d = WINDOW_DIMS - (int)w->n_dims; d < WINDOW_DIMS && r == 0; d++) {
        const int64_t full = w->stride[d] * (w->in[d] - 1) + span(w, d) + more[d];
        if (has_shape || upper || lower) {
            w->out[d] = has_shape ? wanted[d] : w->in[d] * w->stride[d];
            same_pads(w, d, !upper, full - w->out[d]);
            if (upper)
                same_pads(w, d, true, full - w->out[d]);
        } else {
            w->out[d] = full - w->before[d] - w->after[d];
        }
        if (w->out[d] < 0 || w->in[d] < 1)
            r = err_new(c->err, QD_E_INVALID, "%" PRId64 " elements become %" PRId64, w->in[d], w->out[d]);
    }
    return r;
}

int window_read(struct op_call *c, const struct shape *x, const int64_t *kernel, bool turned, struct window *ret)
{
    struct window w;
    int r = begin(c, x, &w);
    for (uint32_t d = 0; kernel && r == 0 && d < w.n_dims; d++)
        w.kernel[WINDOW_DIMS - w.n_dims + d] = kernel[d];
    if (r == 0 && !kernel)
        r = read_list(c, &w, "kernel_shape", 1, w.kernel);
    if (r == 0)
        r = read_list(c, &w, "strides", 1, w.stride);
    if (r == 0)
        r = read_list(c, &w, "dilations", 1, w.dilation);
    for (int d = 0; d < WINDOW_DIMS && r == 0; d++)
        if (w.kernel[d] < 1 || w.kernel[d] > PAD_MAX || w.in[d] < 0 || w.in[d] > INT32_MAX)
            r = err_new(c->err, QD_E_INVALID, "a window of %" PRId64 " over %" PRId64 " elements", w.kernel[d],
                        w.in[d]);
    if (r == 0)
        r = turned ? place_turned(c, &w) : place(c, &w);
    if (r == 0)
        *ret = w;
    return r;
}

int window_global(struct op_call *c, const struct shape *x, struct window *ret)
{
    int r = begin(c, x, ret);
    for (int d = 0; d < WINDOW_DIMS && r == 0; d++) {
        ret->kernel[d] = ret->in[d];
        if (ret->in[d] < 1)
            r = err_new(c->err, QD_E_INVALID, "an image without elements");
    }
    return r;
}

static uint64_t volume(const int64_t *d)
{
    return (uint64_t)d[0] * (uint64_t)d[1] * (uint64_t)d[2];
}

uint64_t window_in(const struct window *w)
{
    return volume(w->in);
}

uint64_t window_out(const struct window *w)
{
    return volume(w->out);
}

uint64_t window_kernel(const struct window *w)
{
    return volume(w->kernel);
}

struct shape window_shape(const struct window *w, int64_t n, int64_t channels)
{
    struct shape s = {.n_dims = 2 + w->n_dims, .dims = {n, channels}};
    for (uint32_t d = 0; d < w->n_dims; d++)
        s.dims[2 + d] = w->out[WINDOW_DIMS - w->n_dims + d];
    return s;
}

/* o with 0 <= o * stride + offset < in */
void window_inside(const struct window *w, int d, int64_t k, int64_t *first, int64_t *end)
{
    const int64_t offset = k * w->dilation[d] - w->before[d], s = w->stride[d];
    const int64_t low = offset >= 0 ? 0 : (-offset + s - 1) / s;
    const int64_t high = w->in[d] - offset <= 0 ? 0 : (w->in[d] - offset + s - 1) / s;
    *first = low < w->out[d] ? low : w->out[d];
    *end = high < *first ? *first : high < w->out[d] ? high : w->out[d];
}
