#include "kernels/variants.h"

#include <immintrin.h>

/* The low @n lanes, at most 16 or 32. */
static inline __mmask16 first_16(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

static inline __mmask32 first_32(size_t n)
{
    return n >= 32 ? UINT32_MAX : (1u << n) - 1;
}

/* 16 f32 to f16; the instruction keeps a NaN's payload, the definition does not. */
static inline __m256i f16_of(__m512 x)
{
    __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    if (__builtin_expect(nan != 0, 0)) {
        __m256i sign = _mm256_and_si256(h, _mm256_set1_epi16(INT16_MIN));
        h = _mm256_mask_blend_epi16(nan, h, _mm256_or_si256(sign, _mm256_set1_epi16(0x7e00)));
    }
    return h;
}

void quantize_f16__avx512(void *dst, const float *src, size_t n_elements)
{
    char *y = dst;
    const char *x = (const char *)src;
    for (; n_elements >= 16; n_elements -= 16, x += 64, y += 32)
        _mm256_storeu_si256((__m256i *)(void *)y, f16_of(_mm512_loadu_ps(x)));
    __mmask16 rest = first_16(n_elements);
    if (rest)
        _mm256_mask_storeu_epi16(y, rest, f16_of(_mm512_maskz_loadu_ps(rest, x)));
}

void dequantize_f16__avx512(float *dst, const void *src, size_t n_elements)
{
    char *y = (char *)dst;
    const char *x = src;
    for (; n_elements >= 16; n_elements -= 16, x += 32, y += 64)
        _mm512_storeu_ps(y, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x)));
    __mmask16 rest = first_16(n_elements);
    if (rest)
        _mm512_mask_storeu_ps(y, rest, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(rest, x)));
}

/*
 * 16 f32 rounded to bf16 in the upper half of each 32-bit word: add 0x7fff and the last kept bit; NaN: set the quiet
 * bit.
 */
static inline __m512i bf16_upper(__m512i bits)
{
    const __m512i one = _mm512_set1_epi32(1), infinity = _mm512_set1_epi32(0x7f800000);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, infinity);
    return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}

/* The upper halves of 32 words side by side. */
static inline __m512i bf16_of(__m512i low, __m512i high)
{
    const __m512i lower = _mm512_srli_epi32(bf16_upper(low), 16);
    const __m512i upper = _mm512_srli_epi32(bf16_upper(high), 16);
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(in_order, _mm512_packus_epi32(lower, upper));
}

void quantize_bf16__avx512(void *dst, const float *src, size_t n_elements)
{
    char *y = dst;
    const char *x = (const char *)src;
    for (; n_elements >= 32; n_elements -= 32, x += 128, y += 64)
        _mm512_storeu_si512(y, bf16_of(_mm512_loadu_si512(x), _mm512_loadu_si512(x + 64)));
    if (n_elements) {
        __m512i low = _mm512_maskz_loadu_epi32(first_16(n_elements), x);
        __m512i high =
            n_elements > 16 ? _mm512_maskz_loadu_epi32(first_16(n_elements - 16), x + 64) : _mm512_setzero_si512();
        _mm512_mask_storeu_epi16(y, first_32(n_elements), bf16_of(low, high));
    }
}

static inline __m512i f32_of_bf16(__m256i h)
{
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}

void dequantize_bf16__avx512(float *dst, const void *src, size_t n_elements)
{
    char *y = (char *)dst;
    const char *x = src;
    for (; n_elements >= 16; n_elements -= 16, x += 32, y += 64)
        _mm512_storeu_si512(y, f32_of_bf16(_mm256_loadu_si256((const __m256i *)(const void *)x)));
    __mmask16 rest = first_16(n_elements);
    if (rest)
        _mm512_mask_storeu_epi32(y, rest, f32_of_bf16(_mm256_maskz_loadu_epi16(rest, x)));
}
