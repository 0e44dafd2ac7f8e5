/*
 * A stream: the forward reader of a header, over source_read_meta, with a small window. It never
 * reads beyond the end of its file. Like a cursor it fails for good: after a failure results are
 * zero, @result holds the code, and the error says file, byte, subject and reason.
 */
#ifndef QUANTD_QUANT_STREAM_H
#define QUANTD_QUANT_STREAM_H

#include <stdbool.h>

#include "kernels/core/arena.h"
#include "quant/source.h"

enum { STREAM_WINDOW_BYTES = 16 << 10 };

struct stream {
    struct source *source; /* borrowed */
    size_t file;
    uint64_t at;          /* the next byte */
    uint64_t end;         /* no byte at or beyond is read */
    int result;           /* 0, or the code of the first failure */
    struct qd_error *err; /* borrowed; may be NULL */
    const char *what;     /* what is being read, for errors: "tensor" */
    uint64_t index;       /* which one */
    uint64_t window_at;
    size_t window_n;
    uint8_t window[STREAM_WINDOW_BYTES];
};

/* NULL, with the error made, when memory is out. free() it. */
struct stream *stream_new(struct source *s, size_t file, uint64_t at, uint64_t end, struct qd_error *err);

/* What the next reads belong to; @what is static text. */
static inline void stream_doing(struct stream *st, const char *what, uint64_t index)
{
    st->what = what;
    st->index = index;
}

uint64_t stream_left(const struct stream *st);
bool stream_read(struct stream *st, void *dst, uint64_t n_bytes);
bool stream_skip(struct stream *st, uint64_t n_bytes);
uint8_t stream_u8(struct stream *st);
uint16_t stream_u16(struct stream *st);
uint32_t stream_u32(struct stream *st);
uint64_t stream_u64(struct stream *st);

/* The next byte without taking it; -1 at the end or after a failure. */
int stream_peek(struct stream *st);

/* @n_bytes as a NUL-terminated text in @arena; NULL after a failure, budget included. */
char *stream_text(struct stream *st, struct arena *arena, uint64_t n_bytes);

/* Fails the stream at @byte: "'file': byte N: what I: <reason>". Returns the code; the first failure stays. */
int stream_fail(struct stream *st, int code, uint64_t byte, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* The budget of @arena is used up (or memory is). */
int stream_fail_budget(struct stream *st);

#endif
