/* kernels/lanes/products.h for AVX-512 VNNI: 16 rows, a group of r16k4p128. */
#ifndef QUANTD_KERNELS_AVX512VNNI_PRODUCTS_H
#define QUANTD_KERNELS_AVX512VNNI_PRODUCTS_H

#include "kernels/avx512/vec.h"

#define STRIP_OF(type) matmul_##type##_r16k4p128__avx512vnni

static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vi vi_pairs_u8(const void *even, const void *odd)
{
    const __m128i a = _mm_loadu_si128(even), b = _mm_loadu_si128(odd);
    return _mm512_cvtepu8_epi16(_mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b)));
}

static inline vi vi_of_nibbles(const uint8_t *p)
{
    const __m128i two = _mm_loadu_si64(p), nibble = _mm_set1_epi8(15);
    return _mm512_cvtepu8_epi32(
        _mm_unpacklo_epi8(_mm_and_si128(two, nibble), _mm_and_si128(_mm_srli_epi16(two, 4), nibble)));
}

/*
 * sum + products of 4 unsigned bytes in each lane of @w with x[0..3]. By hand: the instruction reads 4 bytes of memory
 * for all lanes, gcc 12 spends an instruction of its own on that (q8_0, 16 columns, in cache: 408 Gop/s against 594).
 */
static inline vi vi_dot_4(vi sum, vi w, const int8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4])x));
    return sum;
}
/* The same by two instructions, for one column: a load that waits for no sum (q4_0: 92 % of reading, 99 so). */
static inline vi vi_dot_4_alone(vi sum, vi w, const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_dpbusd_epi32(sum, w, vi_set1(four));
}
static inline vi vi_dot_2(vi sum, vi a, const int16_t *x)
{
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(a), "m"(*(const int16_t(*)[2])x));
    return sum;
}

enum { COLUMNS_AT_ONCE = 4 };
#include "kernels/lanes/products_unsigned.h"

#endif
