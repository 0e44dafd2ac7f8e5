#include "quant/graph/recurrent.h"

#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"

/* ---- products ---- */

struct products {
    const struct op_call *call;
    const float *x, *w; /* [n][k], [rows][k] */
    float *y;           /* [n][row_stride] */
    uint64_t n, k, row_stride;
};

static void product_rows(void *data, uint64_t first, uint64_t end)
{
    const struct products *p = data;
    for (uint64_t i = 0; i < p->n; i++)
        for (uint64_t o = first; o < end; o++)
            p->y[i * p->row_stride + o] = p->call->kernels->dot(p->x + i * p->k, p->w + o * p->k, p->k);
}

/* y[i][o] = x[i] . w[o] for o in [0, n_rows) */
static void multiply(const struct recurrent *r, const float *x, uint64_t n, uint64_t k, const float *w, uint64_t n_rows,
                     float *y)
{
    struct products p = {r->call, x, w, y, n, k, r->kind->gates * r->hidden};
    call_rows(r->call, n_rows, n * k, product_rows, &p);
}

/* ---- steps ---- */

static uint64_t item_length(const struct recurrent *r, uint64_t b)
{
    return r->lengths ? (uint64_t)r->lengths[b] : r->length;
}

/* Where step @t of item @b stands among the rows of the input, and with directions between, of output 0. */
static uint64_t step_row(const struct recurrent *r, uint64_t t, uint64_t b)
{
    return r->batch_first ? b * r->length + t : t * r->batch + b;
}

static float *output_row(const struct recurrent *r, float *y, uint64_t at, uint64_t t, uint64_t b)
{
    const uint64_t row =
        r->batch_first ? (b * r->length + t) * r->n_directions + at : (t * r->n_directions + at) * r->batch + b;
    return y + row * r->hidden;
}

/* Step @s of all items that are not over; @at: number of the direction; @y: output 0, may be NULL. */
static void run_step(const struct recurrent *r, struct direction *d, uint64_t at, uint64_t s, float *y)
{
    const uint64_t width = r->kind->gates * r->hidden, reset = (r->kind->gates - 1) * r->hidden;
    multiply(r, d->h, r->batch, r->hidden, d->r, width, d->hr);
    for (int second = r->kind->before ? 0 : 1; second < 2; second++) {
        for (uint64_t b = 0; b < r->batch; b++) {
            const uint64_t n = item_length(r, b), t = d->reverse ? n - 1 - s : s;
            if (s >= n)
                continue;
            (second ? r->kind->step : r->kind->before)(r, d, b, d->xw + step_row(r, t, b) * width);
            if (second && y)
                memcpy(output_row(r, y, at, t, b), d->h + b * r->hidden, r->hidden * sizeof *y);
        }
        if (!second)
            multiply(r, d->spare, r->batch, r->hidden, d->r + reset * r->hidden, r->hidden, d->hr + reset);
    }
}

/* ---- tensors ---- */

/* Input @i, float32 of that shape (a dimension of 0: none); *ret is NULL where it is absent and may be. */
static int matrix_in(struct op_call *c, size_t i, bool optional, uint64_t a, uint64_t b, uint64_t k, const float **ret)
{
    const struct value *v;
    const uint64_t dims[] = {a, b, k};
    const uint32_t n_dims = k ? 3 : 2;
    *ret = NULL;
    if (optional && !call_in(c, i))
        return 0;
    int r = call_tensor_in(c, i, ONNX_FLOAT, &v);
    if (r < 0)
        return r;
    bool fits = v->shape.n_dims == n_dims;
    for (uint32_t d = 0; d < n_dims && fits; d++)
        fits = (uint64_t)v->shape.dims[d] == dims[d];
    char text[SHAPE_TEXT_BYTES];
    if (!fits)
        return err_new(c->err, QD_E_INVALID, "input %zu has shape %s, not [%" PRIu64 ",%" PRIu64 "%s%" PRIu64 "]", i,
                       shape_text(&v->shape, text), a, b, k ? "," : "] * [", k ? k : 1);
    *ret = v->data;
    return 0;
}

static int lengths_in(struct recurrent *r)
{
    struct op_call *c = r->call;
    const struct value *v;
    if (!call_in(c, 4))
        return 0;
    int e = call_tensor_in(c, 4, ONNX_INT32, &v);
    if (e < 0)
        return e;
    r->lengths = v->data;
    if (v->n != r->batch)
        return err_new(c->err, QD_E_INVALID, "%" PRIu64 " lengths for a batch of %" PRIu64, v->n, r->batch);
    for (uint64_t b = 0; b < v->n; b++)
        if (r->lengths[b] < 0 || (uint64_t)r->lengths[b] > r->length)
            return err_new(c->err, QD_E_INVALID, "sequence %" PRIu64 " has length %" PRId32 " of %" PRIu64, b,
                           r->lengths[b], r->length);
    return 0;
}

