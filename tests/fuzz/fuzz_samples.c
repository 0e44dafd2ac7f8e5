/*
 * Input: a sample as a file: WAV, or what libpng and libjpeg read; and the lines that say how it becomes a value. What
 * is read is finite and of the size that it says.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/calib/preparation.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

static struct source *source_of(struct bytes file)
{
    struct source *s = source_of_bytes(file, "sample");
    must(s != NULL);
    source_set_witness(s, 0);
    return s;
}

static void check_sound(struct bytes file)
{
    CLEANUP(source_free) struct source *s = source_of(file);
    CLEANUP(sound_clear) struct sound sound = {0};
    struct qd_error err = {0};
    const int r = sound_read(s, &sound, &err);
    must(r == 0 || (err.code == r && err.message[0] && !sound.samples));
    must(r < 0 || (sound.n > 0 && sound.n <= file.n / 2 && sound.rate > 0));
    for (size_t i = 0; i < sound.n; i++)
        must(isfinite(sound.samples[i]));
}

static void check_picture(struct bytes file)
{
    CLEANUP(source_free) struct source *s = source_of(file);
    CLEANUP(picture_clear) struct picture p = {0};
    struct qd_error err = {0};
    const int r = picture_read(s, &p, &err);
    must(r == 0 || (err.code == r && err.message[0] && !p.rgb));
    uint64_t sum = 0; /* all of it is there, and was set: a sanitizer watches */
    for (size_t i = 0; r == 0 && i < (size_t)p.width * p.height * 3; i++)
        sum += p.rgb[i];
    must(r < 0 || sum <= UINT64_C(255) * 3 * p.width * p.height);
}

static void check_lines(struct bytes text)
{
    struct preparation p = preparation_default;
    struct qd_error err = {0};
    const int r = preparation_parse(text, &p, &err);
    must(r == 0 || (r == QD_E_INVALID && err.message[0]));
    must(isfinite(p.scale) && p.std[0] > 0 && p.std[1] > 0 && p.std[2] > 0 && isfinite(p.mean[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const struct bytes file = {data, n_bytes};
    if (n_bytes == 0)
        return 0;
    check_sound(file);
    check_picture(file);
    check_lines(file);
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    static const uint8_t wav[] =
        "RIFF\x2e\0\0\0WAVEfmt \x10\0\0\0\1\0\2\0\x80\x3e\0\0\0\xfa\0\0\4\0\x10\0data\x8\0\0\0\1\0\2\0\3\0\4\0";
    static const char lines[] =
        "size = 32x48\nfit = crop\nchannels = bgr\nmean = 0.5 0.4, 0.3\nstd=1\nscale = 2e-3\nrate = 8000\n";
    use((struct bytes){wav, sizeof wav - 1}, data);
    use((struct bytes){(const uint8_t *)lines, sizeof lines - 1}, data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    (void)use;
    (void)data;
}
