/*
 * The short cuts by which kernels/lanes finds the nearest of some values, against the field's comparisons written out:
 * on every float near a place where the answer changes, and on a comb of all others. Prints TAP.
 *
 * usage: nearest [all]: every float there is, in place of the comb
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define QD_VEC_HEADER "tests/kernels/plain_vec.h"
#include "kernels/lanes/iq4.h"

enum { NEAR = 1 << 14 /* floats to either side */, STEP = 509 /* a prime: reaches every low bit pattern */ };

static int n_tests, n_failed;

static void report(bool ok, const char *what)
{
    printf("%sok %d - %s\n", ok ? "" : "not ", ++n_tests, what);
    n_failed += !ok;
}

static bool same(float x, int want, int got)
{
    if (want != got)
        printf("# %a: code %d, the field has %d\n", (double)x, got, want);
    return want == got;
}

/* --- iq4: the field's look for the nearest of 16 (best_index_int8) --- */

static int iq4_reference(float x)
{
    int upper = 1;
    if (x <= iq4_values[0])
        return 0;
    if (x >= iq4_values[15])
        return 15;
    while (upper < 15 && !(x < iq4_values[upper]))
        upper++;
    return x - iq4_values[upper - 1] < iq4_values[upper] - x ? upper - 1 : upper;
}

static bool iq4_is_right(float x)
{
    int n_not_below = 0;
    for (int k = 1; k < 16; k++)
        n_not_below += !(x < iq4_halfway[k]);
    return same(x, iq4_reference(x), n_not_below) && same(x, n_not_below, iq4_code(x));
}

static bool iq4_near(float place)
{
    bool ok = true;
    const int32_t bits = vi_bits(place);
    for (int32_t i = -NEAR; ok && i <= NEAR; i++)
        ok = iq4_is_right(vf_bits(bits + i)); /* beyond zero: NaN, which has a code too */
    return ok;
}

/* Trials over which an element has one value or the one below: no two halfway points of a sign are as near as them. */
static bool iq4_trials_pass_one(void)
{
    const float widest = (float)(IQ4_LOWEST - IQ4_STEPS) / (IQ4_LOWEST + IQ4_STEPS) * 1.001f;
    bool ok = true;
    for (int k = 1; ok && k < 15; k++) {
        const float a = iq4_halfway[k], b = iq4_halfway[k + 1];
        ok = (a < 0) != (b < 0) || (a < 0 ? a / b : b / a) > widest;
    }
    return ok;
}

static void check_iq4(uint64_t step)
{
    bool ok = true;
    for (uint64_t bits = 0; ok && bits <= UINT32_MAX; bits += step)
        ok = iq4_is_right(vf_bits((int32_t)(uint32_t)bits));
    report(ok, step == 1 ? "iq4: codes of all floats" : "iq4: codes of a comb of floats");
    ok = iq4_near(0x1p-149f) && iq4_near(-0x1p-149f);
    for (int k = 0; ok && k < 16; k++)
        ok = iq4_near(iq4_values[k]) && (k == 0 || iq4_near(iq4_halfway[k]));
    report(ok, "iq4: codes of all floats near a change");
    report(iq4_trials_pass_one(), "iq4: no element passes two halfway points in the trials");
}

int main(int argc, char **argv)
{
    const uint64_t step = argc > 1 && strcmp(argv[1], "all") == 0 ? 1 : STEP;
    check_iq4(step);
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}
