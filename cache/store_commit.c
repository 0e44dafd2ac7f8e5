#include "cache/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "artifact/tables.h"
#include "cache/verity.h"
#include "kernels/core/io.h"

enum { TABLES_ARENA_BYTES = 512 << 20 }; /* a ceiling, not a reservation: a table of 256 MiB, decoded */

/* A commit under way: what is to be undone when it fails. */
struct commit {
    struct store *store;
    struct store_work *work;
    const struct store_commit *request;
    char part[WORK_NAME_BYTES];
    int fd;                /* owned; the part, O_RDONLY */
    struct digest *leaves; /* owned */
    struct manifest manifest;
    struct manifest_file files[MANIFEST_N_ROLES]; /* of it */
    bool made[MANIFEST_N_ROLES];                  /* objects that were not there before */
    bool sealed;                                  /* by fs-verity: cannot be written again */
};

/* --- The payload, before any lock: no writer left, size, digest, on disk --- */

static int open_part(struct commit *c, struct qd_error *err)
{
    struct store_work *w = c->work;
    w->part_fd = fd_close(w->part_fd);
    w->journal_fd = fd_close(w->journal_fd);
    c->fd = openat(c->store->work, c->part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (c->fd < 0)
        return err_sys(err, errno, "open work/%s", c->part);
    struct stat st;
    if (fstat(c->fd, &st) < 0)
        return err_sys(err, errno, "stat work/%s", c->part);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != c->request->payload_bytes)
        return err_new(err, QD_E_CORRUPT, "the job wrote %llu bytes, %llu were planned", (unsigned long long)st.st_size,
                       (unsigned long long)c->request->payload_bytes);
    return 0;
}

/*
 * A read lease is granted only while nobody has the file open or mapped for writing, and is broken
 * by the next one who tries (fcntl(2)): held while hashing, it proves that the digest is of
 * bytes that nobody was changing. File systems without leases (EINVAL) go without that proof. Its
 * signal is one that is ignored by default; SIGIO would kill.
 */
static int lease_take(int fd, struct qd_error *err)
{
    (void)fcntl(fd, F_SETSIG, SIGURG); /* cannot fail for a number that is a signal */
    if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
        return 0;
    if (errno == EAGAIN)
        return err_new(err, QD_E_BUSY, "somebody still has the job's file open for writing");
    return errno == EINVAL || errno == EOPNOTSUPP || errno == ENOLCK ? 1
                                                                     : err_sys(err, errno, "lease on the job's file");
}

static int lease_still_held(int fd, struct qd_error *err)
{
    return fcntl(fd, F_GETLEASE) == F_RDLCK
               ? 0
               : err_new(err, QD_E_BUSY, "the job's file was opened for writing while it was hashed");
}

static int hash_part(struct commit *c, struct qd_error *err)
{
    const struct store_commit *q = c->request;
    int leased = lease_take(c->fd, err);
    if (leased < 0)
        return leased;
    struct manifest_file *f = &c->manifest.files[0];
    int r = digest_file(c->fd, q->payload_bytes, q->n_threads, &f->digest, &c->leaves, q->cancel, q->done_bytes, err);
    if (r == 0 && leased == 0)
        r = lease_still_held(c->fd, err);
    if (leased == 0)
        (void)fcntl(c->fd, F_SETLEASE, F_UNLCK); /* held by nobody else: cannot fail */
    return r;
}

/* fs-verity comes last: it cannot be taken back. */
static int settle_part(struct commit *c, struct qd_error *err)
{
    const struct store_io *io = c->store->io;
    int r = io->chmod(io->data, c->fd, 0444);
    if (r == 0)
        r = io->sync(io->data, c->fd);
    if (r < 0)
        return err_sys(err, -r, "sync work/%s", c->part);
    struct manifest_file *f = &c->manifest.files[0];
    r = verity_enable(c->fd, err);
    if (r == 1) {
        c->sealed = true;
        r = verity_measure(c->fd, &f->verity, err);
    }
    f->has_verity = r == 1;
    return r < 0 ? r : 0;
}

