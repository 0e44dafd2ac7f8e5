#include "daemon/ini_lines.h"

#include <ini.h>
#include <string.h>

_Static_assert(INI_LINE_BYTES == INI_MAX_LINE - 2, "what inih holds of a line");

char *ini_lines_next(char *dst, int n, void *stream)
{
    struct ini_lines *l = stream;
    if (!fgets(dst, n, l->stream))
        return NULL;
    l->line++;
    size_t length = strlen(dst);
    if (length > 0 && dst[length - 1] != '\n' && !feof(l->stream) && !l->too_long)
        l->too_long = l->line;
    /* inih takes an indented line for more of the value before; here indentation means nothing */
    size_t blanks = strspn(dst, " \t");
    memmove(dst, dst + blanks, strlen(dst + blanks) + 1);
    return dst;
}
