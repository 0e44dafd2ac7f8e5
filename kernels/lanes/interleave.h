/*
 * Packing for groups of as many rows as a vector has 32-bit lanes, in turns of 4 bytes. A register of 128 bits holds 4
 * turns of a row, a vector those of every fourth row: transposing 4 x 4 turns in each register of 4 vectors puts the
 * rows side by side. Folders that include this say how rows get there and back:
 *
 *   rows_load(p, row_bytes), rows_store          16 bytes of rows 0, 4, ...
 *   rows_load_words(p, row_bytes, mask), ..store those 4-byte words of them that @mask has; others are not touched
 *   words_mask(n)                                the first n, at most 4
 *   zip_words_low, .._high, zip_pairs_low, ..    of two vectors, register by register: words, or pairs of them
 *   bytes_gather, bytes_scatter                  4 bytes of each row to 4 runs of a byte of each row, and back
 */
#ifndef QUANTD_KERNELS_LANES_INTERLEAVE_H
#define QUANTD_KERNELS_LANES_INTERLEAVE_H

#include "kernels/layout/turns.h"

enum { TURN = 4, REGISTER = 16 };

#define EACH_OF_4(i) _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++)

/* Its own inverse. */
static inline void transpose_turns(vi v[4])
{
    const vi a = zip_words_low(v[0], v[1]), b = zip_words_low(v[2], v[3]);
    const vi c = zip_words_high(v[0], v[1]), d = zip_words_high(v[2], v[3]);
    v[0] = zip_pairs_low(a, b);
    v[1] = zip_pairs_high(a, b);
    v[2] = zip_pairs_low(c, d);
    v[3] = zip_pairs_high(c, d);
}

static inline void gather_codes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, src += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER, dst += REGISTER * LANES) {
            vi v[4];
            EACH_OF_4 (r)
                v[r] = rows_load(src + r * t.row_bytes + i, t.row_bytes);
            transpose_turns(v);
            EACH_OF_4 (k)
                vi_store(dst + k * TURN * LANES, v[k]);
        }
}

static inline void scatter_codes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, dst += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER, src += REGISTER * LANES) {
            vi v[4];
            EACH_OF_4 (k)
                v[k] = vi_load(src + k * TURN * LANES);
            transpose_turns(v);
            EACH_OF_4 (r)
                rows_store(dst + r * t.row_bytes + i, t.row_bytes, v[r]);
        }
}

/* Turns of a byte, 4 of each row at a time. */
static inline void gather_bytes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, src += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER) {
            const size_t n_words = t.field_bytes - i < REGISTER ? (t.field_bytes - i) / TURN : 4;
            vi v[4];
            EACH_OF_4 (r)
                v[r] = rows_load_words(src + r * t.row_bytes + i, t.row_bytes, words_mask(n_words));
            transpose_turns(v);
            for (size_t k = 0; k < n_words; k++, dst += TURN * LANES)
                vi_store(dst, bytes_gather(v[k]));
        }
}

static inline void scatter_bytes(uint8_t *dst, const uint8_t *src, struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++, dst += t.block_bytes)
        for (size_t i = 0; i < t.field_bytes; i += REGISTER) {
            const size_t n_words = t.field_bytes - i < REGISTER ? (t.field_bytes - i) / TURN : 4;
            vi v[4] = {vi_set1(0), vi_set1(0), vi_set1(0), vi_set1(0)};
            for (size_t k = 0; k < n_words; k++, src += TURN * LANES)
                v[k] = bytes_scatter(vi_load(src));
            transpose_turns(v);
            EACH_OF_4 (r)
                rows_store_words(dst + r * t.row_bytes + i, t.row_bytes, words_mask(n_words), v[r]);
        }
}

/* Fields of the sizes that the packed types have (kernels/layout/packed.c); others are moved by definition. */
#define INTERLEAVE(layout, isa)                                                            \
    void interleave_##layout##__##isa(void *dst, const void *src, const struct turns *t)   \
    {                                                                                      \
        if (t->run == TURN && t->field_bytes % REGISTER == 0)                              \
            gather_codes(dst, src, *t);                                                    \
        else if (t->run == 1 && t->field_bytes % TURN == 0)                                \
            gather_bytes(dst, src, *t);                                                    \
        else if (t->run == 2 && t->field_bytes == 2)                                       \
            take_turns(dst, src, LANES, 2, 2, *t);                                         \
        else                                                                               \
            interleave_##layout##__scalar(dst, src, t);                                    \
    }                                                                                      \
    void deinterleave_##layout##__##isa(void *dst, const void *src, const struct turns *t) \
    {                                                                                      \
        if (t->run == TURN && t->field_bytes % REGISTER == 0)                              \
            scatter_codes(dst, src, *t);                                                   \
        else if (t->run == 1 && t->field_bytes % TURN == 0)                                \
            scatter_bytes(dst, src, *t);                                                   \
        else if (t->run == 2 && t->field_bytes == 2)                                       \
            give_back(dst, src, LANES, 2, 2, *t);                                          \
        else                                                                               \
            deinterleave_##layout##__scalar(dst, src, t);                                  \
    }

#endif
