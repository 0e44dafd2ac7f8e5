#include "cache/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cache/verity.h"
#include "kernels/core/checked.h"
#include "kernels/core/io.h"

void object_name(const struct digest *d, char dst[OBJECT_NAME_BYTES])
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(d, hex);
    (void)snprintf(dst, OBJECT_NAME_BYTES, "%.2s/%s", hex, hex + 2); /* fits */
}

static int open_to_read(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

int object_open(const struct store *s, const struct digest *d)
{
    char name[OBJECT_NAME_BYTES];
    object_name(d, name);
    return open_to_read(s->objects, name);
}

/* --- Stamps and records --- */

static uint64_t stat_ns(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000 + (uint64_t)t->tv_nsec;
}

static struct stamp object_stamp_of(const struct stat *st)
{
    return (struct stamp){st->st_ino, (uint64_t)st->st_size, stat_ns(&st->st_mtim), stat_ns(&st->st_ctim)};
}

bool object_stamp_equal(const struct stamp *a, const struct stamp *b)
{
    return a->ino == b->ino && a->bytes == b->bytes && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

int stamp_of_fd(const struct store *s, int fd, struct stamp *ret)
{
    struct stat st;
    int r = s->io->stat(s->io->data, fd, &st);
    if (r < 0)
        return r;
    *ret = object_stamp_of(&st);
    return S_ISREG(st.st_mode) ? 0 : -EISDIR;
}

int stamp_of_ref(const struct store *s, const struct digest *key, struct stamp *ret)
{
    char name[REF_NAME_BYTES];
    struct stat st;
    digest_hex(key, name);
    int r = s->io->stat_at(s->io->data, s->refs, name, &st);
    if (r == 0)
        *ret = object_stamp_of(&st);
    return r;
}

/* Magic, four u64 a file, digest of all before: docs/formats/store.md. */
static const char record_magic[16] = "quantd record 1";

int stamps_write(struct store *s, const struct artifact *a, bool durable, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    buffer_put(&b, record_magic, sizeof record_magic);
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        const struct stamp *t = &a->stamps[i];
        buffer_put_u64(&b, t->ino);
        buffer_put_u64(&b, t->bytes);
        buffer_put_u64(&b, t->mtime_ns);
        buffer_put_u64(&b, t->ctime_ns);
    }
    struct digest check;
    int r =
        b.failed ? err_new(err, QD_E_NO_MEMORY, "a record") : digest_message("record", buffer_span(&b), &check, err);
    if (r < 0)
        return r;
    buffer_put(&b, check.bytes, DIGEST_BYTES);
    if (b.failed)
        return err_new(err, QD_E_NO_MEMORY, "a record");
    char name[REF_NAME_BYTES];
    digest_hex(&a->manifest.key, name);
    return file_put(s, s->records, name, buffer_span(&b), 0, durable, err);
}

bool stamps_read(const struct store *s, const struct digest *key, struct stamp *stamps, size_t n)
{
    char name[REF_NAME_BYTES];
    digest_hex(key, name);
    CLEANUP(buffer_clear) struct buffer b = {0};
    size_t body = sizeof record_magic + n * 4 * sizeof(uint64_t);
    if (file_read(s->records, name, body + DIGEST_BYTES, &b, NULL) < 0 || b.n != body + DIGEST_BYTES)
        return false;
    struct digest check;
    if (digest_message("record", (struct bytes){b.data, body}, &check, NULL) < 0 ||
        memcmp(check.bytes, b.data + body, DIGEST_BYTES) != 0 || memcmp(b.data, record_magic, sizeof record_magic) != 0)
        return false;
    struct cursor c = cursor_over(buffer_span(&b));
    (void)cursor_take(&c, sizeof record_magic); /* compared above */
    for (size_t i = 0; i < n; i++) {
        stamps[i].ino = cursor_u64(&c);
        stamps[i].bytes = cursor_u64(&c);
        stamps[i].mtime_ns = cursor_u64(&c);
        stamps[i].ctime_ns = cursor_u64(&c);
    }
    return true;
}

/* --- Small files --- */

static int put_data(struct store *s, int fd, struct bytes data, bool durable)
{
    int r = s->io->write(s->io->data, fd, data.data, data.n);
    return r == 0 && durable ? s->io->sync(s->io->data, fd) : r;
}

int file_put(struct store *s, int folder, const char *name, struct bytes data, unsigned flags, bool durable,
             struct qd_error *err)
{
    char tmp[DIGEST_HEX_BYTES + 8];
    (void)snprintf(tmp, sizeof tmp, ".tmp-%s", name); /* names here are digests */
    CLEANUP(fd_close) int fd = s->io->create(s->io->data, folder, tmp, 0600);
    if (fd == -EEXIST && unlinkat(folder, tmp, 0) == 0) /* left by a failure before */
        fd = s->io->create(s->io->data, folder, tmp, 0600);
    if (fd < 0)
        return err_sys(err, -fd, "create '%s'", tmp);
    int r = put_data(s, fd, data, durable);
    if (r == 0)
        r = s->io->rename(s->io->data, folder, tmp, folder, name, flags);
    if (r < 0) {
        (void)s->io->unlink(s->io->data, folder, tmp); /* the error is the one above; start-up sweeps */
        return err_sys(err, -r, "write '%s'", name);
    }
    r = durable ? s->io->sync(s->io->data, folder) : 0;
    if (r == 0)
        return 0;
    if (flags & RENAME_NOREPLACE)
        (void)s->io->unlink(s->io->data, folder, name); /* not committed after all */
    return err_sys(err, -r, "sync the folder of '%s'", name);
}

int file_read(int folder, const char *name, size_t max_bytes, struct buffer *dst, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = open_to_read(folder, name);
    if (fd < 0)
        return err_sys(err, -fd, "open '%s'", name);
    CLEANUP(free) uint8_t *data = malloc(max_bytes + 1);
    if (!data)
        return err_new(err, QD_E_NO_MEMORY, "read '%s'", name);
    ssize_t n = pread_whole(fd, data, max_bytes + 1, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read '%s'", name);
    if ((size_t)n > max_bytes)
        return err_new(err, QD_E_CORRUPT, "'%s' is longer than %zu bytes", name, max_bytes);
    buffer_put(dst, data, (size_t)n);
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "read '%s'", name) : 0;
}

static DIR *closedir_null(DIR *d)
{
    (void)closedir(d); /* it was only read */
    return NULL;
}
DEFINE_CLEANUP(closedir_null, DIR *)

int folder_each(int folder, int (*each)(struct store *s, const char *name, void *data), struct store *s, void *data)
{
    CLEANUP(fd_close) int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_null) DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    (void)steal_fd(&fd); /* the DIR owns it */
    int r = 0;
    for (struct dirent *e; r == 0 && (errno = 0, e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = each(s, e->d_name, data);
    return r ? r : -errno;
}

struct folder_sum {
    int folder;
    uint64_t bytes;
};

static int add_file_bytes(struct store *s, const char *name, void *data)
{
    (void)s;
    struct folder_sum *sum = data;
    struct stat st;
    if (fstatat(sum->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        sum->bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

uint64_t folder_bytes(int folder)
{
    struct folder_sum sum = {.folder = folder};
    (void)folder_each(folder, add_file_bytes, NULL, &sum); /* an unreadable folder counts as empty */
    return sum.bytes;
}

/* --- Objects --- */

int object_check(int fd, const struct manifest_file *f, const _Atomic int *cancel, _Atomic uint64_t *done,
                 struct qd_error *err)
{
    struct digest d;
    int r = digest_file(fd, f->bytes, 1, &d, NULL, cancel, done, err);
    if (r == QD_E_SOURCE_CHANGED)
        return err_new(err, QD_E_CORRUPT, "'%s' has another size than its manifest says", f->name);
    if (r == QD_E_IO) /* the disk cannot give it back: as good as gone */
        return err_new(err, QD_E_CORRUPT, "'%s' cannot be read any more", f->name);
    if (r < 0)
        return err_in(err, r, "'%s'", f->name);
    return digest_equal(&d, &f->digest)
               ? 0
               : err_new(err, QD_E_CORRUPT, "'%s' has another content than its manifest says", f->name);
}

static int sync_folder_of(struct store *s, const char *object, struct qd_error *err)
{
    char sub[3] = {object[0], object[1], 0};
    CLEANUP(fd_close) int fd = openat(s->objects, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "open objects/%s", sub);
    int r = s->io->sync(s->io->data, fd);
    return r < 0 ? err_sys(err, -r, "sync objects/%s", sub) : 0;
}

static int make_folder_of(struct store *s, const char *object, struct qd_error *err)
{
    char sub[3] = {object[0], object[1], 0};
    int r = s->io->mkdir(s->io->data, s->objects, sub);
    if (r < 0 && r != -EEXIST)
        return err_sys(err, -r, "make objects/%s", sub);
    /* An older one may be there and not synced yet: whoever made it has failed since. */
    r = s->io->sync(s->io->data, s->objects);
    return r < 0 ? err_sys(err, -r, "sync objects") : 0;
}

/* An object of that name is there: 0 when it is good and safe on disk, 1 when it was bad and is in quarantine now. */
static int reuse(struct store *s, const char *object, const struct digest *d, uint64_t bytes, struct qd_error *err)
{
    const struct manifest_file expected = {.name = object, .bytes = bytes, .digest = *d};
    CLEANUP(fd_close) int fd = open_to_read(s->objects, object);
    int r = fd < 0 ? QD_E_CORRUPT : object_check(fd, &expected, NULL, NULL, err);
    if (r == 0) {
        r = s->io->sync(s->io->data, fd);
        return r < 0 ? err_sys(err, -r, "sync object %s", object) : 0;
    }
    if (r != QD_E_CORRUPT)
        return r;
    char name[DIGEST_HEX_BYTES];
    digest_hex(d, name);
    r = s->io->rename(s->io->data, s->objects, object, s->quarantine, name, 0);
    return r < 0 ? err_sys(err, -r, "move bad object %s to quarantine", object) : 1;
}

int object_place(struct store *s, const char *name, const struct digest *d, uint64_t bytes, bool *ret_made,
                 struct qd_error *err)
{
    char object[OBJECT_NAME_BYTES];
    object_name(d, object);
    int r = make_folder_of(s, object, err);
    if (r < 0)
        return r;
    bool made = true;
    r = s->io->link(s->io->data, s->work, name, s->objects, object);
    if (r == -EEXIST) {
        r = reuse(s, object, d, bytes, err);
        if (r < 0)
            return r;
        made = r == 1;
        r = made ? s->io->link(s->io->data, s->work, name, s->objects, object) : 0;
    }
    if (r < 0)
        return err_sys(err, -r, "link object %s", object);
    *ret_made = made; /* from here on the caller can take it back */
    r = s->io->unlink(s->io->data, s->work, name);
    if (r < 0)
        return err_sys(err, -r, "unlink work/%s", name);
    return sync_folder_of(s, object, err);
}

static bool is_referenced(const struct store *s, const struct digest *d)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t f = 0; f < s->artifacts[i]->manifest.n_files; f++)
            if (digest_equal(&s->artifacts[i]->manifest.files[f].digest, d))
                return true;
    return false;
}

/* --- Ghosts: removed, still open or mapped somewhere --- */

/*
 * A write lease is granted only when nobody else has the file open (fcntl(2)). It is given back at
 * once; should somebody open the file in that moment, the kernel's notice is a signal that is
 * ignored by default, instead of SIGIO, which kills.
 */
bool object_in_use(int fd)
{
    (void)fcntl(fd, F_SETSIG, SIGURG); /* a file system without leases fails below too */
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return errno == EAGAIN;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    return false;
}

void ghosts_poll(struct store *s)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    for (size_t i = s->n_ghosts; i-- > 0;) {
        if (object_in_use(s->ghosts[i].fd))
            continue;
        (void)fd_close(s->ghosts[i].fd);
        s->ghosts[i] = s->ghosts[--s->n_ghosts];
    }
}

uint64_t ghost_bytes(const struct store *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->n_ghosts; i++)
        sum += s->ghosts[i].bytes;
    return sum;
}

static void remember_ghost(struct store *s, int fd, uint64_t bytes)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (s->n_ghosts < GHOSTS_MAX)
        s->ghosts[s->n_ghosts++] = (struct ghost){fd, bytes};
    else
        (void)fd_close(fd);
}

