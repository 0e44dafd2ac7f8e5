/*
 * Products with groups of four rows (r4k4p128, r4k8p128) on aarch64: written once, compiled by every folder that has a
 * multiply.h (kernels/neon/multiply.h says what is in it). docs/formats/packed.md; floats in the order of kernels.h.
 *
 * Weights are loaded and taken apart once for all columns of a strip. Codes of fewer than 8 bits stay unsigned: the sum
 * of a column starts from what its activations say (struct activation_tile, sums). Widths are constants of each kernel,
 * so that what a column accumulates stays in registers.
 */
#include "kernels/variants.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/layout/planes.h"
#include QD_MULTIPLY_HEADER

#define INLINE      static inline __attribute__((always_inline))
#define EACH_COLUMN _Pragma("GCC unroll 8") /* before a loop: sums are registers only where no loop is left */

enum {
    ROWS = 4,
    MAX_WIDTH = 8, /* layout_columns() of r4k4p128 and r4k8p128 */
    REGISTER = 16, /* bytes */
    CODES_16 = 16 * ROWS / REGISTER,
    CODES_32 = 2 * CODES_16 /* registers of 16 and of 32 codes of every row */
};

/* Vectors of sums: a step fills STEP of them, also where the strip is narrower. */
INLINE size_t n_sums(size_t width)
{
    return width < STEP ? STEP : width;
}

INLINE float32x4_t halves(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* A value of each row, where the sums of that row are made. */
INLINE void spread_rows(float32x4_t ret[STEP], float32x4_t rows)
{
    for (size_t v = 0; v < STEP; v++)
        ret[v] = rows;
    turn(ret);
}

INLINE float32x4_t load_column(const struct matmul_strip *s, size_t c)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)(s->y + c * s->y_stride)));
}

INLINE void store_column(const struct matmul_strip *s, size_t c, float32x4_t y)
{
    vst1q_u8((uint8_t *)(s->y + c * s->y_stride), vreinterpretq_u8_f32(y));
}

INLINE const int8_t *codes_of(const struct matmul_strip *s, size_t b, size_t c, size_t width)
{
    return s->x.q + (b * width + c) * BLOCK_32;
}

/* --- blocks of 32: q8_0, q4_0 --- */

/* How the codes of a block lie in the group. */
struct codes_32 {
    void (*load)(int8x16_t w[CODES_32], const uint8_t *q);
    size_t fits; /* multiply() */
    bool is_unsigned;
};

/* All of -128..127: 2 * 128 * 127 is below 2^15. */
INLINE void load_q8_0(int8x16_t w[CODES_32], const uint8_t *q)
{
    for (size_t i = 0; i < CODES_32; i++)
        w[i] = vreinterpretq_s8_u8(vld1q_u8(q + REGISTER * i));
}

/* 0..15, elements 0..15 below 16..31. */
INLINE void load_q4_0(int8x16_t w[CODES_32], const uint8_t *q)
{
    for (size_t i = 0; i < CODES_16; i++) {
        const uint8x16_t two = vld1q_u8(q + REGISTER * i);
        w[i] = vreinterpretq_s8_u8(vandq_u8(two, vdupq_n_u8(15)));
        w[CODES_16 + i] = vreinterpretq_s8_u8(vshrq_n_u8(two, 4));
    }
}

INLINE void clear(float32x4_t *t, const size_t width)
{
    const size_t n = n_sums(width);
    EACH_COLUMN
        for (size_t c = 0; c < n; c++)
            t[c] = vdupq_n_f32(0);
}

INLINE void store_sums(const struct matmul_strip *s, float32x4_t *acc, const size_t width)
{
    const size_t n = n_sums(width);
    EACH_COLUMN
        for (size_t c = 0; c < n; c += STEP)
            turn(acc + c);
    EACH_COLUMN
        for (size_t c = 0; c < width; c++)
            store_column(s, c, acc[c]);
}

