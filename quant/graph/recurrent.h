/*
 * What RNN, GRU and LSTM have in common: their tensors by shape, directions and activations, and the way through the
 * steps. An operator is a `cell`: what becomes of the state of a batch item when the products of a step are there.
 */
#ifndef QUANTD_GRAPH_RECURRENT_H
#define QUANTD_GRAPH_RECURRENT_H

#include "quant/graph/op.h"

enum {
    CELL_ACTIVATIONS_MAX = 3,
    HIDDEN_MAX = 1 << 24, /* so that products of a few of them fit; no network comes near */
};

/* An activation of x[n], in place. */
typedef void activation_fn(float *x, uint64_t n, float alpha, float beta);

struct activation {
    activation_fn *run;
    float alpha, beta;
};

/* One direction while its steps run. All matrices are row-major float32. */
struct direction {
    const float *w, *r;    /* [gates * hidden][input], [gates * hidden][hidden] */
    const float *wb, *rb;  /* [gates * hidden] each; NULL: none */
    const float *peephole; /* [3 * hidden]; NULL: none */
    struct activation act[CELL_ACTIVATIONS_MAX];
    bool reverse;
    float *h, *cell; /* [batch][hidden] */
    float *xw;       /* [length * batch][gates * hidden]: products of all inputs */
    float *hr;       /* [batch][gates * hidden]: products of a step's states */
    float *spare;    /* [batch][hidden] */
};

struct recurrent;

/* Step of item @b: from @xw[gates * hidden], which it may overwrite, and @d->hr to @d->h and @d->cell of that item. */
typedef void cell_fn(const struct recurrent *r, struct direction *d, uint64_t b, float *xw);

struct cell_kind {
    uint64_t gates;
    size_t n_activations;
    const char *activations[CELL_ACTIVATIONS_MAX]; /* by default */
    bool has_cell;                                 /* a second state: LSTM */
    size_t peepholes_in;                           /* input of the peepholes; 0: none */
    cell_fn *step;
    cell_fn *before; /* GRU: needs a second product, of what this leaves in @d->spare; NULL: none */
};

struct recurrent {
    struct op_call *call;
    const struct cell_kind *kind;
    uint64_t length, batch, input, hidden, n_directions;
    bool batch_first; /* layout 1 */
    float clip;       /* 0: none */
    bool input_forget;
    const int32_t *lengths; /* of items; NULL: all have @length */
};

/* Runs the node as cells of @kind. */
int recurrent_run(struct op_call *c, const struct cell_kind *kind);

/* The activation of that name with its defaults; false where there is none. Takes alpha or beta: *ret_takes. */
bool activation_find(struct bytes name, struct activation *ret, bool *ret_takes_alpha, bool *ret_takes_beta);

/* x[n] clipped and activated. */
void activate(const struct recurrent *r, const struct activation *a, float *x, uint64_t n);

#endif
