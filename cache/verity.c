#include "cache/verity.h"

#include <errno.h>
#include <linux/fsverity.h>
#include <string.h>
#include <sys/ioctl.h>

static bool not_to_be_had(int sys_errno)
{
    return sys_errno == ENOTTY || sys_errno == EOPNOTSUPP || sys_errno == EINVAL || sys_errno == ENOSYS ||
           sys_errno == ENOPKG || sys_errno == EPERM;
}

int verity_enable(int fd, struct qd_error *err)
{
    struct fsverity_enable_arg arg = {.version = 1, .hash_algorithm = FS_VERITY_HASH_ALG_SHA256, .block_size = 4096};
    if (ioctl(fd, FS_IOC_ENABLE_VERITY, &arg) == 0 || errno == EEXIST)
        return 1;
    return not_to_be_had(errno) ? 0 : err_sys(err, errno, "seal with fs-verity");
}

int verity_measure(int fd, struct digest *ret, struct qd_error *err)
{
    union {
        struct fsverity_digest head; /* the digest follows it */
        uint8_t space[sizeof(struct fsverity_digest) + 64];
    } m = {.head = {.digest_size = sizeof m.space - sizeof m.head}};
    if (ioctl(fd, FS_IOC_MEASURE_VERITY, &m) < 0)
        return errno == ENODATA || not_to_be_had(errno) ? 0 : err_sys(err, errno, "measure fs-verity");
    if (m.head.digest_algorithm != FS_VERITY_HASH_ALG_SHA256 || m.head.digest_size != DIGEST_BYTES)
        return err_new(err, QD_E_CORRUPT, "fs-verity measured with another hash than SHA-256");
    memcpy(ret->bytes, m.space + sizeof m.head, DIGEST_BYTES);
    return 1;
}
