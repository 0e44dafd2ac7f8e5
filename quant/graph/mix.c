#include "quant/graph/mix.h"

void mix_rows(float *dst, const float *src, const uint32_t *index, const float *weight, uint64_t n_rows, uint64_t n)
{
    const float *row = src + index[0] * n;
    for (uint64_t i = 0; i < n; i++)
        dst[i] = weight[0] * row[i];
    for (uint64_t k = 1; k < n_rows; k++) {
        row = src + index[k] * n;
        for (uint64_t i = 0; i < n; i++)
            dst[i] += weight[k] * row[i];
    }
}
