#include "artifact/envelope.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/manifest.h"
#include "artifact/pack.h"
#include "kernels/core/bytes.h"
#include "kernels/core/io.h"

static const char signed_tag[] = "quantd manifest 1"; /* its NUL is part of the message */
static const char key_word[] = "quantd-ed25519 ";

enum { PUB_FILE_BYTES_MAX = 4096, KEYS_MAX = 4096 };

_Static_assert(PUBLIC_KEY_BYTES == crypto_sign_PUBLICKEYBYTES && SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519");

int key_id_of(const struct public_key *key, struct key_id *ret)
{
    struct digest d;
    int r = digest_message("key", (struct bytes){key->bytes, PUBLIC_KEY_BYTES}, &d, NULL);
    if (r == 0)
        memcpy(ret->bytes, d.bytes, KEY_ID_BYTES);
    return r;
}

void envelope_signed_message(struct bytes manifest, struct buffer *dst)
{
    buffer_put(dst, signed_tag, sizeof signed_tag);
    buffer_put(dst, manifest.data, manifest.n);
}

int envelope_encode(const struct envelope *e, struct buffer *dst, struct qd_error *err)
{
    if (e->manifest.n > MANIFEST_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "envelope: a manifest of %zu bytes, at most %d", e->manifest.n,
                       MANIFEST_BYTES_MAX);
    pack_map(dst, 3);
    pack_text(dst, "manifest");
    pack_bin(dst, e->manifest);
    pack_text(dst, "key_id");
    pack_bin(dst, (struct bytes){e->key_id.bytes, KEY_ID_BYTES});
    pack_text(dst, "signature");
    pack_bin(dst, (struct bytes){e->signature, SIGNATURE_BYTES});
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "envelope") : 0;
}

int envelope_print(struct bytes raw, struct digest *ret, struct qd_error *err)
{
    return digest_message("envelope", raw, ret, err);
}

int envelope_decode(struct bytes raw, struct envelope *ret, struct qd_error *err)
{
    if (raw.n > ENVELOPE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "envelope: %zu bytes, at most %d", raw.n, ENVELOPE_BYTES_MAX);
    struct cursor c = cursor_over(raw);
    struct envelope e;
    if (unpack_map(&c) != 3)
        c.failed = true;
    unpack_key(&c, "manifest");
    e.manifest = unpack_bin(&c);
    unpack_key(&c, "key_id");
    unpack_raw(&c, e.key_id.bytes, KEY_ID_BYTES);
    unpack_key(&c, "signature");
    unpack_raw(&c, e.signature, SIGNATURE_BYTES);
    if (c.failed)
        return err_new(err, QD_E_CORRUPT, "envelope: malformed at byte %zu of %zu", raw.n - cursor_left(&c), raw.n);
    if (cursor_left(&c))
        return err_new(err, QD_E_CORRUPT, "envelope: %zu bytes too many at its end", cursor_left(&c));
    *ret = e;
    return 0;
}

/* --- Keys as text --- */

/* "quantd-ed25519 <64 hex digits>[ comment]\n" and nothing else. */
static bool public_key_parse(const char *text, size_t n, struct public_key *ret)
{
    size_t word = sizeof key_word - 1, end = word + 2 * PUBLIC_KEY_BYTES;
    if (n <= end || memcmp(text, key_word, word) != 0 || text[n - 1] != '\n' || memchr(text, '\n', n - 1) ||
        memchr(text, 0, n) || (text[end] != ' ' && text[end] != '\n'))
        return false;
    return hex_bytes(text + word, ret->bytes, PUBLIC_KEY_BYTES);
}

static int public_key_read_at(int folder_fd, const char *name, struct public_key *ret, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(err, errno, "open public key '%s'", name);
    char text[PUB_FILE_BYTES_MAX];
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat public key '%s'", name);
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_CORRUPT, "public key '%s' is not a regular file", name);
    ssize_t n = pread_whole(fd, text, sizeof text, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read public key '%s'", name);
    struct public_key key;
    if (n == PUB_FILE_BYTES_MAX || !public_key_parse(text, (size_t)n, &key))
        return err_new(err, QD_E_CORRUPT,
                       "public key '%s' is not one line \"quantd-ed25519 <64 hex digits> [comment]\"", name);
    *ret = key;
    return 0;
}

int public_key_read(const char *path, struct public_key *ret, struct qd_error *err)
{
    return public_key_read_at(AT_FDCWD, path, ret, err);
}

int public_key_format(const struct public_key *key, const char *comment, struct buffer *dst)
{
    buffer_put(dst, key_word, sizeof key_word - 1);
    for (size_t i = 0; i < PUBLIC_KEY_BYTES; i++)
        buffer_printf(dst, "%02x", key->bytes[i]);
    buffer_printf(dst, "%s%.*s\n", *comment ? " " : "", (int)strcspn(comment, "\n"), comment);
    return dst->failed ? QD_E_NO_MEMORY : 0;
}

/* --- The keyring --- */