/* A block with all columns, on top of @acc; @d: a scale of each row. */
INLINE void step_32(float32x4_t *acc, const struct matmul_strip *s, size_t b, const int8x16_t w[CODES_32],
                    const struct codes_32 codes, float32x4_t d, const size_t width)
{
    float32x4_t ws[STEP];
    spread_rows(ws, d);
    EACH_COLUMN
        for (size_t c = 0; c < width; c += STEP) {
            int32x4_t sum[STEP];
            for (size_t v = 0; v < STEP; v++)
                sum[v] = codes.is_unsigned ? columns_s32(s->x.sums + b * width + c, width) : vdupq_n_s32(0);
            multiply(sum, w, CODES_32, codes.fits, codes_of(s, b, c, width), width);
            const float32x4_t xs = columns_f32(s->x.scale + b * width + c, width);
            for (size_t v = 0; v < STEP; v++)
                acc[c + v] = vfmaq_f32(acc[c + v], vcvtq_f32_s32(sum[v]), vmulq_f32(ws[v], xs));
        }
}

INLINE void strip_32(const struct matmul_strip *s, const struct planes *p, const struct codes_32 codes,
                     const size_t width)
{
    float32x4_t acc[MAX_WIDTH];
    clear(acc, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        const struct panel q = panel_of(s->w, p, b, s->n_blocks, ROWS);
        int8x16_t w[CODES_32];
        codes.load(w, panel_field(&q, p, 0, b));
        step_32(acc, s, b, w, codes, halves(panel_field(&q, p, 1, b)), width);
    }
    store_sums(s, acc, width);
}

INLINE void strip_q8_0(const struct matmul_strip *s, const size_t width)
{
    strip_32(s, &planes_q8_0, (struct codes_32){load_q8_0, 2, false}, width);
}

INLINE void strip_q4_0(const struct matmul_strip *s, const size_t width)
{
    strip_32(s, &planes_q4_0, (struct codes_32){load_q4_0, 8, true}, width);
}

/* --- codes alone: scales stand apart (kernels/kernels.h, struct code_scales) --- */

INLINE float32x4_t scales_of(const struct matmul_strip *s, size_t b)
{
    const struct code_scales *k = &s->codes;
    return vreinterpretq_f32_u8(vld1q_u8(k->scale + (b >> k->shift) * k->scale_block));
}

INLINE void strip_i8(const struct matmul_strip *s, const size_t width)
{
    const struct codes_32 codes = {load_q8_0, 2, false};
    float32x4_t acc[MAX_WIDTH];
    clear(acc, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        int8x16_t w[CODES_32];
        load_q8_0(w, s->w + b * 32 * ROWS);
        step_32(acc, s, b, w, codes, s->codes.scale_block ? scales_of(s, b) : vdupq_n_f32(1), width);
    }
    store_sums(s, acc, width);
    for (size_t c = 0; c < width && !s->codes.scale_block; c++) /* one for the row */
        store_column(s, c, vmulq_f32(load_column(s, c), scales_of(s, 0)));
}

/* Codes 0..15. */
INLINE void load_u4(int8x16_t w[CODES_32], const struct matmul_strip *s, size_t b)
{
    const uint8x16_t flip = vdupq_n_u8(s->codes.flip);
    for (size_t i = 0; i < CODES_16; i++) {
        const uint8x16_t two = veorq_u8(vld1q_u8(s->w + b * 16 * ROWS + REGISTER * i), flip);
        w[i] = vreinterpretq_s8_u8(vandq_u8(two, vdupq_n_u8(15)));
        w[CODES_16 + i] = vreinterpretq_s8_u8(vshrq_n_u8(two, 4));
    }
}

/* A zero point for each code of two registers: each has 4 codes of all rows, or they have 8 of two rows each. */
INLINE void load_zeros(int8x16_t ret[2], const struct matmul_strip *s, size_t b)
{
    enum { ROW_CODES = REGISTER / ROWS * STEP };
    const uint8_t *nibbles = s->codes.zero + (b >> s->codes.shift) * s->codes.zero_block;
    int8_t zero[2 * REGISTER];
    for (size_t i = 0; i < sizeof zero; i++) {
        const size_t r = i / ROW_CODES % ROWS;
        zero[i] = (int8_t)(nibbles[r / 2] >> (r % 2 * 4) & 15);
    }
    ret[0] = vld1q_s8(zero);
    ret[1] = vld1q_s8(zero + REGISTER);
}

