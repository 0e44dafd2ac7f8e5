/*
 * The layout of a run: which tensors meet which shard, and where sums and seams are kept. Made
 * once from a plan, read by all threads. Internal to plan_run.
 *
 *   unit     one shard (16 MiB) of one source file; numbered in file order
 *   cell     the smallest bytes that are made together: a block of the output type and of the
 *            source type, whichever is longer; a row where the encoder looks at the whole row; a
 *            group of rows that are packed, and the rows of a matrix that are left behind its groups;
 *            one byte of what is moved unseen
 *   piece    a tensor's part of one unit; its error sums have one slot
 *   seam     a cell of which each of two units holds a part
 */
#ifndef QUANTD_QUANT_RUN_LAYOUT_H
#define QUANTD_QUANT_RUN_LAYOUT_H

#include <stdatomic.h>

#include "quant/measure.h"
#include "quant/plan.h"

/*
 * A cell lies in two shards at most. Rows of 16 MiB have four million weights; the longest known has 53,248, and 16 of
 * those in q8_0 are 905 KB.
 */
enum { CELL_BYTES_MAX = SHARD_BYTES };

/* What becomes of a tensor's cells. */
enum work {
    WORK_ENCODE,
    WORK_COPY, /* the same type: looked at for NaN and Inf, and written as it is */
    WORK_MOVE, /* written as it is, unseen: what holds no NaN, or was looked at when it was made */
    WORK_PACK,
    WORK_UNPACK,
};

struct job_tensor {
    const struct plan_tensor *planned;
    const char *name;
    uint32_t file;
    uint64_t offset, end; /* in the source file */
    enum work work;
    bool by_row; /* a cell is a row, and its mean square counts */
    uint64_t cell_elements;
    uint64_t cell_source_bytes; /* of all cells but those of rows that are left */
    uint64_t cell_bytes;        /* in the output */
    uint64_t n_cells;
    uint64_t matrix_cells, matrix_bytes; /* cells start anew with each matrix that is packed; else: all */
    uint64_t cells_in_row; /* cells that are neighbours in the output too: all, or a row's when rows move */
    uint64_t head_rows;    /* rows of a head whose rotary halves are paired; 0: as stored */
    size_t first_piece;    /* slot of its first piece; the others follow */
    size_t first_seam;     /* slot of the seam behind its first piece */
    bool seams;            /* cells do straddle shards */
};

struct seam {
    _Atomic int n_parts; /* of two */
    int n_noted;         /* units that need the bytes no more; of two */
    uint8_t *bytes;      /* owned: a cell of the source; there from the first part until both units are noted */
    struct error_total error;
};

struct layout {
    struct job_tensor *tensors; /* output order */
    size_t n_tensors;
    size_t *by_offset;  /* indices sorted by (file, offset) */
    uint64_t *furthest; /* beside by_offset: the largest end so far in that file */
    size_t n_files;
    size_t *file_first;   /* [n_files + 1] ranges of by_offset */
    uint64_t *file_bytes; /* [n_files] */
    uint64_t *unit_first; /* [n_files + 1]: number of a file's first unit */
    uint64_t n_units;
    struct error_total *pieces;
    size_t n_pieces;
    struct seam *seams;
    size_t n_seams;
    uint64_t cell_bytes_max;  /* of the source, over all tensors */
    uint64_t group_bytes_max; /* of the output, over those that are packed or unpacked */
};

/* A unit's place. */
struct unit {
    uint64_t index;
    uint32_t file;
    uint64_t shard;
    uint64_t begin, end; /* bytes of the file */
};

int layout_build(struct layout *l, const struct source *s, const struct plan *p, struct qd_error *err);
void layout_clear(struct layout *l);

/* Source bytes of the largest cell that @p has, and of the largest group of rows. */
uint64_t layout_cell_bytes_max(const struct plan *p);
uint64_t layout_group_bytes_max(const struct plan *p);

/* Where @cell of @t begins, from the tensor's first byte in the source; its end, where @cell is n_cells. */
static inline uint64_t cell_begin(const struct job_tensor *t, uint64_t cell)
{
    return cell / t->matrix_cells * t->matrix_bytes + cell % t->matrix_cells * t->cell_source_bytes;
}

/* The cell that holds byte @at of the tensor; n_cells at its end. */
static inline uint64_t cell_at(const struct job_tensor *t, uint64_t at)
{
    return at / t->matrix_bytes * t->matrix_cells + at % t->matrix_bytes / t->cell_source_bytes;
}

static inline uint64_t cell_size(const struct job_tensor *t, uint64_t cell)
{
    return cell_begin(t, cell + 1) - cell_begin(t, cell);
}

struct unit layout_unit(const struct layout *l, uint64_t index);

/* Tensors that meet [begin, end) of a file, in source order: start with *at = layout_first(), then call until NULL. */
size_t layout_first(const struct layout *l, uint32_t file, uint64_t begin);
struct job_tensor *layout_next(const struct layout *l, uint32_t file, uint64_t begin, uint64_t end, size_t *at);

/* Slots. */
struct error_total *layout_piece(const struct layout *l, const struct job_tensor *t, uint64_t shard);
struct seam *layout_seam(const struct layout *l, const struct job_tensor *t, uint64_t left_shard);

/* Cells of @t that lie whole in the unit: [*ret_first, *ret_end). */
void layout_cells(const struct job_tensor *t, const struct unit *u, uint64_t *ret_first, uint64_t *ret_end);

/* Error of the whole tensor, pieces and seams added in file order. */
struct error_total layout_error(const struct layout *l, const struct job_tensor *t);

/* A tensor's place in the output file for its cell @cell. */
uint64_t layout_output(const struct job_tensor *t, uint64_t cell);

#endif
