#include "cache/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/core/io.h"

enum { SEED_BYTES = crypto_sign_SEEDBYTES, MAGIC_BYTES = 8 };

/* quantd.key as it lies on disk; docs/formats/keys.md. */
struct key_file {
    uint8_t magic[MAGIC_BYTES];
    uint8_t seed[SEED_BYTES];
    uint8_t public[PUBLIC_KEY_BYTES];
    uint8_t checksum[DIGEST_BYTES]; /* digest_message("key file", all before) */
};
_Static_assert(sizeof(struct key_file) == 104, "no padding in quantd.key");

static const uint8_t magic[MAGIC_BYTES] = {'Q', 'D', 'K', 'E', 'Y', 0, 0, 1};

/* Locked and out of core dumps (sodium_malloc) for as long as it lives. */
struct signing_key {
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    struct public_key public;
    struct key_id id;
};

struct signing_key *signing_key_free(struct signing_key *key)
{
    sodium_free(key); /* wipes; NULL is fine */
    return NULL;
}

static struct key_file *key_file_free(struct key_file *f)
{
    sodium_free(f);
    return NULL;
}
DEFINE_CLEANUP(key_file_free, struct key_file *)

const struct public_key *signing_key_public(const struct signing_key *key)
{
    return &key->public;
}

const struct key_id *signing_key_id(const struct signing_key *key)
{
    return &key->id;
}

static int key_from_seed(const uint8_t *seed, struct signing_key **ret, struct qd_error *err)
{
    CLEANUP(signing_key_free) struct signing_key *key = sodium_malloc(sizeof *key);
    if (!key)
        return err_new(err, QD_E_NO_MEMORY, "locked memory for the signing key");
    (void)crypto_sign_seed_keypair(key->public.bytes, key->secret, seed); /* always 0 */
    int r = key_id_of(&key->public, &key->id);
    if (r < 0)
        return err_new(err, r, "the id of the signing key");
    (void)sodium_mprotect_readonly(key); /* a guard against our own bugs; fine without */
    *ret = steal(&key);
    return 0;
}

static int key_file_checksum(const struct key_file *f, struct digest *ret, struct qd_error *err)
{
    return digest_message("key file", (struct bytes){(const uint8_t *)f, offsetof(struct key_file, checksum)}, ret,
                          err);
}

static int damaged(struct qd_error *err, const char *path, const char *what)
{
    return err_hint(err, err_new(err, QD_E_CORRUPT, "signing key '%s' is damaged: %s", path, what),
                    "restore the file from a backup, or make a new key with: quantctl key rotate");
}

static int key_from_file(const struct key_file *f, const char *path, struct signing_key **ret, struct qd_error *err)
{
    struct digest sum;
    int r = key_file_checksum(f, &sum, err);
    if (r < 0)
        return r;
    if (sodium_memcmp(f->magic, magic, MAGIC_BYTES) != 0)
        return damaged(err, path, "it does not start like a key file");
    if (sodium_memcmp(sum.bytes, f->checksum, DIGEST_BYTES) != 0)
        return damaged(err, path, "its checksum does not fit");
    CLEANUP(signing_key_free) struct signing_key *key = NULL;
    r = key_from_seed(f->seed, &key, err);
    if (r < 0)
        return r;
    if (sodium_memcmp(key->public.bytes, f->public, PUBLIC_KEY_BYTES) != 0)
        return damaged(err, path, "its public key does not belong to its seed");
    *ret = steal(&key);
    return 0;
}

/* @ours: a file that we made, which nobody else may touch; a credential's mode is systemd's business. */
static int key_read(int fd, const char *path, bool ours, struct signing_key **ret, struct qd_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat signing key '%s'", path);
    if (!S_ISREG(st.st_mode) || st.st_size != sizeof(struct key_file))
        return damaged(err, path, "it is not a file of 104 bytes");
    if (ours && (st.st_mode & 077))
        return err_hint(
            err, err_new(err, QD_E_DENIED, "signing key '%s' is open to others (mode %03o)", path, st.st_mode & 0777),
            "nobody else may have read it; then: chmod 600 '%s'", path);
    CLEANUP(key_file_free) struct key_file *f = sodium_malloc(sizeof *f);
    if (!f)
        return err_new(err, QD_E_NO_MEMORY, "locked memory for the signing key");
    ssize_t n = pread_whole(fd, f, sizeof *f, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read signing key '%s'", path);
    if (n != sizeof *f)
        return damaged(err, path, "it ends early");
    return key_from_file(f, path, ret, err);
}

/* 1: there is no such file. */
static int key_load(const char *folder, bool ours, struct signing_key **ret, struct qd_error *err)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/" SIGNING_KEY_FILE, folder); /* too long: open fails */
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 1 : err_sys(err, errno, "open signing key '%s'", path);
    return key_read(fd, path, ours, ret, err);
}