static int sizes_in(struct recurrent *r)
{
    struct op_call *c = r->call;
    const struct value *x, *w;
    int e = call_tensor_in(c, 0, ONNX_FLOAT, &x);
    if (e == 0)
        e = call_tensor_in(c, 2, ONNX_FLOAT, &w);
    if (e < 0)
        return e;
    char text[SHAPE_TEXT_BYTES];
    if (x->shape.n_dims != 3 || x->shape.dims[2] == 0)
        return err_new(c->err, QD_E_INVALID, "an input of shape %s", shape_text(&x->shape, text));
    if (w->shape.n_dims != 3 || w->shape.dims[2] < 1 || w->shape.dims[2] > HIDDEN_MAX)
        return err_new(c->err, QD_E_INVALID, "recurrent weights of shape %s", shape_text(&w->shape, text));
    r->batch_first = call_int(c, "layout", 0) != 0;
    r->length = (uint64_t)x->shape.dims[r->batch_first ? 1 : 0];
    r->batch = (uint64_t)x->shape.dims[r->batch_first ? 0 : 1];
    r->input = (uint64_t)x->shape.dims[2];
    r->hidden = (uint64_t)w->shape.dims[2];
    if (call_int(c, "hidden_size", w->shape.dims[2]) != w->shape.dims[2])
        return err_new(c->err, QD_E_INVALID, "'hidden_size' is not that of the weights, %" PRIu64, r->hidden);
    return lengths_in(r);
}

/* ---- directions ---- */

static float listed(const struct onnx_attr *a, size_t *at, float otherwise)
{
    return a && a->kind == ONNX_ATTR_FLOATS && *at < a->n_floats ? a->floats[(*at)++] : otherwise;
}

/* Alphas and betas are consumed by the activations that take one, in order, over all directions. */
static int activations_in(const struct recurrent *r, struct direction *d)
{
    struct op_call *c = r->call;
    const struct onnx_attr *names = call_attr(c, "activations"), *alphas = call_attr(c, "activation_alpha"),
                           *betas = call_attr(c, "activation_beta");
    const size_t n = r->kind->n_activations;
    size_t alpha = 0, beta = 0;
    for (size_t i = 0; i < n * r->n_directions; i++) {
        const char *usual = r->kind->activations[i % n];
        struct bytes name = {(const uint8_t *)usual, strlen(usual)};
        struct activation *a = &d[i / n].act[i % n];
        bool takes_alpha, takes_beta;
        if (names && names->kind == ONNX_ATTR_STRINGS && names->n_strings > 0) {
            if (names->n_strings != n * r->n_directions)
                return err_new(c->err, QD_E_INVALID, "%zu activations, %zu are due", names->n_strings,
                               n * (size_t)r->n_directions);
            name = names->strings[i];
        }
        if (!activation_find(name, a, &takes_alpha, &takes_beta))
            return err_new(c->err, QD_E_UNSUPPORTED, "no activation '%.*s'", (int)(name.n < 60 ? name.n : 60),
                           name.data ? (const char *)name.data : "");
        a->alpha = takes_alpha ? listed(alphas, &alpha, a->alpha) : 0.0f;
        a->beta = takes_beta ? listed(betas, &beta, a->beta) : 0.0f;
    }
    return 0;
}

static const float *part(const float *all, uint64_t at, uint64_t n)
{
    return all ? all + at * n : NULL;
}

static int weights_in(const struct recurrent *r, struct direction *d)
{
    struct op_call *c = r->call;
    const uint64_t width = r->kind->gates * r->hidden;
    const float *w, *rw, *b, *p = NULL;
    int e = matrix_in(c, 1, false, r->n_directions, width, r->input, &w);
    if (e == 0)
        e = matrix_in(c, 2, false, r->n_directions, width, r->hidden, &rw);
    if (e == 0)
        e = matrix_in(c, 3, true, r->n_directions, 2 * width, 0, &b);
    if (e == 0 && r->kind->peepholes_in)
        e = matrix_in(c, r->kind->peepholes_in, true, r->n_directions, 3 * r->hidden, 0, &p);
    for (uint64_t i = 0; i < r->n_directions && e == 0; i++) {
        d[i].w = w + i * width * r->input;
        d[i].r = rw + i * width * r->hidden;
        d[i].wb = part(b, 2 * i, width);
        d[i].rb = part(b, 2 * i + 1, width);
        d[i].peephole = part(p, i, 3 * r->hidden);
        d[i].reverse = i == 1 || call_text_is(c, "direction", "reverse", "forward");
    }
    return e;
}

