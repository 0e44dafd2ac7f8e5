#include "quant/graph/taps.h"

#include <inttypes.h>
#include <math.h>

#include "kernels/core/checked.h"

/* The output is as if it were scaled about the centre of the input. */
static float symmetric_offset(const struct axis_resize *a)
{
    return (float)a->n_in / 2.0f * (1.0f - (float)a->n_out / a->length);
}

static float crop_coordinate(const struct axis_resize *a, float x)
{
    const float last = (float)(a->n_in - 1);
    if (a->n_out > 1)
        return a->start * last + x * (a->end - a->start) * last / (float)(a->n_out - 1);
    return 0.5f * (a->start + a->end) * last;
}

static float coordinate_of(enum coordinate kind, const struct axis_resize *a, float x)
{
    const float scale = a->scale;
    switch (kind) {
#define COORDINATE(name, expr) \
    case COORDINATE_##name:    \
        return expr;
        COORDINATES(COORDINATE)
#undef COORDINATE
    case N_COORDINATES:
        break;
    }
    return x;
}

static float nearest_of(enum nearest mode, float x)
{
    switch (mode) {
#define NEAREST(name, expr) \
    case NEAREST_##name:    \
        return expr;
        NEAREST_MODES(NEAREST)
#undef NEAREST
    case N_NEAREST_MODES:
        break;
    }
    return x;
}

/* Weight of what lies @d away, in units of the filter. */
static float weight_of(const struct resampling *r, float d)
{
    const float x = fabsf(d), a = r->cubic_a;
    if (r->mode == RESAMPLE_LINEAR)
        return x < 1.0f ? 1.0f - x : 0.0f;
    if (x <= 1.0f)
        return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    return x < 2.0f ? ((a * x - 5.0f * a) * x + 8.0f * a) * x - 4.0f * a : 0.0f;
}

/* Index 0 where the coordinate is no number. */
static uint32_t index_within(const struct axis_resize *a, float x)
{
    const float last = (float)(a->n_in - 1);
    const int64_t i = x >= last ? a->n_in - 1 : x > 0.0f ? (int64_t)x : 0;
    return (uint32_t)(i < a->n_in ? i : a->n_in - 1);
}

/* The taps of one output index at coordinate @x; @first: of them, from floor(x). */
static void filter_taps(const struct resampling *r, const struct axis_resize *a, float x, float squeeze, float first,
                        uint64_t n, uint32_t *index, float *weight)
{
    const float base = floorf(x), ratio = x - base;
    float sum = 0.0f;
    for (uint64_t k = 0; k < n; k++) {
        const float at = base + first + (float)k;
        const bool out = at < 0.0f || at > (float)(a->n_in - 1);
        index[k] = index_within(a, at);
        weight[k] = out && r->exclude_outside ? 0.0f : weight_of(r, (first + (float)k - ratio) * squeeze);
        sum += weight[k];
    }
    for (uint64_t k = 0; k < n && (r->exclude_outside || squeeze < 1.0f); k++)
        weight[k] /= sum;
}

static int taps_take(struct op_call *c, uint64_t n_out, struct taps *t)
{
    uint64_t n, bytes;
    if (!checked_mul(n_out, t->n, &n) || !checked_mul(n, sizeof *t->index + sizeof *t->weight, &bytes) ||
        !checked_add(bytes, n_out, &bytes))
        return err_new(c->err, QD_E_LIMIT, "%" PRIu64 " weights for each of %" PRIu64 " indices", t->n, n_out);
    int r = memory_take(c->memory, bytes, &t->block, c->err);
    if (r < 0)
        return r;
    t->index = t->block;
    t->weight = (float *)(t->index + n);
    t->outside = (bool *)(t->weight + n);
    return 0;
}

int taps_make(struct op_call *c, const struct resampling *r, const struct axis_resize *a, struct taps *ret)
{
    const float reach = r->mode == RESAMPLE_CUBIC ? 2.0f : 1.0f;
    const float squeeze = r->antialias && a->scale < 1.0f ? a->scale : 1.0f;
    const float first = floorf(-reach / squeeze) + 1.0f;
    struct taps t = {.n = r->mode == RESAMPLE_NEAREST ? 1 : 2};
    if (a->n_in > INT32_MAX || !(first > -1e6f))
        return err_new(c->err, QD_E_LIMIT, "an axis of %" PRId64 " is resized by %g", a->n_in, (double)a->scale);
    if (r->mode != RESAMPLE_NEAREST)
        t.n = (uint64_t)(2.0f - 2.0f * first);
    int e = taps_take(c, (uint64_t)a->n_out, &t);
    for (int64_t i = 0; i < a->n_out && e == 0; i++) {
        const float x = coordinate_of(r->coordinate, a, (float)i);
        t.outside[i] = r->coordinate == COORDINATE_tf_crop_and_resize && !(x >= 0.0f && x <= (float)(a->n_in - 1));
        if (r->mode == RESAMPLE_NEAREST) {
            t.index[i] = index_within(a, nearest_of(r->nearest, x));
            t.weight[i] = 1.0f;
        } else {
            filter_taps(r, a, x, squeeze, first, t.n, t.index + (uint64_t)i * t.n, t.weight + (uint64_t)i * t.n);
        }
    }
    if (e == 0)
        *ret = t;
    return e;
}
