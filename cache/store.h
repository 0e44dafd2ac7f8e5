/*
 * The store: signed artifacts in CacheDirectory. docs/formats/store.md is the format on disk.
 *
 *     format                  "quantd store 1\n"
 *     lock                    held (flock) by the one daemon that has the store open
 *     objects/ab/cdef...      files by content digest, mode 0444, below a 0700 folder
 *     refs/<key>              signed envelope: the only commit point
 *     records/<key>           stat of each object when it was last verified
 *     pins/<key> used/<key>   empty files; the second one's mtime is the last use
 *     work/<key>.{part,part1,journal}  unfinished jobs, resumable; part1 where there are two payload files
 *     quarantine/             what was found damaged, for people to look at; first to go for space
 *
 * A life: store_open sweeps -> store_lookup misses -> store_work_open gives descriptors to a
 * worker -> store_commit -> store_lookup gives a lease with read-only descriptors.
 *
 * Threads: every function may be called from any thread at any time; store_open and store_close
 * alone are the owner's. "Loop" functions take microseconds, never wait for a "pool" function and
 * may run on the event loop. "Pool" functions hash, fsync or walk folders: pool threads only.
 *
 * In user mode a client of the same uid can chmod an object and write to it. A change through the
 * file system is noticed at the next lookup, not by those who have mapped the file already;
 * fs-verity, where the file system has it, prevents it.
 */
#ifndef QUANTD_CACHE_STORE_H
#define QUANTD_CACHE_STORE_H

#include <stdbool.h>

#include "artifact/envelope.h"
#include "artifact/manifest.h"
#include "cache/sign.h"

enum { STORE_PARTS_MAX = 2 }; /* payload files that a job writes: an ONNX model and its data */

struct store;
struct store_io; /* cache/store_io.h: the system calls of a commit, replaced in tests only */

struct store_options {
    const char *folder;        /* CacheDirectory; made (0700) when missing */
    struct keyring *keyring;   /* ownership passes to the store when store_open succeeds */
    uint64_t budget_bytes;     /* of artifacts, quarantine and evicted files still mapped; 0: no budget */
    uint64_t work_age_s;       /* unfinished work older than this is swept at start; 0: one week */
    unsigned max_open;         /* artifacts kept open without a lease; 0: 64 */
    bool strict;               /* lookup hashes every file of an artifact: then it is a pool function */
    const struct store_io *io; /* NULL: the real ones */
};

/* What start-up found and did; `bytes` are of objects. */
struct store_report {
    size_t n_artifacts;
    uint64_t bytes;
    size_t n_rehashed;    /* record missing or different: contents verified, fine */
    size_t n_quarantined; /* artifacts that did not verify; they will be built again */
    size_t n_untrusted;   /* left on disk, not served: their key is not trusted (now) */
    size_t
        n_unread; /* left on disk, not served: of a newer quantd, or unreadable at this start; nothing is swept then */
    size_t n_swept_objects; /* nothing referenced them */
    size_t n_swept_work;    /* too old, finished, or half of a pair */
    size_t n_swept_tmp;
    size_t n_work; /* unfinished jobs that can be resumed */
};

/*
 * Pool. Opens, or makes, the store in @o->folder and sweeps it. Reads no object whose record matches.
 * QD_E_BUSY: another process has it open. QD_E_UNSUPPORTED: a store of a newer format. @ret_report may be NULL.
 */
int store_open(const struct store_options *o, struct store **ret, struct store_report *ret_report,
               struct qd_error *err);

/* Pool. All leases and works must have been released (a bug otherwise). Writes last-use times. */
struct store *store_close(struct store *s);
DEFINE_CLEANUP(store_close, struct store *)

/*
 * Pool. Replaces the keyring (SIGHUP, `key trust`, revocation) and judges every artifact again:
 * those without a valid, trusted, unrevoked signature are not served from now on, and those that
 * have one again are. Takes @keyring.
 */
int store_set_keyring(struct store *s, struct keyring *keyring, struct qd_error *err);

