#include "kernels/variants.h"

#include <immintrin.h>

#include "kernels/avx2/lanes.h"

/* 8 f32 to f16; the instruction keeps a NaN's payload, the definition does not. */
static inline __m128i f16_of(__m256 x)
{
    __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    if (__builtin_expect(!_mm256_testz_si256(nan, nan), 0)) {
        __m128i which = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
        __m128i quiet = _mm_or_si128(_mm_and_si128(h, _mm_set1_epi16(INT16_MIN)), _mm_set1_epi16(0x7e00));
        h = _mm_blendv_epi8(h, quiet, which);
    }
    return h;
}

void quantize_f16__avx2(void *dst, const float *src, size_t n_elements)
{
    char *y = dst;
    const char *x = (const char *)src;
    for (; n_elements >= 8; n_elements -= 8, x += 32, y += 16)
        _mm_storeu_si128((__m128i *)(void *)y, f16_of(load_8(x, 0)));
    quantize_f16__scalar(y, (const float *)(const void *)x, n_elements);
}

void dequantize_f16__avx2(float *dst, const void *src, size_t n_elements)
{
    char *y = (char *)dst;
    const char *x = src;
    for (; n_elements >= 8; n_elements -= 8, x += 16, y += 32)
        store_8(y, 0, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x)));
    dequantize_f16__scalar((float *)(void *)y, x, n_elements);
}

/* 8 f32 rounded to bf16 in 32-bit words: add 0x7fff and the last kept bit; NaN: set the quiet bit. */
static inline __m256i bf16_of(const char *x)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MAX));
    __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}

void quantize_bf16__avx2(void *dst, const float *src, size_t n_elements)
{
    char *y = dst;
    const char *x = (const char *)src;
    for (; n_elements >= 16; n_elements -= 16, x += 64, y += 32) {
        __m256i by_lane = _mm256_packus_epi32(bf16_of(x), bf16_of(x + 32));
        _mm256_storeu_si256((__m256i *)(void *)y, _mm256_permute4x64_epi64(by_lane, 0xd8));
    }
    quantize_bf16__scalar(y, (const float *)(const void *)x, n_elements);
}

void dequantize_bf16__avx2(float *dst, const void *src, size_t n_elements)
{
    char *y = (char *)dst;
    const char *x = src;
    for (; n_elements >= 8; n_elements -= 8, x += 16, y += 32) {
        __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)x));
        _mm256_storeu_si256((__m256i *)(void *)y, _mm256_slli_epi32(words, 16));
    }
    dequantize_bf16__scalar((float *)(void *)y, x, n_elements);
}
