/*
 * What strips of products have in common (kernels/kernels.h, "A strip of a product"). A lane is a row of the group.
 * Weights of a block are brought into registers once and meet every column of the tile there.
 */
#ifndef QUANTD_KERNELS_LANES_STRIP_H
#define QUANTD_KERNELS_LANES_STRIP_H

#include "kernels/variants.h"

#include "kernels/lanes/products.h"
#include "kernels/lanes/vec.h"
#include "kernels/layout/planes.h"

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

/*
 * __builtin_prefetch's numbers for caches. PASSING: into the first level alone, where what is read once makes room
 * without a way through the others.
 */
enum { LINE = 64, PASSING = 0, FIRST_LEVEL = 3, SECOND_LEVEL = 2 };

/* One column: weights stream by as fast as memory gives them, and so much of them is on its way. */
enum { AHEAD_BYTES = 5 << 10 };

/* Asks for what follows a panel so far behind it. That may lie beyond the matrix: a prefetch never faults. */
INLINE void read_ahead(const struct panel *q, const struct planes *p)
{
    ROLLED
    for (size_t i = 0; i < panel_bytes(q, p); i += LINE)
        __builtin_prefetch(q->w + AHEAD_BYTES + i, 0, PASSING);
}

/*
 * Many columns: what a later strip reads comes into the second-level cache, where more lines can be on their way; of
 * @bytes with each block, those of this one.
 */
INLINE void read_next(const struct matmul_strip *s, size_t block, size_t bytes)
{
    for (size_t at = (block * bytes + LINE - 1) / LINE * LINE; at < (block + 1) * bytes; at += LINE)
        __builtin_prefetch(s->next + at, 0, SECOND_LEVEL);
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

/* Block @b of a group with all columns of a tile, on top of @acc. */
typedef void block_fn(vf *acc, const struct matmul_strip *s, const struct panel *q, size_t b, size_t width);

/* What a sum of a group becomes behind its last block. */
typedef vf finish_fn(const struct matmul_strip *s, vf sum);
INLINE vf as_it_is(const struct matmul_strip *s, vf sum)
{
    (void)s;
    return sum;
}

/*
 * One column has few instructions a byte, and a core looks only so many of them ahead for what it could ask memory for:
 * no loop of theirs then.
 */
INLINE void blocks_of_panel(vf *acc, const struct matmul_strip *s, const struct panel *q, const struct planes *p,
                            block_fn *block, size_t next_bytes, size_t width)
{
    if (width == 1 && q->n == planes_blocks(p)) {
        UNROLLED
        for (size_t i = 0; i < planes_blocks(p); i++)
            block(acc, s, q, q->first + i, width);
        return;
    }
    ROLLED
    for (size_t b = q->first; b < q->first + q->n; b++) {
        if (width > 1)
            read_next(s, b, next_bytes);
        block(acc, s, q, b, width);
    }
}

/* A group, as many sums as there are registers for. */
INLINE void tile(const struct matmul_strip *s, const struct planes *p, block_fn *block, finish_fn *finish, size_t width)
{
    const size_t n_panels = (s->n_blocks + planes_blocks(p) - 1) / planes_blocks(p);
    const size_t next_bytes = s->next_bytes / s->n_blocks;
    vf acc[STRIP_SUMS];
    EACH_COLUMN (c)
        acc[c] = vf_set1(0);
    if (width > 1 && !writes_past(s, width))
        ask_for_sums(s, width);
    for (size_t i = 0; i < n_panels; i++) {
        const struct panel q = panel_of(s->w, p, i * planes_blocks(p), s->n_blocks, LANES);
        if (width == 1)
            read_ahead(&q, p);
        blocks_of_panel(acc, s, &q, p, block, next_bytes, width);
    }
    if (writes_past(s, width)) {
        EACH_COLUMN (c)
            vf_store_past(s->y + c * s->y_stride, finish(s, acc[c]));
        return;
    }
    EACH_COLUMN (c)
        vf_store(s->y + c * s->y_stride, finish(s, acc[c]));
}

INLINE void each_group(const struct matmul_strip *s, const struct planes *p, block_fn *block, finish_fn *finish,
                       size_t width)
{
    struct matmul_strip left = *s;
    for (; left.n_groups > 0; left.n_groups--) {
        tile(&left, p, block, finish, width);
        left.w += LANES * s->n_blocks * planes_before(p, p->n);
        code_scales_skip(&left.codes, 1);
        left.y += LANES;
    }
}

/* A loop for each width: only where the number of columns is a constant do their sums have registers of their own. */
INLINE void by_width(const struct matmul_strip *s, const struct planes *p, block_fn *block, finish_fn *finish)
{
    switch (s->width) {
    case 1:
        each_group(s, p, block, finish, 1);
        break;
    case 2:
        each_group(s, p, block, finish, 2);
        break;
    case 4:
        each_group(s, p, block, finish, 4);
        break;
    case 8:
        each_group(s, p, block, finish, 8);
        break;
    default:
        each_group(s, p, block, finish, STRIP_COLUMNS);
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