/* --- Serving --- */

/* A counted hold on an artifact: it is not evicted, its descriptors stay open. All borrowed until released. */
struct lease {
    const struct manifest *manifest;
    struct bytes envelope;
    const int *fds; /* O_RDONLY, [n_fds], in the order of manifest->files: payload first */
    size_t n_fds;
};

/*
 * Loop. QD_E_NOT_FOUND: no such artifact. QD_E_UNTRUSTED: its key is not trusted. QD_E_CORRUPT: a file
 * of it was changed since it was verified; it is out of the store now and goes to quarantine with
 * the next pool call, so: build it again. The descriptors are the store's own (one open file
 * description for all clients: they may map and pread, a shared offset is nobody's).
 */
int store_lookup(struct store *s, const struct digest *key, struct lease **ret, struct qd_error *err);

/*
 * Loop. The same for one who asks often: what was looked at in the same turn of the loop is not looked at again. @turn:
 * its number; 0: always look.
 */
int store_lookup_in_turn(struct store *s, const struct digest *key, uint64_t turn, struct lease **ret,
                         struct qd_error *err);

/* Loop. Returns NULL. */
struct lease *lease_release(struct lease *l);
DEFINE_CLEANUP(lease_release, struct lease *)

/* Loop. Another hold on the same artifact. */
struct lease *lease_ref(struct lease *l);

/* --- Making --- */

/* The files of an unfinished job, to be handed to a worker as descriptors. */
struct store_work {
    struct digest key;
    size_t n_parts;
    int part_fds[STORE_PARTS_MAX]; /* O_RDWR, owned; [n_parts]; -1 once given up */
    int journal_fd;                /* O_RDWR, owned; -1 once given up */
    bool resumed;                  /* the files were there already: the journal says how far they are */
};

/* Pool. @n_parts: payload files, 1 to STORE_PARTS_MAX. QD_E_BUSY: the work of that key is open already. */
int store_work_open(struct store *s, const struct digest *key, size_t n_parts, struct store_work **ret,
                    struct qd_error *err);

/* Pool. Closes and keeps the files for another time. Returns NULL. */
struct store_work *store_work_close(struct store *s, struct store_work *w);

/* Pool. Closes and removes the files. Returns NULL. */
struct store_work *store_work_discard(struct store *s, struct store_work *w);

/* Pool. Discards unfinished work that is not open and that @wanted (called without locks) says no to. Returns how many.
 */
int store_work_sweep(struct store *s, bool (*wanted)(const struct digest *key, void *data), void *data,
                     struct qd_error *err);

struct store_part {
    const char *name; /* "model.gguf" */
    uint64_t bytes;   /* as planned */
};

struct store_commit {
    const struct manifest *manifest; /* all fields but format, files, n_files and created, which commit fills */
    struct store_part parts[STORE_PARTS_MAX]; /* as many as the work has */
    struct bytes tensors;                     /* table blobs from the worker; decoded here before anything is signed */
    struct bytes metadata;
    const struct signing_key *key;
    unsigned n_threads;           /* for hashing, >= 1 */
    const _Atomic int *cancel;    /* may be NULL; honoured until the first link */
    _Atomic uint64_t *done_bytes; /* may be NULL; payload bytes hashed */
};

/*
 * Pool. Makes the work an artifact: architecture.md section 5, in that order. The worker must have been
 * reaped: a writer that is left is QD_E_BUSY. Takes @w on success. On failure the store is as it was and
 * @w stays with the caller, descriptors closed: close it to resume later, or discard it.
 * QD_E_CORRUPT: size not as planned, bad tables. QD_E_EXISTS: the key is served already.
 */
int store_commit(struct store *s, struct store_work *w, const struct store_commit *c, struct qd_error *err);

/* Pool. Puts @envelope (of the same manifest, sealed by another key) in place of the ref of @key: key rotation. */
int store_reseal(struct store *s, const struct digest *key, const struct signing_key *with, struct qd_error *err);

