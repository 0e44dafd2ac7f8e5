/*
 * search_affine (kernels/scalar/search.h) for WIDTH runs side by side, a lane each: every lane does the definition's
 * operations in the definition's order, so it has the definition's bits.
 */
#ifndef QUANTD_KERNELS_LANES_AFFINE_H
#define QUANTD_KERNELS_LANES_AFFINE_H

#include "kernels/lanes/vec.h"
#include "kernels/scalar/search.h"

/* What the search found. The codes of a run are affine_code(x, inverse, from). */
struct affine_lanes {
    vf scale, min;      /* min <= 0 */
    vf inverse, from;   /* of the best trial's codes */
    vf lowest, highest; /* of the run, 0 included below */
};

/* Sums over a run that every trial needs. */
struct affine_sums {
    vf w, x; /* weights; weight * x */
};

static inline vf affine_code(vf x, vf inverse, vf from, vf n_max)
{
    return vf_clamp(vf_nearest(vf_mul(inverse, vf_sub(x, from))), vf_set1(0), n_max);
}

/* @sum + weight * |x - y| or its square. */
static inline vf affine_add_error(vf sum, vf weight, vf x, vf code, vf scale, vf min, bool absolute)
{
    const vf diff = vf_sub(vf_add(vf_mul(scale, code), min), x);
    return vf_add(sum, vf_mul(weight, absolute ? vf_abs(diff) : vf_mul(diff, diff)));
}

static inline void affine_begin(size_t n, float x[][WIDTH], float w[][WIDTH], struct affine_lanes f[VECTORS],
                                struct affine_sums sums[VECTORS])
{
    EACH_VECTOR(k)
    {
        const vf v = vf_load(&x[0][k * LANES]), weight = vf_load(&w[0][k * LANES]);
        f[k].lowest = f[k].highest = v;
        sums[k].w = weight;
        sums[k].x = vf_mul(weight, v);
    }
    for (size_t i = 1; i < n; i++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[i][k * LANES]), weight = vf_load(&w[i][k * LANES]);
            f[k].lowest = vf_min(v, f[k].lowest);
            f[k].highest = vf_max(v, f[k].highest);
            sums[k].w = vf_add(sums[k].w, weight);
            sums[k].x = vf_add(sums[k].x, vf_mul(weight, v));
        }
    EACH_VECTOR(k)
    f[k].lowest = vf_select(vf_gt(f[k].lowest, vf_set1(0)), vf_set1(0), f[k].lowest);
}

/* The plain fit from the lowest to the highest value; its error. */
static inline void affine_first(size_t n, vf n_max, float x[][WIDTH], float w[][WIDTH], bool absolute,
                                struct affine_lanes f[VECTORS], vf error[VECTORS])
{
    EACH_VECTOR(k)
    {
        f[k].from = f[k].min = f[k].lowest;
        f[k].inverse = vf_div(n_max, vf_sub(f[k].highest, f[k].lowest));
        f[k].scale = vf_div(vf_set1(1), f[k].inverse);
        error[k] = vf_set1(0);
    }
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[i][k * LANES]), code = affine_code(v, f[k].inverse, f[k].from, n_max);
            error[k] = affine_add_error(error[k], vf_load(&w[i][k * LANES]), v, code, f[k].scale, f[k].min, absolute);
        }
}

