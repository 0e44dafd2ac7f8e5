/* kernels/lanes/vec.h for AVX-512: 16 lanes. */
#ifndef QUANTD_KERNELS_AVX512_VEC_H
#define QUANTD_KERNELS_AVX512_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/avx512/lanes.h"
#include "kernels/lanes/bytes_x86.h"

enum { LANES = 16 };
#define VARIANT(op) op##__avx512

/* clang-format off: a table */
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vf_load(const void *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(void *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
static inline void vf_store_past(void *p, vf a)
{
    _mm512_stream_ps(p, a);
}
static inline vf vf_set1(float a)
{
    return _mm512_set1_ps(a);
}
static inline vf vf_set1_f16(uint16_t a)
{
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(a)));
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
static inline vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
static inline vf vf_neg(vf a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_gt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline vm vf_le(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
static inline vm vf_ge(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vm vf_eq(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline vm vf_ne(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return _mm512_mask_mov_ps(b, m, a);
}
static inline vm vm_and(vm a, vm b)
{
    return a & b;
}
static inline vm vm_or(vm a, vm b)
{
    return a | b;
}
static inline vm vm_not(vm a)
{
    return (vm)~a;
}
static inline bool vm_any(vm a)
{
    return a != 0;
}
static inline bool vm_all(vm a)
{
    return a == 0xffff;
}
static inline unsigned vm_bits(vm a)
{
    return a;
}

static inline vm vm_of_bits(unsigned bits)
{
    return (vm)bits;
}
static inline vf vf_largest_of_each(const vf v[LANES])
{
    return largest_of_each(v);
}
static inline float vf_largest(vf a)
{
    return _mm512_reduce_max_ps(a);
}
static inline void vf_store_f16(void *p, vf a)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static inline vi vi_set1(int a)
{
    return _mm512_set1_epi32(a);
}
static inline vi vi_of_vf(vf a)
{
    return _mm512_cvtps_epi32(a);
}
static inline vi vi_trunc(vf a)
{
    return _mm512_cvttps_epi32(a);
}
static inline vf vf_of_vi(vi a)
{
    return _mm512_cvtepi32_ps(a);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_min(vi a, vi b)
{
    return _mm512_min_epi32(a, b);
}
static inline vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}
static inline vi vi_bits(vf a)
{
    return _mm512_castps_si512(a);
}
static inline vf vf_bits(vi a)
{
    return _mm512_castsi512_ps(a);
}
static inline vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
static inline void vi_store(void *p, vi a)
{
    _mm512_storeu_si512(p, a);
}
static inline void vi_store_bytes(void *p, vi a)
{
    _mm_storeu_si128(p, _mm512_cvtepi32_epi8(a));
}
static inline vi vi_load_u8(const void *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}
static inline vi vi_load_i8(const void *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
static inline vi vi_shift_left(vi a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
static inline vi vi_shift_right(vi a, int n)
{
    return _mm512_srli_epi32(a, (unsigned)n);
}
/* @a, with the bits of @b flipped where @m */
static inline vf vf_flip(vm m, vf a, vf b)
{
    return _mm512_mask_xor_ps(a, m, a, b);
}
/* a + b where m, else a */
static inline vi vi_add_where(vm m, vi a, vi b)
{
    return _mm512_mask_add_epi32(a, m, a, b);
}
/* table[a] for 16 floats; only the low 4 bits of an index count */
static inline vf vf_look_up_16(const float table[16], vi a)
{
    return _mm512_permutexvar_ps(a, _mm512_loadu_ps(table));
}
/* Not by vpmovm2b (_mm_movm_epi8): with that q1_0 decodes at a quarter of the speed. */
static inline vb vb_of_bits(uint32_t bits)
{
    return _mm_maskz_mov_epi8((__mmask16)bits, _mm_set1_epi8(-1));
}
static inline void vf_of_bytes(vb a, vf ret[16 / LANES])
{
    ret[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a));
}
/* clang-format on */

/* 16 vectors become their 16 columns. */
static inline void transpose(vf v[LANES])
{
    vf a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            __m512d x = _mm512_castps_pd(a[i + k]), y = _mm512_castps_pd(a[i + k + 2]);
            b[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            b[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 4; i++) { /* 4 x 4 of 128 bits */
        vf low = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x44), high = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xee);
        vf low2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x44),
           high2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xee);
        v[i] = _mm512_shuffle_f32x4(low, low2, 0x88);
        v[i + 4] = _mm512_shuffle_f32x4(low, low2, 0xdd);
        v[i + 8] = _mm512_shuffle_f32x4(high, high2, 0x88);
        v[i + 12] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
}

#endif
