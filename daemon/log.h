/*
 * Structured log lines to stderr: "<6>job: ready model=tiny scheme=q8_0 bytes=1234" (the <N> prefix
 * only when journald reads it, i.e. $JOURNAL_STREAM matches stderr). Values with blanks are quoted; control bytes never
 * reach the terminal. Loop thread, and main before it.
 */
#ifndef QUANTD_DAEMON_LOG_H
#define QUANTD_DAEMON_LOG_H

#include "kernels/core/error.h"

enum log_level { LOG_AT_ERROR = 3, LOG_AT_WARNING = 4, LOG_AT_NOTICE = 5, LOG_AT_INFO = 6, LOG_AT_DEBUG = 7 };

void log_open(int level);
void log_line(enum log_level level, const char *part, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Formats ` name="value"` with quoting into a static ring of buffers: for use inside log_line's arguments. */
const char *log_field(const char *name, const char *value);

/* The error with its hint. */
void log_error(const char *part, const struct qd_error *err);

#endif
