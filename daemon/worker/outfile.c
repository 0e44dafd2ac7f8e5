#include "daemon/worker/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "name of the output");
}

static int set_names(struct outfile *f, const char *path, struct qd_error *err)
{
    CLEANUP(free) char *copy = strdup(path);
    f->path = strdup(path);
    f->name = copy ? strdup(basename(copy)) : NULL;
    if (!f->path || !f->name || asprintf(&f->hidden, ".%s.%ld.part", f->name, (long)getpid()) < 0) {
        f->hidden = NULL; /* asprintf leaves it undefined */
        return no_memory(err);
    }
    return 0;
}

static int open_folder(struct outfile *f, struct qd_error *err)
{
    CLEANUP(free) char *copy = strdup(f->path);
    if (!copy)
        return no_memory(err);
    const char *folder = dirname(copy);
    f->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return f->folder_fd < 0 ? err_sys(err, errno, "open folder '%s'", folder) : 0;
}

static int refuse_existing(const struct outfile *f, struct qd_error *err)
{
    int r = err_new(err, QD_E_EXISTS, "'%s' is there already", f->path);
    return err_hint(err, r, "say --force to replace it");
}

/* O_TMPFILE first; a hidden name where the file system or the kernel has none. */
static int open_unnamed(struct outfile *f, struct qd_error *err)
{
    f->fd = openat(f->folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (f->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
        return err_sys(err, errno, "create a file beside '%s'", f->path);
    f->fd = openat(f->folder_fd, f->hidden, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return err_sys(err, errno, "create '%s' beside '%s'", f->hidden, f->path);
    f->named = true;
    return 0;
}

int outfile_open(struct outfile *f, const char *path, bool replace, struct qd_error *err)
{
    *f = (struct outfile){.fd = -1, .folder_fd = -1, .replace = replace};
    int r = set_names(f, path, err);
    if (r == 0)
        r = open_folder(f, err);
    if (r < 0)
        return r;
    struct stat st;
    if (fstatat(f->folder_fd, f->name, &st, 0) == 0) {
        if (!replace)
            return refuse_existing(f, err);
        if (!S_ISREG(st.st_mode))
            return err_new(err, QD_E_INVALID, "'%s' is not a regular file, it is not replaced", path);
    }
    return open_unnamed(f, err);
}

/* Gives the unnamed file @name. */
static int link_unnamed(const struct outfile *f, const char *name)
{
    char proc[64];
    (void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", f->fd); /* fits */
    return linkat(AT_FDCWD, proc, f->folder_fd, name, AT_SYMLINK_FOLLOW);
}

/*
 * From the hidden name to the final one. Where the file system cannot rename without replacing (NFS: EINVAL), a link
 * does as much.
 */
static int rename_hidden(const struct outfile *f)
{
    if (renameat2(f->folder_fd, f->hidden, f->folder_fd, f->name, f->replace ? 0 : RENAME_NOREPLACE) == 0)
        return 0;
    if (f->replace || errno != EINVAL || linkat(f->folder_fd, f->hidden, f->folder_fd, f->name, 0) < 0)
        return -1;
    (void)unlinkat(f->folder_fd, f->hidden, 0); /* the work is done; a second name of it does no harm */
    return 0;
}

int outfile_publish(struct outfile *f, struct qd_error *err)
{
    if (fsync(f->fd) < 0)
        return err_sys(err, errno, "sync '%s'", f->path);
    if (!f->named && (f->replace || link_unnamed(f, f->name) < 0)) {
        if (!f->replace && errno == EEXIST)
            return refuse_existing(f, err);
        (void)unlinkat(f->folder_fd, f->hidden, 0); /* left by a killed process of our number, if at all */
        if (link_unnamed(f, f->hidden) < 0)
            return err_sys(err, errno, "name '%s'", f->path);
        f->named = true;
    }
    if (f->named && rename_hidden(f) < 0)
        return errno == EEXIST ? refuse_existing(f, err) : err_sys(err, errno, "rename to '%s'", f->path);
    f->named = false;
    return fsync(f->folder_fd) < 0 ? err_sys(err, errno, "sync the folder of '%s'", f->path) : 0;
}

void outfile_close(struct outfile *f)
{
    if (f->named)
        (void)unlinkat(f->folder_fd, f->hidden, 0); /* nothing to tell: it was never shown */
    if (f->path) {
        (void)fd_close(f->fd);        /* synced before it was published */
        (void)fd_close(f->folder_fd); /* read only */
    }
    free(f->path);
    free(f->name);
    free(f->hidden);
    *f = (struct outfile){.fd = -1, .folder_fd = -1};
}
