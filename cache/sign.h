/*
 * The signing key of this daemon: Ed25519 (libsodium), in locked memory, wiped when freed.
 *
 * It comes from the folder of systemd credentials when that holds a "quantd.key", else from
 * "quantd.key" in the state folder, made at the first start (mode 0600). The file is 104 bytes:
 * magic, seed, public key, checksum (docs/formats/keys.md), so that damage is noticed: a damaged
 * file is QD_E_CORRUPT and is never replaced silently. Only sign.c sees a secret key.
 *
 * Loading, publishing and rotating block on the disk. manifest_seal is thread-safe: it only reads.
 */
#ifndef QUANTD_CACHE_SIGN_H
#define QUANTD_CACHE_SIGN_H

#include <stdbool.h>

#include "artifact/envelope.h"
#include "kernels/core/bytes.h"
#include "kernels/core/cleanup.h"

#define SIGNING_KEY_FILE "quantd.key" /* in the credentials folder and in the state folder */

struct signing_key;

/*
 * @state_dir: where the key lives, an existing folder; @credentials_dir: $CREDENTIALS_DIRECTORY or
 * NULL. *ret_created (may be NULL) says whether a new key was made: worth a log line.
 * QD_E_CORRUPT: wrong size, checksum or public key. QD_E_DENIED: others may read or write the file.
 */
int signing_key_load_or_create(const char *state_dir, const char *credentials_dir, struct signing_key **ret,
                               bool *ret_created, struct qd_error *err);
struct signing_key *signing_key_free(struct signing_key *key);
DEFINE_CLEANUP(signing_key_free, struct signing_key *)

/* Borrowed; lives as long as @key. */
const struct public_key *signing_key_public(const struct signing_key *key);
const struct key_id *signing_key_id(const struct signing_key *key);

/* Writes "quantd-ed25519 <hex> <comment>\n" to @path (quantd.pub beside the socket, mode 0644) by tmp + rename. */
int signing_key_publish(const struct signing_key *key, const char *path, const char *comment, struct qd_error *err);

/* The signed envelope of a manifest's bytes, appended to @dst. */
int manifest_seal(const struct signing_key *key, struct bytes manifest, struct buffer *dst, struct qd_error *err);

/*
 * Makes a new key in @state_dir in place of the old one. The old public key is kept as
 * <state_dir>/retired/<key id>.pub, so that its artifacts stay trusted until they are sealed again
 * (keyring_trust_folder reads that folder; moving the file to a revoked folder ends it). A key
 * from a systemd credential is not ours to replace: QD_E_UNSUPPORTED.
 */
int signing_key_rotate(const char *state_dir, const char *credentials_dir, struct signing_key **ret,
                       struct qd_error *err);

#endif
