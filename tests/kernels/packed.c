/*
 * Every kernel of packed.def that this CPU can run against its scalar definition: all shapes that types and layouts
 * have, odd sizes, all alignments, nothing read or written outside; products also against whole numbers where codes are
 * at their extremes; and a digest per operation that is the same number on every architecture.
 * Prints TAP. No library but libc, so that it builds for any target.
 */
#include "tests/kernels/packed.h"

#include <string.h>

#include "tests/kernels/fixture.h"

struct packed_bed bed;

const struct packed_type packed_types[N_PACKED_TYPES] = {
    {QD_TYPE_Q8_0, 32, 128, 32}, {QD_TYPE_Q4_0, 32, 8, 32},   {QD_TYPE_Q2_K, 256, 32, 16},
    {QD_TYPE_Q3_K, 256, 32, 16}, {QD_TYPE_Q4_K, 256, 32, 16}, {QD_TYPE_Q5_K, 256, 32, 16},
    {QD_TYPE_Q6_K, 256, 32, 16}, {QD_TYPE_I8, 32, 128, 32},   {QD_TYPE_U4, 32, 8, 32},
};

const struct packed_type *packed_type_of(enum qd_type type)
{
    size_t i = 0;
    while (packed_types[i].type != type)
        i++;
    return &packed_types[i];
}

size_t block_bytes_of(enum qd_type type)
{
    const struct qd_type_info *info = qd_type_info(type);
    return packed_type_of(type)->block_elements / info->block_elements * info->block_bytes;
}

struct tile_sizes tile_sizes_of(const struct packed_type *t, size_t n_blocks_32, size_t width)
{
    return (struct tile_sizes){.q = n_blocks_32 * width * 32,
                               .scale = n_blocks_32 * 32 / t->block_elements * width,
                               .sums = n_blocks_32 * 32 / t->unit * width,
                               .pairs = t->block_elements == 256 ? n_blocks_32 * width : 0};
}

static uint64_t digest_of(const struct packed_entry *e)
{
    switch (e->kind) {
    case PACKED_interleave:
    case PACKED_deinterleave:
        return digest_turns(e);
    case PACKED_activate:
        return digest_activate(e);
    case PACKED_matmul:
        return digest_products(e);
    case PACKED_dot:
        return digest_dot(e);
    case PACKED_gemm:
        return digest_gemm(e);
    case PACKED_dots:
        return digest_dots(e);
    }
    return 0;
}

static void check_against(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    switch (tested->kind) {
    case PACKED_interleave:
    case PACKED_deinterleave:
        check_turns(tested, scalar);
        break;
    case PACKED_activate:
        check_activate(tested, scalar);
        break;
    case PACKED_matmul:
        check_products(tested, scalar);
        break;
    case PACKED_dot:
        check_dot(tested, scalar);
        break;
    case PACKED_gemm:
        check_gemm(tested, scalar);
        break;
    case PACKED_dots:
        check_dots(tested, scalar);
        break;
    }
}

/* In a short run the definition is not tried beside itself: its digest says enough. */
static void check_entry(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    if (tested->kind == PACKED_matmul)
        check_saturation(tested);
    if (tested != scalar || !bed.brief)
        check_against(tested, scalar);
    check_golden(tested->op, tested->variant, digest_of(tested));
}

static void make_bed(bool brief)
{
    bed.brief = brief;
    bed.weights = fenced();
    bed.d = fenced();
    bed.zeros = fenced();
    bed.x = fenced();
    bed.q = fenced();
    bed.scale = fenced();
    bed.sums = fenced();
    bed.pairs = fenced();
    bed.y = fenced();
}

/* usage: packed [--short] [WORD]: only operations whose name holds WORD */
int main(int argc, char **argv)
{
    const struct check_options options = check_begin(argc, argv);
    size_t n;
    const struct packed_entry *list = packed_list(&n), *scalar = NULL;
    make_bed(options.brief);
    check_places();
    check_groups("scalar", ops_for(0));
    check_groups("native", ops_native());
    for (size_t i = 0; i < n; i++) {
        if (!check_wanted(&options, list[i].op, list[i].variant, list[i].needs))
            continue;
        scalar = list;
        while (strcmp(scalar->op, list[i].op) != 0)
            scalar++; /* the first of an operation */
        check_entry(&list[i], scalar);
    }
    return report_end();
}
