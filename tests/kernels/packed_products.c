/* Products: all kinds of weights and activations against scalar, codes at their extremes against whole numbers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/layout/blocks.h"
#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { MAX_BLOCKS_32 = 40, MAX_GROUPS = 11, ALL_ROWS = MAX_ROWS * MAX_GROUPS, STRIDE = ALL_ROWS + 9 };

/* Where scales and zero points of codes alone stand; zeros with types that have their scales within. */
struct code_form {
    unsigned shift;
    bool per_row, by_columns, has_zeros;
    uint8_t flip;
    size_t other_rows; /* by columns: of the matrix, that are not in the strip */
};

/* One product, beside scalar's. */
struct product_trial {
    const struct packed_entry *tested, *scalar;
    const struct packed_type *type;
    size_t n_groups, n_rows; /* rows: of a group */
    size_t n_blocks, width, y_stride;
    struct code_form form;
    size_t at;  /* bytes of the weights away from the fence */
    bool first; /* at the lower fence */
    const char *data;
};

/* The groups and the tile as they are made, before they go between fences. */
static struct {
    uint8_t rows[ALL_ROWS * MAX_BLOCKS_32 * 34], groups[ALL_ROWS * MAX_BLOCKS_32 * 34];
    uint8_t d[STRIDE * MAX_BLOCKS_32 * sizeof(float)], zeros[STRIDE * MAX_BLOCKS_32]; /* as code_scales says */
    float x[MAX_WIDTH * MAX_BLOCKS_32 * 32];
    int8_t q[MAX_BLOCKS_32 * MAX_WIDTH * 32];
    float scale[MAX_BLOCKS_32 * MAX_WIDTH];
    int32_t sums[MAX_BLOCKS_32 * MAX_WIDTH * 2];
    int16_t pairs[MAX_BLOCKS_32 * MAX_WIDTH];
    float y[MAX_WIDTH * STRIDE], row[MAX_BLOCKS_32 * 32];
} made;

static bool is_codes(const struct product_trial *t)
{
    return layout_is_codes(t->type->type);
}

static bool complain(const struct product_trial *t, const char *what)
{
    printf("# %s %s: %s; %zu groups, %zu blocks, width %zu, y stride %zu, %s, weights %zu off\n", t->tested->op,
           t->tested->variant, what, t->n_groups, t->n_blocks, t->width, t->y_stride, t->data, t->at);
    if (is_codes(t))
        printf("# codes: %s %u%s%s, flip %02x\n", t->form.per_row ? "a scale for the row, shift" : "shift",
               t->form.shift, t->form.by_columns ? ", by columns" : "", t->form.has_zeros ? ", zero points" : "",
               t->form.flip);
    return false;
}

static size_t blocks_32(const struct product_trial *t)
{
    return t->n_blocks * t->type->block_elements / 32;
}

static size_t all_rows(const struct product_trial *t)
{
    return t->n_groups * t->n_rows;
}

static size_t row_bytes(const struct product_trial *t)
{
    return t->n_blocks * block_bytes_of(t->type->type);
}

static size_t group_bytes(const struct product_trial *t)
{
    return t->n_rows * row_bytes(t);
}

static void pack_weights(const struct product_trial *t)
{
    for (size_t g = 0; g < t->n_groups; g++)
        layout_pack_group(ops_for(0), t->tested->layout, t->type->type, made.groups + g * group_bytes(t),
                          made.rows + g * group_bytes(t), t->n_blocks);
}

/* ---- scales of codes alone ------------------------------------------------------------------------------------- */

/* Every form that weights have, then again: u4 has 32 of them, i8 8. */
static struct code_form form_of(const struct product_trial *t, size_t number)
{
    const bool per_row = number % 4 == 3, is_u4 = t->type->type == QD_TYPE_U4;
    if (!is_codes(t))
        return (struct code_form){0};
    return (struct code_form){.shift = per_row ? 0 : number % 4,
                              .per_row = per_row,
                              .by_columns = number / 4 % 2,
                              .has_zeros = is_u4 && number / 8 % 2,
                              .flip = is_u4 && number / 16 % 2 ? 0x88 : 0,
                              .other_rows = number % 3 * 2};
}

/* Of a row. */
static size_t n_scales(const struct product_trial *t)
{
    return t->form.per_row ? 1 : ((t->n_blocks - 1) >> t->form.shift) + 1;
}

