/*
 * q4_k and q5_k behind the search: what a super-block makes of the scales and minima of its 8 sub-blocks. One piece of
 * code for all variants. (docs/formats/blocks.md, "q4_k")
 */
#ifndef QUANTD_KERNELS_Q4_K_H
#define QUANTD_KERNELS_Q4_K_H

#include "kernels/layout/pack.h"
#include "kernels/scalar/half.h"
#include "kernels/scalar/search.h"

/* The super-block's head, and the steps that it gives each sub-block. */
struct k4_head {
    uint16_t d, dmin;
    uint8_t scales[12];
    float steps[8], lows[8]; /* x ~ step * code - low; a step of 0: the search's codes stand */
};

static inline uint8_t nearest_63(float x)
{
    const uint8_t code = (uint8_t)nearest_int(x);
    return code < 63 ? code : 63;
}

/* Without importance: the largest scale and the largest minimum have code 63. */
static inline void k4_codes_plain(const float scales[8], const float mins[8], uint8_t ls[8], uint8_t lm[8],
                                  struct k4_head *ret)
{
    float max_scale = 0, max_min = 0;
    for (int j = 0; j < 8; j++) {
        max_scale = scales[j] > max_scale ? scales[j] : max_scale;
        max_min = mins[j] > max_min ? mins[j] : max_min;
    }
    const float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0, inverse_min = max_min > 0 ? 63.0f / max_min : 0;
    for (int j = 0; j < 8; j++) {
        ls[j] = nearest_63(inverse_scale * scales[j]);
        lm[j] = nearest_63(inverse_min * mins[j]);
    }
    ret->d = f16_of_f32(max_scale / 63.0f);
    ret->dmin = f16_of_f32(max_min / 63.0f);
}

/*
 * @scales, @mins: what the search found for the sub-blocks of 32, x ~ scale * code - min, not negative. @weights: with
 * importance the sums of their weights, else NULL.
 */
static inline void k4_head_of(const float scales[8], const float mins[8], const float *weights, struct k4_head *ret)
{
    uint8_t ls[8], lm[8];
    if (weights) {
        ret->d = f16_of_f32(search_positive(8, 63, scales, weights, ls));
        ret->dmin = f16_of_f32(search_positive(8, 63, mins, weights, lm));
    } else {
        k4_codes_plain(scales, mins, ls, lm, ret);
    }
    pack_scales_k4(ret->scales, ls, lm);
    for (int j = 0; j < 8; j++) {
        ret->steps[j] = f32_of_f16(ret->d) * ls[j];
        ret->lows[j] = f32_of_f16(ret->dmin) * lm[j];
    }
}

#endif