static uint64_t object_drop(struct store *s, const struct manifest_file *f)
{
    char object[OBJECT_NAME_BYTES];
    object_name(&f->digest, object);
    CLEANUP(fd_close) int fd = open_to_read(s->objects, object);
    if (s->io->unlink(s->io->data, s->objects, object) < 0)
        return 0; /* start-up sweeps what nothing references */
    if (fd >= 0 && object_in_use(fd))
        remember_ghost(s, steal_fd(&fd), f->bytes);
    return f->bytes;
}

uint64_t objects_drop(struct store *s, const struct artifact *a)
{
    uint64_t dropped = 0;
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        bool needed;
        {
            CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
            needed = is_referenced(s, &a->manifest.files[i].digest);
        }
        if (!needed)
            dropped += object_drop(s, &a->manifest.files[i]);
    }
    return dropped;
}

/* --- Quarantine --- */

void quarantine_ref(struct store *s, const char *name)
{
    char to[300];
    (void)snprintf(to, sizeof to, "%.250s.ref", name);
    if (s->io->rename(s->io->data, s->refs, name, s->quarantine, to, 0) < 0)
        (void)s->io->unlink(s->io->data, s->refs, name); /* a damaged ref must not stay */
}

/*
 * The object of that name was verified for an artifact that is served: a commit has put a good one in the place of the
 * bad.
 */
