/* Packing for groups of 16 rows: r16k4p128. */
#include "kernels/variants.h"

#include "kernels/avx512/vec.h"

static inline vi rows_load(const uint8_t *p, size_t row_bytes)
{
    vi v = _mm512_castsi128_si512(vb_load(p));
    v = _mm512_inserti32x4(v, vb_load(p + 4 * row_bytes), 1);
    v = _mm512_inserti32x4(v, vb_load(p + 8 * row_bytes), 2);
    return _mm512_inserti32x4(v, vb_load(p + 12 * row_bytes), 3);
}
static inline void rows_store(uint8_t *p, size_t row_bytes, vi v)
{
    _mm_storeu_si128((void *)p, _mm512_castsi512_si128(v));
    _mm_storeu_si128((void *)(p + 4 * row_bytes), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((void *)(p + 8 * row_bytes), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((void *)(p + 12 * row_bytes), _mm512_extracti32x4_epi32(v, 3));
}

static inline __mmask8 words_mask(size_t n)
{
    return (__mmask8)((1u << n) - 1);
}
static inline vi rows_load_words(const uint8_t *p, size_t row_bytes, __mmask8 mask)
{
    vi v = _mm512_castsi128_si512(_mm_maskz_loadu_epi32(mask, p));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi32(mask, p + 4 * row_bytes), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi32(mask, p + 8 * row_bytes), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi32(mask, p + 12 * row_bytes), 3);
}
/* The empty statement keeps gcc from making a masked vextracti32x4 of it, which faults on words it does not write. */
static inline void store_words(uint8_t *p, __mmask8 mask, __m128i v)
{
    __asm__("" : "+v"(v));
    _mm_mask_storeu_epi32(p, mask, v);
}
static inline void rows_store_words(uint8_t *p, size_t row_bytes, __mmask8 mask, vi v)
{
    store_words(p, mask, _mm512_castsi512_si128(v));
    store_words(p + 4 * row_bytes, mask, _mm512_extracti32x4_epi32(v, 1));
    store_words(p + 8 * row_bytes, mask, _mm512_extracti32x4_epi32(v, 2));
    store_words(p + 12 * row_bytes, mask, _mm512_extracti32x4_epi32(v, 3));
}

static inline vi zip_words_low(vi a, vi b)
{
    return _mm512_unpacklo_epi32(a, b);
}
static inline vi zip_words_high(vi a, vi b)
{
    return _mm512_unpackhi_epi32(a, b);
}
static inline vi zip_pairs_low(vi a, vi b)
{
    return _mm512_unpacklo_epi64(a, b);
}
static inline vi zip_pairs_high(vi a, vi b)
{
    return _mm512_unpackhi_epi64(a, b);
}

/* 4 x 4 bytes of each register, then 4 x 4 words of the vector: both their own inverse. */
static inline vi transpose_bytes(vi v)
{
    return _mm512_shuffle_epi8(
        v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
}
static inline vi transpose_words(vi v)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}
static inline vi bytes_gather(vi v)
{
    return transpose_words(transpose_bytes(v));
}
static inline vi bytes_scatter(vi v)
{
    return transpose_bytes(transpose_words(v));
}

#include "kernels/lanes/interleave.h"

INTERLEAVE(r16k4p128, avx512)
