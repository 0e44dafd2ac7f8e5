#include "daemon/imatrix.h"

#include <errno.h>
#include <fcntl.h>

#include "cache/hints.h"
#include "daemon/handlers.h"
#include "daemon/stamp.h"
#include "kernels/core/cleanup.h"
#include "quant/limits.h"

static int check_file(int fd, struct stat *ret, struct qd_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, ret) < 0)
        return err_sys(err, errno, "the descriptor of the importance matrix");
    if (!S_ISREG(ret->st_mode))
        return err_new(err, QD_E_INVALID, "the descriptor of the importance matrix is no regular file");
    if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
        return err_new(err, QD_E_DENIED, "the descriptor of the importance matrix is not open for reading");
    if (ret->st_size > 0 && ret->st_size <= LIMIT_IMPORTANCE_BYTES)
        return 0;
    int r =
        err_new(err, ret->st_size ? QD_E_LIMIT : QD_E_CORRUPT, "an importance matrix of %lld bytes; the limit is %d",
                (long long)ret->st_size, LIMIT_IMPORTANCE_BYTES);
    return err_hint(err, r, "give a file that llama-imatrix wrote");
}

int imatrix_take(struct daemon *d, struct request *rq, size_t at, struct imatrix *ret, struct qd_error *err)
{
    struct imatrix i = {0};
    CLEANUP(fd_close) int fd = packet_steal_fd(rq->packet, at);
    if (fd < 0)
        return err_new(err, QD_E_INVALID, "the packet carries no descriptor of an importance matrix");
    int r = check_file(fd, &i.st, err);
    if (r < 0)
        return r;
    i.known = hint_get(d->hints, &i.st, &i.digest);
    i.fd = steal_fd(&fd);
    *ret = i;
    return 0;
}

void imatrix_clear(struct imatrix *i)
{
    i->fd = fd_close(i->fd); /* only read */
}

bool imatrix_is_open(const struct imatrix *i)
{
    return i->fd >= 0 && !i->known;
}

int imatrix_digest(struct daemon *d, struct imatrix *i, struct qd_error *err)
{
    struct stat after;
    int r = digest_file(i->fd, (uint64_t)i->st.st_size, 1, &i->digest, NULL, &d->serving->stopping, NULL, err);
    if (r < 0)
        return err_in(err, r, "importance matrix");
    if (fstat(i->fd, &after) < 0)
        return err_sys(err, errno, "stat the importance matrix");
    struct file_stamp was = stamp_of(&i->st), is = stamp_of(&after);
    if (!stamp_equal(&was, &is))
        return err_new(err, QD_E_SOURCE_CHANGED, "the importance matrix was changed while it was hashed");
    (void)hint_put(d->hints, &i->st, &i->digest, NULL); /* a hint that is lost costs hashing */
    i->known = true;
    return 0;
}

void imatrix_weigh(const struct imatrix *i, struct recipe *r)
{
    r->weighted = i->fd >= 0;
    if (r->weighted)
        r->importance = i->digest;
}
