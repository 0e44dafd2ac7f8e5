#include "daemon/failures.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/stamp.h"
#include "kernels/core/cleanup.h"

enum { FAILURES_MAX = 256, FIELDS = 9 };

struct entry {
    char *model; /* owned */
    char recipe[RECIPE_TEXT_MAX];
    struct failure f;
};

struct failures {
    char *path;                         /* owned */
    struct entry entries[FAILURES_MAX]; /* oldest first */
    size_t n;
};

static void remove_at(struct failures *f, size_t i)
{
    free(f->entries[i].model);
    memmove(&f->entries[i], &f->entries[i + 1], (f->n - i - 1) * sizeof f->entries[0]);
    f->n--;
}

static size_t find(const struct failures *f, const char *model, const char *recipe, enum qd_layout layout)
{
    size_t i = 0;
    while (i < f->n && (f->entries[i].f.layout != layout || strcmp(f->entries[i].model, model) != 0 ||
                        strcmp(f->entries[i].recipe, recipe) != 0))
        i++;
    return i;
}

/* ---- on disk: version, then a line per failure with fields separated by tabs -------------------- */

static void write_entry(FILE *file, const struct entry *e)
{
    char stamp[STAMP_TEXT_MAX];
    if (strpbrk(e->model, "\t\n"))
        return; /* such a name is remembered until the restart */
    stamp_text(&e->f.stamp, stamp);
    (void)fprintf(file, "%s\t%s\t%s\t%s\t%u\t%" PRIu64 "\t%s\t%s\t%s\n", e->model, e->recipe,
                  qd_layout_info(e->f.layout)->name, stamp, e->f.n_failures, e->f.retry_at,
                  qd_error_name(e->f.err.code), e->f.err.message, e->f.err.hint);
}

/* A lost file costs a useless try. */
static void write_all(const struct failures *f)
{
    FILE *file = fopen(f->path, "we");
    if (!file)
        return;
    (void)fprintf(file, "quantd %s\n", QUANTD_VERSION);
    for (size_t i = 0; i < f->n; i++)
        write_entry(file, &f->entries[i]);
    (void)fclose(file);
}

static void insert(struct failures *f, const struct failure *failure)
{
    struct entry e = {.model = strdup(failure->model), .f = *failure};
    if (!e.model)
        return;
    e.f.model = NULL;
    recipe_text(&failure->recipe, e.recipe);
    size_t at = find(f, e.model, e.recipe, failure->layout);
    if (at < f->n)
        remove_at(f, at);
    else if (f->n == FAILURES_MAX)
        remove_at(f, 0);
    f->entries[f->n++] = e;
}

static void read_line(struct failures *f, char *line)
{
    char *field[FIELDS], *at = line;
    struct failure x = {0};
    size_t n = 0;
    while (at && n < FIELDS)
        field[n++] = strsep(&at, "\t");
    int layout = n == FIELDS && !at ? qd_layout_by_name(field[2]) : -1;
    if (layout < 0 || recipe_parse(field[1], &x.recipe, NULL) < 0 || !stamp_parse(field[3], &x.stamp))
        return;
    x.layout = (enum qd_layout)layout;
    x.model = field[0];
    x.n_failures = (unsigned)strtoul(field[4], NULL, 10);
    x.retry_at = strtoull(field[5], NULL, 10);
    (void)err_new(&x.err, qd_error_by_name(field[6]), "%s", field[7]);
    (void)err_hint(&x.err, x.err.code, "%s", field[8]);
    insert(f, &x);
}

static void read_all(struct failures *f, FILE *file)
{
    CLEANUP(free) char *line = NULL;
    size_t capacity = 0;
    ssize_t n = getline(&line, &capacity, file);
    if (n <= 0 || strcmp(line, "quantd " QUANTD_VERSION "\n") != 0)
        return;
    while ((n = getline(&line, &capacity, file)) > 0)
        if (line[n - 1] == '\n') {
            line[n - 1] = '\0';
            read_line(f, line);
        }
}

int failures_open(const char *path, struct failures **ret, struct qd_error *err)
{
    struct failures *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return err_new(err, QD_E_NO_MEMORY, "failed jobs");
    }
    FILE *file = fopen(path, "re");
    if (file) {
        read_all(f, file);
        (void)fclose(file); /* only read */
    }
    *ret = f;
    return 0;
}

struct failures *failures_close(struct failures *f)
{
    if (!f)
        return NULL;
    while (f->n > 0)
        remove_at(f, f->n - 1);
    free(f->path);
    free(f);
    return NULL;
}

/* ---- use ------------------------------------------------------------------------------------------ */

void failures_put(struct failures *f, const struct failure *failure)
{
    insert(f, failure);
    write_all(f);
}

bool failures_get(const struct failures *f, const char *model, const struct recipe *recipe, enum qd_layout layout,
                  const struct file_stamp *stamp, struct failure *ret)
{
    char text[RECIPE_TEXT_MAX];
    recipe_text(recipe, text);
    size_t i = find(f, model, text, layout);
    if (i == f->n || !stamp_equal(&f->entries[i].f.stamp, stamp))
        return false;
    *ret = f->entries[i].f;
    return true;
}

void failures_drop(struct failures *f, const char *model, const struct recipe *recipe, enum qd_layout layout)
{
    char text[RECIPE_TEXT_MAX];
    recipe_text(recipe, text);
    size_t at = find(f, model, text, layout);
    if (at == f->n)
        return;
    remove_at(f, at);
    write_all(f);
}

void failures_drop_outdated(struct failures *f, const char *model, const struct file_stamp *stamp)
{
    size_t before = f->n;
    for (size_t i = f->n; i-- > 0;)
        if (strcmp(f->entries[i].model, model) == 0 && !stamp_equal(&f->entries[i].f.stamp, stamp))
            remove_at(f, i);
    if (f->n != before)
        write_all(f);
}

unsigned failures_clear(struct failures *f)
{
    unsigned n = (unsigned)f->n;
    while (f->n > 0)
        remove_at(f, f->n - 1);
    if (n > 0)
        write_all(f);
    return n;
}
