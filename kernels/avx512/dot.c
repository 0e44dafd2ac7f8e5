#include "kernels/variants.h"

#include <immintrin.h>

enum { LANES_16 = 16, VECTORS = 4, STEP = VECTORS * LANES_16 };

/* 64 lanes to one: those of the same place in the upper half are added, again and again. */
static float fold(const __m512 v[VECTORS])
{
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(v[0], v[2]), _mm512_add_ps(v[1], v[3]));
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* The lanes of vector @k that the last @n elements reach. */
static __mmask16 tail_mask(size_t n, size_t k)
{
    const size_t first = k * LANES_16;
    return (__mmask16)(n <= first ? 0 : n - first >= LANES_16 ? 0xffff : (1u << (n - first)) - 1);
}

float dot__avx512(const void *a, const void *b, size_t n)
{
    const float *x = a, *y = b;
    __m512 v[VECTORS] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (; n >= STEP; n -= STEP, x += STEP, y += STEP)
        for (size_t k = 0; k < VECTORS; k++)
            v[k] = _mm512_fmadd_ps(_mm512_loadu_ps(x + k * LANES_16), _mm512_loadu_ps(y + k * LANES_16), v[k]);
    for (size_t k = 0; k < VECTORS; k++) {
        const __mmask16 m = tail_mask(n, k);
        v[k] = _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(m, x + k * LANES_16),
                                     _mm512_maskz_loadu_ps(m, y + k * LANES_16), v[k], m);
    }
    return fold(v);
}
