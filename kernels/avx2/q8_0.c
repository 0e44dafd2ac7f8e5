#include "kernels/variants.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/avx2/lanes.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/prefetch.h"

enum { GROUP = 8 /* blocks, a lane each */, BLOCK_F32_BYTES = BLOCK_32 * 4 };

static inline __m256 largest_of_block(const char *x)
{
    return _mm256_max_ps(_mm256_max_ps(magnitude_of(load_8(x, 0)), magnitude_of(load_8(x, 8))),
                         _mm256_max_ps(magnitude_of(load_8(x, 16)), magnitude_of(load_8(x, 24))));
}

/* 8 elements to integers, halves away from zero: trunc(x + the float below 0.5 with the sign of x), see scalar/q8_0.c.
 */
static inline __m256i codes_of(__m256 x, __m256 inverse)
{
    __m256 q = _mm256_mul_ps(x, inverse);
    __m256 signed_half = _mm256_or_ps(_mm256_and_ps(q, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(0x1.fffffep-2f));
    return _mm256_cvttps_epi32(_mm256_add_ps(q, signed_half));
}

/* 32 integers to 32 bytes, then the 4-byte runs that packing dealt out by lane back in order. */
static inline void encode_block(struct block_q8_0 *b, const char *x, float inverse)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256 i = _mm256_set1_ps(inverse);
    __m256i w0 = _mm256_packs_epi32(codes_of(load_8(x, 0), i), codes_of(load_8(x, 8), i));
    __m256i w1 = _mm256_packs_epi32(codes_of(load_8(x, 16), i), codes_of(load_8(x, 24), i));
    __m256i q = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(w0, w1), in_order);
    _mm256_storeu_si256((__m256i *)(void *)b->q, q);
}

static inline void quantize_group(struct block_q8_0 *b, const char *src)
{
    __m256 largest[GROUP];
    for (size_t i = 0; i < GROUP; i++)
        largest[i] = largest_of_block(src + i * BLOCK_F32_BYTES);

    const __m256 d = _mm256_div_ps(largest_of_each(largest), _mm256_set1_ps(127));
    const __m256 quotient = _mm256_div_ps(_mm256_set1_ps(1), d);
    const __m256 usable = _mm256_cmp_ps(quotient, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);

    float inverse[GROUP];
    uint16_t scale[GROUP];
    _mm256_storeu_ps(inverse, _mm256_and_ps(quotient, usable));
    _mm_storeu_si128((__m128i *)(void *)scale, _mm256_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (size_t i = 0; i < GROUP; i++) {
        b[i].d = scale[i];
        encode_block(&b[i], src + i * BLOCK_F32_BYTES, inverse[i]);
    }
}

void quantize_q8_0__avx2(void *dst, const float *src, size_t n_elements)
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

void dequantize_q8_0__avx2(float *dst, const void *src, size_t n_elements)
{
    const struct block_q8_0 *b = src;
    char *y = (char *)dst;
    for (size_t n = n_elements / BLOCK_32; n; n--, b++, y += BLOCK_F32_BYTES) {
        const __m256 d = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(b->d)));
        for (size_t j = 0; j < BLOCK_32; j += 8) {
            __m256i codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(b->q + j)));
            store_8(y, j, _mm256_mul_ps(_mm256_cvtepi32_ps(codes), d));
        }
    }
}
