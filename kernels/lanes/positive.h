/*
 * search_positive (kernels/scalar/search.h) for POSITIVE_WIDTH runs side by side, a lane each, with the definition's
 * bits: scales and minima of the sub-blocks of several super-blocks.
 */
#ifndef QUANTD_KERNELS_LANES_POSITIVE_H
#define QUANTD_KERNELS_LANES_POSITIVE_H

#include "kernels/lanes/vec.h"

enum { POSITIVE_WIDTH = 16 /* every LANES divides it */, POSITIVE_MAX_RUN = 16 };

/* Element i of run j at [i][j]. */
struct positive_runs {
    _Alignas(64) float x[POSITIVE_MAX_RUN][POSITIVE_WIDTH];
    _Alignas(64) float w[POSITIVE_MAX_RUN][POSITIVE_WIDTH];
    _Alignas(64) float codes[POSITIVE_MAX_RUN][POSITIVE_WIDTH]; /* the result */
    _Alignas(64) float scale[POSITIVE_WIDTH];                   /* the result: x ~ scale * code */
};

static inline vf positive_error(const struct positive_runs *r, size_t n, vf n_max, size_t at, vf inverse)
{
    const vf scale = vf_div(vf_set1(1), inverse);
    vf sum = vf_set1(0);
    for (size_t i = 0; i < n; i++) {
        const vf x = vf_load(&r->x[i][at]), code = vf_min(vf_nearest(vf_mul(inverse, x)), n_max);
        const vf diff = vf_sub(x, vf_mul(scale, code));
        sum = vf_add(sum, vf_mul(vf_mul(vf_load(&r->w[i][at]), diff), diff));
    }
    return sum;
}

/* The inverse scale of least error among nine around n_max / max. */
static inline vf positive_best_inverse(const struct positive_runs *r, size_t n, int n_max_code, size_t at, vf max)
{
    const vf n_max = vf_set1((float)n_max_code);
    vf best = vf_div(n_max, max), least = positive_error(r, n, n_max, at, best);
    for (int i = -4; i <= 4; i++) {
        if (i == 0)
            continue;
        const vf inverse = vf_div(vf_set1(0.1f * (float)i + (float)n_max_code), max);
        const vf error = positive_error(r, n, n_max, at, inverse);
        const vm better = vf_lt(error, least);
        least = vf_select(better, error, least);
        best = vf_select(better, inverse, best);
    }
    return best;
}

/* Sums of weight * x * code and of weight * code^2. */
struct positive_sums {
    vf lx, l2;
};

static inline struct positive_sums positive_encode(struct positive_runs *r, size_t n, vf n_max, size_t at, vf inverse)
{
    struct positive_sums sums = {vf_set1(0), vf_set1(0)};
    for (size_t i = 0; i < n; i++) {
        const vf x = vf_load(&r->x[i][at]), w = vf_load(&r->w[i][at]);
        const vf code = vf_min(vf_nearest(vf_mul(inverse, x)), n_max);
        vf_store(&r->codes[i][at], code);
        sums.lx = vf_add(sums.lx, vf_mul(vf_mul(w, x), code));
        sums.l2 = vf_add(sums.l2, vf_mul(vf_mul(w, code), code));
    }
    return sums;
}

/*
 * One round of moving single codes where that brings the fit nearer; the lanes in which some were moved. *@beyond gets
 * those that ask for a code that vectors do not round as the definition does.
 */
static inline vm positive_refine(struct positive_runs *r, size_t n, vf n_max, size_t at, vm live,
                                 struct positive_sums *sums, vm *beyond)
{
    const vf zero = vf_set1(0);
    vm changed = vf_lt(zero, zero);
    for (size_t i = 0; i < n; i++) {
        const vf x = vf_load(&r->x[i][at]), w = vf_load(&r->w[i][at]), old = vf_load(&r->codes[i][at]);
        const vf wx = vf_mul(w, x);
        vf lx = vf_sub(sums->lx, vf_mul(wx, old)), l2 = vf_sub(sums->l2, vf_mul(vf_mul(w, old), old));
        const vm defined = vm_and(live, vm_and(vf_gt(lx, zero), vf_gt(l2, zero)));
        const vf quotient = vf_div(vf_mul(x, l2), lx), code = vf_min(vf_nearest(quotient), n_max);
        *beyond = vm_or(*beyond, vm_and(defined, vm_not(vf_le(quotient, vf_set1(0x1p22f)))));
        lx = vf_add(lx, vf_mul(wx, code));
        l2 = vf_add(l2, vf_mul(vf_mul(w, code), code));
        const vm nearer = vf_gt(vf_mul(vf_mul(lx, lx), sums->l2), vf_mul(vf_mul(sums->lx, sums->lx), l2));
        const vm moves = vm_and(vm_and(defined, vf_ne(code, old)), nearer);
        vf_store(&r->codes[i][at], vf_select(moves, code, old));
        sums->lx = vf_select(moves, lx, sums->lx);
        sums->l2 = vf_select(moves, l2, sums->l2);
        changed = vm_or(changed, moves);
    }
    return changed;
}

/* LANES runs from @at on. */
static inline bool positive_search_at(struct positive_runs *r, size_t n, int n_max_code, size_t at)
{
    const vf n_max = vf_set1((float)n_max_code), zero = vf_set1(0);
    vf max = zero;
    vm ordinary = vf_eq(zero, zero), beyond = vf_lt(zero, zero);
    for (size_t i = 0; i < n; i++) {
        const vf x = vf_load(&r->x[i][at]);
        max = vf_max(max, x);
        ordinary = vm_and(ordinary, vm_and(vf_ge(x, zero), vf_lt(x, vf_set1(1e30f))));
    }
    if (!vm_all(ordinary))
        return false;
    const vm live = vf_ge(max, vf_set1(1e-15f)); /* the others count as zero */
    struct positive_sums sums = positive_encode(r, n, n_max, at, positive_best_inverse(r, n, n_max_code, at, max));
    for (int round = 0; round < 5; round++)
        if (!vm_any(positive_refine(r, n, n_max, at, live, &sums, &beyond)))
            break;
    for (size_t i = 0; i < n; i++)
        vf_store(&r->codes[i][at], vf_select(live, vf_load(&r->codes[i][at]), zero));
    const vm some = vm_and(live, vf_gt(sums.l2, zero));
    vf_store(&r->scale[at], vf_select(some, vf_div(sums.lx, sums.l2), zero));
    return !vm_any(beyond);
}

/* Of all runs; @n elements. False: one of them is for the definition, as vectors would round otherwise. */
static inline bool positive_search(struct positive_runs *r, size_t n, int n_max)
{
    for (size_t at = 0; at < POSITIVE_WIDTH; at += LANES)
        if (!positive_search_at(r, n, n_max, at))
            return false;
    return true;
}

#endif
