/* Momentum, Adagrad, Adam: ai.onnx.preview.training, onnx:docs/Operators.md. */
#include <inttypes.h>
#include <math.h>

#include "quant/graph/functions.h"
#include "quant/graph/row.h"

/* One tensor's step, element by element; @out: the new tensor, then the new states. */
struct step_of {
    double rate, alpha, beta, epsilon, decay, decay_after;
    bool nesterov;
};
enum { STATES_MAX = 2 };
typedef void element_fn(const struct step_of *s, double *x, double g, double *states);

static void momentum(const struct step_of *s, double *x, double g, double *v)
{
    g += s->decay * *x;
    v[0] = s->alpha * v[0] + s->beta * g;
    *x -= s->rate * (s->nesterov ? g + s->alpha * v[0] : v[0]);
}

static void adagrad(const struct step_of *s, double *x, double g, double *h)
{
    g += s->decay * *x;
    h[0] += g * g;
    *x -= s->rate * g / (sqrt(h[0]) + s->epsilon);
}

static void adam(const struct step_of *s, double *x, double g, double *states)
{
    g += s->decay * *x;
    states[0] = s->alpha * states[0] + (1.0 - s->alpha) * g;
    states[1] = s->beta * states[1] + (1.0 - s->beta) * (g * g);
    *x = (1.0 - s->decay_after) * (*x - s->rate * states[0] / (sqrt(states[1]) + s->epsilon));
}

/* Tensor @i of @n: inputs are rate, count, then n tensors, n gradients and n of each state. */
static int one_tensor(struct op_call *c, const struct step_of *s, element_fn *element, size_t n_states, size_t n,
                      size_t i)
{
    const struct value *in[2 + STATES_MAX];
    struct value *out[1 + STATES_MAX];
    int r = call_floats_in(c, 2 + i, &in[0]);
    for (size_t k = 1; k < 2 + n_states && r == 0; k++) {
        r = call_n_floats_in(c, 2 + k * n + i, in[0]->n, &in[k]);
        if (r == 0 && in[k]->type != in[0]->type)
            r = err_new(c->err, QD_E_INVALID, "tensor %zu, its gradient and its states are of different types", i);
    }
    for (size_t k = 0; k < 1 + n_states && r == 0; k++)
        r = call_tensor(c, k * n + i, in[0]->type, &in[0]->shape, &out[k]);
    for (uint64_t at = 0; r == 0 && at < in[0]->n; at++) {
        double x[1 + STATES_MAX] = {float_at(in[0], at)};
        for (size_t k = 0; k < n_states; k++)
            x[1 + k] = float_at(in[2 + k], at);
        element(s, &x[0], float_at(in[1], at), x + 1);
        for (size_t k = 0; k < 1 + n_states; k++) {
            const struct row one = row_of(out[k], at, 1, 1);
            row_store(&one, 0, 1, &x[k]);
        }
    }
    return r;
}

static int train(struct op_call *c, const struct step_of *s, element_fn *element, size_t n_states)
{
    const size_t each = 2 + n_states, n = c->n_in < 2 ? 0 : (c->n_in - 2) / each;
    int r = c->n_in == 2 + n * each && c->n_out == n * (1 + n_states)
                ? 0
                : err_new(c->err, QD_E_INVALID, "%zu inputs and %zu outputs", c->n_in, c->n_out);
    for (size_t i = 0; i < n && r == 0; i++)
        r = one_tensor(c, s, element, n_states, n, i);
    return r;
}

/* Attributes that all have, and inputs 0 and 1. */
static int step_in(struct op_call *c, struct step_of *s, int64_t *ret_count)
{
    const struct value *rate, *count;
    int r = call_n_floats_in(c, 0, 1, &rate);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_INT64, &count);
    if (r == 0 && count->n != 1)
        r = err_new(c->err, QD_E_INVALID, "%" PRIu64 " update counts", count->n);
    if (r < 0)
        return r;
    *s = (struct step_of){.rate = float_at(rate, 0),
                          .alpha = call_float(c, "alpha", 0.9f),
                          .beta = call_float(c, "beta", 0.999f),
                          .epsilon = call_float(c, "epsilon", 1e-6f),
                          .decay = call_float(c, "norm_coefficient", 0.0f),
                          .decay_after = call_float(c, "norm_coefficient_post", 0.0f),
                          .nesterov = call_text_is(c, "mode", "nesterov", "")};
    *ret_count = *(const int64_t *)count->data;
    return 0;
}

int op_momentum(struct op_call *c)
{
    struct step_of s;
    int64_t count;
    int r = step_in(c, &s, &count);
    if (r < 0)
        return r;
    if (count <= 0)
        s.beta = 1.0;
    return train(c, &s, momentum, 1);
}

int op_adagrad(struct op_call *c)
{
    struct step_of s;
    int64_t count;
    int r = step_in(c, &s, &count);
    if (r < 0)
        return r;
    s.rate /= 1.0 + (double)count * (double)call_float(c, "decay_factor", 0.0f);
    return train(c, &s, adagrad, 1);
}

int op_adam(struct op_call *c)
{
    struct step_of s;
    int64_t count;
    int r = step_in(c, &s, &count);
    if (r < 0)
        return r;
    if (count > 0)
        s.rate *= sqrt(1.0 - fn_pow_d(s.beta, (double)count)) / (1.0 - fn_pow_d(s.alpha, (double)count));
    return train(c, &s, adam, 2);
}
