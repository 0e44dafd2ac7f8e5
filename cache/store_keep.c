#include "cache/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "kernels/core/checked.h"

enum { ROOM_RESERVE_BYTES = 16 << 20 }; /* for tables, refs, and what else the file system needs */

static int no_such(struct qd_error *err)
{
    return err_new(err, QD_E_NOT_FOUND, "no such artifact");
}

/* --- Verifying --- */

static void note_bad(struct store_verify *v, const char *what)
{
    size_t used = strlen(v->bad);
    (void)snprintf(v->bad + used, sizeof v->bad - used, "%s%.200s", used ? "; " : "", what); /* cut at worst */
    v->n_bad++;
}

/* False when it was removed, or sealed again, since we hold it. */
static bool is_kept(struct store *s, const struct artifact *a)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    return a->kept;
}

/* With `writer`: a sealing that is under way changes ref and index, and nobody is to see it half. */
static int verify_ref(struct store *s, const struct artifact *a, struct store_verify *v, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    if (!is_kept(s, a))
        return no_such(err);
    char name[REF_NAME_BYTES];
    digest_hex(&a->manifest.key, name);
    CLEANUP(buffer_clear) struct buffer now = {0};
    int r = file_read(s->refs, name, ENVELOPE_BYTES_MAX, &now, err);
    if (r < 0 && r != QD_E_CORRUPT && r != QD_E_NOT_FOUND && r != QD_E_IO)
        return r;
    if (r < 0 || now.n != a->envelope.n || memcmp(now.data, a->envelope.data, now.n) != 0)
        note_bad(v, "its manifest was changed or removed");
    return 0;
}

static int verify_files(struct store *s, struct artifact *a, const _Atomic int *cancel, _Atomic uint64_t *done,
                        struct store_verify *v, bool *bad, struct qd_error *err)
{
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        const struct manifest_file *f = &a->manifest.files[i];
        CLEANUP(fd_close) int fd = object_open(s, &f->digest); /* its own: flags of a shared one are anybody's */
        int r = fd == -ENOENT ? err_new(err, QD_E_CORRUPT, "'%s' is missing", f->name)
                : fd < 0      ? err_sys(err, -fd, "open '%s'", f->name)
                              : object_check(fd, f, cancel, done, err);
        if (r < 0 && r != QD_E_CORRUPT)
            return r;
        bad[i] = r < 0;
        if (bad[i])
            note_bad(v, err->message);
        v->n_files++;
        v->bytes += f->bytes;
    }
    return 0;
}

int store_verify(struct store *s, const struct digest *key, const _Atomic int *cancel, _Atomic uint64_t *done_bytes,
                 struct store_verify *ret, struct qd_error *err)
{
    struct artifact *a = artifact_hold(s, key);
    if (!a)
        return no_such(err);
    struct qd_error mine;
    err = err ? err : &mine; /* its sentences go into the report */
    struct store_verify v = {0};
    bool bad[MANIFEST_FILES_MAX] = {false};
    int r = verify_ref(s, a, &v, err);
    if (r == 0)
        r = verify_files(s, a, cancel, done_bytes, &v, bad, err);
    if (r == 0 && v.n_bad && !is_kept(s, a))
        r = no_such(err); /* removed under us: that is no damage */
    if (r == 0 && v.n_bad) {
        artifact_condemn(s, a, bad);
        r = err_new(err, QD_E_CORRUPT, "artifact of model '%s', %s: %s", a->manifest.model, a->manifest.scheme, v.bad);
    }
    artifact_let_go(s, a);
    if (r == 0 || r == QD_E_CORRUPT)
        *ret = v;
    if (r == QD_E_CORRUPT) {
        CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
        bury_condemned(s);
    }
    return r;
}

/* The key after the one that was scrubbed last, going round. */
static bool next_to_scrub(struct store *s, struct digest *ret)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (s->n == 0)
        return false;
    size_t i = 0;
    while (i < s->n && memcmp(s->artifacts[i]->manifest.key.bytes, s->scrubbed.bytes, DIGEST_BYTES) <= 0)
        i++;
    *ret = s->artifacts[i < s->n ? i : 0]->manifest.key;
    s->scrubbed = *ret;
    return true;
}

int store_scrub_step(struct store *s, const _Atomic int *cancel, struct digest *ret_key, struct store_verify *ret,
                     struct qd_error *err)
{
    struct digest key;
    if (!next_to_scrub(s, &key))
        return 0;
    *ret_key = key;
    int r = store_verify(s, &key, cancel, NULL, ret, err);
    return r < 0 ? r : 1;
}

/* --- Removing --- */

