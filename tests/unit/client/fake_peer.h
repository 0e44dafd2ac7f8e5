/*
 * A peer of the test's own that speaks the protocol and can lie: for what the real daemon does not
 * do on demand. It serves one small, properly signed artifact from files in a temporary folder.
 */
#ifndef QUANTD_TESTS_FAKE_PEER_H
#define QUANTD_TESTS_FAKE_PEER_H

#include <stdbool.h>

enum peer_lie {
    PEER_HONEST,
    PEER_OTHER_VERSION, /* welcome says 2 */
    PEER_BAD_SIGNATURE, /* one bit of the manifest flipped */
    PEER_BAD_TABLE,     /* one bit of the tensor table */
    PEER_BAD_METADATA,
    PEER_SHORT_PAYLOAD,  /* a byte is missing */
    PEER_FIFO,           /* the payload is none */
    PEER_FEW_FDS,        /* the last file is missing */
    PEER_OTHER_KEY,      /* the reply names another artifact */
    PEER_GARBAGE,        /* no message */
    PEER_VANISHES_ONCE,  /* closes instead of the first answer, then is honest */
    PEER_VANISHES,       /* always */
    PEER_TELLS_PROGRESS, /* two events before the answer */
    PEER_SAYS_NO         /* an error reply with a hint */
};

struct fake_peer;

/* Starts to serve; the folder holds quantd.sock and quantd.pub. */
struct fake_peer *fake_peer_start(void);
void fake_peer_stop(struct fake_peer *p); /* and removes the folder */

void fake_peer_lie(struct fake_peer *p, enum peer_lie lie);
const char *fake_peer_socket(const struct fake_peer *p);
const char *fake_peer_folder(const struct fake_peer *p);
unsigned fake_peer_requests(const struct fake_peer *p); /* but hello */
unsigned fake_peer_informed(const struct fake_peer *p); /* opens that said to have this very envelope */
unsigned fake_peer_connections(const struct fake_peer *p);

/* Serves an artifact of that layout from now on; r4k4p128 packs tensor "second". */
void fake_peer_layout(struct fake_peer *p, const char *layout);

/* Flips a bit of the payload file on disk; once more: flips it back. */
void fake_peer_flip_payload(struct fake_peer *p, unsigned long offset);

/* Writes quantd.pub's key to the file at @path. */
void fake_peer_write_key(struct fake_peer *p, const char *path);

/* Replaces the payload's inode by a copy of the same bytes. */
void fake_peer_replace_payload(struct fake_peer *p);

enum { FAKE_SHARDS = 2, FAKE_TAIL_BYTES = 8192 }; /* the payload: 16 MiB and a bit, two tensors, one in each shard */

#endif
