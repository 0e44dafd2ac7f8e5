#include "client/cli/print.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

enum { CELL_BYTES = 256, GAP = 2 };

void format_bytes(uint64_t bytes, char dst[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1023.95 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    (void)snprintf(dst, 16, u ? "%.1f %s" : "%.0f %s", v, units[u]); /* fits: at most 1023.9 EiB */
}

static void format_time(uint64_t seconds, char dst[CELL_BYTES])
{
    time_t t = (time_t)seconds;
    struct tm local;
    dst[0] = '\0';
    if (seconds && localtime_r(&t, &local))
        (void)strftime(dst, CELL_BYTES, "%Y-%m-%d %H:%M", &local); /* empty at worst */
}

static void copy_text(char dst[CELL_BYTES], const char *text)
{
    size_t i = 0;
    for (; text[i] && i + 1 < CELL_BYTES; i++)
        dst[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    dst[i] = '\0';
}

static void format_db(const json_t *v, char dst[CELL_BYTES])
{
    double db = json_number_value(v);
    if (json_is_string(v) || json_is_null(v) || isinf(db))
        copy_text(dst, "exact");
    else
        (void)snprintf(dst, CELL_BYTES, "%.2f dB", db); /* fits */
}

/* One cell as text; "" where the object has no such key. */
static void format_cell(const json_t *object, const struct column *c, char dst[CELL_BYTES])
{
    const json_t *v = json_object_get(object, c->key);
    char bytes[16];
    dst[0] = '\0';
    if (!v)
        return;
    switch (c->kind) {
    case COLUMN_TEXT:
        copy_text(dst, json_is_string(v) ? json_string_value(v) : "");
        break;
    case COLUMN_COUNT:
        (void)snprintf(dst, CELL_BYTES, "%lld", (long long)json_integer_value(v));
        break;
    case COLUMN_BYTES:
        format_bytes((uint64_t)json_integer_value(v), bytes);
        copy_text(dst, bytes);
        break;
    case COLUMN_LIMIT:
        format_bytes((uint64_t)json_integer_value(v), bytes);
        copy_text(dst, json_integer_value(v) ? bytes : "no limit");
        break;
    case COLUMN_TIME:
        format_time((uint64_t)json_integer_value(v), dst);
        break;
    case COLUMN_KEY:
        copy_text(dst, json_is_string(v) ? json_string_value(v) : "");
        dst[12] = '\0';
        break;
    case COLUMN_FLAG:
        copy_text(dst, json_is_true(v) ? c->title : "");
        break;
    case COLUMN_DB:
        format_db(v, dst);
        break;
    case COLUMN_SMALL:
        (void)snprintf(dst, CELL_BYTES, "%.5g", json_number_value(v));
        break;
    }
}

static int is_right_aligned(const struct column *c)
{
    return c->kind == COLUMN_COUNT || c->kind == COLUMN_BYTES || c->kind == COLUMN_DB || c->kind == COLUMN_SMALL;
}

static int column_width(const json_t *rows, const struct column *c)
{
    size_t width = c->kind == COLUMN_FLAG ? 0 : strlen(c->title);
    char cell[CELL_BYTES];
    for (size_t i = 0; i < json_array_size(rows); i++) {
        format_cell(json_array_get(rows, i), c, cell);
        width = strlen(cell) > width ? strlen(cell) : width;
    }
    return (int)width;
}

static void print_cell(const struct column *c, const char *text, int width, int is_last)
{
    if (is_right_aligned(c))
        printf("%*s%*s", width, text, is_last ? 0 : GAP, "");
    else if (is_last)
        printf("%s", text);
    else
        printf("%-*s", width + GAP, text);
}

void print_table(const json_t *rows, const struct column *columns, const char *empty)
{
    enum { COLUMNS_MAX = 16 };
    int widths[COLUMNS_MAX] = {0};
    size_t n = 0;
    if (json_array_size(rows) == 0) {
        printf("%s\n", empty);
        return;
    }
    for (; n < COLUMNS_MAX && columns[n].title; n++)
        widths[n] = column_width(rows, &columns[n]);
    for (size_t c = 0; c < n; c++)
        print_cell(&columns[c], columns[c].kind == COLUMN_FLAG ? "" : columns[c].title, widths[c], c + 1 == n);
    putchar('\n');
    char cell[CELL_BYTES];
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t c = 0; c < n; c++) {
            format_cell(json_array_get(rows, i), &columns[c], cell);
            print_cell(&columns[c], cell, widths[c], c + 1 == n);
        }
        putchar('\n');
    }
}

void print_facts(const json_t *object, const struct column *columns)
{
    int width = 0;
    char cell[CELL_BYTES];
    for (const struct column *c = columns; c->title; c++)
        width = (int)strlen(c->title) > width ? (int)strlen(c->title) : width;
    for (const struct column *c = columns; c->title; c++) {
        format_cell(object, c, cell);
        if (cell[0])
            printf("%*s: %s\n", width, c->title, cell);
    }
}

int print_json(json_t *document)
{
    int r = document ? json_dumpf(document, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) : -1;
    putchar('\n');
    json_decref(document);
    return r == 0 && fflush(stdout) == 0 ? 0 : EX_IOERR;
}

void print_text(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}
