#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/lanes.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/prefetch.h"

enum { GROUP = 8 /* blocks, a lane each */, BLOCK_F32_BYTES = BLOCK_32 * 4 };

static inline __m256 negated(__m256 x)
{
    return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

static inline __m256 highest_of_block(const char *x)
{
    return _mm256_max_ps(_mm256_max_ps(load_8(x, 0), load_8(x, 8)), _mm256_max_ps(load_8(x, 16), load_8(x, 24)));
}

static inline __m256 lowest_of_block(const char *x)
{
    return _mm256_min_ps(_mm256_min_ps(load_8(x, 0), load_8(x, 8)), _mm256_min_ps(load_8(x, 16), load_8(x, 24)));
}

/* The first element of a block whose magnitude is @largest. */
static float first_of_magnitude(const char *x, float largest)
{
    __m256 wanted = _mm256_set1_ps(largest);
    uint32_t found = 0;
    for (size_t j = 0; j < BLOCK_32; j += 8)
        found |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(magnitude_of(load_8(x, j)), wanted, _CMP_EQ_OQ)) << j;
    float first;
    memcpy(&first, x + (size_t)__builtin_ctz(found) * sizeof first, sizeof first);
    return first;
}

/* Lane i: the element of largest magnitude in block i with its sign, the first of equals; +0 for a zero block. */
static inline __m256 extremes_of(const char *src)
{
    __m256 above[GROUP], below[GROUP];
    for (size_t i = 0; i < GROUP; i++)
        above[i] = highest_of_block(src + i * BLOCK_F32_BYTES);
    const __m256 highest = largest_of_each(above);
    for (size_t i = 0; i < GROUP; i++)
        below[i] = negated(lowest_of_block(src + i * BLOCK_F32_BYTES));
    const __m256 depth = largest_of_each(below); /* the lowest element, negated */

    __m256 rises = _mm256_cmp_ps(highest, depth, _CMP_GT_OQ);
    __m256 ties = _mm256_cmp_ps(highest, depth, _CMP_EQ_OQ);
    __m256 zero = _mm256_and_ps(ties, _mm256_cmp_ps(highest, _mm256_setzero_ps(), _CMP_EQ_OQ));
    __m256 extreme = _mm256_andnot_ps(zero, _mm256_blendv_ps(negated(depth), highest, rises));
    uint32_t open = (uint32_t)_mm256_movemask_ps(_mm256_andnot_ps(zero, ties));
    if (__builtin_expect(open != 0, 0)) { /* both c and -c: look which comes first */
        float each[GROUP], largest[GROUP];
        _mm256_storeu_ps(each, extreme);
        _mm256_storeu_ps(largest, highest);
        for (; open; open &= open - 1) {
            size_t i = (size_t)__builtin_ctz(open);
            each[i] = first_of_magnitude(src + i * BLOCK_F32_BYTES, largest[i]);
        }
        extreme = _mm256_loadu_ps(each);
    }
    return extreme;
}

/* 8 elements to trunc(x / d + 8.5); an infinite inverse gives INT_MIN, which packing turns into code 0. */
static inline __m256i codes_of(__m256 x, __m256 inverse)
{
    return _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(x, inverse), _mm256_set1_ps(8.5f)));
}

/*
 * 32 codes to 32 bytes, capped at 15; packing leaves 4 codes of the first half before the 4 that
 * belong above them, so one shift by 28 bits joins nibbles and every other 32-bit word is result.
 */
static inline void encode_block(struct block_q4_0 *b, const char *x, float inverse)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 2, 6, 0, 4, 2, 6);
    const __m256 i = _mm256_set1_ps(inverse);
    __m256i w0 = _mm256_packus_epi32(codes_of(load_8(x, 0), i), codes_of(load_8(x, 16), i));
    __m256i w1 = _mm256_packus_epi32(codes_of(load_8(x, 8), i), codes_of(load_8(x, 24), i));
    __m256i bytes = _mm256_min_epu8(_mm256_packus_epi16(w0, w1), _mm256_set1_epi8(15));
    __m256i joined = _mm256_or_si256(bytes, _mm256_srli_epi64(bytes, 28));
    __m256i q = _mm256_permutevar8x32_epi32(joined, in_order);
    _mm_storeu_si128((__m128i *)(void *)b->q, _mm256_castsi256_si128(q));
}

static inline void quantize_group(struct block_q4_0 *b, const char *src)
{
    const __m256 d = _mm256_mul_ps(extremes_of(src), _mm256_set1_ps(-0.125f)); /* exactly / -8 */
    const __m256 nonzero = _mm256_cmp_ps(d, _mm256_setzero_ps(), _CMP_NEQ_OQ);

    float inverse[GROUP];
    uint16_t scale[GROUP];
    _mm256_storeu_ps(inverse, _mm256_and_ps(nonzero, _mm256_div_ps(_mm256_set1_ps(1), d)));
    _mm_storeu_si128((__m128i *)(void *)scale, _mm256_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (size_t i = 0; i < GROUP; i++) {
        b[i].d = scale[i];
        encode_block(&b[i], src + i * BLOCK_F32_BYTES, inverse[i]);
    }
}

void quantize_q4_0__avx2(void *dst, const float *src, size_t n_elements)
{
    struct block_q4_0 *b = dst;
    const char *x = (const char *)src;
    size_t n = n_elements / BLOCK_32;
    for (; n >= GROUP; n -= GROUP, b += GROUP, x += GROUP * BLOCK_F32_BYTES) {
        prefetch_stream(x, GROUP * BLOCK_F32_BYTES);
        quantize_group(b, x);
    }
    if (n) { /* the rest as a group filled up with zero blocks */
        struct block_q4_0 last[GROUP];
        char filled[GROUP * BLOCK_F32_BYTES];
        memcpy(filled, x, n * BLOCK_F32_BYTES);
        memset(filled + n * BLOCK_F32_BYTES, 0, (GROUP - n) * BLOCK_F32_BYTES);
        quantize_group(last, filled);
        memcpy(b, last, n * sizeof *b);
    }
}

/* 8 bytes that hold a code each to 8 values. */
static inline __m256 values_of(__m128i bytes, __m256 d)
{
    __m256i codes = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(8));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(codes), d);
}

void dequantize_q4_0__avx2(float *dst, const void *src, size_t n_elements)
{
    const __m128i nibble = _mm_set1_epi8(15);
    const struct block_q4_0 *b = src;
    char *y = (char *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, y += BLOCK_F32_BYTES) {
        const __m256 d = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(b->d)));
        __m128i both = _mm_loadu_si128((const __m128i *)(const void *)b->q);
        __m128i low = _mm_and_si128(both, nibble), high = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
        store_8(y, 0, values_of(low, d));
        store_8(y, 8, values_of(_mm_unpackhi_epi64(low, low), d));
        store_8(y, 16, values_of(high, d));
        store_8(y, 24, values_of(_mm_unpackhi_epi64(high, high), d));
    }
}