/* Codes of the inverse scale @goal / range, the best scale and minimum for them, taken where the error falls */
static inline void affine_try(size_t n, vf n_max, float goal, float x[][WIDTH], float w[][WIDTH], bool absolute,
                              const struct affine_sums sums[VECTORS], struct affine_lanes f[VECTORS], vf error[VECTORS])
{
    float codes[32][WIDTH];
    vf l[VECTORS], l2[VECTORS], xl[VECTORS], inverse[VECTORS], from[VECTORS];
    vf determinant[VECTORS], scale[VECTORS], min[VECTORS], sum[VECTORS];
    EACH_VECTOR(k)
    {
        l[k] = l2[k] = xl[k] = sum[k] = vf_set1(0);
        from[k] = f[k].min;
        inverse[k] = vf_div(vf_set1(goal), vf_sub(f[k].highest, from[k]));
    }
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[i][k * LANES]), code = affine_code(v, inverse[k], from[k], n_max);
            const vf weighted = vf_mul(vf_load(&w[i][k * LANES]), code);
            vf_store(&codes[i][k * LANES], code);
            l[k] = vf_add(l[k], weighted);
            l2[k] = vf_add(l2[k], vf_mul(weighted, code));
            xl[k] = vf_add(xl[k], vf_mul(weighted, v));
        }
    EACH_VECTOR(k)
    {
        determinant[k] = vf_sub(vf_mul(sums[k].w, l2[k]), vf_mul(l[k], l[k]));
        scale[k] = vf_div(vf_sub(vf_mul(sums[k].w, xl[k]), vf_mul(sums[k].x, l[k])), determinant[k]);
        min[k] = vf_div(vf_sub(vf_mul(l2[k], sums[k].x), vf_mul(l[k], xl[k])), determinant[k]);
        const vm positive = vf_gt(min[k], vf_set1(0));
        min[k] = vf_select(positive, vf_set1(0), min[k]);
        scale[k] = vf_select(positive, vf_div(xl[k], l2[k]), scale[k]);
    }
    for (size_t i = 0; i < n; i++)
        EACH_VECTOR(k)
    sum[k] = affine_add_error(sum[k], vf_load(&w[i][k * LANES]), vf_load(&x[i][k * LANES]),
                              vf_load(&codes[i][k * LANES]), scale[k], min[k], absolute);
    EACH_VECTOR(k)
    {
        const vm better = vm_and(vf_gt(determinant[k], vf_set1(0)), vf_lt(sum[k], error[k]));
        error[k] = vf_select(better, sum[k], error[k]);
        f[k].scale = vf_select(better, scale[k], f[k].scale);
        f[k].min = vf_select(better, min[k], f[k].min);
        f[k].inverse = vf_select(better, inverse[k], f[k].inverse);
        f[k].from = vf_select(better, from[k], f[k].from);
    }
}

/*
 * Lanes in which vectors round as the definition does: the range is an ordinary number, and the best minimum so far
 * leaves enough of it. Lanes without range compute nonsense and are put right at the end.
 */
static inline vm affine_ordinary(const struct affine_lanes *f)
{
    const vf range = vf_sub(f->highest, f->lowest);
    const vm number = vm_and(vf_gt(range, vf_set1(1e-30f)), vf_lt(range, vf_set1(1e6f)));
    const vm wide = vf_gt(vf_sub(f->highest, f->min), vf_mul(range, vf_set1(0x1p-14f)));
    return vm_or(vm_and(number, wide), vf_le(f->highest, f->lowest));
}

static inline bool affine_all_ordinary(const struct affine_lanes f[VECTORS])
{
    bool all = true;
    EACH_VECTOR(k)
    all = all && vm_all(affine_ordinary(&f[k]));
    return all;
}

/*
 * @x, @w: [n][WIDTH]. False: some lane's search leaves the range in which vectors round as the definition does; the
 * caller takes the definition for all of them.
 */
static inline bool affine_search(size_t n, int n_max_code, float x[][WIDTH], float w[][WIDTH],
                                 const struct affine_trials *trials, struct affine_lanes f[VECTORS])
{
    const vf n_max = vf_set1((float)n_max_code);
    struct affine_sums sums[VECTORS];
    vf error[VECTORS];
    affine_begin(n, x, w, f, sums);
    affine_first(n, n_max, x, w, trials->absolute, f, error);
    if (!affine_all_ordinary(f))
        return false;
    for (int i = 0; i <= trials->n_steps; i++) {
        affine_try(n, n_max, trials->first + trials->step * (float)i + (float)n_max_code, x, w, trials->absolute, sums,
                   f, error);
        if (!affine_all_ordinary(f))
            return false;
    }
    EACH_VECTOR(k)
    {
        const vm flat = vf_le(f[k].highest, f[k].lowest); /* code 0 everywhere */
        f[k].scale = vf_select(flat, vf_set1(0), f[k].scale);
        f[k].min = vf_select(flat, f[k].lowest, f[k].min);
        f[k].inverse = vf_select(flat, vf_set1(0), f[k].inverse);
        f[k].from = vf_select(flat, f[k].lowest, f[k].from);
    }
    return true;
}

#endif
