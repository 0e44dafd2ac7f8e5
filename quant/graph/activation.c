/* Activations of recurrent operators by name. onnx:docs/Operators.md, "LSTM". */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "quant/graph/functions.h"
#include "quant/graph/recurrent.h"

#define ACTIVATION(name, expr)                                           \
    static void name(float *values, uint64_t n, float alpha, float beta) \
    {                                                                    \
        (void)alpha;                                                     \
        (void)beta;                                                      \
        for (uint64_t i = 0; i < n; i++) {                               \
            const float x = values[i];                                   \
            values[i] = (float)(expr);                                   \
        }                                                                \
    }

ACTIVATION(relu, x > 0.0f ? x : x != x ? x : 0.0f)
ACTIVATION(affine, alpha *x + beta)
ACTIVATION(leaky_relu, x < 0.0f ? alpha * x : x)
ACTIVATION(thresholded_relu, x >= alpha || x != x ? x : 0.0f)
ACTIVATION(scaled_tanh, alpha *(float)fn_tanh_d((double)beta *(double)x))
ACTIVATION(hard_sigmoid, alpha *x + beta < 0.0f ? 0.0f : alpha * x + beta > 1.0f ? 1.0f : alpha * x + beta)
ACTIVATION(elu, x < 0.0f ? (double)alpha * fn_expm1_d(x) : (double)x)
ACTIVATION(softsign, x / (1.0f + fabsf(x)))
ACTIVATION(softplus, fn_softplus_d(x))

static void sigmoid(float *values, uint64_t n, float alpha, float beta)
{
    (void)alpha;
    (void)beta;
    fn_sigmoid_array(values, values, n);
}

static void hyperbolic(float *values, uint64_t n, float alpha, float beta)
{
    (void)alpha;
    (void)beta;
    fn_tanh_array(values, values, n);
}

/* Defaults are those of the operators of that name; what is NAN is not taken. */
static const struct named {
    const char *name;
    activation_fn *run;
    float alpha, beta;
} named[] = {
    {"Relu", relu, NAN, NAN},
    {"Tanh", hyperbolic, NAN, NAN},
    {"Sigmoid", sigmoid, NAN, NAN},
    {"Affine", affine, 1.0f, 0.0f},
    {"LeakyRelu", leaky_relu, 0.01f, NAN},
    {"ThresholdedRelu", thresholded_relu, 1.0f, NAN},
    {"ScaledTanh", scaled_tanh, 1.0f, 1.0f},
    {"HardSigmoid", hard_sigmoid, 0.2f, 0.5f},
    {"Elu", elu, 1.0f, NAN},
    {"Softsign", softsign, NAN, NAN},
    {"Softplus", softplus, NAN, NAN},
};

bool activation_find(struct bytes name, struct activation *ret, bool *ret_takes_alpha, bool *ret_takes_beta)
{
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (name.n == strlen(named[i].name) && strncasecmp((const char *)name.data, named[i].name, name.n) == 0) {
            *ret = (struct activation){named[i].run, named[i].alpha, named[i].beta};
            *ret_takes_alpha = !isnan(named[i].alpha);
            *ret_takes_beta = !isnan(named[i].beta);
            return true;
        }
    return false;
}

void activate(const struct recurrent *r, const struct activation *a, float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n && r->clip > 0.0f; i++)
        x[i] = x[i] > r->clip ? r->clip : x[i] < -r->clip ? -r->clip : x[i];
    a->run(x, n, a->alpha, a->beta);
}
