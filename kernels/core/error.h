/*
 * Making errors. Create one where the cause is known (err_new, err_sys), add the subject where it
 * is known (err_in), print it once at the top. Each returns its negative code, so that
 * `return err_new(...)` reads as one step. @err may be NULL everywhere.
 */
#ifndef QUANTD_CORE_ERROR_H
#define QUANTD_CORE_ERROR_H

#include <quantd/error.h>

/* Sets code and message; clears the hint. Returns @code. */
int err_new(struct qd_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * The same for a failed system call: message is "<fmt>: <strerror(sys_errno)>"; the code follows
 * from errno (ENOSPC, EDQUOT, EFBIG: NO_SPACE; EACCES, EPERM: DENIED; ENOENT, ENOTDIR: NOT_FOUND;
 * ENOMEM: NO_MEMORY; EIO and the rest of a file's failures: IO; anything else: SYSTEM).
 */
int err_sys(struct qd_error *err, int sys_errno, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<fmt>: " before the message. Returns @code unchanged, whatever it is. */
int err_in(struct qd_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Sets the next step to take. Returns @code unchanged. */
int err_hint(struct qd_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * The candidate nearest to @word by edit distance, or NULL where none is near enough to suggest
 * (distance over a third of the word's length, at least 2). A name that begins with @word (three
 * letters or more) is near. @names is NULL-terminated.
 */
const char *nearest_name(const char *word, const char *const *names);

/*
 * QD_E_INVALID "unknown <what> '<name>'"; the hint asks for @near (nearest_name; NULL: nothing is near) and lists
 * @names (cut where they are long).
 */
int err_unknown_name(struct qd_error *err, const char *what, const char *name, const char *near,
                     const char *const *names);

#endif
