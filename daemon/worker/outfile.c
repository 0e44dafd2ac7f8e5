#include "daemon/worker/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
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

static int begin(struct outfile *f, const char *path, bool replace, struct qd_error *err)
{
    *f = (struct outfile){.fd = -1, .folder_fd = -1, .journal_fd = -1, .replace = replace};
    int r = set_names(f, path, err);
    if (r == 0)
        r = open_folder(f, err);
    if (r < 0)
        return r;
    struct stat st;
    if (fstatat(f->folder_fd, f->name, &st, 0) < 0)
        return 0;
    if (!replace)
        return refuse_existing(f, err);
    return S_ISREG(st.st_mode) ? 0 : err_new(err, QD_E_INVALID, "'%s' is not a regular file, it is not replaced", path);
}

int outfile_open(struct outfile *f, const char *path, bool replace, struct qd_error *err)
{
    int r = begin(f, path, replace, err);
    return r < 0 ? r : open_unnamed(f, err);
}

/* A file of ours alone: in a folder that others write too, somebody may have put a link or a file of his own there. */
static int open_own(const struct outfile *f, const char *name, int *ret, struct qd_error *err)
{
    struct stat st;
    CLEANUP(fd_close) int fd = openat(f->folder_fd, name, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, errno, "open '%s' beside '%s'", name, f->path);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1) {
        int r = err_new(err, QD_E_INVALID, "'%s' beside '%s' is not a file of ours", name, f->path);
        return err_hint(err, r, "remove it, or write to a folder of your own");
    }
    *ret = steal_fd(&fd);
    return 0;
}

/* The name still is that of @fd: whoever held the lock before us may have renamed it. */
static bool is_named(const struct outfile *f, const char *name, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(f->folder_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static int take_part(struct outfile *f, struct qd_error *err)
{
    int r = open_own(f, f->hidden, &f->fd, err);
    if (r < 0)
        return r;
    if ((flock(f->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) || !is_named(f, f->hidden, f->fd)) {
        r = err_new(err, QD_E_EXISTS, "'%s' is being written by another process", f->path);
        return err_hint(err, r, "wait for it, or choose another name");
    }
    f->named = true;
    return 0;
}

int outfile_open_resumable(struct outfile *f, const char *path, bool replace, struct qd_error *err)
{
    int r = begin(f, path, replace, err);
    if (r < 0)
        return r;
    free(f->hidden);
    f->hidden = NULL;
    if (asprintf(&f->hidden, ".%s.part", f->name) < 0 || asprintf(&f->journal, ".%s.journal", f->name) < 0)
        return no_memory(err);
    r = take_part(f, err);
    return r < 0 ? r : open_own(f, f->journal, &f->journal_fd, err);
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
    if (f->journal)
        (void)unlinkat(f->folder_fd, f->journal, 0); /* a journal of a file that is gone is not believed */
    return fsync(f->folder_fd) < 0 ? err_sys(err, errno, "sync the folder of '%s'", f->path) : 0;
}

void outfile_leave(struct outfile *f)
{
    f->named = f->named && !f->journal;
    free(f->journal);
    f->journal = NULL;
    outfile_close(f);
}

void outfile_close(struct outfile *f)
{
    if (f->named)
        (void)unlinkat(f->folder_fd, f->hidden, 0); /* nothing to tell: it was never shown */
    if (f->named && f->journal)
        (void)unlinkat(f->folder_fd, f->journal, 0);
    if (f->path) {
        (void)fd_close(f->fd);        /* synced before it was published */
        (void)fd_close(f->folder_fd); /* read only */
        (void)fd_close(f->journal_fd);
    }
    free(f->path);
    free(f->name);
    free(f->hidden);
    free(f->journal);
    *f = (struct outfile){.fd = -1, .folder_fd = -1, .journal_fd = -1};
}
