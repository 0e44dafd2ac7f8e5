#include "cache/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { WEEK_S = 7 * 24 * 3600 };

void work_name(const struct digest *key, const char *suffix, char dst[WORK_NAME_BYTES])
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(key, hex);
    (void)snprintf(dst, WORK_NAME_BYTES, "%s.%s", hex, suffix); /* suffixes are ours and short */
}

bool work_name_parse(const char *name, struct digest *ret_key, const char **ret_suffix)
{
    char hex[DIGEST_HEX_BYTES];
    size_t n = 2 * DIGEST_BYTES;
    if (strnlen(name, n + 1) <= n || name[n] != '.')
        return false;
    memcpy(hex, name, n);
    hex[n] = '\0';
    *ret_suffix = name + n + 1;
    return digest_parse(hex, ret_key);
}

bool work_is_open(const struct store *s, const struct digest *key)
{
    for (size_t i = 0; i < s->n_open_works; i++)
        if (digest_equal(&s->open_works[i], key))
            return true;
    return false;
}

static int work_note(struct store *s, const struct digest *key, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (work_is_open(s, key))
        return err_new(err, QD_E_BUSY, "the job's files are in use already");
    struct digest *grown = realloc(s->open_works, (s->n_open_works + 1) * sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "%zu open works", s->n_open_works + 1);
    s->open_works = grown;
    s->open_works[s->n_open_works++] = *key;
    return 0;
}

void work_forget(struct store *s, const struct digest *key)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    for (size_t i = 0; i < s->n_open_works; i++) {
        if (digest_equal(&s->open_works[i], key)) {
            s->open_works[i] = s->open_works[--s->n_open_works];
            return;
        }
    }
}

const char *const work_parts[STORE_PARTS_MAX] = {"part", "part1"};

static void unlink_one(struct store *s, const struct digest *key, const char *suffix)
{
    char name[WORK_NAME_BYTES];
    work_name(key, suffix, name);
    (void)unlinkat(s->work, name, 0); /* it may not be there */
}

static void work_unlink(struct store *s, const struct digest *key)
{
    for (size_t i = 0; i < STORE_PARTS_MAX; i++)
        unlink_one(s, key, work_parts[i]);
    unlink_one(s, key, "journal");
}

/*
 * -1 where there is none, or nothing that could be continued (a symbolic link); an error where we lack the means to
 * look.
 */
static int open_one(struct store *s, const char *name, int *ret_fd, struct qd_error *err)
{
    *ret_fd = openat(s->work, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd >= 0 || errno == ENOENT || errno == ELOOP)
        return 0;
    return err_sys(err, errno, "open work/%s", name);
}

static void close_files(struct store_work *w)
{
    for (size_t i = 0; i < STORE_PARTS_MAX; i++)
        w->part_fds[i] = fd_close(w->part_fds[i]);
    w->journal_fd = fd_close(w->journal_fd);
}

/* All files, or none: with one missing there is nothing to continue. */
static int open_old(struct store *s, struct store_work *w, struct qd_error *err)
{
    char name[WORK_NAME_BYTES];
    work_name(&w->key, "journal", name);
    int r = open_one(s, name, &w->journal_fd, err);
    w->resumed = w->journal_fd >= 0;
    for (size_t i = 0; i < w->n_parts && r == 0; i++) {
        work_name(&w->key, work_parts[i], name);
        r = open_one(s, name, &w->part_fds[i], err);
        w->resumed = w->resumed && w->part_fds[i] >= 0;
    }
    if (r < 0 || w->resumed) {
        w->resumed = r == 0;
        return r;
    }
    close_files(w);
    work_unlink(s, &w->key);
    return 0;
}

