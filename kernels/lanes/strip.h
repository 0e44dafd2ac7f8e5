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
enum { STRIP_COLUMNS = 16, STRIP_SUMS = STRIP_COLUMNS };

#define INLINE         static inline __attribute__((always_inline))
#define UNROLLED       _Pragma("GCC unroll 16")
#define ROLLED         _Pragma("GCC unroll 1") /* a long body: unrolled, it takes gcc half a minute a file */
#define EACH_COLUMN(c) UNROLLED for (size_t c = 0; c < width; c++)
/* @n columns at a time, from @c: as many as it takes for one sum not to wait for the next. */
#define EACH_COLUMNS(c, n) \
    UNROLLED for (size_t n = width < COLUMNS_AT_ONCE ? width : COLUMNS_AT_ONCE, c = 0; c < width; c += n)
#define EACH_GROUP(g) ROLLED for (size_t g = 0; g < n_groups; g++)

/* Bytes of the fields of a block, a plane each (docs/formats/packed.md); the first are the codes. */
struct planes {
    size_t groups; /* with one column: that take turns */
    size_t n, bytes[5];
};
#define FIELD_BYTES(type, field) sizeof(((struct block_##type *)0)->field)

/* Bytes of a block of all fields from @f on. */
INLINE size_t bytes_behind(const struct planes *p, size_t f)
{
    size_t bytes = 0;
    UNROLLED
    for (; f < p->n; f++)
        bytes += p->bytes[f];
    return bytes;
}

INLINE size_t group_bytes(const struct matmul_strip *s, const struct planes *p)
{
    return s->n_blocks * LANES * bytes_behind(p, 0);
}

/* The plane of field @f in group @g: block b of all rows lies b * LANES * bytes[f] behind it. */
INLINE const uint8_t *plane_of(const struct matmul_strip *s, const struct planes *p, size_t g, size_t f)
{
    return s->w + (g + 1) * group_bytes(s, p) - s->n_blocks * LANES * bytes_behind(p, f);
}

enum { LINE = 64, FIRST_LEVEL = 3, SECOND_LEVEL = 2 /* __builtin_prefetch's numbers for caches */ };

/*
 * One column: weights stream by as fast as memory gives them. A block each of one to four groups in turn (by_width) are
 * as many streams; of all of them together AHEAD_BYTES of codes are on their way, and at the end of a group the first
 * ones of those that follow. GB/s of the 42 to 47 that a plain read has, on Zen 5, one thread, 4096 elements a row:
 *               AVX-512 VNNI                     AVX2
 *   8 KiB of    i8   q8_0   q4_0   q4_k          of 2 groups   q8_0   q4_0
 *   1 group     42    33     36     33           2 KiB          25     23
 *   2 groups    42    37     39     32           4 KiB          30     30
 *   4 groups    32    31     29     33           8 KiB          34     36
 * With two threads q4_k is better off with one group: 43 beside 38 with four. 6 KiB are better than 8 for q4_0 and
 * q4_k, and than 5 for q4_k.
 */
enum { AHEAD_BYTES = 6 << 10 };

INLINE size_t blocks_ahead(const struct planes *p)
{
    const size_t n = AHEAD_BYTES / (p->groups * LANES * p->bytes[0]);
    return n ? n : 1;
}

INLINE void read_ahead_of_block(const struct matmul_strip *s, const struct planes *p, size_t g, size_t f, size_t step,
                                size_t n_parts)
{
    const size_t part_bytes = LANES * p->bytes[f] / n_parts;
    const size_t n_steps = s->n_blocks * n_parts, ahead = step + blocks_ahead(p) * n_parts;
    const uint8_t *next = ahead < n_steps ? plane_of(s, p, g, f) + ahead * part_bytes
                                          : plane_of(s, p, g + p->groups, f) + (ahead - n_steps) * part_bytes;
    for (size_t at = 0; at < part_bytes; at += LINE)
        __builtin_prefetch(next + at, 0, FIRST_LEVEL);
}

/*
 * Many columns: what a later strip reads comes into the second-level cache, where more lines can be on their way, a
 * little with each step.
 */
INLINE void read_next(const struct matmul_strip *s, size_t step, size_t n_parts)
{
    const size_t step_bytes = s->next_bytes / (s->n_blocks * n_parts);
    for (size_t at = (step * step_bytes + LINE - 1) / LINE * LINE; at < (step + 1) * step_bytes; at += LINE)
        __builtin_prefetch(s->next + at, 0, SECOND_LEVEL);
}

/*
 * Asks for weights that are wanted later, while it computes step @part of @n_parts of block @b: as much of field @f.
 * They may lie beyond the matrix: a prefetch never faults.
 */
