/*
 * Conv and ConvTranspose of float32. A window over one channel (depthwise) is summed where it stands; every other
 * convolution is a product whose right side, windows side by side, is made a panel at a time: memory does not grow with
 * the image.
 */
#include <inttypes.h>
#include <string.h>

#include "quant/graph/product.h"
#include "quant/graph/types.h"
#include "quant/graph/window.h"

enum { DEPTHWISE_MULTIPLIER = 2 /* outputs of a channel; with more a product is faster */ };

struct conv {
    const struct value *x, *w, *bias; /* @bias: NULL: none */
    struct value *y;
    struct window window;
    uint64_t groups, in_channels, out_channels; /* of all groups */
};

/* ---- windows side by side ---- */

/* An image [channels][in...], seen as [channels * kernel] rows of [out] columns. */
struct columns {
    const struct window *w;
    const float *image;
};

/* Row @k: channel and place in the window. */
struct place {
    uint64_t channel;
    int64_t at[WINDOW_DIMS];
};

static struct place place_of(const struct window *w, uint64_t k)
{
    struct place p;
    for (int d = WINDOW_DIMS; d-- > 0; k /= (uint64_t)w->kernel[d])
        p.at[d] = (int64_t)(k % (uint64_t)w->kernel[d]);
    p.channel = k;
    return p;
}

/* Outputs [x, x + n) of one output row, each the element that its window has at @p; zeros where that is a pad. */
static void fill_row(float *dst, const struct window *w, const float *row, int64_t k, int64_t x, int64_t n)
{
    int64_t first, end;
    window_inside(w, 2, k, &first, &end);
    const int64_t offset = k * w->dilation[2] - w->before[2], s = w->stride[2];
    int64_t at = x;
    for (; at < x + n && at < first; at++)
        dst[at - x] = 0.0f;
    const int64_t last = end < x + n ? end : x + n;
    if (s == 1 && at < last) {
        memcpy(dst + (at - x), row + at + offset, (size_t)(last - at) * sizeof *dst);
        at = last;
    }
    for (; at < last; at++)
        dst[at - x] = row[at * s + offset];
    for (; at < x + n; at++)
        dst[at - x] = 0.0f;
}

/* The input row that output row (z, y) meets at @p, or NULL where that is a pad. */
static const float *input_row(const struct columns *c, const struct place *p, int64_t z, int64_t y)
{
    const struct window *w = c->w;
    const int64_t iz = z * w->stride[0] + p->at[0] * w->dilation[0] - w->before[0];
    const int64_t iy = y * w->stride[1] + p->at[1] * w->dilation[1] - w->before[1];
    if (iz < 0 || iz >= w->in[0] || iy < 0 || iy >= w->in[1])
        return NULL;
    return c->image +
           ((p->channel * (uint64_t)w->in[0] + (uint64_t)iz) * (uint64_t)w->in[1] + (uint64_t)iy) * (uint64_t)w->in[2];
}

static void fill_columns(float *dst, const struct columns *c, uint64_t k, uint64_t j, uint64_t n)
{
    const struct window *w = c->w;
    const struct place p = place_of(w, k);
    int64_t x = (int64_t)(j % (uint64_t)w->out[2]), y = (int64_t)(j / (uint64_t)w->out[2]) % w->out[1];
    int64_t z = (int64_t)(j / (uint64_t)(w->out[2] * w->out[1]));
    for (uint64_t done = 0; done < n;) {
        const int64_t left = (int64_t)(n - done), part = w->out[2] - x < left ? w->out[2] - x : left;
        const float *row = input_row(c, &p, z, y);
        if (row)
            fill_row(dst + done, w, row, p.at[2], x, part);
        else
            memset(dst + done, 0, (size_t)part * sizeof *dst);
        done += (uint64_t)part;
        x = 0;
        if (++y == w->out[1]) {
            y = 0;
            z++;
        }
    }
}

static void pack_columns(const void *data, float *panel, uint64_t k, uint64_t n_k, uint64_t j, uint64_t n)
{
    for (uint64_t i = 0; i < n_k; i++, panel += GEMM_COLUMNS) {
        fill_columns(panel, data, k + i, j, n);
        memset(panel + n, 0, (GEMM_COLUMNS - n) * sizeof *panel);
    }
}

/* ---- products ---- */

static bool is_pointwise(const struct window *w)
{
    bool plain = window_kernel(w) == 1;
    for (int d = 0; d < WINDOW_DIMS; d++)
        plain = plain && w->stride[d] == 1 && w->before[d] == 0 && w->after[d] == 0;
    return plain;
}

static void set_bias(const struct conv *c, float *y, uint64_t channel, uint64_t n)
{
    const float b = c->bias ? ((const float *)c->bias->data)[channel] : 0.0f;
    for (uint64_t i = 0; i < n; i++)
        y[i] = b;
}

