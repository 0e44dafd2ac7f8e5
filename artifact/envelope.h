/*
 * The signed envelope: msgpack {"manifest": bin, "key_id": bin 8, "signature": bin 64}. The
 * signature is Ed25519 (libsodium) over "quantd manifest 1\0" || manifest bytes. key_id = the first
 * 8 bytes of digest_message("key", public key). Making signatures is cache/sign.h alone; this
 * header checks them against a keyring. docs/formats/envelope.md.
 */
#ifndef QUANTD_ARTIFACT_ENVELOPE_H
#define QUANTD_ARTIFACT_ENVELOPE_H

#include "artifact/digest.h"

enum { KEY_ID_BYTES = 8, PUBLIC_KEY_BYTES = 32, SIGNATURE_BYTES = 64, ENVELOPE_BYTES_MAX = 50 << 10 };

struct public_key {
    uint8_t bytes[PUBLIC_KEY_BYTES];
};

struct key_id {
    uint8_t bytes[KEY_ID_BYTES];
};

struct envelope {
    struct bytes manifest; /* borrows the raw bytes */
    struct key_id key_id;
    uint8_t signature[SIGNATURE_BYTES];
};

int key_id_of(const struct public_key *key, struct key_id *ret);

/* What is signed for a manifest: tag, NUL, manifest bytes. */
void envelope_signed_message(struct bytes manifest, struct buffer *dst);
int envelope_encode(const struct envelope *e, struct buffer *dst, struct qd_error *err);
/* Names an envelope by its bytes: what a client says it has. */
int envelope_print(struct bytes raw, struct digest *ret, struct qd_error *err);
int envelope_decode(struct bytes raw, struct envelope *ret, struct qd_error *err);

/*
 * Trusted and revoked public keys. A *.pub file is text: "quantd-ed25519 <64 hex digits>[ comment]\n".
 * Revoked always wins. A file that cannot be parsed in a revoked folder is an error (fail closed),
 * in a trusted folder it is skipped and named in @err of keyring_add_folder's positive result.
 */
struct keyring;
struct keyring *keyring_new(void);
struct keyring *keyring_free(struct keyring *k);
DEFINE_CLEANUP(keyring_free, struct keyring *)
int keyring_trust(struct keyring *k, const struct public_key *key, struct qd_error *err);
int keyring_revoke(struct keyring *k, const struct public_key *key, struct qd_error *err);
int keyring_trust_file(struct keyring *k, const char *path, struct qd_error *err);
/* All *.pub of a folder; a missing folder is fine. */
int keyring_trust_folder(struct keyring *k, const char *folder, struct qd_error *err);
int keyring_revoke_folder(struct keyring *k, const char *folder, struct qd_error *err);
int public_key_read(const char *path, struct public_key *ret, struct qd_error *err);
int public_key_format(const struct public_key *key, const char *comment, struct buffer *dst);

/* Whether signatures of that key would count: trusted and not revoked. */
bool keyring_trusts(const struct keyring *k, const struct key_id *id);

/* 0, or QD_E_UNTRUSTED with the reason: unknown key, revoked key, bad signature. */
int envelope_verify(const struct envelope *e, const struct keyring *k, struct qd_error *err);

#endif
