/*
 * Where a compute kernel finds the fields of a block in a packed group (docs/formats/packed.md): panel after panel, in
 * each a plane of every field. Sizes are constants wherever these are inlined.
 */
#ifndef QUANTD_KERNELS_PLANES_H
#define QUANTD_KERNELS_PLANES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/layout/blocks.h"

/* Bytes of a row's codes in a panel, of every layout (quantd/layouts.def). */
enum { PANEL_BYTES = 128 };

/* Bytes of the fields of a block in plane order, codes first. */
struct planes {
    size_t n, bytes[5];
};

#define FIELD_BYTES(type, field) sizeof(((struct block_##type *)0)->field)
static const struct planes planes_q8_0 = {2, {FIELD_BYTES(q8_0, q), FIELD_BYTES(q8_0, d)}};
static const struct planes planes_q4_0 = {2, {FIELD_BYTES(q4_0, q), FIELD_BYTES(q4_0, d)}};
static const struct planes planes_q2_k = {
    4, {FIELD_BYTES(q2_k, q), FIELD_BYTES(q2_k, scales), FIELD_BYTES(q2_k, d), FIELD_BYTES(q2_k, dmin)}};
static const struct planes planes_q3_k = {
    4, {FIELD_BYTES(q3_k, q), FIELD_BYTES(q3_k, high), FIELD_BYTES(q3_k, scales), FIELD_BYTES(q3_k, d)}};
static const struct planes planes_q4_k = {
    4, {FIELD_BYTES(q4_k, q), FIELD_BYTES(q4_k, scales), FIELD_BYTES(q4_k, d), FIELD_BYTES(q4_k, dmin)}};
static const struct planes planes_q5_k = {5,
                                          {FIELD_BYTES(q5_k, q), FIELD_BYTES(q5_k, high), FIELD_BYTES(q5_k, scales),
                                           FIELD_BYTES(q5_k, d), FIELD_BYTES(q5_k, dmin)}};
static const struct planes planes_q6_k = {
    4, {FIELD_BYTES(q6_k, low), FIELD_BYTES(q6_k, high), FIELD_BYTES(q6_k, scales), FIELD_BYTES(q6_k, d)}};
static const struct planes planes_i8 = {1, {FIELD_BYTES(i8, q)}};
static const struct planes planes_u4 = {1, {FIELD_BYTES(u4, q)}};
#undef FIELD_BYTES

#define PLANES_INLINE static inline __attribute__((always_inline))

/* Blocks of a panel that is not the last. */
PLANES_INLINE size_t planes_blocks(const struct planes *p)
{
    return PANEL_BYTES / p->bytes[0];
}

/* Bytes of a row's block: of its fields before @f. */
PLANES_INLINE size_t planes_before(const struct planes *p, size_t f)
{
    size_t bytes = 0;
#pragma GCC unroll 5
    for (size_t i = 0; i < f; i++)
        bytes += p->bytes[i];
    return bytes;
}

/* Of a group of @n_rows: its blocks [first, first + n). */
struct panel {
    const uint8_t *w;
    size_t first, n, n_rows;
};

/* The panel of block @b, of rows that have @n_blocks. */
PLANES_INLINE struct panel panel_of(const uint8_t *group, const struct planes *p, size_t b, size_t n_blocks,
                                    size_t n_rows)
{
    const size_t most = planes_blocks(p), first = b / most * most, left = n_blocks - first;
    return (struct panel){group + n_rows * first * planes_before(p, p->n), first, left < most ? left : most, n_rows};
}

PLANES_INLINE size_t panel_bytes(const struct panel *q, const struct planes *p)
{
    return q->n_rows * q->n * planes_before(p, p->n);
}

/* Field @f of the panel's block @b of the row: the rows' bytes, in turns. */
PLANES_INLINE const uint8_t *panel_field(const struct panel *q, const struct planes *p, size_t f, size_t b)
{
    return q->w + q->n_rows * (q->n * planes_before(p, f) + (b - q->first) * p->bytes[f]);
}

#endif