static bool is_vouched_for(struct store *s, const struct digest *d)
{
    struct stamp now;
    CLEANUP(fd_close) int fd = object_open(s, d);
    if (fd < 0 || stamp_of_fd(s, fd, &now) < 0)
        return false;
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    for (size_t i = 0; i < s->n; i++) {
        const struct artifact *a = s->artifacts[i];
        for (size_t f = 0; f < a->manifest.n_files; f++)
            if (digest_equal(&a->manifest.files[f].digest, d) && object_stamp_equal(&a->stamps[f], &now))
                return true;
    }
    return false;
}

static void quarantine_object(struct store *s, const struct digest *d)
{
    char object[OBJECT_NAME_BYTES], name[DIGEST_HEX_BYTES];
    if (is_vouched_for(s, d))
        return;
    object_name(d, object);
    digest_hex(d, name);
    (void)s->io->rename(s->io->data, s->objects, object, s->quarantine, name, 0); /* it may be gone already */
}

static void bury(struct store *s, const struct artifact *a)
{
    char name[REF_NAME_BYTES];
    digest_hex(&a->manifest.key, name);
    quarantine_ref(s, name);
    (void)s->io->sync(s->io->data, s->refs); /* should it come back, start-up finds it damaged again */
    (void)s->io->unlink(s->io->data, s->records, name);
    for (size_t i = 0; i < a->manifest.n_files; i++)
        if (a->bad[i])
            quarantine_object(s, &a->manifest.files[i].digest);
    (void)objects_drop(s, a);
}

void bury_condemned(struct store *s)
{
    for (;;) {
        struct artifact *a;
        {
            CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
            if (s->n_condemned == 0)
                return;
            a = s->condemned[--s->n_condemned];
            if (a->n_holds++ == 0)
                artifact_close_fds(s, a); /* or we would be the user that keeps its ghosts */
            a->kept = false;
        }
        bury(s, a);
        artifact_let_go(s, a);
    }
}
