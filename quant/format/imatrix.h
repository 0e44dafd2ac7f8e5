/*
 * The readers of importance matrices, one for each form. They get a struct importance whose arena exists and fill
 * entries, form, dataset and n_chunks; the order of entries is theirs. importance_read does the rest.
 */
#ifndef QUANTD_QUANT_IMATRIX_H
#define QUANTD_QUANT_IMATRIX_H

#include "quant/importance.h"

int imatrix_read_gguf(struct source *s, size_t file, struct importance *i, struct qd_error *err);
int imatrix_read_dat(struct source *s, size_t file, struct importance *i, struct qd_error *err);

/* Makes the numbers of an entry from its sums: @n of them divided by @count. None may be negative or not finite. */
int imatrix_divide(float *sums, uint64_t n, float count, const char *file, const char *name, struct qd_error *err);

/* The budget of the arena is used up (or memory is). */
int imatrix_no_room(const char *file, struct qd_error *err);

/* The next step for a file that cannot be right. */
int imatrix_damaged(int r, struct qd_error *err);

#endif
