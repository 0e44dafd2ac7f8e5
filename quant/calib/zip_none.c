/* What stands for zip.c in a build without zlib. */
#include "quant/calib/zip.h"

int zip_open(struct source *s, const char *name, struct zip_reader **ret, struct qd_error *err)
{
    (void)s;
    (void)name;
    (void)ret;
    int r = err_new(err, QD_E_UNSUPPORTED, ".npz archives are not read: this build has no zlib");
    return err_hint(err, r, "save .npy files, or build where zlib1g-dev is installed");
}

struct zip_reader *zip_close(struct zip_reader *z)
{
    (void)z;
    return NULL;
}

uint64_t zip_bytes(const struct zip_reader *z)
{
    (void)z;
    return 0;
}

int zip_read(void *reader, void *dst, size_t n, struct qd_error *err)
{
    (void)reader;
    (void)dst;
    (void)n;
    return err_new(err, QD_E_INTERNAL, "there is no archive to read");
}
