#include "kernels/variants.h"

#include <immintrin.h>

typedef __m512i dots_vec;
typedef __m512i dots_part;
enum { DOTS_LANES = 32, DOTS_ROWS = 4 };
#define dots_zero()         _mm512_setzero_si512()
#define dots_load(p)        _mm512_loadu_si512(p)
#define dots_add(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#define dots_fold(v)        (uint32_t) _mm512_reduce_add_epi32(v)

#include "kernels/lanes/dots.h"

void dots__avx512vnni(const struct dots_tile *t)
{
    dots_tile(t);
}