/* Group @g of image @n as a product of its weights and its windows. */
static int conv_product(struct op_call *call, const struct conv *c, uint64_t n, uint64_t g)
{
    const struct window *w = &c->window;
    const uint64_t in = c->in_channels / c->groups, out = c->out_channels / c->groups, pixels = window_out(w);
    const uint64_t k = in * window_kernel(w);
    float *y = (float *)c->y->data + (n * c->out_channels + g * out) * pixels;
    const float *x = (const float *)c->x->data + (n * c->in_channels + g * in) * window_in(w);
    const struct columns columns = {w, x};
    for (uint64_t i = 0; i < out; i++)
        set_bias(c, y + i * pixels, g * out + i, pixels);
    struct product p = {.c = y,
                        .c_stride = pixels,
                        .a = (const float *)c->w->data + g * out * k,
                        .a_stride = k,
                        .a_step = 1,
                        .m = out,
                        .n = pixels,
                        .k = k,
                        .pack = pack_columns,
                        .pack_data = &columns};
    if (is_pointwise(w)) {
        p.pack = NULL;
        p.b = x;
        p.b_stride = pixels;
        p.b_step = 1;
    }
    return product_run(call, &p);
}

/* ---- depthwise ---- */

/* y[i] += weight * x[i * stride] */
static void add_scaled(float *y, const float *x, float weight, int64_t n, int64_t stride)
{
    if (stride == 1)
        for (int64_t i = 0; i < n; i++)
            y[i] += weight * x[i];
    else if (stride == 2)
        for (int64_t i = 0; i < n; i++)
            y[i] += weight * x[2 * i];
    else
        for (int64_t i = 0; i < n; i++)
            y[i] += weight * x[i * stride];
}

static void depthwise_row(const struct conv *c, float *y, const struct columns *image, const float *weights, int64_t z,
                          int64_t row)
{
    const struct window *w = &c->window;
    for (uint64_t k = 0; k < window_kernel(w); k++) {
        const struct place p = place_of(w, k);
        const float *x = input_row(image, &p, z, row);
        int64_t first, end;
        if (!x)
            continue;
        window_inside(w, 2, p.at[2], &first, &end);
        const int64_t offset = p.at[2] * w->dilation[2] - w->before[2];
        add_scaled(y + first, x + first * w->stride[2] + offset, weights[k], end - first, w->stride[2]);
    }
}

/* Planes [first, end) of the result: an image's output channel each. */
static void depthwise_planes(void *data, uint64_t first, uint64_t end)
{
    const struct conv *c = data;
    const struct window *w = &c->window;
    const uint64_t multiplier = c->out_channels / c->groups, pixels = window_out(w);
    for (uint64_t i = first; i < end; i++) {
        const uint64_t n = i / c->out_channels, channel = i % c->out_channels;
        const struct columns image = {w, (const float *)c->x->data +
                                             (n * c->in_channels + channel / multiplier) * window_in(w)};
        float *y = (float *)c->y->data + i * pixels;
        set_bias(c, y, channel, pixels);
        for (int64_t z = 0; z < w->out[0]; z++)
            for (int64_t row = 0; row < w->out[1]; row++)
                depthwise_row(c, y + (z * w->out[1] + row) * w->out[2], &image,
                              (const float *)c->w->data + channel * window_kernel(w), z, row);
    }
}

/* ---- the operator ---- */

static int conv_begin(struct op_call *call, struct conv *c, bool turned)
{
    char x[SHAPE_TEXT_BYTES], w[SHAPE_TEXT_BYTES];
    int r = call_tensor_in(call, 0, ONNX_FLOAT, &c->x);
    if (r == 0)
        r = call_tensor_in(call, 1, ONNX_FLOAT, &c->w);
    if (r == 0 && call_in(call, 2))
        r = call_tensor_in(call, 2, ONNX_FLOAT, &c->bias);
    if (r < 0)
        return r;
    const int64_t groups = call_int(call, "group", 1);
    const bool same = c->x->shape.n_dims == c->w->shape.n_dims && c->x->shape.n_dims >= 3 && groups > 0;
    c->groups = same ? (uint64_t)groups : 0;
    c->in_channels = same ? (uint64_t)c->x->shape.dims[1] : 0;
    c->out_channels = !same ? 0 : (uint64_t)c->w->shape.dims[turned] * (turned ? c->groups : 1);
    const uint64_t expected = !same ? 0 : (uint64_t)c->w->shape.dims[!turned] * (turned ? 1 : c->groups);
    if (!same || c->in_channels != expected || c->in_channels % c->groups || c->out_channels % c->groups)
        return err_new(call->err, QD_E_INVALID, "weights %s in %" PRId64 " groups for an image %s",
                       shape_text(&c->w->shape, w), groups, shape_text(&c->x->shape, x));
    if (c->bias && c->bias->n != c->out_channels)
        return err_new(call->err, QD_E_INVALID, "%" PRIu64 " biases for %" PRIu64 " channels", c->bias->n,
                       c->out_channels);
    r = window_read(call, &c->x->shape, c->w->shape.dims + 2, turned, &c->window);
    if (r < 0)
        return r;
    const struct shape s = window_shape(&c->window, c->x->shape.dims[0], (int64_t)c->out_channels);
    return call_tensor(call, 0, ONNX_FLOAT, &s, &c->y);
}

