#include "kernels/compute/rows.h"

#include <stdatomic.h>
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
    Y_FLOATS_LARGE = 1 << 20, /* 4 MiB: more than most second-level caches have */
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

static bool has_zeros(const struct matrix_view *v)
{
    return v->is_codes && v->zeros;
}

/* Of codes alone: do scales, or zero points, of whole groups stand where a kernel can read them? */
static bool reads_scales(const struct matrix_view *v)
{
    return v->packed || !codes_moves_scales(&v->codes);
}

static bool reads_zeros(const struct matrix_view *v)
{
    return v->packed || !codes_moves_zeros(&v->codes);
}

/* Bytes of a group of scales, and of zero points. */
static size_t group_scales(const struct matrix_view *v)
{
    return codes_n_scales(&v->codes) * v->group_rows * sizeof(float);
}

static size_t group_zeros(const struct matrix_view *v)
{
    return (v->codes.by_columns ? codes_n_scales(&v->codes) : codes_zero_row(&v->codes)) * v->group_rows / 2;
}

/* Scratch of one thread: groups that are packed on the way, one after the other. */
struct room {
    uint8_t *band;           /* whole groups, or the one of the rows that are left */
    uint8_t *rows;           /* of a group, before they are packed */
    uint8_t *scales, *zeros; /* of the groups in @band */
    float *products;         /* of the rows that are left */
    size_t bytes;
};

static void *take(struct room *room, uint8_t *scratch, size_t n_bytes)
{
    void *place = scratch ? scratch + room->bytes : NULL;
    room->bytes += aligned(n_bytes);
    return place;
}

/* @scratch: NULL where only its size is asked for. */
static struct room room_of(const struct matrix_view *v, uint8_t *scratch)
{
    const size_t tail = has_tail(v), n_groups = v->packed ? tail : band_groups(v);
    struct room room = {.bytes = 0};
    room.band = take(&room, scratch, n_groups * view_group_bytes(v));
    room.rows = take(&room, scratch, (tail || (v->is_codes && !v->packed)) * view_group_bytes(v));
    if (v->is_codes)
        room.scales = take(&room, scratch, (reads_scales(v) ? tail : n_groups) * group_scales(v));
    if (has_zeros(v))
        room.zeros = take(&room, scratch, (reads_zeros(v) ? tail : n_groups) * group_zeros(v));
    room.products = take(&room, scratch, tail * v->group_rows * v->columns * sizeof(float));
    return room;
}

size_t rows_scratch_bytes(const struct matrix_view *v)
{
    if (!v->activation.block)
        return v->type == QD_TYPE_F32 ? 0 : aligned(v->n_cols * sizeof(float));
    return room_of(v, NULL).bytes;
}

/* --- integers --- */

static bool is_large(const struct matrix_view *v, const struct qd_activations *a)
{
    return v->n_rows > Y_FLOATS_LARGE / a->n;
}

/* @s, with the tile at column @first, whose width is returned; s.y: that column's sums. */
static size_t tile_compute(const struct matrix_view *v, const struct qd_activations *a, struct matmul_strip s,
                           size_t first)
{
    s.n_blocks = v->n_blocks;
    s.x = activations_tile(a, first, &s.width);
    s.y_is_large = s.y_stride == v->n_rows && is_large(v, a); /* not the products of the rows that are left */
    v->ops->matmul[v->kernel][v->layout](&s);
    return s.width;
}

/* Where the scales of codes alone begin for groups from row @first on; zeros for types that have them within. */
static struct code_scales scales_from(const struct matrix_view *v, size_t first)
{
    const size_t n_scales = codes_n_scales(&v->codes), zero_row = codes_zero_row(&v->codes);
    const bool columns = v->codes.by_columns;
    if (!v->is_codes)
        return (struct code_scales){.scale = NULL};
    struct code_scales k = {.scale = v->scales + (columns ? first : first * n_scales) * sizeof(float),
                            .scale_group = (columns ? 1 : n_scales) * v->group_rows * sizeof(float),
                            .scale_block = (columns ? v->n_rows : v->group_rows) * sizeof(float),
                            .shift = v->codes.block ? (unsigned)__builtin_ctzll(v->codes.block / BLOCK_32) : 0,
                            .flip = v->type == QD_TYPE_I4 ? 0x88 : 0};
    if (!v->codes.block) /* one for the row */
        k.scale_block = 0;
    if (v->zeros) {
        k.zero = v->zeros + (columns ? first : first * zero_row) / 2;
        k.zero_group = (columns ? 1 : zero_row) * v->group_rows / 2;
        k.zero_block = v->codes.block ? (columns ? v->n_rows : v->group_rows) / 2 : 0;
    }
    return k;
}

