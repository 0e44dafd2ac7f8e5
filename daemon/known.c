#include "daemon/known.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/catalog.h"
#include "daemon/stamp.h"

enum { KNOWN_MAX = 4096 }; /* models remembered; the oldest go first */

struct entry {
    struct file_stamp first;
    uint64_t calibration;
    struct source_file_id *files; /* owned, and the texts in it; bytes and digests as they were asked for last */
    size_t n_files;
    bool has_identity;
    struct digest identity; /* of @files as they stand there */
    struct entry *next;     /* newest first */
};

struct known {
    FILE *file; /* owned; NULL: nothing is kept across restarts */
    struct entry *entries;
    size_t n;
};

static struct entry *entry_free(struct entry *e)
{
    for (size_t i = 0; e && i < e->n_files; i++) {
        free((char *)(uintptr_t)e->files[i].role);
        free((char *)(uintptr_t)e->files[i].name);
    }
    if (e)
        free(e->files);
    free(e);
    return NULL;
}
DEFINE_CLEANUP(entry_free, struct entry *)

static struct entry *entry_new(const struct file_stamp *first, uint64_t calibration, const struct source_file_id *files,
                               size_t n)
{
    CLEANUP(entry_free) struct entry *e = calloc(1, sizeof *e);
    if (!e || !(e->files = calloc(n, sizeof *e->files)))
        return NULL;
    e->first = *first;
    e->calibration = calibration;
    for (e->n_files = 0; e->n_files < n;) {
        struct source_file_id *f = &e->files[e->n_files++];
        f->role = strdup(files[e->n_files - 1].role);
        f->name = strdup(files[e->n_files - 1].name);
        if (!f->role || !f->name)
            return NULL;
    }
    return steal(&e);
}

static struct entry **find(struct known *k, const struct file_stamp *first)
{
    struct entry **at = &k->entries;
    while (*at && !stamp_same_file(&(*at)->first, first))
        at = &(*at)->next;
    return at;
}

/* The newest of a file replaces the older ones. */
static void insert(struct known *k, struct entry *e)
{
    struct entry **old = find(k, &e->first);
    if (!*old && k->n >= KNOWN_MAX)
        for (old = &k->entries; (*old)->next; old = &(*old)->next)
            ;
    if (*old) {
        struct entry *gone = *old;
        *old = gone->next;
        (void)entry_free(gone); /* returns NULL by convention */
        k->n--;
    }
    e->next = k->entries;
    k->entries = e;
    k->n++;
}

/* ---- on disk: a line per source: stamp, calibration, then role and name of each file, separated by tabs */

static bool writable(const struct entry *e)
{
    for (size_t i = 0; i < e->n_files; i++)
        if (strpbrk(e->files[i].role, "\t\n") || strpbrk(e->files[i].name, "\t\n"))
            return false;
    return true;
}

static void write_entry(FILE *f, const struct entry *e)
{
    char stamp[STAMP_TEXT_MAX];
    if (!f || !writable(e))
        return;
    stamp_text(&e->first, stamp);
    (void)fprintf(f, "%s\t%" PRIx64, stamp, e->calibration); /* a lost line costs a probe */
    for (size_t i = 0; i < e->n_files; i++)
        (void)fprintf(f, "\t%s\t%s", e->files[i].role, e->files[i].name);
    (void)fputc('\n', f);
    (void)fflush(f);
}

static void read_line(struct known *k, char *line)
{
    struct source_file_id files[SOURCE_FILES_MAX];
    struct file_stamp first;
    size_t n = 0;
    char *at = line, *stamp = strsep(&at, "\t"), *calibration = at ? strsep(&at, "\t") : NULL, *end = NULL;
    if (!calibration || !stamp_parse(stamp, &first))
        return;
    const uint64_t print = strtoull(calibration, &end, 16);
    if (*end || end == calibration)
        return;
    while (at && n < SOURCE_FILES_MAX) {
        files[n].role = strsep(&at, "\t");
        if (!at)
            return;
        files[n++].name = strsep(&at, "\t");
    }
    struct entry *e = n > 0 && !at ? entry_new(&first, print, files, n) : NULL;
    if (e)
        insert(k, e);
}

