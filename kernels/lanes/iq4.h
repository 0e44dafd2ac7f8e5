/*
 * The search of iq4_nl and iq4_xs for WIDTH runs of 32 side by side, a lane each: every lane does the definition's
 * operations in the definition's order (kernels/scalar/iq4.c), so it has the definition's bits.
 */
#ifndef QUANTD_KERNELS_LANES_IQ4_H
#define QUANTD_KERNELS_LANES_IQ4_H

#include "kernels/lanes/vec.h"
#include "kernels/layout/iq4.h"

/*
 * The number of halfway points that @x is not below, as the definition counts them: 15 for NaN.
 * A parabola to either side of zero guesses it: within the clamp it never exceeds the number, and falls short of it by
 * less than two, so one look at the next halfway point settles it. (tests/kernels/nearest.c: all floats)
 */
static inline vi iq4_code(vf x)
{
    static const float next[16] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                   7,       19,     31.5f, 45.5f, 61,  79,     101, HUGE_VALF};
    x = vf_max(vf_min(x, vf_set1(IQ4_HIGHEST)), vf_set1(IQ4_LOWEST));
    const vf slope = vf_sub(vf_set1(0.092f), vf_mul(vf_set1(0.000265f), vf_abs(x)));
    const vi guess = vi_trunc(vf_add(vf_set1(7.7f), vf_mul(slope, x)));
    return vi_add_where(vf_ge(x, vf_look_up_16(next, guess)), guess, vi_set1(1));
}

/*
 * What a trial adds up, for each element. The inverse scales of all trials are within 134 / 120, and a halfway point
 * is further than that from the next one of its sign: over the trials an element has one value or the one below.
 */
struct iq4_terms {
    float x[32][WIDTH], halfway[32][WIDTH];       /* below it the lower value is the nearest */
    float qx[32][WIDTH], q2[32][WIDTH];           /* weight * value * x, weight * value^2 for the upper value */
    float qx_flip[32][WIDTH], q2_flip[32][WIDTH]; /* the bits in which those for the lower value differ */
};

static inline vf bits_that_differ(vf a, vf b)
{
    return vf_bits(vi_xor(vi_bits(a), vi_bits(b)));
}

/* @low, @high: the first and the last trial's inverse scale. */
static inline void iq4_terms_of(vf weight, size_t j, size_t at, vf low, vf high, struct iq4_terms *t)
{
    static const float below[16] = {-127, -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89};
    const vf x = vf_load(&t->x[j][at]);
    const vi code = iq4_code(vf_max(vf_mul(low, x), vf_mul(high, x)));
    const vf q = vf_look_up_16(iq4_values, code), q_below = vf_look_up_16(below, code);
    const vf wq = vf_mul(weight, q), wq_below = vf_mul(weight, q_below);
    const vf qx = vf_mul(wq, x), q2 = vf_mul(wq, q);
    vf_store(&t->halfway[j][at], vf_look_up_16(iq4_halfway, code));
    vf_store(&t->qx[j][at], qx);
    vf_store(&t->q2[j][at], q2);
    vf_store(&t->qx_flip[j][at], bits_that_differ(qx, vf_mul(wq_below, x)));
    vf_store(&t->q2_flip[j][at], bits_that_differ(q2, vf_mul(wq_below, q_below)));
}

struct iq4_sums {
    vf qx, q2;
};

/* The first fit, which gives the extreme a value near the highest: its sums. */
static inline void iq4_first_sums(const struct iq4_terms *t, float w[32][WIDTH], const vf extreme[VECTORS],
                                  struct iq4_sums sums[VECTORS])
{
    vf inverse[VECTORS];
    EACH_VECTOR(k)
    {
        inverse[k] = vf_div(vf_set1(1), vf_div(vf_neg(extreme[k]), vf_set1(IQ4_LOWEST)));
        sums[k].qx = sums[k].q2 = vf_set1(0);
    }
    for (size_t j = 0; j < 32; j++)
        EACH_VECTOR(k)
        {
            const vf x = vf_load(&t->x[j][k * LANES]);
            const vf q = vf_look_up_16(iq4_values, iq4_code(vf_mul(inverse[k], x)));
            const vf wq = vf_mul(vf_load(&w[j][k * LANES]), q);
            sums[k].qx = vf_add(sums[k].qx, vf_mul(wq, x));
            sums[k].q2 = vf_add(sums[k].q2, vf_mul(wq, q));
        }
}

static inline void iq4_sums_of(const struct iq4_terms *t, const vf inverse[VECTORS], struct iq4_sums sums[VECTORS])
{
    EACH_VECTOR(k)
    sums[k].qx = sums[k].q2 = vf_set1(0);
    for (size_t j = 0; j < 32; j++)
        EACH_VECTOR(k)
        {
            const size_t at = k * LANES;
            const vm lower = vf_lt(vf_mul(inverse[k], vf_load(&t->x[j][at])), vf_load(&t->halfway[j][at]));
            sums[k].qx = vf_add(sums[k].qx, vf_flip(lower, vf_load(&t->qx[j][at]), vf_load(&t->qx_flip[j][at])));
            sums[k].q2 = vf_add(sums[k].q2, vf_flip(lower, vf_load(&t->q2[j][at]), vf_load(&t->q2_flip[j][at])));
        }
}

