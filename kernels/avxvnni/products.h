/*
 * kernels/lanes/products.h for 8 rows, a group of r8k4p128, with VNNI of 256 bits. CPUs have it in one of two
 * encodings, or in both: AVX-VNNI, or AVX-512 VNNI with VL, which knows more registers and operands. Compiled for
 * either.
 */
#ifndef QUANTD_KERNELS_AVXVNNI_PRODUCTS_H
#define QUANTD_KERNELS_AVXVNNI_PRODUCTS_H

#include <string.h>

#include "kernels/avx2/products.h"

/* sum + products of 4 unsigned bytes in each lane of @w with x[0..3]; vi_dot_2: of two of 16 bits */
#ifdef __AVX512VNNI__
#define STRIP_OF(type) matmul_##type##_r8k4p128__avx512vnni
/* By hand: kernels/avx512vnni/products.h says why. */
static inline vi vi_dot_4(vi sum, vi w, const int8_t *x)
{
    __asm__("vpdpbusd %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4])x));
    return sum;
}
static inline vi vi_dot_2(vi sum, vi a, const int16_t *x)
{
    __asm__("vpdpwssd %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(a), "m"(*(const int16_t(*)[2])x));
    return sum;
}
#else
#define STRIP_OF(type) matmul_##type##_r8k4p128__avxvnni
static inline vi vi_dot_4(vi sum, vi w, const int8_t *x)
{
    return _mm256_dpbusd_avx_epi32(sum, w, vi_set1_4(x));
}
static inline vi vi_dot_2(vi sum, vi a, const int16_t *x)
{
    return _mm256_dpwssd_avx_epi32(sum, a, vi_set1_4(x));
}
#endif
static inline vi vi_dot_4_alone(vi sum, vi w, const int8_t *x)
{
    return vi_dot_4(sum, w, x);
}

enum { COLUMNS_AT_ONCE = 4 };
#include "kernels/lanes/products_unsigned.h"

#endif