/* With zero points codes become values, -15..15, and sums start from 0. 8 products fit 16 bits either way. */
INLINE void blocks_u4(float32x4_t *acc, const struct matmul_strip *s, const bool has_zeros, const size_t width)
{
    const struct codes_32 codes = {NULL, 8, !has_zeros};
    for (size_t b = 0; b < s->n_blocks; b++) {
        int8x16_t w[CODES_32], zeros[2];
        load_u4(w, s, b);
        if (has_zeros)
            load_zeros(zeros, s, b);
        for (size_t i = 0; has_zeros && i < CODES_32; i++)
            w[i] = vsubq_s8(w[i], zeros[i % 2]);
        step_32(acc, s, b, w, codes, scales_of(s, b), width);
    }
}

INLINE void strip_u4(const struct matmul_strip *s, const size_t width)
{
    float32x4_t acc[MAX_WIDTH];
    clear(acc, width);
    if (s->codes.zero)
        blocks_u4(acc, s, true, width);
    else
        blocks_u4(acc, s, false, width);
    store_sums(s, acc, width);
}

/* --- super-blocks of 256 --- */

/*
 * t of every column takes a sub-block of 4 * @n elements: @w are its codes, @x those of the first column, @start what
 * its sums start from (NULL: 0).
 */
INLINE void sub_block(float32x4_t *t, const int8x16_t *w, const size_t n, const size_t fits, const float32x4_t *scale,
                      const int8_t *x, const int32_t *start, const size_t width)
{
    EACH_COLUMN
        for (size_t c = 0; c < width; c += STEP) {
            int32x4_t sum[STEP];
            for (size_t v = 0; v < STEP; v++)
                sum[v] = start ? columns_s32(start + c, width) : vdupq_n_s32(0);
            multiply(sum, w, n, fits, x + c * BLOCK_32, width);
            for (size_t v = 0; v < STEP; v++)
                t[c + v] = vfmaq_f32(t[c + v], vcvtq_f32_s32(sum[v]), scale[v]);
        }
}