/* --- What the worker reported --- */

static int check_tables(const struct store_commit *q, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *arena = arena_new(TABLES_ARENA_BYTES);
    struct tensor_table tensors;
    struct meta_table metadata;
    if (!arena)
        return err_new(err, QD_E_NO_MEMORY, "tables");
    int r = tensor_table_decode(q->tensors, &q->payload_bytes, 1, arena, &tensors, err);
    return r < 0 ? r : meta_table_decode(q->metadata, arena, &metadata, err);
}

/* The fourth file: leaves of the payload, 32 bytes each. */
static struct bytes blob_of(const struct commit *c, enum manifest_role role)
{
    switch (role) {
    case MANIFEST_TENSORS:
        return c->request->tensors;
    case MANIFEST_METADATA:
        return c->request->metadata;
    case MANIFEST_SHARDS:
        return (struct bytes){(const uint8_t *)c->leaves, shard_count(c->request->payload_bytes) * DIGEST_BYTES};
    case MANIFEST_PAYLOAD:
    case MANIFEST_N_ROLES:
        break;
    }
    return (struct bytes){0};
}

/* The manifest but for the payload's digest, which hash_part fills in. */
static void begin_manifest(struct commit *c)
{
    static const char *const names[] = {
        [MANIFEST_TENSORS] = "tensors", [MANIFEST_METADATA] = "metadata", [MANIFEST_SHARDS] = "shards"};
    struct manifest *m = &c->manifest;
    *m = *c->request->manifest;
    m->format = MANIFEST_FORMAT;
    m->key = c->work->key;
    m->created = (uint64_t)time(NULL);
    m->files = c->files;
    m->n_files = MANIFEST_N_ROLES;
    m->files[0] = (struct manifest_file){
        .role = MANIFEST_PAYLOAD, .name = c->request->payload_name, .bytes = c->request->payload_bytes};
    for (unsigned role = MANIFEST_TENSORS; role < MANIFEST_N_ROLES; role++)
        m->files[role] = (struct manifest_file){.role = (enum manifest_role)role, .name = names[role]};
}

static int digest_blobs(struct commit *c, struct qd_error *err)
{
    int r = 0;
    for (unsigned role = MANIFEST_TENSORS; role < MANIFEST_N_ROLES && r == 0; role++) {
        struct bytes blob = blob_of(c, (enum manifest_role)role);
        c->manifest.files[role].bytes = blob.n;
        r = digest_of_bytes(blob, &c->manifest.files[role].digest, err);
    }
    return r;
}

/* --- Into the store, `writer` held --- */

static int write_blob(struct store *s, const char *name, struct bytes blob, struct qd_error *err)
{
    const struct store_io *io = s->io;
    CLEANUP(fd_close) int fd = io->create(io->data, s->work, name, 0600);
    if (fd == -EEXIST && unlinkat(s->work, name, 0) == 0) /* left by a failure before */
        fd = io->create(io->data, s->work, name, 0600);
    if (fd < 0)
        return err_sys(err, -fd, "create work/%s", name);
    int r = io->write(io->data, fd, blob.data, blob.n);
    if (r == 0)
        r = io->chmod(io->data, fd, 0444);
    if (r == 0)
        r = io->sync(io->data, fd);
    return r < 0 ? err_sys(err, -r, "write work/%s", name) : 0;
}

static int place_blob(struct commit *c, unsigned role, struct qd_error *err)
{
    struct store *s = c->store;
    const struct manifest_file *f = &c->manifest.files[role];
    char name[WORK_NAME_BYTES];
    work_name(&c->work->key, f->name, name);
    int r = write_blob(s, name, blob_of(c, (enum manifest_role)role), err);
    if (r == 0)
        r = object_place(s, name, &f->digest, f->bytes, &c->made[role], err);
    if (r < 0)
        (void)s->io->unlink(s->io->data, s->work, name); /* it may be gone; start-up sweeps */
    return r;
}

