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

/* A step is 4 elements of each row: a vector of codes of 8 bits; of 4 bits, a vector is two steps. */
enum { STEPS = BLOCK_32 / 4, STEP_BYTES = 4 * LANES };
/* Of a whole tile: layout_columns() of x86's layouts. */
enum { STRIP_COLUMNS = 16 };

#define INLINE         static inline __attribute__((always_inline))
#define UNROLLED       _Pragma("GCC unroll 16")
#define ROLLED         _Pragma("GCC unroll 1") /* a long body: unrolled, it takes gcc half a minute a file */
#define EACH_COLUMN(c) UNROLLED for (size_t c = 0; c < width; c++)

/* Bytes of the fields of a block, a plane each (docs/formats/packed.md). */
struct planes {
    size_t n, bytes[5];
};
#define FIELD_BYTES(type, field) sizeof(((struct block_##type *)0)->field)

/* The plane of field @f: block b of all rows lies b * LANES * bytes[f] behind it. */
INLINE const uint8_t *plane_of(const struct matmul_strip *s, const struct planes *p, size_t f)
{
    const uint8_t *plane = s->w;
    UNROLLED
    for (size_t i = 0; i < f; i++)
        plane += s->n_blocks * LANES * p->bytes[i];
    return plane;
}

/*
 * With one column, weights stream by as fast as memory gives them, where a processor's own prefetcher is late: a group
 * has several planes, each soon at its end, and the arithmetic between two lines fills the window in which loads are
 * begun early. So a cold strip asks for the next group's blocks while it computes (they may lie beyond the matrix: a
 * prefetch never faults): at step @part of @n_parts in block @b as much of field @f. Into the second-level cache, where
 * more lines can be on their way, and from four places of the plane in turn, since memory and the prefetcher follow
 * several pages faster than one.
 * One column of 4096, share of a plain read, medians on a loaded machine: q8_0 q4_0 q4_k q6_k 98 73 78 84 % without;
 * 8 KiB ahead in order 106 100 103 97 %; this 121 113 115 110 % (two places 118 112 112 113, eight 120 107 112 105 %).
 */
enum { PLACES = 4, LINE = 64, SECOND_LEVEL = 2 /* __builtin_prefetch's number for it */ };

INLINE void read_ahead(const struct matmul_strip *s, const struct planes *p, size_t b, size_t f, size_t part,
                       size_t n_parts)
{
    if (!s->cold)
        return;
    const size_t block_bytes = LANES * p->bytes[f], part_bytes = block_bytes / n_parts;
    const size_t n_places = part_bytes < PLACES * LINE ? 1 : PLACES, run = part_bytes / n_places;
    const size_t n_steps = (s->end - s->first) * n_parts, step = (b - s->first) * n_parts + part;
    const uint8_t *next = plane_of(s, p, f) + (plane_of(s, p, p->n) - s->w) + s->first * block_bytes;
    for (size_t i = 0; i < n_places; i++)
        for (size_t at = 0; at < run; at += LINE)
            __builtin_prefetch(next + (i * n_steps + step) * run + at, 0, SECOND_LEVEL);
}

/* Fields @f and behind it, at once. */
INLINE void read_ahead_all(const struct matmul_strip *s, const struct planes *p, size_t b, size_t f)
{
    UNROLLED
    for (; f < p->n; f++)
        read_ahead(s, p, b, f, 0, 1);
}

typedef void tile_fn(const struct matmul_strip *s, size_t width);

/* A loop for each width: only where the number of columns is a constant do their sums have registers of their own. */
INLINE void by_width(const struct matmul_strip *s, tile_fn *strip)
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

/*
 * Keeps an address in a register of its own. gcc 12 would make one anew for each column of a tile (q8_0 with 16: 539
 * Gop/s against 580).
 */
#define IN_REGISTER(p) __asm__("" : "+r"(p))

INLINE void sums_load(vf *acc, const struct matmul_strip *s, size_t width)
{
    EACH_COLUMN (c)
        acc[c] = s->first ? vf_load(s->y + c * s->y_stride) : vf_set1(0);
}

INLINE void sums_store(const vf *acc, const struct matmul_strip *s, size_t width)
{
    EACH_COLUMN (c)
        vf_store(s->y + c * s->y_stride, acc[c]);
}

#endif