/* The trials after the first fit, whose @sums come in; @extreme is not 0 in lanes that count. */
static inline void iq4_trials(const struct iq4_terms *t, const vf extreme[VECTORS], struct iq4_sums sums[VECTORS],
                              vf ret_scale[VECTORS])
{
    vf inverse[VECTORS], best[VECTORS];
    EACH_VECTOR(k)
    {
        ret_scale[k] = vf_select(vf_gt(sums[k].q2, vf_set1(0)), vf_div(sums[k].qx, sums[k].q2), vf_set1(0));
        best[k] = vf_mul(ret_scale[k], sums[k].qx);
    }
    for (int i = -IQ4_STEPS; i <= IQ4_STEPS; i++) {
        EACH_VECTOR(k)
        inverse[k] = vf_div(vf_set1((float)(i + IQ4_LOWEST)), extreme[k]);
        iq4_sums_of(t, inverse, sums);
        EACH_VECTOR(k)
        {
            const vf square = vf_mul(sums[k].qx, sums[k].qx), scale = vf_div(sums[k].qx, sums[k].q2);
            const vm fits = vf_gt(sums[k].q2, vf_set1(0));
            const vm better = vm_and(fits, vf_gt(square, vf_mul(best[k], sums[k].q2)));
            ret_scale[k] = vf_select(better, scale, ret_scale[k]);
            best[k] = vf_select(better, vf_mul(scale, sums[k].qx), best[k]);
        }
    }
}

/* Every lane: the element of largest magnitude with its sign, the first of equals. */
static inline void iq4_extremes(float x[32][WIDTH], vf ret[VECTORS])
{
    vf largest[VECTORS];
    EACH_VECTOR(k)
    ret[k] = largest[k] = vf_set1(0);
    for (size_t j = 0; j < 32; j++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[j][k * LANES]);
            ret[k] = vf_select(vf_gt(vf_abs(v), largest[k]), v, ret[k]);
            largest[k] = vf_max(vf_abs(v), largest[k]);
        }
}

/* @t: x is filled in. @w: weights. The scales of the runs, lane after lane, to @ret_scales. */
static inline void iq4_search(struct iq4_terms *t, float w[32][WIDTH], float ret_scales[WIDTH])
{
    vf extreme[VECTORS], scale[VECTORS], low[VECTORS], high[VECTORS];
    struct iq4_sums sums[VECTORS];
    iq4_extremes(t->x, extreme);
    EACH_VECTOR(k)
    {
        low[k] = vf_div(vf_set1(IQ4_LOWEST - IQ4_STEPS), extreme[k]);
        high[k] = vf_div(vf_set1(IQ4_LOWEST + IQ4_STEPS), extreme[k]);
    }
    for (size_t j = 0; j < 32; j++)
        EACH_VECTOR(k)
    iq4_terms_of(vf_load(&w[j][k * LANES]), j, k * LANES, low[k], high[k], t);
    iq4_first_sums(t, w, extreme, sums);
    iq4_trials(t, extreme, sums, scale);
    EACH_VECTOR(k)
    {
        const vm zero = vf_lt(vf_abs(extreme[k]), vf_set1(1e-15f));
        vf_store(ret_scales + k * LANES, vf_select(zero, vf_set1(0), scale[k]));
    }
}

/* The weights of all lanes: the square of x; or @w * sqrt(mean2 + x^2), in place of the importance at @w. */
static inline void iq4_weights(float x[32][WIDTH], const float *mean2, float w[32][WIDTH])
{
    for (size_t at = 0; at < WIDTH; at += LANES)
        for (size_t j = 0; j < 32; j++) {
            const vf v = vf_load(&x[j][at]);
            vf weight = vf_mul(v, v);
            if (mean2)
                weight = vf_mul(vf_load(&w[j][at]), vf_sqrt(vf_add(vf_load(mean2 + at), weight)));
            vf_store(&w[j][at], weight);
        }
}

/* 32 elements at @x to 32 codes. */
static inline void iq4_encode(const char *x, float inverse, uint8_t q[16])
{
    for (size_t j = 0; j < 16; j += LANES) {
        const vi low = iq4_code(vf_mul(vf_set1(inverse), vf_load(x + 4 * j)));
        const vi high = iq4_code(vf_mul(vf_set1(inverse), vf_load(x + 4 * j + 64)));
        vi_store_bytes(q + j, vi_or(low, vi_shift_left(high, 4)));
    }
}

#endif
