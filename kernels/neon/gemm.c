#include "kernels/variants.h"

#include <arm_neon.h>

typedef float32x4_t gemm_vec;
enum { GEMM_LANES = 4, GEMM_ROWS = 2 };
#define gemm_load(p)      vld1q_f32(p)
#define gemm_store(p, v)  vst1q_f32(p, v)
#define gemm_all(x)       vdupq_n_f32(x)
#define gemm_fma(a, b, c) vfmaq_f32(c, a, b)

#include "kernels/lanes/gemm.h"

void gemm__neon(const struct gemm_tile *t)
{
    gemm_tile_rows(t);
}