int op_conv(struct op_call *call)
{
    WIDEN(call, op_conv);
    struct conv c = {.bias = NULL};
    int r = conv_begin(call, &c, false);
    if (r < 0 || c.y->n == 0)
        return r;
    const uint64_t n = (uint64_t)c.x->shape.dims[0];
    if (c.in_channels == c.groups && c.out_channels / c.groups <= DEPTHWISE_MULTIPLIER) {
        call_rows(call, n * c.out_channels, window_out(&c.window) * window_kernel(&c.window), depthwise_planes, &c);
        return 0;
    }
    for (uint64_t i = 0; i < n && r == 0; i++)
        for (uint64_t g = 0; g < c.groups && r == 0; g++)
            r = conv_product(call, &c, i, g);
    return r;
}

/* ---- ConvTranspose ---- */

struct scatter {
    const struct conv *c;
    const float *columns; /* [channels of a group * kernel][in] */
    float *y;             /* of the group */
    uint64_t first_channel;
};

/* Adds what the windows of channel @i put onto its plane of the result, element of the window after element. */
static void scatter_plane(const struct scatter *s, uint64_t i)
{
    const struct window *w = &s->c->window;
    const uint64_t pixels = window_in(w), kernel = window_kernel(w);
    float *y = s->y + i * window_out(w);
    for (uint64_t k = 0; k < kernel; k++) {
        const struct place p = place_of(w, k);
        const float *from = s->columns + (i * kernel + k) * pixels;
        for (uint64_t j = 0; j < pixels; j++) {
            uint64_t rest = j, at = 0, stride = 1;
            bool inside = true;
            for (int d = WINDOW_DIMS; d-- > 0; rest /= (uint64_t)w->in[d]) {
                const int64_t o =
                    (int64_t)(rest % (uint64_t)w->in[d]) * w->stride[d] + p.at[d] * w->dilation[d] - w->before[d];
                inside = inside && o >= 0 && o < w->out[d];
                at += inside ? (uint64_t)o * stride : 0;
                stride *= (uint64_t)w->out[d];
            }
            if (inside)
                y[at] += from[j];
        }
    }
}

static void scatter_planes(void *data, uint64_t first, uint64_t end)
{
    const struct scatter *s = data;
    for (uint64_t i = first; i < end; i++) {
        set_bias(s->c, s->y + i * window_out(&s->c->window), s->first_channel + i, window_out(&s->c->window));
        scatter_plane(s, i);
    }
}

static int turned_group(struct op_call *call, const struct conv *c, uint64_t n, uint64_t g, float *columns)
{
    const struct window *w = &c->window;
    const uint64_t in = c->in_channels / c->groups, out = c->out_channels / c->groups, pixels = window_in(w);
    const uint64_t m = out * window_kernel(w);
    const struct product p = {.c = columns,
                              .c_stride = pixels,
                              .a = (const float *)c->w->data + g * in * m,
                              .a_stride = 1,
                              .a_step = m,
                              .b = (const float *)c->x->data + (n * c->in_channels + g * in) * pixels,
                              .b_stride = pixels,
                              .b_step = 1,
                              .m = m,
                              .n = pixels,
                              .k = in};
    memset(columns, 0, m * pixels * sizeof *columns);
    int r = product_run(call, &p);
    struct scatter s = {c, columns, (float *)c->y->data + (n * c->out_channels + g * out) * window_out(w), g * out};
    if (r == 0)
        call_rows(call, out, window_kernel(w) * pixels * 4, scatter_planes, &s);
    return r;
}

int op_conv_transpose(struct op_call *call)
{
    WIDEN(call, op_conv_transpose);
    struct conv c = {.bias = NULL};
    void *columns = NULL;
    int r = conv_begin(call, &c, true);
    if (r < 0 || c.y->n == 0)
        return r;
    const uint64_t m = c.out_channels / c.groups * window_kernel(&c.window);
    r = memory_take(call->memory, m * window_in(&c.window) * sizeof(float), &columns, call->err);
    for (uint64_t n = 0; n < (uint64_t)c.x->shape.dims[0] && r == 0; n++)
        for (uint64_t g = 0; g < c.groups && r == 0; g++)
            r = turned_group(call, &c, n, g, columns);
    memory_give(call->memory, columns);
    return r;
}
