/*
 * The tables of an artifact: its tensors and its model metadata, each a small msgpack object of
 * its own that is named in the manifest by digest. The worker makes them, quantd bounds and
 * checks them, the client reads them. docs/formats/tables.md is the format.
 *
 * Decoding trusts nothing: counts, lengths and ranges are checked before anything is allocated.
 */
#ifndef QUANTD_ARTIFACT_TABLES_H
#define QUANTD_ARTIFACT_TABLES_H

#include <quantd/dtype.h>

#include "kernels/core/arena.h"
#include "kernels/core/bytes.h"
#include "kernels/core/error.h"
#include "kernels/layout/codes.h"

enum {
    TABLE_TENSORS_MAX = 1 << 20, /* the reader's own limit on tensors of a model */
    TABLE_NAME_MAX = 1024,       /* bytes; GGUF says 63, safetensors nothing */
    TABLE_BYTES_MAX = 256 << 20, /* metadata of a model with a large tokenizer is 10 MB */
    TABLE_DIMS_MAX = 8,
    TABLE_KEYS_MAX = 1 << 20, /* metadata keys; the reader's limit is lower */
    TABLE_KEY_MAX = 65535     /* bytes of a metadata key: GGUF's own limit */
};

/*
 * The matrix that a tensor of codes alone is (quantd/matmul.h, struct qd_matrix): i8, i4 or u4, or u8 of two codes of 4
 * bits each. Scales (f32) and zero points are tensors of the same table.
 */
struct code_entry {
    bool by_columns; /* order of codes, scales and zero points */
    uint64_t n_rows, n_cols;
    uint64_t block;       /* elements with a scale; 0: a row has one */
    uint32_t scales;      /* index */
    uint32_t zero_points; /* index + 1; 0: none */
};

/* What an artifact's tensor is, and how far it is from its source. */
struct tensor_entry {
    const char *name; /* borrows the arena */
    enum qd_type type;
    enum qd_type source_type;
    uint32_t n_dims;
    uint64_t shape[TABLE_DIMS_MAX]; /* shape[0] is the row length */
    uint32_t file;                  /* index among the artifact's payload files */
    uint64_t offset;                /* bytes from the start of that file */
    uint64_t bytes;
    const char *reason;      /* why this type, one clause */
    double sqnr_db;          /* 10 log10(signal / noise); +inf where exact */
    double rel_rmse;         /* sqrt(noise / signal); 0 where exact or where the source is all zero */
    double max_abs;          /* max |x - y| */
    struct code_entry codes; /* n_cols 0: it is none */
};

/* The shape of its codes; only where it has some. */
struct code_shape tensor_codes(const struct tensor_entry *t);

/* Is it packed in the artifact of that layout? (docs/formats/packed.md) */
bool tensor_packs(const struct tensor_entry *t, enum qd_layout layout);

struct tensor_table {
    struct tensor_entry *tensors; /* in the arena; file order */
    size_t n;
};

int tensor_table_encode(const struct tensor_table *table, struct buffer *dst, struct qd_error *err);

/*
 * @payload_bytes[@n_payload]: sizes of the payload files; a tensor outside its file is QD_E_CORRUPT. Strings are copied
 * into @arena.
 */
int tensor_table_decode(struct bytes raw, const uint64_t *payload_bytes, size_t n_payload, struct arena *arena,
                        struct tensor_table *ret, struct qd_error *err);

/* One metadata value; arrays keep their element type. Numbers are GGUF's (docs/formats/gguf.md). */
enum meta_type {
    META_U8,
    META_I8,
    META_U16,
    META_I16,
    META_U32,
    META_I32,
    META_F32,
    META_BOOL,
    META_STRING,
    META_ARRAY,
    META_U64,
    META_I64,
    META_F64,
    META_N_TYPES
};

struct meta_value {
    enum meta_type type;
    enum meta_type item; /* of an array; META_ARRAY (nested) is refused */
    uint64_t n_items;    /* 1 for a scalar */
    const void *data;    /* numbers: n_items little-endian values packed; strings: struct bytes[n_items] */
};

struct meta_entry {
    const char *key; /* borrows */
    struct meta_value value;
};

struct meta_table {
    struct meta_entry *entries; /* borrows an arena; source order */
    size_t n;
};

size_t meta_type_bytes(enum meta_type type); /* 0 for string and array */
const struct meta_value *meta_find(const struct meta_table *table, const char *key);
int meta_table_encode(const struct meta_table *table, struct buffer *dst, struct qd_error *err);

/* Values borrow @raw where they can, the rest is in @arena. */
int meta_table_decode(struct bytes raw, struct arena *arena, struct meta_table *ret, struct qd_error *err);

#endif
