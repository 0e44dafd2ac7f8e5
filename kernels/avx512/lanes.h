/* 16 blocks side by side, a lane each. */
#ifndef QUANTD_KERNELS_AVX512_LANES_H
#define QUANTD_KERNELS_AVX512_LANES_H

#include <immintrin.h>

/*
 * Lane i of the result is the largest of the 16 lanes of v[i]. A tree that halves the vectors and
 * doubles the blocks in each: four rounds of "put the two halves beside each other, take the larger".
 */
static inline __m512 largest_of_each(const __m512 v[16])
{
    __m512 two[8], four[4], eight[2];
    for (int i = 0; i < 8; i++)
        two[i] = _mm512_max_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(two[2 * i]), b = _mm512_castps_pd(two[2 * i + 1]);
        four[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++) {
        __m512 a = four[2 * i], b = four[2 * i + 1];
        eight[i] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    return _mm512_max_ps(_mm512_shuffle_f32x4(eight[0], eight[1], 0x88),
                         _mm512_shuffle_f32x4(eight[0], eight[1], 0xdd));
}

#endif
