/* Calibration data of an ONNX model: the files of MODEL.calib beside MODEL.onnx, and of the folders in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/launch.h"
#include "daemon/scan.h"
#include "kernels/core/cleanup.h"
#include "quant/calib/dataset.h"

enum { DEPTH = 2, /* a folder for each input */ BESIDE = 2 /* an importance matrix may follow */ };

static struct dirent *dir_close(DIR *dir)
{
    (void)closedir(dir); /* only read */
    return NULL;
}
DEFINE_CLEANUP(dir_close, DIR *)

static int add_sample(struct launch *l, const char *name, struct qd_error *err)
{
    if (l->n_files + BESIDE >= SOURCE_FILES_MAX) {
        int r = err_new(err, QD_E_LIMIT, "'%s': more than %d files of calibration data", name,
                        SOURCE_FILES_MAX - BESIDE - 1);
        return err_hint(err, r, "some hundred samples are enough; a .npz file holds all inputs of one");
    }
    struct launch_file *grown = realloc(l->files, (l->n_files + BESIDE) * sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    l->files = grown;
    struct launch_file *f = &l->files[l->n_files++];
    *f = (struct launch_file){.role = strdup(CALIBRATION_ROLE), .name = strdup(name), .required = true, .fd = -1};
    return f->role && f->name ? launch_gather_one(l, f, err) : err_new(err, QD_E_NO_MEMORY, "file list");
}

/* @path: of the folder, relative to the model's. @print: grows by what it holds, as the catalog's does. */
static int gather_folder(struct launch *l, int parent_fd, const char *name, const char *path, unsigned depth,
                         uint64_t *print, struct qd_error *err)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return (errno == ENOENT || errno == ENOTDIR) && depth == 1 ? 0 /* a file of that name is another tool's */
                                                                   : err_sys(err, errno, "open '%s'", path);
    CLEANUP(dir_close) DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)fd_close(fd);
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (errno = 0, e = readdir(dir));) {
        char below[PATH_MAX];
        struct stat st;
        if (e->d_name[0] == '.')
            continue;
        if (snprintf(below, sizeof below, "%s/%s", path, e->d_name) >= (int)sizeof below ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return err_sys(err, errno, "stat '%s'", below);
        *print = scan_print_sample(*print, e->d_name, &st, depth);
        if (S_ISDIR(st.st_mode) && depth < DEPTH)
            r = gather_folder(l, dirfd(dir), e->d_name, below, depth + 1, print, err);
        else
            r = add_sample(l, below, err);
    }
    if (r == 0 && errno)
        return err_sys(err, errno, "read '%s'", path);
    if (r == 0 && depth == 1)
        *print = scan_calibration(*print);
    return r;
}

int samples_gather(struct launch *l, struct qd_error *err)
{
    char name[NAME_MAX + sizeof ".calib"];
    const char *model = l->files[0].name, *dot = strrchr(model, '.');
    (void)snprintf(name, sizeof name, "%.*s.calib", (int)(dot ? dot - model : (ptrdiff_t)strlen(model)),
                   model); /* fits: a file's name */
    l->calibration = 0;
    return gather_folder(l, l->folder_fd, name, name, 1, &l->calibration, err);
}

int samples_identity(const struct launch *l, size_t *ret_n, uint64_t *ret_bytes, struct digest *ret,
                     struct qd_error *err)
{
    CLEANUP(free) struct source_file_id *ids = calloc(l->n_files, sizeof *ids);
    if (!ids)
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    *ret_n = 0;
    *ret_bytes = 0;
    for (size_t i = 0; i < l->n_files; i++) {
        const struct launch_file *f = &l->files[i];
        if (f->fd < 0 || strcmp(f->role, CALIBRATION_ROLE) != 0)
            continue;
        ids[(*ret_n)++] = (struct source_file_id){
            .role = f->role, .name = f->name, .bytes = (uint64_t)f->st.st_size, .digest = f->digest};
        *ret_bytes += (uint64_t)f->st.st_size;
    }
    return *ret_n ? source_identity(ids, *ret_n, ret, err) : 0;
}
