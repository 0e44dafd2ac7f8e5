#include "quant/calib/preparation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/cleanup.h"

enum { TEXT_BYTES_MAX = 4096, SIDE_MAX = 1 << 14 };

const struct preparation preparation_default = {.std = {1.0, 1.0, 1.0}};

/* ---- the file ---- */

static const char *const fits[] = {[FIT_STRETCH] = "stretch", [FIT_PAD] = "pad", [FIT_CROP] = "crop", NULL};
static const char *const colors[] = {[COLORS_RGB] = "rgb", [COLORS_BGR] = "bgr", [COLORS_GRAY] = "gray", NULL};
static const char *const layouts[] = {
    [LAYOUT_BY_SHAPE] = "by-shape", [LAYOUT_NCHW] = "nchw", [LAYOUT_NHWC] = "nhwc", NULL};

/* Index of @word in @names, -1 where it is none. */
static int word_of(const char *word, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(word, names[i]) == 0)
            return i;
    return -1;
}

static bool take_number(const char **text, double *ret)
{
    char *end;
    *ret = strtod(*text, &end);
    bool is = end != *text && isfinite(*ret);
    *text = end + strspn(end, " ,\t");
    return is;
}

/* One number for all channels, or one for each. */
static bool take_channels(const char *text, double dst[3])
{
    int n = 0;
    while (*text && n < 3)
        if (!take_number(&text, &dst[n++]))
            return false;
    if (n == 1)
        dst[1] = dst[2] = dst[0];
    return (n == 1 || n == 3) && !*text;
}

static bool take_size(const char *text, struct preparation *p)
{
    int end = 0;
    return sscanf(text, "%5ux%5u%n", &p->width, &p->height, &end) == 2 && !text[end] && p->width > 0 && p->height > 0 &&
           p->width <= SIDE_MAX && p->height <= SIDE_MAX;
}

static bool take_rate(const char *text, struct preparation *p)
{
    int end = 0;
    return sscanf(text, "%7u%n", &p->rate, &end) == 1 && !text[end] && p->rate > 0;
}

static bool take_scale(const char *text, struct preparation *p)
{
    p->has_scale = take_number(&text, &p->scale) && !*text;
    return p->has_scale;
}

static bool take_word(const char *text, const char *const *names, int *ret)
{
    *ret = word_of(text, names);
    return *ret >= 0;
}

static bool take_line(const char *key, const char *value, struct preparation *p)
{
    int word = 0;
    bool is = false;
    if (strcmp(key, "size") == 0)
        return take_size(value, p);
    if (strcmp(key, "rate") == 0)
        return take_rate(value, p);
    if (strcmp(key, "scale") == 0)
        return take_scale(value, p);
    if (strcmp(key, "mean") == 0)
        return take_channels(value, p->mean);
    if (strcmp(key, "std") == 0)
        return take_channels(value, p->std) && p->std[0] > 0 && p->std[1] > 0 && p->std[2] > 0;
    if (strcmp(key, "fit") == 0 && (is = take_word(value, fits, &word)))
        p->fit = (enum fit)word;
    if (strcmp(key, "channels") == 0 && (is = take_word(value, colors, &word)))
        p->colors = (enum colors)word;
    if (strcmp(key, "layout") == 0 && (is = take_word(value, layouts, &word)))
        p->layout = (enum picture_layout)word;
    return is;
}

/* Without blanks at both ends. */
static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t n = strlen(text);
    while (n && strchr(" \t\r", text[n - 1]))
        text[--n] = '\0';
    return text;
}

int preparation_parse(struct bytes text, struct preparation *ret, struct qd_error *err)
{
    char copy[TEXT_BYTES_MAX + 1], *rest = copy;
    struct preparation p = preparation_default;
    if (text.n > TEXT_BYTES_MAX || (text.n && memchr(text.data, 0, text.n)))
        return err_new(err, QD_E_INVALID, "no text of at most %d bytes", TEXT_BYTES_MAX);
    memcpy(copy, text.data, text.n);
    copy[text.n] = '\0';
    unsigned number = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        number++;
        line = trim(line);
        char *value = strchr(line, '=');
        if (!line[0] || line[0] == '#' || line[0] == ';')
            continue;
        if (value)
            *value++ = '\0';
        if (value && take_line(trim(line), trim(value), &p))
            continue;
        int r = err_new(err, QD_E_INVALID, "line %u says nothing known: '%.64s'", number, line);
        return err_hint(err, r,
                        "size = 224x224, fit = stretch|pad|crop, channels = rgb|bgr|gray, layout = nchw|nhwc, scale = "
                        "0.0039, mean = ..., std = ..., rate = 16000");
    }
    *ret = p;
    return 0;
}

