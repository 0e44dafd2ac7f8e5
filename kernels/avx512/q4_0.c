#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/avx512/lanes.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/prefetch.h"

enum { GROUP = 16 /* blocks, a lane each */, BLOCK_F32_BYTES = BLOCK_32 * 4 };

static inline __m512 load_half(const char *src, size_t block, size_t half)
{
    return _mm512_loadu_ps(src + block * BLOCK_F32_BYTES + half * 64);
}

static inline __m512 negated(__m512 x)
{
    return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
}

/*
 * The first element of a block whose magnitude is @largest. The masks keep their 16-bit type until the shift: with
 * uint32_t gcc 12 at -O3 under ASan and UBSan together loses the upper half (clang and -O2 do not).
 */
static float first_of_magnitude(const char *src, size_t block, float largest)
{
    __m512 wanted = _mm512_set1_ps(largest);
    __mmask16 low = _mm512_cmp_ps_mask(_mm512_abs_ps(load_half(src, block, 0)), wanted, _CMP_EQ_OQ);
    __mmask16 high = _mm512_cmp_ps_mask(_mm512_abs_ps(load_half(src, block, 1)), wanted, _CMP_EQ_OQ);
    float x;
    memcpy(&x, src + block * BLOCK_F32_BYTES + (size_t)__builtin_ctz(low | (uint32_t)high << 16) * sizeof x, sizeof x);
    return x;
}

/* Lane i: the element of largest magnitude in block i with its sign, the first of equals; +0 for a zero block. */
static inline __m512 extremes_of(const char *src)
{
    __m512 above[GROUP], below[GROUP];
    for (size_t i = 0; i < GROUP; i++)
        above[i] = _mm512_max_ps(load_half(src, i, 0), load_half(src, i, 1));
    __m512 highest = largest_of_each(above);
    for (size_t i = 0; i < GROUP; i++)
        below[i] = negated(_mm512_min_ps(load_half(src, i, 0), load_half(src, i, 1)));
    __m512 depth = largest_of_each(below); /* the lowest element, negated */

    __mmask16 rises = _mm512_cmp_ps_mask(highest, depth, _CMP_GT_OQ);
    __m512 extreme = _mm512_mask_mov_ps(negated(depth), rises, highest);
    __mmask16 ties = _mm512_cmp_ps_mask(highest, depth, _CMP_EQ_OQ);
    __mmask16 zero = ties & _mm512_cmp_ps_mask(highest, _mm512_setzero_ps(), _CMP_EQ_OQ);
    extreme = _mm512_mask_mov_ps(extreme, zero, _mm512_setzero_ps());
    uint32_t open = ties & (uint32_t)~zero;
    if (__builtin_expect(open != 0, 0)) { /* both c and -c: look which comes first */
        float each[GROUP], largest[GROUP];
        _mm512_storeu_ps(each, extreme);
        _mm512_storeu_ps(largest, highest);
        for (; open; open &= open - 1) {
            size_t i = (size_t)__builtin_ctz(open);
            each[i] = first_of_magnitude(src, i, largest[i]);
        }
        extreme = _mm512_loadu_ps(each);
    }
    return extreme;
}

/* 16 elements to trunc(x / d + 8.5); an infinite inverse gives INT_MIN, which packing turns into code 0. */
static inline __m512i codes_of(const char *src, size_t block, size_t half, __m512 inverse)
{
    __m512 q = _mm512_mul_ps(load_half(src, block, half), inverse);
    return _mm512_cvttps_epi32(_mm512_add_ps(q, _mm512_set1_ps(8.5f)));
}

/* Elements 0..15 and 16..31 of a block as 16-bit codes; in each 128-bit lane 4 of the first, then 4 of the second half.
 */
static inline __m512i words_of(const char *src, size_t block, const float inverse[GROUP])
{
    __m512 i = _mm512_set1_ps(inverse[block]);
    return _mm512_packus_epi32(codes_of(src, block, 0, i), codes_of(src, block, 1, i));
}

/* Two blocks: bytes capped at 15, then the second halves shifted onto the first; the even 32-bit words hold the result.
 */
static inline __m512i nibbles_of(const char *src, size_t block, const float inverse[GROUP])
{
    __m512i bytes = _mm512_packus_epi16(words_of(src, block, inverse), words_of(src, block + 1, inverse));
    bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8(15));
    return _mm512_or_si512(bytes, _mm512_srli_epi64(bytes, 28));
}

static inline void encode_four(struct block_q4_0 *b, const char *src, size_t at, const float inverse[GROUP])
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 16, 20, 24, 28, 18, 22, 26, 30);
    __m512i q = _mm512_permutex2var_epi32(nibbles_of(src, at, inverse), in_order, nibbles_of(src, at + 2, inverse));
    _mm_storeu_si128((__m128i *)(void *)b[at].q, _mm512_castsi512_si128(q));
    _mm_storeu_si128((__m128i *)(void *)b[at + 1].q, _mm512_extracti32x4_epi32(q, 1));
    _mm_storeu_si128((__m128i *)(void *)b[at + 2].q, _mm512_extracti32x4_epi32(q, 2));
    _mm_storeu_si128((__m128i *)(void *)b[at + 3].q, _mm512_extracti32x4_epi32(q, 3));
}

static inline void quantize_group(struct block_q4_0 *b, const char *src)
{
    const __m512 d = _mm512_mul_ps(extremes_of(src), _mm512_set1_ps(-0.125f)); /* exactly / -8 */
    const __mmask16 nonzero = _mm512_cmp_ps_mask(d, _mm512_setzero_ps(), _CMP_NEQ_OQ);

    float inverse[GROUP];
    uint16_t scale[GROUP];
    _mm512_storeu_ps(inverse, _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1), d));
    _mm256_storeu_si256((__m256i *)(void *)scale, _mm512_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (size_t i = 0; i < GROUP; i++)
        b[i].d = scale[i];
    for (size_t i = 0; i < GROUP; i += 4)
        encode_four(b, src, i, inverse);
}

void quantize_q4_0__avx512(void *dst, const float *src, size_t n_elements)
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

void dequantize_q4_0__avx512(float *dst, const void *src, size_t n_elements)
{
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const struct block_q4_0 *b = src;
    char *y = (char *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, y += BLOCK_F32_BYTES) {
        __m512 d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(b->d)));
        __m512i low =
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)b->q)); /* the look-up reads 4 bits */
        __m512i high = _mm512_srli_epi32(low, 4);
        _mm512_storeu_ps(y, _mm512_mul_ps(_mm512_permutexvar_ps(low, values), d));
        _mm512_storeu_ps(y + 64, _mm512_mul_ps(_mm512_permutexvar_ps(high, values), d));
    }
}
