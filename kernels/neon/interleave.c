/*
 * Packing for groups of four rows. A plane is a row of square transpositions: 4 x 4 turns of 4 bytes or of 1, 4 x 2 of
 * 8, 4 x 1 of 2. What is written as rows on one side is read as rows on the other.
 */
#include "kernels/variants.h"

#include <arm_neon.h>
#include <string.h>

#include "kernels/layout/turns.h"

enum { ROWS = 4, REGISTER = 16 };

/* 4 turns of 4 bytes of each row: its own inverse. */
static inline void transpose_words(uint8x16_t v[ROWS])
{
    const uint32x4_t a = vreinterpretq_u32_u8(v[0]), b = vreinterpretq_u32_u8(v[1]);
    const uint32x4_t c = vreinterpretq_u32_u8(v[2]), d = vreinterpretq_u32_u8(v[3]);
    const uint64x2_t ab0 = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab1 = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    const uint64x2_t cd0 = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd1 = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    v[0] = vreinterpretq_u8_u64(vzip1q_u64(ab0, cd0));
    v[1] = vreinterpretq_u8_u64(vzip1q_u64(ab1, cd1));
    v[2] = vreinterpretq_u8_u64(vzip2q_u64(ab0, cd0));
    v[3] = vreinterpretq_u8_u64(vzip2q_u64(ab1, cd1));
}

/* 2 turns of 8 bytes of each row: rows 0 1, 2 3 of the first, then of the second. */
static inline void interleave_pairs(uint8x16_t v[ROWS])
{
    const uint64x2_t a = vreinterpretq_u64_u8(v[0]), b = vreinterpretq_u64_u8(v[1]);
    const uint64x2_t c = vreinterpretq_u64_u8(v[2]), d = vreinterpretq_u64_u8(v[3]);
    v[0] = vreinterpretq_u8_u64(vzip1q_u64(a, b));
    v[1] = vreinterpretq_u8_u64(vzip1q_u64(c, d));
    v[2] = vreinterpretq_u8_u64(vzip2q_u64(a, b));
    v[3] = vreinterpretq_u8_u64(vzip2q_u64(c, d));
}

static inline void deinterleave_pairs(uint8x16_t v[ROWS])
{
    const uint64x2_t a = vreinterpretq_u64_u8(v[0]), b = vreinterpretq_u64_u8(v[1]);
    const uint64x2_t c = vreinterpretq_u64_u8(v[2]), d = vreinterpretq_u64_u8(v[3]);
    v[0] = vreinterpretq_u8_u64(vzip1q_u64(a, c));
    v[1] = vreinterpretq_u8_u64(vzip2q_u64(a, c));
    v[2] = vreinterpretq_u8_u64(vzip1q_u64(b, d));
    v[3] = vreinterpretq_u8_u64(vzip2q_u64(b, d));
}

typedef void move_fn(uint8x16_t v[ROWS]);

static inline __attribute__((always_inline)) void gather_codes(uint8_t *dst, const uint8_t *src, struct turns t,
                                                               move_fn *move)
{
    for (size_t b = 0; b < t.n_blocks; b++, src += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER, dst += ROWS * REGISTER) {
            uint8x16_t v[ROWS];
            for (size_t r = 0; r < ROWS; r++)
                v[r] = vld1q_u8(src + r * t.row_bytes + i);
            move(v);
            for (size_t r = 0; r < ROWS; r++)
                vst1q_u8(dst + r * REGISTER, v[r]);
        }
}

static inline __attribute__((always_inline)) void scatter_codes(uint8_t *dst, const uint8_t *src, struct turns t,
                                                                move_fn *move)
{
    for (size_t b = 0; b < t.n_blocks; b++, dst += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER, src += ROWS * REGISTER) {
            uint8x16_t v[ROWS];
            for (size_t r = 0; r < ROWS; r++)
                v[r] = vld1q_u8(src + r * REGISTER);
            move(v);
            for (size_t r = 0; r < ROWS; r++)
                vst1q_u8(dst + r * t.row_bytes + i, v[r]);
        }
}

/* 4 x 4 bytes: its own inverse. */
static inline uint8x16_t transpose_bytes(uint8x16_t v)
{
    const uint8x16_t order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    return vqtbl1q_u8(v, order);
}

/* 4 turns of a byte of each row. */
static inline void gather_bytes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, src += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += 4, dst += REGISTER) {
            uint32_t four[ROWS];
            for (size_t r = 0; r < ROWS; r++)
                memcpy(&four[r], src + r * t.row_bytes + i, sizeof four[r]);
            vst1q_u8(dst, transpose_bytes(vreinterpretq_u8_u32(vld1q_u32(four))));
        }
}

static inline void scatter_bytes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, dst += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += 4, src += REGISTER) {
            uint32_t four[ROWS];
            vst1q_u32(four, vreinterpretq_u32_u8(transpose_bytes(vld1q_u8(src))));
            for (size_t r = 0; r < ROWS; r++)
                memcpy(dst + r * t.row_bytes + i, &four[r], sizeof four[r]);
        }
}

/* Fields of the sizes that the packed types have (kernels/layout/packed.c); others are moved by definition. */
#define LAYOUT(name, turn, gather_move, scatter_move)                                   \
    void interleave_##name##__neon(void *dst, const void *src, const struct turns *t)   \
    {                                                                                   \
        if (t->run == (turn) && t->field_bytes % REGISTER == 0)                         \
            gather_codes(dst, src, *t, gather_move);                                    \
        else if (t->run == 1 && t->field_bytes % 4 == 0)                                \
            gather_bytes(dst, src, *t);                                                 \
        else if (t->run == 2 && t->field_bytes == 2)                                    \
            take_turns(dst, src, ROWS, 2, 2, *t);                                       \
        else                                                                            \
            interleave_##name##__scalar(dst, src, t);                                   \
    }                                                                                   \
    void deinterleave_##name##__neon(void *dst, const void *src, const struct turns *t) \
    {                                                                                   \
        if (t->run == (turn) && t->field_bytes % REGISTER == 0)                         \
            scatter_codes(dst, src, *t, scatter_move);                                  \
        else if (t->run == 1 && t->field_bytes % 4 == 0)                                \
            scatter_bytes(dst, src, *t);                                                \
        else if (t->run == 2 && t->field_bytes == 2)                                    \
            give_back(dst, src, ROWS, 2, 2, *t);                                        \
        else                                                                            \
            deinterleave_##name##__scalar(dst, src, t);                                 \
    }
LAYOUT(r4k4p128, 4, transpose_words, transpose_words)
LAYOUT(r4k8p128, 8, interleave_pairs, deinterleave_pairs)
