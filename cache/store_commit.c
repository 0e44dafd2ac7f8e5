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

enum { BLOBS = MANIFEST_N_ROLES - 1 /* files behind the payload, one of each role */ };

/* A commit under way: what is to be undone when it fails. */
struct commit {
    struct store *store;
    struct store_work *work;
    const struct store_commit *request;
    char part_names[STORE_PARTS_MAX][WORK_NAME_BYTES];
    int fds[STORE_PARTS_MAX]; /* owned; the parts, O_RDONLY */
    struct buffer leaves;     /* owned; of all parts, 32 bytes each */
    struct manifest manifest;
    struct manifest_file files[STORE_PARTS_MAX + BLOBS]; /* of it */
    bool made[STORE_PARTS_MAX + BLOBS];                  /* objects that were not there before */
    bool sealed;                                         /* by fs-verity: cannot be written again */
};

/* --- The payload, before any lock: no writer left, size, digest, on disk --- */

static int open_part(struct commit *c, size_t i, struct qd_error *err)
{
    const char *name = c->part_names[i];
    const uint64_t planned = c->request->parts[i].bytes;
    c->fds[i] = openat(c->store->work, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (c->fds[i] < 0)
        return err_sys(err, errno, "open work/%s", name);
    struct stat st;
    if (fstat(c->fds[i], &st) < 0)
        return err_sys(err, errno, "stat work/%s", name);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != planned)
        return err_new(err, QD_E_CORRUPT, "the job wrote %llu bytes, %llu were planned", (unsigned long long)st.st_size,
                       (unsigned long long)planned);
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

static int hash_part(struct commit *c, size_t i, struct qd_error *err)
{
    const struct store_commit *q = c->request;
    CLEANUP(free) struct digest *leaves = NULL;
    int leased = lease_take(c->fds[i], err);
    if (leased < 0)
        return leased;
    int r = digest_file(c->fds[i], q->parts[i].bytes, q->n_threads, &c->files[i].digest, &leaves, q->cancel,
                        q->done_bytes, err);
    if (r == 0 && leased == 0)
        r = lease_still_held(c->fds[i], err);
    if (leased == 0)
        (void)fcntl(c->fds[i], F_SETLEASE, F_UNLCK); /* held by nobody else: cannot fail */
    if (r == 0)
        buffer_put(&c->leaves, leaves, shard_count(q->parts[i].bytes) * DIGEST_BYTES);
    return r == 0 && c->leaves.failed ? err_new(err, QD_E_NO_MEMORY, "digests of shards") : r;
}

/* fs-verity comes last: it cannot be taken back. */
static int settle_part(struct commit *c, size_t i, struct qd_error *err)
{
    const struct store_io *io = c->store->io;
    int r = io->chmod(io->data, c->fds[i], 0444);
    if (r == 0)
        r = io->sync(io->data, c->fds[i]);
    if (r < 0)
        return err_sys(err, -r, "sync work/%s", c->part_names[i]);
    struct manifest_file *f = &c->files[i];
    r = verity_enable(c->fds[i], err);
    if (r == 1) {
        c->sealed = true;
        r = verity_measure(c->fds[i], &f->verity, err);
    }
    f->has_verity = r == 1;
    return r < 0 ? r : 0;
}

static int each_part(struct commit *c, int (*step)(struct commit *c, size_t i, struct qd_error *err),
                     struct qd_error *err)
{
    int r = 0;
    for (size_t i = 0; i < c->work->n_parts && r == 0; i++)
        r = step(c, i, err);
    return r;
}

/* --- What the worker reported --- */

static int check_tables(const struct commit *c, struct qd_error *err)
{
    const struct store_commit *q = c->request;
    CLEANUP(arena_free) struct arena *arena = arena_new(TABLES_ARENA_BYTES);
    uint64_t payload_bytes[STORE_PARTS_MAX];
    struct tensor_table tensors;
    struct meta_table metadata;
    if (!arena)
        return err_new(err, QD_E_NO_MEMORY, "tables");
    for (size_t i = 0; i < c->work->n_parts; i++)
        payload_bytes[i] = q->parts[i].bytes;
    int r = tensor_table_decode(q->tensors, payload_bytes, c->work->n_parts, arena, &tensors, err);
    return r < 0 ? r : meta_table_decode(q->metadata, arena, &metadata, err);
}

static struct bytes blob_of(const struct commit *c, enum manifest_role role)
{
    switch (role) {
    case MANIFEST_TENSORS:
        return c->request->tensors;
    case MANIFEST_METADATA:
        return c->request->metadata;
    case MANIFEST_SHARDS:
        return buffer_span(&c->leaves);
    case MANIFEST_PAYLOAD:
    case MANIFEST_N_ROLES:
        break;
    }
    return (struct bytes){0};
}

/* The manifest but for the payload's digests, which hash_part fills in. */
static void begin_manifest(struct commit *c)
{
    static const char *const names[] = {
        [MANIFEST_TENSORS] = "tensors", [MANIFEST_METADATA] = "metadata", [MANIFEST_SHARDS] = "shards"};
    struct manifest *m = &c->manifest;
    const size_t n_parts = c->work->n_parts;
    *m = *c->request->manifest;
    m->format = MANIFEST_FORMAT;
    m->key = c->work->key;
    m->created = (uint64_t)time(NULL);
    m->files = c->files;
    m->n_files = n_parts + BLOBS;
    for (size_t i = 0; i < n_parts; i++)
        m->files[i] = (struct manifest_file){
            .role = MANIFEST_PAYLOAD, .name = c->request->parts[i].name, .bytes = c->request->parts[i].bytes};
    for (unsigned role = MANIFEST_TENSORS; role < MANIFEST_N_ROLES; role++)
        m->files[n_parts + role - 1] = (struct manifest_file){.role = (enum manifest_role)role, .name = names[role]};
}

static int digest_blobs(struct commit *c, struct qd_error *err)
{
    int r = 0;
    for (size_t i = c->work->n_parts; i < c->manifest.n_files && r == 0; i++) {
        struct manifest_file *f = &c->files[i];
        struct bytes blob = blob_of(c, f->role);
        f->bytes = blob.n;
        r = digest_of_bytes(blob, &f->digest, err);
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

static int place_blob(struct commit *c, size_t i, struct qd_error *err)
{
    struct store *s = c->store;
    const struct manifest_file *f = &c->files[i];
    char name[WORK_NAME_BYTES];
    work_name(&c->work->key, f->name, name);
    int r = write_blob(s, name, blob_of(c, f->role), err);
    if (r == 0)
        r = object_place(s, name, &f->digest, f->bytes, &c->made[i], err);
    if (r < 0)
        (void)s->io->unlink(s->io->data, s->work, name); /* it may be gone; start-up sweeps */
    return r;
}

static int place_part(struct commit *c, size_t i, struct qd_error *err)
{
    return object_place(c->store, c->part_names[i], &c->files[i].digest, c->files[i].bytes, &c->made[i], err);
}

/* Small files first: the payload is the one that is dear to take back. */
static int place_all(struct commit *c, struct qd_error *err)
{
    struct store *s = c->store;
    int r = 0;
    for (size_t i = c->work->n_parts; i < c->manifest.n_files && r == 0; i++)
        r = place_blob(c, i, err);
    if (r == 0)
        r = each_part(c, place_part, err);
    if (r < 0)
        return r;
    r = s->io->sync(s->io->data, s->work); /* the work's names are gone for good: ctimes are final */
    return r < 0 ? err_sys(err, -r, "sync work") : 0;
}

/* The job's file goes back to work/, writable, so that nothing is lost but the commit. */
static void take_back_part(struct commit *c, const char *part, const char *object)
{
    const struct store_io *io = c->store->io;
    if (io->rename(io->data, c->store->objects, object, c->store->work, part, RENAME_NOREPLACE) < 0)
        (void)io->unlink(io->data, c->store->objects, object); /* the link to work/ was still there */
}

static void take_back(struct commit *c)
{
    const struct store_io *io = c->store->io;
    for (size_t i = 0; i < c->manifest.n_files; i++) {
        char object[OBJECT_NAME_BYTES];
        object_name(&c->files[i].digest, object);
        if (c->made[i] && i < c->work->n_parts)
            take_back_part(c, c->part_names[i], object);
        else if (c->made[i])
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

static void give_up_descriptors(struct store_work *w)
{
    for (size_t i = 0; i < w->n_parts; i++)
        w->part_fds[i] = fd_close(w->part_fds[i]);
    w->journal_fd = fd_close(w->journal_fd);
}

static int commit_steps(struct commit *c, struct qd_error *err)
{
    int r = check_tables(c, err);
    give_up_descriptors(c->work);
    if (r == 0)
        r = each_part(c, open_part, err);
    if (r == 0)
        r = each_part(c, hash_part, err);
    if (r == 0)
        r = digest_blobs(c, err);
    if (r == 0)
        r = each_part(c, settle_part, err);
    if (r == 0)
        r = commit_locked(c, err);
    for (size_t i = 0; i < c->work->n_parts && r < 0 && !c->sealed; i++)
        if (c->fds[i] >= 0)
            (void)c->store->io->chmod(c->store->io->data, c->fds[i], 0600); /* else the job starts over */
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
    for (size_t i = 0; i < w->n_parts; i++) {
        c->fds[i] = -1;
        work_name(&w->key, work_parts[i], c->part_names[i]);
    }
    begin_manifest(c);
    int r = commit_steps(c, err);
    for (size_t i = 0; i < w->n_parts; i++)
        c->fds[i] = fd_close(c->fds[i]);
    buffer_clear(&c->leaves);
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
