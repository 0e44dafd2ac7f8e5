/*
 * search_affine (kernels/scalar/search.h) for AFFINE_WIDTH runs side by side, a lane each: every lane does the
 * definition's operations in the definition's order, so it has the definition's bits.
 *
 * A trial is two passes over a run, each ending in sums that quotients are made of. Vectors go in pairs: within a
 * pass one vector's sum waits for its last term while the other goes on; and while one pair waits for its quotients the
 * other is in its pass.
 */
#ifndef QUANTD_KERNELS_LANES_AFFINE_H
#define QUANTD_KERNELS_LANES_AFFINE_H

#include "kernels/lanes/vec.h"
#include "kernels/scalar/search.h"

enum { AFFINE_PAIRS = 2, AFFINE_PAIR = 2 * LANES, AFFINE_WIDTH = AFFINE_PAIRS * AFFINE_PAIR, AFFINE_MAX_RUN = 32 };

/* for (k = 0, 1), unrolled: the vectors of a pair */
#define EACH_OF_PAIR(k) _Pragma("GCC unroll 2") for (size_t k = 0; k < 2; k++)

/* What the search found. The codes of a run are affine_code(x, inverse, from). */
struct affine_fit {
    vf scale, min;      /* min <= 0 */
    vf inverse, from;   /* of the best trial's codes */
    vf lowest, highest; /* of the run, 0 included below */
};

