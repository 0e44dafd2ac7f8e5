/* Sums of products of f32: every length, kind and alignment. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { MAX_ELEMENTS = 4100 };

static float row_a[MAX_ELEMENTS], row_b[MAX_ELEMENTS];

static float call(const struct packed_entry *e, const void *a, const void *b, size_t n)
{
    float sum = ((dot_fn *)e->fn)(a, b, n);
    one_nan(&sum, 1);
    return sum;
}

/* Each product and each sum rounds once, and partial sums are no larger than the sum of magnitudes. */
static bool is_near(float sum, size_t n)
{
    double exact = 0, magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        exact += (double)row_a[i] * (double)row_b[i];
        magnitude += fabs((double)row_a[i] * (double)row_b[i]);
    }
    const double n_roundings = (double)n / 64 + 8;
    return magnitude > 1e38 || fabs((double)sum - exact) <= n_roundings * (0x1p-24 * 1.01 * magnitude + 0x1p-149);
}

static bool try_dot(const struct packed_entry *tested, const struct packed_entry *scalar, size_t n, size_t at, int kind)
{
    const void *a = memcpy(place_last(bed.x, n * 4, at % 67), row_a, n * 4);
    const void *b = memcpy(place_last(bed.weights, n * 4, at / 3 % 67), row_b, n * 4);
    const float got = call(tested, a, b, n), want = call(scalar, a, b, n);
    const bool near = kind == DATA_N_KINDS || is_near(got, n);
    if (memcmp(&got, &want, sizeof got) == 0 && near)
        return true;
    printf("# %s %s: %a instead of %a%s; n %zu, data %s\n", tested->op, tested->variant, (double)got, (double)want,
           near ? "" : ", and too far from the exact sum", n,
           kind < DATA_N_KINDS ? data_name((enum data_kind)kind) : "NaN");
    return false;
}

static void fill(int kind, size_t n, uint64_t seed)
{
    data_fill((enum data_kind)(kind % DATA_N_KINDS), row_a, n, seed);
    data_fill(seed % 3 ? DATA_gaussian : (enum data_kind)(kind % DATA_N_KINDS), row_b, n, seed + 1);
    if (kind == DATA_N_KINDS)
        data_fill_nonfinite(row_a, n, seed);
}

void check_dot(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    bool ok = true;
    size_t tried = 0;
    for (size_t n = 0; ok && n <= MAX_ELEMENTS; n += n < 200 ? (bed.brief ? 7 : 1) : 487)
        for (int kind = 0; ok && kind <= DATA_N_KINDS; kind++, tried++) {
            fill(kind, n, tried);
            ok = try_dot(tested, scalar, n, tried, kind);
        }
    report(ok, "%s %s: %zu pairs of rows of every length and kind", tested->op, tested->variant, tried);
}

uint64_t digest_dot(const struct packed_entry *e)
{
    uint64_t hash = HASH_START;
    for (int kind = 0; kind < DATA_N_KINDS; kind++) {
        fill(kind, 1021, (uint64_t)kind);
        const float sum = call(e, row_a, row_b, 1021);
        hash = data_hash(hash, &sum, sizeof sum);
    }
    return hash;
}
