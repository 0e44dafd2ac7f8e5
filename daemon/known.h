/*
 * Known sources: which files make up the model of a first file, learned from a worker's probe and
 * kept across restarts, so that a warm `open` knows its key by a few stats: the list from here,
 * the digests from cache/hints. Disposable: what is missing or stale costs a job's probe and
 * hashing, no more. Loop thread.
 */
#ifndef QUANTD_DAEMON_KNOWN_H
#define QUANTD_DAEMON_KNOWN_H

#include <stdbool.h>
#include <sys/stat.h>

#include "artifact/source_id.h"
#include "cache/hints.h"
#include "daemon/stamp.h"
#include "kernels/core/error.h"

struct known;

/* @path: the file that keeps them, made when missing; a damaged line is dropped. */
int known_open(const char *path, struct known **ret, struct qd_error *err);
struct known *known_close(struct known *k);

/*
 * The source of the first file with stat @first is @files (@files[0] itself); digests are not kept here. @calibration:
 * as the catalog's (catalog.h), when @files was listed: a sample that comes changes no file of the list.
 */
int known_put(struct known *k, const struct stat *first, uint64_t calibration, const struct source_file_id *files,
              size_t n_files, struct qd_error *err);

/* Something is remembered of the first file as @first says, be it of other companions or older calibration data. */
bool known_has(struct known *k, const struct file_stamp *first);

/*
 * The identity of the source whose first file is @path (or @fd, when not negative), when its files
 * are known and all their stamps are in @hints: true and @ret. @is: the stamp that the first file must have, NULL: any.
 */
bool known_identity(struct known *k, struct hints *hints, const char *path, int fd, const struct file_stamp *is,
                    uint64_t calibration, struct digest *ret);

#endif
