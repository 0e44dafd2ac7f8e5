/*
 * "int8": which form suits a model on this CPU. Of the forms the one that takes less time in a runtime that computes
 * products with integers as this CPU's kernels do, unless that costs much more error; where integers gain nothing,
 * weights alone, which run as fast as float32. docs/formats/onnx-quantized.md.
 */
#ifndef QUANTD_ONNX_CHOOSE_H
#define QUANTD_ONNX_CHOOSE_H

#include "quant/calib/compare.h"
#include "quant/onnx/scheme.h"

enum { CHOICE_WHY_BYTES = 384 };

struct int8_choice {
    enum onnx_scheme scheme;
    double time; /* that int8-static is expected to take; float32 takes 1 */
    char why[CHOICE_WHY_BYTES];
};

/*
 * How many times as many products a second this CPU's kernels do with codes of 8 bits (activations quantized on the
 * way) as with floats, by one thread. Measured when called, in some milliseconds.
 */
double int8_speed(void);

/*
 * Is what static costs in error worth it? @choice is int8-static for its time, and becomes int8-weight where an output
 * is further from the source's than with weights alone by more than CHOICE_DB_LOST, unless it is near all the same.
 */
void int8_judge(const struct comparison *with_static, const struct comparison *with_weights,
                struct int8_choice *choice);

/* @p: the plan of int8-static by @s. */
void int8_choose(const struct onnx_plan *p, const struct statistics *s, double speed, struct int8_choice *ret);

#endif
