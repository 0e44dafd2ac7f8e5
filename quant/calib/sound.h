/*
 * A WAV file: RIFF with PCM of 16 bits or float32, one channel or their mean. Source: "Multimedia Programming Interface
 * and Data Specifications 1.0" (IBM, Microsoft 1991), and mmreg.h for the tags 3 and 0xfffe.
 */
#ifndef QUANTD_CALIB_SOUND_H
#define QUANTD_CALIB_SOUND_H

#include "quant/source.h"

enum { SOUND_SAMPLES_MAX = 16 << 20 /* a quarter of an hour at 16 kHz */ };

struct sound {
    uint32_t rate;  /* Hz */
    float *samples; /* owned: -1 to 1 */
    size_t n;
};

/* The first file of @s. Errors are a reason alone; the caller names the file. */
int sound_read(struct source *s, struct sound *ret, struct qd_error *err);
void sound_clear(struct sound *s);

static inline void sound_clear_cleanup(struct sound *s)
{
    sound_clear(s);
}

#endif
