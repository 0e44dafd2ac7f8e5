#include "kernels/layout/codes.h"

#include <string.h>

#include "kernels/core/checked.h"
#include "kernels/layout/blocks.h"
#include "kernels/layout/packed.h"

enum {
    LANES_MAX = 16,
    RUN_MAX = 8,
    NIBBLE_RUNS = 16, /* bytes of a block of 4-bit codes, for a row */
    /*
     * Of each row of k, groups that are packed side by side: a cache line, met once. With a group at a time it comes
     * from memory for each of its groups where rows stand a power of two apart, which is where caches hold the fewest.
     */
    LINE_BYTES = 64,
    K_AT_ONCE = 8, /* rows of k at a time: no more lines than a first-level cache has for places a page apart */
    K_AHEAD = 64
};

static bool is_bytes(const struct code_shape *s)
{
    return s->type == QD_TYPE_I8;
}

const char *codes_flaw(const struct code_shape *s)
{
    const bool nibbles = !is_bytes(s);
    uint64_t n;
    if (s->block % BLOCK_32 || s->block & (s->block - 1))
        return "a block is no power of two from 32 on";
    if (!s->n_rows || !s->n_cols || s->n_cols > PTRDIFF_MAX / 2 || s->block > PTRDIFF_MAX / 2 ||
        !checked_mul(s->n_cols + s->block, s->n_rows, &n) || n > PTRDIFF_MAX / sizeof(float))
        return "it is empty, or overflows";
    if (nibbles && (s->by_columns ? s->n_rows : codes_row(s)) % 2)
        return "an odd number of codes of 4 bits stands side by side";
    return NULL;
}

static uint64_t code_place(const struct code_shape *s, size_t row, size_t k)
{
    return s->by_columns ? (uint64_t)k * s->n_rows + row : (uint64_t)row * codes_row(s) + k;
}

static unsigned nibble_at(const uint8_t *p, uint64_t i)
{
    return p[i / 2] >> (i % 2 * 4) & 15u;
}

static void put_nibble(uint8_t *p, uint64_t i, unsigned v)
{
    const unsigned shift = i % 2 * 4;
    p[i / 2] = (uint8_t)((p[i / 2] & ~(15u << shift)) | v << shift);
}

uint64_t codes_bytes(const struct code_shape *s)
{
    const uint64_t n = (uint64_t)s->n_rows * codes_row(s);
    return is_bytes(s) ? n : (n + 1) / 2;
}

uint64_t codes_zero_bytes(const struct code_shape *s)
{
    const uint64_t n = (uint64_t)s->n_rows * (s->by_columns ? codes_n_scales(s) : codes_zero_row(s));
    return (n + 1) / 2;
}

int codes_at(const struct code_shape *s, const uint8_t *codes, size_t row, size_t k)
{
    const uint64_t i = code_place(s, row, k);
    if (is_bytes(s))
        return (int8_t)codes[i];
    return s->type == QD_TYPE_I4 ? (int)(nibble_at(codes, i) ^ 8) - 8 : (int)nibble_at(codes, i);
}

/* ---- order rows: codes of a row as blocks ---- */

/* 32 nibbles in order, to element j beside element j + 16; and back. */
static void pair_halves(uint8_t *dst, const uint8_t *src)
{
    for (size_t i = 0; i < 8; i++) {
        const uint8_t low = src[i], high = src[8 + i];
        dst[2 * i] = (uint8_t)((low & 15) | high << 4);
        dst[2 * i + 1] = (uint8_t)(low >> 4 | (high & 0xf0));
    }
}

static void part_halves(uint8_t *dst, const uint8_t *src)
{
    for (size_t i = 0; i < 8; i++) {
        const uint8_t a = src[2 * i], b = src[2 * i + 1];
        dst[i] = (uint8_t)((a & 15) | b << 4);
        dst[8 + i] = (uint8_t)(a >> 4 | (b & 0xf0));
    }
}

