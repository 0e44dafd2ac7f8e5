#include "cache/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

enum { DEFAULT_MAX_OPEN = 64 };

static const char format_text[] = "quantd store 1\n";

/* --- Folders --- */

static int folder_open(struct store *s, const char *name, int *ret, struct qd_error *err)
{
    int r = s->io->mkdir(s->io->data, s->root, name);
    if (r < 0 && r != -EEXIST)
        return err_sys(err, -r, "make '%s'", name);
    *ret = openat(s->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return *ret < 0 ? err_sys(err, errno, "open '%s'", name) : 0;
}

static int open_folders(struct store *s, struct qd_error *err)
{
    const struct {
        const char *name;
        int *fd;
    } folders[] = {{"objects", &s->objects}, {"refs", &s->refs}, {"records", &s->records},      {"pins", &s->pins},
                   {"used", &s->used},       {"work", &s->work}, {"quarantine", &s->quarantine}};
    int r = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && r == 0; i++)
        r = folder_open(s, folders[i].name, folders[i].fd, err);
    if (r == 0 && (r = s->io->sync(s->io->data, s->root)) < 0)
        r = err_sys(err, -r, "sync the folder");
    return r;
}

static int check_format(struct store *s, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer text = {0};
    int r = file_read(s->root, "format", 4096, &text, err);
    if (r == QD_E_NOT_FOUND || (r == 0 && text.n == 0)) /* new, or killed while it was made */
        return file_put(s, s->root, "format", (struct bytes){(const uint8_t *)format_text, sizeof format_text - 1}, 0,
                        true, err);
    if (r < 0)
        return r;
    if (text.n != sizeof format_text - 1 || memcmp(text.data, format_text, text.n) != 0)
        return err_new(err, QD_E_UNSUPPORTED,
                       "its format is not \"quantd store 1\": another version of quantd made it");
    return 0;
}

