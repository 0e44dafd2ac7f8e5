#include "quant/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/bytes.h"
#include "kernels/core/checked.h"
#include "kernels/core/io.h"
#include "quant/limits.h"

enum { ROLE_BYTES = 16 };

/* A granule that was read as metadata, and what it held then. */
struct witness {
    uint64_t granule;
    struct digest digest;
};

typedef int opener(int folder_fd, const char *name, int *ret_fd, struct qd_error *err);

struct source_file {
    int fd;     /* owned */
    char *name; /* owned */
    char role[ROLE_BYTES];
    struct stat at_open;
    struct witness *seen; /* owned; sorted by granule */
    size_t n_seen;
    size_t room;
};

struct source {
    struct source_file *files; /* owned */
    size_t n_files;
    int folder_fd;    /* owned; -1 where the source came as a descriptor */
    opener *open_one; /* of companions */
    int witness;
    uint8_t *cached;    /* owned: the granule read last, [cached_room]; NULL before */
    size_t cached_room; /* as large as the largest granule so far: configuration files are small */
    size_t cached_file;
    uint64_t cached_granule;
    size_t cached_bytes;  /* 0: nothing is cached */
    struct source *whole; /* borrowed: of a view */
    size_t whole_file;
};

struct source *source_free(struct source *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n_files; i++) {
        (void)fd_close(s->files[i].fd); /* read only */
        free(s->files[i].name);
        free(s->files[i].seen);
    }
    (void)fd_close(s->folder_fd); /* read only */
    free(s->files);
    free(s->cached);
    free(s);
    return NULL;
}

static const char *kind_of(const struct stat *st)
{
    static const struct {
        mode_t format;
        const char *name;
    } kinds[] = {
        {S_IFDIR, "a folder"}, {S_IFIFO, "a fifo"},         {S_IFSOCK, "a socket"},
        {S_IFCHR, "a device"}, {S_IFBLK, "a block device"}, {S_IFLNK, "a symbolic link"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if ((st->st_mode & S_IFMT) == kinds[i].format)
            return kinds[i].name;
    return "no file";
}

/* A regular file with something in it. */
static int stat_source(int fd, const char *name, struct stat *ret, struct qd_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat '%s'", name);
    if (!S_ISREG(st.st_mode)) {
        int r = err_new(err, QD_E_CORRUPT, "'%s' is %s, not a regular file", name, kind_of(&st));
        return err_hint(err, r, "give the model file itself");
    }
    if (st.st_size == 0) {
        int r = err_new(err, QD_E_CORRUPT, "'%s' is empty: 0 bytes", name);
        return err_hint(err, r, "fetch the file again");
    }
    *ret = st;
    return 0;
}

int source_add(struct source *s, int fd, const char *role, const char *name, struct qd_error *err)
{
    CLEANUP(fd_close) int owned = fd;
    if (s->n_files >= LIMIT_SOURCE_FILES)
        return err_new(err, QD_E_LIMIT, "a model of more than %d files", LIMIT_SOURCE_FILES);
    if (source_find(s, name) >= 0)
        return err_new(err, QD_E_INVALID, "'%s' is given twice", name);
    struct stat st;
    int r = stat_source(owned, name, &st, err);
    if (r < 0)
        return r;
    struct source_file *grown = realloc(s->files, (s->n_files + 1) * sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "source '%s'", name);
    s->files = grown;
    CLEANUP(free) char *copy = strdup(name);
    if (!copy)
        return err_new(err, QD_E_NO_MEMORY, "source '%s'", name);
    s->files[s->n_files] = (struct source_file){.fd = steal_fd(&owned), .name = steal(&copy), .at_open = st};
    source_set_role(s, s->n_files, role);
    return (int)s->n_files++;
}

int source_from_fd(int fd, const char *name, struct source **ret, struct qd_error *err)
{
    CLEANUP(fd_close) int owned = fd;
    CLEANUP(source_free) struct source *s = calloc(1, sizeof *s);
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "source '%s'", name);
    s->folder_fd = -1;
    s->open_one = open_beneath;
    int r = source_add(s, steal_fd(&owned), "weights", name, err);
    if (r < 0)
        return r;
    *ret = steal(&s);
    return 0;
}

/* The folder that holds @path, as a place to start from. */
static int open_parent(const char *path, int *ret_fd, struct qd_error *err)
{
    const char *slash = strrchr(path, '/');
    CLEANUP(free) char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!folder)
        return err_new(err, QD_E_NO_MEMORY, "open '%s'", path);
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "open the folder of '%s'", path);
    *ret_fd = fd;
    return 0;
}

