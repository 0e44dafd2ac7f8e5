/* RNN, GRU, LSTM: what a step does. Equations and names: onnx:docs/Operators.md. */
#include "quant/graph/recurrent.h"
#include "quant/graph/types.h"

/* x += hr + biases over [first, first + n) of the gates, clipped and activated. */
static void gate(const struct recurrent *r, const struct direction *d, const struct activation *a, const float *hr,
                 uint64_t first, uint64_t n, float *x)
{
    for (uint64_t i = first; i < first + n; i++)
        x[i] += hr[i] + (d->wb ? d->wb[i] + d->rb[i] : 0.0f);
    if (a)
        activate(r, a, x + first, n);
}

/* ---- RNN ---- */

static void rnn_step(const struct recurrent *r, struct direction *d, uint64_t b, float *x)
{
    gate(r, d, &d->act[0], d->hr + b * r->hidden, 0, r->hidden, x);
    for (uint64_t i = 0; i < r->hidden; i++)
        d->h[b * r->hidden + i] = x[i];
}

int op_rnn(struct op_call *c)
{
    static const struct cell_kind rnn = {.gates = 1, .n_activations = 1, .activations = {"Tanh"}, .step = rnn_step};
    WIDEN(c, op_rnn);
    return recurrent_run(c, &rnn);
}

/* ---- GRU: gates z, r, h ---- */

/* z and r; and what the reset gate leaves of the state, for the product with Rh. */
static void gru_gates(const struct recurrent *r, struct direction *d, uint64_t b, float *x)
{
    const uint64_t n = r->hidden;
    gate(r, d, &d->act[0], d->hr + b * 3 * n, 0, 2 * n, x);
    for (uint64_t i = 0; i < n; i++)
        d->spare[b * n + i] = x[n + i] * d->h[b * n + i];
}

static void gru_state(const struct recurrent *r, struct direction *d, uint64_t b, const float *x)
{
    const uint64_t n = r->hidden;
    float *h = d->h + b * n;
    for (uint64_t i = 0; i < n; i++)
        h[i] = (1.0f - x[i]) * x[2 * n + i] + x[i] * h[i];
}

static void gru_step(const struct recurrent *r, struct direction *d, uint64_t b, float *x)
{
    gate(r, d, &d->act[1], d->hr + b * 3 * r->hidden, 2 * r->hidden, r->hidden, x);
    gru_state(r, d, b, x);
}

/* The reset gate comes behind the product with Rh. */
static void gru_step_linear(const struct recurrent *r, struct direction *d, uint64_t b, float *x)
{
    const uint64_t n = r->hidden;
    const float *hr = d->hr + b * 3 * n;
    gate(r, d, &d->act[0], hr, 0, 2 * n, x);
    for (uint64_t i = 2 * n; i < 3 * n; i++)
        x[i] += x[i - n] * (hr[i] + (d->rb ? d->rb[i] : 0.0f)) + (d->wb ? d->wb[i] : 0.0f);
    activate(r, &d->act[1], x + 2 * n, n);
    gru_state(r, d, b, x);
}

int op_gru(struct op_call *c)
{
    static const struct cell_kind gru = {
        .gates = 3, .n_activations = 2, .activations = {"Sigmoid", "Tanh"}, .step = gru_step, .before = gru_gates};
    static const struct cell_kind linear = {
        .gates = 3, .n_activations = 2, .activations = {"Sigmoid", "Tanh"}, .step = gru_step_linear};
    WIDEN(c, op_gru);
    return recurrent_run(c, call_int(c, "linear_before_reset", 0) ? &linear : &gru);
}

/* ---- LSTM: gates i, o, f, c; peepholes i, o, f ---- */

static void peep(const struct direction *d, uint64_t at, uint64_t n, const float *cell, float *x)
{
    for (uint64_t i = 0; i < n && d->peephole; i++)
        x[i] += d->peephole[at * n + i] * cell[i];
}

static void lstm_step(const struct recurrent *r, struct direction *d, uint64_t b, float *x)
{
    const uint64_t n = r->hidden;
    float *h = d->h + b * n, *cell = d->cell + b * n, *in = x, *out = x + n, *forget = x + 2 * n, *fresh = x + 3 * n;
    gate(r, d, NULL, d->hr + b * 4 * n, 0, 4 * n, x);
    peep(d, 0, n, cell, in);
    peep(d, 2, n, cell, forget);
    activate(r, &d->act[0], in, n);
    activate(r, &d->act[0], forget, n);
    activate(r, &d->act[1], fresh, n);
    for (uint64_t i = 0; i < n; i++) {
        cell[i] = (r->input_forget ? 1.0f - in[i] : forget[i]) * cell[i] + in[i] * fresh[i];
        h[i] = cell[i];
    }
    peep(d, 1, n, cell, out);
    activate(r, &d->act[0], out, n);
    d->act[2].run(h, n, d->act[2].alpha, d->act[2].beta); /* not clipped: so ONNX Runtime understands the text */
    for (uint64_t i = 0; i < n; i++)
        h[i] *= out[i];
}

int op_lstm(struct op_call *c)
{
    static const struct cell_kind lstm = {.gates = 4,
                                          .n_activations = 3,
                                          .activations = {"Sigmoid", "Tanh", "Tanh"},
                                          .has_cell = true,
                                          .peepholes_in = 7,
                                          .step = lstm_step};
    WIDEN(c, op_lstm);
    return recurrent_run(c, &lstm);
}
