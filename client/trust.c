#include "client/trust.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { N_FOLDERS = 2, N_SOURCES = 1 + 2 * N_FOLDERS };

/* What tells one state of a folder or file from another; all zero where there is none. */
struct stamp {
    uint64_t dev, ino, bytes;
    struct timespec mtime, ctime;
};

struct trust {
    struct trust *next;
    unsigned n_users;        /* under the table's lock */
    char *socket_path;       /* owned */
    pthread_mutex_t lock;    /* over what follows */
    struct keyring *keyring; /* owned */
    uint64_t serial;         /* never used twice in this process */
    struct stamp stamps[N_SOURCES];
    int64_t checked_ms;
    char note[256]; /* why the key beside the socket is not trusted; "" */
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct trust *table; /* one for each socket in use */
static _Atomic uint64_t last_serial;

static const char *const folders[N_FOLDERS] = {"trusted.d", "revoked.d"};

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- where keys are -------------------------------------------------------------------------- */

static bool fits(int n)
{
    return n > 0 && n < PATH_MAX;
}

/* quantd.pub in the socket's folder. */
static bool published_path(const char *socket_path, char dst[PATH_MAX])
{
    const char *slash = strrchr(socket_path, '/');
    int folder_bytes = slash ? (int)(slash - socket_path) : 1;
    return fits(snprintf(dst, PATH_MAX, "%.*s/quantd.pub", folder_bytes, slash ? socket_path : "."));
}

static bool system_folder(const char *name, char dst[PATH_MAX])
{
    return fits(snprintf(dst, PATH_MAX, "/etc/quantd/%s", name));
}

static bool user_folder(const char *name, char dst[PATH_MAX])
{
    const char *xdg = secure_getenv("XDG_CONFIG_HOME");
    const char *home = secure_getenv("HOME");
    if (xdg && *xdg == '/')
        return fits(snprintf(dst, PATH_MAX, "%s/quantd/%s", xdg, name));
    return home && *home == '/' && fits(snprintf(dst, PATH_MAX, "%s/.config/quantd/%s", home, name));
}

static void stamp_of(bool named, const char *path, struct stamp *ret)
{
    struct stat st;
    *ret = (struct stamp){0};
    if (named && stat(path, &st) == 0)
        *ret = (struct stamp){st.st_dev, st.st_ino, (uint64_t)st.st_size, st.st_mtim, st.st_ctim};
}

static void take_stamps(const struct trust *t, struct stamp ret[N_SOURCES])
{
    char path[PATH_MAX] = "";
    bool named = published_path(t->socket_path, path);
    stamp_of(named, path, &ret[0]);
    for (size_t i = 0; i < N_FOLDERS; i++) {
        named = system_folder(folders[i], path);
        stamp_of(named, path, &ret[1 + i]);
        named = user_folder(folders[i], path);
        stamp_of(named, path, &ret[1 + N_FOLDERS + i]);
    }
}

/* ---- the key beside the socket ------------------------------------------------------------------- */

/*
 * On a socket that systemd opened the peer's uid is systemd's, so the path and its owner are what is
 * trusted: a folder that only its owner writes, and a file in it that belongs to root, to the folder's owner or to the
 * socket's.
 */
static const char *why_not_trusted(const char *socket_path, const char *pub_path)
{
    char folder[PATH_MAX];
    struct stat dir, pub, sock;
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(pub_path, '/') - pub_path),
                   pub_path); /* shorter than pub_path */
    if (stat(folder[0] ? folder : "/", &dir) < 0 || lstat(pub_path, &pub) < 0 || stat(socket_path, &sock) < 0)
        return "it cannot be looked at";
    if (!S_ISREG(pub.st_mode))
        return "it is not a regular file";
    if (pub.st_mode & (S_IWGRP | S_IWOTH))
        return "others than its owner can write it";
    if (dir.st_mode & (S_IWGRP | S_IWOTH))
        return "others than its owner can write its folder";
    if (pub.st_uid != 0 && pub.st_uid != dir.st_uid && pub.st_uid != sock.st_uid)
        return "it belongs neither to root nor to the owner of the socket or its folder";
    return NULL;
}

