/*
 * Packed layouts: the same bytes in the order that an instruction set reads them. docs/formats/packed.md.
 *
 * A matrix of n_rows rows becomes n_rows / R groups of R rows, and the rows that are left stay as they are, behind the
 * groups. A group holds one panel after the other, P blocks of each row, as many as have the layout's number of bytes
 * in their first field; the last has those that are left. A panel holds one plane after the other, a plane for each
 * field of the type's block (packed_fields); a plane holds that field of every block of the panel, and in it the rows
 * take turns of `run` bytes. With p blocks in the panel:
 *
 *     portable:  row r, block b, field f, byte i        at  r * row_bytes + b * block_bytes + f.offset + i
 *     packed:    in the group, the panel                at  R * (b / P * P) * block_bytes
 *                in it, plane of f, the block               + R * (p * (sum of the fields before) + b % P * f.bytes)
 *                and in it                                  + (i / run * R + r % R) * run + i % run
 *
 * A group takes R * row_bytes, as its rows do. Nothing is computed: packing is a permutation of bytes, and unpacking
 * the one that undoes it.
 */
#ifndef QUANTD_KERNELS_PACKED_H
#define QUANTD_KERNELS_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quantd/layout.h>

struct ops;

/* A field of a block. */
struct packed_field {
    uint16_t offset; /* in the portable block */
    uint16_t bytes;
    uint8_t run; /* bytes of a turn; 0: the layout's own (codes) */
};

enum { PACKED_FIELDS_MAX = 5 };

/* The fields of @type in plane order, codes first; 0 where the type has no packed form, or is codes alone. */
size_t packed_fields(enum qd_type type, const struct packed_field **ret);

/*
 * Is a matrix of @type with @n_rows rows packed in @layout? A tensor of an artifact of that layout is packed where this
 * says so of its type and of shape[1], each matrix of it by itself, and portable otherwise: nothing else decides.
 */
bool layout_packs(enum qd_layout layout, enum qd_type type, uint64_t n_rows);

/*
 * Codes alone, with scales apart: i8, i4, u4. They are packed as blocks of 32 codes, i8 as they are, i4 and u4 with
 * element j of a block in the low nibble of byte j and element j + 16 in the high one.
 */
bool layout_is_codes(enum qd_type type);
bool layout_packs_codes(enum qd_layout layout, enum qd_type type, uint64_t n_rows, uint64_t n_cols);

/* Bytes of a block as it is packed: of the type, and of 32 codes of those alone; 0 where there is no packed form. */
size_t packed_block_bytes(enum qd_type type);

/* Columns of activations that kernels of @layout take at once. */
uint32_t layout_columns(enum qd_layout layout);

/* The layout that the fastest compute kernels of @features want; portable where there is none for vectors. */
enum qd_layout layout_native(uint64_t features);

/* Feature bits without which @layout is of no use: its kernels would be scalar ones. */
uint64_t layout_needs(enum qd_layout layout);

/*
 * @layout by the name a file or a message has, on any architecture; and the feature string it needs, such as
 * "x86_64+avx512+avx512vnni", "" for portable. Static storage.
 */
const char *layout_features(enum qd_layout layout);

/*
 * Packs one group: R rows of @n_blocks blocks at @src, one behind the other, to the same number of bytes at @dst. The
 * type must have a packed form. Any alignment; no overlap. Any thread.
 */
void layout_pack_group(const struct ops *ops, enum qd_layout layout, enum qd_type type, void *dst, const void *src,
                       size_t n_blocks);
void layout_unpack_group(const struct ops *ops, enum qd_layout layout, enum qd_type type, void *dst, const void *src,
                         size_t n_blocks);

/* Row @row (below R) of a group as portable blocks [first, end) at @dst. */
void layout_unpack_row(enum qd_layout layout, enum qd_type type, void *dst, const void *group, size_t row,
                       size_t n_blocks, size_t first, size_t end);

#endif
