#include "daemon/worker/onnx_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/onnx/tables.h"

enum { WORST_SHOWN = TABLES_WORST };

struct sums {
    size_t n_quantized;
    struct deviation deviation;
};

static struct sums sum_up(const struct onnx_plan *p)
{
    struct sums s = {.n_quantized = 0};
    for (size_t i = 0; i < p->weights.n; i++) {
        s.n_quantized += p->decisions[i].reason[0] == '\0';
        deviation_merge(&s.deviation, &p->decisions[i].deviation);
    }
    return s;
}

static uint64_t bytes_written(const struct onnx_plan *p)
{
    return p->output->model.n + p->output->data_bytes;
}

/* ---- the worst first ---- */

static int by_sqnr(double p, double q)
{
    return p < q ? -1 : p > q;
}

static int by_weight(const void *a, const void *b)
{
    return by_sqnr(deviation_sqnr(&(*(const struct onnx_decision *const *)a)->deviation),
                   deviation_sqnr(&(*(const struct onnx_decision *const *)b)->deviation));
}

/* ---- for people ---- */

static void print_shape(const struct onnx_tensor *t)
{
    for (size_t d = 0; d < t->n_dims; d++)
        printf("%s%" PRId64, d ? "x" : "", t->dims[d]);
}

static void print_plan(const struct onnx_report *report)
{
    const struct onnx_plan *p = report->plan;
    printf("%s: %s\n", onnx_scheme_name(p->recipe.scheme), report->why);
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        const char *more = d->reason[0] ? d->reason : d->note ? d->note : "";
        printf("%-40s %-14s ", d->weight->name, d->weight->user->op_type);
        print_shape(d->weight->tensor);
        printf("  %" PRIu64 " -> %" PRIu64 " bytes  %s%s%s\n", d->bytes_before, d->bytes_after, d->form,
               more[0] ? ": " : "", more);
    }
    printf("%" PRIu64 " bytes become %" PRIu64 "\n", p->source_bytes, bytes_written(p));
}

static void print_weights(const struct onnx_plan *p, const struct deviation *all)
{
    CLEANUP(free) const struct onnx_decision **list = calloc(p->weights.n + 1, sizeof *list);
    if (all->noise > 0.0)
        printf("weights: SQNR %.1f dB over all that are quantized; the worst:\n", deviation_sqnr(all));
    for (size_t i = 0; list && i < p->weights.n; i++)
        list[i] = &p->decisions[i];
    if (list)
        qsort(list, p->weights.n, sizeof *list, by_weight);
    for (size_t i = 0; list && i < p->weights.n && i < WORST_SHOWN && list[i]->deviation.noise > 0.0; i++)
        printf("  %6.1f dB  %s (%s)\n", deviation_sqnr(&list[i]->deviation), list[i]->weight->name, list[i]->form);
}

static void print_value(const char *indent, const struct value_error *e)
{
    printf("%s%6.1f dB, cosine %.6f  %s%s%s%s\n", indent, deviation_sqnr(&e->deviation),
           deviation_cosine(&e->deviation), e->name, e->op[0] ? " (" : "", e->op, e->op[0] ? ")" : "");
}

static void print_comparison(const struct comparison *c)
{
    CLEANUP(free) const struct value_error **list = worst_values(c);
    printf("outputs against the source over %" PRIu64 " samples:\n", c->n_samples);
    for (size_t i = 0; i < c->n_outputs; i++)
        print_value("  ", &c->outputs[i]);
    if (list && c->n_values && list[0]->deviation.noise > 0.0)
        printf("results of operators; the worst:\n");
    for (size_t i = 0; list && i < c->n_values && i < WORST_SHOWN && list[i]->deviation.noise > 0.0; i++)
        print_value("  ", list[i]);
}

static void print_result(const struct onnx_report *report)
{
    const struct onnx_plan *p = report->plan;
    const struct sums s = sum_up(p);
    const enum onnx_scheme scheme = p->recipe.scheme;
    const bool narrow =
        (scheme == ONNX_SCHEME_INT8_STATIC || scheme == ONNX_SCHEME_INT8_DYNAMIC) && p->recipe.bits == 7;
    printf("%s: %s%s, %zu of %zu weights quantized, %" PRIu64 " bytes of %" PRIu64 " (%.1f %%), %.2f s\n",
           report->args->out, onnx_scheme_name(scheme), narrow ? " (7 bits: this CPU adds products in 16)" : "",
           s.n_quantized, p->weights.n, bytes_written(p), p->source_bytes,
           100.0 * (double)bytes_written(p) / (double)p->source_bytes, report->seconds);
    printf("scheme: %s\n", report->why);
    print_weights(p, &s.deviation);
    if (report->comparison)
        print_comparison(report->comparison);
    if (report->not_compared)
        printf("outputs: not compared with the source's: %s\n", report->not_compared);
}

