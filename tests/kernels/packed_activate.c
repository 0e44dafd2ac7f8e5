/* Activations: codes, scales and sums of every kind of column. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { MAX_BLOCKS_32 = 40, MAX_X = 48 * 1024 };

/* Columns that data.h has no kind for. */
enum special { FINITE, NONFINITE, TIES, LARGE, N_SPECIALS };

/* One call of a kernel and of scalar. */
struct activate_trial {
    const struct packed_entry *tested, *scalar;
    struct activation_source src;
    bool is_256;
    size_t at; /* bytes of x away from the fence */
    const char *data;
};

/* What scalar makes. */
static struct {
    float x[MAX_X];
    int8_t q[MAX_BLOCKS_32 * MAX_WIDTH * 32];
    float scale[MAX_BLOCKS_32 * MAX_WIDTH];
    int32_t sums[MAX_BLOCKS_32 * MAX_WIDTH * 2];
    int16_t pairs[MAX_BLOCKS_32 * MAX_WIDTH];
} want;

static bool complain(const struct activate_trial *t, const char *what)
{
    printf("# %s %s: %s; %zu blocks, width %zu, stride %zu, offset %d, unit %zu, data %s, x %zu off\n", t->tested->op,
           t->tested->variant, what, t->src.n_blocks, t->src.width, t->src.stride, (int)t->src.offset, t->src.unit,
           t->data, t->at);
    return false;
}

static size_t block_elements(const struct activate_trial *t)
{
    return t->is_256 ? 256 : 32;
}

static struct tile_sizes sizes_of(const struct activate_trial *t)
{
    const struct packed_type like = {.block_elements = block_elements(t), .unit = t->src.unit};
    return tile_sizes_of(&like, t->src.n_blocks * block_elements(t) / 32, t->src.width);
}

/* A part of the tile against scalar's, and what lies around it. */
static bool same_part(const struct activate_trial *t, const char *name, uint8_t *room, const void *got,
                      const void *wanted, size_t bytes)
{
    if (!is_guarded(room, got, bytes))
        return complain(t, "wrote outside its output");
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)got)[i] != ((const uint8_t *)wanted)[i]) {
            printf("# byte %zu of %s is %02x, scalar has %02x\n", i, name, ((const uint8_t *)got)[i],
                   ((const uint8_t *)wanted)[i]);
            return complain(t, "differs from scalar");
        }
    return true;
}

/* What kernels.h promises of a finite column, block by block, in plain words. */
static bool keeps_its_promise(const struct activate_trial *t)
{
    for (size_t i = 0; i < sizes_of(t).sums; i++) {
        const size_t unit = i / t->src.width, c = i % t->src.width, e = unit * t->src.unit;
        int32_t sum = 0;
        for (size_t j = 0; j < t->src.unit; j++)
            sum += want.q[(e / 32 * t->src.width + c) * 32 + e % 32 + j];
        if (want.sums[i] != -t->src.offset * sum)
            return complain(t, "a sum is not that of its codes");
    }
    for (size_t i = 0; i < sizes_of(t).pairs; i++) {
        const size_t b = i / 8 / t->src.width, c = i / 8 % t->src.width, s = i % 8;
        int32_t sum = 0;
        for (size_t j = 0; j < 32; j++)
            sum += want.q[((b * 8 + s) * t->src.width + c) * 32 + j];
        if (want.pairs[i] != sum)
            return complain(t, "a pair is not the sum of its codes");
    }
    for (size_t i = 0; i < sizes_of(t).q; i++)
        if (want.q[i] == -128)
            return complain(t, "a code of -128");
    return true;
}

/* |x - q * scale| <= scale / 2, with room for the roundings of scale (f16 for 32, or Inf) and of the product. */
static bool is_near(const struct activate_trial *t)
{
    const size_t per_block = block_elements(t);
    for (size_t i = 0; i < sizes_of(t).q; i++) {
        const size_t b = i / 32 / t->src.width, c = i / 32 % t->src.width;
        const double scale = want.scale[b * 32 / per_block * t->src.width + c];
        const double x = want.x[c * t->src.stride + b * 32 + i % 32];
        const double relative = t->is_256 ? 127 * 0x1p-21 : 127 * 0x1p-11, least = t->is_256 ? 0x1p-120 : 127 * 0x1p-25;
        if (isfinite(scale) && !(fabs(x - want.q[i] * scale) <= fabs(scale) * (0.5 + relative) + least))
            return complain(t, "a code is not the nearest");
    }
    return true;
}

static void run_scalar(const struct activate_trial *t)
{
    struct activation_tile tile = {want.q, want.scale, want.sums, t->is_256 ? want.pairs : NULL};
    struct activation_source src = t->src;
    src.x = want.x;
    ((activate_fn *)t->scalar->fn)(&tile, &src);
}

static bool try_activate(const struct activate_trial *t)
{
    const struct tile_sizes n = sizes_of(t);
    const size_t x_bytes = ((t->src.width - 1) * t->src.stride + t->src.n_blocks * block_elements(t)) * 4;
    struct activation_source src = t->src;
    uint8_t *x = place_last(bed.x, x_bytes, t->at), *q = place_last(bed.q, n.q, t->at);
    uint8_t *scale = place_last(bed.scale, n.scale * 4, t->at & ~(size_t)3),
            *sums = place_last(bed.sums, n.sums * 4, t->at & ~(size_t)3),
            *pairs = place_last(bed.pairs, n.pairs * 2, t->at & ~(size_t)1);
    struct activation_tile tile = {(int8_t *)q, (float *)(void *)scale, (int32_t *)(void *)sums,
                                   t->is_256 ? (int16_t *)(void *)pairs : NULL};
    memcpy(x, want.x, x_bytes);
    src.x = (const float *)(void *)x;
    guard(bed.q, q, n.q);
    guard(bed.scale, scale, n.scale * 4);
    guard(bed.sums, sums, n.sums * 4);
    guard(bed.pairs, pairs, n.pairs * 2);
    run_scalar(t);
    ((activate_fn *)t->tested->fn)(&tile, &src);
    if (memcmp(x, want.x, x_bytes) != 0)
        return complain(t, "changed its input");
    one_nan(scale, n.scale);
    one_nan(want.scale, n.scale);
    return keeps_its_promise(t) && same_part(t, "codes", bed.q, q, want.q, n.q) &&
           same_part(t, "scales", bed.scale, scale, want.scale, n.scale * 4) &&
           same_part(t, "sums", bed.sums, sums, want.sums, n.sums * 4) &&
           same_part(t, "pairs", bed.pairs, pairs, want.pairs, n.pairs * 2);
}

