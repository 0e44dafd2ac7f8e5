/*
 * An importance matrix that came with a request, as a descriptor of the client's: any regular file
 * that it could open. Its content goes into the recipe by digest, which is remembered by the file's
 * stamp; else it is made on the pool. The worker reads the file and tells what it read by digest, too.
 */
#ifndef QUANTD_DAEMON_IMATRIX_H
#define QUANTD_DAEMON_IMATRIX_H

#include <stdbool.h>
#include <sys/stat.h>

#include "artifact/digest.h"
#include "daemon/daemon.h"
#include "ipc/handler.h"
#include "quant/recipe.h"

struct imatrix {
    int fd; /* owned; -1: none */
    struct stat st;
    struct digest digest;
    bool known; /* the digest is */
};

/*
 * Takes descriptor @at of the request's packet. No regular file, not open for reading, empty or larger than an
 * importance matrix may be: an error, and nothing is taken.
 */
int imatrix_take(struct daemon *d, struct request *rq, size_t at, struct imatrix *ret, struct qd_error *err);
void imatrix_clear(struct imatrix *i);

/* There is one, and its digest must be made. */
bool imatrix_is_open(const struct imatrix *i);

/* Makes the digest: on the pool. */
int imatrix_digest(struct daemon *d, struct imatrix *i, struct qd_error *err);

/* Puts it into the recipe, where there is one. */
void imatrix_weigh(const struct imatrix *i, struct recipe *r);

#endif
