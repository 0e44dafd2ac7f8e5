#include "kernels/layout/packed.h"

#include <string.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/layout/blocks.h"

enum { LINE = 64, AHEAD_BYTES = 512 /* of each row */ };

struct layout_facts {
    struct qd_layout_info info;
    uint32_t columns;
};

static const struct layout_facts layouts[QD_N_LAYOUTS] = {
#define QD_LAYOUT(name, NAME, rows, run, panel, columns) [QD_LAYOUT_##NAME] = {{#name, rows, run, panel}, columns},
#include <quantd/layouts.def>
#undef QD_LAYOUT
};

/* First match holds: what a CPU with these features computes fastest with. */
static const struct preference {
    enum qd_layout layout;
    uint64_t needs;
    const char *features; /* the same in words, for every architecture to read */
} preferences[] = {
    {QD_LAYOUT_R16K4P128, CPU_AVX512 | CPU_AVX512VNNI, "x86_64+avx512+avx512vnni"},
    {QD_LAYOUT_R8K4P128, CPU_AVX2 | CPU_FMA | CPU_F16C, "x86_64+avx2+f16c+fma"},
    {QD_LAYOUT_R4K8P128, CPU_NEON | CPU_I8MM, "aarch64+i8mm+neon"},
    {QD_LAYOUT_R4K4P128, CPU_NEON, "aarch64+neon"},
    {QD_LAYOUT_PORTABLE, 0, ""},
};

static const struct preference *preference_of(enum qd_layout layout)
{
    size_t i = 0;
    while (preferences[i].layout != layout && preferences[i].layout != QD_LAYOUT_PORTABLE)
        i++;
    return &preferences[i];
}

#define FIELD(type, field, turn)                                                              \
    {                                                                                         \
        offsetof(struct block_##type, field), sizeof(((struct block_##type *)0)->field), turn \
    }
enum { CODES = 0 };

static const struct packed_field q8_0_fields[] = {FIELD(q8_0, q, CODES), FIELD(q8_0, d, 2)};
static const struct packed_field q4_0_fields[] = {FIELD(q4_0, q, CODES), FIELD(q4_0, d, 2)};
static const struct packed_field q2_k_fields[] = {FIELD(q2_k, q, CODES), FIELD(q2_k, scales, 1), FIELD(q2_k, d, 2),
                                                  FIELD(q2_k, dmin, 2)};
static const struct packed_field q3_k_fields[] = {FIELD(q3_k, q, CODES), FIELD(q3_k, high, CODES),
                                                  FIELD(q3_k, scales, 1), FIELD(q3_k, d, 2)};
static const struct packed_field q4_k_fields[] = {FIELD(q4_k, q, CODES), FIELD(q4_k, scales, 1), FIELD(q4_k, d, 2),
                                                  FIELD(q4_k, dmin, 2)};
static const struct packed_field q5_k_fields[] = {FIELD(q5_k, q, CODES), FIELD(q5_k, high, CODES),
                                                  FIELD(q5_k, scales, 1), FIELD(q5_k, d, 2), FIELD(q5_k, dmin, 2)};
static const struct packed_field q6_k_fields[] = {FIELD(q6_k, low, CODES), FIELD(q6_k, high, CODES),
                                                  FIELD(q6_k, scales, 1), FIELD(q6_k, d, 2)};

static const struct packed_field i8_fields[] = {FIELD(i8, q, CODES)};
static const struct packed_field u4_fields[] = {FIELD(u4, q, CODES)};

static const struct {
    const struct packed_field *fields;
    size_t n, block_bytes;
} packed[QD_N_TYPES] = {
#define PACKED(type, TYPE) \
    [QD_TYPE_##TYPE] = {type##_fields, sizeof type##_fields / sizeof type##_fields[0], sizeof(struct block_##type)}
    PACKED(q8_0, Q8_0), PACKED(q4_0, Q4_0), PACKED(q2_k, Q2_K), PACKED(q3_k, Q3_K), PACKED(q4_k, Q4_K),
    PACKED(q5_k, Q5_K), PACKED(q6_k, Q6_K), PACKED(i8, I8),     PACKED(u4, I4),     PACKED(u4, U4),
#undef PACKED
};

const struct qd_layout_info *qd_layout_info(enum qd_layout layout)
{
    return (unsigned)layout < QD_N_LAYOUTS ? &layouts[layout].info : NULL;
}

int qd_layout_by_name(const char *name)
{
    for (int i = 0; i < QD_N_LAYOUTS; i++)
        if (strcmp(layouts[i].info.name, name) == 0)
            return i;
    return -1;
}

uint32_t layout_columns(enum qd_layout layout)
{
    return layouts[layout].columns;
}

enum qd_layout layout_native(uint64_t features)
{
    size_t i = 0;
    while ((features & preferences[i].needs) != preferences[i].needs)
        i++;
    return preferences[i].layout;
}

uint64_t layout_needs(enum qd_layout layout)
{
    return preference_of(layout)->needs;
}

const char *layout_features(enum qd_layout layout)
{
    return preference_of(layout)->features;
}

bool layout_is_codes(enum qd_type type)
{
    return type == QD_TYPE_I8 || type == QD_TYPE_I4 || type == QD_TYPE_U4;
}

size_t packed_block_bytes(enum qd_type type)
{
    return packed[type].block_bytes;
}

size_t packed_fields(enum qd_type type, const struct packed_field **ret)
{
    *ret = packed[type].fields;
    return layout_is_codes(type) ? 0 : packed[type].n;
}

static bool has_group(enum qd_layout layout, uint64_t n_rows)
{
    return layout != QD_LAYOUT_PORTABLE && n_rows >= layouts[layout].info.rows;
}

bool layout_packs(enum qd_layout layout, enum qd_type type, uint64_t n_rows)
{
    return has_group(layout, n_rows) && packed[type].n > 0 && !layout_is_codes(type);
}

bool layout_packs_codes(enum qd_layout layout, enum qd_type type, uint64_t n_rows, uint64_t n_cols)
{
    return has_group(layout, n_rows) && layout_is_codes(type) && n_cols % BLOCK_32 == 0;
}

/* Blocks of a panel that begins with @left blocks of the row before it. */
static size_t panel_of(enum qd_layout layout, enum qd_type type, size_t left)
{
    const size_t n = layouts[layout].info.panel / packed[type].fields[CODES].bytes;
    return n < left ? n : left;
}

static struct turns turns_of(const struct packed_field *f, enum qd_layout layout, enum qd_type type, size_t row_blocks,
                             size_t n_blocks)
{
    return (struct turns){.row_bytes = row_blocks * packed[type].block_bytes,
                          .block_bytes = packed[type].block_bytes,
                          .field_bytes = f->bytes,
                          .run = f->run ? f->run : layouts[layout].info.run,
                          .n_blocks = n_blocks};
}

/*
 * Asks for bytes [begin, end) of each row, which may lie beyond the matrix. A group is read as many streams, a page or
 * two each: too short for a processor to ask by itself in time (r16k4p128 of q8_0: 17.4 GB/s from memory, 22.5 so).
 */
static void bring_nearer(const uint8_t *rows, size_t n_rows, size_t row_bytes, size_t begin, size_t end)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t at = (begin + LINE - 1) / LINE * LINE; at < end; at += LINE)
            __builtin_prefetch(rows + r * row_bytes + at);
}