/* @name in @folder_fd holds @data for ever, or the old file does. @replace: an old file gives way. */
static int write_durably(int folder_fd, const char *name, struct bytes data, mode_t mode, bool replace,
                         struct qd_error *err)
{
    char tmp[300];
    (void)snprintf(tmp, sizeof tmp, ".%s.new", name);
    (void)unlinkat(folder_fd, tmp, 0); /* left by a crash, or not there */
    CLEANUP(fd_close) int fd = openat(folder_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return err_sys(err, errno, "create '%s'", tmp);
    int r = write_whole(fd, data.data, data.n);
    if (r < 0)
        r = err_sys(err, -r, "write '%s'", tmp);
    else if (fchmod(fd, mode) < 0 || fsync(fd) < 0) /* the umask may have taken bits */
        r = err_sys(err, errno, "sync '%s'", tmp);
    else if (renameat2(folder_fd, tmp, folder_fd, name, replace ? 0 : RENAME_NOREPLACE) < 0)
        r = err_sys(err, errno, "put '%s' in place", name);
    else if (fsync(folder_fd) < 0)
        r = err_sys(err, errno, "sync the folder of '%s'", name);
    if (r < 0)
        (void)unlinkat(folder_fd, tmp, 0); /* the error is the one above */
    return r;
}

static int open_folder(const char *path, struct qd_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(err, errno, "open folder '%s'", path) : fd;
}

static int key_create(const char *state_dir, bool replace, struct signing_key **ret, struct qd_error *err)
{
    CLEANUP(key_file_free) struct key_file *f = sodium_malloc(sizeof *f);
    CLEANUP(signing_key_free) struct signing_key *key = NULL;
    if (!f)
        return err_new(err, QD_E_NO_MEMORY, "locked memory for the signing key");
    memcpy(f->magic, magic, sizeof magic);
    randombytes_buf(f->seed, SEED_BYTES);
    int r = key_from_seed(f->seed, &key, err);
    if (r < 0 || !key)
        return r;
    memcpy(f->public, key->public.bytes, PUBLIC_KEY_BYTES);
    struct digest sum;
    r = key_file_checksum(f, &sum, err);
    if (r < 0)
        return r;
    memcpy(f->checksum, sum.bytes, DIGEST_BYTES);
    CLEANUP(fd_close) int folder = open_folder(state_dir, err);
    if (folder < 0)
        return folder;
    r = write_durably(folder, SIGNING_KEY_FILE, (struct bytes){(uint8_t *)f, sizeof *f}, 0600, replace, err);
    if (r < 0)
        return err_in(err, r, "signing key in '%s'", state_dir);
    *ret = steal(&key);
    return 0;
}

static int sodium_ready(struct qd_error *err)
{
    return sodium_init() < 0 ? err_new(err, QD_E_SYSTEM, "libsodium cannot start") : 0;
}

int signing_key_load_or_create(const char *state_dir, const char *credentials_dir, struct signing_key **ret,
                               bool *ret_created, struct qd_error *err)
{
    int r = sodium_ready(err);
    if (r < 0)
        return r;
    r = credentials_dir ? key_load(credentials_dir, false, ret, err) : 1;
    if (r == 1)
        r = key_load(state_dir, true, ret, err);
    bool create = r == 1;
    if (create)
        r = key_create(state_dir, false, ret, err);
    if (r == 0 && ret_created)
        *ret_created = create;
    return r;
}

static int publish_in(const char *folder, const char *name, const struct public_key *key, const char *comment,
                      struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer text = {0};
    int r = public_key_format(key, comment, &text);
    if (r < 0)
        return err_new(err, r, "public key file");
    CLEANUP(fd_close) int fd = open_folder(folder, err);
    if (fd < 0)
        return fd;
    return write_durably(fd, name, buffer_span(&text), 0644, true, err);
}

int signing_key_publish(const struct signing_key *key, const char *path, const char *comment, struct qd_error *err)
{
    const char *slash = strrchr(path, '/');
    CLEANUP(free)
    char *folder = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    if (!folder)
        return err_new(err, QD_E_NO_MEMORY, "publish '%s'", path);
    int r = publish_in(folder, slash ? slash + 1 : path, &key->public, comment, err);
    return r < 0 ? err_in(err, r, "publish the public key '%s'", path) : 0;
}

int manifest_seal(const struct signing_key *key, struct bytes manifest, struct buffer *dst, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    struct envelope e = {.manifest = manifest, .key_id = key->id};
    envelope_signed_message(manifest, &message);
    if (message.failed)
        return err_new(err, QD_E_NO_MEMORY, "sign a manifest of %zu bytes", manifest.n);
    (void)crypto_sign_detached(e.signature, NULL, message.data, message.n, key->secret); /* always 0 */
    return envelope_encode(&e, dst, err);
}

/* Keeps the public half of the key that is about to go. A damaged old key has none to keep. */
static int retire(const char *state_dir, const struct signing_key *old, struct qd_error *err)
{
    char folder[4096], id[2 * KEY_ID_BYTES + 1], name[sizeof id + 4];
    (void)sodium_bin2hex(id, sizeof id, old->id.bytes, KEY_ID_BYTES); /* returns id */
    (void)snprintf(name, sizeof name, "%s.pub", id);
    (void)snprintf(folder, sizeof folder, "%s/retired", state_dir);
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make '%s'", folder);
    return publish_in(folder, name, &old->public, "retired", err);
}

int signing_key_rotate(const char *state_dir, const char *credentials_dir, struct signing_key **ret,
                       struct qd_error *err)
{
    CLEANUP(signing_key_free) struct signing_key *old = NULL;
    int r = sodium_ready(err);
    if (r < 0)
        return r;
    r = credentials_dir ? key_load(credentials_dir, false, &old, err) : 1;
    if (r == 0)
        return err_hint(err, err_new(err, QD_E_UNSUPPORTED, "the signing key is a systemd credential"),
                        "replace the credential '" SIGNING_KEY_FILE "' and restart quantd");
    if (r == 1)
        r = key_load(state_dir, true, &old, err);
    if (r == 0)
        r = retire(state_dir, old, err);
    if (r < 0 && r != QD_E_CORRUPT) /* a damaged key is what one rotates away from */
        return r;
    return key_create(state_dir, true, ret, err);
}
