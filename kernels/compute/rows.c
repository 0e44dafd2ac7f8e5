#include "kernels/compute/rows.h"

#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/layout/packed.h"

enum {
    /* Packed on the way at a time: groups that stay in a second-level cache beside the activations. */
    BAND_BYTES = 256 << 10,
    /*
     * Columns at a time: their codes stay in a second-level cache beside a group or two (128 KiB to 1 MiB are alike),
     * and there are enough for the weights, which come from further away for each window, not to hold them up.
     */
    WINDOW_BYTES = 512 << 10,
    WINDOW_TILES = 4,
    DECODE_ELEMENTS = 4096,
};

static size_t aligned(size_t n_bytes)
{
    return (n_bytes + COMPUTE_ALIGNMENT - 1) / COMPUTE_ALIGNMENT * COMPUTE_ALIGNMENT;
}

/* Groups packed at a time, at least one. */
static size_t band_groups(const struct matrix_view *v)
{
    const size_t n = BAND_BYTES / view_group_bytes(v), n_groups = v->n_rows / v->group_rows;
    return n < 1 ? 1 : n < n_groups || n_groups == 0 ? n : n_groups;
}

static bool has_tail(const struct matrix_view *v)
{
    return v->n_rows % v->group_rows != 0;
}

/* Of the rows that are left: themselves, packed, and their products. */
static size_t tail_bytes(const struct matrix_view *v)
{
    return aligned(view_group_bytes(v)) + aligned(v->group_rows * v->columns * sizeof(float));
}

size_t rows_scratch_bytes(const struct matrix_view *v)
{
    if (!v->activation.block)
        return v->type == QD_TYPE_F32 ? 0 : aligned(v->n_cols * sizeof(float));
    size_t band = v->packed ? has_tail(v) * view_group_bytes(v) : band_groups(v) * view_group_bytes(v);
    return aligned(band) + has_tail(v) * tail_bytes(v);
}

/* --- integers --- */

/* @s, with the tile at column @first, whose width is returned; s.y: that column's sums. */
static size_t tile_compute(const struct matrix_view *v, const struct qd_activations *a, struct matmul_strip s,
                           size_t first)
{
    s.n_blocks = v->n_blocks;
    s.x = activations_tile(a, first, &s.width);
    v->ops->matmul[v->type][v->layout](&s);
    return s.width;
}

/*
 * One group with columns [first, end); y: its first row of column 0. Each tile brings its share of the next group
 * nearer: all of it during the first tile is more than memory gives meanwhile (q8_0, 4096 columns: 3 % slower).
 */
static void group_compute(const struct matrix_view *v, const struct qd_activations *a, const uint8_t *group,
                          size_t first, size_t end, float *y)
{
    const size_t n_tiles = (end - first + a->columns - 1) / a->columns;
    struct matmul_strip s = {.w = group,
                             .n_groups = 1,
                             .y_stride = v->n_rows,
                             .next = group + view_group_bytes(v),
                             .next_bytes = v->packed ? view_group_bytes(v) / n_tiles : 0};
    for (size_t c = first; c < end; s.next += s.next_bytes) {
        s.y = y + c * v->n_rows;
        c += tile_compute(v, a, s, c);
    }
}

/* Columns that are met by all groups before the next ones are. */
static size_t window_columns(const struct matrix_view *v, const struct qd_activations *a)
{
    const size_t fit = WINDOW_BYTES / v->n_cols, least = (size_t)WINDOW_TILES * a->columns;
    return fit < least ? least : fit / a->columns * a->columns;
}

/*
 * @n_groups groups in packed form. A group meets tile after tile over the whole of k, and its sums are written once: in
 * pieces along k they would be read and written again, each column's in a page of its own (4096 x 4096 with 512
 * columns: 8 % slower in pieces of 1024).
 */
static void groups_compute(const struct matrix_view *v, const struct qd_activations *a, const uint8_t *groups,
                           size_t n_groups, float *y)
{
    const size_t window = window_columns(v, a);
    if (a->n == 1) { /* weights are met once: in the order in which the kernel likes to read them */
        const struct matmul_strip s = {.w = groups, .n_groups = n_groups, .y = y, .y_stride = v->n_rows};
        (void)tile_compute(v, a, s, 0); /* the width is 1 */
        return;
    }
    for (size_t c = 0; c < a->n; c += window)
        for (size_t g = 0; g < n_groups; g++)
            group_compute(v, a, groups + g * view_group_bytes(v), c, c + window < a->n ? c + window : a->n,
                          y + g * v->group_rows);
}

