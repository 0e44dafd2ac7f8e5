/* Weighted sums of rows of floats. */
#ifndef QUANTD_GRAPH_MIX_H
#define QUANTD_GRAPH_MIX_H

#include <stdint.h>

/* dst[i] = sum over k of weight[k] * src[index[k] * n + i], in rising k. @n_rows is at least 1. */
void mix_rows(float *dst, const float *src, const uint32_t *index, const float *weight, uint64_t n_rows, uint64_t n);

#endif
