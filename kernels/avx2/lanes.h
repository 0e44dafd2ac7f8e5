/* 8 blocks side by side, a lane each. */
#ifndef QUANTD_KERNELS_AVX2_LANES_H
#define QUANTD_KERNELS_AVX2_LANES_H

#include <immintrin.h>

/*
 * Lane i of the result is the largest of the 8 lanes of v[i]: three rounds of "put the two halves
 * beside each other, take the larger", each halving the vectors.
 */
static inline __m256 largest_of_each(const __m256 v[8])
{
    __m256 two[4], four[2];
    for (int i = 0; i < 4; i++)
        two[i] = _mm256_max_ps(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(two[2 * i]), b = _mm256_castps_pd(two[2 * i + 1]);
        four[i] = _mm256_max_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return _mm256_max_ps(_mm256_permute2f128_ps(four[0], four[1], 0x20),
                         _mm256_permute2f128_ps(four[0], four[1], 0x31));
}

static inline __m256 magnitude_of(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* 8 elements at float offset @at of a row of any alignment. */
static inline __m256 load_8(const char *src, size_t at)
{
    return _mm256_loadu_ps((const float *)(const void *)(src + at * 4));
}

static inline void store_8(char *dst, size_t at, __m256 x)
{
    _mm256_storeu_ps((float *)(void *)(dst + at * 4), x);
}

#endif
