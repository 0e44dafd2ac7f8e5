/*
 * search_symmetric (kernels/scalar/search.h) for WIDTH runs side by side, a lane each: every lane does the definition's
 * operations in the definition's order, so it has the definition's bits. Its quotients stay within n_max + 1, so
 * there is nothing that vectors could round otherwise.
 */
#ifndef QUANTD_KERNELS_LANES_SYMMETRIC_H
#define QUANTD_KERNELS_LANES_SYMMETRIC_H

#include <math.h>

#include "kernels/lanes/vec.h"

/* What the search found. The codes of a run are symmetric_code(x, inverse). */
struct symmetric_lanes {
    vf scale;
    vf inverse; /* of the best trial; of no use where the run is flat */
    vf extreme; /* the element of largest magnitude */
};

/* What a search goes on from. */
struct symmetric_state {
    vf best; /* scale * lx: what the best trial takes off the error */
    vf lx, l2;
};

/* Code - n_max. */
static inline vf symmetric_level(vf quotient, vf n_max)
{
    return vf_clamp(vf_nearest(quotient), vf_neg(n_max), vf_sub(n_max, vf_set1(1)));
}

/* No value that counts: code 0 everywhere, scale 0. */
static inline vm symmetric_flat(vf extreme)
{
    return vf_lt(vf_abs(extreme), vf_set1(1e-15f));
}

/*
 * The extremes: from the largest and the lowest value. Where these are each other's opposite the first of them in the
 * run counts, and it takes another look.
 */
static inline void symmetric_extremes(size_t n, float x[][WIDTH], vf extreme[VECTORS])
{
    vf highest[VECTORS], lowest[VECTORS];
    EACH_VECTOR(k)
    highest[k] = lowest[k] = vf_load(&x[0][k * LANES]);
    for (size_t i = 1; i < n; i++)
        EACH_VECTOR(k)
        {
            highest[k] = vf_max(vf_load(&x[i][k * LANES]), highest[k]);
            lowest[k] = vf_min(vf_load(&x[i][k * LANES]), lowest[k]);
        }
    EACH_VECTOR(k)
    {
        const vf opposite = vf_neg(lowest[k]), largest = vf_max(highest[k], opposite);
        extreme[k] = vf_select(vf_gt(highest[k], opposite), highest[k], lowest[k]);
        if (vm_any(vf_eq(highest[k], opposite)))
            for (size_t i = n; i-- > 0;) {
                const vf v = vf_load(&x[i][k * LANES]);
                extreme[k] = vf_select(vf_eq(vf_abs(v), largest), v, extreme[k]);
            }
    }
}

/*
 * The sums of the codes that @inverse gives. @below, @above: can quotients lie outside -n_max .. n_max - 1 on that
 * side?
 */
static inline void symmetric_sums(size_t n, vf n_max, bool below, bool above, float x[][WIDTH], float w[][WIDTH],
                                  float wx[][WIDTH], const vf inverse[VECTORS], struct symmetric_state s[VECTORS])
{
    const vf low = vf_neg(n_max), high = vf_sub(n_max, vf_set1(1));
    EACH_VECTOR(k)
    s[k].lx = s[k].l2 = vf_set1(0);
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
        {
            vf l = vf_nearest(vf_mul(inverse[k], vf_load(&x[i][k * LANES])));
            l = above ? vf_min(l, high) : l;
            l = below ? vf_max(l, low) : l;
            s[k].lx = vf_add(s[k].lx, vf_mul(vf_load(&wx[i][k * LANES]), l));
            s[k].l2 = vf_add(s[k].l2, vf_mul(vf_mul(vf_load(&w[i][k * LANES]), l), l));
        }
}

/* The trials @first .. @last around the plain scale, taken where the error falls. */
static inline void symmetric_try(size_t n, int n_max, int first, int last, bool below, bool above, float x[][WIDTH],
                                 float w[][WIDTH], float wx[][WIDTH], struct symmetric_lanes f[VECTORS],
                                 struct symmetric_state s[VECTORS])
{
    for (int i = first; i <= last; i++) {
        const vf goal = vf_set1(-((float)n_max + 0.1f * (float)i));
        vf inverse[VECTORS];
        if (i == 0)
            continue;
        EACH_VECTOR(k)
        inverse[k] = vf_div(goal, f[k].extreme);
        symmetric_sums(n, vf_set1((float)n_max), below, above, x, w, wx, inverse, s);
        EACH_VECTOR(k)
        {
            const vf scale = vf_div(s[k].lx, s[k].l2);
            const vm better =
                vm_and(vf_gt(s[k].l2, vf_set1(0)), vf_gt(vf_mul(s[k].lx, s[k].lx), vf_mul(s[k].best, s[k].l2)));
            f[k].scale = vf_select(better, scale, f[k].scale);
            f[k].inverse = vf_select(better, inverse[k], f[k].inverse);
            s[k].best = vf_select(better, vf_mul(scale, s[k].lx), s[k].best);
        }
    }
}

/*
 * @x, @w: [n][WIDTH]. The trials' extremes lie at n_max + i / 10, i = -9 .. 9: those up to 0.4 beyond n_max need no
 * lower limit, those 0.6 within it no upper one. (n_max is even: half way goes to n_max.)
 */
