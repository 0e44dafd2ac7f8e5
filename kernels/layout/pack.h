/*
 * Codes of a block, one a byte and in the order of the elements, to the bits of its stored form. Shared by all
 * variants: plain loops that compilers turn into vector code.
 */
#ifndef QUANTD_KERNELS_PACK_H
#define QUANTD_KERNELS_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/layout/blocks.h"

/* 8 codes, a byte each. */
static inline uint64_t codes_8(const uint8_t *codes)
{
    uint64_t v;
    memcpy(&v, codes, sizeof v);
    return v;
}

/* A byte value in each of 8. */
static inline uint64_t bytes_8(uint8_t value)
{
    return value * UINT64_C(0x0101010101010101);
}

/* q[32 p + l] = code[64 p + l] | code[64 p + 32 + l] << 4, codes of 4 bits (upper bits of larger ones are dropped). */
static inline void pack_nibbles_256(uint8_t q[128], const uint8_t codes[256])
{
    for (size_t p = 0; p < 4; p++)
        for (size_t l = 0; l < 32; l += 8) {
            const uint8_t *c = codes + 64 * p + l;
            const uint64_t v = (codes_8(c) & bytes_8(15)) | (codes_8(c + 32) & bytes_8(15)) << 4;
            memcpy(q + 32 * p + l, &v, sizeof v);
        }
}

/* q[32 h + l] = code[128 h + l + {0, 32, 64, 96}] << {0, 2, 4, 6}, codes of 2 bits (upper bits are dropped). */
static inline void pack_pairs_256(uint8_t q[64], const uint8_t codes[256])
{
    for (size_t h = 0; h < 2; h++)
        for (size_t l = 0; l < 32; l += 8) {
            const uint8_t *c = codes + 128 * h + l;
            const uint64_t v = (codes_8(c) & bytes_8(3)) | (codes_8(c + 32) & bytes_8(3)) << 2 |
                               (codes_8(c + 64) & bytes_8(3)) << 4 | (codes_8(c + 96) & bytes_8(3)) << 6;
            memcpy(q + 32 * h + l, &v, sizeof v);
        }
}

/* Bit k of high[l]: bit @bit of code[32 k + l]. */
static inline void pack_bits_256(uint8_t high[32], const uint8_t codes[256], int bit)
{
    for (size_t l = 0; l < 32; l += 8) {
        uint64_t v = 0;
        for (size_t k = 0; k < 8; k++)
            v |= (codes_8(codes + 32 * k + l) >> bit & bytes_8(1)) << k;
        memcpy(high + l, &v, sizeof v);
    }
}

/* The same for blocks of 32: q[j] = code[j] | code[j + 16] << 4. */
static inline void pack_nibbles_32(uint8_t q[16], const uint8_t codes[32])
{
    for (size_t j = 0; j < 16; j++)
        q[j] = (uint8_t)((codes[j] & 15) | codes[j + 16] << 4);
}

/* Bit 4 of code j to bit j of the 32. */
static inline void pack_fifth_bits_32(uint8_t high[4], const uint8_t codes[32])
{
    for (size_t i = 0; i < 4; i++) /* the product moves bit 0 of byte j to bit 56 + j */
        high[i] = (uint8_t)((codes_8(codes + 8 * i) >> 4 & bytes_8(1)) * UINT64_C(0x0102040810204080) >> 56);
}

/* Codes of 6 bits: low nibbles and upper pairs of 128 elements at a time, as struct block_q6_k has them. */
static inline void pack_sixes_256(uint8_t low[128], uint8_t high[64], const uint8_t codes[256])
{
    for (size_t h = 0; h < 2; h++) {
        const uint8_t *c = codes + 128 * h;
        for (size_t l = 0; l < 64; l += 8) {
            const uint64_t v = (codes_8(c + l) & bytes_8(15)) | (codes_8(c + 64 + l) & bytes_8(15)) << 4;
            memcpy(low + 64 * h + l, &v, sizeof v);
        }
        for (size_t l = 0; l < 32; l += 8) {
            const uint64_t v = (codes_8(c + l) >> 4 & bytes_8(3)) | (codes_8(c + 32 + l) >> 2 & bytes_8(12)) |
                               (codes_8(c + 64 + l) & bytes_8(48)) | (codes_8(c + 96 + l) & bytes_8(48)) << 2;
            memcpy(high + 32 * h + l, &v, sizeof v);
        }
    }
}

/* 16 scales of 6 bits (docs/formats/blocks.md, "q3_k"). */
static inline void pack_scales_k3(uint8_t dst[12], const uint8_t scales[16])
{
    for (size_t j = 0; j < 8; j++)
        dst[j] = (uint8_t)((scales[j] & 15) | (scales[j + 8] & 15) << 4);
    for (size_t j = 0; j < 4; j++)
        dst[j + 8] =
            (uint8_t)(scales[j] >> 4 | scales[j + 4] >> 4 << 2 | scales[j + 8] >> 4 << 4 | scales[j + 12] >> 4 << 6);
}

/* 8 scales and 8 minima of 6 bits (docs/formats/blocks.md, "q4_k"). */
static inline void pack_scales_k4(uint8_t dst[12], const uint8_t scales[8], const uint8_t mins[8])
{
    for (size_t j = 0; j < 4; j++) {
        dst[j] = (uint8_t)(scales[j] | (scales[j + 4] >> 4) << 6);
        dst[j + 4] = (uint8_t)(mins[j] | (mins[j + 4] >> 4) << 6);
        dst[j + 8] = (uint8_t)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

static inline void unpack_scales_k4(const uint8_t src[12], uint8_t scales[8], uint8_t mins[8])
{
    uint32_t first[2], last[2], w[3]; /* four scales or minima in a word */
    memcpy(w, src, sizeof w);
    first[0] = w[0] & 0x3f3f3f3f;
    first[1] = (w[2] & 0x0f0f0f0f) | (w[0] >> 6 & 0x03030303) << 4;
    last[0] = w[1] & 0x3f3f3f3f;
    last[1] = (w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 6 & 0x03030303) << 4;
    memcpy(scales, first, sizeof first);
    memcpy(mins, last, sizeof last);
}

/* 16 scales of 6 bits (docs/formats/blocks.md, "q3_k"), scale j in byte j % 8 of word j / 8. */
static inline void unpack_scales_q3(const uint8_t src[12], uint64_t scales[2])
{
    const uint64_t nibbles = 0x0f0f0f0f0f0f0f0f, pairs = 0x0303030303030303;
    uint64_t low;  /* low nibbles of scales 0..7, of 8..15 */
    uint32_t high; /* upper pairs of scales 0..3, 4..7, 8..11, 12..15 */
    memcpy(&low, src, sizeof low);
    memcpy(&high, src + 8, sizeof high);
    const uint64_t both = high | (uint64_t)(high >> 2) << 32;
    scales[0] = (low & nibbles) | (both & pairs) << 4;
    scales[1] = (low >> 4 & nibbles) | (both >> 4 & pairs) << 4;
}

#endif
