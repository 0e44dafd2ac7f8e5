/* Packing: kernels, groups, and the places that docs/formats/packed.md gives. */
#include <stdio.h>
#include <string.h>

#include "kernels/layout/packed.h"
#include "tests/kernels/data.h"
#include "tests/kernels/fixture.h"
#include "tests/kernels/packed.h"

enum { GROUP_BYTES_MAX = MAX_ROWS * (33 * 256 + 64), BRIEF_COUNTS = 8 };

static const size_t block_counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};
static const size_t offsets[] = {0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 60, 64};

/* One call of a kernel and of scalar. */
struct turns_trial {
    const struct packed_entry *tested, *scalar;
    struct turns t;
    size_t n_rows;
    bool first; /* at the lower fence, else at the upper one */
    size_t src_offset, dst_offset;
};

static struct {
    uint8_t before[GROUP_BYTES_MAX], src[GROUP_BYTES_MAX], want[GROUP_BYTES_MAX];
} mem;

static bool complain(const struct turns_trial *t, const char *what)
{
    printf("# %s %s: %s; %zu blocks of %zu bytes, field %zu, run %zu, %s fence, src %zu, dst %zu\n", t->tested->op,
           t->tested->variant, what, t->t.n_blocks, t->t.block_bytes, t->t.field_bytes, t->t.run,
           t->first ? "lower" : "upper", t->src_offset, t->dst_offset);
    return false;
}

static void fill_random(uint8_t *dst, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = (uint8_t)(data_random(&seed) >> 40);
}

static uint8_t *place(uint8_t *room, size_t bytes, size_t offset, bool first)
{
    return first ? place_first(room, offset) : place_last(room, bytes, offset);
}

/* From the first byte of the field in the first row to the last one in the last row. */
static size_t span_bytes(const struct turns_trial *t)
{
    return (t->n_rows - 1) * t->t.row_bytes + (t->t.n_blocks - 1) * t->t.block_bytes + t->t.field_bytes;
}

static bool try_turns(const struct turns_trial *t, uint64_t seed)
{
    const size_t plane = t->n_rows * t->t.n_blocks * t->t.field_bytes, span = span_bytes(t);
    const bool packs = t->tested->kind == PACKED_interleave;
    const size_t src_bytes = packs ? span : plane, dst_bytes = packs ? plane : span;
    uint8_t *src = place(bed.weights, src_bytes, t->src_offset, t->first);
    uint8_t *dst = place(bed.y, dst_bytes, t->dst_offset, t->first);
    fill_random(mem.src, src_bytes, seed);
    fill_random(mem.before, dst_bytes, seed + 1);
    memcpy(src, mem.src, src_bytes);
    memcpy(dst, mem.before, dst_bytes);
    memcpy(mem.want, mem.before, dst_bytes);
    guard(bed.y, dst, dst_bytes);
    ((interleave_fn *)t->scalar->fn)(mem.want, mem.src, &t->t); /* the two kinds take the same arguments */
    ((interleave_fn *)t->tested->fn)(dst, src, &t->t);
    if (!is_guarded(bed.y, dst, dst_bytes))
        return complain(t, "wrote outside its output");
    if (memcmp(src, mem.src, src_bytes) != 0)
        return complain(t, "changed its input");
    return memcmp(dst, mem.want, dst_bytes) == 0 || complain(t, "differs from scalar");
}

static bool try_everywhere(struct turns_trial *t, size_t *tried)
{
    bool ok = true;
    for (size_t i = 0; ok && i < (bed.brief ? 2 : 6); i++, ++*tried) {
        t->first = i % 2;
        t->src_offset = offsets[*tried % COUNT(offsets)];
        t->dst_offset = offsets[*tried / 3 % COUNT(offsets)];
        ok = try_turns(t, *tried);
    }
    return ok;
}

static bool try_field(struct turns_trial *t, const struct packed_field *f, size_t block_bytes, size_t *tried)
{
    bool ok = true;
    for (size_t i = 0; ok && i < (bed.brief ? BRIEF_COUNTS : COUNT(block_counts)); i++) {
        const size_t n = block_counts[i];
        t->t = (struct turns){.row_bytes = n * block_bytes,
                              .block_bytes = block_bytes,
                              .field_bytes = f->bytes,
                              .run = f->run ? f->run : qd_layout_info(t->tested->layout)->run,
                              .n_blocks = n};
        ok = try_everywhere(t, tried);
        t->t.row_bytes += 13; /* rows need not touch */
        ok = ok && try_everywhere(t, tried);
    }
    return ok;
}

