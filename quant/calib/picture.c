#include "quant/calib/picture.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

#include "kernels/core/cleanup.h"

void picture_clear(struct picture *p)
{
    free(p->rgb);
    p->rgb = NULL;
}

static int check_size(uint64_t width, uint64_t height, struct qd_error *err)
{
    if (width == 0 || height == 0)
        return err_new(err, QD_E_CORRUPT, "a picture of %llu x %llu pixels", (unsigned long long)width,
                       (unsigned long long)height);
    if (width > PICTURE_PIXELS_MAX || height > PICTURE_PIXELS_MAX / width)
        return err_new(err, QD_E_LIMIT, "a picture of %llu x %llu pixels, at most %d are read",
                       (unsigned long long)width, (unsigned long long)height, PICTURE_PIXELS_MAX);
    return 0;
}

static int reserve(struct picture *p, uint32_t width, uint32_t height, struct qd_error *err)
{
    int r = check_size(width, height, err);
    if (r < 0)
        return r;
    *p = (struct picture){width, height, malloc((size_t)width * height * 3)};
    return p->rgb ? 0 : err_new(err, QD_E_NO_MEMORY, "a picture of %u x %u pixels", width, height);
}

/* ---- PNG: libpng's simple form (png.h, section 10) ---- */

static int read_png(struct bytes file, struct picture *p, struct qd_error *err)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    const png_color black = {0, 0, 0};
    if (!png_image_begin_read_from_memory(&image, file.data, file.n))
        return err_new(err, QD_E_CORRUPT, "no sound PNG: %.64s", image.message);
    image.format = PNG_FORMAT_RGB;
    int r = reserve(p, image.width, image.height, err);
    if (r == 0 && !png_image_finish_read(&image, &black, p->rgb, 0, NULL))
        r = err_new(err, QD_E_CORRUPT, "no sound PNG: %.64s", image.message);
    png_image_free(&image);
    return r;
}

/* ---- JPEG: libjpeg leaves its functions by a jump (libjpeg.txt, "Error handling") ---- */

struct jpeg_trap {
    struct jpeg_error_mgr manager; /* first: libjpeg knows this alone */
    jmp_buf out;
    char message[JMSG_LENGTH_MAX];
};

static void leave(j_common_ptr cinfo)
{
    struct jpeg_trap *trap = (struct jpeg_trap *)cinfo->err;
    cinfo->err->format_message(cinfo, trap->message);
    longjmp(trap->out, 1);
}

/* A warning is data that are cut or damaged: they would calibrate with grey. */
static void on_message(j_common_ptr cinfo, int level)
{
    if (level < 0)
        leave(cinfo);
}

static void read_rows(struct jpeg_decompress_struct *cinfo, const struct picture *p)
{
    while (cinfo->output_scanline < cinfo->output_height) {
        JSAMPROW row = p->rgb + (size_t)cinfo->output_scanline * p->width * 3;
        (void)jpeg_read_scanlines(cinfo, &row, 1); /* jumps where it fails */
    }
    (void)jpeg_finish_decompress(cinfo); /* as above */
}

static int read_jpeg(struct bytes file, struct picture *p, struct qd_error *err)
{
    struct jpeg_trap trap;
    struct jpeg_decompress_struct cinfo;
    volatile int r = 0;
    cinfo.err = jpeg_std_error(&trap.manager);
    trap.manager.error_exit = leave;
    trap.manager.emit_message = on_message;
    if (setjmp(trap.out)) {
        jpeg_destroy_decompress(&cinfo);
        return err_new(err, QD_E_CORRUPT, "no sound JPEG: %.100s", trap.message);
    }
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, file.data, file.n);
    (void)jpeg_read_header(&cinfo, TRUE); /* jumps where there is none */
    r = check_size(cinfo.image_width, cinfo.image_height, err);
    cinfo.out_color_space = JCS_RGB;
    cinfo.dct_method = JDCT_ISLOW; /* the same pixels from every build of the library */
    if (r == 0) {
        (void)jpeg_start_decompress(&cinfo); /* as above */
        r = reserve(p, cinfo.output_width, cinfo.output_height, err);
    }
    if (r == 0)
        read_rows(&cinfo, p);
    jpeg_destroy_decompress(&cinfo);
    return r;
}

/* ---- a file ---- */

int picture_read(struct source *s, struct picture *ret, struct qd_error *err)
{
    static const uint8_t png_magic[] = {0x89, 'P', 'N', 'G'}, jpeg_magic[] = {0xff, 0xd8, 0xff};
    CLEANUP(picture_clear) struct picture p = {0};
    const uint64_t n = source_bytes(s, 0);
    if (n > PICTURE_FILE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "it has %llu bytes, at most %d are read", (unsigned long long)n,
                       PICTURE_FILE_BYTES_MAX);
    CLEANUP(free) uint8_t *file = malloc((size_t)n + 1);
    if (!file)
        return err_new(err, QD_E_NO_MEMORY, "a picture of %llu bytes", (unsigned long long)n);
    int r = source_read_meta(s, 0, 0, file, (size_t)n, err);
    if (r == 0 && n > sizeof png_magic && memcmp(file, png_magic, sizeof png_magic) == 0)
        r = read_png((struct bytes){file, (size_t)n}, &p, err);
    else if (r == 0 && n > sizeof jpeg_magic && memcmp(file, jpeg_magic, sizeof jpeg_magic) == 0)
        r = read_jpeg((struct bytes){file, (size_t)n}, &p, err);
    else if (r == 0)
        r = err_new(err, QD_E_CORRUPT, "neither PNG nor JPEG by its first bytes");
    if (r == 0) {
        *ret = p;
        p.rgb = NULL;
    }
    return r;
}