/*
 * Pool. 0, or QD_E_NO_SPACE when the file system has not @bytes, @keep_free (of the disk, for others) and a reserve of
 * 16 MiB free, QD_E_LIMIT when the budget never has @bytes.
 */
int store_has_room(struct store *s, uint64_t bytes, uint64_t keep_free, struct qd_error *err);

/* Loop. Another budget from now on; 0: none. What is beyond it goes with the next store_gc. */
void store_set_budget(struct store *s, uint64_t budget_bytes);

/* --- Keeping --- */

struct store_entry {
    const struct manifest *manifest; /* borrowed for the call */
    struct key_id signer;
    uint64_t bytes;      /* of all its files; a file that two artifacts share counts in both */
    uint64_t last_use_s; /* seconds since 1970 */
    unsigned n_leases;
    bool pinned;
    bool trusted; /* served */
};

/*
 * Loop. Calls @each in order of model, then scheme, then key; non-zero stops and is returned. @each must not call the
 * store.
 */
int store_list(struct store *s, int (*each)(const struct store_entry *e, void *data), void *data);

struct store_verify {
    size_t n_files;
    uint64_t bytes;
    size_t n_bad;
    char bad[512]; /* what is wrong, a clause per bad file, "; " between */
};

/*
 * Pool. Hashes every file of an artifact and checks its ref. QD_E_CORRUPT, with @ret filled: it is in
 * quarantine now. @cancel and @done_bytes may be NULL.
 */
int store_verify(struct store *s, const struct digest *key, const _Atomic int *cancel, _Atomic uint64_t *done_bytes,
                 struct store_verify *ret, struct qd_error *err);

/*
 * Pool. Verifies the artifact whose turn it is; *ret_key says which. 1: done, 0: the store is empty, negative as
 * store_verify.
 */
int store_scrub_step(struct store *s, const _Atomic int *cancel, struct digest *ret_key, struct store_verify *ret,
                     struct qd_error *err);

/* Pool. Unlinks, never truncates: those who have it mapped keep it. QD_E_BUSY: pinned. */
int store_remove(struct store *s, const struct digest *key, struct qd_error *err);

/*
 * Pool. Removes an artifact that is not needed any more, as soon as nobody has it: while it is leased, or its first
 * file is open or mapped somewhere, QD_E_BUSY. *@probe, -1 at first and the caller's, is a descriptor of that file when
 * it is only the latter: inotify tells there when somebody has closed it (IN_CLOSE_NOWRITE); then call again.
 * QD_E_DENIED: pinned.
 */
int store_collect(struct store *s, const struct digest *key, int *probe, struct qd_error *err);

/* Pool. Pinned artifacts are never evicted. Survives restarts. */
int store_pin(struct store *s, const struct digest *key, struct qd_error *err);
int store_unpin(struct store *s, const struct digest *key, struct qd_error *err);

/*
 * Pool. Writes the last-use times that lookups left in memory, and buries what they found damaged. Not synced: a lost
 * one only ages an artifact.
 */
void store_touch(struct store *s);

struct store_usage {
    uint64_t object_bytes; /* each object once */
    uint64_t ghost_bytes;  /* evicted, still open or mapped somewhere */
    uint64_t quarantine_bytes;
    uint64_t work_bytes; /* blocks of unfinished jobs; no part of the budget */
    uint64_t budget_bytes;
    uint64_t free_bytes; /* of the file system */
    size_t n_artifacts;
};

/* Pool. */
int store_usage(struct store *s, struct store_usage *ret, struct qd_error *err);

struct store_gc {
    size_t n_evicted;
    uint64_t freed_bytes; /* of artifacts and quarantine; less what is still mapped */
    uint64_t over_bytes;  /* still over the target: pinned, leased or mapped */
};

/*
 * Pool. Evicts until at most @target_bytes are used: quarantine, then least recently used first; never pinned or leased
 * ones.
 */
int store_gc(struct store *s, uint64_t target_bytes, struct store_gc *ret, struct qd_error *err);

#endif
