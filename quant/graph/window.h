/*
 * The geometry of windows that slide over an image: kernel, stride, dilation, pads, auto_pad and ceil_mode of
 * convolutions and poolings in one place. Images of one to three dimensions; missing ones in front are 1.
 */
#ifndef QUANTD_GRAPH_WINDOW_H
#define QUANTD_GRAPH_WINDOW_H

#include "quant/graph/op.h"

enum { WINDOW_DIMS = 3 };

struct window {
    uint32_t n_dims; /* of the image as the model has it */
    int64_t in[WINDOW_DIMS], out[WINDOW_DIMS], kernel[WINDOW_DIMS], stride[WINDOW_DIMS], dilation[WINDOW_DIMS];
    int64_t before[WINDOW_DIMS], after[WINDOW_DIMS]; /* pads */
};

/*
 * Reads the node's attributes for an image of shape @x ([N, C, ...]). @kernel [n_dims], or NULL: attribute
 * kernel_shape. @turned: of ConvTranspose, where out follows from in the other way round.
 */
int window_read(struct op_call *c, const struct shape *x, const int64_t *kernel, bool turned, struct window *ret);

/* The whole image as one window, for the global poolings. */
int window_global(struct op_call *c, const struct shape *x, struct window *ret);

uint64_t window_in(const struct window *w);     /* elements of an image */
uint64_t window_out(const struct window *w);    /* of the result */
uint64_t window_kernel(const struct window *w); /* of a window */

/* [n, channels, out...] in as many dimensions as the model's image. */
struct shape window_shape(const struct window *w, int64_t n, int64_t channels);

/* Outputs [*first, *end) along dimension @d meet the image with kernel element @k; the others meet its pads. */
void window_inside(const struct window *w, int d, int64_t k, int64_t *first, int64_t *end);

#endif
