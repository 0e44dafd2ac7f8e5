/* q4_1, q5_0 and q5_1 without importance: LANES blocks side by side for their ends, then one after the other. */
#include "kernels/layout/blocks.h"

#include <math.h>

#include "kernels/lanes/frame.h"
#include "kernels/variants.h"

enum { RUN_BYTES = 32 * 4 };

static inline vf highest_of_block(const char *x)
{
    vf highest = vf_load(x);
    for (size_t j = LANES; j < 32; j += LANES)
        highest = vf_max(highest, vf_load(x + 4 * j));
    return highest;
}

static inline vf lowest_of_block(const char *x)
{
    vf lowest = vf_load(x);
    for (size_t j = LANES; j < 32; j += LANES)
        lowest = vf_min(lowest, vf_load(x + 4 * j));
    return lowest;
}

/* Lane i: the end of block i; of zeros either one. */
struct ends {
    vf lowest, highest;
};

static inline struct ends ends_of(const char *src)
{
    vf above[LANES], below[LANES];
    for (size_t i = 0; i < LANES; i++)
        above[i] = highest_of_block(src + i * RUN_BYTES);
    const vf highest = vf_largest_of_each(above);
    for (size_t i = 0; i < LANES; i++)
        below[i] = vf_neg(lowest_of_block(src + i * RUN_BYTES));
    return (struct ends){vf_neg(vf_largest_of_each(below)), highest};
}

/* The first element of a block that is @value or, where @either_sign, -@value. */
static float first_of(const char *x, float value, bool either_sign)
{
    float v = value;
    for (size_t j = 0; j < 32; j++) {
        memcpy(&v, x + 4 * j, sizeof v);
        if (v == value || (either_sign && v == -value))
            break;
    }
    return v;
}

/* @ends, but in lanes @open the first element of block i that equals it. */
static vf with_first_of(vf ends, unsigned open, const char *src, bool either_sign)
{
    float each[LANES];
    vf_store(each, ends);
    for (; open; open &= open - 1) {
        const size_t i = (size_t)__builtin_ctz(open);
        each[i] = first_of(src + i * RUN_BYTES, each[i], either_sign);
    }
    return vf_load(each);
}

/* The lowest element of each block; of zeros the first, as it is stored with its sign. */
static inline vf minimum_of(vf lowest, const char *src)
{
    const unsigned zeros = vm_bits(vf_eq(lowest, vf_set1(0)));
    return __builtin_expect(zeros != 0, 0) ? with_first_of(lowest, zeros, src, false) : lowest;
}

/* The element of largest magnitude with its sign, the first of equals; +0 for a zero block. */
static inline vf extreme_of(struct ends e, const char *src)
{
    const vf depth = vf_neg(e.lowest);
    const vm ties = vf_eq(e.highest, depth), zero = vm_and(ties, vf_eq(e.highest, vf_set1(0)));
    const vf extreme = vf_select(zero, vf_set1(0), vf_select(vf_gt(e.highest, depth), e.highest, e.lowest));
    const unsigned open = vm_bits(vm_and(ties, vm_not(zero))); /* both c and -c */
    return __builtin_expect(open != 0, 0) ? with_first_of(extreme, open, src, true) : extreme;
}

/* 1 / d; 0 where that is infinite. */
static inline vf inverse_of(vf d)
{
    const vf inverse = vf_div(vf_set1(1), d);
    return vf_select(vf_lt(vf_abs(inverse), vf_set1(HUGE_VALF)), inverse, vf_set1(0));
}

/* What the elements of a block become: trunc((x - low) * inverse + bias), at most n_max. */
struct scaling {
    float low[LANES], inverse[LANES], bias[LANES];
};

static inline vf level_of(const char *x, const struct scaling *s, size_t i, vf n_max)
{
    const vf level = vf_mul(vf_sub(vf_load(x), vf_set1(s->low[i])), vf_set1(s->inverse[i]));
    return vf_min(n_max, vf_add(level, vf_set1(s->bias[i]))); /* NaN (an infinite range) stays and gives 0 */
}