void layout_pack_group(const struct ops *ops, enum qd_layout layout, enum qd_type type, void *dst, const void *src,
                       size_t n_blocks)
{
    const size_t block_bytes = packed[type].block_bytes, n_rows = layouts[layout].info.rows;
    uint8_t *plane = dst;
    for (size_t b = 0, n; b < n_blocks; b += n) {
        const uint8_t *from = (const uint8_t *)src + b * block_bytes;
        n = panel_of(layout, type, n_blocks - b);
        bring_nearer(src, n_rows, n_blocks * block_bytes, b * block_bytes + AHEAD_BYTES,
                     (b + n) * block_bytes + AHEAD_BYTES);
        for (size_t i = 0; i < packed[type].n; i++) {
            const struct packed_field *f = &packed[type].fields[i];
            const struct turns t = turns_of(f, layout, type, n_blocks, n);
            ops->interleave[layout](plane, from + f->offset, &t);
            plane += n_rows * n * f->bytes;
        }
    }
}

void layout_unpack_group(const struct ops *ops, enum qd_layout layout, enum qd_type type, void *dst, const void *src,
                         size_t n_blocks)
{
    const uint8_t *plane = src;
    for (size_t b = 0, n; b < n_blocks; b += n) {
        uint8_t *to = (uint8_t *)dst + b * packed[type].block_bytes;
        n = panel_of(layout, type, n_blocks - b);
        for (size_t i = 0; i < packed[type].n; i++) {
            const struct packed_field *f = &packed[type].fields[i];
            const struct turns t = turns_of(f, layout, type, n_blocks, n);
            ops->deinterleave[layout](to + f->offset, plane, &t);
            plane += layouts[layout].info.rows * n * f->bytes;
        }
    }
}

/* Block @b of a panel of @n, of row @row. */
static void unpack_block(enum qd_layout layout, enum qd_type type, uint8_t *dst, const uint8_t *panel, size_t row,
                         size_t b, size_t n)
{
    const size_t n_rows = layouts[layout].info.rows;
    for (size_t k = 0; k < packed[type].n; k++) {
        const struct packed_field *f = &packed[type].fields[k];
        const size_t run = f->run ? f->run : layouts[layout].info.run;
        for (size_t i = 0; i < f->bytes; i += run)
            memcpy(dst + f->offset + i, panel + n_rows * (b * f->bytes + i) + row * run, run);
        panel += n_rows * n * f->bytes;
    }
}

void layout_unpack_row(enum qd_layout layout, enum qd_type type, void *dst, const void *group, size_t row,
                       size_t n_blocks, size_t first, size_t end)
{
    const size_t block_bytes = packed[type].block_bytes, panel = panel_of(layout, type, n_blocks);
    uint8_t *to = dst;
    for (size_t b = first; b < end; b++, to += block_bytes) {
        const size_t begin = b / panel * panel;
        unpack_block(layout, type, to, (const uint8_t *)group + layouts[layout].info.rows * begin * block_bytes, row,
                     b - begin, panel_of(layout, type, n_blocks - begin));
    }
}
