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
#include "kernels/lanes/mxfp4.h"
#include "kernels/lanes/ternary.h"

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
    const uint32_t bits = (uint32_t)vi_bits(place);
    for (int32_t i = -NEAR; ok && i <= NEAR; i++)
        ok = iq4_is_right(vf_bits((int32_t)(bits + (uint32_t)i))); /* beyond zero: NaN, which has a code too */
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

/* --- E2M1: the field's look for the first of 16 values that is nearest (best_index_mxfp4) --- */

static int e2m1_reference(float x, float d)
{
    int nearest = 0;
    for (int code = 1; code < 16; code++)
        if (fabsf(codebook_e2m1[code] * d - x) < fabsf(codebook_e2m1[nearest] * d - x))
            nearest = code;
    return nearest;
}

static bool e2m1_is_right(float x)
{
    return same(x, e2m1_reference(x, 1), mxfp4_code(x, 1));
}

static void check_e2m1(uint64_t step)
{
    const float changes[] = {0.5f, 1, 1.5f, 2, 2.5f, 3, 3.5f, 4, 5, 6, 7, 8, 10, 12};
    bool ok = true;
    for (uint32_t bits = 0; ok && bits < 0x41800000; bits += (uint32_t)step) /* up to 16: no element is larger */
        ok = e2m1_is_right(vf_bits((int32_t)bits)) && e2m1_is_right(-vf_bits((int32_t)bits));
    report(ok, step == 1 ? "E2M1: codes of all floats below 16" : "E2M1: codes of a comb of floats below 16");
    ok = true;
    for (size_t k = 0; ok && k < sizeof changes / sizeof changes[0]; k++)
        for (int32_t i = -NEAR; ok && i <= NEAR; i++) {
            const float x = vf_bits(vi_bits(changes[k]) + i);
            ok = e2m1_is_right(x) && e2m1_is_right(-x);
        }
    report(ok, "E2M1: codes of all floats near a change");
}

/* --- The exponent of a block, by the C library's logarithm --- */

/* As the field's encoder has it; its conversion to a byte, of what may be negative, is the low byte on x86-64. */
static uint8_t exponent_reference(float largest)
{
    return (uint8_t)(int)(floorf(log2f(largest)) - 2 + 127);
}

static bool exponent_is_right(uint32_t bits)
{
    const float x = vf_bits((int32_t)bits);
    return same(x, exponent_reference(x), mxfp4_exponent(x));
}

static void check_exponents(uint64_t step)
{
    bool ok = true;
    for (uint32_t bits = 1; ok && bits < 0x7f800000; bits += (uint32_t)step)
        ok = exponent_is_right(bits);
    report(ok, step == 1 ? "E8M0: exponents of all floats" : "E8M0: exponents of a comb of floats");
    ok = true;
    for (int k = -149; ok && k <= 128; k++) {
        const int64_t place = k < -126 ? INT64_C(1) << (k + 149) : (int64_t)(k + 127) << 23;
        for (int64_t bits = place - NEAR; ok && bits <= place + NEAR; bits++)
            ok = bits <= 0 || bits >= 0x7f800000 || exponent_is_right((uint32_t)bits);
    }
    report(ok, "E8M0: exponents of all floats near a power of two");
}

/* --- Ternary: roundf, and the field's division --- */

static bool level_is_right(float x)
{
    return same(x, (int)roundf(x), (int)ternary_level(x, 1));
}

static void check_ternary(uint64_t step)
{
    bool ok = true;
    for (uint32_t bits = 0; ok && bits <= 0x3f800008; bits += (uint32_t)step) /* up to 1 and some */
        ok = level_is_right(vf_bits((int32_t)bits)) && level_is_right(-vf_bits((int32_t)bits));
    for (int32_t i = -NEAR; ok && i <= NEAR; i++)
        ok = level_is_right(vf_bits(0x3f000000 + i)) && level_is_right(-vf_bits(0x3f000000 + i));
    report(ok, "ternary: halves go away from zero");
    ok = true;
    for (int number = 0; ok && number < 243; number++) {
        float levels[5];
        for (int n = 4, rest = number; n >= 0; n--, rest /= 3)
            levels[n] = (float)(rest % 3 - 1);
        ok = same((float)number, (number * 256 + 242) / 243, ternary_byte(levels));
    }
    report(ok, "ternary: all bytes of five");
}

int main(int argc, char **argv)
{
    const uint64_t step = argc > 1 && strcmp(argv[1], "all") == 0 ? 1 : STEP;
    check_iq4(step);
    check_e2m1(step);
    check_exponents(step);
    check_ternary(step);
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}
