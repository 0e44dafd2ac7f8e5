#include "cache/store_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "kernels/core/io.h"

static int result(int r)
{
    return r < 0 ? -errno : r;
}

static int io_create(void *data, int folder, const char *name, mode_t mode)
{
    (void)data;
    return result(openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
}

static int io_write(void *data, int fd, const void *src, size_t n_bytes)
{
    (void)data;
    return write_whole(fd, src, n_bytes);
}

static int io_sync(void *data, int fd)
{
    (void)data;
    return result(fsync(fd));
}

static int io_chmod(void *data, int fd, mode_t mode)
{
    (void)data;
    return result(fchmod(fd, mode));
}

static int io_link(void *data, int from_folder, const char *from, int to_folder, const char *to)
{
    (void)data;
    return result(linkat(from_folder, from, to_folder, to, 0));
}

static int io_unlink(void *data, int folder, const char *name)
{
    (void)data;
    return result(unlinkat(folder, name, 0));
}

static int io_rename(void *data, int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    (void)data;
    return result(renameat2(from_folder, from, to_folder, to, flags));
}

static int io_mkdir(void *data, int folder, const char *name)
{
    (void)data;
    return result(mkdirat(folder, name, 0700));
}

static int io_stat(void *data, int fd, struct stat *ret)
{
    (void)data;
    return result(fstat(fd, ret));
}

static int io_stat_at(void *data, int folder, const char *name, struct stat *ret)
{
    (void)data;
    return result(fstatat(folder, name, ret, AT_SYMLINK_NOFOLLOW));
}

const struct store_io store_io_real = {
    .create = io_create,
    .write = io_write,
    .sync = io_sync,
    .chmod = io_chmod,
    .link = io_link,
    .unlink = io_unlink,
    .rename = io_rename,
    .mkdir = io_mkdir,
    .stat = io_stat,
    .stat_at = io_stat_at,
};
