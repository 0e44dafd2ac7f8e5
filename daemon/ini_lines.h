/* Lines for inih, counted: Debian's build does not give line numbers to its handler. */
#ifndef QUANTD_DAEMON_INI_LINES_H
#define QUANTD_DAEMON_INI_LINES_H

#include <stdio.h>

enum { INI_LINE_BYTES = 198 /* inih's buffer holds a newline and NUL as well */ };

struct ini_lines {
    FILE *stream;      /* borrowed */
    unsigned line;     /* the last one read, from 1 */
    unsigned too_long; /* the first that was longer than INI_LINE_BYTES; 0: none */
};

/* An ini_reader: @stream is a struct ini_lines. */
char *ini_lines_next(char *dst, int n, void *stream);

#endif
