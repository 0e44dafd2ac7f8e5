/*
 * Rows of float32 or float64 elements as doubles, a piece at a time: normalisations and softmax are written once for
 * both and round once. Sums have 16 lanes, folded by a fixed tree: the same bits however a compiler makes vectors of
 * them.
 */
#ifndef QUANTD_GRAPH_ROW_H
#define QUANTD_GRAPH_ROW_H

#include "quant/graph/op.h"

enum { ROW_PIECE = 512, SUM_LANES = 16 };

/* @n elements, each @stride elements behind the one before it. */
struct row {
    enum onnx_type type; /* ONNX_FLOAT or ONNX_DOUBLE */
    void *data;
    uint64_t n, stride;
};

/* Row of @v that begins at element @first. */
struct row row_of(const struct value *v, uint64_t first, uint64_t n, uint64_t stride);

/* Elements [at, at + n) of @r; @n is at most ROW_PIECE. */
void row_load(const struct row *r, uint64_t at, size_t n, double *dst);
void row_store(const struct row *r, uint64_t at, size_t n, const double *src);

/* Elements of the piece that begins at @at. */
static inline size_t row_piece(const struct row *r, uint64_t at)
{
    return r->n - at < ROW_PIECE ? (size_t)(r->n - at) : ROW_PIECE;
}

struct sum {
    double lanes[SUM_LANES];
};

/* Element i goes to lane i % 16: all pieces of a row but its last are multiples of 16. */
void sum_add(struct sum *s, const double *x, size_t n);
void sum_add_squares(struct sum *s, const double *x, double centre, size_t n); /* (x - centre)^2 */
double sum_fold(const struct sum *s);

/* Sums over a whole row. */
void row_sum(const struct row *r, struct sum *s);
void row_sum_squares(const struct row *r, double centre, struct sum *s);

/* Mean and mean square distance from it. Of no elements: NaN. */
void row_moments(const struct row *r, double *ret_mean, double *ret_variance);

/* Element @i of a tensor of float32 or float64. */
static inline double float_at(const struct value *v, uint64_t i)
{
    return v->type == ONNX_DOUBLE ? ((const double *)v->data)[i] : (double)((const float *)v->data)[i];
}

/* Input @i, which is a tensor of float32 or float64. */
int call_floats_in(struct op_call *c, size_t i, const struct value **ret);

/* The same, of @n elements. */
int call_n_floats_in(struct op_call *c, size_t i, uint64_t n, const struct value **ret);

#endif
