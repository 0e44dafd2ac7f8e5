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
    _Alignas(64) float extreme[MOVES_RUNS];
    float inverse[MOVES_RUNS + 1], lx[MOVES_RUNS + 1], l2[MOVES_RUNS + 1];
    uint16_t moving[MOVES_RUNS + 1]; /* found by a trial: a bit for each element */
    uint16_t later[MOVES_RUNS];      /* elements that the round has still before it, likewise */
    uint8_t round[MOVES_RUNS];       /* rounds done */
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

/*
 * Tries all elements of the runs in @list against the sums of their run: the bits of those that move. @first: the
 * levels are still to be made, of the plain scale.
 */
static inline __attribute__((always_inline)) void moves_try(int n_max, bool first, const char *src, struct moves *m,
                                                            const uint16_t list[MOVES_GROUP])
{
    const vf zero = vf_set1(0);
    vf w[MOVES_VECTORS], wx[MOVES_VECTORS], old[MOVES_VECTORS], level[MOVES_VECTORS];
    vf lx[MOVES_VECTORS], l2[MOVES_VECTORS]; /* without the element, then with it where it moves */
    unsigned moving[MOVES_GROUP] = {0};
    EACH_MOVES_VECTOR(k)
    {
        const size_t run = list[k * LANES / 16], at = k * LANES % 16;
        const vf x = vf_load(src + run % MOVES_RUNS * 64 + at * 4);
        const vf plain = vf_min(vf_nearest(vf_mul(vf_set1(m->inverse[run]), x)), vf_set1((float)(n_max - 1)));
        old[k] = first ? plain : vf_load(&m->levels[run][at]);
        if (first)
            vf_store(&m->levels[run][at], plain);
        w[k] = vf_mul(x, x);
        wx[k] = vf_mul(w[k], x);
        lx[k] = vf_sub(vf_set1(m->lx[run]), vf_mul(wx[k], old[k]));
        l2[k] = vf_sub(vf_set1(m->l2[run]), vf_mul(vf_mul(w[k], old[k]), old[k]));
        level[k] = moves_level(n_max, vf_div(vf_mul(x, l2[k]), lx[k]));
    }
    EACH_MOVES_VECTOR(k)
    {
        const size_t i = k * LANES / 16, at = k * LANES % 16;
        const vf lx_now = vf_set1(m->lx[list[i]]), l2_now = vf_set1(m->l2[list[i]]);
        const vm possible = vm_and(vf_gt(lx[k], zero), vf_ne(level[k], old[k]));
        lx[k] = vf_add(lx[k], vf_mul(wx[k], level[k]));
        l2[k] = vf_add(l2[k], vf_mul(vf_mul(w[k], level[k]), level[k]));
        const vm better = vf_gt(vf_mul(vf_mul(lx[k], lx[k]), l2_now), vf_mul(vf_mul(lx_now, lx_now), l2[k]));
        moving[i] |= vm_bits(vm_and(vm_and(possible, vf_gt(l2[k], zero)), better)) << at;
    }
    for (size_t i = 0; i < MOVES_GROUP; i++)
        m->moving[list[i]] = (uint16_t)moving[i];
}

/* Moves element @at of a run: its level and the run's sums, as moves_try has seen them. */
static inline void moves_move(int n_max, const char *src, struct moves *m, size_t run, unsigned at)
{
    float x;
    memcpy(&x, src + run * 64 + at * sizeof x, sizeof x);
    const float w = x * x, old = m->levels[run][at];
    const float lx = m->lx[run] - w * x * old, l2 = m->l2[run] - w * old * old;
    const float level = (float)clamp_int(nearest_int(x * l2 / lx), -n_max, n_max - 1);
    for (size_t l = 0; l < 16; l += LANES) { /* whole vectors: as such they are read */
        const vm here = vm_of_bits(1u << at >> l);
        vf_store(&m->levels[run][l], vf_select(here, vf_set1(level), vf_load(&m->levels[run][l])));
    }
    m->lx[run] = lx + w * x * level;
    m->l2[run] = l2 + w * level * level;
}

/*
 * One trial of each of the @n runs of @list and the first move that it finds; the list becomes those that may move
 * again. The trials are without branches: which runs move cannot be foretold.
 */
static inline __attribute__((always_inline)) size_t moves_pass(int n_max, bool first, const char *src, struct moves *m,
                                                               uint16_t list[MOVES_RUNS + MOVES_GROUP], size_t n)
{
    size_t n_moving = 0, n_left = 0;
    for (size_t i = n; i % MOVES_GROUP != 0; i++)
        list[i] = MOVES_RUNS; /* whole groups */
    for (size_t i = 0; i < n; i += MOVES_GROUP)
        moves_try(n_max, first, src, m, list + i);
    for (size_t i = 0; i < n; i++) {
        const uint16_t run = list[i];
        list[n_moving] = run;
        n_moving += m->moving[run] != 0;
    }
    for (size_t i = 0; i < n_moving; i++) {
        const size_t run = list[i];
        const unsigned moving = m->moving[run], later = moving & m->later[run];
        const unsigned bit = later ? later : moving;             /* and those above: the next move is its lowest */
        m->round[run] = (uint8_t)(m->round[run] + (later == 0)); /* this one is over: another one, from the start */
        if (m->round[run] == MOVES_ROUNDS)
            continue;
        moves_move(n_max, src, m, run, (unsigned)__builtin_ctz(bit));
        m->later[run] = (uint16_t) ~(bit ^ (bit - 1));
        list[n_left++] = (uint16_t)run;
    }
    return n_left;
}

/* Runs that may move. */
static inline size_t moves_list(size_t n_runs, struct moves *m, uint16_t list[MOVES_RUNS])
{
    size_t n = 0;
    memset(m->later, 0xff, sizeof m->later);
    memset(m->round, 0, sizeof m->round);
    m->lx[MOVES_RUNS] = m->l2[MOVES_RUNS] = m->inverse[MOVES_RUNS] = 0;
    for (size_t run = 0; run < n_runs; run++) {
        list[n] = (uint16_t)run;
        n += m->extreme[run] <= -1e-15f;
    }
    return n;
}

/* The moves of the @n_runs runs at @src behind moves_begin, and the scales. */
static inline void moves_search(int n_max, const char *src, size_t n_runs, struct moves *m, float scales[MOVES_RUNS])
{
    uint16_t list[MOVES_RUNS + MOVES_GROUP];
    size_t n = moves_pass(n_max, true, src, m, list, moves_list(n_runs, m, list));
    while (n > 0)
        n = moves_pass(n_max, false, src, m, list, n);
    for (size_t run = 0; run < n_runs; run += LANES) {
        const vf l2 = vf_load(m->l2 + run), scale = vf_div(vf_load(m->lx + run), l2);
        const vm none = vm_or(symmetric_flat(vf_load(m->extreme + run)), vm_not(vf_gt(l2, vf_set1(0))));
        vf_store(scales + run, vf_select(none, vf_set1(0), scale));
    }
}

#endif
