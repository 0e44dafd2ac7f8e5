#include "kernels/core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int code;
    int sysexit;
    const char *name;
} error_codes[] = {
#define QD_ERROR(name, number, sysexit, text) {-(number), sysexit, #name},
#include <quantd/errors.def>
#undef QD_ERROR
};
enum { N_CODES = sizeof error_codes / sizeof error_codes[0] };

/* "NO_SPACE" is shown as "no-space". */
static const char *shown_name(size_t i)
{
    static const char *const shown[] = {
        "internal",    "no-memory",      "invalid",     "not-found", "corrupt",     "unsupported",
        "limit",       "denied",         "io",          "no-space",  "busy",        "cancelled",
        "timeout",     "source-changed", "untrusted",   "protocol",  "unavailable", "config",
        "worker-died", "system",         "would-block", "exists",
    };
    _Static_assert(sizeof shown / sizeof shown[0] == N_CODES, "a shown name for every code");
    return shown[i];
}

const char *qd_error_name(int code)
{
    for (size_t i = 0; i < N_CODES; i++)
        if (error_codes[i].code == code)
            return shown_name(i);
    return "unknown";
}

int qd_error_by_name(const char *name)
{
    for (size_t i = 0; i < N_CODES; i++)
        if (name && strcmp(shown_name(i), name) == 0)
            return error_codes[i].code;
    return QD_E_INTERNAL;
}

int qd_error_exit_code(int code)
{
    for (size_t i = 0; i < N_CODES; i++)
        if (error_codes[i].code == code)
            return error_codes[i].sysexit;
    return code == 0 ? 0 : 70;
}

__attribute__((format(printf, 3, 0))) static void set_text(char *dst, size_t dst_bytes, const char *fmt, va_list args)
{
    (void)vsnprintf(dst, dst_bytes, fmt, args); /* a cut sentence is still the best we have */
    for (char *p = dst; *p; p++)                /* names in files may hold control bytes */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

int err_new(struct qd_error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    err->code = code;
    err->sys_errno = 0;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, fmt);
    set_text(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return code;
}

static int code_of_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return QD_E_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return QD_E_DENIED;
    case ENOENT:
    case ENOTDIR:
        return QD_E_NOT_FOUND;
    case ENOMEM:
        return QD_E_NO_MEMORY;
    case EIO:
    case ELOOP:
    case EISDIR:
    case ENAMETOOLONG:
    case ESTALE:
    case ENXIO:
        return QD_E_IO;
    default:
        return QD_E_SYSTEM;
    }
}

int err_sys(struct qd_error *err, int sys_errno, const char *fmt, ...)
{
    int code = code_of_errno(sys_errno);
    if (!err)
        return code;
    err->code = code;
    err->sys_errno = sys_errno;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, fmt);
    set_text(err->message, sizeof err->message, fmt, args);
    va_end(args);
    size_t used = strlen(err->message);
    char reason[96];
    (void)snprintf(err->message + used, sizeof err->message - used, ": %s",
                   strerror_r(sys_errno, reason, sizeof reason)); /* cut at worst */
    return code;
}

int err_in(struct qd_error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    char subject[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    set_text(subject, sizeof subject, fmt, args);
    va_end(args);
    size_t n = strlen(subject);
    if (n + 2 >= sizeof err->message)
        return code;
    size_t keep = strnlen(err->message, sizeof err->message - 1 - n - 2);
    memmove(err->message + n + 2, err->message, keep);
    memcpy(err->message, subject, n);
    memcpy(err->message + n, ": ", 2);
    err->message[n + 2 + keep] = '\0';
    return code;
}

int err_hint(struct qd_error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, fmt);
    set_text(err->hint, sizeof err->hint, fmt, args);
    va_end(args);
    return code;
}

enum {
    NEAREST_MAX = 64,  /* longer words are no typing mistakes */
    BEGINNING_MIN = 3, /* so many letters of a name's beginning stand for the name */
};

/* Levenshtein distance by one row; both words are at most NEAREST_MAX bytes. */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t row[NEAREST_MAX + 1];
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = substituted < other ? substituted : other;
        }
    }
    return row[n_b];
}

const char *nearest_name(const char *word, const char *const *names)
{
    size_t n = strlen(word);
    if (n == 0 || n > NEAREST_MAX)
        return NULL;
    size_t best = n / 3 < 2 ? 3 : n / 3 + 1;
    const char *nearest = NULL;
    for (; *names; names++) {
        size_t m = strlen(*names);
        size_t d = m > NEAREST_MAX ? SIZE_MAX : edit_distance(word, n, *names, m);
        if (n >= BEGINNING_MIN && m > n && memcmp(word, *names, n) == 0 && d > 2)
            d = 2;
        if (d < best) {
            best = d;
            nearest = *names;
        }
    }
    return nearest;
}

int err_unknown_name(struct qd_error *err, const char *what, const char *name, const char *near,
                     const char *const *names)
{
    char list[256] = "";
    size_t n = 0;
    for (size_t i = 0; names[i] && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i]);
    int r = err_new(err, QD_E_INVALID, "unknown %s '%.64s'", what, name);
    if (near)
        return err_hint(err, r, "did you mean '%s'? %ss: %s", near, what, list);
    return err_hint(err, r, "%ss: %s", what, list);
}