/* Out of the index and off the disk. @a must not be pinned. `writer` held. Returns what it freed. */
static uint64_t drop(struct store *s, struct artifact *a)
{
    char name[REF_NAME_BYTES];
    digest_hex(&a->manifest.key, name);
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        if (index_find(s, &a->manifest.key) != a)
            return 0; /* a lookup has condemned it meanwhile */
        if (a->n_holds == 0)
            artifact_close_fds(s, a);
        a->n_holds++;
        index_remove(s, a);
    }
    (void)s->io->unlink(s->io->data, s->refs,
                        name); /* first: a ref without objects is damage, objects without a ref are not */
    (void)s->io->sync(s->io->data, s->refs);
    (void)s->io->unlink(s->io->data, s->records, name);
    (void)s->io->unlink(s->io->data, s->used, name);
    uint64_t freed = objects_drop(s, a);
    artifact_let_go(s, a);
    return freed;
}

int store_remove(struct store *s, const struct digest *key, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    bury_condemned(s);
    struct artifact *a = artifact_hold(s, key);
    if (!a)
        return no_such(err);
    bool pinned = a->pinned; /* changes under `writer` only */
    artifact_let_go(s, a);   /* stays: only `writer` removes */
    if (pinned)
        return err_hint(err, err_new(err, QD_E_BUSY, "the artifact of model '%s' is pinned", a->manifest.model),
                        "quantctl unpin, then again");
    (void)drop(s, a);
    return 0;
}

/* Nobody has it but @a's one holder; the store's own descriptors are closed for that. `writer` held. */
static int check_unused(struct store *s, struct artifact *a, int *probe, struct qd_error *err)
{
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        if (a->n_holds > 1)
            return err_new(err, QD_E_BUSY, "the artifact of model '%s' is leased", a->manifest.model);
        artifact_close_fds(s, a);
    }
    if (*probe < 0)
        *probe = object_open(s, &a->manifest.files[0].digest);
    if (*probe < 0) /* missing: no reason to keep the rest */
        *probe = -1;
    else if (object_in_use(*probe))
        return err_new(err, QD_E_BUSY, "the artifact of model '%s' is in use", a->manifest.model);
    return 0;
}

int store_collect(struct store *s, const struct digest *key, int *probe, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    bury_condemned(s);
    struct artifact *a = artifact_hold(s, key);
    if (!a)
        return no_such(err);
    int r = a->pinned ? err_new(err, QD_E_DENIED, "the artifact of model '%s' is pinned", a->manifest.model)
                      : check_unused(s, a, probe, err);
    artifact_let_go(s, a); /* stays: only `writer` removes */
    if (r < 0)
        return r;
    *probe = fd_close(*probe); /* or it would be a ghost of ours */
    (void)drop(s, a);
    return 0;
}

/* --- Pins and last use --- */

static int pin_file(struct store *s, const struct digest *key, bool pin, struct qd_error *err)
{
    char name[REF_NAME_BYTES];
    digest_hex(key, name);
    int r;
    if (pin) {
        CLEANUP(fd_close) int fd = s->io->create(s->io->data, s->pins, name, 0600);
        r = fd == -EEXIST || fd >= 0 ? 0 : fd;
    } else {
        r = s->io->unlink(s->io->data, s->pins, name);
        r = r == -ENOENT ? 0 : r;
    }
    if (r == 0)
        r = s->io->sync(s->io->data, s->pins);
    return r < 0 ? err_sys(err, -r, "%s", pin ? "pin" : "unpin") : 0;
}

static int set_pin(struct store *s, const struct digest *key, bool pin, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    struct artifact *a = artifact_hold(s, key);
    if (!a)
        return no_such(err);
    int r = pin_file(s, key, pin, err);
    if (r == 0) {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        a->pinned = pin;
    }
    artifact_let_go(s, a);
    return r;
}

int store_pin(struct store *s, const struct digest *key, struct qd_error *err)
{
    return set_pin(s, key, true, err);
}

int store_unpin(struct store *s, const struct digest *key, struct qd_error *err)
{
    return set_pin(s, key, false, err);
}

static bool take_dirty(struct store *s, size_t i, struct digest *ret_key, uint64_t *ret_use_s, bool *ret_dirty)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (i >= s->n)
        return false;
    struct artifact *a = s->artifacts[i];
    *ret_dirty = a->use_is_dirty;
    *ret_key = a->manifest.key;
    *ret_use_s = a->last_use_s;
    a->use_is_dirty = false;
    return true;
}

static void write_use(struct store *s, const struct digest *key, uint64_t use_s)
{
    char name[REF_NAME_BYTES];
    digest_hex(key, name);
    CLEANUP(fd_close) int fd = openat(s->used, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    const struct timespec times[2] = {{.tv_sec = (time_t)use_s}, {.tv_sec = (time_t)use_s}};
    if (fd >= 0)
        (void)futimens(fd, times); /* a lost one only ages the artifact */
}

void store_touch(struct store *s)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    bury_condemned(s);
    struct digest key;
    uint64_t use_s;
    bool dirty;
    for (size_t i = 0; take_dirty(s, i, &key, &use_s, &dirty); i++)
        if (dirty)
            write_use(s, &key, use_s);
}

/* --- Space --- */