static void plant(enum special special, float *row, size_t n, uint64_t seed)
{
    static const uint32_t bits[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff, 0x7f800001, 0xff800001};
    for (size_t b = 0; b < n / 32; b++) {
        float *x = row + b * 32;
        const uint64_t r = data_random(&seed);
        const size_t at[3] = {r % 32, (r >> 8) % 32, (r >> 16) % 32};
        if (special == NONFINITE && (r >> 24) % 4 == 0)
            memcpy(&x[at[0]], &bits[(r >> 32) % 6], 4);
        for (size_t k = 0; special == TIES && k < 3; k++) /* the same magnitude, of either sign, in any order */
            x[at[k]] = (r >> (40 + k)) & 1 ? 6.5f : -6.5f;
        for (size_t j = 0; special == LARGE && j < 32; j++)
            x[j] = (float)ldexp(x[j], 124 - (int)(r >> 24) % 32);
    }
}

/* Columns at their stride; between them NaN, which nobody may mind. */
static void fill_x(const struct activate_trial *t, enum data_kind kind, enum special special, uint64_t seed)
{
    const size_t n = t->src.n_blocks * block_elements(t), total = (t->src.width - 1) * t->src.stride + n;
    memset(want.x, 0xff, total * 4);
    for (size_t c = 0; c < t->src.width; c++) {
        data_fill(kind, want.x + c * t->src.stride, n, seed * 16 + c);
        plant(special, want.x + c * t->src.stride, n, seed * 16 + c);
    }
}

static bool try_kinds(struct activate_trial *t, size_t *tried)
{
    static const char *const names[N_SPECIALS] = {"", "NaN and Inf", "ties of the largest", "huge"};
    bool ok = true;
    for (int k = 0; ok && k < DATA_N_KINDS + N_SPECIALS - 1; k++, ++*tried) {
        const enum special special = k < DATA_N_KINDS ? FINITE : (enum special)(k - DATA_N_KINDS + 1);
        const enum data_kind kind = special ? DATA_gaussian : (enum data_kind)k;
        t->data = special ? names[special] : data_name(kind);
        t->at = *tried % 67;
        t->src.stride = t->src.n_blocks * block_elements(t) + (*tried % 3) * 5;
        fill_x(t, kind, special, *tried);
        ok = try_activate(t) && is_near(t);
    }
    return ok;
}

static bool try_sizes(struct activate_trial *t, size_t *tried)
{
    static const size_t counts[] = {1, 2, 3, 5, 8, 17, 37}; /* of 32; of 256 as far as a column is no longer */
    const size_t most = bed.brief ? 768 : MAX_BLOCKS_32 * 32;
    bool ok = true;
    for (t->src.width = 1; ok && t->src.width <= MAX_WIDTH; t->src.width += bed.brief ? 5 : 1)
        for (size_t i = 0; ok && i < COUNT(counts); i++) {
            t->src.n_blocks = counts[i];
            if (counts[i] * block_elements(t) <= most)
                ok = try_kinds(t, tried);
        }
    return ok;
}

void check_activate(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    struct activate_trial t = {.tested = tested, .scalar = scalar, .is_256 = strcmp(tested->op, "activate_256") == 0};
    for (size_t i = 0; i < N_PACKED_TYPES; i++) {
        const struct packed_type *type = &packed_types[i];
        size_t tried = 0;
        if ((type->block_elements == 256) != t.is_256)
            continue;
        t.src.offset = type->type == QD_TYPE_U4 ? 1 : type->offset; /* with zero points; without it is q4_0's */
        t.src.unit = type->unit;
        const bool ok = try_sizes(&t, &tried);
        report(ok, "%s %s: %zu tiles of every width and kind, as %s takes them", tested->op, tested->variant, tried,
               qd_type_info(type->type)->name);
    }
}

uint64_t digest_activate(const struct packed_entry *e)
{
    struct activate_trial t = {.tested = e, .scalar = e, .is_256 = strcmp(e->op, "activate_256") == 0};
    uint64_t hash = HASH_START;
    t.src = (struct activation_source){.width = 3, .offset = 32, .unit = 16, .n_blocks = t.is_256 ? 4 : 32};
    t.src.stride = 1024;
    for (int kind = 0; kind < DATA_N_KINDS; kind++) {
        const struct tile_sizes n = sizes_of(&t);
        fill_x(&t, (enum data_kind)kind, kind % 5 ? FINITE : NONFINITE, 3);
        run_scalar(&t); /* here the entry itself */
        one_nan(want.scale, n.scale);
        hash = data_hash(hash, want.q, n.q);
        hash = data_hash(hash, want.scale, n.scale * 4);
        hash = data_hash(hash, want.sums, n.sums * 4);
        hash = data_hash(hash, want.pairs, n.pairs * 2);
    }
    return hash;
}
