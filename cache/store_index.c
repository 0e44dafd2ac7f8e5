#include "cache/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "cache/verity.h"

/* The texts of a manifest: its bytes, and what alignment adds to each; its files. */
enum { ARENA_BYTES_MORE = 16 * (MANIFEST_FILES_MAX + 8) + MANIFEST_FILES_MAX * sizeof(struct manifest_file) };

/* A lease as the store sees it; callers see its first member. */
struct held_lease {
    struct lease lease;
    struct store *store;
    struct artifact *artifact;
    unsigned n_refs;
};

static void close_fds(int *fds, size_t n)
{
    for (size_t i = 0; fds && i < n; i++)
        (void)fd_close(fds[i]);
    free(fds);
}

struct artifact *artifact_free(struct artifact *a)
{
    if (!a)
        return NULL;
    close_fds(a->fds, a->manifest.n_files);
    buffer_clear(&a->envelope);
    arena_free(a->arena);
    free(a);
    return NULL;
}

int artifact_parse(struct buffer *raw, struct artifact **ret, struct qd_error *err)
{
    CLEANUP(artifact_free) struct artifact *a = calloc(1, sizeof *a);
    if (!a || !(a->arena = arena_new(raw->n + ARENA_BYTES_MORE)))
        return err_new(err, QD_E_NO_MEMORY, "an artifact");
    struct envelope e;
    int r = envelope_decode(buffer_span(raw), &e, err);
    if (r == 0)
        r = manifest_decode(e.manifest, a->arena, &a->manifest, err);
    if (r < 0)
        return r;
    a->signer = e.key_id;
    a->last_use_s = a->manifest.created;
    for (size_t i = 0; i < a->manifest.n_files; i++)
        if (__builtin_add_overflow(a->bytes, a->manifest.files[i].bytes, &a->bytes))
            return err_new(err, QD_E_CORRUPT, "manifest: the sizes of its files overflow");
    a->envelope = *raw;
    *raw = (struct buffer){0};
    *ret = steal(&a);
    return 0;
}

int artifact_judge(struct artifact *a, const struct keyring *keyring, struct qd_error *err)
{
    struct envelope e;
    int r = envelope_decode(buffer_span(&a->envelope), &e, err);
    if (r == 0)
        r = envelope_verify(&e, keyring, err);
    a->trusted = r == 0;
    if (r == QD_E_UNTRUSTED && keyring_trusts(keyring, &a->signer))
        return err_in(err, QD_E_CORRUPT, "artifact of model '%s'", a->manifest.model);
    return r == QD_E_UNTRUSTED ? 0 : r;
}