static int source_open_file(const char *path, int fd, struct source **ret, struct qd_error *err)
{
    CLEANUP(fd_close) int owned = fd;
    const char *slash = strrchr(path, '/');
    CLEANUP(source_free) struct source *s = NULL;
    int r = source_from_fd(steal_fd(&owned), slash ? slash + 1 : path, &s, err);
    if (r < 0)
        return slash ? err_in(err, r, "model '%s'", path) : r;
    r = open_parent(path, &s->folder_fd, err);
    if (r < 0)
        return r;
    *ret = steal(&s);
    return 0;
}

static int source_open_folder(const char *path, int folder_fd, opener *open_one, struct source **ret,
                              struct qd_error *err)
{
    static const char *const first_files[] = {"model.safetensors", "model.safetensors.index.json"};
    CLEANUP(fd_close) int folder = folder_fd;
    for (size_t i = 0; i < sizeof first_files / sizeof first_files[0]; i++) {
        int fd = -1;
        int r = open_one(folder, first_files[i], &fd, err);
        if (r < 0)
            return err_in(err, r, "model '%s'", path);
        if (fd < 0)
            continue;
        CLEANUP(source_free) struct source *s = NULL;
        r = source_from_fd(fd, first_files[i], &s, err);
        if (r < 0)
            return err_in(err, r, "model '%s'", path);
        s->folder_fd = steal_fd(&folder);
        *ret = steal(&s);
        return 0;
    }
    int r = err_new(err, QD_E_NOT_FOUND, "folder '%s' holds neither %s nor %s", path, first_files[0], first_files[1]);
    return err_hint(err, r, "a GGUF model is given by its file: '%s/NAME.gguf'", path);
}

static int open_by(const char *path, opener *open_one, struct source **ret, struct qd_error *err)
{
    /* O_NONBLOCK: opening a fifo must not wait for its writer */
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(err, errno, "open '%s'", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat '%s'", path);
    CLEANUP(source_free) struct source *s = NULL;
    int r = S_ISDIR(st.st_mode) ? source_open_folder(path, steal_fd(&fd), open_one, &s, err)
                                : source_open_file(path, steal_fd(&fd), &s, err);
    if (r < 0)
        return r;
    s->open_one = open_one;
    *ret = steal(&s);
    return 0;
}

int source_open(const char *path, struct source **ret, struct qd_error *err)
{
    return open_by(path, open_beneath, ret, err);
}

int source_open_following(const char *path, struct source **ret, struct qd_error *err)
{
    return open_by(path, open_following, ret, err);
}

int source_add_companion(struct source *s, const char *role, const char *name, int required, struct qd_error *err)
{
    if (source_find(s, name) >= 0)
        return 0;
    int fd = -1;
    int r = s->folder_fd < 0 ? 0 : s->open_one(s->folder_fd, name, &fd, err);
    if (r < 0)
        return r;
    if (fd < 0 && !required)
        return 0;
    if (fd < 0) {
        r = err_new(err, QD_E_NOT_FOUND, "'%s' belongs to the model and is not beside '%s'", name, s->files[0].name);
        return err_hint(err, r, "fetch '%s' into the same folder", name);
    }
    r = source_add(s, fd, role, name, err);
    return r < 0 ? r : 0;
}

size_t source_n_files(const struct source *s)
{
    return s->n_files;
}

int source_find(const struct source *s, const char *name)
{
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].name, name) == 0)
            return (int)i;
    return -1;
}