/* 4 scales of every row, row after row in each, from bytes that were widened. */
INLINE void spread_scales(float32x4_t ret[4][STEP], int16x8_t low, int16x8_t high)
{
    spread_rows(ret[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
    spread_rows(ret[1], vcvtq_f32_s32(vmovl_high_s16(low)));
    spread_rows(ret[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
    spread_rows(ret[3], vcvtq_f32_s32(vmovl_high_s16(high)));
}

INLINE int16x8_t widen_low(uint8x16_t a)
{
    return vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(a)));
}

INLINE int16x8_t widen_high(uint8x16_t a)
{
    return vreinterpretq_s16_u16(vmovl_high_u8(a));
}

/* unpack_scales_k4 of four rows; two minima of every row in each of @mins. */
INLINE void load_scales_k4(float32x4_t scale[8][STEP], int16x8_t mins[4], const uint8_t *p)
{
    const uint8x16_t six = vdupq_n_u8(63), a = vld1q_u8(p), b = vld1q_u8(p + 16), c = vld1q_u8(p + 32);
    const uint8x16_t scale_low = vandq_u8(a, six), min_low = vandq_u8(b, six);
    const uint8x16_t scale_high = vsliq_n_u8(vandq_u8(c, vdupq_n_u8(15)), vshrq_n_u8(a, 6), 4);
    const uint8x16_t min_high = vsliq_n_u8(vshrq_n_u8(c, 4), vshrq_n_u8(b, 6), 4);
    spread_scales(scale, widen_low(scale_low), widen_high(scale_low));
    spread_scales(scale + 4, widen_low(scale_high), widen_high(scale_high));
    mins[0] = widen_low(min_low);
    mins[1] = widen_high(min_low);
    mins[2] = widen_low(min_high);
    mins[3] = widen_high(min_high);
}

/* M of kernels.h with eight sub-blocks, of four rows with one column: 8 products of at most 63 * 4064. */
INLINE int32x4_t minima_of_8(const int16x8_t mins[4], const int16_t *pairs)
{
    const int16x8_t x = vreinterpretq_s16_u8(vld1q_u8((const uint8_t *)pairs));
    int32x4_t sum = vmull_laneq_s16(vget_low_s16(mins[0]), x, 0);
    sum = vmlal_high_laneq_s16(sum, mins[0], x, 1);
    sum = vmlal_laneq_s16(sum, vget_low_s16(mins[1]), x, 2);
    sum = vmlal_high_laneq_s16(sum, mins[1], x, 3);
    sum = vmlal_laneq_s16(sum, vget_low_s16(mins[2]), x, 4);
    sum = vmlal_high_laneq_s16(sum, mins[2], x, 5);
    sum = vmlal_laneq_s16(sum, vget_low_s16(mins[3]), x, 6);
    return vmlal_high_laneq_s16(sum, mins[3], x, 7);
}

/* Blocks add to y, from 0. */
INLINE void begin_256(const struct matmul_strip *s, const size_t width)
{
    for (size_t c = 0; c < width; c++)
        store_column(s, c, vdupq_n_f32(0));
}

/* Adds block @b to y: @t times the scales, less what the minima of each column come to where there are some. */
INLINE void finish_256(const struct matmul_strip *s, size_t b, float32x4_t *t, const uint8_t *d, const uint8_t *dmin,
                       const int32x4_t *minima, const size_t width)
{
    const float32x4_t ws = halves(d), low = dmin ? halves(dmin) : ws;
    const size_t n = n_sums(width);
    EACH_COLUMN
        for (size_t c = 0; c < n; c += STEP)
            turn(t + c);
    EACH_COLUMN
        for (size_t c = 0; c < width; c++) {
            const float xs = s->x.scale[b * width + c];
            float32x4_t y = vfmaq_f32(load_column(s, c), t[c], vmulq_n_f32(ws, xs));
            if (dmin)
                y = vfmsq_f32(y, vcvtq_f32_s32(minima[c]), vmulq_n_f32(low, xs));
            store_column(s, c, y);
        }
}

/* Bit @bit of each byte, as bit 4: above a nibble. */
INLINE uint8x16_t fifth_bits(const uint8_t *high, size_t bit)
{
    return vandq_u8(vshlq_u8(vld1q_u8(high), vdupq_n_s8((int8_t)(4 - (int)bit))), vdupq_n_u8(16));
}

/* Sub-block 2 p of every row, in the low nibbles; @high: its fifth bits, which are bits 2 p, or NULL. */
INLINE void load_low_nibbles(int8x16_t w[CODES_32], const uint8_t *q, const uint8_t *high, size_t p)
{
    const uint8x16_t nibble = vdupq_n_u8(15);
    for (size_t i = 0; i < CODES_32; i++) {
        const uint8x16_t two = vld1q_u8(q + REGISTER * i);
        const uint8x16_t code =
            high ? vbslq_u8(nibble, two, fifth_bits(high + REGISTER * i, 2 * p)) : vandq_u8(two, nibble);
        w[i] = vreinterpretq_s8_u8(code);
    }
}

/* Sub-block 2 p + 1, in the high ones. */
INLINE void load_high_nibbles(int8x16_t w[CODES_32], const uint8_t *q, const uint8_t *high, size_t p)
{
    for (size_t i = 0; i < CODES_32; i++) {
        const uint8x16_t two = vld1q_u8(q + REGISTER * i);
        const uint8x16_t code =
            high ? vsriq_n_u8(fifth_bits(high + REGISTER * i, 2 * p + 1), two, 4) : vshrq_n_u8(two, 4);
        w[i] = vreinterpretq_s8_u8(code);
    }
}

/* Planes of q4_k, or of q5_k, which has one of fifth bits. 16 bits add 8 products with codes to 31. */
INLINE void strip_affine_k(const struct matmul_strip *s, const struct planes *p, const size_t width)
{
    begin_256(s, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        const struct panel panel = panel_of(s->w, p, b, s->n_blocks, ROWS);
        const uint8_t *codes = panel_field(&panel, p, 0, b), *high = p->n == 5 ? panel_field(&panel, p, 1, b) : NULL;
        const uint8_t *d = panel_field(&panel, p, p->n - 2, b), *dmin = panel_field(&panel, p, p->n - 1, b);
        int8x16_t w[CODES_32];
        int16x8_t mins[4];
        int32x4_t minima[MAX_WIDTH];
        float32x4_t scale[8][STEP], t[MAX_WIDTH];
        load_scales_k4(scale, mins, panel_field(&panel, p, p->n - 3, b));
        clear(t, width);
        for (size_t i = 0; i < 4; i++) {
            const uint8_t *q = codes + i * BLOCK_32 * ROWS;
            load_low_nibbles(w, q, high, i);
            sub_block(t, w, CODES_32, 8, scale[2 * i], codes_of(s, b * 8 + 2 * i, 0, width), NULL, width);
            load_high_nibbles(w, q, high, i);
            sub_block(t, w, CODES_32, 8, scale[2 * i + 1], codes_of(s, b * 8 + 2 * i + 1, 0, width), NULL, width);
        }
        EACH_COLUMN
            for (size_t c = 0; c < width; c++)
                minima[c] = minima_of_8(mins, s->x.pairs + (b * width + c) * 8);
        finish_256(s, b, t, d, dmin, minima, width);
    }
}

INLINE void strip_q4_k(const struct matmul_strip *s, const size_t width)
{
    strip_affine_k(s, &planes_q4_k, width);
}

INLINE void strip_q5_k(const struct matmul_strip *s, const size_t width)
{
    strip_affine_k(s, &planes_q5_k, width);
}

/* --- sixteen sub-blocks of 16: q2_k, q3_k, q6_k --- */

/*
 * The loaders take 16 codes of every row, elements 128 h + 32 @part + (0..15 or 16..31): @low and @high begin at the
 * first byte of these 16. Shifts that keep bits of the other operand put the two together.
 */
typedef void load_16_fn(int8x16_t w[CODES_16], const uint8_t *low, const uint8_t *high, size_t h, int part);

INLINE void load_q2_k(int8x16_t w[CODES_16], const uint8_t *low, const uint8_t *high, size_t h, const int part)
{
    const int8x16_t to_bit_0 = vdupq_n_s8((int8_t)(-2 * part));
    (void)high;
    (void)h;
    for (size_t i = 0; i < CODES_16; i++)
        w[i] = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vld1q_u8(low + REGISTER * i), to_bit_0), vdupq_n_u8(3)));
}

