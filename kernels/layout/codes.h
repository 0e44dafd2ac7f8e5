/*
 * Weights that are codes alone, as ONNX models have them: i8, i4 or u4, with scales and zero points in arrays of their
 * own (quantd/matmul.h, struct qd_matrix). Where each stands in the two orders, and how all of them are packed:
 * docs/formats/packed.md.
 *
 *              rows                                       columns
 *   codes      [n_rows][n_scales * block]                 [n_cols][n_rows]
 *   scales     [n_rows][n_scales]                         [n_scales][n_rows]
 *   zero       [n_rows][n_scales, rounded up to 2]        [n_scales][n_rows]
 *
 * Elements of 4 bits stand two in a byte, the first in the lower half. A row with one scale has codes [n_cols] long.
 * Packed, rows come in groups of R: codes as a block type's (packed.h), in blocks of 32; in order rows zero points, and
 * scales where a row has several, as [n_scales][R] for each group. The rows left behind the groups are in
 * order rows, their codes as a group has them. Nothing else moves.
 */
#ifndef QUANTD_KERNELS_CODES_H
#define QUANTD_KERNELS_CODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quantd/layout.h>

struct ops;

struct code_shape {
    enum qd_type type; /* i8, i4 or u4 */
    bool by_columns;
    size_t n_rows, n_cols;
    size_t block; /* elements along k with a scale: a multiple of 32; 0: the row */
};

/* Scales of a row. */
static inline size_t codes_n_scales(const struct code_shape *s)
{
    return s->block ? (s->n_cols + s->block - 1) / s->block : 1;
}

/* Codes of a row, the padding of its last block included. */
static inline size_t codes_row(const struct code_shape *s)
{
    return s->block && !s->by_columns ? codes_n_scales(s) * s->block : s->n_cols;
}

/* Blocks of 32 of a row as it is computed with; the last may be filled up. */
static inline size_t codes_n_blocks(const struct code_shape *s)
{
    return (codes_row(s) + 31) / 32;
}

/*
 * What is wrong with a shape that comes from outside; NULL: nothing, and the sizes below do not overflow. Static text.
 */
const char *codes_flaw(const struct code_shape *s);

/* Bytes of all codes, and of all zero points as nibbles. */
uint64_t codes_bytes(const struct code_shape *s);
uint64_t codes_zero_bytes(const struct code_shape *s);

/* Nibbles between the zero points of two rows in order rows. */
static inline size_t codes_zero_row(const struct code_shape *s)
{
    return (codes_n_scales(s) + 1) / 2 * 2;
}

/* Do scales move when the matrix is packed? And zero points? */
static inline bool codes_moves_scales(const struct code_shape *s)
{
    return !s->by_columns && codes_n_scales(s) > 1;
}
static inline bool codes_moves_zeros(const struct code_shape *s)
{
    return !s->by_columns;
}

/* Code @k of row @row, as its value is less the zero point. */
int codes_at(const struct code_shape *s, const uint8_t *codes, size_t row, size_t k);

/*
 * Packs rows [first, first + n) of @codes, at most a group, into a group at @dst; rows that are missing, and what fills
 * up the last block, are zeros. @rows: room for the rows of a group. And back: a whole group, whose rows have no
 * padding but their own.
 */
void codes_pack_group(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *dst,
                      const uint8_t *codes, size_t first, size_t n, uint8_t *rows);
/* The same of @n whole groups from row @first on, one behind the other: in order columns faster than one by one. */
void codes_pack_groups(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *dst,
                       const uint8_t *codes, size_t first, size_t n, uint8_t *rows);
void codes_unpack_group(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *codes,
                        const uint8_t *group, size_t first, uint8_t *rows);

/* Rows [first, first + n) as they are left behind groups, n_blocks * bytes of a block each; and back. */
void codes_get_rows(const struct code_shape *s, uint8_t *dst, const uint8_t *codes, size_t first, size_t n);
void codes_put_rows(const struct code_shape *s, uint8_t *codes, const uint8_t *src, size_t first, size_t n);

/*
 * Scales (@bits 32) or zero points (4) of rows [first, first + n) as a group of @n_lanes has them: a row's one after
 * the other, lanes side by side; those that are missing are zeros. And back.
 */
void codes_pack_scales(const struct code_shape *s, unsigned bits, uint8_t *dst, const uint8_t *src, size_t first,
                       size_t n, size_t n_lanes);
void codes_unpack_scales(const struct code_shape *s, unsigned bits, uint8_t *dst, const uint8_t *group, size_t first,
                         size_t n_lanes);

/* Scale and zero point @i of row @row; @n_lanes: of the groups that they are packed in, 1 where they are not. */
float codes_scale(const struct code_shape *s, const uint8_t *scales, size_t row, size_t i, size_t n_lanes);
int codes_zero(const struct code_shape *s, const uint8_t *zeros, size_t row, size_t i, size_t n_lanes);

#endif
