#include "quant/calib/sound.h"

#include <math.h>
#include <string.h>

#include "kernels/core/bytes.h"
#include "kernels/core/cleanup.h"

enum { TAG_PCM = 1, TAG_FLOAT = 3, TAG_EXTENSIBLE = 0xfffe, CHUNK_HEAD = 8, FORMAT_BYTES = 16, EXTENDED_BYTES = 26 };

void sound_clear(struct sound *s)
{
    free(s->samples);
    s->samples = NULL;
}

/* What "fmt " says, and where "data" lies. */
struct wave {
    uint32_t tag, n_channels, rate, bits;
    uint64_t at, bytes;
    bool has_format, has_data;
};

static int read_format(struct source *s, uint64_t at, uint64_t n, struct wave *w, struct qd_error *err)
{
    uint8_t raw[EXTENDED_BYTES] = {0};
    if (n < FORMAT_BYTES)
        return err_new(err, QD_E_CORRUPT, "its format chunk has %llu bytes", (unsigned long long)n);
    int r = source_read_meta(s, 0, at, raw, n < sizeof raw ? (size_t)n : sizeof raw, err);
    if (r < 0)
        return r;
    struct cursor c = cursor_over((struct bytes){raw, sizeof raw});
    w->tag = cursor_u16(&c);
    w->n_channels = cursor_u16(&c);
    w->rate = cursor_u32(&c);
    (void)cursor_take(&c, 6); /* bytes a second, bytes a frame: follow from the others */
    w->bits = cursor_u16(&c);
    (void)cursor_take(&c, 8); /* of the extension: its size, bits that count, speakers */
    if (w->tag == TAG_EXTENSIBLE)
        w->tag = cursor_u16(&c); /* the first two bytes of the format's GUID */
    w->has_format = true;
    return 0;
}

/* The chunks; what is behind the data is not looked at. */
static int read_chunks(struct source *s, struct wave *w, struct qd_error *err)
{
    const uint64_t size = source_bytes(s, 0);
    uint8_t head[12];
    int r = size < sizeof head ? err_new(err, QD_E_CORRUPT, "no WAV: it has %llu bytes", (unsigned long long)size)
                               : source_read_meta(s, 0, 0, head, sizeof head, err);
    if (r == 0 && (memcmp(head, "RIFF", 4) != 0 || memcmp(head + 8, "WAVE", 4) != 0))
        r = err_new(err, QD_E_CORRUPT, "no WAV by its first bytes");
    for (uint64_t at = sizeof head; r == 0 && !w->has_data && size - at >= CHUNK_HEAD;) {
        r = source_read_meta(s, 0, at, head, CHUNK_HEAD, err);
        if (r < 0)
            return r;
        struct cursor c = cursor_over((struct bytes){head + 4, 4});
        const uint64_t n = cursor_u32(&c), left = size - at - CHUNK_HEAD;
        if (n > left)
            return err_new(err, QD_E_CORRUPT, "a chunk of %llu bytes, where the file ends after %llu",
                           (unsigned long long)n, (unsigned long long)left);
        if (memcmp(head, "fmt ", 4) == 0)
            r = read_format(s, at + CHUNK_HEAD, n, w, err);
        w->has_data = memcmp(head, "data", 4) == 0;
        w->at = at + CHUNK_HEAD;
        w->bytes = n;
        at += CHUNK_HEAD + n + (n & 1 && n < left);
    }
    return r;
}

static float sample_at(const uint8_t *raw, bool is_float)
{
    float f;
    int16_t i;
    if (!is_float) {
        memcpy(&i, raw, sizeof i);
        return (float)i / 32768.0f;
    }
    memcpy(&f, raw, sizeof f);
    return f;
}

static int read_samples(struct source *s, const struct wave *w, struct sound *ret, struct qd_error *err)
{
    const size_t bytes = w->bits / 8, frame = bytes * w->n_channels;
    const uint64_t n = w->bytes / frame;
    if (n == 0 || n > SOUND_SAMPLES_MAX)
        return err_new(err, QD_E_LIMIT, "it has %llu samples, 1 to %d are read", (unsigned long long)n,
                       SOUND_SAMPLES_MAX);
    CLEANUP(free) uint8_t *raw = malloc(frame);
    ret->samples = malloc((size_t)n * sizeof *ret->samples);
    if (!raw || !ret->samples)
        return err_new(err, QD_E_NO_MEMORY, "a sound of %llu samples", (unsigned long long)n);
    ret->rate = w->rate;
    for (ret->n = 0; ret->n < n; ret->n++) {
        float sum = 0.0f;
        int r = source_read_meta(s, 0, w->at + ret->n * frame, raw, frame, err);
        for (size_t c = 0; r == 0 && c < w->n_channels; c++)
            sum += sample_at(raw + c * bytes, w->tag == TAG_FLOAT);
        if (r < 0)
            return r;
        ret->samples[ret->n] = sum / (float)w->n_channels;
        if (!isfinite(ret->samples[ret->n]))
            return err_new(err, QD_E_INVALID, "sample %zu is no number", ret->n);
    }
    return 0;
}

int sound_read(struct source *s, struct sound *ret, struct qd_error *err)
{
    CLEANUP(sound_clear) struct sound made = {0};
    struct wave w = {0};
    int r = read_chunks(s, &w, err);
    if (r < 0)
        return r;
    if (!w.has_format || !w.has_data)
        return err_new(err, QD_E_CORRUPT, "no WAV: it has no %s", w.has_format ? "data" : "format");
    if (!(w.tag == TAG_PCM && w.bits == 16) && !(w.tag == TAG_FLOAT && w.bits == 32))
        return err_new(err, QD_E_UNSUPPORTED,
                       "its samples have format %u of %u bits: PCM of 16 and float of 32 are read", w.tag, w.bits);
    if (w.n_channels == 0 || w.n_channels > 64 || w.rate == 0)
        return err_new(err, QD_E_CORRUPT, "it has %u channels at %u Hz", w.n_channels, w.rate);
    r = read_samples(s, &w, &made, err);
    if (r == 0) {
        *ret = made;
        made.samples = NULL;
    }
    return r;
}
