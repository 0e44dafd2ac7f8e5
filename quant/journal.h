/*
 * The journal of a run: one record per finished unit, so that a killed run continues where it
 * was. docs/formats/journal.md is the format. It is believed only when its head says the same tag
 * and the same work; a torn tail is cut off and its unit is done again.
 * One thread at a time.
 */
#ifndef QUANTD_QUANT_JOURNAL_H
#define QUANTD_QUANT_JOURNAL_H

#include "artifact/digest.h"

enum { JOURNAL_BODY_MAX = 256 << 20 }; /* a shard of nothing but one-element tensors stays below it */

struct journal {
    int fd;      /* borrowed; -1: no journal, appends do nothing */
    uint64_t at; /* where the next record starts */
};

struct journal_record {
    uint64_t unit;
    struct digest leaf;
    struct buffer body; /* owned; cleared by the caller */
};

/*
 * Opens the journal on @fd for the work that @tag and @shape (a digest of what is to be done)
 * name. Returns 1 when it is one of the same work and may hold records, 0 when it was empty, torn
 * or of other work, and was started afresh.
 */
int journal_start(struct journal *j, int fd, const char *tag, const struct digest *shape, struct qd_error *err);

/* The next whole record: 1; 0 at the end, the tail behind the last whole record cut off. */
int journal_next(struct journal *j, struct journal_record *ret, struct qd_error *err);

/* Cuts off everything from the record that journal_next gave last: for one that does not make sense. */
int journal_forget(struct journal *j, const struct journal_record *last, struct qd_error *err);

/* Starts a record in @record, which is empty, with room for a body of @body_bytes: the caller puts that behind. */
void journal_record(struct buffer *record, size_t body_bytes);

/* Completes @record, which was started and has its body, and writes it. */
int journal_append(struct journal *j, uint64_t unit, const struct digest *leaf, struct buffer *record,
                   struct qd_error *err);

#endif
