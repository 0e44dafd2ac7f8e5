/*
 * A source: the open files of one model, read with pread in bounded slices, never mapped.
 *
 * Whoever truncates or rewrites a file under us must cause an error, not SIGBUS and not a wrong
 * artifact: every byte of metadata and of weights that is used is also digested ("witnessed"), and
 * quantd signs only if those digests equal its own. With @witness off (quantctl quantize)
 * nothing is digested; size, mtime and ctime are still compared at the end.
 */
#ifndef QUANTD_QUANT_SOURCE_H
#define QUANTD_QUANT_SOURCE_H

#include <sys/types.h>

#include "artifact/source_id.h"
#include "kernels/core/error.h"

enum { SOURCE_GRANULE_BYTES = 1 << 20 }; /* unit of reading and of the witness of metadata */

struct source;

/*
 * Opens the file at @path, or, where it is a folder, the first file of the model in it
 * (model.safetensors, else model.safetensors.index.json). Regular files only, never blocking on a
 * fifo; the file must be readable and not empty.
 */
int source_open(const char *path, struct source **ret, struct qd_error *err);

/*
 * The same for somebody who acts with own rights: the first file of a folder and companions may be
 * symbolic links, also out of the folder, as in Hugging Face's cache (docs/adr/0008). Names with a
 * ".." or a leading '/' are refused all the same: those are the model's words, not the user's.
 */
int source_open_following(const char *path, struct source **ret, struct qd_error *err);

/*
 * The same from a descriptor that somebody else opened; @name is its name within the model's folder. Takes @fd, also on
 * failure.
 */
int source_from_fd(int fd, const char *name, struct source **ret, struct qd_error *err);
struct source *source_free(struct source *s);
DEFINE_CLEANUP(source_free, struct source *)

/*
 * File @file of @whole as a source of its own, which must outlive it: what is read of it is read, and witnessed, by
 * @whole. For readers of single files.
 */
int source_view(struct source *whole, size_t file, struct source **ret, struct qd_error *err);

/*
 * Adds a companion with its role ("weights" "index" "config" "tokenizer" "calibration"). Takes @fd, also on failure.
 * Returns its index.
 */
int source_add(struct source *s, int fd, const char *role, const char *name, struct qd_error *err);

/*
 * Opens @name beneath @folder_fd for reading: openat2(RESOLVE_BENEATH|NO_SYMLINKS|NO_MAGICLINKS), component
 * by component where the kernel lacks it. *ret_fd = -1 and 0 where it is missing. Leaving the folder, or
 * a symbolic link on the way: QD_E_DENIED.
 */
int open_beneath(int folder_fd, const char *name, int *ret_fd, struct qd_error *err);

/* Opens @name at @folder_fd for reading, following links; else as open_beneath. */
int open_following(int folder_fd, const char *name, int *ret_fd, struct qd_error *err);

/* The same by components alone; what open_beneath does on a kernel without openat2. */
int open_beneath_walk(int folder_fd, const char *name, int *ret_fd, struct qd_error *err);

/*
 * Opens @name beneath the folder of @s's first file and adds it; missing and not @required is no error, nothing is
 * added. One already there is left as it is.
 */
int source_add_companion(struct source *s, const char *role, const char *name, int required, struct qd_error *err);

size_t source_n_files(const struct source *s);
int source_find(const struct source *s, const char *name);      /* index or -1 */
int source_find_role(const struct source *s, const char *role); /* of the first such file, or -1 */
const char *source_name(const struct source *s, size_t file);
void source_set_role(struct source *s, size_t file, const char *role);
const char *source_role(const struct source *s, size_t file);
uint64_t source_bytes(const struct source *s, size_t file);
int source_fd(const struct source *s, size_t file); /* borrowed */

/* Turns the witness on or off; on by default in a worker with a control socket. Before the first read. */
void source_set_witness(struct source *s, int on);
int source_has_witness(const struct source *s);

/*
 * Reads metadata [offset, offset + n) into @dst through whole granules, each of which is digested
 * and remembered: the shard pass must meet the same bytes again. Out of file: QD_E_CORRUPT.
 * One thread at a time, and none in source_read_granule meanwhile.
 */
int source_read_meta(struct source *s, size_t file, uint64_t offset, void *dst, size_t n, struct qd_error *err);

/*
 * Reads one aligned granule (fewer bytes at the end of the file) of the shard pass into @dst
 * [SOURCE_GRANULE_BYTES]; compares with what the metadata read saw. Threads may read different
 * granules at once. Returns bytes read. Shorter than the size at open: QD_E_SOURCE_CHANGED.
 */
ssize_t source_read_granule(struct source *s, size_t file, uint64_t granule, void *dst, struct qd_error *err);

/*
 * The witness of all files: every byte is read once more, compared with what was seen of it, and digested.
 * @ret[source_n_files]: roles and names are borrowed. @cancel may be NULL.
 */
int source_testify(struct source *s, const _Atomic int *cancel, struct source_file_id *ret, struct qd_error *err);

/* fstat of every file equals the one at open, else QD_E_SOURCE_CHANGED. */
int source_check_unchanged(const struct source *s, struct qd_error *err);

#endif
