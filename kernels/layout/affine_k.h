/*
 * q2_k, q4_k and q5_k: super-blocks of 256 elements, x ~ step * code - low, where a sub-block's step and low are small
 * codes themselves. What tells the types apart, and what a super-block makes of the fits of its sub-blocks: one piece
 * of code for all variants. (docs/formats/blocks.md, "q4_k")
 */
#ifndef QUANTD_KERNELS_AFFINE_K_H
#define QUANTD_KERNELS_AFFINE_K_H

#include "kernels/layout/pack.h"
#include "kernels/scalar/half.h"
#include "kernels/scalar/search.h"

enum { AFFINE_K_RUNS = 16 /* sub-blocks, at most */ };

/* The stored head, and the steps that it gives each sub-block. */
struct affine_head {
    uint16_t d, dmin;
    uint8_t scales[16];                              /* as stored; q4_k and q5_k use 12 */
    float steps[AFFINE_K_RUNS], lows[AFFINE_K_RUNS]; /* a step of 0: the search's codes stand */
};

/* Scales and minima of the sub-blocks as codes. */
struct affine_levels {
    float d, dmin; /* what code 1 stands for */
    uint8_t scales[AFFINE_K_RUNS], mins[AFFINE_K_RUNS];
};

/* How a type is searched for. */
struct affine_way {
    struct affine_trials trials;
    uint8_t cut; /* a larger code of a scale or minimum becomes this one: that of a negative scale has wrapped around */
};

struct affine_k {
    size_t run;   /* elements of a sub-block: 16 or 32 */
    int n_max;    /* largest code of an element */
    int n_levels; /* largest code of a scale or minimum */
    bool rms;    /* without importance an element weighs |x| and the root mean square of its sub-block, else only |x| */
    float share; /* with importance: importance * sqrt(share * mean square of the super-block + x^2) */
    struct affine_way plain, weighted;
    size_t block_bytes;
    /* Codes of scales and minima to @scales as stored, and back: what is read is what counts. */
    void (*pack)(struct affine_levels *levels, uint8_t scales[16]);
    void (*store)(void *dst, const struct affine_head *head, const uint8_t codes[256]);
};

/* Without importance: the largest scale and the largest minimum have the largest code. */
static inline float affine_levels_linear(size_t n, int n_levels, const float *x, uint8_t *codes)
{
    float max = 0;
    for (size_t j = 0; j < n; j++)
        max = x[j] > max ? x[j] : max;
    const float inverse = max > 0 ? (float)n_levels / max : 0;
    for (size_t j = 0; j < n; j++)
        codes[j] = (uint8_t)nearest_int(inverse * x[j]);
    return max / (float)n_levels;
}

static inline void affine_head_of(const struct affine_k *k, struct affine_levels *levels, uint8_t cut,
                                  struct affine_head *ret)
{
    const size_t n = 256 / k->run;
    for (size_t j = 0; j < n; j++) {
        levels->scales[j] = levels->scales[j] < cut ? levels->scales[j] : cut;
        levels->mins[j] = levels->mins[j] < cut ? levels->mins[j] : cut;
    }
    ret->d = f16_of_f32(levels->d);
    ret->dmin = f16_of_f32(levels->dmin);
    k->pack(levels, ret->scales);
    const float d = f32_of_f16(ret->d), dmin = f32_of_f16(ret->dmin);
    for (size_t j = 0; j < n; j++) {
        ret->steps[j] = d * levels->scales[j];
        ret->lows[j] = dmin * levels->mins[j];
    }
}

/* --- q2_k --- */

/* A code that has wrapped around spills into the minimum's. */
static inline void q2_k_pack(struct affine_levels *levels, uint8_t scales[16])
{
    for (size_t j = 0; j < 16; j++) {
        scales[j] = (uint8_t)(levels->scales[j] | levels->mins[j] << 4);
        levels->scales[j] = scales[j] & 15;
        levels->mins[j] = scales[j] >> 4;
    }
}

static inline void q2_k_store(void *dst, const struct affine_head *head, const uint8_t codes[256])
{
    struct block_q2_k *b = dst;
    memcpy(b->scales, head->scales, sizeof b->scales);
    pack_pairs_256(b->q, codes);
    b->d = head->d;
    b->dmin = head->dmin;
}

static const struct affine_k affine_q2_k = {
    .run = 16,
    .n_max = 3,
    .n_levels = 15,
    .rms = false,
    .share = 1,
    .plain = {{-0.5f, 0.1f, 15, true}, .cut = 255},
    .weighted = {{-0.9f, 0.05f, 36, false}, .cut = 255},
    .block_bytes = sizeof(struct block_q2_k),
    .pack = q2_k_pack,
    .store = q2_k_store,
};

/* --- q4_k, q5_k --- */

static inline void k4_pack(struct affine_levels *levels, uint8_t scales[16])
{
    pack_scales_k4(scales, levels->scales, levels->mins);
    unpack_scales_k4(scales, levels->scales, levels->mins);
}

static inline void q4_k_store(void *dst, const struct affine_head *head, const uint8_t codes[256])
{
    struct block_q4_k *b = dst;
    b->d = head->d;
    b->dmin = head->dmin;
    memcpy(b->scales, head->scales, sizeof b->scales);
    pack_nibbles_256(b->q, codes);
}

static const struct affine_k affine_q4_k = {
    .run = 32,
    .n_max = 15,
    .n_levels = 63,
    .rms = true,
    .share = 2,
    .plain = {{-1.0f, 0.1f, 20, false}, .cut = 63},
    .weighted = {{-0.9f, 0.05f, 36, false}, .cut = 255},
    .block_bytes = sizeof(struct block_q4_k),
    .pack = k4_pack,
    .store = q4_k_store,
};

static inline void q5_k_store(void *dst, const struct affine_head *head, const uint8_t codes[256])
{
    struct block_q5_k *b = dst;
    b->d = head->d;
    b->dmin = head->dmin;
    memcpy(b->scales, head->scales, sizeof b->scales);
    pack_bits_256(b->high, codes, 4);
    pack_nibbles_256(b->q, codes);
}

static const struct affine_k affine_q5_k = {
    .run = 32,
    .n_max = 31,
    .n_levels = 63,
    .rms = true,
    .share = 2,
    .plain = {{-0.5f, 0.1f, 15, false}, .cut = 63},
    .weighted = {{-0.9f, 0.05f, 36, false}, .cut = 63},
    .block_bytes = sizeof(struct block_q5_k),
    .pack = k4_pack,
    .store = q5_k_store,
};

#endif