static int open_root(struct store *s, struct qd_error *err)
{
    if (mkdir(s->options.folder, 0700) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make the folder");
    s->root = open(s->options.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->root < 0)
        return err_sys(err, errno, "open the folder");
    s->lock_fd = openat(s->root, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        return err_sys(err, errno, "open its lock");
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? err_new(err, QD_E_BUSY, "another quantd has it open")
                                    : err_sys(err, errno, "lock it");
    return 0;
}

/* --- Refs --- */

static int read_ref(struct store *s, const char *name, struct artifact **ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    CLEANUP(artifact_free) struct artifact *a = NULL;
    struct digest key;
    if (!digest_parse(name, &key))
        return err_new(err, QD_E_CORRUPT, "ref '%s' is not named by a key", name);
    int r = file_read(s->refs, name, ENVELOPE_BYTES_MAX, &raw, err);
    if (r == 0)
        r = artifact_parse(&raw, &a, err);
    if (r == 0 && !digest_equal(&a->manifest.key, &key))
        r = err_new(err, QD_E_CORRUPT, "ref '%s' holds another key", name);
    if (r == 0)
        r = artifact_judge(a, s->keyring, err);
    int stamped = r == 0 ? stamp_of_ref(s, &key, &a->ref) : 0;
    if (stamped < 0)
        r = err_sys(err, -stamped, "stat ref '%s'", name);
    if (r == 0)
        *ret = steal(&a);
    return r;
}

static int load_ref(struct store *s, const char *name, void *data)
{
    struct store_report *report = data;
    CLEANUP(artifact_free) struct artifact *a = NULL;
    if (strncmp(name, ".tmp-", 5) == 0) {
        report->n_swept_tmp += s->io->unlink(s->io->data, s->refs, name) == 0;
        return 0;
    }
    int r = read_ref(s, name, &a, NULL);
    if (r == QD_E_NO_MEMORY || r == QD_E_SYSTEM) /* our trouble, not the ref's */
        return r;
    if (r == QD_E_CORRUPT) {
        quarantine_ref(s, name);
        report->n_quarantined++;
        return 0;
    }
    if (r < 0) { /* of a newer quantd, or not readable today: no proof of damage */
        s->n_unread++;
        report->n_unread++;
        return 0;
    }
    r = index_insert(s, a, NULL);
    if (r == 0)
        a = NULL; /* the index has it */
    return r;
}

/* --- Objects of each ref --- */

/* Positive: it is not as the record says, so its contents were hashed; they are fine. */
static int check_object(struct store *s, struct artifact *a, size_t i, const struct stamp *recorded,
                        struct qd_error *err)
{
    const struct manifest_file *f = &a->manifest.files[i];
    CLEANUP(fd_close) int fd = object_open(s, &f->digest);
    if (fd < 0)
        return fd == -ENOENT ? err_new(err, QD_E_CORRUPT, "'%s' is missing", f->name)
                             : err_sys(err, -fd, "open '%s'", f->name);
    int r = stamp_of_fd(s, fd, &a->stamps[i]);
    if (r < 0)
        return err_new(err, QD_E_CORRUPT, "'%s' is no file", f->name);
    if (recorded && object_stamp_equal(&a->stamps[i], recorded) && recorded->bytes == f->bytes)
        return 0;
    r = object_check(fd, f, NULL, NULL, err);
    a->bad[i] = r == QD_E_CORRUPT;
    return r < 0 ? r : 1;
}

/* QD_E_CORRUPT: the artifact is not to be served. */
static int check_artifact(struct store *s, struct artifact *a, struct store_report *report)
{
    struct stamp recorded[MANIFEST_FILES_MAX];
    bool known = stamps_read(s, &a->manifest.key, recorded, a->manifest.n_files);
    bool rehashed = false;
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        int r = check_object(s, a, i, known ? &recorded[i] : NULL, NULL);
        if (r < 0)
            return r;
        rehashed |= r > 0;
    }
    report->n_rehashed += rehashed;
    if (rehashed)
        (void)stamps_write(s, a, false, NULL); /* without it the next start hashes again */
    return 0;
}

static int check_artifacts(struct store *s, struct store_report *report, struct qd_error *err)
{
    for (size_t i = s->n; i-- > 0;) {
        struct artifact *a = s->artifacts[i];
        int r = check_artifact(s, a, report);
        if (r == QD_E_CORRUPT) {
            index_condemn(s, a);
            report->n_quarantined++;
            continue;
        }
        if (r < 0)
            return err_new(err, r, "the files of model '%s', %s cannot be examined", a->manifest.model,
                           a->manifest.scheme);
        report->n_untrusted += !a->trusted;
        report->bytes += a->bytes;
        report->n_artifacts++;
    }
    bury_condemned(s);
    return 0;
}

/* --- Sweeping objects --- */

struct object_sweep {
    const struct digest **known; /* owned; sorted */
    size_t n;
    int sub_fd; /* objects/ab */
    char sub[3];
    struct store_report *report;
};

static int by_bytes(const void *x, const void *y)
{
    return memcmp((*(const struct digest *const *)x)->bytes, (*(const struct digest *const *)y)->bytes, DIGEST_BYTES);
}

static int list_known(struct store *s, struct object_sweep *sweep)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->artifacts[i]->manifest.n_files;
    sweep->known = malloc((n + 1) * sizeof *sweep->known);
    if (!sweep->known)
        return QD_E_NO_MEMORY;
    for (size_t i = 0; i < s->n; i++)
        for (size_t f = 0; f < s->artifacts[i]->manifest.n_files; f++)
            sweep->known[sweep->n++] = &s->artifacts[i]->manifest.files[f].digest;
    qsort(sweep->known, sweep->n, sizeof *sweep->known, by_bytes);
    return 0;
}

static int sweep_object(struct store *s, const char *name, void *data)
{
    struct object_sweep *sweep = data;
    char hex[300];
    struct digest d;
    const struct digest *wanted = &d;
    (void)snprintf(hex, sizeof hex, "%s%s", sweep->sub, name); /* names are at most 255 bytes */
    if (digest_parse(hex, &d) && bsearch(&wanted, sweep->known, sweep->n, sizeof *sweep->known, by_bytes))
        return 0;
    sweep->report->n_swept_objects += s->io->unlink(s->io->data, sweep->sub_fd, name) == 0;
    return 0;
}

