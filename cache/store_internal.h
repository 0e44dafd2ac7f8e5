/*
 * What the files of the store share. store.h is the contract; here are the parts:
 *
 *     store_open.c    folders, format, lock; start-up: load refs, sweep
 *     store_index.c   artifacts in memory, leases, lookup, list
 *     store_object.c  files on disk: objects, records, quarantine, ghosts
 *     store_work.c    unfinished jobs
 *     store_commit.c  from a work to an artifact; sealing again
 *     store_keep.c    verify, scrub, remove, pin, last use, usage, collection
 *
 * Two locks. `writer` is held by whatever changes files (commit, removal, burial), for as long as
 * that takes. `lock` guards the index and is held for microseconds, never while something is
 * hashed or synced, so that lookup may run on the event loop. Order: writer, then lock.
 */
#ifndef QUANTD_CACHE_STORE_INTERNAL_H
#define QUANTD_CACHE_STORE_INTERNAL_H

#include <pthread.h>

#include "cache/store.h"
#include "cache/store_io.h"

enum {
    REF_NAME_BYTES = DIGEST_HEX_BYTES,
    OBJECT_NAME_BYTES = DIGEST_HEX_BYTES + 1,
    WORK_NAME_BYTES = DIGEST_HEX_BYTES + 16
};

/* What tells an untouched file from a changed one without reading it. */
struct stamp {
    uint64_t ino, bytes, mtime_ns, ctime_ns;
};

/* An artifact in memory. Freed when it is neither in the index, nor condemned, nor held. */
struct artifact {
    struct arena *arena; /* owned: the manifest's texts */
    struct manifest manifest;
    struct buffer envelope; /* owned */
    struct key_id signer;
    struct stamp ref; /* ino 0: not known; compared with @envelope at the next lookup */
    struct stamp stamps[MANIFEST_FILES_MAX];
    uint64_t bytes;
    int *fds; /* owned, [manifest.n_files]; NULL while closed */
    uint64_t last_use_s;
    uint64_t order;        /* rises with every lookup: the least is closed first */
    uint64_t checked_turn; /* when the stamps were compared last; store_lookup_in_turn */
    unsigned n_holds;      /* leases and calls under way */
    bool trusted, pinned, use_is_dirty;
    bool kept;                    /* in the index or among the condemned */
    bool bad[MANIFEST_FILES_MAX]; /* of a condemned one: which files go to quarantine */
};

/* A removed object that somebody still has open. */
struct ghost {
    int fd; /* owned */
    uint64_t bytes;
};

enum { GHOSTS_MAX = 256 }; /* beyond that they are not counted: each costs a descriptor */

struct store {
    struct store_options options;
    const struct store_io *io;
    int root, lock_fd, objects, refs, records, pins, used, work, quarantine; /* owned */
    pthread_mutex_t writer;
    pthread_mutex_t lock;
    struct keyring *keyring;     /* owned; changes under both locks */
    struct artifact **artifacts; /* owned; sorted by key */
    size_t n, capacity;
    struct artifact **condemned; /* owned; out of the index, their files not yet dealt with */
    size_t n_condemned;
    size_t n_open; /* artifacts with descriptors */
    uint64_t order;
    size_t n_unread;           /* refs that start-up could not read: nothing that may be theirs is swept */
    struct digest *open_works; /* owned; keys of works in somebody's hands */
    size_t n_open_works;
    struct ghost ghosts[GHOSTS_MAX];
    size_t n_ghosts;
    struct digest scrubbed; /* key that was verified last */
};

/* --- store_index.c; `lock` held unless it says otherwise --- */
struct artifact *artifact_free(struct artifact *a);
DEFINE_CLEANUP(artifact_free, struct artifact *)
struct artifact *index_find(const struct store *s, const struct digest *key);
/* Room for one artifact more, and for all of them among the condemned: condemning cannot fail. */
int index_reserve(struct store *s, struct qd_error *err);
int index_insert(struct store *s, struct artifact *a, struct qd_error *err); /* takes @a on success */
void index_remove(struct store *s, struct artifact *a);                      /* may free @a */
void index_condemn(struct store *s, struct artifact *a);                     /* out of the index, to be buried */
/* Takes the lock itself: @a, of which files @bad are, and every artifact that names one of them, which is as bad. */
void artifact_condemn(struct store *s, struct artifact *a, const bool *bad);
void artifact_release(struct store *s, struct artifact *a);
void artifact_close_fds(struct store *s, struct artifact *a);
struct artifact *artifact_hold(struct store *s, const struct digest *key); /* takes the lock itself; NULL: none */
void artifact_let_go(struct store *s, struct artifact *a);                 /* takes the lock itself */

