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

/* The extremes; @wx: weight * x. */
static inline void symmetric_begin(size_t n, float x[][WIDTH], float w[][WIDTH], float wx[][WIDTH],
                                   struct symmetric_lanes f[VECTORS])
{
    vf largest[VECTORS];
    EACH_VECTOR(k)
    f[k].extreme = largest[k] = vf_set1(0);
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[i][k * LANES]), magnitude = vf_abs(v);
            const vm larger = vf_gt(magnitude, largest[k]);
            f[k].extreme = vf_select(larger, v, f[k].extreme);
            largest[k] = vf_max(magnitude, largest[k]);
            vf_store(&wx[i][k * LANES], vf_mul(vf_load(&w[i][k * LANES]), v));
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
    vf inverse[VECTORS];
    symmetric_begin(n, x, w, wx, f);
    EACH_VECTOR(k)
    f[k].inverse = inverse[k] = vf_div(vf_set1((float)-n_max), f[k].extreme);
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

/* Can vectors round x / @step as the definition does, for |x| up to |@extreme|? */
static inline bool symmetric_ordinary(float extreme, float step)
{
    return fabsf(extreme) < fabsf(step) * 0x1p20f;
}

/*
 * Codes of the @n elements at @x for the scale @step that is stored. A step of 0: the search's codes, of its @inverse
 * and the run's @extreme.
 */
static inline void symmetric_encode(size_t n, int n_max, const char *x, float step, float inverse, float extreme,
                                    uint8_t *codes)
{
    const vf limit = vf_set1((float)n_max);
    if (step == 0 && fabsf(extreme) < 1e-15f) {
        memset(codes, 0, n);
        return;
    }
    for (size_t l = 0; l < n; l += LANES) {
        const vf v = vf_load(x + l * 4);
        const vf quotient = step != 0 ? vf_div(v, vf_set1(step)) : vf_mul(v, vf_set1(inverse));
        vi_store_bytes(codes + l, vi_of_vf(vf_add(symmetric_level(quotient, limit), limit)));
    }
}

#endif
