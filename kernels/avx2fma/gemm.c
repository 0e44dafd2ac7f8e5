#include "kernels/variants.h"

#include <immintrin.h>

typedef __m256 gemm_vec;
enum { GEMM_LANES = 8, GEMM_ROWS = 3 };
#define gemm_load(p)      _mm256_loadu_ps(p)
#define gemm_store(p, v)  _mm256_storeu_ps(p, v)
#define gemm_all(x)       _mm256_set1_ps(x)
#define gemm_fma(a, b, c) _mm256_fmadd_ps(a, b, c)

#include "kernels/lanes/gemm.h"

void gemm__avx2fma(const struct gemm_tile *t)
{
    gemm_tile_rows(t);
}