/* Envelope bytes to an artifact: decoded, not judged. Takes @raw's memory on success. */
int artifact_parse(struct buffer *raw, struct artifact **ret, struct qd_error *err);
/* Sets @trusted. QD_E_CORRUPT: its key is trusted but the signature does not fit. */
int artifact_judge(struct artifact *a, const struct keyring *keyring, struct qd_error *err);

/* --- store_object.c; `writer` held --- */
void object_name(const struct digest *d, char dst[OBJECT_NAME_BYTES]); /* "ab/cdef..." */
int object_open(const struct store *s, const struct digest *d);        /* O_RDONLY, or -errno */
bool object_stamp_equal(const struct stamp *a, const struct stamp *b);
int stamp_of_fd(const struct store *s, int fd, struct stamp *ret); /* -errno */
int stamp_of_ref(const struct store *s, const struct digest *key, struct stamp *ret);
/* 0, or QD_E_CORRUPT with the reason: size, digest, fs-verity. */
int object_check(int fd, const struct manifest_file *f, const _Atomic int *cancel, _Atomic uint64_t *done,
                 struct qd_error *err);
/* Makes work/@name the object @d (of @bytes): *ret_made is false when a good one was there already. Removes work/@name.
 */
int object_place(struct store *s, const char *name, const struct digest *d, uint64_t bytes, bool *ret_made,
                 struct qd_error *err);
int stamps_write(struct store *s, const struct artifact *a, bool durable, struct qd_error *err);
bool stamps_read(const struct store *s, const struct digest *key, struct stamp *stamps, size_t n);
/*
 * Creates folder/@name with @data by tmp + rename with @flags (RENAME_NOREPLACE or 0); @durable: synced before and
 * after.
 */
int file_put(struct store *s, int folder, const char *name, struct bytes data, unsigned flags, bool durable,
             struct qd_error *err);
int file_read(int folder, const char *name, size_t max_bytes, struct buffer *dst, struct qd_error *err);
/* Unlinks objects of @a that no other artifact names; returns bytes of them that are freed or ghosts. */
uint64_t objects_drop(struct store *s, const struct artifact *a);
void quarantine_ref(struct store *s, const char *name);
void bury_condemned(struct store *s); /* takes the lock itself */
bool object_in_use(int fd);           /* by anybody but @fd itself */
void ghosts_poll(struct store *s);
uint64_t ghost_bytes(const struct store *s);
uint64_t folder_bytes(int folder); /* of the files in it */
/* Calls @each with every name in @folder but "." and "..". */
int folder_each(int folder, int (*each)(struct store *s, const char *name, void *data), struct store *s, void *data);

/* --- store_work.c --- */
/* Suffixes of the payload files of a work, in order. */
extern const char *const work_parts[STORE_PARTS_MAX];

void work_name(const struct digest *key, const char *suffix, char dst[WORK_NAME_BYTES]);
bool work_name_parse(const char *name, struct digest *ret_key, const char **ret_suffix);
bool work_is_open(const struct store *s, const struct digest *key); /* `lock` held */
void work_forget(struct store *s, const struct digest *key);        /* takes the lock itself */
/* Start-up: removes what is too old, finished or half. `writer` held. */
void work_sweep_start(struct store *s, struct store_report *report);

/* CLEANUP(mutex_give) pthread_mutex_t *held = mutex_take(&s->lock); holds it to the end of the scope. */
static inline pthread_mutex_t *mutex_take(pthread_mutex_t *m)
{
    (void)pthread_mutex_lock(m); /* a default mutex of ours: cannot fail */
    return m;
}

static inline pthread_mutex_t *mutex_give(pthread_mutex_t *m)
{
    (void)pthread_mutex_unlock(m);
    return NULL;
}
DEFINE_CLEANUP(mutex_give, pthread_mutex_t *)

#endif
