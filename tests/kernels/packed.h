/*
 * The check of packed.def, in parts: packing, activations, products with integers and with floats. Each part tries one
 * entry against the scalar one of its operation, and makes a digest that is the same number on every architecture.
 */
#ifndef QUANTD_TESTS_KERNELS_PACKED_H
#define QUANTD_TESTS_KERNELS_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { MAX_WIDTH = 16, MAX_ROWS = 16 };

/* What the parts share; made by main. */
extern struct packed_bed {
    bool brief;
    uint8_t *weights, *d, *zeros, *x, *q, *scale, *sums, *pairs, *y; /* fenced; d, zeros: of weights, where apart */
} bed;

/* How activations are made for a type of weights (kernels/kernels.h), and how it is packed. */
struct packed_type {
    enum qd_type type;
    size_t block_elements; /* of codes alone: that are packed as a block */
    int32_t offset;        /* of u4: without zero points */
    size_t unit;
};
enum { N_PACKED_TYPES = 9 };
extern const struct packed_type packed_types[N_PACKED_TYPES];
const struct packed_type *packed_type_of(enum qd_type type);

/* Bytes of those block_elements. */
size_t block_bytes_of(enum qd_type type);

/* Sizes of the parts of a tile of @width columns and @n_blocks blocks of 32, in elements. */
struct tile_sizes {
    size_t q, scale, sums, pairs;
};
struct tile_sizes tile_sizes_of(const struct packed_type *t, size_t n_blocks_32, size_t width);

/* (de)interleave_*: the two of them take the same shapes. */
void check_turns(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_turns(const struct packed_entry *e);

/* Groups packed and unpacked by the kernels of a feature set; every byte of a block has one place in a group. */
void check_groups(const char *name, const struct ops *ops);
void check_places(void);

void check_activate(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_activate(const struct packed_entry *e);

void check_products(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_products(const struct packed_entry *e);

void check_dot(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_dot(const struct packed_entry *e);
void check_gemm(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_gemm(const struct packed_entry *e);
void check_dots(const struct packed_entry *tested, const struct packed_entry *scalar);
uint64_t digest_dots(const struct packed_entry *e);

/* Codes at their extremes, against whole numbers computed here. */
void check_saturation(const struct packed_entry *tested);

#endif
