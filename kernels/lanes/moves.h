/*
 * search_moves (kernels/scalar/search.h) for runs of 16. The sums that it starts from are made a run a lane. The moves
 * are looked for in rows: all 16 elements of a run are tried against the same sums, the first one that moves is moved,
 * and the run is tried again; so the trials follow each other only from move to move. Half of the runs (those with a
 * positive extreme) need no trial, most others one or two.
 */
#ifndef QUANTD_KERNELS_LANES_MOVES_H
#define QUANTD_KERNELS_LANES_MOVES_H

#include <math.h>

#include "kernels/lanes/symmetric.h"
#include "kernels/scalar/search.h"

enum { MOVES_RUNS = 256, MOVES_ROUNDS = 5 };

/* Runs under search, a slot each, and one that never moves, to fill up groups with. */
struct moves {
    _Alignas(64) float levels[MOVES_RUNS + 1][16]; /* of runs whose extreme is negative */
    _Alignas(64) float extreme[MOVES_RUNS], inverse[MOVES_RUNS];
    float lx[MOVES_RUNS + 1], l2[MOVES_RUNS + 1];
    uint8_t next[MOVES_RUNS + 1], round[MOVES_RUNS + 1]; /* where the round goes on; rounds done */
};

/* The extremes and the sums of the plain scale for runs [run, run + WIDTH), a lane each. @x: [16][WIDTH] */
static inline void moves_begin(int n_max, float x[][WIDTH], size_t run, struct moves *m)
{
    vf extreme[VECTORS], inverse[VECTORS], lx[VECTORS], l2[VECTORS];
    symmetric_extremes(16, x, extreme);
    EACH_VECTOR(k)
    {
        inverse[k] = vf_div(vf_set1((float)-n_max), extreme[k]);
        lx[k] = l2[k] = vf_set1(0);
    }
    for (size_t i = 0; i < 16; i++)
        EACH_VECTOR(k)
        {
            const vf v = vf_load(&x[i][k * LANES]), w = vf_mul(v, v);
            const vf l = vf_min(vf_nearest(vf_mul(inverse[k], v)), vf_set1((float)(n_max - 1)));
            lx[k] = vf_add(lx[k], vf_mul(vf_mul(w, v), l));
            l2[k] = vf_add(l2[k], vf_mul(vf_mul(w, l), l));
        }
    EACH_VECTOR(k)
    {
        const size_t at = run + k * LANES;
        vf_store(m->extreme + at, extreme[k]);
        vf_store(m->inverse + at, inverse[k]);
        vf_store(m->lx + at, lx[k]);
        vf_store(m->l2 + at, l2[k]);
    }
}

/* The level of any quotient, as nearest_int and a clamp have it. */
static inline vf moves_level(int n_max, vf quotient)
{
    const vi bits = vi_and(vi_bits(vf_add(quotient, vf_set1(12582912.0f))), vi_set1(0x007fffff));
    const vi limited = vi_min(vi_max(bits, vi_set1(0x00400000 - n_max)), vi_set1(0x00400000 + n_max - 1));
    return vf_sub(vf_bits(vi_or(limited, vi_set1(0x4b000000))), vf_set1(12582912.0f));
}

/* Vectors and runs that are tried side by side: a trial is a long way through its quotient. */
enum { MOVES_VECTORS = 4, MOVES_GROUP = MOVES_VECTORS * LANES / 16 };
#define EACH_MOVES_VECTOR(k) _Pragma("GCC unroll 4") for (size_t k = 0; k < MOVES_VECTORS; k++)

/* What a trial makes of runs: for each element the level and the sums if it alone moves, and whether it does. */
struct moves_trial {
    vf old[MOVES_VECTORS], level[MOVES_VECTORS];
    _Alignas(64) float lx[MOVES_GROUP][32], l2[MOVES_GROUP][32]; /* [16]: the sums as they are */
    unsigned moving[MOVES_GROUP];
};

/* Tries all elements of the runs in @list against the sums of their run. */
static inline void moves_try(int n_max, const char *src, const struct moves *m, const uint16_t list[MOVES_GROUP],
                             struct moves_trial *t)
{
    const vf zero = vf_set1(0);
    vf w[MOVES_VECTORS], wx[MOVES_VECTORS];
    vf lx[MOVES_VECTORS], l2[MOVES_VECTORS]; /* without the element, then with it where it moves */
    EACH_MOVES_VECTOR(k)
    {
        const size_t run = list[k * LANES / 16], at = k * LANES % 16;
        const vf x = vf_load(src + run % MOVES_RUNS * 64 + at * 4), old = vf_load(&m->levels[run][at]);
        w[k] = vf_mul(x, x);
        wx[k] = vf_mul(w[k], x);
        lx[k] = vf_sub(vf_set1(m->lx[run]), vf_mul(wx[k], old));
        l2[k] = vf_sub(vf_set1(m->l2[run]), vf_mul(vf_mul(w[k], old), old));
        t->old[k] = old;
        t->level[k] = moves_level(n_max, vf_div(vf_mul(x, l2[k]), lx[k]));
        t->moving[k * LANES / 16] = 0;
    }
    EACH_MOVES_VECTOR(k)
    {
        const size_t i = k * LANES / 16, at = k * LANES % 16;
        const vf level = t->level[k], lx_now = vf_set1(m->lx[list[i]]), l2_now = vf_set1(m->l2[list[i]]);
        const vm possible = vm_and(vf_gt(lx[k], zero), vf_ne(level, t->old[k]));
        lx[k] = vf_add(lx[k], vf_mul(wx[k], level));
        l2[k] = vf_add(l2[k], vf_mul(vf_mul(w[k], level), level));
        const vm better = vf_gt(vf_mul(vf_mul(lx[k], lx[k]), l2_now), vf_mul(vf_mul(lx_now, lx_now), l2[k]));
        t->moving[i] |= vm_bits(vm_and(vm_and(possible, vf_gt(l2[k], zero)), better)) << at;
        vf_store(&t->lx[i][at], lx[k]);
        vf_store(&t->l2[i][at], l2[k]);
        vf_store(&t->lx[i][16], lx_now);
        vf_store(&t->l2[i][16], l2_now);
    }
}

