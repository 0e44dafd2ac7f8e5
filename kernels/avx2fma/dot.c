#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

enum { LANES_8 = 8, VECTORS = 8, STEP = VECTORS * LANES_8 };

/* 64 lanes to one: those of the same place in the upper half are added, again and again. */
static float fold(__m256 v[VECTORS])
{
    for (size_t half = VECTORS / 2; half; half /= 2)
        for (size_t k = 0; k < half; k++)
            v[k] = _mm256_add_ps(v[k], v[k + half]);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(v[0]), _mm256_extractf128_ps(v[0], 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/*
 * The last @n elements, at most 64, each on its lane. Copied, because qemu 7.2 reads 16 bytes for an operand of one
 * float in an fma, and may meet the end of a page.
 */
static void add_tail(__m256 v[VECTORS], const float *a, const float *b, size_t n)
{
    float lanes[STEP], x[STEP], y[STEP];
    memcpy(x, a, n * sizeof *x);
    memcpy(y, b, n * sizeof *y);
    for (size_t k = 0; k < VECTORS; k++)
        _mm256_storeu_ps(lanes + k * LANES_8, v[k]);
    for (size_t i = 0; i < n; i++)
        lanes[i] = __builtin_fmaf(x[i], y[i], lanes[i]);
    for (size_t k = 0; k < VECTORS; k++)
        v[k] = _mm256_loadu_ps(lanes + k * LANES_8);
}

float dot__avx2fma(const void *a, const void *b, size_t n)
{
    const float *x = a, *y = b;
    __m256 v[VECTORS];
    for (size_t k = 0; k < VECTORS; k++)
        v[k] = _mm256_setzero_ps();
    for (; n >= STEP; n -= STEP, x += STEP, y += STEP)
        for (size_t k = 0; k < VECTORS; k++)
            v[k] = _mm256_fmadd_ps(_mm256_loadu_ps(x + k * LANES_8), _mm256_loadu_ps(y + k * LANES_8), v[k]);
    if (n)
        add_tail(v, x, y, n);
    return fold(v);
}
