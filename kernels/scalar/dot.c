/* Sum of products of f32, the definition: kernels/kernels.h, dot_fn. */
#include "kernels/variants.h"

#include <math.h>
#include <string.h>

enum { DOT_LANES = 64 };

static float at(const void *p, size_t i)
{
    float x;
    memcpy(&x, (const char *)p + i * sizeof x, sizeof x);
    return x;
}

float dot__scalar(const void *a, const void *b, size_t n)
{
    float lanes[DOT_LANES] = {0};
    for (size_t i = 0; i < n; i++)
        lanes[i % DOT_LANES] = fmaf(at(a, i), at(b, i), lanes[i % DOT_LANES]);
    for (size_t half = DOT_LANES / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}
