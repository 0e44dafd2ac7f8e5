#include "daemon/worker/direct_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/core/utf8.h"

void make_printable(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)text[i] < 0x20 && text[i] != '\n') || text[i] == 0x7f)
            text[i] = '?';
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null(); /* JSON has no infinity: null is "exact" */
}

/* A text as JSON can hold it: a path and a tensor's name may be any bytes, and what is no UTF-8 becomes U+FFFD. */
static json_t *text(const char *s)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    for (size_t n = strlen(s); n > 0;) {
        size_t step = utf8_sequence((const uint8_t *)s, n);
        if (step)
            buffer_put(&b, s, step);
        else
            buffer_put(&b, "\xef\xbf\xbd", 3);
        s += step ? step : 1;
        n -= step ? step : 1;
    }
    return b.failed ? NULL : json_stringn(b.data ? (const char *)b.data : "", b.n);
}

/* Tensors whose source was quantized already: their first error is in no number here. */
static size_t count_requantized(const struct plan *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        enum qd_type from = p->tensors[i].source->type;
        n += p->tensors[i].type != from && qd_type_info(from)->kind == QD_KIND_BLOCK;
    }
    return n;
}

static int print_json(const struct report *report, struct qd_error *err)
{
    char recipe[RECIPE_TEXT_MAX];
    recipe_text(&report->plan->recipe, recipe);
    json_t *root = json_pack(
        "{s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "input",
        text(report->args->in), "output", text(report->args->out), "format", report->model->format, "scheme",
        scheme_name(report->plan->recipe.scheme), "recipe", recipe, "why", report->why, "source_bytes",
        (json_int_t)report->plan->source_bytes, "bytes", (json_int_t)report->plan->file_bytes, "resumed_bytes",
        (json_int_t)report->result->resumed_bytes, "tensors", (json_int_t)report->plan->n_tensors, "threads",
        (int)report->args->n_threads, "requantized", (json_int_t)count_requantized(report->plan), "sqnr_db",
        number(report->result->quality.sqnr_db), "rel_rmse", number(report->result->quality.rel_rmse), "max_abs",
        number(report->result->quality.max_abs), "worst_sqnr_db", number(report->result->quality.worst_sqnr_db),
        "worst", text(report->result->quality.worst ? report->result->quality.worst : ""), "seconds",
        number(report->seconds));
    if (!root)
        return err_new(err, QD_E_NO_MEMORY, "summary");
    int r = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    putchar('\n');
    return r < 0 || fflush(stdout) != 0 ? err_new(err, QD_E_IO, "cannot write the summary") : 0;
}

static int print_text(struct buffer *text, const char *what, struct qd_error *err)
{
    if (text->failed)
        return err_new(err, QD_E_NO_MEMORY, "text of the %s", what);
    make_printable((char *)text->data, text->n);
    if (fwrite(text->data, 1, text->n, stdout) != text->n || fflush(stdout) != 0)
        return err_new(err, QD_E_IO, "cannot write the %s", what);
    return 0;
}

static int print_words(const struct report *report, struct qd_error *err)
{
    const struct run_result *res = report->result;
    CLEANUP(buffer_clear) struct buffer text = {0};
    buffer_printf(&text, "%s: %s, %" PRIu64 " bytes from %" PRIu64 ", %.1f s\n", report->args->out,
                  scheme_name(report->plan->recipe.scheme), report->plan->file_bytes, report->plan->source_bytes,
                  report->seconds);
    if (report->args->recipe.scheme == SCHEME_AUTO)
        buffer_printf(&text, "%s\n", report->why);
    if (res->resumed_bytes)
        buffer_printf(&text, "continued: %" PRIu64 " bytes of the source had been done before\n", res->resumed_bytes);
    size_t n_again = count_requantized(report->plan);
    if (n_again)
        buffer_printf(&text,
                      "quantized again: %zu of %zu tensors; the error of their first time is not in what follows\n",
                      n_again, report->plan->n_tensors);
    if (isfinite(res->quality.sqnr_db))
        buffer_printf(&text, "error against the source: %.2f dB, relative RMSE %.5f; worst tensor %s at %.2f dB\n",
                      res->quality.sqnr_db, res->quality.rel_rmse, res->quality.worst, res->quality.worst_sqnr_db);
    else
        buffer_printf(&text, "exact: every value is the source's\n");
    return print_text(&text, "summary", err);
}

static json_t *json_of_tensor(const struct plan_tensor *pt)
{
    const struct tensor *t = pt->source;
    char shape[MODEL_DIMS_MAX * 24] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRIu64, i ? "x" : "", t->shape[i]); /* fits */
    return json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:o}", "name", text(t->name), "shape", shape, "from",
                     qd_type_info(t->type)->name, "to", qd_type_info(pt->type)->name, "offset", (json_int_t)pt->offset,
                     "bytes", (json_int_t)pt->bytes, "reason", text(pt->reason));
}

/* As `quantctl plan --json` says it. */
static int print_plan_json(const struct report *report, struct qd_error *err)
{
    char recipe[RECIPE_TEXT_MAX];
    recipe_text(&report->plan->recipe, recipe);
    json_t *tensors = json_array();
    for (size_t i = 0; i < report->plan->n_tensors; i++)
        (void)json_array_append_new(tensors,
                                    json_of_tensor(&report->plan->tensors[i])); /* a failure shows in the count */
    bool whole = json_array_size(tensors) == report->plan->n_tensors;
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "scheme", scheme_name(report->plan->recipe.scheme),
                             "recipe", recipe, "why", report->why, "source_bytes",
                             (json_int_t)report->plan->source_bytes, "file_bytes", (json_int_t)report->plan->file_bytes,
                             "n_tensors", (json_int_t)report->plan->n_tensors, "tensors", tensors);
    if (!root || !whole) {
        json_decref(root);
        return err_new(err, QD_E_NO_MEMORY, "plan");
    }
    int r = json_dumpf(root, stdout, JSON_INDENT(2));
    json_decref(root);
    putchar('\n');
    return r < 0 || fflush(stdout) != 0 ? err_new(err, QD_E_IO, "cannot write the plan") : 0;
}

int report_plan(const struct report *report, struct qd_error *err)
{
    if (report->args->json)
        return print_plan_json(report, err);
    CLEANUP(buffer_clear) struct buffer text = {0};
    buffer_printf(&text, "%s\n", report->why);
    (void)plan_print(report->plan, &text); /* a failure stays in the buffer */
    return print_text(&text, "plan", err);
}

int report_result(const struct report *report, struct qd_error *err)
{
    return report->args->json ? print_json(report, err) : print_words(report, err);
}
