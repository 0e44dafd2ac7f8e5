#include "kernels/variants.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/avx512/lanes.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/prefetch.h"

enum { GROUP = 16 /* blocks, a lane each */, BLOCK_F32_BYTES = BLOCK_32 * 4 };

static inline __m512 load_half(const char *src, size_t block, size_t half)
{
    return _mm512_loadu_ps(src + block * BLOCK_F32_BYTES + half * 64);
}

/* 16 elements to integers, halves away from zero: trunc(x + the float below 0.5 with the sign of x), see scalar/q8_0.c.
 */
static inline __m512i codes_of(__m512 x, __m512 inverse)
{
    const __m512i sign = _mm512_set1_epi32(INT32_MIN), half = _mm512_castps_si512(_mm512_set1_ps(0x1.fffffep-2f));
    __m512 q = _mm512_mul_ps(x, inverse);
    __m512i signed_half = _mm512_ternarylogic_epi32(_mm512_castps_si512(q), sign, half, 0xea); /* (q & sign) | half */
    return _mm512_cvttps_epi32(_mm512_add_ps(q, _mm512_castsi512_ps(signed_half)));
}

/* Codes of two blocks: 64 integers to 64 bytes, then the 4-byte runs that packing dealt out by lane back in order. */
static inline void encode_two(struct block_q8_0 *b, const char *src, size_t at, const float inverse[GROUP])
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512 i0 = _mm512_set1_ps(inverse[at]), i1 = _mm512_set1_ps(inverse[at + 1]);
    __m512i w0 = _mm512_packs_epi32(codes_of(load_half(src, at, 0), i0), codes_of(load_half(src, at, 1), i0));
    __m512i w1 = _mm512_packs_epi32(codes_of(load_half(src, at + 1, 0), i1), codes_of(load_half(src, at + 1, 1), i1));
    __m512i q = _mm512_permutexvar_epi32(in_order, _mm512_packs_epi16(w0, w1));
    _mm256_storeu_si256((__m256i *)(void *)b[at].q, _mm512_castsi512_si256(q));
    _mm256_storeu_si256((__m256i *)(void *)b[at + 1].q, _mm512_extracti64x4_epi64(q, 1));
}

static inline void quantize_group(struct block_q8_0 *b, const char *src)
{
    __m512 largest[GROUP];
    for (size_t i = 0; i < GROUP; i++)
        largest[i] = _mm512_max_ps(_mm512_abs_ps(load_half(src, i, 0)), _mm512_abs_ps(load_half(src, i, 1)));

    const __m512 d = _mm512_div_ps(largest_of_each(largest), _mm512_set1_ps(127));
    const __m512 quotient = _mm512_div_ps(_mm512_set1_ps(1), d);
    const __mmask16 usable = _mm512_cmp_ps_mask(quotient, _mm512_set1_ps(INFINITY), _CMP_LT_OQ);

    float inverse[GROUP];
    uint16_t scale[GROUP];
    _mm512_storeu_ps(inverse, _mm512_maskz_mov_ps(usable, quotient));
    _mm256_storeu_si256((__m256i *)(void *)scale, _mm512_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (size_t i = 0; i < GROUP; i += 2) {
        b[i].d = scale[i];
        b[i + 1].d = scale[i + 1];
        encode_two(b, src, i, inverse);
    }
}

void quantize_q8_0__avx512(void *dst, const float *src, size_t n_elements)
{
    struct block_q8_0 *b = dst;
    const char *x = (const char *)src;
    size_t n = n_elements / BLOCK_32;
    for (; n >= GROUP; n -= GROUP, b += GROUP, x += GROUP * BLOCK_F32_BYTES) {
        prefetch_stream(x, GROUP * BLOCK_F32_BYTES);
        quantize_group(b, x);
    }
    if (n) { /* the rest as a group filled up with zero blocks */
        struct block_q8_0 last[GROUP];
        char filled[GROUP * BLOCK_F32_BYTES];
        memcpy(filled, x, n * BLOCK_F32_BYTES);
        memset(filled + n * BLOCK_F32_BYTES, 0, (GROUP - n) * BLOCK_F32_BYTES);
        quantize_group(last, filled);
        memcpy(b, last, n * sizeof *b);
    }
}

/* 16 codes to 16 values. */
static inline void decode_half(char *dst, const int8_t *q, __m512 d)
{
    __m512i codes = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)q));
    _mm512_storeu_ps(dst, _mm512_mul_ps(_mm512_cvtepi32_ps(codes), d));
}

void dequantize_q8_0__avx512(float *dst, const void *src, size_t n_elements)
{
    const struct block_q8_0 *b = src;
    char *y = (char *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, y += BLOCK_F32_BYTES) {
        __m512 d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(b->d)));
        decode_half(y, b->q, d);
        decode_half(y + 64, b->q + 16, d);
    }
}