/* packed_fields(), and of codes alone the block that they are packed as. */
static size_t fields_of(enum qd_type type, const struct packed_field **ret)
{
    static const struct packed_field i8[] = {{0, 32, 0}}, u4[] = {{0, 16, 0}};
    if (!layout_is_codes(type))
        return packed_fields(type, ret);
    *ret = type == QD_TYPE_I8 ? i8 : u4;
    return 1;
}

static void check_types(struct turns_trial t)
{
    for (size_t i = 0; i < N_PACKED_TYPES; i++) {
        const struct packed_field *fields;
        const enum qd_type type = packed_types[i].type;
        const size_t n = fields_of(type, &fields);
        size_t tried = 0;
        bool ok = n > 0;
        for (size_t k = 0; ok && k < n; k++)
            ok = try_field(&t, &fields[k], block_bytes_of(type), &tried);
        report(ok, "%s %s: %zu planes of %s", t.tested->op, t.tested->variant, tried, qd_type_info(type)->name);
    }
}

/* Shapes that no type has yet: the contract knows nothing of types. */
static void check_other_shapes(struct turns_trial t)
{
    static const struct packed_field shapes[] = {{0, 2, 1},  {0, 1, 1},  {0, 3, 1},  {0, 4, 2},  {0, 6, 2}, {0, 8, 0},
                                                 {0, 24, 0}, {0, 40, 0}, {0, 48, 0}, {0, 96, 0}, {0, 33, 1}};
    static const size_t others[] = {0, 1, 2, 5, 30};
    size_t tried = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < COUNT(shapes); i++)
        for (size_t k = 0; ok && k < COUNT(others); k++)
            ok = try_field(&t, &shapes[i], shapes[i].bytes + others[k], &tried);
    report(ok, "%s %s: %zu planes of other shapes", t.tested->op, t.tested->variant, tried);
}

void check_turns(const struct packed_entry *tested, const struct packed_entry *scalar)
{
    struct turns_trial t = {.tested = tested, .scalar = scalar, .n_rows = qd_layout_info(tested->layout)->rows};
    check_types(t);
    check_other_shapes(t);
}

uint64_t digest_turns(const struct packed_entry *e)
{
    const size_t n_rows = qd_layout_info(e->layout)->rows, run = qd_layout_info(e->layout)->run;
    const struct turns t = {.row_bytes = 5 * 144, .block_bytes = 144, .field_bytes = 128, .run = run, .n_blocks = 5};
    const size_t bytes = n_rows * t.row_bytes;
    fill_random(mem.src, bytes, 1);
    memset(mem.want, 0, bytes);
    ((interleave_fn *)e->fn)(mem.want, mem.src, &t);
    return data_hash(HASH_START, mem.want, bytes);
}

/* ---- groups ---------------------------------------------------------------------------------------------------- */

/* Packed and unpacked again: the same; and row by row, in every range of blocks. */
static bool try_group(const struct ops *ops, enum qd_layout layout, enum qd_type type, size_t n_blocks)
{
    const size_t block_bytes = block_bytes_of(type), n_rows = qd_layout_info(layout)->rows;
    const size_t row_bytes = n_blocks * block_bytes, bytes = n_rows * row_bytes;
    uint8_t *packed = place_last(bed.y, bytes, n_blocks % 3), *back = place_last(bed.x, bytes, n_blocks % 5);
    bool ok = true;
    fill_random(mem.src, bytes, n_blocks);
    guard(bed.y, packed, bytes);
    guard(bed.x, back, bytes);
    layout_pack_group(ops, layout, type, packed, mem.src, n_blocks);
    layout_unpack_group(ops, layout, type, back, packed, n_blocks);
    ok = memcmp(back, mem.src, bytes) == 0 && is_guarded(bed.y, packed, bytes) && is_guarded(bed.x, back, bytes);
    for (size_t r = 0; ok && r < n_rows; r++)
        for (size_t first = 0; ok && first < n_blocks; first += 2)
            for (size_t end = first; ok && end <= n_blocks; end += 3) {
                const size_t part = (end - first) * block_bytes;
                uint8_t *row = place_last(bed.x, part, 0);
                guard(bed.x, row, part);
                layout_unpack_row(layout, type, row, packed, r, n_blocks, first, end);
                ok = memcmp(row, mem.src + r * row_bytes + first * block_bytes, part) == 0 &&
                     is_guarded(bed.x, row, part);
            }
    return ok;
}

