/*
 * ConvInteger and QLinearConv. Windows of some positions are put side by side as rows of int16, codes less their zero
 * point, so that a pad is 0; a sum is the product of one of them with the weights of a channel.
 */
#include <inttypes.h>
#include <string.h>

#include "kernels/compute/team.h"
#include "kernels/core/checked.h"
#include "quant/graph/integers.h"
#include "quant/graph/types.h"
#include "quant/graph/window.h"

enum {
    POSITIONS = 32, /* of a task: their windows lie in the cache */
    CHANNELS = 8,   /* whose sums are in memory at once */
};

struct integer_conv {
    struct op_call *call;
    const struct value *x, *w, *x_zero, *w_zero;
    struct window window;
    uint64_t groups, in_channels, out_channels; /* of all groups */
    uint64_t k, n_taps;                         /* elements of a window, of one channel of it */
    int16_t *images, *weights;                  /* codes less zero points, as x and w lie */
    uint8_t *scratch;                           /* [threads][scratch_bytes] */
    uint64_t scratch_bytes;
    struct requantize to;
    struct value *out;
};

/* ---- windows ---- */

/* Where element @tap of the window at @position stands in an image; -1 for a pad. */
static int64_t tap_offset(const struct window *w, uint64_t position, uint64_t tap)
{
    int64_t at = 0, stride = 1;
    for (int d = WINDOW_DIMS; d-- > 0;) {
        const int64_t o = (int64_t)(position % (uint64_t)w->out[d]), k = (int64_t)(tap % (uint64_t)w->kernel[d]);
        const int64_t i = o * w->stride[d] + k * w->dilation[d] - w->before[d];
        if (i < 0 || i >= w->in[d])
            return -1;
        at += i * stride;
        stride *= w->in[d];
        position /= (uint64_t)w->out[d];
        tap /= (uint64_t)w->kernel[d];
    }
    return at;
}

/* row[k]: the window at @position over the channels of a group, which begin at @image. */
static void fill_window(const struct integer_conv *v, const int16_t *image, uint64_t position, int64_t *offsets,
                        int16_t *row)
{
    const uint64_t pixels = window_in(&v->window);
    for (uint64_t t = 0; t < v->n_taps; t++)
        offsets[t] = tap_offset(&v->window, position, t);
    for (uint64_t i = 0; i < v->in_channels / v->groups; i++, image += pixels)
        for (uint64_t t = 0; t < v->n_taps; t++)
            *row++ = offsets[t] < 0 ? 0 : image[offsets[t]];
}

/* @n windows with @n_channels channels from @channel on; the sum of the first is output @to. */
static void conv_channels(const struct integer_conv *v, const int16_t *rows, uint64_t n, uint64_t channel,
                          uint64_t n_channels, uint64_t to)
{
    int32_t sums[CHANNELS * POSITIONS];
    const struct dots_tile t = {.c = sums,
                                .a = v->weights + channel * v->k,
                                .b = rows,
                                .c_stride = POSITIONS,
                                .a_stride = v->k,
                                .b_stride = v->k,
                                .n_rows = n_channels,
                                .n_columns = n,
                                .n_k = v->k};
    v->call->kernels->dots(&t);
    for (uint64_t o = 0; o < n_channels; o++) {
        const struct sums_at at = {to + o * window_out(&v->window), 1, channel + o, 0};
        requantize(&v->to, sums + o * POSITIONS, n, v->out->data, &at);
    }
}

/* Task: some positions of one group of one image. */
static void conv_task(void *data, size_t task, unsigned thread)
{
    const struct integer_conv *v = data;
    const uint64_t pixels = window_out(&v->window), n_blocks = (pixels + POSITIONS - 1) / POSITIONS;
    const uint64_t n_out = v->out_channels / v->groups, plane = task / n_blocks, group = plane % v->groups;
    const uint64_t first = task % n_blocks * POSITIONS, left = pixels - first, n = left < POSITIONS ? left : POSITIONS;
    int64_t *offsets = (int64_t *)(v->scratch + thread * v->scratch_bytes);
    int16_t *rows = (int16_t *)(offsets + v->n_taps);
    const int16_t *image = v->images + plane * (v->in_channels / v->groups) * window_in(&v->window);
    for (uint64_t i = 0; i < n; i++)
        fill_window(v, image, first + i, offsets, rows + i * v->k);
    for (uint64_t o = 0; o < n_out; o += CHANNELS)
        conv_channels(v, rows, n, group * n_out + o, n_out - o < CHANNELS ? n_out - o : CHANNELS,
                      (plane * n_out + o) * pixels + first);
}

/* ---- the operators ---- */

static int zeros_fit(struct integer_conv *v, const struct value *codes, const struct value *zero, uint64_t n)
{
    if (zero && (zero->type != codes->type || (zero->n != 1 && zero->n != n)))
        return err_new(v->call->err, QD_E_UNSUPPORTED, "%" PRIu64 " zero points of %s for codes of %s", zero->n,
                       onnx_type_name(zero->type), onnx_type_name(codes->type));
    return 0;
}

static int load_codes(struct integer_conv *v)
{
    int r = zeros_fit(v, v->x, v->x_zero, 1);
    if (r == 0)
        r = zeros_fit(v, v->w, v->w_zero, v->out_channels);
    if (r == 0)
        r = integers_take(v->call, v->x->n, &v->images);
    if (r == 0)
        r = integers_take(v->call, v->w->n, &v->weights);
    if (r < 0)
        return r;
    integers_load(v->x, 0, 1, v->x->n, code_at(v->x_zero, 0), v->images);
    for (uint64_t o = 0; o < v->out_channels; o++) {
        const int32_t zero = code_at(v->w_zero, v->w_zero && v->w_zero->n > 1 ? o : 0);
        integers_load(v->w, o * v->k, 1, v->k, zero, v->weights + o * v->k);
    }
    return 0;
}

