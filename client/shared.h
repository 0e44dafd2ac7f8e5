/*
 * Shared: what this process knows of one artifact: its envelope, decoded tables, descriptors and
 * mapping. All handles of the same artifact share one, so that opening it again costs a comparison. When the
 * last handle goes, the payload's mapping and descriptors go too (the store may then evict the file); envelope
 * and tables of the last SHARED_IDLE_MAX artifacts are kept.
 *
 * Any thread. Immutable once returned, but for the metadata and the verification marks (own lock) and the print
 * (the list's).
 */
#ifndef QUANTD_CLIENT_SHARED_H
#define QUANTD_CLIENT_SHARED_H

#include <pthread.h>
#include <quantd/quantd.h>

#include "artifact/manifest.h"
#include "artifact/tables.h"
#include "client/trust.h"
#include "ipc/packet.h"

enum { SHARED_IDLE_MAX = 4 };

/* One file of the manifest, as received. */
struct shared_file {
    int fd; /* owned; -1 while idle */
    uint64_t dev, ino;
    const void *map;      /* of a payload file, while in use */
    uint32_t first_shard; /* of a payload file: index of its first bit in @verified */
};

struct shared {
    struct shared *next; /* process-wide list, newest first */
    unsigned n_users;
    unsigned n_hints;       /* requests under way that named it */
    struct buffer envelope; /* the bytes that were verified */
    struct digest print;    /* of them: what the daemon is told that we have; made by the first hint */
    bool has_print;
    uint64_t serial;     /* state of trust that verified them last */
    struct arena *arena; /* owned: manifest, files, tensors, views, index */
    struct manifest manifest;
    struct tensor_table table;
    struct qd_tensor *views;
    uint32_t *index; /* open addressing by name; 0: free, else 1 + tensor */
    uint32_t index_mask;
    uint32_t n_payload;        /* the first files of the manifest */
    struct shared_file *files; /* [manifest.n_files] */
    char key[DIGEST_HEX_BYTES], source[DIGEST_HEX_BYTES], digest[DIGEST_HEX_BYTES];
    char signer[2 * KEY_ID_BYTES + 1];
    struct qd_artifact_info info;

    pthread_mutex_t lock;  /* over what follows */
    struct digest *leaves; /* owned; the signed shard list, NULL before the first use */
    uint32_t n_leaves;
    uint8_t *verified; /* owned; a byte for each shard of the payload */
    bool meta_loaded;
    struct arena *meta_arena; /* owned */
    void *meta_raw;           /* owned; the table's bytes, which values borrow */
    struct meta_table meta;
};

/*
 * Takes the descriptors of @packet: the envelope, then the manifest's files. Verified against
 * @trust; sizes and tables checked; payload mapped. @key is what the daemon said it would be.
 */
int shared_open(struct trust *trust, const char *key, struct packet *packet, struct shared **ret, struct qd_error *err);

/*
 * What is known of an artifact of that model, scheme and layout (NULL: the defaults), held so that its tables stay: a
 * guess, to be told to the daemon as its print. NULL: nothing. The hold ends with shared_open_again or
 * shared_drop_hint.
 */
struct shared *shared_hint(const char *model, const char *scheme, const char *layout);
struct shared *shared_drop_hint(struct shared *hint);

/* shared_open where the guess was right: @packet brings the payload files alone. Takes @hint, also on failure. */
int shared_open_again(struct trust *trust, const char *key, struct packet *packet, struct shared *hint,
                      struct shared **ret, struct qd_error *err);
struct shared *shared_put(struct shared *s);
DEFINE_CLEANUP(shared_put, struct shared *)

/* The tensor of that name; NULL where there is none. */
const struct qd_tensor *shared_tensor(const struct shared *s, const char *name);

/* Reads file @i of the manifest whole (malloc, owned by the caller, one byte longer) and checks its digest. */
int shared_read(const struct shared *s, size_t i, void **ret, struct qd_error *err);

#endif