/* Small files first: the payload is the one that is dear to take back. */
static int place_all(struct commit *c, struct qd_error *err)
{
    struct store *s = c->store;
    int r = 0;
    for (unsigned role = MANIFEST_TENSORS; role < MANIFEST_N_ROLES && r == 0; role++)
        r = place_blob(c, role, err);
    if (r == 0)
        r = object_place(s, c->part, &c->manifest.files[0].digest, c->manifest.files[0].bytes, &c->made[0], err);
    if (r < 0)
        return r;
    r = s->io->sync(s->io->data, s->work); /* the work's names are gone for good: ctimes are final */
    return r < 0 ? err_sys(err, -r, "sync work") : 0;
}

/* The job's file goes back to work/, writable, so that nothing is lost but the commit. */
static void take_back_part(struct commit *c, const char *object)
{
    const struct store_io *io = c->store->io;
    if (io->rename(io->data, c->store->objects, object, c->store->work, c->part, RENAME_NOREPLACE) < 0)
        (void)io->unlink(io->data, c->store->objects, object); /* the link to work/ was still there */
}

static void take_back(struct commit *c)
{
    const struct store_io *io = c->store->io;
    for (unsigned role = 0; role < MANIFEST_N_ROLES; role++) {
        char object[OBJECT_NAME_BYTES];
        object_name(&c->manifest.files[role].digest, object);
        if (c->made[role] && role == MANIFEST_PAYLOAD)
            take_back_part(c, object);
        else if (c->made[role])
            (void)io->unlink(io->data, c->store->objects, object); /* start-up sweeps what stays */
    }
}

static int stamp_files(struct store *s, struct artifact *a, struct qd_error *err)
{
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        const struct manifest_file *f = &a->manifest.files[i];
        CLEANUP(fd_close) int fd = object_open(s, &f->digest);
        int r = fd < 0 ? fd : stamp_of_fd(s, fd, &a->stamps[i]);
        if (r < 0)
            return err_sys(err, -r, "stat '%s'", f->name);
    }
    return 0;
}

static int seal(const struct manifest *m, const struct signing_key *key, struct artifact **ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer manifest = {0};
    CLEANUP(buffer_clear) struct buffer envelope = {0};
    int r = manifest_encode(m, &manifest, err);
    if (r == 0)
        r = manifest_seal(key, buffer_span(&manifest), &envelope, err);
    return r < 0 ? r : artifact_parse(&envelope, ret, err);
}

/*
 * A record, then the ref: from that moment the artifact exists, so nothing behind it may fail. A ref whose stat is not
 * known is compared at the first lookup.
 */
static int write_ref(struct store *s, struct artifact *a, unsigned flags, struct qd_error *err)
{
    char name[REF_NAME_BYTES];
    digest_hex(&a->manifest.key, name);
    int r = stamps_write(s, a, true, err);
    if (r == 0)
        r = file_put(s, s->refs, name, buffer_span(&a->envelope), flags, true, err);
    if (r == 0 && stamp_of_ref(s, &a->manifest.key, &a->ref) < 0)
        a->ref = (struct stamp){0};
    return r;
}

static int index_new(struct store *s, struct artifact **a, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    (void)artifact_judge(*a, s->keyring, NULL); /* not trusted (yet): kept, not served */
    int r = index_insert(s, *a, err);
    if (r == 0)
        *a = NULL;
    return r;
}

/*
 * What the index holds under that key must go first, unless it is good. Makes room in the index, too: after the ref
 * nothing may fail.
 */
static int make_way(struct store *s, const struct digest *key, struct qd_error *err)
{
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        struct artifact *old = index_find(s, key);
        if (old && old->trusted)
            return err_new(err, QD_E_EXISTS, "the artifact is there already");
        int r = index_reserve(s, err);
        if (r < 0)
            return r;
        if (old)
            index_condemn(s, old);
    }
    bury_condemned(s);
    if (s->n_unread) { /* one that start-up could not read may stand in the way; the artifact made now is readable */
        char name[REF_NAME_BYTES];
        digest_hex(key, name);
        quarantine_ref(s, name);
    }
    return 0;
}