/* ---- pictures ---- */

/* Where a pixel of the result comes from: source coordinate = at + step * (i + 0.5) - 0.5, in pixels. */
struct axis {
    double at, step;
    uint32_t n;           /* of the source */
    uint32_t first, last; /* of the result: inside [first, last) it comes from the picture, outside it is black */
};

/* @share: of the result's side that the picture fills; above 1 it is cut, evenly at both ends. */
static struct axis axis_of(uint32_t n_source, uint32_t n_result, double share)
{
    const double filled = share < 1.0 ? fmax(1.0, floor(share * n_result + 0.5)) : n_result;
    const double cut = share > 1.0 ? n_source * (1.0 - 1.0 / share) / 2.0 : 0.0;
    return (struct axis){
        .at = cut, .step = (n_source - 2.0 * cut) / filled, .n = n_source, .first = 0, .last = (uint32_t)filled};
}

/* Pad keeps the picture at the top left, as detectors are trained; crop keeps its middle. */
static void axes_of(const struct preparation *p, const struct picture *from, uint32_t width, uint32_t height,
                    struct axis *x, struct axis *y)
{
    const double sx = (double)width / from->width, sy = (double)height / from->height;
    const double s = p->fit == FIT_PAD ? fmin(sx, sy) : p->fit == FIT_CROP ? fmax(sx, sy) : 0.0;
    *x = axis_of(from->width, width, s > 0.0 ? s / sx : 1.0);
    *y = axis_of(from->height, height, s > 0.0 ? s / sy : 1.0);
}

/* The two source pixels of result pixel @i and the second one's weight; bilinear, centres at halves, edges repeated. */
static double neighbours(const struct axis *a, uint32_t i, uint32_t *low, uint32_t *high)
{
    const double at = fmin(fmax(a->at + a->step * ((double)i + 0.5) - 0.5, 0.0), (double)a->n - 1.0);
    *low = (uint32_t)at;
    *high = *low + 1 < a->n ? *low + 1 : *low;
    return at - (double)*low;
}

static double pixel(const struct picture *p, uint32_t x, uint32_t y, unsigned c)
{
    return (double)p->rgb[((size_t)y * p->width + x) * 3 + c];
}

struct resampling {
    const struct picture *from;
    struct axis x, y;
};

/* Red, green or blue of result pixel (@i, @j). */
static double resampled(const struct resampling *s, uint32_t i, uint32_t j, unsigned c)
{
    uint32_t x0, x1, y0, y1;
    if (i >= s->x.last || j >= s->y.last)
        return 0.0;
    const double u = neighbours(&s->x, i, &x0, &x1), v = neighbours(&s->y, j, &y0, &y1);
    const double top = pixel(s->from, x0, y0, c) * (1.0 - u) + pixel(s->from, x1, y0, c) * u;
    const double low = pixel(s->from, x0, y1, c) * (1.0 - u) + pixel(s->from, x1, y1, c) * u;
    return top * (1.0 - v) + low * v;
}

/* ITU-R BT.601, as every library's grey. */
static double channel_of(const struct preparation *p, const struct resampling *s, uint32_t i, uint32_t j, unsigned c)
{
    if (p->colors == COLORS_GRAY)
        return 0.299 * resampled(s, i, j, 0) + 0.587 * resampled(s, i, j, 1) + 0.114 * resampled(s, i, j, 2);
    return resampled(s, i, j, p->colors == COLORS_BGR ? 2 - c : c);
}

/* What the input says of a picture: which dimension is which, and how large; 0: it leaves that open. */
struct place {
    size_t channels, height, width; /* dimensions */
    uint32_t n_channels, n_height, n_width;
    size_t n_dims;
};

static uint32_t dim_of(const struct onnx_value_info *input, size_t d)
{
    const int64_t v = input->dims[d].value;
    return v > 0 && v <= SIDE_MAX ? (uint32_t)v : 0;
}

static int find_place(const struct preparation *p, const struct onnx_value_info *input, struct place *ret,
                      struct qd_error *err)
{
    const uint32_t n = p->colors == COLORS_GRAY ? 1 : 3;
    if (input->kind != ONNX_KIND_TENSOR || !input->has_shape || (input->n_dims != 3 && input->n_dims != 4))
        return err_new(err, QD_E_INVALID, "input '%.200s' is no picture: three or four dimensions are due",
                       input->name);
    const size_t first = input->n_dims - 3;
    bool last = p->layout == LAYOUT_NHWC;
    if (p->layout == LAYOUT_BY_SHAPE)
        last = dim_of(input, first) != n && dim_of(input, first + 2) == n;
    *ret = (struct place){.channels = last ? first + 2 : first,
                          .height = last ? first : first + 1,
                          .width = last ? first + 1 : first + 2,
                          .n_channels = n,
                          .n_dims = input->n_dims};
    const uint32_t channels = dim_of(input, ret->channels);
    ret->n_height = dim_of(input, ret->height);
    ret->n_width = dim_of(input, ret->width);
    if (channels && channels != n)
        return err_hint(err,
                        err_new(err, QD_E_INVALID, "input '%.200s' has %u channels, the picture is given with %u",
                                input->name, channels, n),
                        "channels = rgb, bgr or gray, and layout = nchw or nhwc, in " PREPARATION_NAME);
    return 0;
}

