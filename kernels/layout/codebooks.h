/*
 * The values that codes of the table and grid types stand for, and the scales that are not f16. Facts of the format
 * (ggml:src/ggml-common.h, src/ggml-impl.h). A row of a grid has the value of element j in byte j.
 */
#ifndef QUANTD_KERNELS_CODEBOOKS_H
#define QUANTD_KERNELS_CODEBOOKS_H

#include <stdint.h>
#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/scalar/half.h"

/* iq4_nl and iq4_xs */
static const int8_t codebook_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* mxfp4 and nvfp4: E2M1, doubled. Code 8 is a zero without sign. */
static const int8_t codebook_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Rows of 8 of the values 8, 25, 43 */
extern const uint64_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024];
/* Rows of 8 of the values -1, 0, 1 (int8_t) */
extern const uint64_t grid_iq1[2048];
/* Rows of 4: xxs of the values 4, 12, 20 .. 52, 62; s of 1, 3 .. 15 */
extern const uint32_t grid_iq3_xxs[256], grid_iq3_s[512];

/* The signs of 8 elements, bit j for element j: 7 are stored, and the number of set ones is even. */
static inline uint32_t signs_of_7(uint32_t stored)
{
    stored &= 127;
    return stored | (uint32_t)__builtin_parity(stored) << 7;
}

/* Half of 2^(e - 127), down to 2^-128; 255 is no NaN here. (The codebook is doubled.) */
static inline float half_of_e8m0(uint8_t e)
{
    return f32_of_bits(e < 2 ? UINT32_C(0x00200000) << e : (uint32_t)(e - 1) << 23);
}

/* Half of an unsigned E4M3, which is an f16 less 8 in the exponent; 0x7f counts as 0, bit 7 for nothing. */
static inline float half_of_ue4m3(uint8_t e)
{
    return e == 0x7f ? 0 : f32_of_f16((uint16_t)((e & 0x7f) << 7)) * 128;
}

/* The f16 scale of a block: the upper nibbles of its four words of scales. */
static inline uint16_t scale_of_iq1_m(const struct block_iq1_m *b)
{
    const unsigned low = b->scales[0] >> 12 | (b->scales[1] >> 12) << 4;
    return (uint16_t)(low | (b->scales[2] >> 12) << 8 | (b->scales[3] >> 12) << 12);
}

/* Words of any alignment */
static inline uint32_t load_u16(const void *p)
{
    uint16_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline uint64_t load_u64(const void *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

#endif
