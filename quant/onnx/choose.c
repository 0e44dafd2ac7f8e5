#include "quant/onnx/choose.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <quantd/matmul.h>

#include "kernels/cpu.h"
#include "kernels/layout/packed.h"

/* ---- this CPU ---- */

enum { ROWS = 256, K = 512, COLUMNS = 64, ROUNDS = 9 /* the median counts */ };

/* A product of ROWS x K weights by COLUMNS activations, of zeros: they take as long as any. */
struct trial {
    struct qd_matrix w;
    uint8_t weights[ROWS * K / 32 * 34]; /* q8_0 */
    float x[COLUMNS * K], y[COLUMNS * ROWS];
    void *scratch;
    size_t scratch_bytes;
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* cannot fail for this clock */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_floats(const struct ops *ops, struct trial *t)
{
    const double started = now();
    for (size_t row = 0; row < COLUMNS; row += GEMM_COLUMNS)
        for (size_t column = 0; column < ROWS; column += GEMM_COLUMNS) {
            const struct gemm_tile tile = {.c = t->y,
                                           .a = t->x,
                                           .b = t->x,
                                           .c_stride = GEMM_COLUMNS,
                                           .a_stride = K,
                                           .a_step = 1,
                                           .b_stride = GEMM_COLUMNS,
                                           .n_rows = GEMM_COLUMNS,
                                           .n_columns = GEMM_COLUMNS,
                                           .n_k = K};
            ops->gemm(&tile);
        }
    return now() - started;
}

/* Activations become codes within. */
static double time_codes(struct trial *t)
{
    struct qd_error err;
    const double started = now();
    const int r = qd_matmul(&t->w, t->x, COLUMNS, t->y, NULL, t->scratch, t->scratch_bytes, &err);
    return r < 0 ? 0.0 : now() - started;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double int8_speed(void)
{
    const struct ops *ops = ops_native();
    CLEANUP(free) struct trial *t = calloc(1, sizeof *t);
    double ratios[ROUNDS];
    if (!t)
        return 1.0;
    t->w = (struct qd_matrix){t->weights, ROWS, K, QD_TYPE_Q8_0, layout_native(cpu_features())};
    t->scratch_bytes = qd_matmul_scratch_bytes(&t->w, COLUMNS, NULL);
    CLEANUP(free) void *scratch = t->scratch_bytes ? aligned_alloc(64, t->scratch_bytes) : NULL;
    t->scratch = scratch;
    for (int i = 0; i < ROUNDS; i++) {
        const double floats = time_floats(ops, t), codes = scratch ? time_codes(t) : 0.0;
        ratios[i] = codes > 0.0 ? floats / codes : 1.0;
    }
    qsort(ratios, ROUNDS, sizeof ratios[0], by_size);
    return ratios[ROUNDS / 2];
}

/* ---- the model ---- */

/*
 * Time of a convolution whose input is codes and whose result is floats: no runtime computes that with integers, it
 * makes floats of the codes again. ONNX Runtime 1.30 on the models of the table: 1.3 to 2.0.
 */
static const double CONVOLUTION_TO_FLOATS = 1.5;

/*
 * What it costs to make codes of an element and floats of it again, around a convolution between codes, in products
 * of floats. ONNX Runtime 1.30, AVX-512 VNNI, three runs on a shared machine, beside P / speed + this * elements:
 * PP-OCR rec, 67 products for each element of input and result, took 0.60 to 0.85 of float32's time (0.69), det, 48,
 * 0.82 to 0.92 (0.81), cls, 15, 1.41 to 1.54 (1.46).
 */
static const double CODES_OF_AN_ELEMENT = 16.0;

/* A form that does not gain this much is not worth its error. */
static const double WORTH = 0.9;

static double elements_of(const struct statistics *s, const char *value)
{
    const struct edge_statistics *e = statistics_find(s, value);
    return e ? (double)e->all->n : 0.0;
}

/* Of what a convolution between codes takes and gives. */
static double elements_between(const struct weight *w, const struct statistics *s)
{
    return elements_of(s, w->user->inputs[0]) + elements_of(s, w->user->outputs[0]);
}

static double strides_of(const struct onnx_node *n)
{
    const struct onnx_attr *a = onnx_attr_find(n, "strides");
    double product = 1.0;
    for (size_t i = 0; a && a->kind == ONNX_ATTR_INTS && i < a->n_ints; i++)
        product *= a->ints[i] > 1 ? (double)a->ints[i] : 1.0;
    return product;
}

static double group_of(const struct onnx_node *n)
{
    const struct onnx_attr *a = onnx_attr_find(n, "group");
    return a && a->kind == ONNX_ATTR_INT && a->i > 1 ? (double)a->i : 1.0;
}

/* Multiply-adds of the weight's operator over all samples; padding counts as if it were none. */
static double products_of(const struct weight *w, const struct statistics *s)
{
    const struct onnx_node *n = w->user;
    const double x = elements_of(s, n->inputs[0]), elements = (double)w->tensor->n_elements;
    if (strcmp(n->op_type, "Conv") == 0)
        return x / ((double)w->tensor->dims[1] * group_of(n) * strides_of(n)) * elements;
    if (strcmp(n->op_type, "ConvTranspose") == 0)
        return x / (double)w->tensor->dims[0] * elements;
    return x * (double)w->tensor->dims[w->axis];
}

void int8_choose(const struct onnx_plan *p, const struct statistics *s, double speed, struct int8_choice *ret)
{
    double all = 0.0, matrices = 0.0, to_floats = 0.0, to_codes = 0.0; /* products; of all but the first: with codes */
    double elements = 0.0;                                             /* that become codes around the last */
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        const struct weight *w = d->weight;
        if (!onnx_static_wants(w->user, 0))
            continue;
        const double n = products_of(w, s);
        all += n;
        if (d->meets_codes)
            *(strncmp(w->user->op_type, "Conv", 4) != 0 ? &matrices : d->gives_codes ? &to_codes : &to_floats) += n;
        if (d->gives_codes)
            elements += elements_between(w, s);
    }
    all = all > 0.0 ? all : 1.0;
    const double m = matrices / all, f = to_floats / all, c = to_codes / all;
    const double codes = CODES_OF_AN_ELEMENT * elements / all;
    ret->time = (1.0 - m - f - c) + m / speed + f * CONVOLUTION_TO_FLOATS + c / speed + codes;
    ret->scheme = ret->time < WORTH ? ONNX_SCHEME_INT8_STATIC : ONNX_SCHEME_INT8_WEIGHT;
    (void)snprintf(ret->why, sizeof ret->why,
                   "int8-static would take %.2f times float32's time: codes are %.1f times as fast on this CPU for "
                   "%.0f %% of the products, of matrices, and for %.0f %%, of convolutions between codes; of %.0f %% "
                   "a runtime makes floats again; making codes takes %.2f%s",
                   ret->time, speed, 100.0 * m, 100.0 * c, 100.0 * f, codes,
                   ret->scheme == ONNX_SCHEME_INT8_STATIC ? "" : "; weights alone run as fast as float32");
}

/* ---- its error ---- */

/* Chosen on the models of the table: those within lose less than a percent of what they are for. */
static const double MOST_DB_LOST = 9.0, NEAR_DB = 40.0;

void int8_judge(const struct comparison *with_static, const struct comparison *with_weights, struct int8_choice *choice)
{
    char time[CHOICE_WHY_BYTES];
    const double share = choice->time;
    double own = INFINITY, other = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < with_static->n_outputs && i < with_weights->n_outputs; i++) {
        const double s = deviation_sqnr(&with_static->outputs[i].deviation),
                     w = deviation_sqnr(&with_weights->outputs[i].deviation);
        if (s >= NEAR_DB || w - s <= most)
            continue;
        most = w - s;
        own = s;
        other = w;
    }
    memcpy(time, choice->why, sizeof time);
    if (most > MOST_DB_LOST) {
        choice->scheme = ONNX_SCHEME_INT8_WEIGHT;
        (void)snprintf(choice->why, sizeof choice->why,
                       "int8-static would take %.2f times float32's time, and have an output at %.1f dB where weights "
                       "alone have it at %.1f",
                       share, own, other);
    } else if (isfinite(own)) {
        (void)snprintf(choice->why, sizeof choice->why, "%.300s; outputs at %.1f dB, with weights alone at %.1f", time,
                       own, other); /* fits */
    }
}