static int free_space(struct store *s, uint64_t *ret, struct qd_error *err)
{
    struct statvfs v;
    if (fstatvfs(s->root, &v) < 0)
        return err_sys(err, errno, "free space of '%s'", s->options.folder);
    *ret = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}

static uint64_t budget_of(struct store *s)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    return s->options.budget_bytes;
}

void store_set_budget(struct store *s, uint64_t budget_bytes)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    s->options.budget_bytes = budget_bytes;
}

int store_has_room(struct store *s, uint64_t bytes, uint64_t keep_free, struct qd_error *err)
{
    uint64_t left = 0, budget = budget_of(s), needed;
    if (budget && bytes > budget)
        return err_new(err, QD_E_LIMIT, "%llu bytes are more than the whole budget of the cache, %llu",
                       (unsigned long long)bytes, (unsigned long long)budget);
    int r = free_space(s, &left, err);
    if (r < 0)
        return r;
    if (!checked_add(bytes, keep_free, &needed) || !checked_add(needed, ROOM_RESERVE_BYTES, &needed) || needed > left)
        return err_new(err, QD_E_NO_SPACE, "'%s' has %llu bytes free, %llu and a reserve of %llu are needed",
                       s->options.folder, (unsigned long long)left, (unsigned long long)bytes,
                       (unsigned long long)keep_free + ROOM_RESERVE_BYTES);
    return 0;
}

static int by_digest(const void *x, const void *y)
{
    const struct manifest_file *a = *(const struct manifest_file *const *)x,
                               *b = *(const struct manifest_file *const *)y;
    return memcmp(a->digest.bytes, b->digest.bytes, DIGEST_BYTES);
}

/* Each object once. `lock` held. */
static int sum_objects(struct store *s, uint64_t *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->artifacts[i]->manifest.n_files;
    CLEANUP(free) const struct manifest_file **files = malloc((n + 1) * sizeof *files);
    if (!files)
        return QD_E_NO_MEMORY;
    n = 0;
    for (size_t i = 0; i < s->n; i++)
        for (size_t f = 0; f < s->artifacts[i]->manifest.n_files; f++)
            files[n++] = &s->artifacts[i]->manifest.files[f];
    qsort(files, n, sizeof *files, by_digest);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || !digest_equal(&files[i - 1]->digest, &files[i]->digest))
            sum += files[i]->bytes;
    *ret = sum;
    return 0;
}

int store_usage(struct store *s, struct store_usage *ret, struct qd_error *err)
{
    struct store_usage u = {.budget_bytes = budget_of(s)};
    int r = free_space(s, &u.free_bytes, err);
    if (r < 0)
        return r;
    ghosts_poll(s);
    u.quarantine_bytes = folder_bytes(s->quarantine);
    u.work_bytes = folder_bytes(s->work);
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    u.ghost_bytes = ghost_bytes(s);
    u.n_artifacts = s->n;
    if (sum_objects(s, &u.object_bytes) < 0)
        return err_new(err, QD_E_NO_MEMORY, "usage of the cache");
    *ret = u;
    return 0;
}

static int unlink_quarantined(struct store *s, const char *name, void *data)
{
    (void)data;
    (void)s->io->unlink(s->io->data, s->quarantine, name); /* what stays is counted again */
    return 0;
}

static struct artifact *least_recently_used(struct store *s)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    struct artifact *oldest = NULL;
    for (size_t i = 0; i < s->n; i++) {
        struct artifact *a = s->artifacts[i];
        if (a->pinned || a->n_holds > 0)
            continue;
        if (!oldest || a->last_use_s < oldest->last_use_s ||
            (a->last_use_s == oldest->last_use_s && a->order < oldest->order))
            oldest = a;
    }
    return oldest; /* stays: only `writer` removes, and ours is held; a lookup may still condemn it, which drop() sees
                    */
}

static int used_bytes(struct store *s, uint64_t *ret, struct qd_error *err)
{
    struct store_usage u;
    int r = store_usage(s, &u, err);
    if (r == 0)
        *ret = u.object_bytes + u.ghost_bytes + u.quarantine_bytes;
    return r;
}

int store_gc(struct store *s, uint64_t target_bytes, struct store_gc *ret, struct qd_error *err)
{
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    struct store_gc gc = {0};
    uint64_t before = 0, used;
    bury_condemned(s);
    int r = used_bytes(s, &before, err);
    used = before;
    if (r == 0 && used > target_bytes) {
        (void)folder_each(s->quarantine, unlink_quarantined, s, NULL); /* what stays is counted again */
        r = used_bytes(s, &used, err);
    }
    for (struct artifact *a; r == 0 && used > target_bytes && (a = least_recently_used(s)); gc.n_evicted++) {
        (void)drop(s, a);
        r = used_bytes(s, &used, err);
    }
    if (r < 0)
        return r;
    gc.freed_bytes = before > used ? before - used : 0;
    gc.over_bytes = used > target_bytes ? used - target_bytes : 0;
    *ret = gc;
    return 0;
}
