/* Discrete Fourier transforms in doubles. */
#ifndef QUANTD_GRAPH_FOURIER_H
#define QUANTD_GRAPH_FOURIER_H

#include "quant/graph/op.h"

enum {
    FOURIER_SLOW_MAX = 1 << 14, /* lengths that are no power of two are summed plainly: n^2 steps */
    FOURIER_MAX = 1 << 26,
};

struct fourier {
    uint64_t n;
    bool inverse;
    double *cosines, *sines; /* [n] of 2 pi k / n */
    double *re, *im;         /* [n] each: a signal, and its transform after fourier_run() */
    double *spare;           /* [2 * n] */
    void *block;             /* what all of it lies in: the caller gives it back */
};

int fourier_begin(struct op_call *c, uint64_t n, bool inverse, struct fourier *ret);

/* The inverse one is divided by n. */
void fourier_run(const struct fourier *f);

#endif