static int sweep_sub(struct store *s, const char *name, void *data)
{
    struct object_sweep *sweep = data;
    if (strlen(name) != 2)
        return 0; /* not ours */
    CLEANUP(fd_close) int fd = openat(s->objects, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    memcpy(sweep->sub, name, 3);
    sweep->sub_fd = fd;
    return folder_each(fd, sweep_object, s, sweep);
}

static int sweep_objects(struct store *s, struct store_report *report)
{
    struct object_sweep sweep = {.report = report};
    if (s->n_unread)
        return 0; /* whose objects are theirs is not known */
    int r = list_known(s, &sweep);
    if (r == 0)
        (void)folder_each(s->objects, sweep_sub, s, &sweep); /* what cannot be listed stays until the next start */
    free(sweep.known);
    return r;
}

/* --- Pins, last use, records of artifacts that are gone --- */

static int load_pin(struct store *s, const char *name, void *data)
{
    (void)data;
    struct digest key;
    struct artifact *a = digest_parse(name, &key) ? index_find(s, &key) : NULL;
    if (a)
        a->pinned = true; /* a pin without artifact waits for it: it may be built again */
    return 0;
}

static int load_use(struct store *s, const char *name, void *data)
{
    (void)data;
    struct digest key;
    struct stat st;
    struct artifact *a = digest_parse(name, &key) ? index_find(s, &key) : NULL;
    if (!a && !s->n_unread)
        (void)s->io->unlink(s->io->data, s->used, name); /* the next start tries again */
    else if (a && fstatat(s->used, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime > 0)
        a->last_use_s = (uint64_t)st.st_mtime;
    return 0;
}

static int sweep_record(struct store *s, const char *name, void *data)
{
    struct store_report *report = data;
    struct digest key;
    if (!digest_parse(name, &key))
        report->n_swept_tmp += s->io->unlink(s->io->data, s->records, name) == 0;
    else if (!s->n_unread && !index_find(s, &key))
        (void)s->io->unlink(s->io->data, s->records, name); /* the next start tries again */
    return 0;
}

/* --- Opening and closing --- */

/* Work goes before the objects are looked at: a leftover link to one, unlinked, moves its ctime. */
static int start_up(struct store *s, struct store_report *report, struct qd_error *err)
{
    int r = folder_each(s->refs, load_ref, s, report);
    if (r < 0)
        return err_new(err, r == -EIO ? QD_E_IO : QD_E_SYSTEM, "its refs cannot be read");
    work_sweep_start(s, report);
    r = check_artifacts(s, report, err);
    if (r == 0 && sweep_objects(s, report) < 0)
        r = err_new(err, QD_E_NO_MEMORY, "sweep objects");
    if (r < 0)
        return r;
    (void)folder_each(s->records, sweep_record, s, report); /* an index: what stays costs nothing */
    (void)folder_each(s->used, load_use, s, NULL);
    return folder_each(s->pins, load_pin, s, NULL) < 0 ? err_new(err, QD_E_IO, "its pins cannot be read") : 0;
}

static struct store *store_new(const struct store_options *o)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->options = *o;
    s->io = o->io ? o->io : &store_io_real;
    if (!s->options.max_open)
        s->options.max_open = DEFAULT_MAX_OPEN;
    s->root = s->lock_fd = s->objects = s->refs = s->records = s->pins = s->used = s->work = s->quarantine = -1;
    (void)pthread_mutex_init(&s->writer, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_mutex_init(&s->lock, NULL);
    s->options.folder = strdup(o->folder);
    return s;
}

static struct store *store_free(struct store *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n; i++)
        artifact_free(s->artifacts[i]);
    for (size_t i = 0; i < s->n_condemned; i++)
        artifact_free(s->condemned[i]);
    for (size_t i = 0; i < s->n_ghosts; i++)
        (void)fd_close(s->ghosts[i].fd);
    const int fds[] = {s->objects, s->refs, s->records, s->pins, s->used, s->work, s->quarantine, s->lock_fd, s->root};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        (void)fd_close(fds[i]);
    (void)pthread_mutex_destroy(&s->writer); /* nobody holds it: the owner closes last */
    (void)pthread_mutex_destroy(&s->lock);
    free(s->artifacts);
    free(s->condemned);
    free(s->open_works);
    free((char *)s->options.folder);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(store_free, struct store *)

int store_open(const struct store_options *o, struct store **ret, struct store_report *ret_report, struct qd_error *err)
{
    CLEANUP(store_free) struct store *s = store_new(o);
    struct store_report report = {0};
    if (!s || !s->options.folder || sodium_init() < 0)
        return err_new(err, QD_E_NO_MEMORY, "the cache in '%s'", o->folder);
    s->keyring = o->keyring;
    int r = open_root(s, err);
    if (r == 0)
        r = check_format(s, err);
    if (r == 0)
        r = open_folders(s, err);
    if (r == 0)
        r = start_up(s, &report, err);
    if (r < 0)
        return err_in(err, r, "cache '%s'", o->folder);
    if (ret_report)
        *ret_report = report;
    *ret = steal(&s);
    return 0;
}

struct store *store_close(struct store *s)
{
    if (!s)
        return NULL;
    store_touch(s);
    keyring_free(s->keyring); /* ours since store_open succeeded */
    return store_free(s);
}
