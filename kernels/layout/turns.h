/*
 * Packing by definition (docs/formats/packed.md): rows take turns. One loop for every variant; where the sizes are
 * constants, as those of a scale are, compilers make moves of it. Turns come as a copy: what is written, bytes, could
 * be the caller's for all that a compiler knows, and would be read anew behind each.
 */
#ifndef QUANTD_KERNELS_TURNS_H
#define QUANTD_KERNELS_TURNS_H

#include <string.h>

#include "kernels/kernels.h"

static inline void take_turns(uint8_t *dst, const uint8_t *src, size_t n_rows, size_t field_bytes, size_t run,
                              struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++)
        for (size_t i = 0; i < field_bytes; i += run)
            for (size_t r = 0; r < n_rows; r++, dst += run)
                memcpy(dst, src + r * t.row_bytes + b * t.block_bytes + i, run);
}

static inline void give_back(uint8_t *dst, const uint8_t *src, size_t n_rows, size_t field_bytes, size_t run,
                             struct turns t)
{
    for (size_t b = 0; b < t.n_blocks; b++)
        for (size_t i = 0; i < field_bytes; i += run)
            for (size_t r = 0; r < n_rows; r++, src += run)
                memcpy(dst + r * t.row_bytes + b * t.block_bytes + i, src, run);
}

#endif
