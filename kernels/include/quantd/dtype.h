/*
 * quantd/dtype.h - element types by their standard names
 *
 * Elements of a row are stored in blocks; a row of n elements takes n / block_elements *
 * block_bytes bytes and n must divide. Values of enum qd_type are quantd's own and part of the
 * ABI; the id a GGUF file uses is qd_type_info.ggml_id. Source: docs/formats/blocks.md.
 */
#ifndef QUANTD_DTYPE_H
#define QUANTD_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum qd_type_kind { QD_KIND_FLOAT, QD_KIND_INT, QD_KIND_BLOCK };

enum qd_type {
#define QD_DTYPE(name, NAME, id, elements, bytes, kind) QD_TYPE_##NAME,
#include <quantd/dtypes.def>
#undef QD_DTYPE
    QD_N_TYPES
};

struct qd_type_info {
    const char *name;        /* "q8_0" */
    int32_t ggml_id;         /* type id in a GGUF file */
    uint32_t block_elements; /* elements per block */
    uint32_t block_bytes;    /* bytes per block */
    enum qd_type_kind kind;
};

#if defined(__GNUC__)
#pragma GCC visibility push(default) /* exported by libquantd */
#endif

/* The facts of a type; NULL where @type is none. Static storage. */
const struct qd_type_info *qd_type_info(enum qd_type type);

/* The type of a name or of a GGUF id; -1 where there is none. */
int qd_type_by_name(const char *name);
int qd_type_by_ggml_id(int32_t id);

/* Bytes of a row of @n elements; 0 where @n does not divide into blocks or the product overflows. */
uint64_t qd_type_row_bytes(enum qd_type type, uint64_t n_elements);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