/* One row by single elements: rows that do not begin with a byte, or end within a block. */
static void get_row(const struct code_shape *s, uint8_t *dst, const uint8_t *codes, size_t row)
{
    memset(dst, 0, codes_n_blocks(s) * packed_block_bytes(s->type));
    for (size_t k = 0; k < codes_row(s); k++) {
        const uint64_t at = code_place(s, row, k);
        if (is_bytes(s))
            dst[k] = codes[at];
        else
            put_nibble(dst, (uint64_t)(k / 32 * 16 + k % 16) * 2 + k / 16 % 2, nibble_at(codes, at));
    }
}

static void put_row(const struct code_shape *s, uint8_t *codes, const uint8_t *src, size_t row)
{
    for (size_t k = 0; k < codes_row(s); k++) {
        const uint64_t at = code_place(s, row, k);
        if (is_bytes(s))
            codes[at] = src[k];
        else
            put_nibble(codes, at, nibble_at(src, (uint64_t)(k / 32 * 16 + k % 16) * 2 + k / 16 % 2));
    }
}

/* Order rows, of whole blocks. */
static bool has_whole_rows(const struct code_shape *s)
{
    return !s->by_columns && codes_row(s) % BLOCK_32 == 0;
}

void codes_get_rows(const struct code_shape *s, uint8_t *dst, const uint8_t *codes, size_t first, size_t n)
{
    const size_t row_bytes = codes_n_blocks(s) * packed_block_bytes(s->type);
    const bool whole = has_whole_rows(s);
    for (size_t r = 0; r < n; r++, dst += row_bytes) {
        const uint8_t *src = codes + (first + r) * row_bytes;
        if (whole && is_bytes(s))
            memcpy(dst, src, row_bytes);
        else if (whole)
            for (size_t i = 0; i < row_bytes; i += NIBBLE_RUNS)
                pair_halves(dst + i, src + i);
        else
            get_row(s, dst, codes, first + r);
    }
}

void codes_put_rows(const struct code_shape *s, uint8_t *codes, const uint8_t *src, size_t first, size_t n)
{
    const size_t row_bytes = codes_n_blocks(s) * packed_block_bytes(s->type);
    const bool whole = has_whole_rows(s);
    for (size_t r = 0; r < n; r++, src += row_bytes) {
        uint8_t *dst = codes + (first + r) * row_bytes;
        if (whole && is_bytes(s))
            memcpy(dst, src, row_bytes);
        else if (whole)
            for (size_t i = 0; i < row_bytes; i += NIBBLE_RUNS)
                part_halves(dst + i, src + i);
        else
            put_row(s, codes, src, first + r);
    }
}

/* ---- order columns: rows of k, a group's share of each ---- */

/* Rows take turns of @run of the bytes that stand @stride apart: @n_k, a multiple of @run, of each of @n_lanes. */
static inline void zip_bytes(uint8_t *restrict dst, const uint8_t *restrict src, size_t stride, size_t n_k, size_t run,
                             size_t n_lanes)
{
    for (size_t k = 0; k < n_k; k += run, dst += run * n_lanes)
        for (size_t r = 0; r < n_lanes; r++)
            for (size_t j = 0; j < run; j++)
                dst[r * run + j] = src[(k + j) * stride + r];
}

static inline void unzip_bytes(uint8_t *dst, const uint8_t *src, size_t stride, size_t n_k, size_t run, size_t n_lanes)
{
    for (size_t k = 0; k < n_k; k += run, src += run * n_lanes)
        for (size_t r = 0; r < n_lanes; r++)
            for (size_t j = 0; j < run; j++)
                dst[(k + j) * stride + r] = src[r * run + j];
}

/* The same with sizes that compilers know: a loop of moves. */
#define BY_LAYOUT(function, dst, src, stride, n_k, layout) \
    switch (layout) {                                      \
    case QD_LAYOUT_R16K4P128:                              \
        function(dst, src, stride, n_k, 4, 16);            \
        break;                                             \
    case QD_LAYOUT_R8K4P128:                               \
        function(dst, src, stride, n_k, 4, 8);             \
        break;                                             \
    case QD_LAYOUT_R4K8P128:                               \
        function(dst, src, stride, n_k, 8, 4);             \
        break;                                             \
    default:                                               \
        function(dst, src, stride, n_k, 4, 4);             \
    }

