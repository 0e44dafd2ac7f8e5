/*
 * Every kernel that this CPU can run against its scalar definition: all kinds of data, sizes from
 * nothing to odd counts, all alignments, rows that end at an unreadable page, guard bytes around
 * the output; and a digest per operation that is the same number on every architecture.
 * Prints TAP. No library but libc, so that it builds for any target.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"

enum { MAX_ELEMENTS = 8192 };

/* One call of a kernel and of scalar: where, how much, on what. */
struct trial {
    const struct kernel_entry *tested, *scalar;
    const struct qd_type_info *type; /* of (de)quantize */
    size_t n;                        /* elements */
    size_t src_offset, dst_offset;   /* bytes away from the fence */
    const char *data;                /* for the message */
    bool any_nan;                    /* one NaN is as good as another */
};

static struct {
    uint8_t *src, *src2, *dst; /* fenced */
    uint8_t want[ROOM];
    float row[MAX_ELEMENTS], row2[MAX_ELEMENTS]; /* row2: the second operand: decoded values, importance */
    uint8_t blocks[MAX_ELEMENTS * 4];
} mem;

static bool complain(const struct trial *t, const char *what)
{
    printf("# %s %s: %s; n %zu, data %s, src -%zu, dst -%zu\n", t->tested->op, t->tested->variant, what, t->n, t->data,
           t->src_offset, t->dst_offset);
    return false;
}

/* The output of @bytes equals mem.want and nothing around it was touched. */
static bool output_is_right(const struct trial *t, const uint8_t *out, size_t bytes)
{
    if (!is_guarded(mem.dst, out, bytes))
        return complain(t, "wrote outside its output");
    for (size_t i = 0; i < bytes; i++)
        if (out[i] != mem.want[i]) {
            printf("# byte %zu is %02x, scalar has %02x\n", i, out[i], mem.want[i]);
            return complain(t, "differs from scalar");
        }
    return true;
}

static uint8_t *output_place(const struct trial *t, size_t bytes)
{
    uint8_t *out = place_last(mem.dst, bytes, t->dst_offset);
    memset(out, ~0, bytes);
    guard(mem.dst, out, bytes);
    return out;
}

static uint8_t *input_place(const struct trial *t, uint8_t *room, const void *data, size_t bytes)
{
    uint8_t *in = place_last(room, bytes, t->src_offset);
    memcpy(in, data, bytes);
    return in;
}

static bool try_quantize(const struct trial *t, const float *row)
{
    size_t bytes = (size_t)(t->n / t->type->block_elements * t->type->block_bytes);
    uint8_t *out = output_place(t, bytes);
    const void *in = input_place(t, mem.src, row, t->n * 4);
    ((quantize_fn *)t->scalar->fn)(mem.want, in, t->n);
    ((quantize_fn *)t->tested->fn)(out, in, t->n);
    if (memcmp(in, row, t->n * 4) != 0)
        return complain(t, "changed its input");
    return output_is_right(t, out, bytes);
}

static float mean_square(const float *row, size_t n)
{
    return n ? ops_for(0)->sum_squares(0, row, n) / (float)n : 0;
}

static bool try_quantize_weighted(const struct trial *t, const float *row, const float *importance)
{
    size_t bytes = (size_t)(t->n / t->type->block_elements * t->type->block_bytes);
    uint8_t *out = output_place(t, bytes);
    const void *in = input_place(t, mem.src, row, t->n * 4), *w = input_place(t, mem.src2, importance, t->n * 4);
    ((quantize_weighted_fn *)t->scalar->fn)(mem.want, in, t->n, w, mean_square(row, t->n));
    ((quantize_weighted_fn *)t->tested->fn)(out, in, t->n, w, mean_square(row, t->n));
    if (memcmp(in, row, t->n * 4) != 0 || memcmp(w, importance, t->n * 4) != 0)
        return complain(t, "changed its input");
    return output_is_right(t, out, bytes);
}

static bool try_sum(const struct trial *t, const float *row)
{
    const void *x = input_place(t, mem.src, row, t->n * 4);
    float want = ((sum_squares_fn *)t->scalar->fn)(0.5f, x, t->n),
          got = ((sum_squares_fn *)t->tested->fn)(0.5f, x, t->n);
    return memcmp(&want, &got, sizeof want) == 0 || complain(t, "differs from scalar");
}

