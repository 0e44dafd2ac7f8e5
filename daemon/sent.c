#include "daemon/sent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "statistics/statistics.h"

enum { SENT_MAX = 4096, PRINT_BYTES = 16, DECODED_BYTES_MAX = 256 << 20 };

struct entry {
    char path_print[33];
    uint64_t stamp; /* a hash of it */
    struct digest digest;
};

struct sent {
    int folder; /* owned */
    struct entry *entries;
    size_t n;
};

/* ---- names: PATH-STAMP-DIGEST ---- */

static uint64_t stamp_print(const struct file_stamp *s)
{
    const uint64_t facts[] = {s->dev,
                              s->ino,
                              s->bytes,
                              (uint64_t)s->mtime.tv_sec,
                              (uint64_t)s->mtime.tv_nsec,
                              (uint64_t)s->ctime.tv_sec,
                              (uint64_t)s->ctime.tv_nsec};
    uint64_t print = 0xcbf29ce484222325ull; /* FNV-1a: compared for change alone */
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        print = (print ^ facts[i]) * 0x100000001b3ull;
    return print;
}

static void path_print(const char *path, char dst[33])
{
    struct digest d = {0};
    (void)digest_message("path", (struct bytes){(const uint8_t *)path, strlen(path)}, &d,
                         NULL); /* all zeros at worst: then models share what is sent */
    for (size_t i = 0; i < PRINT_BYTES; i++)
        (void)snprintf(dst + 2 * i, 3, "%02x", d.bytes[i]);
}

static void name_of(const char *print, uint64_t stamp, const struct digest *d, char dst[SENT_NAME_MAX])
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(d, hex);
    (void)snprintf(dst, SENT_NAME_MAX, "%s-%016" PRIx64 "-%s", print, stamp, hex); /* fits */
}

/* The name that its own parts make, and nothing else. */
static bool parse_name(const char *name, struct entry *ret)
{
    char hex[DIGEST_HEX_BYTES], again[SENT_NAME_MAX];
    if (sscanf(name, "%32[0-9a-f]-%16" SCNx64 "-%64[0-9a-f]", ret->path_print, &ret->stamp, hex) != 3 ||
        !digest_parse(hex, &ret->digest))
        return false;
    name_of(ret->path_print, ret->stamp, &ret->digest, again);
    return strcmp(again, name) == 0;
}

/* ---- the list ---- */

static struct entry *find(const struct sent *s, const char *print)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->entries[i].path_print, print) == 0)
            return &s->entries[i];
    return NULL;
}

