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

static size_t count_packed(const struct plan *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_tensors; i++)
        n += p->tensors[i].layout != QD_LAYOUT_PORTABLE;
    return n;
}

/* The layout of the packed one of the two files. */
static const char *packed_layout(const struct plan *p)
{
    return qd_layout_info(p->to == QD_LAYOUT_PORTABLE ? p->from : p->to)->name;
}

/* Takes @root; NULL: memory was out. */
static int dump_json(json_t *root, const char *what, struct qd_error *err)
{
    if (!root)
        return err_new(err, QD_E_NO_MEMORY, "%s", what);
    int r = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    putchar('\n');
    return r < 0 || fflush(stdout) != 0 ? err_new(err, QD_E_IO, "cannot write the %s", what) : 0;
}

static json_t *json_of_quantizing(const struct report *report)
{
    char recipe[RECIPE_TEXT_MAX];
    const struct plan *p = report->plan;
    const struct quality_sums *q = &report->result->quality;
    recipe_text(&p->recipe, recipe);
    return json_pack("{s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "input", text(report->args->in), "output", text(report->args->out), "format",
                     report->model->format, "scheme", scheme_name(p->recipe.scheme), "recipe", recipe, "why",
                     report->why, "source_bytes", (json_int_t)p->source_bytes, "bytes", (json_int_t)p->file_bytes,
                     "resumed_bytes", (json_int_t)report->result->resumed_bytes, "tensors", (json_int_t)p->n_tensors,
                     "threads", (int)report->args->n_threads, "requantized", (json_int_t)count_requantized(p),
                     "sqnr_db", number(q->sqnr_db), "rel_rmse", number(q->rel_rmse), "max_abs", number(q->max_abs),
                     "worst_sqnr_db", number(q->worst_sqnr_db), "worst", text(q->worst ? q->worst : ""), "seconds",
                     number(report->seconds));
}

static json_t *json_of_moving(const struct report *report)
{
    const struct plan *p = report->plan;
    return json_pack("{s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:o}", "input", text(report->args->in), "output",
                     text(report->args->out), "layout", packed_layout(p), "source_bytes", (json_int_t)p->source_bytes,
                     "bytes", (json_int_t)p->file_bytes, "resumed_bytes", (json_int_t)report->result->resumed_bytes,
                     "tensors", (json_int_t)p->n_tensors, "packed", (json_int_t)count_packed(p), "threads",
                     (int)report->args->n_threads, "seconds", number(report->seconds));
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

static void put_resumed(const struct report *report, struct buffer *text)
{
    if (report->result->resumed_bytes)
        buffer_printf(text, "continued: %" PRIu64 " bytes of the source had been done before\n",
                      report->result->resumed_bytes);
}

static void words_of_quantizing(const struct report *report, struct buffer *text)
{
    const struct quality_sums *q = &report->result->quality;
    buffer_printf(text, "%s: %s, %" PRIu64 " bytes from %" PRIu64 ", %.1f s\n", report->args->out,
                  scheme_name(report->plan->recipe.scheme), report->plan->file_bytes, report->plan->source_bytes,
                  report->seconds);
    if (report->args->recipe.scheme == SCHEME_AUTO)
        buffer_printf(text, "%s\n", report->why);
    put_resumed(report, text);
    size_t n_again = count_requantized(report->plan);
    if (n_again)
        buffer_printf(text,
                      "quantized again: %zu of %zu tensors; the error of their first time is not in what follows\n",
                      n_again, report->plan->n_tensors);
    if (isfinite(q->sqnr_db))
        buffer_printf(text, "error against the source: %.2f dB, relative RMSE %.5f; worst tensor %s at %.2f dB\n",
                      q->sqnr_db, q->rel_rmse, q->worst, q->worst_sqnr_db);
    else
        buffer_printf(text, "exact: every value is the source's\n");
}

static void words_of_moving(const struct report *report, struct buffer *text)
{
    const struct plan *p = report->plan;
    buffer_printf(text, "%s: %s %s, %" PRIu64 " bytes from %" PRIu64 ", %.1f s\n", report->args->out,
                  p->to == QD_LAYOUT_PORTABLE ? "unpacked from" : "packed in", packed_layout(p), p->file_bytes,
                  p->source_bytes, report->seconds);
    put_resumed(report, text);
    buffer_printf(text, "%zu of %zu tensors changed the order of their bytes, the others are copies\n", count_packed(p),
                  p->n_tensors);
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

static json_t *json_of_tensors(const struct plan *p)
{
    json_t *list = json_array();
    for (size_t i = 0; i < p->n_tensors; i++)
        (void)json_array_append_new(list, json_of_tensor(&p->tensors[i])); /* a failure shows in the count */
    if (json_array_size(list) == p->n_tensors)
        return list;
    json_decref(list);
    return NULL;
}

/* As `quantctl plan --json` says it; of bytes that only change places, the layout in place of the recipe. */
static json_t *json_of_plan(const struct report *report)
{
    char recipe[RECIPE_TEXT_MAX];
    const struct plan *p = report->plan;
    json_t *tensors = json_of_tensors(p);
    if (!tensors)
        return NULL;
    if (plan_moves(p))
        return json_pack("{s:s, s:I, s:I, s:I, s:o}", "layout", packed_layout(p), "source_bytes",
                         (json_int_t)p->source_bytes, "file_bytes", (json_int_t)p->file_bytes, "n_tensors",
                         (json_int_t)p->n_tensors, "tensors", tensors);
    recipe_text(&p->recipe, recipe);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "scheme", scheme_name(p->recipe.scheme), "recipe", recipe,
                     "why", report->why, "source_bytes", (json_int_t)p->source_bytes, "file_bytes",
                     (json_int_t)p->file_bytes, "n_tensors", (json_int_t)p->n_tensors, "tensors", tensors);
}

int report_plan(const struct report *report, struct qd_error *err)
{
    if (report->args->json)
        return dump_json(json_of_plan(report), "plan", err);
    CLEANUP(buffer_clear) struct buffer text = {0};
    if (!plan_moves(report->plan))
        buffer_printf(&text, "%s\n", report->why);
    (void)plan_print(report->plan, &text); /* a failure stays in the buffer */
    return print_text(&text, "plan", err);
}

int report_result(const struct report *report, struct qd_error *err)
{
    const bool moves = plan_moves(report->plan);
    if (report->args->json)
        return dump_json(moves ? json_of_moving(report) : json_of_quantizing(report), "summary", err);
    CLEANUP(buffer_clear) struct buffer text = {0};
    if (moves)
        words_of_moving(report, &text);
    else
        words_of_quantizing(report, &text);
    return print_text(&text, "summary", err);
}
