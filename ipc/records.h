/*
 * Records: long lists that travel in a descriptor, not in a packet (the plan's memfd): a MessagePack
 * array of the maps that protocol.def declares. The reader holds one record at a time.
 */
#ifndef QUANTD_IPC_RECORDS_H
#define QUANTD_IPC_RECORDS_H

#include "ipc/codec.h"

/* The header of a list of @n records, then each record: the caller appends them in order. */
int records_begin(struct buffer *dst, uint32_t n, struct qd_error *err);
int record_encode(struct buffer *dst, enum message record, const void *item, struct qd_error *err);

struct record_reader {
    struct cursor cursor;
    uint32_t n_left;
    void *zone; /* owned; memory of the record read last */
};

/* @list is borrowed and must not change. Nothing is trusted: a list that is cut or malformed fails where that is met.
 */
int record_reader_open(struct bytes list, struct record_reader *ret, struct qd_error *err);
void record_reader_clear(struct record_reader *r);
static inline void record_reader_clear_cleanup(struct record_reader *r)
{
    record_reader_clear(r);
}

/* 1: @ret is the next record and borrows @r until the next call; 0: there is none. */
int record_read(struct record_reader *r, enum message record, void *ret, struct qd_error *err);

/* Passes over up to @n records; returns how many, or negative. */
int64_t record_skip(struct record_reader *r, uint32_t n, struct qd_error *err);

#endif