static int add(struct sent *s, const struct entry *e, struct qd_error *err)
{
    struct entry *old = find(s, e->path_print), *grown;
    if (old) {
        char name[SENT_NAME_MAX];
        name_of(old->path_print, old->stamp, &old->digest, name);
        if (old->stamp != e->stamp || !digest_equal(&old->digest, &e->digest))
            (void)unlinkat(s->folder, name, 0); /* one that stays is removed at a start */
        *old = *e;
        return 0;
    }
    if (s->n >= SENT_MAX)
        return err_new(err, QD_E_LIMIT, "statistics of more than %d models", SENT_MAX);
    grown = reallocarray(s->entries, s->n + 1, sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    s->entries = grown;
    s->entries[s->n++] = *e;
    return 0;
}

static int read_folder(struct sent *s, const char *path, struct qd_error *err)
{
    DIR *dir = opendir(path);
    if (!dir)
        return err_sys(err, errno, "read '%s'", path);
    for (struct dirent *d; (d = readdir(dir));) {
        struct entry e;
        if (d->d_name[0] != '.' && (!parse_name(d->d_name, &e) || add(s, &e, NULL) < 0))
            (void)unlinkat(s->folder, d->d_name, 0); /* not ours, or half written */
    }
    (void)closedir(dir); /* only read */
    return 0;
}

int sent_open(const char *state_dir, struct sent **ret, struct qd_error *err)
{
    char path[4096];
    struct sent *s = calloc(1, sizeof *s);
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    s->folder = -1;
    int r = snprintf(path, sizeof path, "%s/statistics", state_dir) >= (int)sizeof path
                ? err_new(err, QD_E_INVALID, "state folder: path too long")
                : 0;
    if (r == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
        r = err_sys(err, errno, "make '%s'", path);
    if (r == 0 && (s->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0)
        r = err_sys(err, errno, "open '%s'", path);
    if (r == 0)
        r = read_folder(s, path, err);
    if (r < 0) {
        (void)sent_close(s); /* returns NULL by convention */
        return r;
    }
    *ret = s;
    return 0;
}

struct sent *sent_close(struct sent *s)
{
    if (s) {
        (void)fd_close(s->folder); /* only read */
        free(s->entries);
    }
    free(s);
    return NULL;
}

/* ---- use ---- */

void sent_weigh(const struct sent *s, const char *first_file, const struct file_stamp *stamp, struct recipe *r)
{
    char print[33];
    if (!s || !s->n || !first_file || !r->has_method)
        return;
    path_print(first_file, print);
    const struct entry *e = find(s, print);
    if (!e || e->stamp != stamp_print(stamp))
        return;
    r->has_statistics = true;
    r->statistics = e->digest;
}

static int open_by_digest(const struct sent *s, const struct digest *digest, struct qd_error *err)
{
    struct entry e;
    DIR *dir = fdopendir(openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int fd = -1;
    if (!dir)
        return err_sys(err, errno, "read the folder of statistics");
    for (struct dirent *d; fd < 0 && (d = readdir(dir));)
        if (parse_name(d->d_name, &e) && digest_equal(&e.digest, digest))
            fd = openat(s->folder, d->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    (void)closedir(dir); /* only read */
    return fd;
}

int sent_open_file(const struct sent *s, const struct digest *digest, int *ret_fd, struct qd_error *err)
{
    int fd = open_by_digest(s, digest, err);
    if (fd == -1) {
        (void)err_new(err, QD_E_SOURCE_CHANGED, "other statistics were sent for the model just now");
        return err_hint(err, QD_E_SOURCE_CHANGED, "ask again");
    }
    *ret_fd = fd;
    return fd < 0 ? fd : 0;
}

/* ---- keeping ---- */

void sent_begin(const char *first_file, const struct file_stamp *stamp, struct sent_file *ret)
{
    *ret = (struct sent_file){.stamp = *stamp};
    path_print(first_file, ret->path_print);
}

static int read_sent(int fd, uint8_t **ret, size_t *ret_n, struct qd_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "the descriptor of the statistics");
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > SENT_BYTES_MAX)
        return err_new(err, QD_E_INVALID, "statistics are a file of 1 to %d bytes", SENT_BYTES_MAX);
    CLEANUP(free) uint8_t *content = malloc((size_t)st.st_size);
    if (!content)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    const ssize_t n = pread_whole(fd, content, (size_t)st.st_size, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read the statistics");
    *ret = steal(&content);
    *ret_n = (size_t)n;
    return 0;
}

static int write_copy(const struct sent *s, const char *name, struct bytes content, struct qd_error *err)
{
    char tmp[SENT_NAME_MAX + 8];
    (void)snprintf(tmp, sizeof tmp, ".%s", name); /* fits */
    CLEANUP(fd_close) int fd = openat(s->folder, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : write_whole(fd, content.data, content.n);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(s->folder, tmp, s->folder, name) < 0)
        r = -errno;
    if (r < 0)
        (void)unlinkat(s->folder, tmp, 0); /* the failure is told */
    return r < 0 ? err_sys(err, -r, "keep the statistics") : 0;
}

int sent_write(const struct sent *s, int fd, struct sent_file *f, struct qd_error *err)
{
    CLEANUP(free) uint8_t *content = NULL;
    CLEANUP(statistics_free) struct statistics *decoded = NULL;
    size_t n = 0;
    int r = read_sent(fd, &content, &n, err);
    const struct bytes bytes = {content, n};
    if (r == 0)
        r = statistics_decode(bytes, DECODED_BYTES_MAX, &decoded, err);
    if (r == 0)
        r = digest_of_bytes(bytes, &f->digest, err);
    if (r < 0)
        return r;
    name_of(f->path_print, stamp_print(&f->stamp), &f->digest, f->name);
    return write_copy(s, f->name, bytes, err);
}

int sent_take(struct sent *s, const struct sent_file *f, struct qd_error *err)
{
    struct entry e = {.stamp = stamp_print(&f->stamp), .digest = f->digest};
    memcpy(e.path_print, f->path_print, sizeof e.path_print);
    return add(s, &e, err);
}
