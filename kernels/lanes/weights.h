/* What elements weigh with importance: importance * sqrt(sigma2 + x^2), sigma2 a mean square of the surroundings. */
#ifndef QUANTD_KERNELS_LANES_WEIGHTS_H
#define QUANTD_KERNELS_LANES_WEIGHTS_H

#include "kernels/lanes/vec.h"

/* Every lane of @width: the weights in place of the importance @w, and their sums. @x, @w: [n][width]. */
static inline void weigh(size_t n, size_t width, const float *x, float *w, const float *sigma2, float *sums)
{
    for (size_t at = 0; at < width; at += LANES) {
        vf sum = vf_set1(0);
        for (size_t l = 0; l < n; l++) {
            const vf v = vf_load(x + l * width + at);
            const vf weight = vf_mul(vf_load(w + l * width + at), vf_sqrt(vf_add(vf_load(sigma2 + at), vf_mul(v, v))));
            vf_store(w + l * width + at, weight);
            sum = vf_add(sum, weight);
        }
        vf_store(sums + at, sum);
    }
}

/* ret[i]: the squares of the elements of super-block i of @n (1 .. WIDTH), added one by one; 0 .. @n - 1 count. */
static inline void squares_256(const char *src, size_t n, float ret[WIDTH])
{
    for (size_t first = 0; first < n; first += LANES) {
        vf sum = vf_set1(0);
        for (size_t j = 0; j < 256; j += LANES) {
            vf v[LANES];
            for (size_t lane = 0; lane < LANES; lane++) {
                const size_t block = first + lane < n ? first + lane : n - 1;
                v[lane] = vf_load(src + block * 1024 + j * 4);
            }
            transpose(v);
            for (size_t i = 0; i < LANES; i++)
                sum = vf_add(sum, vf_mul(v[i], v[i]));
        }
        vf_store(ret + first, sum);
    }
}

#endif