static bool try_dequantize(const struct trial *t, const uint8_t *blocks)
{
    size_t bytes = (size_t)(t->n / t->type->block_elements * t->type->block_bytes);
    uint8_t *out = output_place(t, t->n * 4);
    const void *in = input_place(t, mem.src, blocks, bytes);
    ((dequantize_fn *)t->scalar->fn)((float *)(void *)mem.want, in, t->n);
    ((dequantize_fn *)t->tested->fn)((float *)(void *)out, in, t->n);
    if (t->any_nan) {
        one_nan(mem.want, t->n);
        one_nan(out, t->n);
    }
    return output_is_right(t, out, t->n * 4);
}

static bool try_measure(const struct trial *t, const float *row, const float *row2)
{
    const void *x = input_place(t, mem.src, row, t->n * 4), *y = input_place(t, mem.src2, row2, t->n * 4);
    struct error_sums want = {.noise = {1e-9}, .signal = {3}, .max_abs = {0.5f}, .n = 7}, got = want;
    ((measure_fn *)t->scalar->fn)(&want, x, y, t->n);
    ((measure_fn *)t->tested->fn)(&got, x, y, t->n);
    return memcmp(&want, &got, sizeof want) == 0 || complain(t, "differs from scalar");
}

/* @row is finite; a NaN or Inf is planted at @at (t->n: none). */
static bool try_find(const struct trial *t, const float *row, size_t at, uint32_t bits)
{
    uint8_t *x = input_place(t, mem.src, row, t->n * 4);
    if (at < t->n)
        memcpy(x + at * 4, &bits, 4);
    if (at + 3 < t->n) /* a later one must not be taken for the first */
        memcpy(x + (at + 3) * 4, &bits, 4);
    size_t got = ((find_nonfinite_fn *)t->tested->fn)((const float *)(void *)x, t->n);
    return got == at || complain(t, "found the wrong place");
}

static const uint32_t nonfinite_bits[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff, 0x7f800001, 0xff800001};

static bool try_find_everywhere(const struct trial *t, const float *row, uint64_t seed)
{
    size_t step = t->n < 300 ? 1 : t->n / 97;
    bool ok = try_find(t, row, t->n, 0);
    for (size_t at = 0; ok && at < t->n; at += step)
        ok = try_find(t, row, at, nonfinite_bits[(seed + at) % 6]);
    return ok;
}

static bool try_one(struct trial *t, enum data_kind kind, uint64_t seed)
{
    t->data = data_name(kind);
    data_fill(kind, mem.row, t->n, seed);
    switch (t->tested->kind) {
    case KERNEL_quantize:
        return try_quantize(t, mem.row);
    case KERNEL_quantize_weighted:
        data_fill_importance(mem.row2, t->n, seed);
        return try_quantize_weighted(t, mem.row, mem.row2);
    case KERNEL_dequantize:
        data_fill_blocks(mem.blocks, t->n / t->type->block_elements, t->tested->type, 1, seed * 31 + kind);
        return try_dequantize(t, mem.blocks);
    case KERNEL_measure:
        data_fill(kind, mem.row2, t->n, seed + 1);
        return try_measure(t, mem.row, mem.row2);
    case KERNEL_find_nonfinite:
        return try_find_everywhere(t, mem.row, seed);
    case KERNEL_sum_squares:
        return try_sum(t, mem.row);
    }
    return false;
}

/* Sizes in blocks (or elements of plain types): nothing, one, around every vector width and group, odd ones, large. */
static const size_t sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  11,  15,  16,  17,  23,  31,  32,  33, 47,
                               48, 49, 63, 64, 65, 67, 95, 96, 97, 100, 127, 128, 129, 191, 193, 211, 255};
static const size_t offsets[] = {0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 60, 64};

static bool brief; /* --short */

