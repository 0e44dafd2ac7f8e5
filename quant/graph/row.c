#include "quant/graph/row.h"

#include <inttypes.h>
#include <math.h>

struct row row_of(const struct value *v, uint64_t first, uint64_t n, uint64_t stride)
{
    return (struct row){v->type, (uint8_t *)v->data + first * value_element_bytes(v->type), n, stride};
}

void row_load(const struct row *r, uint64_t at, size_t n, double *dst)
{
    const float *f = (const float *)r->data + at * r->stride;
    const double *d = (const double *)r->data + at * r->stride;
    if (r->type == ONNX_DOUBLE)
        for (size_t i = 0; i < n; i++)
            dst[i] = d[i * r->stride];
    else if (r->stride == 1)
        for (size_t i = 0; i < n; i++)
            dst[i] = f[i];
    else
        for (size_t i = 0; i < n; i++)
            dst[i] = f[i * r->stride];
}

void row_store(const struct row *r, uint64_t at, size_t n, const double *src)
{
    float *f = (float *)r->data + at * r->stride;
    double *d = (double *)r->data + at * r->stride;
    if (r->type == ONNX_DOUBLE)
        for (size_t i = 0; i < n; i++)
            d[i * r->stride] = src[i];
    else if (r->stride == 1)
        for (size_t i = 0; i < n; i++)
            f[i] = (float)src[i];
    else
        for (size_t i = 0; i < n; i++)
            f[i * r->stride] = (float)src[i];
}

void sum_add(struct sum *s, const double *x, size_t n)
{
    size_t i = 0;
    for (; n - i >= SUM_LANES; i += SUM_LANES)
        for (size_t k = 0; k < SUM_LANES; k++)
            s->lanes[k] += x[i + k];
    for (size_t k = 0; i + k < n; k++)
        s->lanes[k] += x[i + k];
}

void sum_add_squares(struct sum *s, const double *x, double centre, size_t n)
{
    size_t i = 0;
    for (; n - i >= SUM_LANES; i += SUM_LANES)
        for (size_t k = 0; k < SUM_LANES; k++)
            s->lanes[k] += (x[i + k] - centre) * (x[i + k] - centre);
    for (size_t k = 0; i + k < n; k++)
        s->lanes[k] += (x[i + k] - centre) * (x[i + k] - centre);
}

double sum_fold(const struct sum *s)
{
    struct sum t = *s;
    for (size_t half = SUM_LANES / 2; half; half /= 2)
        for (size_t k = 0; k < half; k++)
            t.lanes[k] += t.lanes[k + half];
    return t.lanes[0];
}

void row_sum(const struct row *r, struct sum *s)
{
    double x[ROW_PIECE];
    for (uint64_t at = 0; at < r->n; at += ROW_PIECE) {
        row_load(r, at, row_piece(r, at), x);
        sum_add(s, x, row_piece(r, at));
    }
}

void row_sum_squares(const struct row *r, double centre, struct sum *s)
{
    double x[ROW_PIECE];
    for (uint64_t at = 0; at < r->n; at += ROW_PIECE) {
        row_load(r, at, row_piece(r, at), x);
        sum_add_squares(s, x, centre, row_piece(r, at));
    }
}

void row_moments(const struct row *r, double *ret_mean, double *ret_variance)
{
    struct sum values = {{0}}, squares = {{0}};
    row_sum(r, &values);
    *ret_mean = sum_fold(&values) / (double)r->n;
    row_sum_squares(r, *ret_mean, &squares);
    *ret_variance = sum_fold(&squares) / (double)r->n;
}

int call_floats_in(struct op_call *c, size_t i, const struct value **ret)
{
    const struct value *v;
    int r = call_tensor_in(c, i, ONNX_UNDEFINED, &v);
    if (r < 0)
        return r;
    if (v->type != ONNX_FLOAT && v->type != ONNX_DOUBLE)
        return err_new(c->err, QD_E_UNSUPPORTED, "input %zu is of %s, floats are computed with", i,
                       onnx_type_name(v->type));
    *ret = v;
    return 0;
}

int call_n_floats_in(struct op_call *c, size_t i, uint64_t n, const struct value **ret)
{
    int r = call_floats_in(c, i, ret);
    if (r == 0 && (*ret)->n != n)
        return err_new(c->err, QD_E_INVALID, "input %zu has %" PRIu64 " elements, %" PRIu64 " are due", i, (*ret)->n,
                       n);
    return r;
}
