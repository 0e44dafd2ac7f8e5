/*
 * Hints: the digests of source files seen before, by (device, inode, size, mtime, ctime), so that
 * a warm `open` need not hash the source again. Only ever used to look an artifact up; a new one is
 * signed on what was read. A disposable index: a damaged or missing file costs hashing, no more.
 *
 * Thread-safe. hint_get never blocks on the disk; hint_put appends one record, unsynced.
 */
#ifndef QUANTD_CACHE_HINTS_H
#define QUANTD_CACHE_HINTS_H

#include <sys/stat.h>

#include "artifact/digest.h"

enum { HINTS_MAX = 1 << 14 }; /* files remembered; 3 MiB in memory at most, the older half goes first */

struct hints;

/* @path: the hint file, made when missing. A damaged tail or file is dropped. */
int hints_open(const char *path, struct hints **ret, struct qd_error *err);
struct hints *hints_close(struct hints *h);
DEFINE_CLEANUP(hints_close, struct hints *)

/* True when @st (of the open descriptor) is known. */
bool hint_get(struct hints *h, const struct stat *st, struct digest *ret);

/*
 * @st: fstat from before the hashing that gave @digest, equal to the one after it. A file whose
 * ctime is younger than 100 ms is not remembered (0): the clock of the file system is too coarse to
 * tell the next write to it.
 */
int hint_put(struct hints *h, const struct stat *st, const struct digest *digest, struct qd_error *err);

size_t hints_count(struct hints *h);

#endif