static inline void symmetric_search(size_t n, int n_max, float x[][WIDTH], float w[][WIDTH],
                                    struct symmetric_lanes f[VECTORS])
{
    _Alignas(64) float wx[32][WIDTH];
    struct symmetric_state s[VECTORS];
    vf inverse[VECTORS], extreme[VECTORS];
    symmetric_extremes(n, x, extreme);
    EACH_VECTOR(k)
    {
        f[k].extreme = extreme[k];
        f[k].inverse = inverse[k] = vf_div(vf_set1((float)-n_max), extreme[k]);
    }
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
    vf_store(&wx[i][k * LANES], vf_mul(vf_load(&w[i][k * LANES]), vf_load(&x[i][k * LANES])));
    symmetric_sums(n, vf_set1((float)n_max), false, true, x, w, wx, inverse, s);
    EACH_VECTOR(k)
    {
        f[k].scale = vf_select(vf_ne(s[k].l2, vf_set1(0)), vf_div(s[k].lx, s[k].l2), vf_set1(0));
        s[k].best = vf_mul(f[k].scale, s[k].lx);
    }
    symmetric_try(n, n_max, -9, -6, false, false, x, w, wx, f, s);
    symmetric_try(n, n_max, -5, 4, false, true, x, w, wx, f, s);
    symmetric_try(n, n_max, 5, 9, true, true, x, w, wx, f, s);
    EACH_VECTOR(k)
    f[k].scale = vf_select(symmetric_flat(f[k].extreme), vf_set1(0), f[k].scale);
}

/* Code + 1.5 * 2^23 of a quotient, whose lowest byte in the bits is the code. */
static inline vf symmetric_shifted(vf quotient, int n_max)
{
    const float magic = 12582912.0f + (float)n_max; /* n_max is even: ties stay ties to even */
    return vf_clamp(vf_add(quotient, vf_set1(magic)), vf_set1(12582912.0f), vf_set1(magic + (float)n_max - 1));
}

/* Codes of the @n elements at @x for an inverse scale. */
static inline void symmetric_encode(size_t n, int n_max, const char *x, float inverse, uint8_t *codes)
{
    for (size_t l = 0; l < n; l += LANES)
        vi_store_bytes(codes + l, vi_bits(symmetric_shifted(vf_mul(vf_load(x + l * 4), vf_set1(inverse)), n_max)));
}

/* The search's codes of a run: of its @inverse and @extreme. */
static inline void symmetric_encode_found(size_t n, int n_max, const char *x, float inverse, float extreme,
                                          uint8_t *codes)
{
    if (fabsf(extreme) < 1e-15f)
        memset(codes, 0, n);
    else
        symmetric_encode(n, n_max, x, inverse, codes);
}

/*
 * Codes of a super-block for the steps that are stored, by their inverses. False: a product lies so near to half way
 * between codes that the quotient may be on the other side of it (2^-22 of the product; codes go to n_max).
 */
static inline bool symmetric_multiply_256(int n_max, const char *x, const float inverse[16], uint8_t codes[256])
{
    vf farthest = vf_set1(0);
    for (size_t j = 0; j < 16; j++)
        for (size_t l = 16 * j; l < 16 * j + 16; l += LANES) {
            const vf product = vf_mul(vf_load(x + l * 4), vf_set1(inverse[j]));
            farthest = vf_max(vf_abs(vf_sub(product, vf_nearest(product))), farthest);
            vi_store_bytes(codes + l, vi_bits(symmetric_shifted(product, n_max)));
        }
    return vm_all(vf_lt(farthest, vf_set1(0.5f - (float)n_max * 0x1p-20f)));
}

static inline void symmetric_divide_256(int n_max, const char *x, const float steps[16], uint8_t codes[256])
{
    for (size_t j = 0; j < 16; j++)
        for (size_t l = 16 * j; l < 16 * j + 16; l += LANES) {
            const vf quotient = vf_div(vf_load(x + l * 4), vf_set1(steps[j]));
            vi_store_bytes(codes + l, vi_bits(symmetric_shifted(quotient, n_max)));
        }
}

/*
 * Codes of a super-block for the steps that are stored; of no meaning where a step is 0: *@ret_zero has a bit for each
 * of these. False: some quotients are beyond what vectors round as the definition does. @extreme: of the sub-blocks.
 */
static inline bool symmetric_encode_256(int n_max, const char *x, const float steps[16], const float extreme[16],
                                        uint8_t codes[256], unsigned *ret_zero)
{
    float inverse[16];
    bool ordinary = true;
    *ret_zero = 0;
    for (size_t j = 0; j < 16; j += LANES) {
        const vf step = vf_load(steps + j);
        const vm zero = vf_eq(step, vf_set1(0));
        const vm within = vf_lt(vf_abs(vf_load(extreme + j)), vf_mul(vf_abs(step), vf_set1(0x1p20f)));
        ordinary = ordinary && vm_all(vm_or(zero, within));
        *ret_zero |= vm_bits(zero) << j;
        vf_store(inverse + j, vf_div(vf_set1(1), step));
    }
    if (ordinary && !symmetric_multiply_256(n_max, x, inverse, codes))
        symmetric_divide_256(n_max, x, steps, codes);
    return ordinary;
}

#endif