/* Where @key is, or belongs. */
static size_t index_place(const struct store *s, const struct digest *key)
{
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(s->artifacts[middle]->manifest.key.bytes, key->bytes, DIGEST_BYTES) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct artifact *index_find(const struct store *s, const struct digest *key)
{
    size_t i = index_place(s, key);
    return i < s->n && digest_equal(&s->artifacts[i]->manifest.key, key) ? s->artifacts[i] : NULL;
}

int index_reserve(struct store *s, struct qd_error *err)
{
    if (s->n + s->n_condemned < s->capacity)
        return 0;
    size_t capacity = s->capacity ? 2 * s->capacity : 64;
    struct artifact **artifacts = realloc(s->artifacts, capacity * sizeof *artifacts);
    if (!artifacts)
        return err_new(err, QD_E_NO_MEMORY, "an index of %zu artifacts", capacity);
    s->artifacts = artifacts;
    struct artifact **condemned = realloc(s->condemned, capacity * sizeof *condemned);
    if (!condemned)
        return err_new(err, QD_E_NO_MEMORY, "an index of %zu artifacts", capacity);
    s->condemned = condemned;
    s->capacity = capacity;
    return 0;
}

int index_insert(struct store *s, struct artifact *a, struct qd_error *err)
{
    int r = index_reserve(s, err);
    if (r < 0)
        return r;
    size_t at = index_place(s, &a->manifest.key);
    memmove(s->artifacts + at + 1, s->artifacts + at, (s->n - at) * sizeof(struct artifact *));
    s->artifacts[at] = a;
    s->n++;
    a->kept = true;
    return 0;
}

static void take_out(struct store *s, struct artifact *a)
{
    size_t at = index_place(s, &a->manifest.key);
    memmove(s->artifacts + at, s->artifacts + at + 1, (s->n - at - 1) * sizeof(struct artifact *));
    s->n--;
}

void artifact_close_fds(struct store *s, struct artifact *a)
{
    if (!a->fds)
        return;
    close_fds(a->fds, a->manifest.n_files);
    a->fds = NULL;
    s->n_open--;
}

void index_remove(struct store *s, struct artifact *a)
{
    take_out(s, a);
    a->kept = false;
    a->n_holds++;
    artifact_release(s, a);
}

void index_condemn(struct store *s, struct artifact *a)
{
    take_out(s, a);
    s->condemned[s->n_condemned++] = a;
}

/* Every artifact that names a bad object is as bad. */
static void condemn_sharers(struct store *s, const struct digest *object)
{
    for (size_t i = s->n; i-- > 0;) {
        struct artifact *a = s->artifacts[i];
        bool shares = false;
        for (size_t f = 0; f < a->manifest.n_files; f++) {
            a->bad[f] |= digest_equal(&a->manifest.files[f].digest, object);
            shares |= a->bad[f];
        }
        if (shares)
            index_condemn(s, a);
    }
}

void artifact_condemn(struct store *s, struct artifact *a, const bool *bad)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (index_find(s, &a->manifest.key) == a) {
        memcpy(a->bad, bad, sizeof a->bad);
        index_condemn(s, a);
    }
    for (size_t i = 0; i < a->manifest.n_files; i++)
        if (bad[i])
            condemn_sharers(s, &a->manifest.files[i].digest);
}

/* Closes the artifacts that were asked for longest ago, while too many are open. */
static void close_idle(struct store *s)
{
    while (s->n_open > s->options.max_open) {
        struct artifact *oldest = NULL;
        for (size_t i = 0; i < s->n; i++) {
            struct artifact *a = s->artifacts[i];
            if (a->fds && a->n_holds == 0 && (!oldest || a->order < oldest->order))
                oldest = a;
        }
        if (!oldest)
            return;
        artifact_close_fds(s, oldest);
    }
}

void artifact_release(struct store *s, struct artifact *a)
{
    if (--a->n_holds > 0)
        return;
    if (!a->kept) {
        artifact_close_fds(s, a);
        artifact_free(a);
        return;
    }
    close_idle(s);
}

struct artifact *artifact_hold(struct store *s, const struct digest *key)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    struct artifact *a = index_find(s, key);
    if (a)
        a->n_holds++;
    return a;
}

void artifact_let_go(struct store *s, struct artifact *a)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    artifact_release(s, a);
}

/* --- Lookup --- */

static int check_verity(int fd, const struct manifest_file *f, struct qd_error *err)
{
    struct digest measured;
    int r = f->has_verity ? verity_measure(fd, &measured, err) : 0;
    if (r == 1 && !digest_equal(&measured, &f->verity))
        return err_new(err, QD_E_CORRUPT, "'%s': fs-verity measures another content", f->name);
    return r < 0 ? r : 0;
}

/* Opens the files of @a; what is missing makes it corrupt, what we lack (descriptors, memory) does not. */
static int open_fds(struct store *s, struct artifact *a, struct qd_error *err)
{
    size_t n = a->manifest.n_files;
    int *fds = malloc(n * sizeof *fds);
    if (!fds)
        return err_new(err, QD_E_NO_MEMORY, "descriptors of an artifact");
    for (size_t i = 0; i < n; i++)
        fds[i] = -1;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct manifest_file *f = &a->manifest.files[i];
        fds[i] = object_open(s, &f->digest);
        if (fds[i] == -ENOENT)
            r = err_new(err, QD_E_CORRUPT, "'%s' is missing", f->name);
        else if (fds[i] < 0)
            r = err_sys(err, -fds[i], "open '%s'", f->name);
        else
            r = check_verity(fds[i], f, err);
    }
    if (r < 0) {
        close_fds(fds, n);
        return r;
    }
    a->fds = fds;
    s->n_open++;
    return 0;
}

