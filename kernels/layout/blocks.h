/*
 * The stored form of the block types, field by field as docs/formats/blocks.md has them.
 * Little-endian; packed, so that a pointer of any alignment will do.
 */
#ifndef QUANTD_KERNELS_BLOCKS_H
#define QUANTD_KERNELS_BLOCKS_H

#include <stdint.h>

enum { BLOCK_32 = 32, BLOCK_64 = 64, BLOCK_128 = 128, BLOCK_256 = 256 }; /* elements */

/* BLOCK_STRUCT(type, bytes of a block, fields) */
#define BLOCK_STRUCT(type, n_bytes, ...) \
    struct block_##type {                \
        __VA_ARGS__                      \
    } __attribute__((packed));           \
    _Static_assert(sizeof(struct block_##type) == (n_bytes), #type " has this size in every GGUF file")

/* clang-format off: a table */

/* --- 32 elements; byte j of q: low nibble element j, high nibble element j + 16 --- */
BLOCK_STRUCT(q8_0, 34, uint16_t d; /* f16 scale */
             int8_t q[32];         /* element = q * d */
);
BLOCK_STRUCT(q4_0, 18, uint16_t d; /* f16 scale, of either sign */
             uint8_t q[16];        /* element = (q - 8) * d */
);
BLOCK_STRUCT(q4_1, 20, uint16_t d, m; /* f16 scale, f16 minimum */
             uint8_t q[16];           /* element = q * d + m */
);
BLOCK_STRUCT(q5_0, 22, uint16_t d; /* f16 scale, of either sign */
             uint8_t high[4];      /* bit j of the 32-bit word: bit 4 of element j's code */
             uint8_t q[16];        /* element = (code - 16) * d */
);
BLOCK_STRUCT(q5_1, 24, uint16_t d, m; uint8_t high[4]; uint8_t q[16]; /* element = code * d + m */
);
BLOCK_STRUCT(iq4_nl, 18, uint16_t d; uint8_t q[16]; /* element = table[q] * d */
);
BLOCK_STRUCT(mxfp4, 17, uint8_t e; /* E8M0: 2^(e - 127) */
             uint8_t q[16];        /* E2M1 codes */
);

/* --- 32 codes whose scale stands apart (kernels/kernels.h, struct code_scales): what is packed, in no file --- */
BLOCK_STRUCT(i8, 32, int8_t q[32];);
BLOCK_STRUCT(u4, 16, uint8_t q[16];); /* also of i4; nibbles as in q4_0 */

/* --- 256 elements: sub-blocks of 16 or 32 with scales of their own --- */
BLOCK_STRUCT(q2_k, 84, uint8_t scales[16]; /* of 16 elements: low nibble scale, high nibble minimum */
             uint8_t q[64];                /* 2 bits: byte 32 h + l has elements 128 h + l + {0, 32, 64, 96} */
             uint16_t d, dmin;             /* element = d * scale * q - dmin * minimum */
);
BLOCK_STRUCT(q3_k, 110, uint8_t high[32]; /* bit k of byte l: bit 2 of element 32 k + l */
             uint8_t q[64];               /* low 2 bits, as in q2_k */
             uint8_t scales[12];          /* 16 of 6 bits, less 32 */
             uint16_t d;                  /* element = d * scale * (code - 4) */
);
BLOCK_STRUCT(q4_k, 144, uint16_t d, dmin; uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
             uint8_t q[128]; /* byte 32 p + l: low nibble element 64 p + l, high nibble 64 p + 32 + l */
);
BLOCK_STRUCT(q5_k, 176, uint16_t d, dmin; uint8_t scales[12];
             uint8_t high[32]; /* bit k of byte l: bit 4 of element 32 k + l */
             uint8_t q[128];   /* low nibbles, as in q4_k */
);
BLOCK_STRUCT(q6_k, 210, uint8_t low[128];   /* byte 64 h + l: low nibbles of 128 h + l and 128 h + 64 + l */
             uint8_t high[64];              /* byte 32 h + l: upper 2 bits of 128 h + l + {0, 32, 64, 96} */
             int8_t scales[16]; uint16_t d; /* element = d * scale * (code - 32) */
);
BLOCK_STRUCT(iq4_xs, 136, uint16_t d, scales_high;  /* upper 2 bits of 8 scales of 6 bits, less 32 */
             uint8_t scales_low[4]; uint8_t q[128]; /* 8 times as in iq4_nl */
);
BLOCK_STRUCT(tq1_0, 54, uint8_t q[48]; /* 5 trits a byte */
             uint8_t high[4];          /* 4 trits a byte */
             uint16_t d;);
BLOCK_STRUCT(tq2_0, 66, uint8_t q[64]; /* 2 bits, as in q2_k; element = (q - 1) * d */
             uint16_t d;);

/* --- read only --- */
BLOCK_STRUCT(q1_0, 18, uint16_t d; /* 128 elements, each d or -d */
             uint8_t q[16];);
BLOCK_STRUCT(q2_0, 18, uint16_t d; /* 64 elements = (q - 1) * d */
             uint8_t q[16];);
BLOCK_STRUCT(nvfp4, 36, uint8_t d[4]; /* UE4M3, one for 16 elements */
             uint8_t q[32];           /* E2M1, j and j + 8 of its 16 in a byte */
);
BLOCK_STRUCT(iq2_xxs, 66, uint16_t d;
             uint8_t q[64]; /* for 32 elements: 4 grid indices, then 4 x 7 sign bits and a 4-bit scale */
);
BLOCK_STRUCT(iq2_xs, 74, uint16_t d; uint16_t q[32]; /* for 8 elements: 9 bits grid index, 7 bits signs */
             uint8_t scales[8];);
BLOCK_STRUCT(iq2_s, 82, uint16_t d; uint8_t q[32], signs[32]; uint8_t high[8]; /* upper 2 bits of grid indices */
             uint8_t scales[8];);
BLOCK_STRUCT(iq3_xxs, 98, uint16_t d; uint8_t q[64]; /* grid indices of 4 elements */
             uint8_t signs[32];                      /* for 32 elements: 4 x 7 sign bits and a 4-bit scale */
);
BLOCK_STRUCT(iq3_s, 110, uint16_t d; uint8_t q[64]; uint8_t high[8]; uint8_t signs[32]; uint8_t scales[4];);
BLOCK_STRUCT(iq1_s, 50, uint16_t d; uint8_t q[32];
             uint16_t high[8]; /* 4 x 3 bits of grid index, 3-bit scale, sign of the shift */
);
BLOCK_STRUCT(iq1_m, 56, uint8_t q[32]; uint8_t high[16];
             uint16_t scales[4]; /* 4 x 3 scales of 3 bits; the four upper nibbles are the f16 scale */
);
/* clang-format on */

#endif