/* Steps from group to group and from block to block, in scales. */
static struct code_scales made_scales(const struct product_trial *t)
{
    const struct code_form *f = &t->form;
    const size_t n = n_scales(t), step = f->by_columns ? all_rows(t) + f->other_rows : t->n_rows;
    if (!is_codes(t))
        return (struct code_scales){0};
    struct code_scales k = {.scale = made.d,
                            .scale_group = (f->by_columns ? 1 : n) * t->n_rows * sizeof(float),
                            .scale_block = f->per_row ? 0 : step * sizeof(float),
                            .shift = f->shift,
                            .flip = f->flip};
    if (f->has_zeros) {
        k.zero = made.zeros;
        k.zero_group = (f->by_columns ? 1 : (n + 1) / 2 * 2) * t->n_rows / 2;
        k.zero_block = f->per_row ? 0 : step / 2;
    }
    return k;
}

/* Bytes to the end of the last row's last scale; of its zero point. */
static size_t d_bytes(const struct product_trial *t, const struct code_scales *k)
{
    return (t->n_groups - 1) * k->scale_group + (n_scales(t) - 1) * k->scale_block + t->n_rows * sizeof(float);
}

static size_t zeros_bytes(const struct product_trial *t, const struct code_scales *k)
{
    return (t->n_groups - 1) * k->zero_group + (n_scales(t) - 1) * k->zero_block + t->n_rows / 2;
}

static void put_scale(const struct product_trial *t, size_t r, size_t i, float d)
{
    const struct code_scales k = made_scales(t);
    memcpy(made.d + r / t->n_rows * k.scale_group + i * k.scale_block + r % t->n_rows * sizeof d, &d, sizeof d);
}

static void put_zero(const struct product_trial *t, size_t r, size_t i, unsigned zero)
{
    const struct code_scales k = made_scales(t);
    uint8_t *two = made.zeros + r / t->n_rows * k.zero_group + i * k.zero_block + r % t->n_rows / 2;
    *two = (uint8_t)(r % 2 ? (*two & 15) | zero << 4 : (*two & 0xf0) | zero);
}

