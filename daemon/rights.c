#include "daemon/rights.h"

#include <endian.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/stamp.h"

/* linux/posix_acl_xattr.h: a header of version 2, then entries; little-endian. */
enum {
    ACL_VERSION = 2,
    ACL_BYTES_MAX = 4 + 8 * 256,
    ACL_USER = 0x02,
    ACL_GROUP_OBJ = 0x04,
    ACL_GROUP = 0x08,
    ACL_MASK = 0x10
};
struct acl_entry {
    uint16_t tag, perm;
    uint32_t id;
};

static bool in_group(const struct credentials *who, gid_t gid)
{
    if (who->gid == gid)
        return true;
    for (size_t i = 0; i < who->n_groups; i++)
        if (who->groups[i] == gid)
            return true;
    return false;
}

static bool acl_entry_at(const void *acl, size_t acl_bytes, size_t i, struct acl_entry *ret)
{
    if (4 + (i + 1) * sizeof *ret > acl_bytes)
        return false;
    memcpy(ret, (const char *)acl + 4 + i * sizeof *ret, sizeof *ret);
    *ret = (struct acl_entry){.tag = le16toh(ret->tag), .perm = le16toh(ret->perm), .id = le32toh(ret->id)};
    return true;
}

static unsigned acl_mask(const void *acl, size_t acl_bytes)
{
    struct acl_entry e;
    for (size_t i = 0; acl_entry_at(acl, acl_bytes, i, &e); i++)
        if (e.tag == ACL_MASK)
            return e.perm;
    return 7;
}

/* acl(5), "access check algorithm", steps 2 to 4; step 1 (the owner) is the caller's. */
static bool acl_allows(const struct credentials *who, const struct stat *st, const void *acl, size_t acl_bytes,
                       unsigned want)
{
    unsigned mask = acl_mask(acl, acl_bytes);
    bool any_group = false;
    struct acl_entry e;
    for (size_t i = 0; acl_entry_at(acl, acl_bytes, i, &e); i++)
        if (e.tag == ACL_USER && e.id == who->uid)
            return (e.perm & mask & want) == want;
    for (size_t i = 0; acl_entry_at(acl, acl_bytes, i, &e); i++) {
        bool mine =
            (e.tag == ACL_GROUP_OBJ && in_group(who, st->st_gid)) || (e.tag == ACL_GROUP && in_group(who, e.id));
        if (mine && (e.perm & mask & want) == want)
            return true;
        any_group |= mine;
    }
    return !any_group && (st->st_mode & want) == want;
}

static bool acl_is_known(const void *acl, size_t acl_bytes)
{
    uint32_t version;
    if (acl_bytes < 4)
        return false;
    memcpy(&version, acl, sizeof version);
    return le32toh(version) == ACL_VERSION;
}

bool rights_allow(const struct credentials *who, const struct stat *st, const void *acl, size_t acl_bytes,
                  unsigned want)
{
    if (who->uid == 0)
        return true;
    if (who->uid == st->st_uid)
        return ((unsigned)st->st_mode >> 6 & want) == want;
    if (acl_is_known(acl, acl_bytes))
        return acl_allows(who, st, acl, acl_bytes, want);
    unsigned bits = in_group(who, st->st_gid) ? (unsigned)st->st_mode >> 3 : (unsigned)st->st_mode;
    return (bits & want) == want;
}

/* @is: the file it must be, NULL: any. */
static bool path_allows(const struct credentials *who, const char *path, unsigned want, const struct file_stamp *is)
{
    char acl[ACL_BYTES_MAX];
    struct stat st;
    if (lstat(path, &st) < 0 || S_ISLNK(st.st_mode)) /* resolved already: a link was put there just now */
        return false;
    struct file_stamp found = stamp_of(&st);
    if (is && !stamp_same_file(is, &found))
        return false;
    ssize_t n = who->uid == st.st_uid ? 0 : getxattr(path, "system.posix_acl_access", acl, sizeof acl);
    return rights_allow(who, &st, acl, n > 0 ? (size_t)n : 0, want);
}

/* @path resolved; cut and restored at every slash. */
static bool folders_allow(const struct credentials *who, char *path)
{
    if (!path_allows(who, "/", 1, NULL))
        return false;
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool allowed = path_allows(who, path, 1, NULL);
        *slash = '/';
        if (!allowed)
            return false;
    }
    return true;
}

bool rights_may_read(const struct credentials *who, const char *path)
{
    char real[PATH_MAX];
    return realpath(path, real) && folders_allow(who, real) && path_allows(who, real, 4, NULL);
}

/*
 * All files; those of one folder share the walk down to it. The first one must still be the file that the catalog saw:
 * else a path could lead to a file of the peer's own here, and to another's a moment later (the opener holds to the
 * same stamp).
 */
static bool may_read_files(const struct credentials *who, const struct catalog_model *m)
{
    char real[PATH_MAX], last[PATH_MAX] = "";
    for (const char *const *files = m->files; *files; files++) {
        bool first = m->first_file && strcmp(*files, m->first_file) == 0;
        if (!realpath(*files, real))
            return false;
        size_t folder = (size_t)(strrchr(real, '/') - real) + 1;
        bool same = strncmp(real, last, folder) == 0 && strchr(last + folder, '/') == NULL && last[0] != '\0';
        if ((!same && !folders_allow(who, real)) || !path_allows(who, real, 4, first ? &m->stamp : NULL))
            return false;
        memcpy(last, real, strlen(real) + 1);
    }
    return true;
}

static bool is_granted(const struct config_root *root, const struct credentials *who)
{
    for (size_t i = 0; i < root->n_uids; i++)
        if (root->uids[i] == who->uid)
            return true;
    for (size_t i = 0; i < root->n_gids; i++)
        if (in_group(who, root->gids[i]))
            return true;
    return root->grant_all;
}

bool rights_is_admin(const struct config *config, const struct credentials *who)
{
    for (size_t i = 0; i < config->n_admin_uids; i++)
        if (config->admin_uids[i] == who->uid)
            return true;
    return who->uid == 0 || who->uid == geteuid();
}

bool rights_may_open(const struct config *config, const struct credentials *who, const struct catalog_model *m)
{
    if (who->uid == 0 || who->uid == geteuid())
        return true;
    for (size_t i = 0; i < config->n_roots; i++)
        if (strcmp(config->roots[i].path, m->root) == 0 && is_granted(&config->roots[i], who))
            return true;
    return may_read_files(who, m);
}