/* The same of rows [first, first + n), at most a group, that are made ready as group @g of what @room holds. */
static void make_scales(const struct matrix_view *v, struct room *room, size_t first, size_t n, size_t g)
{
    codes_pack_scales(&v->codes, 32, room->scales + g * group_scales(v), v->scales, first, n, v->group_rows);
}

static void make_zeros(const struct matrix_view *v, struct room *room, size_t first, size_t n, size_t g)
{
    codes_pack_scales(&v->codes, 4, room->zeros + g * group_zeros(v), v->zeros, first, n, v->group_rows);
}

static void use_made_scales(const struct matrix_view *v, const struct room *room, struct code_scales *k)
{
    k->scale = room->scales;
    k->scale_group = group_scales(v);
    k->scale_block = v->codes.block ? v->group_rows * sizeof(float) : 0;
}

static void use_made_zeros(const struct matrix_view *v, const struct room *room, struct code_scales *k)
{
    k->zero = room->zeros;
    k->zero_group = group_zeros(v);
    k->zero_block = v->codes.block ? v->group_rows / 2 : 0;
}

/* Groups in packed form, and what belongs to them. */
struct groups {
    const uint8_t *w;
    struct code_scales codes;
    size_t n;
};

/*
 * One group with columns [first, end); y: its first row of column 0. Each tile brings its share of the next group
 * nearer: all of it during the first tile is more than memory gives meanwhile (q8_0, 4096 columns: 3 % slower).
 */
static void group_compute(const struct matrix_view *v, const struct qd_activations *a, const struct groups *groups,
                          size_t g, size_t first, size_t end, float *y)
{
    const size_t n_tiles = (end - first + a->columns - 1) / a->columns;
    const uint8_t *group = groups->w + g * view_group_bytes(v);
    struct matmul_strip s = {.w = group,
                             .n_groups = 1,
                             .codes = groups->codes,
                             .y_stride = v->n_rows,
                             .next = group + view_group_bytes(v),
                             .next_bytes = v->packed ? view_group_bytes(v) / n_tiles : 0};
    code_scales_skip(&s.codes, g);
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
 * Groups in packed form. A group meets tile after tile over the whole of k, and its sums are written once: in
 * pieces along k they would be read and written again, each column's in a page of its own (4096 x 4096 with 512
 * columns: 8 % slower in pieces of 1024).
 */
static void groups_compute(const struct matrix_view *v, const struct qd_activations *a, const struct groups *groups,
                           float *y)
{
    const size_t window = window_columns(v, a);
    if (a->n == 1) { /* weights are met once: group after group, one stream */
        const struct matmul_strip s = {
            .w = groups->w, .n_groups = groups->n, .codes = groups->codes, .y = y, .y_stride = v->n_rows};
        (void)tile_compute(v, a, s, 0); /* the width is 1 */
        return;
    }
    for (size_t c = 0; c < a->n; c += window)
        for (size_t g = 0; g < groups->n; g++)
            group_compute(v, a, groups, g, c, c + window < a->n ? c + window : a->n, y + g * v->group_rows);
}

/* @n groups of @room from the portable rows from @first on. */
static void pack_groups(const struct matrix_view *v, struct room *room, size_t first, size_t n)
{
    if (v->is_codes)
        codes_pack_groups(v->ops, v->layout, &v->codes, room->band, v->data, first, n, room->rows);
    for (size_t g = 0; g < n; g++, first += v->group_rows) {
        if (!v->is_codes)
            layout_pack_group(v->ops, v->layout, v->type, room->band + g * view_group_bytes(v),
                              v->data + first * v->row_bytes, v->n_blocks);
        if (v->is_codes && !reads_scales(v))
            make_scales(v, room, first, v->group_rows, g);
        if (has_zeros(v) && !reads_zeros(v))
            make_zeros(v, room, first, v->group_rows, g);
    }
}

/* Whole groups of portable rows: packed into the room's band, then as the others. */
static void bands_compute(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end,
                          float *y, struct room *room)
{
    const size_t band_rows = band_groups(v) * v->group_rows;
    for (size_t r = first; r < end; r += band_rows) {
        struct groups groups = {.w = room->band,
                                .codes = scales_from(v, r),
                                .n = ((end - r < band_rows ? end - r : band_rows)) / v->group_rows};
        if (v->is_codes && !reads_scales(v))
            use_made_scales(v, room, &groups.codes);
        if (has_zeros(v) && !reads_zeros(v))
            use_made_zeros(v, room, &groups.codes);
        pack_groups(v, room, r, groups.n);
        groups_compute(v, a, &groups, y + r);
    }
}

