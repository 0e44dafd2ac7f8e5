#include "quant/measure.h"

#include <math.h>

static double fold_sum(const double *lanes)
{
    double v[16];
    for (int i = 0; i < 16; i++)
        v[i] = lanes[i];
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; i++)
            v[i] += v[i + half];
    }
    return v[0];
}

static double fold_max(const float *lanes)
{
    float top = 0;
    for (int i = 0; i < 16; i++)
        top = lanes[i] > top ? lanes[i] : top;
    return (double)top;
}

struct error_total error_fold(const struct error_sums *lanes)
{
    return (struct error_total){
        .noise = fold_sum(lanes->noise),
        .signal = fold_sum(lanes->signal),
        .max_abs = fold_max(lanes->max_abs),
        .n = lanes->n,
    };
}

void error_add(struct error_total *sum, const struct error_total *piece)
{
    sum->noise += piece->noise;
    sum->signal += piece->signal;
    sum->max_abs = piece->max_abs > sum->max_abs ? piece->max_abs : sum->max_abs;
    sum->n += piece->n;
}

double error_sqnr_db(const struct error_total *t)
{
    if (t->noise <= 0)
        return INFINITY;
    if (t->signal <= 0)
        return -INFINITY;
    return rint(10 * log10(t->signal / t->noise) * 1e4) / 1e4;
}

double error_rel_rmse(const struct error_total *t)
{
    return t->noise > 0 && t->signal > 0 ? sqrt(t->noise / t->signal) : 0;
}