/* Codes times 8, so that their offset of 4 is the 32 of q6_k. */
INLINE void load_q3_k(int8x16_t w[CODES_16], const uint8_t *low, const uint8_t *high, const size_t h, const int part)
{
    const int8x16_t to_bit_3 = vdupq_n_s8((int8_t)(3 - 2 * part));
    const int8x16_t to_bit_5 = vdupq_n_s8((int8_t)(5 - 4 * (int)h - part));
    for (size_t i = 0; i < CODES_16; i++) {
        const uint8x16_t pair = vshlq_u8(vld1q_u8(low + REGISTER * i), to_bit_3);
        const uint8x16_t third = vshlq_u8(vld1q_u8(high + REGISTER * i), to_bit_5);
        w[i] = vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0x18), pair, vandq_u8(third, vdupq_n_u8(0x20))));
    }
}

INLINE void load_q6_k(int8x16_t w[CODES_16], const uint8_t *low, const uint8_t *high, size_t h, const int part)
{
    const uint8x16_t six = vdupq_n_u8(63);
    (void)h;
    for (size_t i = 0; i < CODES_16; i++) {
        const uint8x16_t a = vld1q_u8(low + part % 2 * 32 * ROWS + REGISTER * i), b = vld1q_u8(high + REGISTER * i);
        const uint8x16_t code = part == 0   ? vandq_u8(vsliq_n_u8(a, b, 4), six)
                                : part == 1 ? vandq_u8(vsliq_n_u8(a, vshrq_n_u8(b, 2), 4), six)
                                : part == 2 ? vandq_u8(vsriq_n_u8(b, a, 4), six)
                                            : vsriq_n_u8(vshrq_n_u8(b, 2), a, 4);
        w[i] = vreinterpretq_s8_u8(code);
    }
}

/* A type of this kind: where the codes of a half of a block are, and how they count. */
struct codes_16 {
    load_16_fn *load;
    size_t low_bytes, high_bytes; /* of a block; high: 0, 32 (both halves use all of it) or 64 */
    bool from_sums;               /* codes are 32 above what they stand for */
};

/* Where the codes of a block are. */
struct codes_place {
    const uint8_t *low, *high;
};