static void trust_published(struct trust *t, struct keyring *k)
{
    char path[PATH_MAX];
    struct qd_error why;
    t->note[0] = '\0';
    if (!published_path(t->socket_path, path) || access(path, F_OK) < 0)
        return;
    const char *reason = why_not_trusted(t->socket_path, path);
    if (!reason && keyring_trust_file(k, path, &why) < 0)
        reason = why.message;
    if (reason)
        (void)snprintf(t->note, sizeof t->note, "%.150s is not trusted: %.80s", path, reason);
}

static int load_folders(struct keyring *k, struct qd_error *err)
{
    static int (*const add[N_FOLDERS])(struct keyring *, const char *, struct qd_error *) = {keyring_trust_folder,
                                                                                             keyring_revoke_folder};
    char path[PATH_MAX];
    for (size_t i = 0; i < N_FOLDERS; i++) {
        int r = system_folder(folders[i], path) ? add[i](k, path, err) : 0;
        if (r >= 0 && user_folder(folders[i], path))
            r = add[i](k, path, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Reads all keys again. On failure nothing is trusted any more: what is revoked may be unreadable. */
static int load(struct trust *t, struct qd_error *err)
{
    t->keyring = keyring_free(t->keyring);
    t->serial = ++last_serial;
    take_stamps(t, t->stamps); /* before reading: a change meanwhile is seen next time */
    t->checked_ms = now_ms();
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    if (!k)
        return err_new(err, QD_E_NO_MEMORY, "trusted keys");
    trust_published(t, k);
    int r = load_folders(k, err);
    if (r < 0)
        return err_in(err, r, "trusted keys");
    t->keyring = steal(&k);
    return 0;
}

static int refresh(struct trust *t, struct qd_error *err)
{
    struct stamp stamps[N_SOURCES];
    if (t->keyring && now_ms() - t->checked_ms < TRUST_CHECK_MS)
        return 0;
    take_stamps(t, stamps);
    t->checked_ms = now_ms();
    if (t->keyring && memcmp(stamps, t->stamps, sizeof stamps) == 0)
        return 0;
    return load(t, err);
}

/* ---- shared by the clients of a socket ------------------------------------------------------------ */

static struct trust *trust_new(const char *socket_path)
{
    struct trust *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->socket_path = strdup(socket_path);
    if (!t->socket_path || pthread_mutex_init(&t->lock, NULL) != 0) {
        free(t->socket_path);
        free(t);
        return NULL;
    }
    t->n_users = 1;
    return t;
}

int trust_get(const char *socket_path, struct trust **ret, struct qd_error *err)
{
    (void)pthread_mutex_lock(&table_lock); /* fails only where it was never made */
    struct trust *t = table;
    while (t && strcmp(t->socket_path, socket_path) != 0)
        t = t->next;
    if (t) {
        t->n_users++;
    } else if ((t = trust_new(socket_path))) {
        t->next = table;
        table = t;
    }
    (void)pthread_mutex_unlock(&table_lock);
    if (!t)
        return err_new(err, QD_E_NO_MEMORY, "trusted keys");
    (void)pthread_mutex_lock(&t->lock);
    int r = refresh(t, err);
    (void)pthread_mutex_unlock(&t->lock);
    if (r < 0) {
        (void)trust_put(t);
        return r;
    }
    *ret = t;
    return 0;
}

struct trust *trust_put(struct trust *t)
{
    if (!t)
        return NULL;
    (void)pthread_mutex_lock(&table_lock);
    bool last = --t->n_users == 0;
    if (last) {
        struct trust **at = &table;
        while (*at != t)
            at = &(*at)->next;
        *at = t->next;
    }
    (void)pthread_mutex_unlock(&table_lock);
    if (!last)
        return NULL;
    (void)keyring_free(t->keyring);
    (void)pthread_mutex_destroy(&t->lock);
    free(t->socket_path);
    free(t);
    return NULL;
}

static int ask_keyring(struct trust *t, const struct envelope *e, uint64_t known, struct qd_error *err)
{
    int r = refresh(t, err);
    if (r < 0 || t->serial == known)
        return r;
    r = envelope_verify(e, t->keyring, err);
    return r == QD_E_UNTRUSTED && t->note[0] ? err_hint(err, r, "%s", t->note) : r;
}

int trust_verify(struct trust *t, const struct envelope *e, uint64_t known, uint64_t *ret_serial, struct qd_error *err)
{
    (void)pthread_mutex_lock(&t->lock);
    int r = ask_keyring(t, e, known, err);
    if (r == 0)
        *ret_serial = t->serial;
    (void)pthread_mutex_unlock(&t->lock);
    return r;
}
