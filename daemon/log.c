#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/io.h"

enum { LINE_BYTES = 2048, FIELD_BYTES = 1024, N_FIELDS = 8 };

static int log_level = LOG_AT_INFO;
static bool log_prefix;

/* systemd sets JOURNAL_STREAM to "dev:inode" of the stream; stderr may have been redirected since. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == dev && st.st_ino == ino;
}

void log_open(int level)
{
    log_level = level;
    log_prefix = stderr_is_journal();
}

static void tame(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

void log_line(enum log_level level, const char *part, const char *fmt, ...)
{
    if ((int)level > log_level)
        return;

    char text[LINE_BYTES], line[LINE_BYTES + 64];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args); /* a cut line is still the best we have */
    va_end(args);
    tame(text);

    char prefix[8] = "";
    if (log_prefix)
        (void)snprintf(prefix, sizeof prefix, "<%d>", (int)level);
    int n = snprintf(line, sizeof line, "%s%.32s: %s\n", prefix, part, text);
    (void)write_whole(STDERR_FILENO, line, (size_t)n); /* nobody is left to tell */
}

static bool needs_quotes(const char *value)
{
    return value[0] == '\0' || strpbrk(value, " \t\"=\\") != NULL;
}

const char *log_field(const char *name, const char *value)
{
    static char ring[N_FIELDS][FIELD_BYTES];
    static unsigned next;
    char *dst = ring[next++ % N_FIELDS];

    value = value ? value : "";
    if (!needs_quotes(value)) {
        (void)snprintf(dst, FIELD_BYTES, " %s=%s", name, value);
        return dst;
    }

    size_t at = (size_t)snprintf(dst, FIELD_BYTES - 4, " %.64s=\"", name);
    for (; *value && at < FIELD_BYTES - 4; value++) {
        if (*value == '"' || *value == '\\')
            dst[at++] = '\\';
        dst[at++] = *value;
    }
    dst[at++] = '"';
    dst[at] = '\0';
    return dst;
}

void log_error(const char *part, const struct qd_error *err)
{
    log_line(LOG_AT_ERROR, part, "%s (%s)%s", err->message, qd_error_name(err->code),
             err->hint[0] ? log_field("hint", err->hint) : "");
}
