/*
 * q4_1 and q5_1 with importance: blocks of 32 elements, x ~ scale * code + minimum, by the search of
 * kernels/scalar/search.h. What tells the types apart. (docs/formats/blocks.md, "with importance")
 */
#ifndef QUANTD_KERNELS_AFFINE_32_H
#define QUANTD_KERNELS_AFFINE_32_H

#include "kernels/layout/pack.h"
#include "kernels/scalar/half.h"
#include "kernels/scalar/search.h"

static const struct affine_trials affine_32_trials = {-0.9f, 0.05f, 36, false};

struct affine_32 {
    int n_max;          /* largest code */
    size_t block_bytes; /* of the stored form */
    void (*store)(void *dst, float scale, float min, const uint8_t codes[32]);
};

static inline void q4_1_store(void *dst, float scale, float min, const uint8_t codes[32])
{
    struct block_q4_1 *b = dst;
    b->d = f16_of_f32(scale);
    b->m = f16_of_f32(min);
    pack_nibbles_32(b->q, codes);
}

static inline void q5_1_store(void *dst, float scale, float min, const uint8_t codes[32])
{
    struct block_q5_1 *b = dst;
    b->d = f16_of_f32(scale);
    b->m = f16_of_f32(min);
    pack_nibbles_32(b->q, codes);
    pack_fifth_bits_32(b->high, codes);
}

static const struct affine_32 affine_q4_1 = {15, sizeof(struct block_q4_1), q4_1_store};
static const struct affine_32 affine_q5_1 = {31, sizeof(struct block_q5_1), q5_1_store};

#endif
