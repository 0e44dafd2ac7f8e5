/*
 * GridSample of pictures: each element of the result at a place of its own, between those of the input. Orders of
 * operations: onnx:docs/Operators.md, and where that says nothing ONNX Runtime
 * (onnxruntime:onnxruntime/core/providers/cpu/tensor/grid_sample.cc). Float32; places and weights in double.
 */
#include <math.h>

#include "quant/graph/row.h"
#include "quant/graph/types.h"

enum sampling { SAMPLE_LINEAR, SAMPLE_NEAREST, SAMPLE_CUBIC };
enum padding { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION };

/* An axis of the input, and where its pixels end. */
struct side {
    int64_t n;
    double low, high;
};

struct grid_sample {
    const struct value *x, *grid;
    struct value *y;
    enum sampling mode;
    enum padding padding;
    bool align_corners;
    struct side rows, columns;
    uint64_t n_channels, n_places; /* of the result, in a picture */
};

static double reflected(double at, const struct side *s)
{
    const double length = s->high - s->low;
    if (!(length > 0.0))
        return s->low;
    const double beyond = at < s->low ? s->low - at : at > s->high ? at - s->high : 0.0;
    if (beyond == 0.0)
        return at;
    const double turns = floor(beyond / length), rest = beyond - turns * length;
    const bool from_low = (at < s->low) == (fmod(turns, 2.0) == 0.0);
    return from_low ? s->low + rest : s->high - rest;
}

/* Of -1 to 1 over the axis; somewhere in the middle where it is no number. */
static double place_in(const struct grid_sample *g, double at, const struct side *s)
{
    at = g->align_corners ? (at + 1.0) / 2.0 * (double)(s->n - 1) : ((at + 1.0) * (double)s->n - 1.0) / 2.0;
    if (!(fabs(at) < 0x1p40))
        at = at > 0.0 ? 0x1p40 : at < 0.0 ? -0x1p40 : 0.0;
    return g->mode == SAMPLE_NEAREST ? nearbyint(at) : at;
}

/* The pixel that stands for index @i; -1: a zero. */
static int64_t pixel_of(const struct grid_sample *g, int64_t i, const struct side *s)
{
    if (i >= 0 && i < s->n)
        return i;
    if (g->padding == PAD_ZEROS)
        return -1;
    if (g->padding == PAD_REFLECTION)
        i = (int64_t)reflected((double)i, s);
    return i < 0 ? 0 : i >= s->n ? s->n - 1 : i;
}

enum { TAPS_MAX = 4 };

/* Pixels of an axis around a place, and what each counts. */
struct taps {
    int n;
    int64_t pixels[TAPS_MAX];
    double weights[TAPS_MAX];
};

static void cubic_weights(double t, double w[TAPS_MAX])
{
    const double a = -0.75;
    for (int i = 0; i < TAPS_MAX; i++) {
        const double d = fabs(t + 1.0 - i);
        w[i] = d <= 1.0 ? ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0 : ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    }
}

static struct taps taps_at(const struct grid_sample *g, double at, const struct side *s)
{
    const int64_t before = g->mode == SAMPLE_CUBIC ? 1 : 0;
    struct taps t = {.n = g->mode == SAMPLE_CUBIC ? 4 : g->mode == SAMPLE_LINEAR ? 2 : 1, .weights = {1.0}};
    const double first = floor(at);
    if (g->mode == SAMPLE_LINEAR) {
        t.weights[0] = first + 1.0 - at;
        t.weights[1] = at - first;
    } else if (g->mode == SAMPLE_CUBIC) {
        cubic_weights(at - first, t.weights);
    }
    for (int i = 0; i < t.n; i++)
        t.pixels[i] = pixel_of(g, (int64_t)first - before + i, s);
    return t;
}

