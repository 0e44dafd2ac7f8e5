/*
 * Printing for people and for programs. JSON goes out as one document a verb; tables are columns
 * picked from a list of JSON objects. Text from models or peers never carries control bytes to a
 * terminal.
 */
#ifndef QUANTD_CLI_PRINT_H
#define QUANTD_CLI_PRINT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum column_kind {
    COLUMN_TEXT,
    COLUMN_COUNT,
    COLUMN_BYTES, /* 1.5 GiB */
    COLUMN_LIMIT, /* the same; 0 is no limit */
    COLUMN_TIME,  /* 2026-01-31 12:00, local */
    COLUMN_KEY,   /* first 12 digits */
    COLUMN_FLAG,  /* the title where true */
    COLUMN_DB,    /* 44.8 dB; "exact" */
    COLUMN_SMALL, /* 0.00541 */
};

struct column {
    const char *title;
    const char *key;
    enum column_kind kind;
};

/* Rows of @columns (ended by a NULL title) under a line of titles; @empty is said instead where there is no row. */
void print_table(const json_t *rows, const struct column *columns, const char *empty);

/* "title: value" lines of one object; absent keys and empty texts are left out. */
void print_facts(const json_t *object, const struct column *columns);

/* Takes @document; prints it with sorted keys and a newline, and frees it. Returns 0, or EX_IOERR. */
int print_json(json_t *document);

/* "1.5 GiB" into @dst[16]. */
void format_bytes(uint64_t bytes, char dst[16]);

/* Prints text with control bytes replaced. */
void print_text(const char *text);

#endif
