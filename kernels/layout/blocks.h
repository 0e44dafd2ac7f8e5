/*
 * The stored form of the block types, field by field as docs/formats/blocks.md has them.
 * Little-endian; packed, so that a pointer of any alignment will do.
 */
#ifndef QUANTD_KERNELS_BLOCKS_H
#define QUANTD_KERNELS_BLOCKS_H

#include <stdint.h>

enum { Q8_0_ELEMENTS = 32, Q4_0_ELEMENTS = 32 };

struct block_q8_0 {
    uint16_t d;              /* f16 scale */
    int8_t q[Q8_0_ELEMENTS]; /* element = q * d */
} __attribute__((packed));
_Static_assert(sizeof(struct block_q8_0) == 34, "q8_0 is 34 bytes in every GGUF file");

struct block_q4_0 {
    uint16_t d;                   /* f16 scale, of either sign */
    uint8_t q[Q4_0_ELEMENTS / 2]; /* byte j: low nibble element j, high nibble element j + 16 */
} __attribute__((packed));
_Static_assert(sizeof(struct block_q4_0) == 18, "q4_0 is 18 bytes in every GGUF file");

#endif