/* Rows of nibbles, @n_bytes each, and those 16 below: side by side in bytes. */
static void pair_rows(uint8_t *restrict dst, const uint8_t *restrict src, size_t stride, size_t n_rows, size_t n_bytes)
{
    for (size_t j = 0; j < n_rows; j++) {
        const uint8_t *low = src + j * stride, *high = low + NIBBLE_RUNS * stride;
        for (size_t i = 0; i < n_bytes; i++, dst += 2) {
            dst[0] = (uint8_t)((low[i] & 15) | high[i] << 4);
            dst[1] = (uint8_t)(low[i] >> 4 | (high[i] & 0xf0));
        }
    }
}

static void part_rows(uint8_t *dst, const uint8_t src[NIBBLE_RUNS * LANES_MAX], size_t stride, size_t n_lanes)
{
    for (size_t j = 0; j < NIBBLE_RUNS; j++) {
        uint8_t *low = dst + j * stride, *high = dst + (j + NIBBLE_RUNS) * stride;
        for (size_t i = 0; i < n_lanes / 2; i++) {
            const uint8_t a = src[j * n_lanes + 2 * i], b = src[j * n_lanes + 2 * i + 1];
            low[i] = (uint8_t)((a & 15) | b << 4);
            high[i] = (uint8_t)(a >> 4 | (b & 0xf0));
        }
    }
}

/* Bytes of a group whose k is a multiple of 32. */
static size_t group_bytes(enum qd_layout layout, const struct code_shape *s)
{
    return qd_layout_info(layout)->rows * codes_n_blocks(s) * packed_block_bytes(s->type);
}

/* @n_k bytes of LANES_MAX rows: of several groups, @step bytes apart, where groups have fewer. */
static inline void zip_wide(uint8_t *restrict dst, const uint8_t *restrict src, size_t stride, size_t n_k, size_t run,
                            size_t n_lanes, size_t step)
{
    for (size_t k = 0; k < n_k; k += run, dst += run * n_lanes, src += run * stride) {
        uint8_t zipped[LANES_MAX * RUN_MAX];
        zip_bytes(zipped, src, stride, run, run, LANES_MAX);
        for (size_t g = 0; g < LANES_MAX / n_lanes; g++)
            memcpy(dst + g * step, zipped + g * n_lanes * run, n_lanes * run);
    }
}

static void zip_wide_as(enum qd_layout layout, uint8_t *dst, const uint8_t *src, size_t stride, size_t step)
{
    switch (layout) {
    case QD_LAYOUT_R16K4P128:
        zip_wide(dst, src, stride, K_AT_ONCE, 4, 16, step);
        break;
    case QD_LAYOUT_R8K4P128:
        zip_wide(dst, src, stride, K_AT_ONCE, 4, 8, step);
        break;
    case QD_LAYOUT_R4K8P128:
        zip_wide(dst, src, stride, K_AT_ONCE, 8, 4, step);
        break;
    default:
        zip_wide(dst, src, stride, K_AT_ONCE, 4, 4, step);
    }
}

/* K_AT_ONCE bytes of each row of @n groups. */
static void zip_runs(enum qd_layout layout, uint8_t *dst, const uint8_t *src, size_t stride, size_t n, size_t step)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, wide = LANES_MAX / n_lanes;
    size_t g = 0;
    for (; g + wide <= n; g += wide)
        zip_wide_as(layout, dst + g * step, src + g * n_lanes, stride, step);
    for (; g < n; g++)
        BY_LAYOUT(zip_bytes, dst + g * step, src + g * n_lanes, stride, K_AT_ONCE, layout)
}

/* Lines that are met soon. */
static void bring_rows(const uint8_t *src, size_t stride)
{
    for (size_t j = 0; j < K_AT_ONCE; j++)
        __builtin_prefetch(src + j * stride);
}

/* @n groups, of one line, whose k is a multiple of 32; @src: the first code of the first. */
static void zip_byte_line(enum qd_layout layout, const struct code_shape *s, uint8_t *dst, const uint8_t *src, size_t n)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, stride = s->n_rows, step = group_bytes(layout, s);
    for (size_t k = 0; k < s->n_cols; k += K_AT_ONCE) {
        if (k + K_AHEAD < s->n_cols)
            bring_rows(src + (k + K_AHEAD) * stride, stride);
        zip_runs(layout, dst + k * n_lanes, src + k * stride, stride, n, step);
    }
}