int source_find_role(const struct source *s, const char *role)
{
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(source_role(s, i), role) == 0)
            return (int)i;
    return -1;
}

const char *source_name(const struct source *s, size_t file)
{
    return s->files[file].name;
}

void source_set_role(struct source *s, size_t file, const char *role)
{
    (void)snprintf(s->files[file].role, ROLE_BYTES, "%s", role); /* ours are shorter; a peer's may be cut */
}

const char *source_role(const struct source *s, size_t file)
{
    return s->files[file].role;
}

uint64_t source_bytes(const struct source *s, size_t file)
{
    return (uint64_t)s->files[file].at_open.st_size;
}

int source_fd(const struct source *s, size_t file)
{
    return s->files[file].fd;
}

void source_set_witness(struct source *s, int on)
{
    s->witness = on;
}

int source_has_witness(const struct source *s)
{
    return s->witness;
}

static int changed(struct qd_error *err, const char *name, const char *how)
{
    int r = err_new(err, QD_E_SOURCE_CHANGED, "'%s' %s while it was read", name, how);
    return err_hint(err, r, "wait until whoever writes the file has finished, then try again");
}

/* Bytes of granule @granule of @f as it was at open. */
static size_t granule_bytes(const struct source_file *f, uint64_t granule)
{
    uint64_t left = (uint64_t)f->at_open.st_size - granule * SOURCE_GRANULE_BYTES;
    return left < SOURCE_GRANULE_BYTES ? (size_t)left : SOURCE_GRANULE_BYTES;
}

/* Reads what the granule held at open; fewer bytes now, or some beyond the end, is a change. */
static int read_granule(const struct source_file *f, uint64_t granule, void *dst, size_t *ret_bytes,
                        struct qd_error *err)
{
    size_t want = granule_bytes(f, granule);
    ssize_t got = pread_whole(f->fd, dst, want, granule * SOURCE_GRANULE_BYTES);
    if (got < 0)
        return err_sys(err, (int)-got, "read '%s' at byte %llu", f->name,
                       (unsigned long long)(granule * SOURCE_GRANULE_BYTES));
    if ((size_t)got < want)
        return changed(err, f->name, "became shorter");
    *ret_bytes = want;
    return 0;
}