static int check_type(const struct onnx_value_info *input, struct qd_error *err)
{
    return input->type == ONNX_FLOAT || input->type == ONNX_UINT8
               ? 0
               : err_new(err, QD_E_INVALID, "input '%.200s' is of %s: pictures and sounds become float32 or uint8",
                         input->name, onnx_type_name(input->type));
}

/* uint8 takes pixels as they are, float32 what the lines make of them. */
static void put(struct value *v, size_t at, const struct preparation *p, double scale, unsigned channel, double x)
{
    if (v->type == ONNX_UINT8)
        ((uint8_t *)v->data)[at] = (uint8_t)(fmin(fmax(x, 0.0), 255.0) + 0.5);
    else
        ((float *)v->data)[at] = (float)((x * scale - p->mean[channel]) / p->std[channel]);
}

int preparation_of_picture(const struct preparation *p, const struct picture *picture,
                           const struct onnx_value_info *input, struct memory *m, struct value **ret,
                           struct qd_error *err)
{
    CLEANUP(value_release) struct value *v = NULL;
    struct place place = {0};
    int r = check_type(input, err);
    if (r == 0)
        r = find_place(p, input, &place, err);
    if (r < 0)
        return r;
    const uint32_t width = p->width ? p->width : place.n_width ? place.n_width : picture->width;
    const uint32_t height = p->height ? p->height : place.n_height ? place.n_height : picture->height;
    struct shape shape = {.n_dims = (uint32_t)place.n_dims, .dims = {1}};
    shape.dims[place.channels] = place.n_channels;
    shape.dims[place.height] = height;
    shape.dims[place.width] = width;
    r = value_new(m, input->type, &shape, &v, err);
    if (r < 0)
        return r;
    struct resampling s = {.from = picture};
    axes_of(p, picture, width, height, &s.x, &s.y);
    const double scale = p->has_scale ? p->scale : 1.0 / 255.0;
    const bool last = place.channels > place.width;
    const size_t area = (size_t)width * height;
    for (uint32_t j = 0; j < height; j++)
        for (uint32_t i = 0; i < width; i++)
            for (unsigned c = 0; c < place.n_channels; c++) {
                const size_t at = (size_t)j * width + i;
                put(v, last ? at * place.n_channels + c : c * area + at, p, scale, c, channel_of(p, &s, i, j, c));
            }
    *ret = steal(&v);
    return 0;
}

/* ---- sounds ---- */

int preparation_of_sound(const struct preparation *p, const struct sound *sound, const struct onnx_value_info *input,
                         struct memory *m, struct value **ret, struct qd_error *err)
{
    CLEANUP(value_release) struct value *v = NULL;
    struct shape shape = {.n_dims = (uint32_t)input->n_dims};
    if (p->rate && p->rate != sound->rate)
        return err_hint(err, err_new(err, QD_E_INVALID, "it has %u Hz, %u are due", sound->rate, p->rate),
                        "convert the sound: nothing is resampled here");
    if (input->kind != ONNX_KIND_TENSOR || !input->has_shape || input->n_dims == 0 || input->n_dims > VALUE_DIMS_MAX ||
        input->type != ONNX_FLOAT)
        return err_new(err, QD_E_INVALID, "input '%.200s' is no sound: float32 with a last dimension of samples is due",
                       input->name);
    for (size_t d = 0; d + 1 < input->n_dims; d++) {
        if (input->dims[d].value > 1)
            return err_new(err, QD_E_INVALID, "dimension %zu of input '%.200s' is %lld, a sound has 1", d, input->name,
                           (long long)input->dims[d].value);
        shape.dims[d] = 1;
    }
    const int64_t due = input->dims[input->n_dims - 1].value;
    shape.dims[input->n_dims - 1] = due > 0 ? due : (int64_t)sound->n;
    int r = value_new(m, ONNX_FLOAT, &shape, &v, err);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < v->n; i++)
        put(v, i, p, p->has_scale ? p->scale : 1.0, 0, i < sound->n ? (double)sound->samples[i] : 0.0);
    *ret = steal(&v);
    return 0;
}
