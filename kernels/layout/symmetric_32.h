/*
 * q4_0 and q5_0 with importance: blocks of 32 elements, x ~ scale * (code - n_max), by the search of
 * kernels/scalar/search.h. What tells the types apart. (docs/formats/blocks.md, "with importance")
 */
#ifndef QUANTD_KERNELS_SYMMETRIC_32_H
#define QUANTD_KERNELS_SYMMETRIC_32_H

#include "kernels/layout/pack.h"
#include "kernels/layout/symmetric.h"

struct symmetric_32 {
    int n_max;          /* codes 0 .. 2 * n_max - 1 */
    size_t block_bytes; /* of the stored form */
    void (*store)(void *dst, float scale, const uint8_t codes[32]);
};

static inline void q4_0_store(void *dst, float scale, const uint8_t codes[32])
{
    struct block_q4_0 *b = dst;
    b->d = f16_of_scale(scale);
    pack_nibbles_32(b->q, codes);
}

static inline void q5_0_store(void *dst, float scale, const uint8_t codes[32])
{
    struct block_q5_0 *b = dst;
    b->d = f16_of_scale(scale);
    pack_nibbles_32(b->q, codes);
    pack_fifth_bits_32(b->high, codes);
}

static const struct symmetric_32 symmetric_q4_0 = {8, sizeof(struct block_q4_0), q4_0_store};
static const struct symmetric_32 symmetric_q5_0 = {16, sizeof(struct block_q5_0), q5_0_store};

#endif