/* Where @granule stands in the sorted list, or would. */
static size_t witness_slot(const struct source_file *f, uint64_t granule)
{
    size_t low = 0;
    for (size_t high = f->n_seen; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (f->seen[middle].granule < granule)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool witness_has(const struct source_file *f, size_t slot, uint64_t granule)
{
    return slot < f->n_seen && f->seen[slot].granule == granule;
}

static int witness_insert(struct source_file *f, size_t slot, uint64_t granule, const struct digest *d,
                          struct qd_error *err)
{
    if (f->n_seen == f->room) {
        size_t room = f->room ? 2 * f->room : 8;
        struct witness *grown = realloc(f->seen, room * sizeof *grown);
        if (!grown)
            return err_new(err, QD_E_NO_MEMORY, "witness of '%s'", f->name);
        f->seen = grown;
        f->room = room;
    }
    memmove(f->seen + slot + 1, f->seen + slot, (f->n_seen - slot) * sizeof *f->seen);
    f->seen[slot] = (struct witness){.granule = granule, .digest = *d};
    f->n_seen++;
    return 0;
}

/* The bytes must be those that this granule held when it was first seen; @remember keeps a new one. */
static int witness_check(struct source_file *f, uint64_t granule, struct bytes held, bool remember,
                         struct qd_error *err)
{
    size_t slot = witness_slot(f, granule);
    bool known = witness_has(f, slot, granule);
    if (!known && !remember)
        return 0;
    struct digest d;
    int r = digest_message("granule", held, &d, err);
    if (r < 0)
        return r;
    if (!known)
        return witness_insert(f, slot, granule, &d, err);
    return digest_equal(&d, &f->seen[slot].digest) ? 0 : changed(err, f->name, "changed");
}

static int cache_reserve(struct source *s, const struct source_file *f, uint64_t granule, struct qd_error *err)
{
    size_t want = granule_bytes(f, granule);
    s->cached_bytes = 0;
    if (want <= s->cached_room)
        return 0;
    free(s->cached);
    s->cached_room = 0;
    s->cached = malloc(want);
    if (!s->cached)
        return err_new(err, QD_E_NO_MEMORY, "reading '%s'", f->name);
    s->cached_room = want;
    return 0;
}

/* Makes @granule the cached one. */
static int cache_granule(struct source *s, size_t file, uint64_t granule, struct qd_error *err)
{
    if (s->cached_bytes && s->cached_file == file && s->cached_granule == granule)
        return 0;
    size_t n = 0;
    int r = cache_reserve(s, &s->files[file], granule, err);
    if (r < 0)
        return r;
    r = read_granule(&s->files[file], granule, s->cached, &n, err);
    if (r < 0)
        return r;
    if (s->witness) {
        r = witness_check(&s->files[file], granule, (struct bytes){s->cached, n}, true, err);
        if (r < 0)
            return r;
    }
    s->cached_file = file;
    s->cached_granule = granule;
    s->cached_bytes = n;
    return 0;
}

int source_view(struct source *whole, size_t file, struct source **ret, struct qd_error *err)
{
    const struct source_file *of = &whole->files[file];
    CLEANUP(source_free) struct source *s = calloc(1, sizeof *s);
    if (s) {
        *s = (struct source){.folder_fd = -1, .open_one = open_beneath, .whole = whole, .whole_file = file};
        s->files = calloc(1, sizeof *s->files);
    }
    if (!s || !s->files)
        return err_new(err, QD_E_NO_MEMORY, "source '%s'", of->name);
    s->files[0] = (struct source_file){.fd = -1, .name = strdup(of->name), .at_open = of->at_open};
    s->n_files = 1;
    if (!s->files[0].name)
        return err_new(err, QD_E_NO_MEMORY, "source '%s'", of->name);
    *ret = steal(&s);
    return 0;
}

int source_read_meta(struct source *s, size_t file, uint64_t offset, void *dst, size_t n, struct qd_error *err)
{
    if (s->whole)
        return source_read_meta(s->whole, s->whole_file, offset, dst, n, err);
    if (!range_inside(offset, n, source_bytes(s, file)))
        return err_new(err, QD_E_CORRUPT, "'%s' ends at byte %llu; %zu bytes at %llu were asked for",
                       s->files[file].name, (unsigned long long)source_bytes(s, file), n, (unsigned long long)offset);
    for (size_t done = 0; done < n;) {
        uint64_t granule = (offset + done) / SOURCE_GRANULE_BYTES;
        int r = cache_granule(s, file, granule, err);
        if (r < 0)
            return r;
        size_t within = (size_t)(offset + done - granule * SOURCE_GRANULE_BYTES);
        size_t step = s->cached_bytes - within < n - done ? s->cached_bytes - within : n - done;
        memcpy((uint8_t *)dst + done, s->cached + within, step);
        done += step;
    }
    return 0;
}

ssize_t source_read_granule(struct source *s, size_t file, uint64_t granule, void *dst, struct qd_error *err)
{
    struct source_file *f = &s->files[file];
    if (granule >= (source_bytes(s, file) + SOURCE_GRANULE_BYTES - 1) / SOURCE_GRANULE_BYTES)
        return err_new(err, QD_E_INTERNAL, "'%s' has no granule %llu", f->name, (unsigned long long)granule);
    size_t n = 0;
    int r = read_granule(f, granule, dst, &n, err);
    if (r == 0 && s->witness)
        r = witness_check(f, granule, (struct bytes){dst, n}, false, err);
    return r < 0 ? r : (ssize_t)n;
}

/* ---- the witness ---- */

/* Leaf @shard of @file; @granule [SOURCE_GRANULE_BYTES] is scratch. */
static int digest_shard(struct source *s, size_t file, uint64_t shard, struct leaf_hasher *h, uint8_t *granule,
                        struct digest *ret, struct qd_error *err)
{
    const uint64_t per_shard = SHARD_BYTES / SOURCE_GRANULE_BYTES;
    int r = leaf_hasher_start(h, shard, err);
    for (uint64_t g = shard * per_shard; r == 0 && g < (shard + 1) * per_shard; g++) {
        if (g * SOURCE_GRANULE_BYTES >= source_bytes(s, file))
            break;
        const ssize_t n = source_read_granule(s, file, g, granule, err);
        r = n < 0 ? (int)n : leaf_hasher_add(h, (struct bytes){granule, (size_t)n}, err);
    }
    return r < 0 ? r : leaf_hasher_finish(h, ret, err);
}

static int testify_file(struct source *s, size_t file, const _Atomic int *cancel, struct leaf_hasher *h,
                        uint8_t *granule, struct digest *ret, struct qd_error *err)
{
    const uint64_t n_shards = shard_count(source_bytes(s, file));
    CLEANUP(free) struct digest *leaves = calloc(n_shards + 1, sizeof *leaves);
    int r = leaves ? 0 : err_new(err, QD_E_NO_MEMORY, "witness of '%s'", source_name(s, file));
    for (uint64_t i = 0; r == 0 && i < n_shards; i++)
        r = cancel && *cancel ? err_new(err, QD_E_CANCELLED, "cancelled")
                              : digest_shard(s, file, i, h, granule, &leaves[i], err);
    return r < 0 ? r : digest_of_leaves(source_bytes(s, file), leaves, ret, err);
}

int source_testify(struct source *s, const _Atomic int *cancel, struct source_file_id *ret, struct qd_error *err)
{
    CLEANUP(leaf_hasher_free) struct leaf_hasher *h = leaf_hasher_new();
    CLEANUP(free) uint8_t *granule = malloc(SOURCE_GRANULE_BYTES);
    int r = h && granule ? 0 : err_new(err, QD_E_NO_MEMORY, "the witness");
    for (size_t i = 0; r == 0 && i < s->n_files; i++) {
        ret[i] =
            (struct source_file_id){.role = source_role(s, i), .name = source_name(s, i), .bytes = source_bytes(s, i)};
        r = testify_file(s, i, cancel, h, granule, &ret[i].digest, err);
    }
    return r < 0 ? r : source_check_unchanged(s, err);
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* What changed between two stats of one descriptor, NULL when nothing did. */
static const char *difference(const struct stat *before, const struct stat *now)
{
    if (now->st_size != before->st_size)
        return now->st_size > before->st_size ? "grew" : "became shorter";
    if (now->st_ino != before->st_ino || now->st_dev != before->st_dev)
        return "was replaced";
    if (!same_time(now->st_mtim, before->st_mtim))
        return "was written to";
    if (!same_time(now->st_ctim, before->st_ctim))
        return "changed its attributes";
    return NULL;
}

int source_check_unchanged(const struct source *s, struct qd_error *err)
{
    for (size_t i = 0; i < s->n_files; i++) {
        struct stat now;
        if (fstat(s->files[i].fd, &now) < 0)
            return err_sys(err, errno, "stat '%s'", s->files[i].name);
        const char *how = difference(&s->files[i].at_open, &now);
        if (how)
            return changed(err, s->files[i].name, how);
    }
    return 0;
}
