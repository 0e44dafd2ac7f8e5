#include "quant/graph/integers.h"

/* Four rows of b at a time: an element of a is read once for them. */
static void four_dots(const int16_t *restrict a, const int16_t *restrict b, uint64_t k, int32_t *restrict y)
{
    uint32_t sums[4] = {0};
    const int16_t *b1 = b + k, *b2 = b1 + k, *b3 = b2 + k;
    for (uint64_t i = 0; i < k; i++) {
        sums[0] += (uint32_t)((int32_t)a[i] * (int32_t)b[i]);
        sums[1] += (uint32_t)((int32_t)a[i] * (int32_t)b1[i]);
        sums[2] += (uint32_t)((int32_t)a[i] * (int32_t)b2[i]);
        sums[3] += (uint32_t)((int32_t)a[i] * (int32_t)b3[i]);
    }
    for (int j = 0; j < 4; j++)
        y[j] = (int32_t)sums[j];
}

void integer_dots(const int16_t *a, const int16_t *b, uint64_t k, uint64_t n, int32_t *y)
{
    uint64_t j = 0;
    for (; j + 4 <= n; j += 4)
        four_dots(a, b + j * k, k, y + j);
    for (; j < n; j++) {
        uint32_t sum = 0;
        for (uint64_t i = 0; i < k; i++)
            sum += (uint32_t)((int32_t)a[i] * (int32_t)b[j * k + i]);
        y[j] = (int32_t)sum;
    }
}