static void check_sizes(struct trial t)
{
    bool ok = true;
    size_t elements = t.type ? t.type->block_elements : 1, tried = 0;
    size_t most = brief && elements > 32 ? 5 * elements : MAX_ELEMENTS / 2;
    for (size_t s = 0; ok && s < COUNT(sizes) && sizes[s] * elements <= most; s++)
        for (int kind = 0; ok && kind < DATA_N_KINDS; kind++, tried++) {
            t.n = sizes[s] * elements;
            t.src_offset = offsets[tried % COUNT(offsets)];
            t.dst_offset = offsets[tried / 3 % COUNT(offsets)];
            ok = try_one(&t, (enum data_kind)kind, tried);
        }
    report(ok, "%s %s: %zu rows of every size and kind", t.tested->op, t.tested->variant, tried);
}

static void check_alignments(struct trial t)
{
    bool ok = true;
    size_t tried = 0;
    t.n =
        t.type && t.type->block_elements > 32 ? 3 * t.type->block_elements : 35 * (t.type ? t.type->block_elements : 3);
    for (t.src_offset = 0; ok && t.src_offset <= 64; t.src_offset += brief ? 3 : 1)
        for (t.dst_offset = 0; ok && t.dst_offset <= 64; t.dst_offset += (brief ? 31 : 5) + t.src_offset % 3, tried++)
            ok = try_one(&t, DATA_gaussian, tried);
    report(ok, "%s %s: %zu pairs of alignments", t.tested->op, t.tested->variant, tried);
}

static void check_large(struct trial t)
{
    bool ok = true;
    uint64_t seeds = brief ? 1 : 2;
    t.n = brief ? MAX_ELEMENTS / 4 : MAX_ELEMENTS;
    t.src_offset = t.dst_offset = 0;
    for (int kind = 0; ok && kind < DATA_N_KINDS; kind++)
        for (uint64_t seed = 100; ok && seed < 100 + seeds; seed++)
            ok = try_one(&t, (enum data_kind)kind, seed);
    report(ok, "%s %s: %zu elements of every kind", t.tested->op, t.tested->variant, t.n * (size_t)seeds);
}

/* Plain 16-bit types also define what becomes of NaN and Inf; blocks whose scale is one define all but which NaN. */
static void check_nonfinite(struct trial t)
{
    bool ok = true;
    t.n = MAX_ELEMENTS;
    t.src_offset = t.dst_offset = 0;
    t.data = "NaN and Inf";
    if (t.tested->kind == KERNEL_quantize && t.type->block_elements == 1) {
        data_fill_nonfinite(mem.row, t.n, 5);
        ok = try_quantize(&t, mem.row);
    } else if (t.tested->kind == KERNEL_dequantize) {
        data_fill_blocks(mem.blocks, t.n / t.type->block_elements, t.tested->type, 0, 6);
        t.any_nan = t.type->block_elements > 1;
        ok = try_dequantize(&t, mem.blocks);
    } else {
        return;
    }
    report(ok, "%s %s: NaN and Inf", t.tested->op, t.tested->variant);
}

/* Every 16-bit float there is. */
static void check_all_halves(struct trial t)
{
    bool ok = true;
    t.src_offset = t.dst_offset = 0;
    t.n = MAX_ELEMENTS;
    t.data = "all 65536 values";
    for (uint32_t first = 0; ok && first < 65536; first += MAX_ELEMENTS) {
        for (uint32_t i = 0; i < MAX_ELEMENTS; i++) {
            uint16_t h = (uint16_t)(first + i);
            memcpy(mem.blocks + i * 2, &h, 2);
        }
        ok = try_dequantize(&t, mem.blocks);
    }
    report(ok, "%s %s: all 65536 values", t.tested->op, t.tested->variant);
}

/* f32 bit patterns in even steps through all 2^32. */
static void check_bit_patterns(struct trial t)
{
    enum { STEP = 1021 }; /* a prime: reaches every low bit pattern */
    bool ok = true;
    uint64_t bits = 0;
    t.src_offset = t.dst_offset = 0;
    t.n = MAX_ELEMENTS;
    t.data = "bit patterns";
    while (ok && bits <= UINT32_MAX) {
        for (size_t i = 0; i < t.n; i++, bits += STEP) {
            uint32_t b = (uint32_t)bits;
            memcpy(&mem.row[i], &b, 4);
        }
        ok = try_quantize(&t, mem.row);
    }
    report(ok, "%s %s: f32 bit patterns in steps of %d", t.tested->op, t.tested->variant, STEP);
}