static void zip_nibble_line(enum qd_layout layout, const struct code_shape *s, uint8_t *dst, const uint8_t *src,
                            size_t n)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, stride = s->n_rows / 2, step = group_bytes(layout, s);
    uint8_t paired[2 * K_AT_ONCE * LINE_BYTES];
    for (size_t k = 0; k < s->n_cols / 2; k += K_AT_ONCE) { /* a byte of a group is of two rows */
        const uint8_t *low = src + (k / NIBBLE_RUNS * BLOCK_32 + k % NIBBLE_RUNS) * stride;
        if (2 * k + K_AHEAD + BLOCK_32 <= s->n_cols) {
            bring_rows(low + K_AHEAD * stride, stride);
            bring_rows(low + (K_AHEAD + NIBBLE_RUNS) * stride, stride);
        }
        pair_rows(paired, low, stride, K_AT_ONCE, n * n_lanes / 2);
        zip_runs(layout, dst + k * n_lanes, paired, n * n_lanes, n, step);
    }
}

static void zip_groups(enum qd_layout layout, const struct code_shape *s, uint8_t *dst, const uint8_t *codes,
                       size_t first, size_t n)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, per_byte = is_bytes(s) ? 1 : 2,
                 most = LINE_BYTES * per_byte / n_lanes;
    for (size_t g = 0; g < n; g += most)
        (is_bytes(s) ? zip_byte_line : zip_nibble_line)(layout, s, dst + g * group_bytes(layout, s),
                                                        codes + (first + g * n_lanes) / per_byte,
                                                        n - g < most ? n - g : most);
}

static void unzip_group(enum qd_layout layout, const struct code_shape *s, uint8_t *codes, const uint8_t *group,
                        size_t first)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, n_blocks = codes_n_blocks(s);
    if (is_bytes(s)) {
        BY_LAYOUT(unzip_bytes, codes + first, group, s->n_rows, s->n_cols, layout)
        return;
    }
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t paired[NIBBLE_RUNS * LANES_MAX];
        BY_LAYOUT(unzip_bytes, paired, group + b * NIBBLE_RUNS * n_lanes, n_lanes, NIBBLE_RUNS, layout)
        part_rows(codes + (b * BLOCK_32 * s->n_rows + first) / 2, paired, s->n_rows / 2, n_lanes);
    }
}

/* ---- groups ---- */

/* Does a group of order columns stand in whole bytes and blocks? */
static bool is_zipped(const struct code_shape *s)
{
    return s->by_columns && s->n_cols % BLOCK_32 == 0 && (is_bytes(s) || s->n_rows % 2 == 0);
}

void codes_pack_group(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *dst,
                      const uint8_t *codes, size_t first, size_t n, uint8_t *rows)
{
    const size_t n_lanes = qd_layout_info(layout)->rows, n_blocks = codes_n_blocks(s),
                 row_bytes = n_blocks * packed_block_bytes(s->type);
    if (n == n_lanes && is_zipped(s)) {
        zip_groups(layout, s, dst, codes, first, 1);
        return;
    }
    if (n == n_lanes && has_whole_rows(s) && is_bytes(s)) { /* blocks as they are */
        layout_pack_group(ops, layout, s->type, dst, codes + first * row_bytes, n_blocks);
        return;
    }
    codes_get_rows(s, rows, codes, first, n);
    memset(rows + n * row_bytes, 0, (n_lanes - n) * row_bytes);
    layout_pack_group(ops, layout, s->type, dst, rows, n_blocks);
}

void codes_pack_groups(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *dst,
                       const uint8_t *codes, size_t first, size_t n, uint8_t *rows)
{
    const size_t n_lanes = qd_layout_info(layout)->rows;
    if (is_zipped(s)) {
        zip_groups(layout, s, dst, codes, first, n);
        return;
    }
    for (size_t g = 0; g < n; g++)
        codes_pack_group(ops, layout, s, dst + g * group_bytes(layout, s), codes, first + g * n_lanes, n_lanes, rows);
}

