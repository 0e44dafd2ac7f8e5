/*
 * Statistics that applications sent: what they saw of a model's values while they ran it by themselves. One file a
 * model in StateDirectory/statistics, named by the model's path, the stamp of its file and its own digest, so that the
 * folder is its own index; the last one that was sent counts. A recipe that quantizes activations holds the digest.
 * Loop thread, but for what is said to be the pool's.
 */
#ifndef QUANTD_DAEMON_SENT_H
#define QUANTD_DAEMON_SENT_H

#include "artifact/digest.h"
#include "daemon/catalog.h"
#include "quant/recipe.h"

enum { SENT_BYTES_MAX = 16 << 20, SENT_NAME_MAX = 192 };

struct sent;

/* Reads the folder below @state_dir, made when missing; what is no file of its kind is removed. */
int sent_open(const char *state_dir, struct sent **ret, struct qd_error *err);
struct sent *sent_close(struct sent *s);

/* Puts what is there for the model into a recipe that has a use for it. */
void sent_weigh(const struct sent *s, const char *first_file, const struct file_stamp *stamp, struct recipe *r);

/* Pool. Opens the file of @digest for reading. */
int sent_open_file(const struct sent *s, const struct digest *digest, int *ret_fd, struct qd_error *err);

/* What is to be kept; @name is filled by sent_write. */
struct sent_file {
    char path_print[33]; /* of the model's path */
    struct file_stamp stamp;
    struct digest digest;
    char name[SENT_NAME_MAX];
};

void sent_begin(const char *first_file, const struct file_stamp *stamp, struct sent_file *ret);

/* Pool. Reads @fd, which must hold statistics in their canonical form, and keeps a copy of them. */
int sent_write(const struct sent *s, int fd, struct sent_file *f, struct qd_error *err);

/* @f counts from now on; an older one of the same model goes. */
int sent_take(struct sent *s, const struct sent_file *f, struct qd_error *err);

#endif