/* Whole groups of portable rows: packed into @band, then as the others. */
static void bands_compute(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end,
                          float *y, uint8_t *band)
{
    const size_t band_rows = band_groups(v) * v->group_rows;
    for (size_t r = first; r < end; r += band_rows) {
        const size_t n_groups = ((end - r < band_rows ? end - r : band_rows)) / v->group_rows;
        for (size_t g = 0; g < n_groups; g++)
            layout_pack_group(v->ops, v->layout, v->type, band + g * view_group_bytes(v),
                              v->data + (r + g * v->group_rows) * v->row_bytes, v->n_blocks);
        groups_compute(v, a, band, n_groups, y + r);
    }
}

/* The rows behind the last group, as a group of which the other rows are zeros. */
static void tail_compute(const struct matrix_view *v, const struct qd_activations *a, float *y, uint8_t *group,
                         uint8_t *scratch)
{
    const size_t n = v->n_rows % v->group_rows, first = v->n_rows - n;
    float *products = (float *)(void *)(scratch + aligned(view_group_bytes(v)));
    memcpy(scratch, v->data + first * v->row_bytes, n * v->row_bytes);
    memset(scratch + n * v->row_bytes, 0, view_group_bytes(v) - n * v->row_bytes);
    layout_pack_group(v->ops, v->layout, v->type, group, scratch, v->n_blocks);
    const struct matmul_strip s = {.w = group, .n_groups = 1, .y = products, .y_stride = v->group_rows};
    for (size_t c = 0, width; c < a->n; c += width) {
        width = tile_compute(v, a, s, c);
        for (size_t i = 0; i < width; i++)
            memcpy(y + (c + i) * v->n_rows + first, products + i * v->group_rows, n * sizeof(float));
    }
}

static void integer_rows(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end,
                         float *y, uint8_t *scratch)
{
    const size_t whole = v->n_rows / v->group_rows * v->group_rows, last = end < whole ? end : whole;
    if (v->packed && first < last)
        groups_compute(v, a, v->data + first * v->row_bytes, (last - first) / v->group_rows, y + first);
    else
        bands_compute(v, a, first, last, y, scratch);
    if (end > whole)
        tail_compute(v, a, y, scratch, scratch + rows_scratch_bytes(v) - tail_bytes(v));
}

/* --- floats --- */

static void float_rows(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end, float *y,
                       uint8_t *scratch)
{
    for (size_t r = first; r < end; r++) {
        const void *w = v->data + r * v->row_bytes;
        if (v->type != QD_TYPE_F32) {
            v->ops->dequantize[v->type]((float *)(void *)scratch, w, v->n_cols);
            w = scratch;
        }
        for (size_t c = 0; c < a->n; c++)
            y[c * v->n_rows + r] = v->ops->dot(w, a->x + c * v->n_cols, v->n_cols);
    }
}

void rows_compute(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end, float *y,
                  uint8_t *scratch)
{
    (v->activation.block ? integer_rows : float_rows)(v, a, first, end, y, scratch);
}

/* --- single rows --- */

/* Blocks of a packed row, some at a time, in their portable form. */
static void packed_row_decode(const struct matrix_view *v, const uint8_t *group, size_t row, float *dst)
{
    uint8_t blocks[DECODE_ELEMENTS / BLOCK_32 * sizeof(struct block_q8_0)]; /* the most bytes an element has */
    const size_t block = qd_type_info(v->type)->block_elements, step = DECODE_ELEMENTS / block;
    for (size_t b = 0; b < v->n_blocks; b += step) {
        const size_t end = b + step < v->n_blocks ? b + step : v->n_blocks;
        layout_unpack_row(v->layout, v->type, blocks, group, row, v->n_blocks, b, end);
        v->ops->dequantize[v->type](dst + b * block, blocks, (end - b) * block);
    }
}

void rows_decode(const struct matrix_view *v, size_t row, float *dst)
{
    const size_t in_group = row % v->group_rows, group = row - in_group;
    if (v->packed && group + v->group_rows <= v->n_rows)
        packed_row_decode(v, v->data + group * v->row_bytes, in_group, dst);
    else
        v->ops->dequantize[v->type](dst, v->data + row * v->row_bytes, v->n_cols);
}
