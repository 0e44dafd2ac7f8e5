/* What products of 8 rows have in common, with VNNI and without (kernels/lanes/products.h). */
#ifndef QUANTD_KERNELS_AVX2_PRODUCTS_H
#define QUANTD_KERNELS_AVX2_PRODUCTS_H

#include <string.h>

#include "kernels/avx2/vec.h"

static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vi vi_pairs_u8(const void *even, const void *odd)
{
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(_mm_loadu_si64(even), _mm_loadu_si64(odd)));
}

static inline vi vi_of_nibbles(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    const __m128i two = _mm_cvtsi32_si128(four), nibble = _mm_set1_epi8(15);
    return _mm256_cvtepu8_epi32(
        _mm_unpacklo_epi8(_mm_and_si128(two, nibble), _mm_and_si128(_mm_srli_epi16(two, 4), nibble)));
}

/* 4 bytes at @p in every lane */
static inline vi vi_set1_4(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

#endif
