/* MeanVarianceNormalization over any axes, LRN over neighbouring channels. onnx:docs/Operators.md. */
#include <math.h>
#include <string.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

/* ---- MeanVarianceNormalization ---- */

enum { ROWS_INNER = 1 };

/* The dimensions of a tensor in two heaps: those that are kept, and those that a mean goes over. */
struct heaps {
    uint32_t n[2];
    uint64_t dims[2][VALUE_DIMS_MAX], strides[2][VALUE_DIMS_MAX];
};

enum { KEPT, REDUCED };

static void heaps_of(const struct shape *s, const bool *reduced, struct heaps *ret)
{
    uint64_t stride = 1;
    *ret = (struct heaps){0};
    for (uint32_t d = s->n_dims; d-- > 0; stride *= (uint64_t)s->dims[d]) {
        const int heap = reduced[d] ? REDUCED : KEPT;
        const uint32_t at = ret->n[heap]++;
        ret->dims[heap][at] = (uint64_t)s->dims[d];
        ret->strides[heap][at] = stride;
    }
}

static uint64_t heap_count(const struct heaps *h, int heap, uint32_t first)
{
    uint64_t n = 1;
    for (uint32_t d = first; d < h->n[heap]; d++)
        n *= h->dims[heap][d];
    return n;
}

/* Where index @i of the dimensions from @first on begins, the innermost one first. */
static uint64_t heap_offset(const struct heaps *h, int heap, uint32_t first, uint64_t i)
{
    uint64_t at = 0;
    for (uint32_t d = first; d < h->n[heap]; i /= h->dims[heap][d], d++)
        at += i % h->dims[heap][d] * h->strides[heap][d];
    return at;
}

struct mvn {
    const struct value *in;
    struct value *out;
    struct heaps heaps;
};

/* Row @i of those that kept index @kept goes over. */
static struct row mvn_row(const struct mvn *m, const struct value *v, uint64_t kept, uint64_t i)
{
    const struct heaps *h = &m->heaps;
    const uint64_t at = heap_offset(h, KEPT, 0, kept) + heap_offset(h, REDUCED, ROWS_INNER, i);
    return row_of(v, at, h->n[REDUCED] ? h->dims[REDUCED][0] : 1, h->n[REDUCED] ? h->strides[REDUCED][0] : 1);
}

/* onnx's function body adds 1e-9 to the deviation. */
static void mvn_one(const struct mvn *m, uint64_t kept)
{
    const uint64_t n_rows = heap_count(&m->heaps, REDUCED, ROWS_INNER), n = heap_count(&m->heaps, REDUCED, 0);
    struct sum values = {{0}}, squares = {{0}};
    double x[ROW_PIECE];
    for (uint64_t i = 0; i < n_rows; i++) {
        const struct row in = mvn_row(m, m->in, kept, i);
        row_sum(&in, &values);
    }
    const double mean = sum_fold(&values) / (double)n;
    for (uint64_t i = 0; i < n_rows; i++) {
        const struct row in = mvn_row(m, m->in, kept, i);
        row_sum_squares(&in, mean, &squares);
    }
    const double deviation = sqrt(sum_fold(&squares) / (double)n) + 1e-9;
    for (uint64_t i = 0; i < n_rows; i++) {
        const struct row in = mvn_row(m, m->in, kept, i), out = mvn_row(m, m->out, kept, i);
        for (uint64_t at = 0; at < in.n; at += ROW_PIECE) {
            row_load(&in, at, row_piece(&in, at), x);
            for (size_t k = 0; k < row_piece(&in, at); k++)
                x[k] = (x[k] - mean) / deviation;
            row_store(&out, at, row_piece(&in, at), x);
        }
    }
}

static void mvn_rows(void *data, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++)
        mvn_one(data, i);
}