/* ---- for programs ---- */

static json_t *json_of_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *json_of_decision(const struct onnx_decision *d)
{
    const bool changed = d->deviation.noise > 0.0;
    return json_pack("{s:s%, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:o, s:o}", "name", d->weight->name,
                     strlen(d->weight->name), "operator", d->weight->user->op_type, "form", d->form, "bytes_before",
                     (json_int_t)d->bytes_before, "bytes", (json_int_t)d->bytes_after, "reason", d->reason, "note",
                     d->note ? d->note : "", "type", onnx_type_name(d->weight->tensor->type), "sqnr_db",
                     changed ? json_of_number(deviation_sqnr(&d->deviation)) : json_null(), "cosine",
                     changed ? json_of_number(deviation_cosine(&d->deviation)) : json_null());
}

/* NULL is refused by whoever takes it. */
static json_t *json_of_value(const struct value_error *e)
{
    return json_pack("{s:s, s:s, s:o, s:o}", "name", e->name, "operator", e->op, "sqnr_db",
                     json_of_number(deviation_sqnr(&e->deviation)), "cosine",
                     json_of_number(deviation_cosine(&e->deviation)));
}

static json_t *json_of_comparison(const struct comparison *c)
{
    CLEANUP(free) const struct value_error **list = worst_values(c);
    json_t *outputs = json_array(), *worst = json_array();
    for (size_t i = 0; i < c->n_outputs; i++)
        (void)json_array_append_new(outputs, json_of_value(&c->outputs[i]));
    for (size_t i = 0; list && i < c->n_values && i < WORST_SHOWN; i++)
        (void)json_array_append_new(worst, json_of_value(list[i]));
    return json_pack("{s:I, s:o, s:o}", "samples", (json_int_t)c->n_samples, "outputs", outputs, "worst", worst);
}

/* Takes @root; NULL: memory was out. */
static int print_json(json_t *root, struct qd_error *err)
{
    if (!root)
        return err_new(err, QD_E_NO_MEMORY, "the report");
    int r = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    putchar('\n');
    return r < 0 || fflush(stdout) != 0 ? err_new(err, QD_E_IO, "cannot write the report") : 0;
}

static int report_json(const struct onnx_report *report, struct qd_error *err)
{
    const struct onnx_plan *p = report->plan;
    const struct sums s = sum_up(p);
    json_t *tensors = json_array();
    for (size_t i = 0; tensors && i < p->weights.n; i++)
        (void)json_array_append_new(tensors, json_of_decision(&p->decisions[i])); /* NULL is refused */
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:o, s:f, s:o, s:o, s:s}", "output",
                  report->args->out ? report->args->out : "", "scheme", onnx_scheme_name(p->recipe.scheme), "why",
                  report->why, "source_bytes", (json_int_t)p->source_bytes, "bytes", (json_int_t)bytes_written(p),
                  "weights", (int)p->weights.n, "quantized", (int)s.n_quantized, "sqnr_db",
                  json_of_number(deviation_sqnr(&s.deviation)), "seconds", report->seconds, "tensors", tensors,
                  "comparison", report->comparison ? json_of_comparison(report->comparison) : json_null(),
                  "not_compared", report->not_compared ? report->not_compared : "");
    return print_json(root, err);
}

int onnx_report(const struct onnx_report *r, struct qd_error *err)
{
    if (r->args->json)
        return report_json(r, err);
    if (r->args->dry_run)
        print_plan(r);
    else if (!r->args->quiet)
        print_result(r);
    return 0;
}

int onnx_report_unpacked(const struct direct_args *a, const struct onnx_pack *p, double seconds, struct qd_error *err)
{
    const char *layout = qd_layout_info(p->layout)->name, *out = a->out ? a->out : "";
    if (a->json)
        return print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:f}", "input", a->in, "output", out, "layout", layout,
                                    "bytes", (json_int_t)p->bytes, "packed", (json_int_t)p->n_matrices, "seconds",
                                    seconds),
                          err);
    if (a->quiet)
        return 0;
    printf("%s: an ONNX model, %s from %s, %" PRIu64 " bytes, %.1f s\n", a->dry_run ? a->in : out,
           a->dry_run ? "to be unpacked" : "unpacked", layout, p->bytes, seconds);
    printf("%zu matrices change the order of their codes, all else is a copy%s%s\n", p->n_matrices,
           p->n_parts > 1 ? "; beside it " : "", p->n_parts > 1 ? p->parts[1].name : "");
    return 0;
}
