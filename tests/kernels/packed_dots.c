/* Products of int16 rows: every shape of a tile, random codes and codes at their extremes, against 64-bit sums. */
#include <stdio.h>
#include <string.h>

#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { ROWS = 9, COLUMNS = 11, K = 133, STRIDE = K + 2, C_STRIDE = COLUMNS + 1 };

static int16_t a[ROWS * STRIDE], b[COLUMNS * STRIDE];
static int32_t c_got[ROWS * C_STRIDE], c_want[ROWS * C_STRIDE];

enum codes { RANDOM, EXTREMES, ALL_LOW, N_CODES };

static int16_t code(enum codes kind, uint64_t random)
{
    static const int16_t extremes[] = {-255, 255, -128, 127, 0, 255, -255, 32767, -32767};
    return kind == RANDOM     ? (int16_t)(random % 511 - 255)
           : kind == EXTREMES ? extremes[random % (sizeof extremes / sizeof *extremes)]
                              : INT16_MIN;
}

static void fill(enum codes kind, uint64_t seed)
{
    for (size_t i = 0; i < sizeof a / sizeof *a; i++)
        a[i] = code(kind, (seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407) >> 33);
    for (size_t i = 0; i < sizeof b / sizeof *b; i++)
        b[i] = code(kind, (seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407) >> 33);
    memset(c_got, 0xa5, sizeof c_got);
    memset(c_want, 0xa5, sizeof c_want);
}

/* What the definition says, by 64-bit sums that are cut. */
static void exact(const struct dots_tile *t)
{
    for (size_t i = 0; i < t->n_rows; i++)
        for (size_t j = 0; j < t->n_columns; j++) {
            int64_t sum = 0;
            for (size_t k = 0; k < t->n_k; k++)
                sum += (int64_t)t->a[i * t->a_stride + k] * t->b[j * t->b_stride + k];
            c_want[i * C_STRIDE + j] = (int32_t)(uint32_t)sum;
        }
}

static struct dots_tile tile(size_t n_rows, size_t n_columns, size_t n_k)
{
    return (struct dots_tile){.c = c_got,
                              .a = a,
                              .b = b,
                              .c_stride = C_STRIDE,
                              .a_stride = STRIDE,
                              .b_stride = STRIDE,
                              .n_rows = n_rows,
                              .n_columns = n_columns,
                              .n_k = n_k};
}

void check_dots(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    bool ok = true;
    size_t tried = 0;
    (void)scalar; /* both are held against whole numbers */
    for (; ok && tried < (bed.brief ? 300 : 3000); tried++) {
        const struct dots_tile t = tile(tried % (ROWS + 1), tried / 3 % (COLUMNS + 1), tried * 7 % (K + 1));
        fill((enum codes)(tried % N_CODES), tried);
        ((dots_fn *)tested->fn)(&t);
        exact(&t);
        ok = memcmp(c_got, c_want, sizeof c_got) == 0;
        if (!ok)
            printf("# %s %s: differs; %zu x %zu x %zu\n", tested->op, tested->variant, t.n_rows, t.n_columns, t.n_k);
    }
    report(ok, "%s %s: %zu tiles, codes at their extremes too", tested->op, tested->variant, tried);
}

uint64_t digest_dots(const struct packed_entry *e)
{
    const struct dots_tile t = tile(ROWS, COLUMNS, K);
    fill(RANDOM, 1);
    ((dots_fn *)e->fn)(&t);
    return data_hash(HASH_START, c_got, sizeof c_got);
}