/*
 * The first move that a trial of @run found, if there is one. True: the run may move again. Without branches: where
 * runs move cannot be foretold.
 */
static inline bool moves_move(size_t run, size_t i, const struct moves_trial *t, struct moves *m)
{
    const unsigned moving = t->moving[i], later = moving >> m->next[run] << m->next[run];
    const unsigned round = m->round[run] + (later == 0); /* this one is over: another one, from the start */
    const bool moves = (moving != 0) & (round < MOVES_ROUNDS);
    const unsigned left = (later ? later : moving) & (0u - moves), at = (unsigned)__builtin_ctz(left | 0x10000);
    for (size_t l = 0; l < 16; l += LANES) {
        const size_t k = (i * 16 + l) / LANES;
        vf_store(&m->levels[run][l], vf_select(vm_of_bits((left & (0u - left)) >> l), t->level[k], t->old[k]));
    }
    m->lx[run] = t->lx[i][at];
    m->l2[run] = t->l2[i][at];
    m->next[run] = (uint8_t)(at + 1);
    m->round[run] = (uint8_t)round;
    return moves;
}

/* One trial of each of the @n runs of @list; the list becomes those that may move again. */
static inline size_t moves_pass(int n_max, const char *src, struct moves *m, uint16_t list[MOVES_RUNS + MOVES_GROUP],
                                size_t n)
{
    size_t n_left = 0;
    for (size_t i = n; i % MOVES_GROUP != 0; i++)
        list[i] = MOVES_RUNS; /* whole groups: a run of no meaning */
    for (size_t first = 0; first < n; first += MOVES_GROUP) {
        struct moves_trial t;
        uint16_t runs[MOVES_GROUP];
        memcpy(runs, list + first, sizeof runs);
        moves_try(n_max, src, m, runs, &t);
        _Pragma("GCC unroll 4") for (size_t i = 0; i < MOVES_GROUP; i++)
        {
            list[n_left] = runs[i];
            n_left += moves_move(runs[i], i, &t, m);
        }
    }
    return n_left;
}

/* Runs that may move: their levels of the plain scale. */
static inline size_t moves_list(int n_max, const char *src, size_t n_runs, struct moves *m, uint16_t list[MOVES_RUNS])
{
    size_t n = 0;
    memset(m->levels[MOVES_RUNS], 0, sizeof m->levels[MOVES_RUNS]);
    m->lx[MOVES_RUNS] = m->l2[MOVES_RUNS] = 0;
    m->next[MOVES_RUNS] = m->round[MOVES_RUNS] = 0;
    for (size_t run = 0; run < n_runs; run++) {
        list[n] = (uint16_t)run;
        n += m->extreme[run] <= -1e-15f;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t run = list[i];
        const vf inverse = vf_set1(m->inverse[run]);
        for (size_t l = 0; l < 16; l += LANES)
            vf_store(&m->levels[run][l],
                     symmetric_level(vf_mul(inverse, vf_load(src + run * 64 + l * 4)), vf_set1((float)n_max)));
        m->next[run] = m->round[run] = 0;
    }
    return n;
}

/* The moves of the @n_runs runs at @src behind moves_begin, and the scales. */
static inline void moves_search(int n_max, const char *src, size_t n_runs, struct moves *m, float scales[MOVES_RUNS])
{
    uint16_t list[MOVES_RUNS + MOVES_GROUP];
    size_t n = moves_list(n_max, src, n_runs, m, list);
    while (n > 0)
        n = moves_pass(n_max, src, m, list, n);
    for (size_t run = 0; run < n_runs; run += LANES) {
        const vf l2 = vf_load(m->l2 + run), scale = vf_div(vf_load(m->lx + run), l2);
        const vm none = vm_or(symmetric_flat(vf_load(m->extreme + run)), vm_not(vf_gt(l2, vf_set1(0))));
        vf_store(scales + run, vf_select(none, vf_set1(0), scale));
    }
}

#endif
