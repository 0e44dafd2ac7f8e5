#include "kernels/variants.h"

#include <immintrin.h>

typedef __m256i dots_vec;
typedef __m256i dots_part;
enum { DOTS_LANES = 16, DOTS_ROWS = 2 };
#define dots_zero()         _mm256_setzero_si256()
#define dots_load(p)        _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define dots_add(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define dots_fold(v)        (uint32_t) fold(v)

/* A pair of products wraps only where all four factors are -2^15, and then as the sum does. */
static inline int32_t fold(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

#include "kernels/lanes/dots.h"

void dots__avx2(const struct dots_tile *t)
{
    dots_tile(t);
}
