/* kernels/lanes/vec.h for AVX2: 8 lanes. */
#ifndef QUANTD_KERNELS_AVX2_VEC_H
#define QUANTD_KERNELS_AVX2_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/avx2/lanes.h"
#include "kernels/lanes/bytes_x86.h"

enum { LANES = 8 };
#define VARIANT(op) op##__avx2

/* clang-format off: a table */
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* all bits of a lane, or none */

static inline vf vf_load(const void *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(void *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
static inline void vf_store_past(void *p, vf a)
{
    _mm256_stream_ps(p, a);
}
static inline vf vf_set1(float a)
{
    return _mm256_set1_ps(a);
}
static inline vf vf_set1_f16(uint16_t a)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(a)));
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}
static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_neg(vf a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline vm vf_gt(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
static inline vm vf_le(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LE_OQ);
}
static inline vm vf_ge(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
static inline vm vf_eq(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
static inline vm vf_ne(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ);
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, m);
}
static inline vm vm_and(vm a, vm b)
{
    return _mm256_and_ps(a, b);
}
static inline vm vm_or(vm a, vm b)
{
    return _mm256_or_ps(a, b);
}
static inline vm vm_not(vm a)
{
    return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
}
static inline bool vm_any(vm a)
{
    return _mm256_movemask_ps(a) != 0;
}
static inline bool vm_all(vm a)
{
    return _mm256_movemask_ps(a) == 0xff;
}
static inline unsigned vm_bits(vm a)
{
    return (unsigned)_mm256_movemask_ps(a);
}

static inline vm vm_of_bits(unsigned bits)
{
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), place), place));
}
static inline vf vf_largest_of_each(const vf v[LANES])
{
    return largest_of_each(v);
}
static inline float vf_largest(vf a)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
static inline void vf_store_f16(void *p, vf a)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline vf vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

static inline vi vi_set1(int a)
{
    return _mm256_set1_epi32(a);
}
static inline vi vi_of_vf(vf a)
{
    return _mm256_cvtps_epi32(a);
}
static inline vi vi_trunc(vf a)
{
    return _mm256_cvttps_epi32(a);
}
static inline vf vf_of_vi(vi a)
{
    return _mm256_cvtepi32_ps(a);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
static inline vi vi_min(vi a, vi b)
{
    return _mm256_min_epi32(a, b);
}
static inline vi vi_max(vi a, vi b)
{
    return _mm256_max_epi32(a, b);
}
static inline vi vi_bits(vf a)
{
    return _mm256_castps_si256(a);
}
static inline vf vf_bits(vi a)
{
    return _mm256_castsi256_ps(a);
}
static inline vi vi_load(const void *p)
{
    return _mm256_loadu_si256(p);
}
static inline void vi_store(void *p, vi a)
{
    _mm256_storeu_si256(p, a);
}
static inline void vi_store_bytes(void *p, vi a)
{
    const __m256i low = _mm256_set1_epi32(0x0c080400); /* byte 0 of each 32-bit lane to the front of its 128 bits */
    __m256i b = _mm256_shuffle_epi8(a, low);
    _mm_storeu_si64(p, _mm_unpacklo_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}
static inline vi vi_load_u8(const void *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadu_si64(p));
}
static inline vi vi_load_i8(const void *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadu_si64(p));
}
static inline vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm256_xor_si256(a, b);
}
static inline vi vi_shift_left(vi a, int n)
{
    return _mm256_slli_epi32(a, n);
}
static inline vi vi_shift_right(vi a, int n)
{
    return _mm256_srli_epi32(a, n);
}
/* @a, with the bits of @b flipped where @m */
static inline vf vf_flip(vm m, vf a, vf b)
{
    return _mm256_xor_ps(a, _mm256_and_ps(m, b));
}
/* a + b where m, else a */
static inline vi vi_add_where(vm m, vi a, vi b)
{
    return _mm256_add_epi32(a, _mm256_and_si256(_mm256_castps_si256(m), b));
}
/* table[a] for 16 floats; only the low 4 bits of an index count */
static inline vf vf_look_up_16(const float table[16], vi a)
{
    vf low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), a),
       high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), a);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(a, 28)));
}
static inline vb vb_of_bits(uint32_t bits)
{
    const __m128i bytes = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201);
    const __m128i spread = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), bytes);
    return _mm_cmpeq_epi8(_mm_and_si128(spread, bit), bit);
}
static inline void vf_of_bytes(vb a, vf ret[16 / LANES])
{
    ret[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a));
    ret[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a)));
}
/* clang-format on */

/* 8 vectors become their 8 columns. */
static inline void transpose(vf v[LANES])
{
    vf a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            __m256d x = _mm256_castps_pd(a[i + k]), y = _mm256_castps_pd(a[i + k + 2]);
            b[i + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
            b[i + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

#endif