struct known_key {
    struct public_key key;
    struct key_id id;
    bool revoked;
};

struct keyring {
    struct known_key *keys; /* owned; a key may stand here twice: trusted and revoked */
    size_t n;
};

struct keyring *keyring_new(void)
{
    return calloc(1, sizeof(struct keyring));
}

struct keyring *keyring_free(struct keyring *k)
{
    if (k)
        free(k->keys);
    free(k);
    return NULL;
}

static int keyring_add(struct keyring *k, const struct public_key *key, bool revoked, struct qd_error *err)
{
    if (k->n == KEYS_MAX)
        return err_new(err, QD_E_LIMIT, "more than %d public keys", KEYS_MAX);
    struct known_key *grown = realloc(k->keys, (k->n + 1) * sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "a keyring of %zu keys", k->n + 1);
    k->keys = grown;
    struct known_key known = {.key = *key, .revoked = revoked};
    int r = key_id_of(key, &known.id);
    if (r < 0)
        return err_new(err, r, "the id of a public key");
    k->keys[k->n++] = known;
    return 0;
}

int keyring_trust(struct keyring *k, const struct public_key *key, struct qd_error *err)
{
    return keyring_add(k, key, false, err);
}

int keyring_revoke(struct keyring *k, const struct public_key *key, struct qd_error *err)
{
    return keyring_add(k, key, true, err);
}

int keyring_trust_file(struct keyring *k, const char *path, struct qd_error *err)
{
    struct public_key key;
    int r = public_key_read(path, &key, err);
    return r < 0 ? r : keyring_trust(k, &key, err);
}

static bool is_pub_name(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && name[0] != '.' && strcmp(name + n - 4, ".pub") == 0;
}

static DIR *closedir_null(DIR *d)
{
    (void)closedir(d); /* it was only read */
    return NULL;
}
DEFINE_CLEANUP(closedir_null, DIR *)

/* Adds every *.pub. Unreadable ones: an error when @revoked (fail closed), else counted and named. */
static int keyring_add_folder(struct keyring *k, const char *folder, bool revoked, struct qd_error *err)
{
    CLEANUP(closedir_null) DIR *d = opendir(folder);
    if (!d)
        return errno == ENOENT ? 0 : err_sys(err, errno, "open folder of keys '%s'", folder);
    int n_skipped = 0;
    for (struct dirent *entry; errno = 0, (entry = readdir(d));) {
        if (!is_pub_name(entry->d_name))
            continue;
        struct public_key key;
        int r = public_key_read_at(dirfd(d), entry->d_name, &key, err);
        if (r == 0)
            r = keyring_add(k, &key, revoked, err);
        else if (!revoked && n_skipped++ >= 0)
            r = err_in(err, 0, "folder of trusted keys '%s'", folder);
        if (r < 0)
            return err_in(err, r, "folder of keys '%s'", folder);
    }
    return errno ? err_sys(err, errno, "read folder of keys '%s'", folder) : n_skipped;
}

int keyring_trust_folder(struct keyring *k, const char *folder, struct qd_error *err)
{
    return keyring_add_folder(k, folder, false, err);
}

int keyring_revoke_folder(struct keyring *k, const char *folder, struct qd_error *err)
{
    return keyring_add_folder(k, folder, true, err);
}

static const struct known_key *keyring_find(const struct keyring *k, const struct key_id *id, bool revoked)
{
    for (size_t i = 0; i < k->n; i++)
        if (k->keys[i].revoked == revoked && memcmp(k->keys[i].id.bytes, id->bytes, KEY_ID_BYTES) == 0)
            return &k->keys[i];
    return NULL;
}

bool keyring_trusts(const struct keyring *k, const struct key_id *id)
{
    return keyring_find(k, id, false) && !keyring_find(k, id, true);
}

int envelope_verify(const struct envelope *e, const struct keyring *k, struct qd_error *err)
{
    char id[2 * KEY_ID_BYTES + 1];
    (void)sodium_bin2hex(id, sizeof id, e->key_id.bytes, KEY_ID_BYTES); /* returns id */
    if (keyring_find(k, &e->key_id, true))
        return err_new(err, QD_E_UNTRUSTED, "signed by key %s, which is revoked", id);
    const struct known_key *known = keyring_find(k, &e->key_id, false);
    if (!known)
        return err_hint(err, err_new(err, QD_E_UNTRUSTED, "signed by key %s, which is not trusted here", id),
                        "if you know that key, trust it: quantctl key trust FILE.pub");
    CLEANUP(buffer_clear) struct buffer message = {0};
    envelope_signed_message(e->manifest, &message);
    if (message.failed)
        return err_new(err, QD_E_NO_MEMORY, "a manifest of %zu bytes", e->manifest.n);
    if (crypto_sign_verify_detached(e->signature, message.data, message.n, known->key.bytes) != 0)
        return err_new(err, QD_E_UNTRUSTED, "the signature of key %s does not fit the manifest", id);
    return 0;
}
