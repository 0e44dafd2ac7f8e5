/* A PNG or JPEG file as pixels, by libpng and libjpeg. */
#ifndef QUANTD_CALIB_PICTURE_H
#define QUANTD_CALIB_PICTURE_H

#include "quant/source.h"

enum {
    PICTURE_FILE_BYTES_MAX = 64 << 20,
    PICTURE_PIXELS_MAX = 24 << 20, /* 72 MiB as red, green, blue: within what a job may use beside the executor */
};

struct picture {
    uint32_t width, height;
    uint8_t *rgb; /* owned: [height][width][3]; what is transparent lies on black */
};

/*
 * The first file of @s, by its content whatever it is called. Errors are a reason alone; the caller names the file.
 * Built without the libraries: always QD_E_UNSUPPORTED.
 */
int picture_read(struct source *s, struct picture *ret, struct qd_error *err);
void picture_clear(struct picture *p);

static inline void picture_clear_cleanup(struct picture *p)
{
    picture_clear(p);
}

#endif
