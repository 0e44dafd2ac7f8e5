/* A store in a folder of its own, a key that signs, and small artifacts to put in. */
#ifndef QUANTD_TESTS_CACHE_FIXTURE_H
#define QUANTD_TESTS_CACHE_FIXTURE_H

#include "cache/sign.h"
#include "cache/store.h"
#include "cache/store_io.h"

struct fixture {
    char folder[64]; /* holds state/ and cache/ */
    char cache[80];
    struct signing_key *key; /* owned */
    struct store *store;     /* owned; NULL while closed */
    struct store_report report;
    struct store_options options; /* for the next open; folder and keyring are set by it */
};

void fixture_init(struct fixture *f, const char *where);
void fixture_open(struct fixture *f);
int fixture_try_open(struct fixture *f, struct qd_error *err);
void fixture_close(struct fixture *f);
void fixture_clear(struct fixture *f); /* closes and removes everything */
struct keyring *fixture_keyring(const struct fixture *f);

/* The key, payload (of @n bytes) and tables of artifact @number; the same for the same number. */
struct digest sample_key(unsigned number);
void sample_payload(unsigned number, size_t n, struct buffer *dst);

/* Opens work, writes the payload, commits. */
int sample_commit(struct fixture *f, unsigned number, size_t n, struct qd_error *err);
/* The commit alone, of a work that is open and written. */
int sample_commit_work(struct fixture *f, struct store_work *w, unsigned number, size_t n, struct qd_error *err);
int sample_write(struct store_work *w, unsigned number, size_t n); /* 0 or -errno */

/* Every file of the artifact read through the lease is what the manifest says, the payload what was committed. */
bool sample_is_served(struct fixture *f, unsigned number, size_t n);

/* Path of file @i of a served artifact below the cache folder: "<cache>/objects/ab/cd...". */
void object_path(struct fixture *f, unsigned number, size_t i, char dst[256]);
void run(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* a shell command that must succeed */
int count_files(const struct fixture *f, const char *below);

#endif
