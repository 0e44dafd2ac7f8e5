/* Opening a companion of a model without leaving the model's folder. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "quant/limits.h"
#include "quant/source.h"

enum { RENAME_RACE_RETRIES = 8 };

static int refuse(struct qd_error *err, const char *name, const char *why)
{
    int r = err_new(err, QD_E_DENIED, "'%s' %s", name, why);
    return err_hint(err, r, "put the file itself into the model's folder");
}

/* The daemon reads for others, so it follows none; who acts with own rights may (docs/adr/0008-symlinks.md). */
static int refuse_link(struct qd_error *err, const char *name)
{
    int r = err_new(err, QD_E_DENIED, "'%s' is a symbolic link, or passes through one", name);
    return err_hint(err, r,
                    "copy the model's folder with `cp -rL`, or use `quantctl quantize`, which follows links; a GGUF "
                    "file: `quantctl open --file`");
}

/* ELOOP, EXDEV and a refusal are the model's doing; what is missing is an answer. */
static int open_failed(struct qd_error *err, const char *name, int sys_errno, int *ret_fd)
{
    if (sys_errno == ENOENT) {
        *ret_fd = -1;
        return 0;
    }
    if (sys_errno == ELOOP)
        return refuse_link(err, name);
    if (sys_errno == EXDEV)
        return refuse(err, name, "leads out of the model's folder");
    return err_sys(err, sys_errno, "open '%s'", name);
}

/* The next component of *path into @dst; false at the end. */
static bool next_component(const char **path, char dst[LIMIT_FILE_NAME_BYTES + 1], bool *ret_too_long)
{
    *path += strspn(*path, "/");
    size_t n = strcspn(*path, "/");
    *ret_too_long = n > LIMIT_FILE_NAME_BYTES;
    if (n == 0 || *ret_too_long)
        return false;
    memcpy(dst, *path, n);
    dst[n] = '\0';
    *path += n;
    return true;
}

/* False for what openat2 would refuse by its form alone: absolute, empty, or with a ".." in it. */
static bool path_stays(const char *name)
{
    if (name[0] == '\0' || name[0] == '/')
        return false;
    for (const char *at = name; at; at = strchr(at, '/')) {
        at += *at == '/';
        size_t n = strcspn(at, "/");
        if (n == 2 && at[0] == '.' && at[1] == '.')
            return false;
    }
    return true;
}

int open_beneath_walk(int folder_fd, const char *name, int *ret_fd, struct qd_error *err)
{
    if (!path_stays(name))
        return refuse(err, name, "leads out of the model's folder");
    CLEANUP(fd_close) int folder = fcntl(folder_fd, F_DUPFD_CLOEXEC, 3);
    if (folder < 0)
        return err_sys(err, errno, "open '%s'", name);
    const char *rest = name;
    char part[LIMIT_FILE_NAME_BYTES + 1];
    bool too_long;
    while (next_component(&rest, part, &too_long)) {
        bool last = rest[strspn(rest, "/")] == '\0';
        int flags = last ? O_RDONLY | O_NONBLOCK : O_PATH | O_DIRECTORY;
        int next = openat(folder, part, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
        if (next < 0) /* O_PATH|O_DIRECTORY on a link says ENOTDIR */
            return open_failed(err, name, errno == ENOTDIR && !last ? ELOOP : errno, ret_fd);
        if (last) {
            *ret_fd = next;
            return 0;
        }
        (void)fd_close(folder); /* only a path descriptor */
        folder = next;
    }
    return err_sys(err, too_long ? ENAMETOOLONG : ENOENT, "open '%s'", name);
}

int open_beneath(int folder_fd, const char *name, int *ret_fd, struct qd_error *err)
{
    if (!path_stays(name))
        return refuse(err, name, "leads out of the model's folder");
    struct open_how how = {
        .flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    for (int i = 0; i < RENAME_RACE_RETRIES; i++) { /* EAGAIN: something on the path was renamed meanwhile */
        fd = syscall(SYS_openat2, folder_fd, name, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    if (fd < 0 && errno == ENOSYS)
        return open_beneath_walk(folder_fd, name, ret_fd, err);
    if (fd < 0)
        return open_failed(err, name, errno, ret_fd);
    *ret_fd = (int)fd;
    return 0;
}

int open_following(int folder_fd, const char *name, int *ret_fd, struct qd_error *err)
{
    if (!path_stays(name))
        return refuse(err, name, "leads out of the model's folder");
    int fd = openat(folder_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == ELOOP)
        return err_sys(err, errno, "open '%s'", name);
    if (fd < 0)
        return open_failed(err, name, errno, ret_fd);
    *ret_fd = fd;
    return 0;
}
