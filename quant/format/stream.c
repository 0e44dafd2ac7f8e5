#include "quant/format/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "quant/limits.h"

struct stream *stream_new(struct source *s, size_t file, uint64_t at, uint64_t end, struct qd_error *err)
{
    struct stream *st = malloc(sizeof *st);
    if (!st) {
        (void)err_new(err, QD_E_NO_MEMORY, "reading '%s'", source_name(s, file)); /* NULL says so */
        return NULL;
    }
    *st = (struct stream){.source = s, .file = file, .at = at, .end = end, .err = err, .what = "header"};
    return st;
}

uint64_t stream_left(const struct stream *st)
{
    return st->result ? 0 : st->end - st->at;
}

/* The hint that fits a code, where the format has none of its own. */
static const char *next_step(int code)
{
    if (code == QD_E_CORRUPT)
        return "the file is damaged or its download is incomplete: fetch it again and compare its checksum";
    if (code == QD_E_LIMIT)
        return "no known model needs this much; if yours does, report it with its name";
    return "convert the model again with a current tool";
}

int stream_fail(struct stream *st, int code, uint64_t byte, const char *fmt, ...)
{
    if (st->result)
        return st->result;
    char reason[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(reason, sizeof reason, fmt, args); /* a cut reason is still the best we have */
    va_end(args);
    st->result = err_new(st->err, code, "'%s': byte %llu: %s %llu: %s", source_name(st->source, st->file),
                         (unsigned long long)byte, st->what, (unsigned long long)st->index, reason);
    return err_hint(st->err, st->result, "%s", next_step(code));
}

int stream_fail_budget(struct stream *st)
{
    return stream_fail(st, QD_E_LIMIT, st->at, "the headers need more memory than a model may use");
}

/* Fills the window at st->at; false on failure. */
static bool stream_fill(struct stream *st)
{
    uint64_t left = st->end - st->at;
    size_t n = left < STREAM_WINDOW_BYTES ? (size_t)left : STREAM_WINDOW_BYTES;
    int r = source_read_meta(st->source, st->file, st->at, st->window, n, st->err);
    if (r < 0) {
        st->result = r;
        return false;
    }
    st->window_at = st->at;
    st->window_n = n;
    return true;
}

/* Bytes of the window from st->at on. */
static size_t stream_buffered(const struct stream *st)
{
    if (st->at < st->window_at || st->at >= st->window_at + st->window_n)
        return 0;
    return (size_t)(st->window_at + st->window_n - st->at);
}

static bool stream_has(struct stream *st, uint64_t n_bytes)
{
    if (st->result)
        return false;
    if (n_bytes <= st->end - st->at)
        return true;
    (void)stream_fail(st, QD_E_CORRUPT, st->at, "%llu bytes are needed, %llu are left in the file",
                      (unsigned long long)n_bytes, (unsigned long long)(st->end - st->at)); /* false says it */
    return false;
}

bool stream_read(struct stream *st, void *dst, uint64_t n_bytes)
{
    if (!stream_has(st, n_bytes)) {
        memset(dst, 0, n_bytes <= sizeof(uint64_t) ? (size_t)n_bytes : 0);
        return false;
    }
    for (uint64_t done = 0; done < n_bytes;) {
        size_t ready = stream_buffered(st);
        if (ready == 0 && !stream_fill(st))
            return false;
        ready = stream_buffered(st);
        size_t step = ready < n_bytes - done ? ready : (size_t)(n_bytes - done);
        memcpy((uint8_t *)dst + done, st->window + (st->at - st->window_at), step);
        st->at += step;
        done += step;
    }
    return true;
}

bool stream_skip(struct stream *st, uint64_t n_bytes)
{
    if (!stream_has(st, n_bytes))
        return false;
    st->at += n_bytes;
    return true;
}

int stream_peek(struct stream *st)
{
    if (st->result || st->at == st->end || (stream_buffered(st) == 0 && !stream_fill(st)))
        return -1;
    return st->window[st->at - st->window_at];
}

static uint64_t stream_little_endian(struct stream *st, size_t n_bytes)
{
    uint8_t raw[8] = {0};
    uint64_t v = 0;
    if (!stream_read(st, raw, n_bytes))
        return 0;
    for (size_t i = 0; i < n_bytes; i++)
        v |= (uint64_t)raw[i] << (8 * i);
    return v;
}

uint8_t stream_u8(struct stream *st)
{
    return (uint8_t)stream_little_endian(st, 1);
}

uint16_t stream_u16(struct stream *st)
{
    return (uint16_t)stream_little_endian(st, 2);
}

uint32_t stream_u32(struct stream *st)
{
    return (uint32_t)stream_little_endian(st, 4);
}

uint64_t stream_u64(struct stream *st)
{
    return stream_little_endian(st, 8);
}

char *stream_text(struct stream *st, struct arena *arena, uint64_t n_bytes)
{
    if (!stream_has(st, n_bytes))
        return NULL;
    char *text = arena_alloc(arena, n_bytes + 1, 1); /* zeroed: ends with NUL */
    if (!text) {
        (void)stream_fail_budget(st); /* NULL says it */
        return NULL;
    }
    return stream_read(st, text, n_bytes) ? text : NULL;
}