int op_mean_variance_normalization(struct op_call *c)
{
    WIDEN(c, op_mean_variance_normalization);
    struct mvn m = {0};
    int64_t axes[VALUE_DIMS_MAX] = {0, 2, 3};
    bool reduced[VALUE_DIMS_MAX] = {false}, given;
    size_t n_axes;
    int r = call_floats_in(c, 0, &m.in);
    if (r == 0)
        r = call_ints(c, "axes", -1, axes, VALUE_DIMS_MAX, &n_axes, &given);
    for (size_t i = 0; r == 0 && i < (given ? n_axes : 3); i++) {
        uint32_t axis = 0;
        r = call_axis(c, axes[i], m.in->shape.n_dims, &axis);
        reduced[axis] = true;
    }
    if (r == 0)
        r = call_tensor(c, 0, m.in->type, &m.in->shape, &m.out);
    if (r < 0 || m.in->n == 0)
        return r;
    heaps_of(&m.in->shape, reduced, &m.heaps);
    const uint64_t n = heap_count(&m.heaps, KEPT, 0);
    call_rows(c, n, m.in->n / n * 4, mvn_rows, &m);
    return 0;
}

/* ---- LRN ---- */

struct lrn {
    const struct value *in;
    struct value *out;
    uint64_t n_channels, inner, size;
    double factor, beta, bias; /* @factor is alpha / size */
};

/* Squares of the channels that stand near @channel, in rising order. */
static void lrn_sums(const struct lrn *l, uint64_t batch, uint64_t channel, uint64_t at, size_t n, double *sums)
{
    double x[ROW_PIECE];
    const uint64_t before = (l->size - 1) / 2, behind = l->size - 1 - before;
    const uint64_t first = channel > before ? channel - before : 0;
    memset(sums, 0, n * sizeof *sums);
    for (uint64_t k = first; k < l->n_channels && k - first <= channel - first + behind; k++) {
        const struct row in = row_of(l->in, (batch + k) * l->inner, l->inner, 1);
        row_load(&in, at, n, x);
        for (size_t i = 0; i < n; i++)
            sums[i] += x[i] * x[i];
    }
}

static void lrn_rows(void *data, uint64_t first, uint64_t end)
{
    const struct lrn *l = data;
    double x[ROW_PIECE], sums[ROW_PIECE];
    for (uint64_t i = first; i < end; i++) {
        const struct row in = row_of(l->in, i * l->inner, l->inner, 1), out = row_of(l->out, i * l->inner, l->inner, 1);
        for (uint64_t at = 0; at < in.n; at += ROW_PIECE) {
            const size_t n = row_piece(&in, at);
            lrn_sums(l, i - i % l->n_channels, i % l->n_channels, at, n, sums);
            row_load(&in, at, n, x);
            for (size_t k = 0; k < n; k++)
                x[k] /= fn_pow_d(l->bias + l->factor * sums[k], l->beta);
            row_store(&out, at, n, x);
        }
    }
}

int op_lrn(struct op_call *c)
{
    WIDEN(c, op_lrn);
    const int64_t size = call_int(c, "size", 0);
    struct lrn l = {.beta = call_float(c, "beta", 0.75f), .bias = call_float(c, "bias", 1.0f)};
    int r = call_floats_in(c, 0, &l.in);
    if (r == 0 && (size < 1 || l.in->shape.n_dims < 2))
        r = err_new(c->err, QD_E_INVALID, "a size below 1, or a tensor without channels");
    if (r == 0)
        r = call_tensor(c, 0, l.in->type, &l.in->shape, &l.out);
    if (r < 0 || l.in->n == 0)
        return r;
    l.n_channels = (uint64_t)l.in->shape.dims[1];
    l.inner = dims_product(&l.in->shape, 2, l.in->shape.n_dims);
    l.size = (uint64_t)size;
    l.factor = (double)call_float(c, "alpha", 1e-4f) / (double)size;
    call_rows(c, l.in->n / l.inner, l.inner * 64, lrn_rows, &l);
    return 0;
}
