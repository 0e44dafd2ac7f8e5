#include "kernels/variants.h"

#include <immintrin.h>

typedef __m512 gemm_vec;
enum { GEMM_LANES = 16, GEMM_ROWS = 12 };
#define gemm_load(p)      _mm512_loadu_ps(p)
#define gemm_store(p, v)  _mm512_storeu_ps(p, v)
#define gemm_all(x)       _mm512_set1_ps(x)
#define gemm_fma(a, b, c) _mm512_fmadd_ps(a, b, c)

#include "kernels/lanes/gemm.h"

void gemm__avx512(const struct gemm_tile *t)
{
    gemm_tile_rows(t);
}
