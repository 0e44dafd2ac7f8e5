/* Products of f32 matrices: every shape of a tile, strides, kinds of numbers; and cut into tiles along k. */
#include <stdio.h>
#include <string.h>

#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { TILE_ROWS = 27, TILE_K = 70, A_FLOATS = TILE_ROWS * (TILE_K + 3), C_STRIDE = GEMM_COLUMNS + 5 };

static float a[A_FLOATS], b[TILE_K * C_STRIDE + GEMM_COLUMNS], c_got[TILE_ROWS * C_STRIDE],
    c_want[TILE_ROWS * C_STRIDE];

static void fill(int kind, uint64_t seed)
{
    data_fill((enum data_kind)(kind % DATA_N_KINDS), a, A_FLOATS, seed);
    data_fill(seed % 3 ? DATA_gaussian : (enum data_kind)(kind % DATA_N_KINDS), b, sizeof b / sizeof *b, seed + 1);
    data_fill(DATA_gaussian, c_got, sizeof c_got / sizeof *c_got, seed + 2);
    if (kind == DATA_N_KINDS)
        data_fill_nonfinite(a, A_FLOATS, seed);
    memcpy(c_want, c_got, sizeof c_got);
}

/* Along k in two calls, which have to give what one gives. */
static void call(const struct packed_entry *e, float *c, struct gemm_tile t, size_t cut)
{
    struct gemm_tile rest = t;
    t.c = rest.c = c;
    t.n_k = cut;
    rest.a += cut * t.a_step;
    rest.b += cut * t.b_stride;
    rest.n_k -= cut;
    ((gemm_fn *)e->fn)(&t);
    ((gemm_fn *)e->fn)(&rest);
    one_nan(c, TILE_ROWS * C_STRIDE);
}

static bool try_gemm(const struct packed_entry *tested, const struct packed_entry *scalar, size_t tried, int kind)
{
    const bool turned = tried % 2;
    struct gemm_tile t = {.a = a, .b = b, .c_stride = C_STRIDE, .n_rows = tried % TILE_ROWS + 1};
    t.n_columns = tried % 3 ? GEMM_COLUMNS : tried % GEMM_COLUMNS + 1;
    t.n_k = tried % 5 ? tried * 7 % (TILE_K + 1) : tried % 3;
    t.b_stride = tried % 7 ? GEMM_COLUMNS : C_STRIDE;
    t.a_stride = turned ? 1 : TILE_K + 3;
    t.a_step = turned ? TILE_ROWS : 1;
    call(tested, c_got, t, t.n_k / 3);
    call(scalar, c_want, t, 0);
    if (memcmp(c_got, c_want, sizeof c_got) == 0)
        return true;
    printf("# %s %s: differs; %zu x %zu x %zu, data %s\n", tested->op, tested->variant, t.n_rows, t.n_columns, t.n_k,
           kind < DATA_N_KINDS ? data_name((enum data_kind)kind) : "NaN");
    return false;
}

void check_gemm(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    bool ok = true;
    size_t tried = 0;
    for (int round = 0; ok && round < (bed.brief ? 10 : 60); round++)
        for (int kind = 0; ok && kind <= DATA_N_KINDS; kind++, tried++) {
            fill(kind, tried);
            ok = try_gemm(tested, scalar, tried, kind);
        }
    report(ok, "%s %s: %zu tiles of every shape and kind", tested->op, tested->variant, tried);
}

uint64_t digest_gemm(const struct packed_entry *e)
{
    uint64_t hash = HASH_START;
    for (int kind = 0; kind < DATA_N_KINDS; kind++) {
        fill(kind, (uint64_t)kind);
        call(e, c_got,
             (struct gemm_tile){.a = a,
                                .b = b,
                                .c_stride = C_STRIDE,
                                .a_stride = TILE_K + 3,
                                .a_step = 1,
                                .b_stride = C_STRIDE,
                                .n_rows = TILE_ROWS,
                                .n_columns = GEMM_COLUMNS,
                                .n_k = TILE_K},
             0);
        hash = data_hash(hash, c_got, sizeof c_got);
    }
    return hash;
}