static void check_variant(const struct kernel_entry *tested, const struct kernel_entry *scalar)
{
    struct trial t = {.tested = tested, .scalar = scalar, .type = qd_type_info(tested->type)};
    check_sizes(t);
    check_alignments(t);
    check_large(t);
    check_nonfinite(t);
    if (t.type && t.type->block_bytes == 2 && tested->kind == KERNEL_dequantize)
        check_all_halves(t);
    if (t.type && t.type->block_bytes == 2 && tested->kind == KERNEL_quantize)
        check_bit_patterns(t);
}

static uint64_t digest_quantize(const struct trial *t, uint64_t hash, int kind)
{
    data_fill((enum data_kind)kind, mem.row, t->n, 1);
    ((quantize_fn *)t->tested->fn)(mem.want, mem.row, t->n);
    return data_hash(hash, mem.want, t->n / t->type->block_elements * t->type->block_bytes);
}

static uint64_t digest_quantize_weighted(const struct trial *t, uint64_t hash, int kind)
{
    data_fill((enum data_kind)kind, mem.row, t->n, 1);
    data_fill_importance(mem.row2, t->n, (uint64_t)kind);
    ((quantize_weighted_fn *)t->tested->fn)(mem.want, mem.row, t->n, mem.row2, mean_square(mem.row, t->n));
    return data_hash(hash, mem.want, t->n / t->type->block_elements * t->type->block_bytes);
}

static uint64_t digest_sum_squares(const struct trial *t, uint64_t hash, int kind)
{
    data_fill((enum data_kind)kind, mem.row, t->n, 1);
    float sum = ((sum_squares_fn *)t->tested->fn)(1, mem.row, t->n - 3);
    return data_hash(hash, &sum, sizeof sum);
}

static uint64_t digest_dequantize(const struct trial *t, uint64_t hash, int kind)
{
    data_fill_blocks(mem.blocks, t->n / t->type->block_elements, t->tested->type, 1, 77 + (uint64_t)kind);
    ((dequantize_fn *)t->tested->fn)((float *)(void *)mem.want, mem.blocks, t->n);
    return data_hash(hash, mem.want, t->n * 4);
}

static uint64_t digest_measure(const struct trial *t, uint64_t hash, int kind)
{
    struct error_sums sums = {0};
    data_fill((enum data_kind)kind, mem.row, t->n, 1);
    data_fill((enum data_kind)kind, mem.row2, t->n, 2);
    ((measure_fn *)t->tested->fn)(&sums, mem.row, mem.row2, t->n - 5);
    return data_hash(hash, &sums, sizeof sums);
}

static uint64_t digest_find_nonfinite(const struct trial *t, uint64_t hash, int kind)
{
    data_fill((enum data_kind)kind, mem.row, t->n, 1);
    memcpy(&mem.row[kind * 31], &nonfinite_bits[kind % 6], 4);
    uint64_t at = ((find_nonfinite_fn *)t->tested->fn)(mem.row, t->n);
    return data_hash(hash, &at, sizeof at);
}

static uint64_t digest_of(const struct kernel_entry *e)
{
    static uint64_t (*const digests[])(const struct trial *, uint64_t, int) = {
#define K(name) [KERNEL_##name] = digest_##name,
        KERNEL_KINDS(K)
#undef K
    };
    struct trial t = {.tested = e, .type = qd_type_info(e->type), .n = 1024};
    uint64_t hash = HASH_START;
    for (int kind = 0; kind < DATA_N_KINDS; kind++)
        hash = digests[e->kind](&t, hash, kind);
    return hash;
}

/* usage: check [--short] [WORD]: only operations whose name holds WORD */
int main(int argc, char **argv)
{
    const struct check_options options = check_begin(argc, argv);
    size_t n;
    const struct kernel_entry *list = kernels_list(&n), *scalar = NULL;
    brief = options.brief;
    mem.src = fenced();
    mem.src2 = fenced();
    mem.dst = fenced();
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].variant, "scalar") == 0)
            scalar = &list[i];
        if (!check_wanted(&options, list[i].op, list[i].variant, list[i].needs))
            continue;
        check_variant(&list[i], scalar);
        check_golden(list[i].op, list[i].variant, digest_of(&list[i]));
    }
    return report_end();
}