static int commit_locked(struct commit *c, struct qd_error *err)
{
    struct store *s = c->store;
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    CLEANUP(artifact_free) struct artifact *a = NULL;
    int r = make_way(s, &c->work->key, err);
    if (r < 0)
        return r;
    r = place_all(c, err);
    if (r == 0)
        r = seal(&c->manifest, c->request->key, &a, err);
    if (r == 0)
        r = stamp_files(s, a, err);
    if (r == 0)
        r = write_ref(s, a, RENAME_NOREPLACE, err);
    if (r == 0)
        a->last_use_s = (uint64_t)time(NULL);
    if (r == 0)
        r = index_new(s, &a, err);
    if (r < 0)
        take_back(c);
    return r;
}

static void finish_work(struct commit *c)
{
    char journal[WORK_NAME_BYTES];
    work_name(&c->work->key, "journal", journal);
    (void)c->store->io->unlink(c->store->io->data, c->store->work, journal); /* start-up sweeps a finished one */
    (void)store_work_close(c->store, c->work);
}

static int commit_steps(struct commit *c, struct qd_error *err)
{
    int r = check_tables(c->request, err);
    if (r == 0)
        r = open_part(c, err);
    if (r == 0)
        r = hash_part(c, err);
    if (r == 0)
        r = digest_blobs(c, err);
    if (r == 0)
        r = settle_part(c, err);
    if (r == 0)
        r = commit_locked(c, err);
    if (r < 0 && c->fd >= 0 && !c->sealed)
        (void)c->store->io->chmod(c->store->io->data, c->fd, 0600); /* else the job starts over */
    return r;
}

int store_commit(struct store *s, struct store_work *w, const struct store_commit *q, struct qd_error *err)
{
    CLEANUP(free) struct commit *c = calloc(1, sizeof *c);
    if (!c)
        return err_new(err, QD_E_NO_MEMORY, "a commit");
    c->store = s;
    c->work = w;
    c->request = q;
    c->fd = -1;
    work_name(&w->key, "part", c->part);
    begin_manifest(c);
    int r = commit_steps(c, err);
    c->fd = fd_close(c->fd);
    free(c->leaves);
    w->part_fd = fd_close(w->part_fd);
    w->journal_fd = fd_close(w->journal_fd);
    if (r < 0)
        return err_in(err, r, "commit of model '%s', %s", q->manifest->model, q->manifest->scheme);
    finish_work(c);
    return 0;
}

/* --- Sealing again --- */

static int reseal_locked(struct store *s, struct artifact *old, const struct signing_key *with, struct qd_error *err)
{
    CLEANUP(artifact_free) struct artifact *a = NULL;
    int r = seal(&old->manifest, with, &a, err);
    if (r < 0)
        return r;
    memcpy(a->stamps, old->stamps, sizeof a->stamps);
    a->pinned = old->pinned;
    r = write_ref(s, a, 0, err);
    if (r < 0)
        return r;
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        if (index_find(s, &old->manifest.key) != old) /* a lookup has just condemned it */
            return err_new(err, QD_E_CORRUPT, "the artifact is damaged");
        a->last_use_s = old->last_use_s;
        a->use_is_dirty = old->use_is_dirty;
        index_remove(s, old);
    }
    return index_new(s, &a, err);
}

int store_reseal(struct store *s, const struct digest *key, const struct signing_key *with, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    bury_condemned(s);
    struct artifact *old = artifact_hold(s, key);
    if (!old)
        return err_new(err, QD_E_NOT_FOUND, "no such artifact");
    int r = reseal_locked(s, old, with, err);
    artifact_let_go(s, old);
    return r;
}
