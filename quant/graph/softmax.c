/* Softmax, LogSoftmax and Hardmax. onnx:docs/Operators.md. */
#include "quant/graph/softmax.h"

#include <math.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

static double row_max(const struct row *r)
{
    double x[ROW_PIECE], max = -INFINITY;
    for (uint64_t at = 0; at < r->n; at += ROW_PIECE) {
        const size_t n = row_piece(r, at);
        row_load(r, at, n, x);
        for (size_t i = 0; i < n; i++)
            max = x[i] > max || x[i] != x[i] ? x[i] : max;
    }
    return max;
}

/* e^(x - max) of a piece. */
static void load_powers(const struct row *r, uint64_t at, double max, double *x)
{
    const size_t n = row_piece(r, at);
    row_load(r, at, n, x);
    for (size_t i = 0; i < n; i++)
        x[i] -= max;
    fn_exp_array_d(x, x, n);
}

/* The powers of a row that is one piece are kept for the second pass. */
static void softmax_row(const struct row *in, const struct row *out, bool log)
{
    double x[ROW_PIECE];
    struct sum sum = {{0}};
    const double max = row_max(in);
    for (uint64_t at = 0; at < in->n; at += ROW_PIECE) {
        load_powers(in, at, max, x);
        sum_add(&sum, x, row_piece(in, at));
    }
    const double total = sum_fold(&sum), shift = log ? max + fn_log_d(total) : 0.0;
    for (uint64_t at = 0; at < in->n; at += ROW_PIECE) {
        const size_t n = row_piece(in, at);
        if (log)
            row_load(in, at, n, x);
        else if (in->n > ROW_PIECE)
            load_powers(in, at, max, x);
        for (size_t i = 0; i < n; i++)
            x[i] = log ? x[i] - shift : x[i] / total;
        row_store(out, at, n, x);
    }
}

static void softmax_rows(void *data, uint64_t first, uint64_t end)
{
    const struct softmax *s = data;
    for (uint64_t i = first; i < end; i++) {
        const uint64_t start = i / s->inner * s->n * s->inner + i % s->inner;
        const struct row in = row_of(s->in, start, s->n, s->inner), out = row_of(s->out, start, s->n, s->inner);
        softmax_row(&in, &out, s->log);
    }
}

void softmax_run(struct op_call *c, struct softmax *s)
{
    if (s->in->n > 0)
        call_rows(c, s->in->n / s->n, s->n * 16, softmax_rows, s);
}

/* 1 where the greatest element stands first, 0 elsewhere. */
static void hardmax_rows(void *data, uint64_t first, uint64_t end)
{
    const struct softmax *s = data;
    for (uint64_t i = first; i < end; i++) {
        const uint64_t start = i / s->inner * s->n * s->inner + i % s->inner;
        uint64_t best = 0;
        for (uint64_t k = 1; k < s->n; k++)
            if (float_at(s->in, start + k * s->inner) > float_at(s->in, start + best * s->inner))
                best = k;
        const struct row out = row_of(s->out, start, s->n, s->inner);
        for (uint64_t k = 0; k < s->n; k++)
            row_store(&out, k, 1, &(double){k == best ? 1.0 : 0.0});
    }
}

/* Before opset 13 the axis and all behind it are one row. */
static int begin(struct op_call *c, struct softmax *s)
{
    uint32_t axis = 0;
    const bool flattens = c->opset < 13;
    int r = call_floats_in(c, 0, &s->in);
    if (r == 0 && s->in->shape.n_dims > 0)
        r = call_axis(c, call_int(c, "axis", flattens ? 1 : -1), s->in->shape.n_dims, &axis);
    if (r == 0)
        r = call_tensor(c, 0, s->in->type, &s->in->shape, &s->out);
    if (r < 0)
        return r;
    const uint32_t n_dims = s->in->shape.n_dims, behind = flattens || n_dims == 0 ? n_dims : axis + 1;
    s->n = dims_product(&s->in->shape, axis, behind);
    s->inner = dims_product(&s->in->shape, behind, n_dims);
    return 0;
}

static int softmax(struct op_call *c, bool log)
{
    struct softmax s = {.log = log};
    int r = begin(c, &s);
    if (r == 0)
        softmax_run(c, &s);
    return r;
}

int op_softmax(struct op_call *c)
{
    WIDEN(c, op_softmax);
    return softmax(c, false);
}

int op_log_softmax(struct op_call *c)
{
    WIDEN(c, op_log_softmax);
    return softmax(c, true);
}

int op_hardmax(struct op_call *c)
{
    WIDEN(c, op_hardmax);
    struct softmax s = {.log = false};
    int r = begin(c, &s);
    if (r == 0 && s.in->n > 0)
        call_rows(c, s.in->n / s.n, s.n, hardmax_rows, &s);
    return r;
}