/* The low nibbles of block @i's codes. Returns the bits of the levels from 16 on, element j in bit j. */
static inline uint32_t encode_block(const char *x, const struct scaling *s, size_t i, int n_max, uint8_t q[16])
{
    uint32_t high = 0;
    for (size_t j = 0; j < 16; j += LANES) {
        const vf a = level_of(x + 4 * j, s, i, vf_set1((float)n_max));
        const vf b = level_of(x + 4 * j + 64, s, i, vf_set1((float)n_max));
        const vi low_nibbles = n_max > 15 ? vi_and(vi_trunc(a), vi_set1(15)) : vi_trunc(a);
        vi_store_bytes(q + j, vi_or(low_nibbles, vi_shift_left(vi_trunc(b), 4)));
        if (n_max > 15)
            high |= vm_bits(vf_ge(a, vf_set1(16))) << j | (uint32_t)vm_bits(vf_ge(b, vf_set1(16))) << (j + 16);
    }
    return high;
}

/* Scales and minima of LANES blocks as stored, and their scaling: codes 0..@n_max from lowest to highest. */
static inline void scale_between(const char *src, int n_max, struct scaling *s, uint16_t d[LANES], uint16_t m[LANES])
{
    const struct ends e = ends_of(src);
    const vf lowest = minimum_of(e.lowest, src);
    const vf step = vf_div(vf_abs(vf_sub(e.highest, lowest)), vf_set1((float)n_max)); /* -0 - 0 is no range either */
    vf_store(s->low, lowest);
    vf_store(s->inverse, inverse_of(step));
    vf_store(s->bias, vf_set1(0.5f));
    vf_store_f16(d, step);
    vf_store_f16(m, lowest);
}

static bool encode_q4_1(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_q4_1 *b = dst;
    struct scaling s;
    uint16_t d[LANES], m[LANES];
    (void)importance, (void)mean_square; /* there are none */
    scale_between(src, 15, &s, d, m);
    for (size_t i = 0; i < n; i++) {
        b[i].d = d[i];
        b[i].m = m[i];
        (void)encode_block(src + i * RUN_BYTES, &s, i, 15, b[i].q); /* none is above 15 */
    }
    return true;
}

static bool encode_q5_0(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_q5_0 *b = dst;
    struct scaling s;
    uint16_t scales[LANES];
    (void)importance, (void)mean_square;                                   /* there are none */
    const vf d = vf_mul(extreme_of(ends_of(src), src), vf_set1(-0.0625f)); /* exactly / -16 */
    const vf inverse = inverse_of(d);
    const vm lost = vm_and(vf_ne(d, vf_set1(0)), vf_eq(inverse, vf_set1(0))); /* an infinite inverse: code 0 */
    vf_store(s.low, vf_set1(0));
    vf_store(s.inverse, inverse);
    vf_store(s.bias, vf_select(lost, vf_set1(0.5f), vf_set1(16.5f)));
    vf_store_f16(scales, d);
    for (size_t i = 0; i < n; i++) {
        const uint32_t high = encode_block(src + i * RUN_BYTES, &s, i, 31, b[i].q);
        b[i].d = scales[i];
        memcpy(b[i].high, &high, sizeof high);
    }
    return true;
}

static bool encode_q5_1(void *dst, const char *src, const char *importance, float mean_square, size_t n)
{
    struct block_q5_1 *b = dst;
    struct scaling s;
    uint16_t d[LANES], m[LANES];
    (void)importance, (void)mean_square; /* there are none */
    scale_between(src, 31, &s, d, m);
    for (size_t i = 0; i < n; i++) {
        const uint32_t high = encode_block(src + i * RUN_BYTES, &s, i, 31, b[i].q);
        b[i].d = d[i];
        b[i].m = m[i];
        memcpy(b[i].high, &high, sizeof high);
    }
    return true;
}

void VARIANT(quantize_q4_1)(void *dst, const float *src, size_t n_elements)
{
    static const struct frame frame = {LANES, 32, sizeof(struct block_q4_1), encode_q4_1, NULL, NULL};
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_q5_0)(void *dst, const float *src, size_t n_elements)
{
    static const struct frame frame = {LANES, 32, sizeof(struct block_q5_0), encode_q5_0, NULL, NULL};
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}

void VARIANT(quantize_q5_1)(void *dst, const float *src, size_t n_elements)
{
    static const struct frame frame = {LANES, 32, sizeof(struct block_q5_1), encode_q5_1, NULL, NULL};
    in_batches(&frame, dst, src, n_elements, NULL, 0);
}
