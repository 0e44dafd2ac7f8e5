/* The stamp of a file (struct file_stamp): what tells one content from another without reading it. */
#ifndef QUANTD_DAEMON_STAMP_H
#define QUANTD_DAEMON_STAMP_H

#include <stdbool.h>

#include "daemon/catalog.h"

enum { STAMP_TEXT_MAX = 160 };

struct file_stamp stamp_of(const struct stat *st);
bool stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

/* Device and inode alone. */
bool stamp_same_file(const struct file_stamp *a, const struct file_stamp *b);

/* Seven numbers separated by blanks; for state files. @dst[STAMP_TEXT_MAX]. */
void stamp_text(const struct file_stamp *s, char *dst);
bool stamp_parse(const char *text, struct file_stamp *ret);

#endif