/* Scratch of a direction in one block, which both use one behind the other. */
static int scratch_take(const struct recurrent *r, struct direction *d, void **ret)
{
    uint64_t rows, products, states, all;
    const uint64_t width = r->kind->gates * r->hidden;
    struct op_call *c = r->call;
    if (!checked_mul(r->length, r->batch, &rows) || !checked_add(rows, r->batch, &rows) ||
        !checked_mul(rows, width, &products) || !checked_mul(r->batch, 3 * r->hidden, &states) ||
        !checked_add(products, states, &all) || !checked_mul(all, sizeof(float), &all))
        return err_new(c->err, QD_E_LIMIT, "%" PRIu64 " steps of %" PRIu64 " sequences", r->length, r->batch);
    int e = memory_take(c->memory, all, ret, c->err);
    if (e < 0)
        return e;
    d->xw = *ret;
    d->hr = d->xw + r->length * r->batch * width;
    d->h = d->hr + r->batch * width;
    d->cell = d->h + r->batch * r->hidden;
    d->spare = d->cell + r->batch * r->hidden;
    return 0;
}

/* Item @b's state of direction @at in a tensor of states. */
static uint64_t state_row(const struct recurrent *r, uint64_t at, uint64_t b)
{
    return (r->batch_first ? b * r->n_directions + at : at * r->batch + b) * r->hidden;
}

static int state_in(const struct recurrent *r, size_t input, uint64_t at, float *state)
{
    const float *given;
    const uint64_t first = r->batch_first ? r->batch : r->n_directions,
                   second = r->batch_first ? r->n_directions : r->batch;
    int e = matrix_in(r->call, input, true, first, second, r->hidden, &given);
    for (uint64_t b = 0; b < r->batch && e == 0; b++)
        if (given)
            memcpy(state + b * r->hidden, given + state_row(r, at, b), r->hidden * sizeof *state);
        else
            memset(state + b * r->hidden, 0, r->hidden * sizeof *state);
    return e;
}

static void state_out(const struct recurrent *r, struct value *out, uint64_t at, const float *state)
{
    for (uint64_t b = 0; b < r->batch && out; b++)
        memcpy((float *)out->data + state_row(r, at, b), state + b * r->hidden, r->hidden * sizeof *state);
}

static int outputs_make(const struct recurrent *r, struct value **out)
{
    struct op_call *c = r->call;
    const int64_t t = (int64_t)r->length, b = (int64_t)r->batch, d = (int64_t)r->n_directions, h = (int64_t)r->hidden;
    const struct shape all = r->batch_first ? (struct shape){4, {b, t, d, h}} : (struct shape){4, {t, d, b, h}};
    const struct shape last = r->batch_first ? (struct shape){3, {b, d, h}} : (struct shape){3, {d, b, h}};
    int e = 0;
    for (size_t i = 0; i < 3 && e == 0; i++)
        if (call_wants(c, i) && (i < 2 || r->kind->has_cell))
            e = call_tensor(c, i, ONNX_FLOAT, i == 0 ? &all : &last, &out[i]);
    if (e == 0 && out[0])
        memset(out[0]->data, 0, out[0]->n * sizeof(float)); /* behind the end of an item it stays so */
    return e;
}

static int run_direction(const struct recurrent *r, struct direction *d, uint64_t at, struct value **out)
{
    const struct value *x = call_in(r->call, 0);
    void *block = NULL;
    int e = scratch_take(r, d, &block);
    if (e == 0)
        e = state_in(r, 5, at, d->h);
    if (e == 0 && r->kind->has_cell)
        e = state_in(r, 6, at, d->cell);
    if (e == 0) {
        memset(d->spare, 0, r->batch * r->hidden * sizeof *d->spare);
        multiply(r, x->data, r->length * r->batch, r->input, d->w, r->kind->gates * r->hidden, d->xw);
        for (uint64_t s = 0; s < r->length; s++)
            run_step(r, d, at, s, out[0] ? out[0]->data : NULL);
        state_out(r, out[1], at, d->h);
        state_out(r, out[2], at, d->cell);
    }
    memory_give(r->call->memory, block);
    return e;
}

int recurrent_run(struct op_call *c, const struct cell_kind *kind)
{
    struct recurrent r = {.call = c,
                          .kind = kind,
                          .n_directions = call_text_is(c, "direction", "bidirectional", "forward") ? 2 : 1,
                          .clip = call_float(c, "clip", 0.0f),
                          .input_forget = call_int(c, "input_forget", 0) != 0};
    struct direction directions[2] = {{0}};
    struct value *out[3] = {NULL, NULL, NULL};
    int e = sizes_in(&r);
    if (e == 0)
        e = weights_in(&r, directions);
    if (e == 0)
        e = activations_in(&r, directions);
    if (e == 0)
        e = outputs_make(&r, out);
    for (uint64_t i = 0; i < r.n_directions && e == 0 && r.batch > 0; i++)
        e = run_direction(&r, &directions[i], i, out);
    return e;
}