/* Makes @now the stamp of a ref that has none yet, if it holds what it should. */
static int learn_ref(struct store *s, struct artifact *a, const struct stamp *now, struct qd_error *err)
{
    char name[REF_NAME_BYTES];
    CLEANUP(buffer_clear) struct buffer held = {0};
    digest_hex(&a->manifest.key, name);
    int r = file_read(s->refs, name, ENVELOPE_BYTES_MAX, &held, err);
    if (r == 0 && (held.n != a->envelope.n || memcmp(held.data, a->envelope.data, held.n) != 0))
        r = err_new(err, QD_E_CORRUPT, "its manifest was changed");
    if (r == 0)
        a->ref = *now;
    return r;
}

/* The ref is as it was when it was last read. */
static int check_ref(struct store *s, struct artifact *a, struct qd_error *err)
{
    struct stamp now;
    int r = stamp_of_ref(s, &a->manifest.key, &now);
    if (r < 0 && r != -ENOENT)
        return err_sys(err, -r, "stat its manifest");
    if (r == 0 && !a->ref.ino)
        return learn_ref(s, a, &now, err);
    if (r < 0 || !object_stamp_equal(&now, &a->ref))
        return err_new(err, QD_E_CORRUPT, "its manifest was changed or removed");
    return 0;
}

/* Every file is as it was when it was last verified, the ref too. */
static int check_stamps(struct store *s, struct artifact *a, struct qd_error *err)
{
    struct stamp now;
    int checked = check_ref(s, a, err);
    if (checked < 0)
        return checked;
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        int r = stamp_of_fd(s, a->fds[i], &now);
        if (r < 0)
            return err_sys(err, -r, "stat '%s'", a->manifest.files[i].name);
        if (!object_stamp_equal(&now, &a->stamps[i])) {
            a->bad[i] = true;
            return err_new(err, QD_E_CORRUPT, "'%s' was changed since it was verified", a->manifest.files[i].name);
        }
    }
    return 0;
}

/* Finds, opens and checks; with a hold on success. `lock` held. */
static int find_good(struct store *s, const struct digest *key, uint64_t turn, struct artifact **ret,
                     struct qd_error *err)
{
    struct artifact *a = index_find(s, key);
    if (!a)
        return err_new(err, QD_E_NOT_FOUND, "no such artifact");
    if (!a->trusted)
        return err_new(err, QD_E_UNTRUSTED, "the artifact of model '%s' is not signed by a trusted key",
                       a->manifest.model);
    int r = a->fds ? 0 : open_fds(s, a, err);
    if (r == 0 && (turn == 0 || turn != a->checked_turn))
        r = check_stamps(s, a, err);
    if (r < 0) {
        r = err_in(err, r, "artifact of model '%s', %s", a->manifest.model, a->manifest.scheme);
        if (r == QD_E_CORRUPT)
            index_condemn(s, a);
        return r;
    }
    a->checked_turn = turn;
    a->n_holds++;
    a->order = ++s->order;
    a->last_use_s = (uint64_t)time(NULL);
    a->use_is_dirty = true;
    close_idle(s);
    *ret = a;
    return 0;
}

/* Strict mode: every byte, before a descriptor leaves. No lock held, @a is. */
static int check_contents(struct store *s, struct artifact *a, struct qd_error *err)
{
    for (size_t i = 0; i < a->manifest.n_files; i++) {
        int r = object_check(a->fds[i], &a->manifest.files[i], NULL, NULL, err);
        if (r == QD_E_CORRUPT) {
            bool bad[MANIFEST_FILES_MAX] = {false};
            bad[i] = true;
            artifact_condemn(s, a, bad);
        }
        if (r < 0)
            return err_in(err, r, "artifact of model '%s', %s", a->manifest.model, a->manifest.scheme);
    }
    return 0;
}