/* A pair on its way through the trials. */
struct affine_pair {
    const float *x, *w; /* element i of lane j: [i * AFFINE_WIDTH + j] */
    float *codes;       /* the trial's, likewise */
    struct affine_fit best[2];
    vf error[2];           /* of the best */
    vf sum_w[2], sum_x[2]; /* weights; weight * x */
    vf inverse[2];         /* the trial's; its codes count from best.min */
    vf scale[2], min[2];   /* the trial's fit */
    vm determined[2];      /* lanes whose fit the codes determine */
    bool below;            /* a trial had codes below 0 to clamp */
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

/* The codes of a run of @n f32 at @x, in the order of the elements. */
static inline void affine_encode(size_t n, const char *x, vf n_max, float inverse, float from, uint8_t *codes)
{
    for (size_t l = 0; l < n; l += LANES)
        vi_store_bytes(codes + l, vi_of_vf(affine_code(vf_load(x + l * 4), vf_set1(inverse), vf_set1(from), n_max)));
}

static inline void affine_begin(struct affine_pair *p, size_t n)
{
    vf lowest[2], highest[2], sum_w[2], sum_x[2];
    EACH_OF_PAIR(k)
    {
        lowest[k] = highest[k] = vf_load(p->x + k * LANES);
        sum_w[k] = vf_load(p->w + k * LANES);
        sum_x[k] = vf_mul(sum_w[k], lowest[k]);
    }
    for (size_t at = AFFINE_WIDTH; at < n * AFFINE_WIDTH; at += AFFINE_WIDTH)
        EACH_OF_PAIR(k)
        {
            const vf x = vf_load(p->x + at + k * LANES), w = vf_load(p->w + at + k * LANES);
            lowest[k] = vf_min(x, lowest[k]);
            highest[k] = vf_max(x, highest[k]);
            sum_w[k] = vf_add(sum_w[k], w);
            sum_x[k] = vf_add(sum_x[k], vf_mul(w, x));
        }
    EACH_OF_PAIR(k)
    {
        lowest[k] = vf_select(vf_gt(lowest[k], vf_set1(0)), vf_set1(0), lowest[k]);
        p->best[k].lowest = p->best[k].from = p->best[k].min = lowest[k];
        p->best[k].highest = highest[k];
        p->sum_w[k] = sum_w[k];
        p->sum_x[k] = sum_x[k];
    }
    p->below = false;
}

/* The plain fit from the lowest to the highest value. */
static inline void affine_first(struct affine_pair *p, size_t n, vf n_max, bool absolute)
{
    vf inverse[2], scale[2], min[2], sum[2];
    EACH_OF_PAIR(k)
    {
        min[k] = p->best[k].min;
        inverse[k] = vf_div(n_max, vf_sub(p->best[k].highest, min[k]));
        scale[k] = vf_div(vf_set1(1), inverse[k]);
        sum[k] = vf_set1(0);
    }
    for (size_t at = 0; at < n * AFFINE_WIDTH; at += AFFINE_WIDTH)
        EACH_OF_PAIR(k)
        {
            const vf x = vf_load(p->x + at + k * LANES), w = vf_load(p->w + at + k * LANES);
            const vf code = affine_code(x, inverse[k], min[k], n_max);
            sum[k] = affine_add_error(sum[k], w, x, code, scale[k], min[k], absolute);
        }
    EACH_OF_PAIR(k)
    {
        p->best[k].inverse = inverse[k];
        p->best[k].scale = scale[k];
        p->error[k] = sum[k];
    }
}

/*
 * Lanes in which vectors round as the definition does: the range is an ordinary number, and the best minimum so far
 * leaves enough of it. Lanes without range compute nonsense and are put right at the end.
 */
static inline vm affine_ordinary(const struct affine_fit *f)
{
    const vf range = vf_sub(f->highest, f->lowest);
    const vm number = vm_and(vf_gt(range, vf_set1(1e-30f)), vf_lt(range, vf_set1(1e6f)));
    const vm wide = vf_gt(vf_sub(f->highest, f->min), vf_mul(range, vf_set1(0x1p-14f)));
    return vm_or(vm_and(number, wide), vf_le(f->highest, f->lowest));
}

/* Weighted least squares for the scale and the minimum of the trial's codes. */
static inline void affine_solve(struct affine_pair *p, const vf l[2], const vf l2[2], const vf xl[2])
{
    EACH_OF_PAIR(k)
    {
        const vf determinant = vf_sub(vf_mul(p->sum_w[k], l2[k]), vf_mul(l[k], l[k]));
        const vf scale = vf_div(vf_sub(vf_mul(p->sum_w[k], xl[k]), vf_mul(p->sum_x[k], l[k])), determinant);
        const vf min = vf_div(vf_sub(vf_mul(l2[k], p->sum_x[k]), vf_mul(l[k], xl[k])), determinant);
        const vm positive = vf_gt(min, vf_set1(0));
        p->determined[k] = vf_gt(determinant, vf_set1(0));
        p->scale[k] = scale;
        p->min[k] = min;
        if (vm_any(positive)) {
            p->min[k] = vf_select(positive, vf_set1(0), min);
            p->scale[k] = vf_select(positive, vf_div(xl[k], l2[k]), scale);
        }
    }
}

/* The inverse scale of the next trial, @goal / range; as early as can be, for it takes a while. */
static inline void affine_aim(struct affine_pair *p, float goal)
{
    EACH_OF_PAIR(k)
    {
        const struct affine_fit *f = &p->best[k];
        p->inverse[k] = vf_div(vf_set1(goal), vf_sub(f->highest, f->min));
        p->below |= vm_any(vf_lt(vf_mul(p->inverse[k], vf_sub(f->lowest, f->min)), vf_set1(-0.5f)));
    }
}

/* First pass: the trial's codes and the sums that their fit is made of. @below, @above: which clamps are needed. */
static inline __attribute__((always_inline)) void affine_codes(struct affine_pair *p, size_t n, vf n_max, bool below,
                                                               bool above)
{
    const float *x = p->x, *w = p->w;
    float *codes = p->codes;
    vf l[2], l2[2], xl[2], inverse[2], from[2];
    EACH_OF_PAIR(k)
    {
        l[k] = l2[k] = xl[k] = vf_set1(0);
        inverse[k] = p->inverse[k];
        from[k] = p->best[k].min;
    }
    for (size_t at = 0; at < n * AFFINE_WIDTH; at += AFFINE_WIDTH)
        EACH_OF_PAIR(k)
        {
            const vf v = vf_load(x + at + k * LANES);
            vf code = vf_nearest(vf_mul(inverse[k], vf_sub(v, from[k])));
            code = above ? vf_min(code, n_max) : code;
            code = below ? vf_max(code, vf_set1(0)) : code;
            const vf weighted = vf_mul(vf_load(w + at + k * LANES), code);
            vf_store(codes + at + k * LANES, code);
            l[k] = vf_add(l[k], weighted);
            l2[k] = vf_add(l2[k], vf_mul(weighted, code));
            xl[k] = vf_add(xl[k], vf_mul(weighted, v));
        }
    affine_solve(p, l, l2, xl);
}

/*
 * First pass of the trial for @goal. Below n_max + 0.5 the highest value, and so every value, rounds to n_max at most:
 * most trials have nothing to clamp.
 */
static inline void affine_try(struct affine_pair *p, size_t n, int n_max_code, float goal)
{
    const vf n_max = vf_set1((float)n_max_code);
    const bool above = !(goal < (float)n_max_code + 0.499f);
    if (p->below && above)
        affine_codes(p, n, n_max, true, true);
    else if (p->below)
        affine_codes(p, n, n_max, true, false);
    else if (above)
        affine_codes(p, n, n_max, false, true);
    else
        affine_codes(p, n, n_max, false, false);
}

/* Second pass: the error of the trial's fit, which is taken where that fell. False: a lane is not ordinary any more. */
static inline bool affine_judge(struct affine_pair *p, size_t n, bool absolute)
{
    const float *x = p->x, *w = p->w, *codes = p->codes;
    vf sum[2], scale[2], min[2];
    bool ordinary = true;
    EACH_OF_PAIR(k)
    {
        sum[k] = vf_set1(0);
        scale[k] = p->scale[k];
        min[k] = p->min[k];
    }
    for (size_t at = 0; at < n * AFFINE_WIDTH; at += AFFINE_WIDTH)
        EACH_OF_PAIR(k)
        {
            const vf v = vf_load(x + at + k * LANES), code = vf_load(codes + at + k * LANES);
            sum[k] = affine_add_error(sum[k], vf_load(w + at + k * LANES), v, code, scale[k], min[k], absolute);
        }
    EACH_OF_PAIR(k)
    {
        struct affine_fit *best = &p->best[k];
        const vm better = vm_and(p->determined[k], vf_lt(sum[k], p->error[k]));
        p->error[k] = vf_select(better, sum[k], p->error[k]);
        best->scale = vf_select(better, scale[k], best->scale);
        best->inverse = vf_select(better, p->inverse[k], best->inverse);
        best->from = vf_select(better, best->min, best->from);
        best->min = vf_select(better, min[k], best->min);
        ordinary = ordinary && vm_all(affine_ordinary(best));
    }
    return ordinary;
}

/* Runs without range have code 0 everywhere. */
static inline void affine_end(struct affine_fit *f)
{
    const vm flat = vf_le(f->highest, f->lowest);
    f->scale = vf_select(flat, vf_set1(0), f->scale);
    f->min = vf_select(flat, f->lowest, f->min);
    f->inverse = vf_select(flat, vf_set1(0), f->inverse);
    f->from = vf_select(flat, f->lowest, f->from);
}

static inline float affine_goal(const struct affine_trials *trials, int n_max, int trial)
{
    return trials->first + trials->step * (float)trial + (float)n_max;
}

/*
 * @x, @w: element i of lane j at [i][j]; @n <= AFFINE_MAX_RUN elements. Only the first @n_pairs pairs are searched.
 * False: some lane's search leaves the range in which vectors round as the definition does; the caller takes the
 * definition for all of them.
 */
static inline bool affine_search(size_t n, int n_max, float x[][AFFINE_WIDTH], float w[][AFFINE_WIDTH],
                                 const struct affine_trials *trials, size_t n_pairs,
                                 struct affine_fit ret[2 * AFFINE_PAIRS])
{
    _Alignas(64) float codes[AFFINE_MAX_RUN][AFFINE_WIDTH];
    struct affine_pair pairs[AFFINE_PAIRS];
    for (size_t i = 0; i < n_pairs; i++) {
        pairs[i].x = x[0] + i * AFFINE_PAIR;
        pairs[i].w = w[0] + i * AFFINE_PAIR;
        pairs[i].codes = codes[0] + i * AFFINE_PAIR;
        affine_begin(&pairs[i], n);
        affine_first(&pairs[i], n, vf_set1((float)n_max), trials->absolute);
        if (!vm_all(affine_ordinary(&pairs[i].best[0])) || !vm_all(affine_ordinary(&pairs[i].best[1])))
            return false;
        affine_aim(&pairs[i], affine_goal(trials, n_max, 0));
    }
    for (int t = 0; t <= trials->n_steps; t++) {
        for (size_t i = 0; i < n_pairs; i++)
            affine_try(&pairs[i], n, n_max, affine_goal(trials, n_max, t));
        for (size_t i = 0; i < n_pairs; i++) {
            if (!affine_judge(&pairs[i], n, trials->absolute))
                return false;
            affine_aim(&pairs[i], affine_goal(trials, n_max, t + 1));
        }
    }
    for (size_t k = 0; k < 2 * n_pairs; k++) {
        ret[k] = pairs[k / 2].best[k % 2];
        affine_end(&ret[k]);
    }
    return true;
}

#endif