void check_groups(const char *name, const struct ops *ops)
{
    for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++)
        for (size_t i = 0; i < N_PACKED_TYPES; i++) {
            bool ok = true;
            for (size_t n = 1; ok && n <= 17; n += n < 4 ? 1 : 3)
                ok = try_group(ops, (enum qd_layout)layout, packed_types[i].type, n);
            report(ok, "%s in %s: unpacked groups and rows are those that were packed, by %s kernels",
                   qd_type_info(packed_types[i].type)->name, qd_layout_info((enum qd_layout)layout)->name, name);
        }
}

/* A byte of a group: byte @i of field @f of block @b of row @r. */
struct place {
    size_t f, r, b, i;
};

/* Where docs/formats/packed.md puts it. */
static size_t place_of(enum qd_type type, enum qd_layout layout, size_t n_blocks, struct place at)
{
    const struct qd_layout_info *l = qd_layout_info(layout);
    const struct packed_field *fields;
    const size_t n = fields_of(type, &fields), panel = l->panel / fields[0].bytes;
    const size_t first = at.b / panel * panel; /* the panel's first block */
    const size_t in_panel = n_blocks - first < panel ? n_blocks - first : panel;
    const size_t run = fields[at.f].run ? fields[at.f].run : l->run;
    size_t before = 0;
    for (size_t k = 0; k < n; k++)
        before += k < at.f ? fields[k].bytes : 0;
    return l->rows * (first * block_bytes_of(type) + in_panel * before + (at.b - first) * fields[at.f].bytes) +
           (at.i / run * l->rows + at.r) * run + at.i % run;
}

/* Every byte of a block is in one field, once. */
static bool fields_cover_block(enum qd_type type)
{
    const struct packed_field *fields;
    const size_t n = fields_of(type, &fields), block_bytes = block_bytes_of(type);
    uint8_t times[256] = {0};
    bool ok = n > 0 && n <= PACKED_FIELDS_MAX && fields[0].run == 0;
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < fields[f].bytes; i++)
            times[fields[f].offset + i]++;
    for (size_t i = 0; i < block_bytes; i++)
        ok &= times[i] == 1;
    for (size_t i = block_bytes; i < sizeof times; i++)
        ok &= times[i] == 0;
    return ok;
}

/*
 * Bytes of a group carry their own address in base 256, a digit in each of two packings: what comes out at a place is
 * where it came from.
 */
static bool addresses_move_as_written(enum qd_layout layout, enum qd_type type, size_t n_blocks)
{
    const struct packed_field *fields;
    const size_t n = fields_of(type, &fields), block_bytes = block_bytes_of(type);
    const size_t n_rows = qd_layout_info(layout)->rows, bytes = n_rows * n_blocks * block_bytes;
    uint8_t *digits[2] = {mem.before, mem.want};
    static bool taken[GROUP_BYTES_MAX];
    bool ok = bytes <= 65536;
    for (int d = 0; d < 2; d++) {
        for (size_t i = 0; i < bytes; i++)
            mem.src[i] = (uint8_t)(i >> 8 * d);
        layout_pack_group(ops_for(0), layout, type, digits[d], mem.src, n_blocks);
    }
    memset(taken, 0, bytes);
    for (size_t f = 0; f < n; f++)
        for (size_t j = 0; j < n_rows * n_blocks * fields[f].bytes; j++) {
            const struct place at = {.f = f,
                                     .r = j / fields[f].bytes / n_blocks,
                                     .b = j / fields[f].bytes % n_blocks,
                                     .i = j % fields[f].bytes};
            const size_t from = (at.r * n_blocks + at.b) * block_bytes + fields[f].offset + at.i;
            const size_t to = place_of(type, layout, n_blocks, at);
            ok = ok && to < bytes && !taken[to] && digits[0][to] + 256u * digits[1][to] == from;
            taken[to % bytes] = true;
        }
    return ok;
}

void check_places(void)
{
    for (size_t i = 0; i < N_PACKED_TYPES; i++) {
        const enum qd_type type = packed_types[i].type;
        report(fields_cover_block(type), "%s: its planes hold every byte of a block once", qd_type_info(type)->name);
        for (int layout = QD_LAYOUT_PORTABLE + 1; layout < QD_N_LAYOUTS; layout++)
            report(addresses_move_as_written((enum qd_layout)layout, type, 1) &&
                       addresses_move_as_written((enum qd_layout)layout, type, 7),
                   "%s in %s: every byte goes to a place of its own, the one that packed.md gives",
                   qd_type_info(type)->name, qd_layout_info((enum qd_layout)layout)->name);
    }
}
