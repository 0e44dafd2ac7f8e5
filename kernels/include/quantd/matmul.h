/*
 * quantd/matmul.h - arithmetic with quantized weights
 *
 *     struct qd_matrix w;                                  // from a served tensor: qd_tensor_matrix(), quantd.h
 *     size_t n_bytes = qd_matmul_scratch_bytes(&w, n);
 *     void *scratch = aligned_alloc(64, n_bytes);
 *     qd_matmul(&w, x, n, y, NULL, scratch, n_bytes, &err);   // y[n][w.n_rows] = x[n][w.n_cols] * W^T
 *
 * Weights are read where they are, packed or portable. Activations are f32 and quantized inside to 8 bits, each column
 * (token) by itself in blocks of 32 (q8_0 q4_0 i8 i4 u4) or 256 (q2_k q3_k q4_k q5_k q6_k); with weights of other types
 * they stay f32 and the weights are decoded. |y - exact| <= bound is stated at qd_matmul.
 *
 * The same bits come out for every instruction set, layout, n, split of rows, and number of threads.
 * Memory: nothing is allocated but by qd_team_new. Threads: none but a team's own. All functions may be called from any
 * thread; a team is used by one thread at a time. Errors: 0 or a negative enum qd_error_code; @err may be NULL.
 */
#ifndef QUANTD_MATMUL_H
#define QUANTD_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>
#include <quantd/error.h>
#include <quantd/layout.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default) /* exported by libquantd */
#endif

/* How the codes of a matrix stand, and with them scales and zero points; each innermost dimension last. */
enum qd_order {
    QD_ORDER_ROWS,   /* [n_rows][n_cols filled up to whole blocks], [n_rows][n_scales], [n_rows][n_scales, made even] */
    QD_ORDER_COLUMNS /* [n_cols][n_rows], [n_scales][n_rows], [n_scales][n_rows] */
};

/* A weight matrix W[n_rows][n_cols] in memory: n_rows outputs, n_cols inputs. A plain value; borrows @data. */
struct qd_matrix {
    const void *data; /* n_rows * qd_type_row_bytes(type, n_cols) bytes; any alignment, pages are best */
    uint64_t n_rows;
    uint64_t n_cols; /* whole blocks of the type */
    enum qd_type type;
    enum qd_layout layout; /* portable where the matrix is not packed */
    /*
     * Of codes alone (i8, i4, u4: weights of ONNX models); with all other types zero. W = scale * (code - zero point),
     * both of the row's block. Elements of 4 bits stand two in a byte, the first in the lower half.
     */
    const void *scales;      /* f32, any alignment; borrowed */
    const void *zero_points; /* of u4, 4 bits each, borrowed; NULL: 8 of u4, 0 of i8 and i4 */
    uint64_t block;          /* elements along k that have a scale, a multiple of 32; 0: all of a row (per channel) */
    enum qd_order order;
};

/* Threads that share the rows of a product; NULL wherever a team is taken means the calling thread alone. */
struct qd_team;

/* @n_threads >= 1, the caller's own included. They sleep between products. */
int qd_team_new(unsigned n_threads, struct qd_team **ret, struct qd_error *err);
void qd_team_free(struct qd_team *team);              /* NULL is fine */
unsigned qd_team_threads(const struct qd_team *team); /* 1 for NULL */

/* Scratch for qd_matmul of @w with up to @n columns and any team; a multiple of 64. 0: @w is invalid, or too large. */
size_t qd_matmul_scratch_bytes(const struct qd_matrix *w, size_t n, const struct qd_team *team);

/*
 * y[c][r] = sum over k of x[c][k] * W[r][k], for n columns c.
 *
 * @x: [n][n_cols] f32, finite; any alignment. @y: [n][n_rows] f32; does not overlap the others;
 * at 64 bytes it is written fastest.
 * @scratch: qd_matmul_scratch_bytes() bytes, 64-byte aligned, owned by the caller, contents without meaning.
 *
 * NaN or Inf in a column of @x makes that column of @y NaN or Inf; nothing else changes.
 * Bound, with q the activations as they are rounded, u = 2^-24, and c as docs/formats/compute.md derives it (q8_0,
 * q4_0: n_cols / 32; i8 i4 u4: n_cols / 32 + 1; q2_k q4_k q5_k: n_cols / 128 + 7; q3_k q6_k: n_cols / 256 + 15; others:
 * n_cols / 64 + 6; rounded up): |y - sum W q| <= c u / (1 - c u) * sum |W| |q|, where |W| of q2_k q4_k q5_k is the sum
 * of parts' magnitudes; and |x - q| <= 0.57 max|x| / 127 of the block, where that maximum is not below 0.008.
 * QD_E_INVALID: shapes, types or layouts that do not fit, scratch too small or not aligned; says which.
 */
int qd_matmul(const struct qd_matrix *w, const float *x, size_t n, float *y, struct qd_team *team, void *scratch,
              size_t scratch_bytes, struct qd_error *err);

/*
 * The same in two steps, for callers with threads of their own, and for several matrices that take the same x (queries,
 * keys and values): activations are prepared once, then any number of threads take ranges of rows.
 */
struct qd_activations; /* lives in the memory given to qd_activations_prepare */

/* Memory for activations that @w can take; 0 as above. */
size_t qd_activations_bytes(const struct qd_matrix *w, size_t n);

/* *ret: in @memory (64-byte aligned), to be read while that is left alone. @x is not needed any more afterwards. */
int qd_activations_prepare(const struct qd_matrix *w, const float *x, size_t n, void *memory, size_t memory_bytes,
                           const struct qd_activations **ret, struct qd_error *err);

/* Scratch of one thread for rows of @w; a multiple of 64, may be 0. */
size_t qd_rows_scratch_bytes(const struct qd_matrix *w);

/*
 * Rows [first, end) of the product: y[c * w->n_rows + r]. @first and @end: multiples of qd_rows_step(w), or the end.
 * QD_E_INVALID also where @a was prepared for another number of columns or for another kind of weights.
 */
int qd_matmul_rows(const struct qd_matrix *w, const struct qd_activations *a, uint64_t first, uint64_t end, float *y,
                   void *scratch, size_t scratch_bytes, struct qd_error *err);
uint64_t qd_rows_step(const struct qd_matrix *w);

/* Row @row of @w as f32 at @dst[n_cols], exact. */
int qd_dequantize_row(const struct qd_matrix *w, uint64_t row, float *dst, struct qd_error *err);

/* @n rows by number, such as the embeddings of tokens: dst[i] = W[rows[i]], dst[n][n_cols]. */
int qd_get_rows(const struct qd_matrix *w, const uint32_t *rows, size_t n, float *dst, struct qd_error *err);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
