#include "kernels/variants.h"

#include <arm_neon.h>

typedef int32x4_t dots_vec;
typedef int16x8_t dots_part;
enum { DOTS_LANES = 8, DOTS_ROWS = 4 };
#define dots_zero()         vdupq_n_s32(0)
#define dots_load(p)        vld1q_s16(p)
#define dots_add(sum, a, b) vmlal_high_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), a, b)
#define dots_fold(v)        (uint32_t) vaddvq_s32(v)

#include "kernels/lanes/dots.h"

void dots__neon(const struct dots_tile *t)
{
    dots_tile(t);
}
