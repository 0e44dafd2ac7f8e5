#include "client/cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/print.h"

enum {
    BAR_CELLS = 24,
    BAR_AFTER_MS = 500,
    LINES_AFTER_MS = 2000,
    LINE_EVERY_MS = 5000,
    NAME_BYTES = 256,
    SAMPLE_BYTES = 64
};

static uint64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void progress_begin(struct progress_view *v, bool silent)
{
    *v = (struct progress_view){.silent = silent, .is_terminal = isatty(STDERR_FILENO), .begun_ms = now_ms()};
}

/* "tiny q8_0", and the layout where it is packed. */
static const char *name_of(const struct qd_progress *p, char *dst, size_t n)
{
    bool packed = strcmp(p->layout, "portable") != 0;
    (void)snprintf(dst, n, "%s %s%s%s", p->model, p->scheme, packed ? " " : "", packed ? p->layout : ""); /* cut */
    return dst;
}

/* Where a model is run over samples, "sample 3 of 20" says more than a rate of bytes. */
static bool counts_samples(const struct qd_progress *p)
{
    return strcmp(p->state, "calibrating") == 0 || strcmp(p->state, "comparing") == 0;
}

/* A worker's word, cut, without what would move a terminal. */
static const char *printable(const char *text, char *dst, size_t n)
{
    (void)snprintf(dst, n, "%s", text);
    for (char *c = dst; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return dst;
}

static void show_bar(struct progress_view *v, const struct qd_progress *p, double share, const char *rate)
{
    char cells[BAR_CELLS + 1], name[NAME_BYTES], sample[SAMPLE_BYTES];
    int full = (int)(share * BAR_CELLS);
    memset(cells, '.', BAR_CELLS);
    memset(cells, '#', (size_t)full);
    cells[BAR_CELLS] = '\0';
    fprintf(stderr, "\r\033[K%s: %-8s [%s] %3.0f %%  ", name_of(p, name, sizeof name), p->state, cells, 100 * share);
    if (counts_samples(p))
        fputs(printable(p->tensor, sample, sizeof sample), stderr);
    else
        fprintf(stderr, "%s/s", rate);
    if (p->seconds_left >= 0)
        fprintf(stderr, "  %.0f s left", p->seconds_left);
    fflush(stderr);
    v->bar_shown = true;
}

/* A line when the state changes, then one every few seconds. */
static void show_line(struct progress_view *v, const struct qd_progress *p, double share, const char *rate)
{
    char name[NAME_BYTES], sample[SAMPLE_BYTES];
    uint64_t now = now_ms();
    if (strcmp(v->state, p->state) == 0 && now - v->said_ms < LINE_EVERY_MS)
        return;
    (void)snprintf(v->state, sizeof v->state, "%s", p->state); /* state names are short */
    v->said_ms = now;
    fprintf(stderr, "%s: %s", name_of(p, name, sizeof name), p->state);
    if (share > 0 && counts_samples(p))
        fprintf(stderr, " %.0f %% (%s)", 100 * share, printable(p->tensor, sample, sizeof sample));
    else if (share > 0)
        fprintf(stderr, " %.0f %% (%s/s)", 100 * share, rate);
    fputc('\n', stderr);
}

void progress_show(struct progress_view *v, const struct qd_progress *p)
{
    uint64_t waited_ms = now_ms() - v->begun_ms;
    if (v->silent || waited_ms < (v->is_terminal ? BAR_AFTER_MS : LINES_AFTER_MS))
        return;
    double share = p->total_bytes ? (double)p->done_bytes / (double)p->total_bytes : 0;
    share = share > 1 ? 1 : share;
    char rate[16];
    format_bytes(p->bytes_per_s > 0 ? (uint64_t)p->bytes_per_s : 0, rate);
    if (v->is_terminal)
        show_bar(v, p, share, rate);
    else
        show_line(v, p, share, rate);
}

void progress_end(struct progress_view *v)
{
    if (v->bar_shown)
        fputs("\r\033[K", stderr);
    v->bar_shown = false;
}