INLINE void read_ahead(const struct matmul_strip *s, const struct planes *p, size_t g, size_t b, size_t f, size_t part,
                       size_t n_parts, size_t width)
{
    if (width == 1)
        read_ahead_of_block(s, p, g, f, b * n_parts + part, n_parts);
    else if (f == 0) /* the codes: once a step */
        read_next(s, b * n_parts + part, n_parts);
}

/* Fields @f and behind it, at once. */
INLINE void read_ahead_all(const struct matmul_strip *s, const struct planes *p, size_t g, size_t b, size_t f,
                           size_t width)
{
    UNROLLED
    for (; f < p->n; f++)
        read_ahead(s, p, g, b, f, 0, 1, width);
}

/* The columns' sums lie in pages of their own, and are written at the end: their lines are wanted by then. */
INLINE void ask_for_sums(const struct matmul_strip *s, size_t width)
{
    EACH_COLUMN (c)
        __builtin_prefetch(s->y + c * s->y_stride, 1, FIRST_LEVEL);
}

/*
 * Whole lines of a large y go past the caches: none is read to be overwritten, and columns that stand a power of two
 * apart do not push each other, and what is read, out of the few places that are theirs (4096 x 4096, 512 columns: q8_0
 * 707 Gop/s, 738 so; q4_k 683, 704).
 */
INLINE bool writes_past(const struct matmul_strip *s, size_t width)
{
    return width > 1 && LANES * sizeof(float) == LINE && s->y_is_large &&
           ((uintptr_t)s->y | s->y_stride * sizeof(float)) % LINE == 0;
}

/* Block @b of group @g with all columns of a tile, on top of @acc. */
typedef void block_fn(vf *acc, const struct matmul_strip *s, size_t g, size_t b, size_t width);

/* What a sum of group @g becomes behind its last block. */
typedef vf finish_fn(const struct matmul_strip *s, size_t g, vf sum);
INLINE vf as_it_is(const struct matmul_strip *s, size_t g, vf sum)
{
    (void)s, (void)g;
    return sum;
}

/* @n_groups groups, as many sums as there are registers for: a block of each in turn. */
INLINE void tile(const struct matmul_strip *s, block_fn *block, finish_fn *finish, size_t n_groups, size_t width)
{
    vf acc[STRIP_SUMS];
    UNROLLED
    for (size_t i = 0; i < n_groups * width; i++)
        acc[i] = vf_set1(0);
    if (width > 1 && !writes_past(s, width))
        ask_for_sums(s, width);
    for (size_t b = 0; b < s->n_blocks; b++)
        EACH_GROUP (g)
            block(acc + g * width, s, g, b, width);
    if (writes_past(s, width)) {
        EACH_COLUMN (c)
            vf_store_past(s->y + c * s->y_stride, finish(s, 0, acc[c])); /* a group at a time */
        return;
    }
    EACH_GROUP (g)
        EACH_COLUMN (c)
            vf_store(s->y + c * s->y_stride + g * LANES, finish(s, g, acc[g * width + c]));
}

INLINE void next_groups(struct matmul_strip *s, const struct planes *p, size_t n)
{
    s->w += n * group_bytes(s, p);
    code_scales_skip(&s->codes, n);
    s->y += n * LANES;
    s->n_groups -= n;
}

/* All groups of a strip, @at_once of them as long as there are so many, then one by one. */
INLINE void by_groups(const struct matmul_strip *s, const struct planes *p, block_fn *block, finish_fn *finish,
                      size_t at_once, size_t width)
{
    struct matmul_strip left = *s;
    for (; left.n_groups >= at_once; next_groups(&left, p, at_once))
        tile(&left, block, finish, at_once, width);
    for (; at_once > 1 && left.n_groups > 0; next_groups(&left, p, 1))
        tile(&left, block, finish, 1, width);
}

/* A loop for each width: only where the number of columns is a constant do their sums have registers of their own. */
INLINE void by_width(const struct matmul_strip *s, const struct planes *p, block_fn *block, finish_fn *finish)
{
    switch (s->width) {
    case 1:
        by_groups(s, p, block, finish, p->groups, 1);
        break;
    case 2:
        by_groups(s, p, block, finish, 1, 2);
        break;
    case 4:
        by_groups(s, p, block, finish, 1, 4);
        break;
    case 8:
        by_groups(s, p, block, finish, 1, 8);
        break;
    default:
        by_groups(s, p, block, finish, 1, STRIP_COLUMNS);
    }
}

/*
 * Keeps an address in a register of its own. gcc 12 would make one anew for each column of a tile (q8_0 with 16: 539
 * Gop/s against 580).
 */
#define IN_REGISTER(p) __asm__("" : "+r"(p))

/* The function of packed.def, of planes_<type> and block_<type>. */
#define STRIP(type)                                          \
    void STRIP_OF(type)(const struct matmul_strip *s)        \
    {                                                        \
        by_width(s, &planes_##type, block_##type, as_it_is); \
    }

#endif