static int create_one(struct store *s, const struct store_work *w, const char *suffix, int *ret_fd,
                      struct qd_error *err)
{
    char name[WORK_NAME_BYTES];
    work_name(&w->key, suffix, name);
    *ret_fd = openat(s->work, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return *ret_fd < 0 ? err_sys(err, errno, "create work/%s", name) : 0;
}

static int open_files(struct store *s, struct store_work *w, struct qd_error *err)
{
    int r = open_old(s, w, err);
    if (r < 0 || w->resumed)
        return r;
    for (size_t i = 0; i < w->n_parts && r == 0; i++)
        r = create_one(s, w, work_parts[i], &w->part_fds[i], err);
    return r < 0 ? r : create_one(s, w, "journal", &w->journal_fd, err);
}

int store_work_open(struct store *s, const struct digest *key, size_t n_parts, struct store_work **ret,
                    struct qd_error *err)
{
    CLEANUP(free) struct store_work *w = calloc(1, sizeof *w);
    if (!w)
        return err_new(err, QD_E_NO_MEMORY, "a work");
    *w = (struct store_work){.key = *key, .n_parts = n_parts, .journal_fd = -1};
    for (size_t i = 0; i < STORE_PARTS_MAX; i++)
        w->part_fds[i] = -1;
    int r = work_note(s, key, err);
    if (r < 0)
        return r;
    r = open_files(s, w, err);
    if (r < 0) {
        (void)store_work_close(s,
                               steal(&w)); /* what was there stays; the half of a new pair is swept by the next open */
        return r;
    }
    *ret = steal(&w);
    return 0;
}

struct store_work *store_work_close(struct store *s, struct store_work *w)
{
    if (!w)
        return NULL;
    close_files(w);
    work_forget(s, &w->key);
    free(w);
    return NULL;
}

struct store_work *store_work_discard(struct store *s, struct store_work *w)
{
    if (w)
        work_unlink(s, &w->key);
    return store_work_close(s, w);
}

/* --- Sweeping --- */

struct work_list {
    struct digest *keys; /* owned */
    size_t n;
};

/* Collects the key of every *.part. */
static int collect(struct store *s, const char *name, void *data)
{
    (void)s;
    struct work_list *list = data;
    struct digest key;
    const char *suffix;
    if (!work_name_parse(name, &key, &suffix) || strcmp(suffix, "part") != 0)
        return 0;
    struct digest *grown = realloc(list->keys, (list->n + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    list->keys = grown;
    list->keys[list->n++] = key;
    return 0;
}

/* Removes the work of @key unless somebody opened it; with the lock, so that nobody does meanwhile. */
static bool sweep_one(struct store *s, const struct digest *key)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (work_is_open(s, key))
        return false;
    work_unlink(s, key);
    return true;
}

int store_work_sweep(struct store *s, bool (*wanted)(const struct digest *key, void *data), void *data,
                     struct qd_error *err)
{
    struct work_list list = {0};
    int n_swept = 0, r = folder_each(s->work, collect, s, &list);
    CLEANUP(free) struct digest *keys = list.keys;
    if (r < 0)
        return err_sys(err, -r, "read the folder of unfinished work");
    for (size_t i = 0; i < list.n; i++)
        if (!wanted(&keys[i], data))
            n_swept += sweep_one(s, &keys[i]);
    return n_swept;
}

static bool file_exists(int folder, const char *name, struct stat *ret)
{
    return fstatat(folder, name, ret, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(ret->st_mode);
}

/* Both files of a job that is not finished and not too old. */
static bool worth_keeping(struct store *s, const struct digest *key)
{
    char part[WORK_NAME_BYTES], journal[WORK_NAME_BYTES];
    struct stat p, j;
    work_name(key, "part", part);
    work_name(key, "journal", journal);
    uint64_t age_s = s->options.work_age_s ? s->options.work_age_s : WEEK_S;
    if (!file_exists(s->work, part, &p) || !file_exists(s->work, journal, &j) || index_find(s, key))
        return false;
    time_t newest = p.st_mtime > j.st_mtime ? p.st_mtime : j.st_mtime;
    return (uint64_t)time(NULL) < (uint64_t)newest + age_s;
}

static bool is_work_suffix(const char *suffix)
{
    bool is = strcmp(suffix, "journal") == 0;
    for (size_t i = 0; i < STORE_PARTS_MAX; i++)
        is = is || strcmp(suffix, work_parts[i]) == 0;
    return is;
}

static int sweep_name(struct store *s, const char *name, void *data)
{
    struct store_report *report = data;
    struct digest key;
    const char *suffix = "";
    bool known = work_name_parse(name, &key, &suffix) && is_work_suffix(suffix);
    if (known && worth_keeping(s, &key)) {
        report->n_work += strcmp(suffix, "part") == 0;
        return 0;
    }
    if (s->io->unlink(s->io->data, s->work, name) == 0)
        *(known ? &report->n_swept_work : &report->n_swept_tmp) += 1;
    return 0;
}

void work_sweep_start(struct store *s, struct store_report *report)
{
    (void)folder_each(s->work, sweep_name, s, report); /* what cannot be listed stays until the next start */
}