/* Any codes and zero points; scales of @kind, or NaN and Inf among them where that is less than 0. */
static void make_codes(const struct product_trial *t, size_t r, int kind, uint64_t seed)
{
    const size_t n = n_scales(t);
    for (size_t i = 0; i < row_bytes(t); i++)
        made.rows[r * row_bytes(t) + i] = (uint8_t)(data_random(&seed) >> 40);
    if (kind < 0)
        data_fill_nonfinite(made.row, n, seed);
    else
        data_fill((enum data_kind)kind, made.row, n, seed);
    for (size_t i = 0; i < n; i++) {
        put_scale(t, r, i, made.row[i]);
        if (t->form.has_zeros)
            put_zero(t, r, i, (unsigned)(data_random(&seed) >> 60));
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

static struct activation_tile made_tile(const struct product_trial *t)
{
    return (struct activation_tile){made.q, made.scale, made.sums, t->type->block_elements == 256 ? made.pairs : NULL};
}

static int32_t offset_of(const struct product_trial *t)
{
    return t->form.has_zeros ? 1 : t->type->offset;
}

static void activate(const struct product_trial *t)
{
    struct activation_tile tile = made_tile(t);
    const struct activation_source src = {.x = made.x,
                                          .stride = blocks_32(t) * 32,
                                          .width = t->width,
                                          .n_blocks = t->n_blocks,
                                          .offset = offset_of(t),
                                          .unit = t->type->unit};
    (t->type->block_elements == 256 ? ops_for(0)->activate_256 : ops_for(0)->activate_32)(&tile, &src);
}

/* Sums and pairs of the codes that stand in made.q. */
static void sum_codes(const struct product_trial *t)
{
    const struct tile_sizes n = tile_sizes_of(t->type, blocks_32(t), t->width);
    memset(made.sums, 0, n.sums * sizeof made.sums[0]);
    memset(made.pairs, 0, n.pairs * sizeof made.pairs[0]);
    for (size_t i = 0; i < n.q; i++) {
        const size_t b = i / 32 / t->width, c = i / 32 % t->width, e = b * 32 + i % 32;
        made.sums[e / t->type->unit * t->width + c] -= offset_of(t) * made.q[i];
        if (n.pairs)
            made.pairs[(b / 8 * t->width + c) * 8 + b % 8] += made.q[i];
    }
}

/* Codes and scales that no activation has, but whose product is defined all the same. */
static void make_hostile_tile(const struct product_trial *t, uint64_t seed)
{
    const struct tile_sizes n = tile_sizes_of(t->type, blocks_32(t), t->width);
    for (size_t i = 0; i < n.q; i++) {
        made.q[i] = (int8_t)(data_random(&seed) >> 56);
        made.q[i] += made.q[i] == -128;
    }
    for (size_t i = 0; i < n.scale; i++) {
        const uint32_t bits = (uint32_t)(data_random(&seed) >> 32);
        memcpy(&made.scale[i], &bits, 4);
        if (bits % 7 == 0)
            made.scale[i] = bits % 2 ? INFINITY : NAN;
    }
    sum_codes(t);
}

/* ---- a call ---------------------------------------------------------------------------------------------------- */

static struct matmul_strip strip_of(const struct product_trial *t, const uint8_t *w, struct activation_tile x, float *y)
{
    return (struct matmul_strip){.w = w,
                                 .n_groups = t->n_groups,
                                 .n_blocks = t->n_blocks,
                                 .codes = made_scales(t),
                                 .y_is_large = t->at % 2, /* advice: the same sums */
                                 .x = x,
                                 .y = y,
                                 .y_stride = t->y_stride,
                                 .width = t->width};
}

static void *fenced_copy(uint8_t *room, const void *data, size_t bytes)
{
    return memcpy(place_last(room, bytes, 0), data, bytes);
}

static struct activation_tile fenced_tile(const struct product_trial *t)
{
    const struct tile_sizes n = tile_sizes_of(t->type, blocks_32(t), t->width);
    struct activation_tile tile = {.q = fenced_copy(bed.q, made.q, n.q),
                                   .scale = fenced_copy(bed.scale, made.scale, n.scale * 4),
                                   .sums = fenced_copy(bed.sums, made.sums, n.sums * 4)};
    if (n.pairs)
        tile.pairs = fenced_copy(bed.pairs, made.pairs, n.pairs * 2);
    return tile;
}

/* Scales and zero points at any address, fewer bytes from a fence than any vector has. */
static void fence_scales(const struct product_trial *t, struct code_scales *k)
{
    const size_t n = d_bytes(t, k), n_zeros = zeros_bytes(t, k);
    k->scale = memcpy(t->first ? place_first(bed.d, t->at % 4) : place_last(bed.d, n, t->at % 4), made.d, n);
    if (k->zero)
        k->zero = memcpy(t->first ? place_first(bed.zeros, t->at % 3) : place_last(bed.zeros, n_zeros, t->at % 2),
                         made.zeros, n_zeros);
}

static bool same_scales(const struct product_trial *t, const struct code_scales *k)
{
    return memcmp(k->scale, made.d, d_bytes(t, k)) == 0 &&
           (!k->zero || memcmp(k->zero, made.zeros, zeros_bytes(t, k)) == 0);
}

/* The tested kernel, all operands between fences. y begins as NaN: it is not to be read. */
static float *run_tested(const struct product_trial *t, size_t y_bytes)
{
    const size_t bytes = t->n_groups * group_bytes(t);
    uint8_t *w = t->first ? place_first(bed.weights, t->at) : place_last(bed.weights, bytes, t->at);
    float *y = (float *)(void *)place_last(bed.y, y_bytes, 0);
    struct matmul_strip s = strip_of(t, w, fenced_tile(t), y);
    if (is_codes(t))
        fence_scales(t, &s.codes);
    memcpy(w, made.groups, bytes);
    memset(y, 0xff, y_bytes);
    guard(bed.y, (uint8_t *)y, y_bytes);
    ((matmul_fn *)t->tested->fn)(&s);
    return memcmp(w, made.groups, bytes) == 0 && (!is_codes(t) || same_scales(t, &s.codes)) ? y : NULL;
}

static bool same_y(const struct product_trial *t, const float *got, const float *wanted)
{
    for (size_t c = 0; c < t->width; c++)
        for (size_t r = 0; r < all_rows(t); r++) {
            float a = got[c * t->y_stride + r], b = wanted[c * t->y_stride + r];
            if (memcmp(&a, &b, sizeof a) != 0 && !(isnan(a) && isnan(b))) {
                printf("# column %zu row %zu: %a instead of %a\n", c, r, (double)a, (double)b);
                return complain(t, "differs");
            }
        }
    return true;
}

/* Is what lies between the columns as it was? */
static bool gaps_are_left_alone(const struct product_trial *t, const float *y)
{
    for (size_t c = 0; c + 1 < t->width; c++)
        for (size_t r = all_rows(t); r < t->y_stride; r++) {
            uint32_t bits;
            memcpy(&bits, &y[c * t->y_stride + r], sizeof bits);
            if (bits != UINT32_MAX)
                return false;
        }
    return true;
}

/* made.group and the tile are there; @wanted: NULL for scalar's own. */
static bool try_product(const struct product_trial *t, const float *wanted)
{
    const size_t y_bytes = ((t->width - 1) * t->y_stride + all_rows(t)) * sizeof(float);
    if (!wanted) {
        const struct matmul_strip s = strip_of(t, made.groups, made_tile(t), made.y);
        ((matmul_fn *)t->scalar->fn)(&s);
        wanted = made.y;
    }
    const float *y = run_tested(t, y_bytes);
    if (!y)
        return complain(t, "changed its weights");
    if (!is_guarded(bed.y, (const uint8_t *)y, y_bytes) || !gaps_are_left_alone(t, y))
        return complain(t, "wrote outside its output");
    return same_y(t, y, wanted);
}

/* ---- shapes ---------------------------------------------------------------------------------------------------- */

/* Rows of a type: bytes of any kind, scales finite or not; or what its encoder makes. */
static void make_rows(const struct product_trial *t, int kind, uint64_t seed)
{
    for (size_t r = 0; r < all_rows(t); r++) {
        uint8_t *row = made.rows + r * row_bytes(t);
        if (is_codes(t)) {
            make_codes(t, r, kind == -1 ? DATA_random_finite_bits : kind, seed * 16 + r);
        } else if (kind < 0) {
            data_fill_blocks(row, t->n_blocks, t->type->type, kind == -1, seed * 16 + r);
        } else {
            data_fill((enum data_kind)kind, made.row, blocks_32(t) * 32, seed * 16 + r);
            ops_for(0)->quantize[t->type->type](row, made.row, blocks_32(t) * 32);
        }
    }
    pack_weights(t);
}

static void make_x(const struct product_trial *t, enum data_kind kind, uint64_t seed)
{
    const size_t n = blocks_32(t) * 32;
    for (size_t c = 0; c < t->width; c++)
        data_fill(kind, made.x + c * n, n, seed * 16 + c);
}

/* NaN in the last column alone */
static void spoil_column(const struct product_trial *t)
{
    made.x[(t->width - 1) * blocks_32(t) * 32 + 5] = NAN;
}

static bool only_spoiled_column_is_lost(const struct product_trial *t)
{
    for (size_t c = 0; c < t->width; c++)
        for (size_t r = 0; r < all_rows(t); r++)
            if (isfinite(made.y[c * t->y_stride + r]) == (c == t->width - 1))
                return complain(t, "a NaN in one column is not a NaN in that column alone");
    return true;
}

enum way { ENCODED, ANY_BYTES, ANY_BYTES_NONFINITE, HOSTILE_TILE, HOSTILE_ALL, NAN_IN_X, N_WAYS };

static bool try_way(struct product_trial *t, enum way way, int kind, uint64_t seed)
{
    static const char *const names[N_WAYS] = {"encoded weights",      "any bytes",     "any bytes, scales NaN or Inf",
                                              "any codes of columns", "any of it all", "NaN in a column"};
    t->data = names[way];
    if (way == ENCODED || way == NAN_IN_X)
        make_rows(t, way == ENCODED ? (kind + 7) % DATA_N_KINDS : DATA_gaussian_small, seed);
    else
        make_rows(t, way == ANY_BYTES_NONFINITE || way == HOSTILE_ALL ? -2 : -1, seed);
    make_x(t, way == NAN_IN_X ? DATA_gaussian : (enum data_kind)kind, seed + 1);
    if (way == NAN_IN_X)
        spoil_column(t);
    if (way == HOSTILE_TILE || way == HOSTILE_ALL)
        make_hostile_tile(t, seed);
    else
        activate(t);
    return try_product(t, NULL) && (way != NAN_IN_X || only_spoiled_column_is_lost(t));
}

static bool try_ways(struct product_trial *t, size_t *tried)
{
    static const size_t groups[] = {1, 2, 1, 8, 1, 3, MAX_GROUPS}; /* some kernels take eight at once */
    bool ok = true;
    for (size_t i = 0; ok && i < (bed.brief ? 7 : 40); i++, ++*tried) {
        t->at = *tried % 67;
        t->first = *tried / 5 % 2;
        t->n_groups = blocks_32(t) > 8 ? 1 : groups[*tried % COUNT(groups)];
        t->form = form_of(t, *tried + *tried / N_WAYS); /* each meets all ways */
        t->y_stride = all_rows(t) + *tried % 4 * 3;
        ok = try_way(t, (enum way)(*tried % N_WAYS), (int)(*tried / N_WAYS % DATA_N_KINDS), *tried);
    }
    return ok;
}

void check_products(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    static const size_t counts[] = {1, 2, 3, 4, 5, 8, 17, 39}; /* of 32; of 256 as far as a row is no longer */
    struct product_trial t = {.tested = tested,
                              .scalar = scalar,
                              .type = packed_type_of(tested->type),
                              .n_rows = qd_layout_info(tested->layout)->rows};
    bool ok = true;
    size_t tried = 0;
    for (t.width = 1; ok && t.width <= layout_columns(tested->layout); t.width *= 2)
        for (size_t i = 0; ok && i < COUNT(counts); i++) {
            t.n_blocks = counts[i];
            if (blocks_32(&t) <= MAX_BLOCKS_32 && !(bed.brief && blocks_32(&t) > 24))
                ok = try_ways(&t, &tried);
        }
    report(ok, "%s %s: %zu products of every width, kind and range of blocks", tested->op, tested->variant, tried);
}

/* ---- digest ---------------------------------------------------------------------------------------------------- */

/* Rows [r, r + n_rows) times columns [c, c + width) of the matrices of @kind, to y[c][r]. */
static void digest_tile(struct product_trial *t, int kind, size_t r, size_t c, float y[16][16])
{
    const size_t n = blocks_32(t) * 32;
    for (size_t k = 0; k < t->width; k++)
        data_fill((enum data_kind)kind, made.x + k * n, n, c + k);
    for (size_t k = 0; k < t->n_rows; k++)
        if (is_codes(t))
            make_codes(t, k, kind % 8 ? (kind + 7) % DATA_N_KINDS : -1, r + k);
        else
            data_fill_blocks(made.rows + k * row_bytes(t), t->n_blocks, t->type->type, kind % 4, r + k);
    activate(t);
    pack_weights(t);
    const struct matmul_strip s = strip_of(t, made.groups, made_tile(t), &y[c][r]);
    ((matmul_fn *)t->tested->fn)(&s);
}

/* 16 rows times 16 columns, the same for every layout: all of a type have one digest. */
uint64_t digest_products(const struct packed_entry *e)
{
    struct product_trial t = {.tested = e,
                              .type = packed_type_of(e->type),
                              .n_groups = 1,
                              .n_rows = qd_layout_info(e->layout)->rows,
                              .width = layout_columns(e->layout),
                              .y_stride = 16};
    static float y[16][16];
    uint64_t hash = HASH_START;
    t.n_blocks = 1024 / t.type->block_elements;
    for (int kind = 0; kind < DATA_N_KINDS; kind++) {
        t.form = form_of(&t, (size_t)kind);
        for (size_t c = 0; c < 16; c += t.width)
            for (size_t r = 0; r < 16; r += t.n_rows)
                digest_tile(&t, kind, r, c, y);
        one_nan(y, 256);
        hash = data_hash(hash, y, sizeof y);
    }
    return hash;
}

/* ---- codes at their extremes ----------------------------------------------------------------------------------- */

/* A block of weights in whole numbers; scales and minima are multiplied by 1 or -1. */
struct whole_block {
    int q[256];
    int scale[16]; /* of every sub-block */
    int minimum[16];
};

/* What a type can hold: its codes as they count, less their offset; the elements that share a scale. */
static const struct {
    int lowest, highest;
    int least_scale, most_scale, most_minimum;
    size_t sub_block;
} range[QD_N_TYPES] = {
    [QD_TYPE_Q8_0] = {-128, 127, 1, 1, 0, 32},    [QD_TYPE_Q4_0] = {-8, 7, 1, 1, 0, 32},
    [QD_TYPE_Q2_K] = {0, 3, 1, 15, 15, 16},       [QD_TYPE_Q3_K] = {-4, 3, -32, 31, 0, 16},
    [QD_TYPE_Q4_K] = {0, 15, 1, 63, 63, 32},      [QD_TYPE_Q5_K] = {0, 31, 1, 63, 63, 32},
    [QD_TYPE_Q6_K] = {-32, 31, -128, 127, 0, 16}, [QD_TYPE_I8] = {-128, 127, 1, 1, 0, 32},
    [QD_TYPE_U4] = {0, 15, 1, 1, 0, 32}, /* zero points apart */
};
static const uint16_t half_one = 0x3c00;

static void put_q8_0(void *dst, const struct whole_block *w)
{
    struct block_q8_0 *b = dst;
    b->d = half_one;
    for (size_t j = 0; j < 32; j++)
        b->q[j] = (int8_t)w->q[j];
}

static void put_q4_0(void *dst, const struct whole_block *w)
{
    struct block_q4_0 *b = dst;
    b->d = half_one;
    for (size_t j = 0; j < 16; j++)
        b->q[j] = (uint8_t)((w->q[j] + 8) | (w->q[j + 16] + 8) << 4);
}

static void put_pairs_k2(uint8_t q[64], const struct whole_block *w, int offset)
{
    memset(q, 0, 64);
    for (size_t i = 0; i < 256; i++)
        q[i / 128 * 32 + i % 32] |= (uint8_t)(((w->q[i] + offset) & 3) << i / 32 % 4 * 2);
}

static void put_q2_k(void *dst, const struct whole_block *w)
{
    struct block_q2_k *b = dst;
    b->d = b->dmin = half_one;
    for (size_t k = 0; k < 16; k++)
        b->scales[k] = (uint8_t)(w->scale[k] | w->minimum[k] << 4);
    put_pairs_k2(b->q, w, 0);
}

/* Low nibbles of scales 0..7 and 8..15 in bytes 0..7; upper pairs of every fourth scale in the four bytes behind. */
static void put_q3_k(void *dst, const struct whole_block *w)
{
    struct block_q3_k *b = dst;
    b->d = half_one;
    memset(b->scales, 0, sizeof b->scales);
    memset(b->high, 0, sizeof b->high);
    for (size_t k = 0; k < 16; k++) {
        const unsigned scale = (unsigned)(w->scale[k] + 32);
        b->scales[k % 8] |= (uint8_t)((scale & 15) << k / 8 * 4);
        b->scales[8 + k % 4] |= (uint8_t)(scale >> 4 << k / 4 * 2);
    }
    for (size_t i = 0; i < 256; i++)
        b->high[i % 32] |= (uint8_t)((w->q[i] + 4) >> 2 << i / 32);
    put_pairs_k2(b->q, w, 4);
}

/* Scale and minimum k < 4 are the low 6 bits of bytes k and k + 4; of the others the upper 2 bits stand above those. */
static void put_scales_k4(uint8_t scales[12], const struct whole_block *w)
{
    for (size_t k = 0; k < 4; k++) {
        scales[k] = (uint8_t)(w->scale[k] | w->scale[k + 4] >> 4 << 6);
        scales[k + 4] = (uint8_t)(w->minimum[k] | w->minimum[k + 4] >> 4 << 6);
        scales[k + 8] = (uint8_t)((w->scale[k + 4] & 15) | (w->minimum[k + 4] & 15) << 4);
    }
}

static void put_q4_k(void *dst, const struct whole_block *w)
{
    struct block_q4_k *b = dst;
    b->d = b->dmin = half_one;
    put_scales_k4(b->scales, w);
    for (size_t j = 0; j < 128; j++)
        b->q[j] = (uint8_t)(w->q[j / 32 * 64 + j % 32] | w->q[j / 32 * 64 + 32 + j % 32] << 4);
}

static void put_q5_k(void *dst, const struct whole_block *w)
{
    struct block_q5_k *b = dst;
    b->d = b->dmin = half_one;
    put_scales_k4(b->scales, w);
    memset(b->high, 0, sizeof b->high);
    for (size_t j = 0; j < 128; j++)
        b->q[j] = (uint8_t)((w->q[j / 32 * 64 + j % 32] & 15) | (w->q[j / 32 * 64 + 32 + j % 32] & 15) << 4);
    for (size_t i = 0; i < 256; i++)
        b->high[i % 32] |= (uint8_t)(w->q[i] >> 4 << i / 32);
}

static void put_q6_k(void *dst, const struct whole_block *w)
{
    struct block_q6_k *b = dst;
    b->d = half_one;
    memset(b->low, 0, sizeof b->low);
    memset(b->high, 0, sizeof b->high);
    for (size_t k = 0; k < 16; k++)
        b->scales[k] = (int8_t)w->scale[k];
    for (size_t i = 0; i < 256; i++) {
        const unsigned code = (unsigned)(w->q[i] + 32), l = i % 128;
        b->low[i / 128 * 64 + l % 64] |= (uint8_t)((code & 15) << (l / 64 * 4));
        b->high[i / 128 * 32 + l % 32] |= (uint8_t)((code >> 4) << (l / 32 * 2));
    }
}

static void put_i8(void *dst, const struct whole_block *w)
{
    for (size_t j = 0; j < 32; j++)
        ((int8_t *)dst)[j] = (int8_t)w->q[j];
}

static void put_u4(void *dst, const struct whole_block *w)
{
    for (size_t j = 0; j < 16; j++)
        ((uint8_t *)dst)[j] = (uint8_t)(w->q[j] | w->q[j + 16] << 4);
}

/* The smaller or the larger of two, by a pattern along a row: whatever an instruction adds up is all equal in one. */
enum { N_PATTERNS = 9 };
static bool is_high(int pattern, size_t j, uint64_t seed)
{
    switch (pattern) {
    case 0:
        return true;
    case 1:
        return false;
    case 6: /* halves of a block of 32: the nibbles of a byte in q4_0 */
        return j / 16 % 2;
    case 7: /* sub-blocks: the nibbles of a byte in q4_k */
        return j / 32 % 2;
    case 8:
        seed += j;
        return data_random(&seed) & 1;
    default:
        return j >> (pattern - 2) & 1; /* 1, 2, 4 or 8 alike */
    }
}

static void fill_whole(struct whole_block *w, enum qd_type type, int pattern, uint64_t seed)
{
    for (size_t j = 0; j < 256; j++)
        w->q[j] = is_high(pattern, j, seed) ? range[type].highest : range[type].lowest;
    for (size_t k = 0; k < 16; k++) {
        w->scale[k] = is_high((int)(seed % N_PATTERNS), k, seed) ? range[type].most_scale : range[type].least_scale;
        w->minimum[k] = is_high((int)(seed / 3 % N_PATTERNS), k, seed) ? range[type].most_minimum : 0;
    }
}

/* Block @b of column @c as code j: 127 or -127. */
static void fill_extreme_column(const struct product_trial *t, size_t c, int pattern, uint64_t seed)
{
    for (size_t j = 0; j < blocks_32(t) * 32; j++)
        made.q[(j / 32 * t->width + c) * 32 + j % 32] = is_high(pattern, j, seed) ? 127 : -127;
}

static int64_t whole_dot(const struct product_trial *t, const struct whole_block *w, size_t b, size_t c, size_t from,
                         size_t n)
{
    int64_t sum = 0;
    for (size_t j = from; j < from + n; j++) {
        const size_t e = b * t->type->block_elements + j;
        sum += (int64_t)w->q[j] * made.q[(e / 32 * t->width + c) * 32 + e % 32];
    }
    return sum;
}

/* Sum of minimum * sum of codes. */
static int64_t whole_minima(const struct product_trial *t, const struct whole_block *w, size_t b, size_t c)
{
    int64_t low = 0;
    for (size_t j = 0; j < t->type->block_elements; j++)
        low += w->minimum[j / range[t->type->type].sub_block] * made.q[((b * 8 + j / 32) * t->width + c) * 32 + j % 32];
    return low;
}

/* The rule of kernels.h with scales of 1: sums of whole numbers in double are exact, so each line rounds once. */
static float whole_step(const struct product_trial *t, const struct whole_block *w, size_t b, size_t c, float acc)
{
    const size_t n = range[t->type->type].sub_block;
    float of_block = 0;
    for (size_t k = 0; k < t->type->block_elements / n; k++)
        of_block = (float)((double)(whole_dot(t, w, b, c, k * n, n) * w->scale[k]) + (double)of_block);
    acc = (float)((double)of_block + (double)acc);
    if (range[t->type->type].most_minimum)
        acc = (float)((double)acc - (double)(float)whole_minima(t, w, b, c));
    return acc;
}

static void put_block(const struct product_trial *t, size_t r, size_t b, const struct whole_block *w)
{
    static void (*const puts[QD_N_TYPES])(void *, const struct whole_block *) = {
        [QD_TYPE_Q8_0] = put_q8_0, [QD_TYPE_Q4_0] = put_q4_0, [QD_TYPE_Q2_K] = put_q2_k,
        [QD_TYPE_Q3_K] = put_q3_k, [QD_TYPE_Q4_K] = put_q4_k, [QD_TYPE_Q5_K] = put_q5_k,
        [QD_TYPE_Q6_K] = put_q6_k, [QD_TYPE_I8] = put_i8,     [QD_TYPE_U4] = put_u4};
    const size_t bytes = block_bytes_of(t->type->type);
    uint8_t *block = made.rows + (r * t->n_blocks + b) * bytes;
    puts[t->type->type](block, w);
    for (size_t i = 0; t->form.flip && i < bytes; i++)
        block[i] ^= t->form.flip;
}

/* Codes alone: scales of 1, zero points at their extremes and in the middle, which @w's codes then count from. */
static void put_code_scale(const struct product_trial *t, size_t r, size_t b, struct whole_block *w)
{
    static const int zeros[] = {0, 8, 15};
    const size_t i = t->form.per_row ? 0 : b >> t->form.shift;
    const int zero = t->type->type == QD_TYPE_I8 ? 0 : t->form.has_zeros ? zeros[(r + i) % COUNT(zeros)] : 8;
    put_scale(t, r, i, 1);
    if (t->form.has_zeros)
        put_zero(t, r, i, (unsigned)zero);
    for (size_t j = 0; j < 32; j++)
        w->q[j] -= zero;
}

/* Rows and columns of one trial go through the patterns, each row meeting each column. */
static bool try_extremes(struct product_trial *t, int shift)
{
    static float wanted[MAX_WIDTH * STRIDE];
    struct whole_block w;
    memset(wanted, 0, sizeof wanted);
    t->data = "codes at their extremes";
    t->form = form_of(t, (size_t)shift);
    for (size_t c = 0; c < t->width; c++)
        fill_extreme_column(t, c, (int)(c + (size_t)shift) % N_PATTERNS, c);
    for (size_t i = 0; i < blocks_32(t) * t->width; i++)
        made.scale[i] = 1;
    for (size_t r = 0; r < t->n_rows; r++)
        for (size_t b = 0; b < t->n_blocks; b++) {
            fill_whole(&w, t->type->type, (int)(r + b + (size_t)shift / N_PATTERNS) % N_PATTERNS, r + 5 * b);
            put_block(t, r, b, &w);
            if (is_codes(t))
                put_code_scale(t, r, b, &w);
            for (size_t c = 0; c < t->width; c++)
                wanted[c * t->y_stride + r] = whole_step(t, &w, b, c, wanted[c * t->y_stride + r]);
        }
    pack_weights(t);
    sum_codes(t);
    return try_product(t, wanted);
}

void check_saturation(const struct packed_entry *tested)
{
    struct product_trial t = {.tested = tested,
                              .type = packed_type_of(tested->type),
                              .n_groups = 1,
                              .n_rows = qd_layout_info(tested->layout)->rows};
    bool ok = true;
    size_t tried = 0;
    t.y_stride = t.n_rows + 1;
    t.n_blocks = t.type->block_elements == 32 ? 4 : 2;
    for (t.width = 1; ok && t.width <= layout_columns(tested->layout); t.width *= 2)
        for (int shift = 0; ok && shift < N_PATTERNS * N_PATTERNS; shift += bed.brief ? 7 : 1, tried++) {
            ok = try_extremes(&t, shift);
        }
    report(ok, "%s %s: %zu products of codes at their extremes, exact in whole numbers", tested->op, tested->variant,
           tried);
}