int store_lookup_in_turn(struct store *s, const struct digest *key, uint64_t turn, struct lease **ret,
                         struct qd_error *err)
{
    CLEANUP(free) struct held_lease *l = calloc(1, sizeof *l);
    if (!l)
        return err_new(err, QD_E_NO_MEMORY, "a lease");
    struct artifact *a = NULL;
    int r;
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        r = find_good(s, key, turn, &a, err);
    }
    if (r == 0 && s->options.strict && (r = check_contents(s, a, err)) < 0)
        artifact_let_go(s, a);
    if (r < 0)
        return r;
    l->lease = (struct lease){&a->manifest, buffer_span(&a->envelope), a->fds, a->manifest.n_files};
    l->store = s;
    l->artifact = a;
    l->n_refs = 1;
    *ret = &steal(&l)->lease;
    return 0;
}

int store_lookup(struct store *s, const struct digest *key, struct lease **ret, struct qd_error *err)
{
    return store_lookup_in_turn(s, key, 0, ret, err);
}

struct lease *lease_ref(struct lease *lease)
{
    struct held_lease *l = (struct held_lease *)lease;
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&l->store->lock);
    l->n_refs++;
    return lease;
}

struct lease *lease_release(struct lease *lease)
{
    struct held_lease *l = (struct held_lease *)lease;
    if (!l)
        return NULL;
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&l->store->lock);
    if (--l->n_refs == 0) {
        artifact_release(l->store, l->artifact);
        free(l);
    }
    return NULL;
}

/* --- Listing and trust --- */

static int by_model(const void *x, const void *y)
{
    const struct manifest *a = &(*(struct artifact *const *)x)->manifest,
                          *b = &(*(struct artifact *const *)y)->manifest;
    int order = strcmp(a->model, b->model);
    if (order == 0)
        order = strcmp(a->scheme, b->scheme);
    return order ? order : memcmp(a->key.bytes, b->key.bytes, DIGEST_BYTES);
}

int store_list(struct store *s, int (*each)(const struct store_entry *e, void *data), void *data)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    CLEANUP(free) struct artifact **sorted = malloc((s->n + 1) * sizeof(struct artifact *));
    if (!sorted)
        return QD_E_NO_MEMORY;
    if (s->n)
        memcpy(sorted, s->artifacts, s->n * sizeof(struct artifact *));
    qsort(sorted, s->n, sizeof(struct artifact *), by_model);
    int r = 0;
    for (size_t i = 0; i < s->n && r == 0; i++) {
        const struct artifact *a = sorted[i];
        struct store_entry e = {.manifest = &a->manifest,
                                .signer = a->signer,
                                .bytes = a->bytes,
                                .last_use_s = a->last_use_s,
                                .n_leases = a->n_holds,
                                .pinned = a->pinned,
                                .trusted = a->trusted};
        r = each(&e, data);
    }
    return r;
}

/* Judges the one at @i, if there is one. Each in a hold of its own: 55 us, lookups go between. */
static void judge_at(struct store *s, size_t i)
{
    CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
    if (i < s->n && artifact_judge(s->artifacts[i], s->keyring, NULL) < 0)
        s->artifacts[i]->trusted = false; /* damaged in memory, or out of it: not served */
}

int store_set_keyring(struct store *s, struct keyring *keyring, struct qd_error *err)
{
    if (!keyring)
        return err_new(err, QD_E_INVALID, "no keyring");
    CLEANUP(mutex_give) pthread_mutex_t *writing = mutex_take(&s->writer);
    size_t n;
    {
        CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock);
        n = s->n;
        keyring_free(s->keyring);
        s->keyring = keyring;
        for (size_t i = 0; i < s->n; i++)
            s->artifacts[i]->trusted &= keyring_trusts(keyring, &s->artifacts[i]->signer); /* revocation at once */
    }
    while (n-- > 0) /* downwards: what lookups condemn meanwhile moves nothing past us */
        judge_at(s, n);
    return 0;
}
