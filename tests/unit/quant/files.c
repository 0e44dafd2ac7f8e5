#include "tests/unit/quant/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/core/io.h"

static void must(int ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

void folder_make(char dst[TEST_PATH_MAX])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(dst, TEST_PATH_MAX, "%s/quantd-test-XXXXXX", base ? base : "/tmp"); /* cut: mkdtemp says so */
    must(mkdtemp(dst) != NULL, dst);
}

void folder_remove(const char *folder)
{
    DIR *d = opendir(folder);
    must(d != NULL, folder);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(d), e->d_name, 0) < 0)
            must(unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) == 0, e->d_name);
    (void)closedir(d); /* only read */
    must(rmdir(folder) == 0, folder);
}

void file_write(const char *folder, const char *name, struct bytes content)
{
    char path[2 * TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name); /* cut: open fails */
    CLEANUP(fd_close) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0, path);
    must(write_whole(fd, content.data, content.n) == 0, path);
}

static int add_companions(struct source *s, struct qd_error *err)
{
    CLEANUP(probe_free) struct probe *p = NULL;
    int r = model_probe(s, &p, err);
    return r < 0 ? r : probe_add_files(p, s, err);
}

int model_open(const char *folder, const char *name, struct model **ret, struct source **ret_source,
               struct qd_error *err)
{
    char path[2 * TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name); /* cut: open fails */
    CLEANUP(source_free) struct source *s = NULL;
    int r = source_open(path, &s, err);
    if (r == 0)
        r = add_companions(s, err);
    if (r == 0)
        r = model_read(s, LIMIT_HEADER_BUDGET_BYTES, ret, err);
    if (r == 0 && ret_source)
        *ret_source = steal(&s);
    return r;
}

int model_of_bytes(struct bytes content, const char *name, struct model **ret, struct qd_error *err)
{
    char folder[TEST_PATH_MAX];
    folder_make(folder);
    file_write(folder, name, content);
    int r = model_open(folder, name, ret, NULL, err);
    folder_remove(folder);
    return r;
}