/* Elements 128 h + 32 part: two sub-blocks of half @h of block @b. 16 bits add 4 products with codes to 63. */
INLINE void part_16(float32x4_t *t, const struct matmul_strip *s, struct codes_place w, const struct codes_16 codes,
                    size_t b, size_t h, const int part, float32x4_t (*scale)[STEP], const size_t width)
{
    const uint8_t *low = w.low + h * codes.low_bytes / 2 * ROWS, *high = w.high;
    const size_t block = b * 8 + 4 * h + (size_t)part; /* of 32 */
    if (codes.high_bytes == 64)
        high += h * 32 * ROWS;
    for (size_t half = 0; half < 2; half++) {
        int8x16_t q[CODES_16];
        codes.load(q, low + half * 16 * ROWS, high ? high + half * 16 * ROWS : NULL, h, part);
        sub_block(t, q, CODES_16, 4, scale[2 * part + (int)half], codes_of(s, block, 0, width) + half * 16,
                  codes.from_sums ? s->x.sums + (block * 2 + half) * width : NULL, width);
    }
}

INLINE void block_16(float32x4_t *t, const struct matmul_strip *s, struct codes_place w, const struct codes_16 codes,
                     size_t b, float32x4_t scale[16][STEP], const size_t width)
{
    clear(t, width);
    for (size_t h = 0; h < 2; h++) {
        part_16(t, s, w, codes, b, h, 0, scale + 8 * h, width);
        part_16(t, s, w, codes, b, h, 1, scale + 8 * h, width);
        part_16(t, s, w, codes, b, h, 2, scale + 8 * h, width);
        part_16(t, s, w, codes, b, h, 3, scale + 8 * h, width);
    }
}

INLINE void spread_signed(float32x4_t ret[4][STEP], int8x16_t scales)
{
    spread_scales(ret, vmovl_s8(vget_low_s8(scales)), vmovl_high_s8(scales));
}

/* Scales and minima in nibbles; two minima of every row in each of @mins. */
INLINE void load_scales_q2_k(float32x4_t scale[16][STEP], int16x8_t mins[8], const uint8_t *p)
{
    for (size_t i = 0; i < 4; i++) {
        const uint8x16_t both = vld1q_u8(p + REGISTER * i), min = vshrq_n_u8(both, 4);
        spread_signed(scale + 4 * i, vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))));
        mins[2 * i] = widen_low(min);
        mins[2 * i + 1] = widen_high(min);
    }
}

/* M with sixteen sub-blocks, of every column; @starts: -32 times the sums of their codes, so 32 M is below 2^24. */
INLINE void minima_of_16(int32x4_t *minima, const int16x8_t mins[8], const int32_t *starts, const size_t width)
{
    EACH_COLUMN
        for (size_t c = 0; c < width; c++)
            minima[c] = vdupq_n_s32(0);
    for (size_t k = 0; k < 16; k += 2) {
        const int32x4_t first = vmovl_s16(vget_low_s16(mins[k / 2])), next = vmovl_high_s16(mins[k / 2]);
        EACH_COLUMN
            for (size_t c = 0; c < width; c++) {
                minima[c] = vmlsq_n_s32(minima[c], first, starts[k * width + c]);
                minima[c] = vmlsq_n_s32(minima[c], next, starts[(k + 1) * width + c]);
            }
    }
    EACH_COLUMN
        for (size_t c = 0; c < width; c++)
            minima[c] = vshrq_n_s32(minima[c], 5);
}

INLINE void strip_q2_k(const struct matmul_strip *s, const size_t width)
{
    const struct planes *p = &planes_q2_k;
    begin_256(s, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        const struct panel q = panel_of(s->w, p, b, s->n_blocks, ROWS);
        const struct codes_place w = {panel_field(&q, p, 0, b), NULL};
        const uint8_t *scales = panel_field(&q, p, 1, b), *d = panel_field(&q, p, 2, b);
        int16x8_t mins[8];
        int32x4_t minima[MAX_WIDTH];
        float32x4_t scale[16][STEP], t[MAX_WIDTH];
        load_scales_q2_k(scale, mins, scales);
        minima_of_16(minima, mins, s->x.sums + b * 16 * width, width);
        block_16(t, s, w, (struct codes_16){load_q2_k, 64, 0, false}, b, scale, width);
        finish_256(s, b, t, d, panel_field(&q, p, 3, b), minima, width);
    }
}

