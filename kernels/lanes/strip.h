/*
 * What strips of products have in common (kernels/kernels.h, "A strip of a product"). A lane is a row of the group.
 * Weights of a block are brought into registers once and meet every column of the tile there.
 */
#ifndef QUANTD_KERNELS_LANES_STRIP_H
#define QUANTD_KERNELS_LANES_STRIP_H

#include "kernels/variants.h"

#include "kernels/lanes/products.h"
#include "kernels/lanes/vec.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/prefetch.h"

/* A step is 4 elements of each row: a vector of codes of 8 bits; of 4 bits, a vector is two steps. */
enum { STEPS = BLOCK_32 / 4, STEP_BYTES = 4 * LANES };
/* Of a whole tile: layout_columns() of x86's layouts. */
enum { STRIP_COLUMNS = 16 };

#define INLINE         static inline __attribute__((always_inline))
#define UNROLLED       _Pragma("GCC unroll 16")
#define EACH_COLUMN(c) UNROLLED for (size_t c = 0; c < width; c++)

typedef void strip_fn(const struct matmul_strip *s, size_t width);

/* A loop for each width: only where the number of columns is a constant do their sums have registers of their own. */
INLINE void by_width(const struct matmul_strip *s, strip_fn *strip)
{
    switch (s->width) {
    case 1:
        strip(s, 1);
        break;
    case 2:
        strip(s, 2);
        break;
    case 4:
        strip(s, 4);
        break;
    case 8:
        strip(s, 8);
        break;
    default:
        strip(s, STRIP_COLUMNS);
    }
}

INLINE void sums_load(vf *acc, const struct matmul_strip *s, size_t width)
{
    EACH_COLUMN(c)
    acc[c] = s->first ? vf_load(s->y + c * s->y_stride) : vf_set1(0);
}

INLINE void sums_store(const vf *acc, const struct matmul_strip *s, size_t width)
{
    EACH_COLUMN(c)
    vf_store(s->y + c * s->y_stride, acc[c]);
}

static inline vi bytes_set1(int a)
{
    return vi_set1(a * 0x01010101);
}

static inline vi low_nibbles(vi a)
{
    return vi_and(a, bytes_set1(15));
}

static inline vi high_nibbles(vi a)
{
    return vi_and(vi_shift_right(a, 4), bytes_set1(15));
}

#endif