/* The rows behind the last group, as a group of which the other rows are zeros. */
static void pack_tail(const struct matrix_view *v, struct room *room, size_t first, size_t n)
{
    if (v->is_codes && !v->packed) {
        codes_pack_group(v->ops, v->layout, &v->codes, room->band, v->data, first, n, room->rows);
        return;
    }
    memcpy(room->rows, v->data + first * v->row_bytes, n * v->row_bytes);
    memset(room->rows + n * v->row_bytes, 0, view_group_bytes(v) - n * v->row_bytes);
    layout_pack_group(v->ops, v->layout, v->type, room->band, room->rows, v->n_blocks);
}

static void tail_compute(const struct matrix_view *v, const struct qd_activations *a, float *y, struct room *room)
{
    const size_t n = v->n_rows % v->group_rows, first = v->n_rows - n;
    struct matmul_strip s = {
        .w = room->band, .n_groups = 1, .codes = scales_from(v, first), .y = room->products, .y_stride = v->group_rows};
    pack_tail(v, room, first, n);
    if (v->is_codes) {
        make_scales(v, room, first, n, 0);
        use_made_scales(v, room, &s.codes);
    }
    if (has_zeros(v)) {
        make_zeros(v, room, first, n, 0);
        use_made_zeros(v, room, &s.codes);
    }
    for (size_t c = 0, width; c < a->n; c += width) {
        width = tile_compute(v, a, s, c);
        for (size_t i = 0; i < width; i++)
            memcpy(y + (c + i) * v->n_rows + first, room->products + i * v->group_rows, n * sizeof(float));
    }
}

static void integer_rows(const struct matrix_view *v, const struct qd_activations *a, size_t first, size_t end,
                         float *y, uint8_t *scratch)
{
    const size_t whole = v->n_rows / v->group_rows * v->group_rows, last = end < whole ? end : whole;
    struct room room = room_of(v, scratch);
    const struct groups groups = {.w = v->data + first * v->row_bytes,
                                  .codes = scales_from(v, first),
                                  .n = first < last ? (last - first) / v->group_rows : 0};
    if (v->packed && groups.n)
        groups_compute(v, a, &groups, y + first);
    else if (!v->packed)
        bands_compute(v, a, first, last, y, &room);
    if (end > whole)
        tail_compute(v, a, y, &room);
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
    if (a->n && is_large(v, a))
        atomic_thread_fence(memory_order_seq_cst); /* kernels may have written past the caches, in no order */
}

/* --- single rows --- */

/* Block @b of a packed row of codes alone, its codes in order. */
static void packed_codes(const struct matrix_view *v, size_t row, size_t b, uint8_t codes[BLOCK_32])
{
    const struct code_shape block_alone = {.type = v->type, .n_rows = 1, .n_cols = BLOCK_32};
    const size_t in_group = row % v->group_rows, group = row - in_group, block_bytes = packed_block_bytes(v->type);
    uint8_t block[BLOCK_32];
    if (group + v->group_rows <= v->n_rows)
        layout_unpack_row(v->layout, v->type, block, v->data + group * v->row_bytes, in_group, v->n_blocks, b, b + 1);
    else
        memcpy(block, v->data + row * v->row_bytes + b * block_bytes, block_bytes);
    codes_put_rows(&block_alone, codes, block, 0, 1);
}

static void codes_decode(const struct matrix_view *v, size_t row, float *dst)
{
    const struct code_shape block_alone = {.type = v->type, .n_rows = 1, .n_cols = BLOCK_32};
    const size_t lanes = v->packed ? v->group_rows : 1, block = v->codes.block ? v->codes.block : v->n_cols;
    for (size_t at = 0; at < v->n_cols; at += BLOCK_32) {
        const size_t n = v->n_cols - at < BLOCK_32 ? v->n_cols - at : BLOCK_32;
        const float scale = codes_scale(&v->codes, v->scales, row, at / block, lanes);
        const int zero =
            v->zeros ? codes_zero(&v->codes, v->zeros, row, at / block, lanes) : (v->type == QD_TYPE_U4 ? 8 : 0);
        uint8_t codes[BLOCK_32];
        if (v->packed)
            packed_codes(v, row, at / BLOCK_32, codes);
        for (size_t j = 0; j < n; j++) {
            const int code =
                v->packed ? codes_at(&block_alone, codes, 0, j) : codes_at(&v->codes, v->data, row, at + j);
            dst[at + j] = scale * (float)(code - zero);
        }
    }
}

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
    if (v->is_codes)
        codes_decode(v, row, dst);
    else if (v->packed && group + v->group_rows <= v->n_rows)
        packed_row_decode(v, v->data + group * v->row_bytes, in_group, dst);
    else
        v->ops->dequantize[v->type](dst, v->data + row * v->row_bytes, v->n_cols);
}