static int take_scratch(struct integer_conv *v)
{
    uint64_t bytes, windows;
    void *block;
    if (!checked_mul(v->k, POSITIONS * sizeof(int16_t), &windows) || !checked_mul(v->n_taps, sizeof(int64_t), &bytes) ||
        !checked_add(bytes, windows, &bytes) || !checked_align(bytes, VALUE_ALIGNMENT, &v->scratch_bytes) ||
        !checked_mul(v->scratch_bytes, qd_team_threads(v->call->team), &bytes))
        return err_new(v->call->err, QD_E_LIMIT, "windows of %" PRIu64 " elements", v->k);
    int r = memory_take(v->call->memory, bytes, &block, v->call->err);
    if (r == 0)
        v->scratch = block;
    return r;
}

static int conv_shapes(struct integer_conv *v)
{
    struct op_call *c = v->call;
    char x[SHAPE_TEXT_BYTES], w[SHAPE_TEXT_BYTES];
    const struct shape *xs = &v->x->shape, *ws = &v->w->shape;
    const int64_t groups = call_int(c, "group", 1);
    if (xs->n_dims != ws->n_dims || xs->n_dims < 3 || groups < 1 || ws->dims[0] % groups != 0 ||
        xs->dims[1] % groups != 0 || ws->dims[1] != xs->dims[1] / groups)
        return err_new(c->err, QD_E_INVALID, "weights %s in %" PRId64 " groups for an image %s", shape_text(ws, w),
                       groups, shape_text(xs, x));
    v->groups = (uint64_t)groups;
    v->in_channels = (uint64_t)xs->dims[1];
    v->out_channels = (uint64_t)ws->dims[0];
    int r = window_read(c, xs, ws->dims + 2, false, &v->window);
    if (r < 0)
        return r;
    v->n_taps = window_kernel(&v->window);
    v->k = v->n_taps * (v->in_channels / v->groups);
    const struct shape shape = window_shape(&v->window, xs->dims[0], ws->dims[0]);
    return call_tensor(c, 0, v->to.type, &shape, &v->out);
}

static int conv_run(struct integer_conv *v)
{
    int r = v->out->n > 0 ? load_codes(v) : 0;
    if (r == 0)
        r = take_scratch(v);
    const uint64_t blocks = (window_out(&v->window) + POSITIONS - 1) / POSITIONS;
    if (r == 0 && v->out->n > 0)
        team_run(v->call->team, (uint64_t)v->x->shape.dims[0] * v->groups * blocks, conv_task, v);
    memory_give(v->call->memory, v->images);
    memory_give(v->call->memory, v->weights);
    memory_give(v->call->memory, v->scratch);
    return r;
}

int op_conv_integer(struct op_call *c)
{
    struct integer_conv v = {.call = c, .to = {.type = ONNX_INT32}};
    const struct operand operands[] = {{0, OPERAND_CODES, &v.x},
                                       {1, OPERAND_CODES, &v.w},
                                       {2, OPERAND_ZEROS, &v.x_zero},
                                       {3, OPERAND_ZEROS, &v.w_zero}};
    int r = operands_in(c, operands, sizeof operands / sizeof operands[0]);
    if (r == 0)
        r = conv_shapes(&v);
    return r < 0 ? r : conv_run(&v);
}

/* Scales (of the image, of the weights, of the result) and the bias. */
static int conv_scales(struct integer_conv *v, const struct value *zero)
{
    struct op_call *c = v->call;
    const struct value *x, *w, *y, *bias = NULL;
    int r = call_tensor_in(c, 1, ONNX_FLOAT, &x);
    if (r == 0)
        r = call_tensor_in(c, 4, ONNX_FLOAT, &w);
    if (r == 0)
        r = call_tensor_in(c, 6, ONNX_FLOAT, &y);
    if (r == 0 && call_in(c, 8))
        r = call_tensor_in(c, 8, ONNX_INT32, &bias);
    if (r == 0)
        r = requantize_to(c, zero, &v->to);
    if (r < 0)
        return r;
    const uint64_t n = v->w->shape.n_dims ? (uint64_t)v->w->shape.dims[0] : 1;
    if (x->n != 1 || y->n != 1 || (w->n != 1 && w->n != n) || (bias && bias->n != n))
        return err_new(c->err, QD_E_INVALID,
                       "%" PRIu64 " scales of weights, %" PRIu64 " biases for %" PRIu64 " channels", w->n,
                       bias ? bias->n : 0, n);
    v->to.scales = w->data;
    v->to.n_scales = w->n;
    v->to.factor = *(const float *)x->data / *(const float *)y->data;
    v->to.adds = bias ? bias->data : NULL;
    return 0;
}

int op_qlinear_conv(struct op_call *c)
{
    struct integer_conv v = {.call = c};
    const struct value *zero;
    const struct operand operands[] = {{0, OPERAND_CODES, &v.x},
                                       {3, OPERAND_CODES, &v.w},
                                       {2, OPERAND_ZEROS, &v.x_zero},
                                       {5, OPERAND_ZEROS, &v.w_zero},
                                       {7, OPERAND_ZEROS, &zero}};
    int r = operands_in(c, operands, sizeof operands / sizeof operands[0]);
    if (r == 0)
        r = conv_scales(&v, zero);
    if (r == 0)
        r = conv_shapes(&v);
    return r < 0 ? r : conv_run(&v);
}