static void read_all(struct known *k, FILE *f)
{
    CLEANUP(free) char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, f)) > 0;)
        if (line[n - 1] == '\n') {
            line[n - 1] = '\0';
            read_line(k, line);
        }
}

static void write_oldest_first(FILE *f, const struct entry *e)
{
    const struct entry *all[KNOWN_MAX];
    size_t n = 0;
    for (; e && n < KNOWN_MAX; e = e->next)
        all[n++] = e;
    while (n > 0)
        write_entry(f, all[--n]);
}

int known_open(const char *path, struct known **ret, struct qd_error *err)
{
    CLEANUP(free) struct known *k = calloc(1, sizeof *k);
    if (!k)
        return err_new(err, QD_E_NO_MEMORY, "known sources");
    FILE *old = fopen(path, "re");
    if (old) {
        read_all(k, old);
        (void)fclose(old); /* only read */
    }
    k->file = fopen(path, "we"); /* written anew: only what lives */
    if (!k->file) {
        int r = err_sys(err, errno, "open '%s'", path);
        (void)known_close(steal(&k)); /* returns NULL by convention */
        return r;
    }
    write_oldest_first(k->file, k->entries);
    *ret = steal(&k);
    return 0;
}

struct known *known_close(struct known *k)
{
    while (k && k->entries) {
        struct entry *e = k->entries;
        k->entries = e->next;
        (void)entry_free(e); /* returns NULL by convention */
    }
    if (k && k->file)
        (void)fclose(k->file); /* a lost line costs a probe */
    free(k);
    return NULL;
}

/* ---- use ------------------------------------------------------------------------------------------ */

int known_put(struct known *k, const struct stat *first, uint64_t calibration, const struct source_file_id *files,
              size_t n_files, struct qd_error *err)
{
    struct file_stamp stamp = stamp_of(first);
    struct entry *e = entry_new(&stamp, calibration, files, n_files);
    if (!e)
        return err_new(err, QD_E_NO_MEMORY, "known sources");
    insert(k, e);
    write_entry(k->file, e);
    return 0;
}

bool known_has(struct known *k, const struct file_stamp *first)
{
    const struct entry *e = *find(k, first);
    return e && stamp_equal(&e->first, first);
}

static int folder_of(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!slash)
        return -1;
    CLEANUP(free) char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    return folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
}

/* File @i is as @st says and its digest is known: into the list, whose identity holds while nothing in it changes. */
static bool digest_file_at(struct entry *e, size_t i, struct hints *hints, const struct stat *st)
{
    struct source_file_id *f = &e->files[i];
    struct digest d;
    if (!hint_get(hints, st, &d))
        return false;
    if (f->bytes != (uint64_t)st->st_size || !digest_equal(&f->digest, &d))
        e->has_identity = false;
    f->bytes = (uint64_t)st->st_size;
    f->digest = d;
    return true;
}

static bool digest_companions(struct entry *e, struct hints *hints, const char *path)
{
    CLEANUP(fd_close) int folder = e->n_files > 1 ? folder_of(path) : -1;
    for (size_t i = 1; i < e->n_files; i++) {
        struct stat st;
        if (folder < 0 || fstatat(folder, e->files[i].name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
            !digest_file_at(e, i, hints, &st))
            return false;
    }
    return true;
}

bool known_identity(struct known *k, struct hints *hints, const char *path, int fd, const struct file_stamp *is,
                    uint64_t calibration, struct digest *ret)
{
    struct stat st;
    if ((fd >= 0 ? fstat(fd, &st) : stat(path, &st)) < 0)
        return false;
    struct file_stamp stamp = stamp_of(&st);
    struct entry *e = *find(k, &stamp);
    if ((is && !stamp_equal(is, &stamp)) || !e || !stamp_equal(&e->first, &stamp) || e->calibration != calibration)
        return false;
    if (!digest_file_at(e, 0, hints, &st) || !digest_companions(e, hints, path))
        return false;
    if (!e->has_identity)
        e->has_identity = source_identity(e->files, e->n_files, &e->identity, NULL) == 0;
    if (e->has_identity)
        *ret = e->identity;
    return e->has_identity;
}