/* unpack_scales_q3 of four rows, less 32; an eighth of them, since codes are 8 times as large. */
INLINE void load_scales_q3_k(float32x4_t scale[16][STEP], const uint8_t *p)
{
    const uint8x16_t a = vld1q_u8(p), b = vld1q_u8(p + 16), c = vld1q_u8(p + 32);
    const uint8x16_t four = vdupq_n_u8(15), two = vdupq_n_u8(3);
    const uint8x16_t codes[4] = {vsliq_n_u8(vandq_u8(a, four), vandq_u8(c, two), 4),
                                 vsliq_n_u8(vandq_u8(b, four), vandq_u8(vshrq_n_u8(c, 2), two), 4),
                                 vsliq_n_u8(vshrq_n_u8(a, 4), vandq_u8(vshrq_n_u8(c, 4), two), 4),
                                 vsliq_n_u8(vshrq_n_u8(b, 4), vshrq_n_u8(c, 6), 4)};
    for (size_t i = 0; i < 4; i++)
        spread_signed(scale + 4 * i, vsubq_s8(vreinterpretq_s8_u8(codes[i]), vdupq_n_s8(32)));
    for (size_t i = 0; i < 16; i++)
        for (size_t v = 0; v < STEP; v++)
            scale[i][v] = vmulq_n_f32(scale[i][v], 1.0f / 8);
}

INLINE void strip_q3_k(const struct matmul_strip *s, const size_t width)
{
    const struct planes *p = &planes_q3_k;
    begin_256(s, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        const struct panel q = panel_of(s->w, p, b, s->n_blocks, ROWS);
        const struct codes_place w = {panel_field(&q, p, 0, b), panel_field(&q, p, 1, b)};
        const uint8_t *scales = panel_field(&q, p, 2, b), *d = panel_field(&q, p, 3, b);
        float32x4_t scale[16][STEP], t[MAX_WIDTH];
        load_scales_q3_k(scale, scales);
        block_16(t, s, w, (struct codes_16){load_q3_k, 64, 32, true}, b, scale, width);
        finish_256(s, b, t, d, NULL, NULL, width);
    }
}

INLINE void strip_q6_k(const struct matmul_strip *s, const size_t width)
{
    const struct planes *p = &planes_q6_k;
    begin_256(s, width);
    for (size_t b = 0; b < s->n_blocks; b++) {
        const struct panel q = panel_of(s->w, p, b, s->n_blocks, ROWS);
        const struct codes_place w = {panel_field(&q, p, 0, b), panel_field(&q, p, 1, b)};
        const uint8_t *scales = panel_field(&q, p, 2, b), *d = panel_field(&q, p, 3, b);
        float32x4_t scale[16][STEP], t[MAX_WIDTH];
        for (size_t i = 0; i < 4; i++)
            spread_signed(scale + 4 * i, vreinterpretq_s8_u8(vld1q_u8(scales + 4 * i * ROWS)));
        block_16(t, s, w, (struct codes_16){load_q6_k, 128, 64, true}, b, scale, width);
        finish_256(s, b, t, d, NULL, NULL, width);
    }
}

/* --- a kernel for each type, a strip for each width --- */

#define STRIP(type, width)                                   \
    static void type##_##width(const struct matmul_strip *s) \
    {                                                        \
        strip_##type(s, width);                              \
    }
/* @tile with one group after the other, of which a block has @block_bytes bytes a row. */
INLINE void each_group(const struct matmul_strip *s, matmul_fn *tile, size_t block_bytes)
{
    struct matmul_strip one = *s;
    for (size_t g = 0; g < s->n_groups; g++) {
        tile(&one);
        one.w += s->n_blocks * ROWS * block_bytes;
        code_scales_skip(&one.codes, 1);
        one.y += ROWS;
    }
}

#define KERNEL_OF(type)                                                                                        \
    STRIP(type, 1)                                                                                             \
    STRIP(type, 2)                                                                                             \
    STRIP(type, 4)                                                                                             \
    STRIP(type, 8)                                                                                             \
    void KERNEL_NAME(type)(const struct matmul_strip *s)                                                       \
    {                                                                                                          \
        static matmul_fn *const of_width[] = {[1] = type##_1, [2] = type##_2, [4] = type##_4, [8] = type##_8}; \
        each_group(s, of_width[s->width], sizeof(struct block_##type));                                        \
    }
KERNEL_OF(q8_0)
KERNEL_OF(q4_0)
KERNEL_OF(q2_k)
KERNEL_OF(q3_k)
KERNEL_OF(q4_k)
KERNEL_OF(q5_k)
KERNEL_OF(q6_k)
KERNEL_OF(i8)
KERNEL_OF(u4)