void codes_unpack_group(const struct ops *ops, enum qd_layout layout, const struct code_shape *s, uint8_t *codes,
                        const uint8_t *group, size_t first, uint8_t *rows)
{
    if (is_zipped(s)) {
        unzip_group(layout, s, codes, group, first);
        return;
    }
    layout_unpack_group(ops, layout, s->type, rows, group, codes_n_blocks(s));
    codes_put_rows(s, codes, rows, first, qd_layout_info(layout)->rows);
}

/* ---- scales, zero points ---- */

/* Of a row: scales, or zero points with what fills up their last byte. */
static size_t scales_of_row(const struct code_shape *s, unsigned bits)
{
    return bits == 4 && !s->by_columns ? codes_zero_row(s) : codes_n_scales(s);
}

static uint64_t scale_place(const struct code_shape *s, unsigned bits, size_t row, size_t i)
{
    return s->by_columns ? (uint64_t)i * s->n_rows + row : (uint64_t)row * scales_of_row(s, bits) + i;
}

static void move_scale(unsigned bits, uint8_t *dst, uint64_t to, const uint8_t *src, uint64_t from)
{
    if (bits == 4)
        put_nibble(dst, to, nibble_at(src, from));
    else
        memcpy(dst + to * sizeof(float), src + from * sizeof(float), sizeof(float));
}

/* Floats of @n rows with @n_scales each, in order rows: lanes side by side. */
static void zip_floats(uint8_t *restrict dst, const uint8_t *restrict src, size_t n_scales, size_t n, size_t n_lanes)
{
    for (size_t i = 0; i < n_scales; i++)
        for (size_t r = 0; r < n; r++)
            memcpy(dst + (i * n_lanes + r) * sizeof(float), src + (r * n_scales + i) * sizeof(float), sizeof(float));
}

void codes_pack_scales(const struct code_shape *s, unsigned bits, uint8_t *dst, const uint8_t *src, size_t first,
                       size_t n, size_t n_lanes)
{
    const size_t n_scales = scales_of_row(s, bits);
    if (n < n_lanes)
        memset(dst, 0, n_scales * n_lanes * bits / 8);
    if (bits == 32 && !s->by_columns) {
        zip_floats(dst, src + scale_place(s, bits, first, 0) * sizeof(float), n_scales, n, n_lanes);
        return;
    }
    for (size_t i = 0; i < n_scales; i++)
        for (size_t r = 0; r < n; r++)
            move_scale(bits, dst, i * n_lanes + r, src, scale_place(s, bits, first + r, i));
}

void codes_unpack_scales(const struct code_shape *s, unsigned bits, uint8_t *dst, const uint8_t *group, size_t first,
                         size_t n_lanes)
{
    const size_t n_scales = scales_of_row(s, bits);
    for (size_t i = 0; i < n_scales; i++)
        for (size_t r = 0; r < n_lanes; r++)
            move_scale(bits, dst, scale_place(s, bits, first + r, i), group, i * n_lanes + r);
}

/* Where the group of @n_lanes rows that holds @row has it, or where order has it. */
static uint64_t place_in_groups(const struct code_shape *s, unsigned bits, size_t row, size_t i, size_t n_lanes)
{
    const size_t lane = row % n_lanes, group = row - lane;
    const bool moves = bits == 4 ? codes_moves_zeros(s) : codes_moves_scales(s),
               moved = moves && group + n_lanes <= s->n_rows;
    return moved ? (uint64_t)group * scales_of_row(s, bits) + i * n_lanes + lane : scale_place(s, bits, row, i);
}

float codes_scale(const struct code_shape *s, const uint8_t *scales, size_t row, size_t i, size_t n_lanes)
{
    float scale;
    memcpy(&scale, scales + place_in_groups(s, 32, row, i, n_lanes) * sizeof scale, sizeof scale);
    return scale;
}

int codes_zero(const struct code_shape *s, const uint8_t *zeros, size_t row, size_t i, size_t n_lanes)
{
    return (int)nibble_at(zeros, place_in_groups(s, 4, row, i, n_lanes));
}
