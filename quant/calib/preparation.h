/*
 * How pictures and sounds become a model's input, as a few lines beside them say: "preprocess.ini" in the folder of
 * samples. docs/calibration.md lists the keys.
 */
#ifndef QUANTD_CALIB_PREPARATION_H
#define QUANTD_CALIB_PREPARATION_H

#include "quant/calib/picture.h"
#include "quant/calib/sound.h"
#include "quant/graph/value.h"

#define PREPARATION_NAME "preprocess.ini"

enum fit { FIT_STRETCH, FIT_PAD, FIT_CROP };
enum colors { COLORS_RGB, COLORS_BGR, COLORS_GRAY };
enum picture_layout { LAYOUT_BY_SHAPE, LAYOUT_NCHW, LAYOUT_NHWC };

struct preparation {
    uint32_t width, height; /* 0: as the input says, else as the picture is */
    enum fit fit;
    enum colors colors;
    enum picture_layout layout;
    double scale; /* first; of a pixel's 0 to 255, or of sound's -1 to 1 */
    bool has_scale;
    double mean[3], std[3]; /* then, by channel: (x - mean) / std */
    uint32_t rate;          /* of sound, in Hz; 0: any */
};

extern const struct preparation preparation_default;

/* Reads @text. A line that says nothing known: QD_E_INVALID with its number. */
int preparation_parse(struct bytes text, struct preparation *ret, struct qd_error *err);

/* A value for @input, float32 or uint8. The input's shape leaves no room for it: QD_E_INVALID as a reason alone. */
int preparation_of_picture(const struct preparation *p, const struct picture *picture,
                           const struct onnx_value_info *input, struct memory *m, struct value **ret,
                           struct qd_error *err);
int preparation_of_sound(const struct preparation *p, const struct sound *sound, const struct onnx_value_info *input,
                         struct memory *m, struct value **ret, struct qd_error *err);

#endif
