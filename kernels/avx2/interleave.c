/* Packing for groups of 8 rows: r8k4p128. */
#include "kernels/variants.h"

#include "kernels/avx2/vec.h"

static inline vi rows_load(const uint8_t *p, size_t row_bytes)
{
    return _mm256_set_m128i(vb_load(p + 4 * row_bytes), vb_load(p));
}
static inline void rows_store(uint8_t *p, size_t row_bytes, vi v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)(void *)(p + 4 * row_bytes), _mm256_extracti128_si256(v, 1));
}

/* The mask of a masked store; loads go by number. */
static inline size_t words_mask(size_t n)
{
    return n;
}
/* Not a masked load: that of qemu 7.2 reads the words without a mask bit as well, and faults where a page ends. */
static inline __m128i words_load(const uint8_t *p, size_t n)
{
    if (n == 4)
        return vb_load(p);
    if (n == 1)
        return _mm_loadu_si32(p);
    const __m128i two = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return n == 2 ? two : _mm_unpacklo_epi64(two, _mm_loadu_si32(p + 8));
}
static inline vi rows_load_words(const uint8_t *p, size_t row_bytes, size_t n)
{
    return _mm256_set_m128i(words_load(p + 4 * row_bytes, n), words_load(p, n));
}
static inline void rows_store_words(uint8_t *p, size_t row_bytes, size_t n, vi v)
{
    const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)n), _mm_setr_epi32(0, 1, 2, 3));
    _mm_maskstore_epi32((void *)p, mask, _mm256_castsi256_si128(v));
    _mm_maskstore_epi32((void *)(p + 4 * row_bytes), mask, _mm256_extracti128_si256(v, 1));
}

static inline vi zip_words_low(vi a, vi b)
{
    return _mm256_unpacklo_epi32(a, b);
}
static inline vi zip_words_high(vi a, vi b)
{
    return _mm256_unpackhi_epi32(a, b);
}
static inline vi zip_pairs_low(vi a, vi b)
{
    return _mm256_unpacklo_epi64(a, b);
}
static inline vi zip_pairs_high(vi a, vi b)
{
    return _mm256_unpackhi_epi64(a, b);
}

/* 4 x 4 bytes of each register: its own inverse. */
static inline vi transpose_bytes(vi v)
{
    return _mm256_shuffle_epi8(
        v, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
}
static inline vi bytes_gather(vi v)
{
    return _mm256_permutevar8x32_epi32(transpose_bytes(v), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
static inline vi bytes_scatter(vi v)
{
    return transpose_bytes(_mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)));
}

#include "kernels/lanes/interleave.h"

INTERLEAVE(r8k4p128, avx2)
