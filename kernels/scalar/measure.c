#include "kernels/variants.h"

#include <math.h>
#include <string.h>

#include "kernels/scalar/half.h"

static float load_f32(const float *src, size_t i)
{
    float f;
    memcpy(&f, (const char *)src + i * sizeof f, sizeof f);
    return f;
}

/* noise and signal in double; the largest difference in float, where a NaN difference leaves it as it was. */
void measure__scalar(struct error_sums *sums, const float *x, const float *y, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++) {
        const float a = load_f32(x, i), b = load_f32(y, i);
        const double source = a, difference = source - (double)b;
        const float distance = fabsf(a - b);
        sums->noise[i % 16] += difference * difference;
        sums->signal[i % 16] += source * source;
        if (distance > sums->max_abs[i % 16])
            sums->max_abs[i % 16] = distance;
    }
    sums->n += n_elements;
}

size_t find_nonfinite__scalar(const float *x, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++)
        if ((f32_bits(load_f32(x, i)) & 0x7f800000) == 0x7f800000)
            return i;
    return n_elements;
}

float sum_squares__scalar(float sum, const float *x, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++) {
        const float v = load_f32(x, i);
        sum += v * v;
    }
    return sum;
}