static double sample(const struct grid_sample *g, uint64_t picture, const struct taps *rows, const struct taps *columns)
{
    double sum = 0.0;
    for (int i = 0; i < rows->n; i++) {
        double row = 0.0;
        for (int k = 0; k < columns->n; k++)
            if (rows->pixels[i] >= 0 && columns->pixels[k] >= 0)
                row += columns->weights[k] *
                       float_at(g->x, picture + (uint64_t)(rows->pixels[i] * g->columns.n + columns->pixels[k]));
        sum += rows->weights[i] * row;
    }
    return sum;
}

static void sample_rows(void *data, uint64_t first, uint64_t end)
{
    const struct grid_sample *g = data;
    const uint64_t picture = (uint64_t)(g->rows.n * g->columns.n);
    for (uint64_t i = first; i < end; i++) {
        const uint64_t batch = i / g->n_places;
        const struct taps columns = taps_at(g, place_in(g, float_at(g->grid, 2 * i), &g->columns), &g->columns);
        const struct taps rows = taps_at(g, place_in(g, float_at(g->grid, 2 * i + 1), &g->rows), &g->rows);
        for (uint64_t k = batch * g->n_channels; k < (batch + 1) * g->n_channels; k++) {
            const double y = sample(g, k * picture, &rows, &columns);
            const struct row out = row_of(g->y, k * g->n_places + i % g->n_places, 1, 1);
            row_store(&out, 0, 1, &y);
        }
    }
}

static int read_how(struct op_call *c, struct grid_sample *g)
{
    static const char *const modes[][2] = {{"bilinear", "linear"}, {"nearest", "nearest"}, {"bicubic", "cubic"}};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    bool has_mode = false, has_padding = false;
    for (int i = 0; i < 3; i++) {
        if (call_text_is(c, "mode", modes[i][0], "linear") || call_text_is(c, "mode", modes[i][1], "linear")) {
            g->mode = (enum sampling)i;
            has_mode = true;
        }
        if (call_text_is(c, "padding_mode", paddings[i], "zeros")) {
            g->padding = (enum padding)i;
            has_padding = true;
        }
    }
    g->align_corners = call_int(c, "align_corners", 0) != 0;
    return has_mode && has_padding ? 0 : err_new(c->err, QD_E_UNSUPPORTED, "an unknown mode or padding_mode");
}

static struct side side_of(const struct grid_sample *g, int64_t n)
{
    return g->align_corners ? (struct side){n, 0.0, (double)n - 1.0} : (struct side){n, -0.5, (double)n - 0.5};
}

int op_grid_sample(struct op_call *c)
{
    WIDEN(c, op_grid_sample);
    struct grid_sample g = {.x = NULL};
    int r = call_floats_in(c, 0, &g.x);
    if (r == 0)
        r = call_floats_in(c, 1, &g.grid);
    if (r == 0)
        r = read_how(c, &g);
    if (r < 0)
        return r;
    const struct shape *x = &g.x->shape, *grid = &g.grid->shape;
    if (x->n_dims != 4)
        return err_new(c->err, QD_E_UNSUPPORTED, "an input of %u dimensions", x->n_dims);
    if (grid->n_dims != 4 || grid->dims[3] != 2 || grid->dims[0] != x->dims[0] || x->dims[2] < 1 || x->dims[3] < 1) {
        char text[SHAPE_TEXT_BYTES], of[SHAPE_TEXT_BYTES];
        return err_new(c->err, QD_E_INVALID, "a grid of shape %s for an input of shape %s", shape_text(grid, text),
                       shape_text(x, of));
    }
    g.rows = side_of(&g, x->dims[2]);
    g.columns = side_of(&g, x->dims[3]);
    g.n_channels = (uint64_t)x->dims[1];
    g.n_places = dims_product(grid, 1, 3);
    r = call_tensor(c, 0, g.x->type, &(struct shape){4, {x->dims[0], x->dims[1], grid->dims[1], grid->dims[2]}}, &g.y);
    if (r == 0 && g.y->n > 0)
        call_rows(c, (uint64_t)x->dims[0] * g.n_places, g.n_channels * 16, sample_rows, &g);
    return r;
}
