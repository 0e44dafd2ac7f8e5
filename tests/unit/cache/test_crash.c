/*
 * What a power cut, a kill or a failing disk may leave behind.
 *
 * The replayer records the system calls by which a scenario changes the disk, and builds states that
 * a crash after any of them may legally leave: data of a file that was not synced is lost,
 * zeroed, cut or there; an entry of a folder that was not synced is there or not, in any
 * combination. The store is started on each state. It must start; whatever it serves must verify to
 * the last byte; whatever was acknowledged must be served; nothing unreferenced may stay.
 * Stats are the recorded ones, as on a disk that kept the inode and lost the data: start-up's
 * quick path is the one that is tested.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kernels/core/io.h"
#include "tests/test.h"
#include "tests/unit/cache/fixture.h"

/* Under a sanitizer a state takes six times as long. */
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
enum { CI_STATES = 150 };
#else
enum { CI_STATES = 2000 };
#endif
enum { N = 300, OPS_MAX = 1024, FILES_MAX = 256, PATH_BYTES = 200 };

/* --- The trace --- */

enum op_kind { OP_NAMES, OP_DATA, OP_SYNC_FOLDER, OP_ACK };

struct change {
    char path[PATH_BYTES]; /* below the cache folder */
    bool add, folder;
    ino_t ino;
};

struct op {
    enum op_kind kind;
    struct change changes[2]; /* OP_NAMES: both or none */
    int n_changes;
    char folder[PATH_BYTES]; /* OP_SYNC_FOLDER */
    ino_t ino;               /* OP_DATA */
    bool durable;            /* OP_DATA, OP_SYNC_FOLDER: false when the control left the sync out */
    int ack;                 /* OP_ACK: artifact that is promised from now on; negative: no longer */
};

struct file {
    ino_t ino;
    uint8_t data[4096];
    size_t n;
    bool known;     /* contents seen at a sync */
    bool initial;   /* safe on disk when the trace began */
    struct stat st; /* as the store last saw it */
    bool has_st;
};

static struct {
    char cache[PATH_BYTES];
    struct op ops[OPS_MAX];
    int n_ops;
    struct file files[FILES_MAX];
    int n_files;
    bool no_file_sync, no_folder_sync; /* controls */
} trace;

static struct file *file_of(ino_t ino)
{
    for (int i = 0; i < trace.n_files; i++)
        if (trace.files[i].ino == ino)
            return &trace.files[i];
    assert_true(trace.n_files < FILES_MAX);
    struct file *f = &trace.files[trace.n_files++];
    memset(f, 0, sizeof *f);
    f->ino = ino;
    return f;
}

static struct op *op_new(enum op_kind kind)
{
    assert_true(trace.n_ops < OPS_MAX);
    struct op *op = &trace.ops[trace.n_ops++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    return op;
}

/* The path of @name in the folder @fd, below the cache; "" is the cache itself. */
static void path_of(int fd, const char *name, char *dst)
{
    char link[64], whole[PATH_BYTES] = "";
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    assert_true(readlink(link, whole, sizeof whole - 1) > 0);
    assert_memory_equal(whole, trace.cache, strlen(trace.cache));
    const char *below = whole + strlen(trace.cache);
    below += *below == '/';
    (void)snprintf(dst, PATH_BYTES, "%s%s%s", below, *below && *name ? "/" : "", name);
}

static ino_t ino_at(int folder, const char *name)
{
    struct stat st;
    assert_int_equal(fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_ino;
}

static void add_change(struct op *op, int folder, const char *name, bool add, bool is_folder, ino_t ino)
{
    struct change *c = &op->changes[op->n_changes++];
    path_of(folder, name, c->path);
    c->add = add;
    c->folder = is_folder;
    c->ino = ino;
}

static void see_data(int fd, ino_t ino)
{
    struct file *f = file_of(ino);
    ssize_t n = pread_whole(fd, f->data, sizeof f->data, 0);
    assert_true(n >= 0 && n < (ssize_t)sizeof f->data);
    f->n = (size_t)n;
    f->known = true;
}

static int rec_create(void *data, int folder, const char *name, mode_t mode)
{
    int fd = store_io_real.create(data, folder, name, mode);
    if (fd >= 0)
        add_change(op_new(OP_NAMES), folder, name, true, false, ino_at(folder, name));
    return fd;
}

static int rec_sync(void *data, int fd)
{
    struct stat st;
    (void)data;
    assert_int_equal(fstat(fd, &st), 0);
    struct op *op = op_new(S_ISDIR(st.st_mode) ? OP_SYNC_FOLDER : OP_DATA);
    if (S_ISDIR(st.st_mode)) {
        path_of(fd, "", op->folder);
        op->durable = !trace.no_folder_sync;
        return 0;
    }
    see_data(fd, st.st_ino);
    op->ino = st.st_ino;
    op->durable = !trace.no_file_sync;
    return 0;
}

static int rec_link(void *data, int from_folder, const char *from, int to_folder, const char *to)
{
    int r = store_io_real.link(data, from_folder, from, to_folder, to);
    if (r == 0)
        add_change(op_new(OP_NAMES), to_folder, to, true, false, ino_at(to_folder, to));
    return r;
}

static int rec_unlink(void *data, int folder, const char *name)
{
    int r = store_io_real.unlink(data, folder, name);
    if (r == 0)
        add_change(op_new(OP_NAMES), folder, name, false, false, 0);
    return r;
}

static int rec_rename(void *data, int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    int r = store_io_real.rename(data, from_folder, from, to_folder, to, flags);
    if (r == 0) {
        struct op *op = op_new(OP_NAMES);
        add_change(op, from_folder, from, false, false, 0);
        add_change(op, to_folder, to, true, false, ino_at(to_folder, to));
    }
    return r;
}

static int rec_mkdir(void *data, int folder, const char *name)
{
    int r = store_io_real.mkdir(data, folder, name);
    if (r == 0)
        add_change(op_new(OP_NAMES), folder, name, true, true, 0);
    return r;
}

static int rec_stat(void *data, int fd, struct stat *ret)
{
    int r = store_io_real.stat(data, fd, ret);
    if (r == 0) {
        struct file *f = file_of(ret->st_ino);
        f->st = *ret;
        f->has_st = true;
    }
    return r;
}

static struct store_io recorder;

/* --- Building a state --- */

struct entry {
    char path[PATH_BYTES];
    bool folder;
    ino_t ino;
};

static struct entry initial[FILES_MAX]; /* what was on disk, safely, when the trace began */
static int n_initial;

static int add_initial(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    if (strcmp(path, trace.cache) == 0)
        return 0;
    assert_true(n_initial < FILES_MAX);
    struct entry *e = &initial[n_initial++];
    (void)snprintf(e->path, sizeof e->path, "%s", path + strlen(trace.cache) + 1);
    e->folder = type == FTW_D;
    e->ino = st->st_ino;
    if (type == FTW_F) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        see_data(fd, st->st_ino);
        file_of(st->st_ino)->initial = true;
        (void)fd_close(fd);
    }
    return 0;
}

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

static struct entry entries[FILES_MAX];
static int n_entries;

static void set_entry(const struct change *c)
{
    int at = 0;
    while (at < n_entries && strcmp(entries[at].path, c->path) != 0)
        at++;
    if (!c->add) {
        if (at < n_entries) /* in order: folders stay before what is in them */
            memmove(&entries[at], &entries[at + 1], (size_t)(--n_entries - at) * sizeof entries[0]);
        return;
    }
    assert_true(at < FILES_MAX);
    memcpy(entries[at].path, c->path, PATH_BYTES);
    entries[at].folder = c->folder;
    entries[at].ino = c->ino;
    n_entries += at == n_entries;
}

/* Every folder that @op changes has been synced between it and the crash at @end. */
static bool names_are_safe(int i, int end)
{
    for (int c = 0; c < trace.ops[i].n_changes; c++) {
        char folder[PATH_BYTES];
        memcpy(folder, trace.ops[i].changes[c].path, PATH_BYTES);
        char *slash = strrchr(folder, '/');
        *(slash ? slash : folder) = '\0';
        bool safe = false;
        for (int j = i + 1; j < end && !safe; j++)
            safe =
                trace.ops[j].kind == OP_SYNC_FOLDER && trace.ops[j].durable && strcmp(trace.ops[j].folder, folder) == 0;
        if (!safe)
            return false;
    }
    return true;
}

/* Entries after a crash before op @end: the safe ones, and some of the others. */
static void choose_names(int end)
{
    memcpy(entries, initial, sizeof entries);
    n_entries = n_initial;
    uint64_t percent = (next_random() >> 20) % 5 * 25; /* from none to all of what is not safe */
    for (int i = 0; i < end; i++)
        if (trace.ops[i].kind == OP_NAMES && (names_are_safe(i, end) || (next_random() >> 20) % 100 < percent))
            for (int c = 0; c < trace.ops[i].n_changes; c++)
                set_entry(&trace.ops[i].changes[c]);
}

/* Data that was not synced: whole, or cut at a sixteenth (0: empty), or zeros from there to the end. */
struct contents {
    bool whole, zeros;
    unsigned sixteenth;
};
static struct contents contents[FILES_MAX]; /* of each entry; names of one file have the same */

static struct contents choose_contents(const struct file *f, int end)
{
    const struct contents whole = {.whole = true};
    for (int i = 0; i < end; i++)
        if (trace.ops[i].kind == OP_DATA && trace.ops[i].durable && trace.ops[i].ino == f->ino)
            return whole;
    unsigned random = (unsigned)(next_random() >> 20);
    return f->initial || random % 4 == 0 ? whole
                                         : (struct contents){.zeros = random & 4, .sixteenth = random >> 8 & 15};
}

static void choose_all_contents(int end)
{
    for (int i = 0; i < n_entries; i++) {
        if (entries[i].folder)
            continue;
        contents[i] = choose_contents(file_of(entries[i].ino), end);
        for (int j = 0; j < i; j++)
            if (!entries[j].folder && entries[j].ino == entries[i].ino)
                contents[i] = contents[j];
    }
}

static struct {
    ino_t new_ino, old_ino;
} places[FILES_MAX]; /* which file of the trace a file of the state is */
static int n_places;

static void write_contents(int fd, const struct file *f, const struct contents *c)
{
    static const uint8_t zeros[4096];
    size_t n = c->whole ? f->n : f->n * c->sixteenth / 16;
    assert_int_equal(pwrite_whole(fd, f->data, n, 0), 0);
    if (!c->whole && c->zeros)
        assert_int_equal(pwrite_whole(fd, zeros, f->n - n, n), 0);
}

/* Makes one entry in @root; a second name of a file becomes a link. Nothing where its folder does not exist. */
static void make_entry(int root, const struct entry *e, const struct contents *c)
{
    if (e->folder) {
        (void)mkdirat(root, e->path, 0700);
        return;
    }
    for (int i = 0; i < n_entries; i++)
        if (&entries[i] < e && !entries[i].folder && entries[i].ino == e->ino &&
            linkat(root, entries[i].path, root, e->path, 0) == 0)
            return;
    int fd = openat(root, e->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    write_contents(fd, file_of(e->ino), c);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    places[n_places].new_ino = st.st_ino;
    places[n_places++].old_ino = e->ino;
    (void)fd_close(fd);
}

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3ull;
    return h;
}

/* Chooses a state; returns a hash of it, by which states are told apart. */
static uint64_t choose_state(int end)
{
    choose_names(end);
    choose_all_contents(end);
    uint64_t h = 0;
    for (int i = 0; i < n_entries; i++) { /* order does not matter */
        uint64_t one = mix(0xcbf29ce484222325ull, entries[i].path, strlen(entries[i].path));
        unsigned c = entries[i].folder ? 0 : contents[i].whole ? 1 : 2 + contents[i].zeros + 2 * contents[i].sixteenth;
        h += mix(mix(one, &entries[i].ino, sizeof entries[i].ino), &c, sizeof c);
    }
    return h;
}

static void build_state(const char *folder)
{
    n_places = 0;
    int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(root >= 0);
    for (int pass = 0; pass < 2; pass++) /* folders first */
        for (int i = 0; i < n_entries; i++)
            if (entries[i].folder == (pass == 0))
                make_entry(root, &entries[i], &contents[i]);
    (void)fd_close(root);
}

/* --- Judging it --- */

static int replay_stat(void *data, int fd, struct stat *ret)
{
    (void)data;
    if (fstat(fd, ret) < 0)
        return -errno;
    for (int i = 0; i < n_places; i++) {
        if (places[i].new_ino != ret->st_ino || !file_of(places[i].old_ino)->has_st)
            continue;
        off_t size = ret->st_size;
        *ret = file_of(places[i].old_ino)->st;
        ret->st_size = size;
        break;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    return ftw->level == 0 ? 0 : remove(path);
}

static int count_one_object(const struct store_entry *e, void *data)
{
    (void)e;
    ++*(int *)data;
    return 0;
}

static int n_objects_found;

static int count_object(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)ftw;
    n_objects_found += type == FTW_F;
    return 0;
}

/* Artifacts of the scenario: numbers below. Bit n: number n is promised. */
static unsigned promised_at(int end)
{
    unsigned promised = 1u << 1;
    for (int i = 0; i < end; i++) {
        if (trace.ops[i].kind == OP_ACK && trace.ops[i].ack > 0)
            promised |= 1u << trace.ops[i].ack;
        else if (trace.ops[i].kind == OP_ACK)
            promised &= ~(1u << -trace.ops[i].ack);
    }
    return promised;
}

/* What is wrong with the state in @f->cache, NULL when nothing is. */
static const char *judge(struct fixture *f, unsigned promised)
{
    static const int objects_of[8] = {
        0, 4, 4, 7, 4, 6, 7, 9}; /* by which of 1, 2, 3 are there: all share the tensors, 1 and 3 the metadata */
    const char *wrong = NULL;
    int n = 0, n_served = 0;
    unsigned there = 0;
    if (fixture_try_open(f, NULL) < 0)
        return "the store does not start";
    for (unsigned number = 1; number <= 3; number++) {
        struct digest key = sample_key(number);
        struct lease *l = NULL;
        bool found = store_lookup(f->store, &key, &l, NULL) == 0;
        lease_release(l);
        if (found && !sample_is_served(f, number, N))
            wrong = "a served artifact does not verify";
        if (!found && (promised & 1u << number))
            wrong = "an acknowledged artifact is lost";
        there |= (unsigned)found << (number - 1);
        n_served += found;
    }
    char objects[PATH_BYTES];
    (void)snprintf(objects, sizeof objects, "%s/objects", f->cache);
    n_objects_found = 0;
    (void)nftw(objects, count_object, 16, FTW_PHYS);
    (void)store_list(f->store, count_one_object, &n);
    if (!wrong && n != n_served)
        wrong = "an artifact is listed and not served";
    if (!wrong && n_objects_found != objects_of[there])
        wrong = "an object is left that nothing references";
    fixture_close(f);
    return wrong;
}

/* --- The scenario: 1 is there; commit 2, commit 3 (shares two objects with 1), remove 1, seal 2 again --- */

static void traced_commit(struct fixture *f, unsigned number)
{
    static const char *const suffixes[] = {"part", "journal"};
    struct digest key = sample_key(number);
    struct store_work *w = NULL;
    assert_int_equal(store_work_open(f->store, &key, 1, &w, NULL), 0);
    for (int i = 0; i < 2; i++) { /* made by the store without its table: unsynced work may be lost */
        char hex[DIGEST_HEX_BYTES], path[PATH_BYTES + 100];
        digest_hex(&key, hex);
        struct op *op = op_new(OP_NAMES);
        struct change *c = &op->changes[op->n_changes++];
        (void)snprintf(c->path, sizeof c->path, "work/%s.%s", hex, suffixes[i]);
        (void)snprintf(path, sizeof path, "%s/%s", trace.cache, c->path);
        c->add = true;
        c->ino = ino_at(AT_FDCWD, path);
        (void)file_of(c->ino);
    }
    assert_int_equal(sample_write(w, number, N), 0);
    assert_int_equal(sample_commit_work(f, w, number, N, NULL), 0);
    op_new(OP_ACK)->ack = (int)number;
}

static void record_scenario(struct fixture *f, bool no_file_sync, bool no_folder_sync)
{
    memset(&trace, 0, sizeof trace);
    n_initial = 0;
    (void)snprintf(trace.cache, sizeof trace.cache, "%s", f->cache);
    recorder = (struct store_io){.create = rec_create,
                                 .write = store_io_real.write,
                                 .sync = rec_sync,
                                 .chmod = store_io_real.chmod,
                                 .link = rec_link,
                                 .unlink = rec_unlink,
                                 .rename = rec_rename,
                                 .mkdir = rec_mkdir,
                                 .stat = rec_stat,
                                 .stat_at = store_io_real.stat_at};
    f->options.io = &recorder;
    fixture_open(f);
    assert_int_equal(sample_commit(f, 1, N, NULL), 0);
    fixture_close(f);
    trace.n_ops = 0; /* all of that is safe by now */
    assert_int_equal(nftw(trace.cache, add_initial, 16, FTW_PHYS), 0);
    trace.no_file_sync = no_file_sync;
    trace.no_folder_sync = no_folder_sync;

    struct digest one = sample_key(1), two = sample_key(2);
    fixture_open(f);
    traced_commit(f, 2);
    traced_commit(f, 3);
    op_new(OP_ACK)->ack = -1;
    assert_int_equal(store_remove(f->store, &one, NULL), 0);
    assert_int_equal(store_reseal(f->store, &two, f->key, NULL), 0);
    fixture_close(f);
    run("rm -rf '%s'/* '%s'/.tmp*", f->cache, f->cache);
}

struct verdict {
    int n_states, n_bad;
    const char *first;
};

static struct verdict replay(struct fixture *f, int n_wanted, uint64_t seed)
{
    static uint64_t seen[1 << 17]; /* a set of hashes, open addressing */
    static struct store_io io;
    struct verdict v = {0};
    memset(seen, 0, sizeof seen);
    io = store_io_real;
    io.stat = replay_stat;
    f->options.io = &io;
    random_state = seed;
    for (long tries = 0; v.n_states < n_wanted && tries < 200L * n_wanted; tries++) {
        int end = (int)((next_random() >> 20) % (uint64_t)(trace.n_ops + 1));
        unsigned promised = promised_at(end);
        uint64_t h = choose_state(end) + promised;
        size_t slot = h % (1 << 17);
        while (seen[slot] && seen[slot] != h)
            slot = (slot + 1) % (1 << 17);
        if (seen[slot])
            continue;
        seen[slot] = h;
        build_state(f->cache);
        const char *wrong = judge(f, promised);
        v.n_states++;
        v.n_bad += wrong != NULL;
        v.first = v.first ? v.first : wrong;
        assert_int_equal(nftw(f->cache, remove_one, 16, FTW_PHYS | FTW_DEPTH), 0);
    }
    return v;
}

static int wanted_states(void)
{
    const char *text = getenv("QUANTD_CRASH_STATES");
    return text ? atoi(text) : CI_STATES;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_init(f, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_clear(*state);
    free(*state);
    return 0;
}

static void
store_open__every_state_that_a_power_cut_may_leave__serves_what_was_acknowledged_and_nothing_else(void **state)
{
    record_scenario(*state, false, false);
    struct verdict v = replay(*state, wanted_states(), 0x9e3779b97f4a7c15ull);
    print_message("# %d operations, %d distinct states, %d bad%s%s\n", trace.n_ops, v.n_states, v.n_bad,
                  v.first ? ": " : "", v.first ? v.first : "");
    assert_int_equal(v.n_bad, 0);
    assert_int_equal(v.n_states, wanted_states());
}

/* The judge must be able to say no: the same commit, without syncing files, then without syncing folders. */
static void replayer__a_commit_that_does_not_sync__is_caught(void **state)
{
    for (int control = 1; control <= 3; control++) {
        record_scenario(*state, control & 1, control & 2);
        struct verdict v = replay(*state, 300, 7);
        print_message("# control without%s%s sync: %d of %d states bad, first: %s\n", control & 1 ? " file" : "",
                      control & 2 ? " folder" : "", v.n_bad, v.n_states, v.first ? v.first : "none");
        assert_true(v.n_bad > 0);
    }
}

/* --- Kills and faults at every call --- */

static int calls_left; /* until something happens */
static int fault;      /* errno; 0: the process ends */
static bool fault_for_ever;

static int strike(void)
{
    if (calls_left > 0 && --calls_left > 0)
        return 0;
    if (calls_left < 0)
        return 0; /* it has happened, once */
    if (fault == 0)
        _exit(42);
    calls_left = fault_for_ever ? 1 : -1;
    return -fault;
}

static int hit_create(void *data, int folder, const char *name, mode_t mode)
{
    int r = strike();
    return r < 0 ? r : store_io_real.create(data, folder, name, mode);
}

static int hit_write(void *data, int fd, const void *src, size_t n)
{
    int r = strike();
    if (r < 0)
        (void)store_io_real.write(data, fd, src, n / 2); /* a full disk takes half */
    return r < 0 ? r : store_io_real.write(data, fd, src, n);
}

static int hit_sync(void *data, int fd)
{
    int r = strike();
    return r < 0 ? r : store_io_real.sync(data, fd);
}

static int hit_chmod(void *data, int fd, mode_t mode)
{
    int r = strike();
    return r < 0 ? r : store_io_real.chmod(data, fd, mode);
}

static int hit_link(void *data, int from_folder, const char *from, int to_folder, const char *to)
{
    int r = strike();
    return r < 0 ? r : store_io_real.link(data, from_folder, from, to_folder, to);
}

static int hit_unlink(void *data, int folder, const char *name)
{
    int r = strike();
    return r < 0 ? r : store_io_real.unlink(data, folder, name);
}

static int hit_rename(void *data, int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    int r = strike();
    return r < 0 ? r : store_io_real.rename(data, from_folder, from, to_folder, to, flags);
}

static int hit_mkdir(void *data, int folder, const char *name)
{
    int r = strike();
    return r < 0 ? r : store_io_real.mkdir(data, folder, name);
}

static int hit_stat(void *data, int fd, struct stat *ret)
{
    int r = strike();
    return r < 0 ? r : store_io_real.stat(data, fd, ret);
}

static int hit_stat_at(void *data, int folder, const char *name, struct stat *ret)
{
    int r = strike();
    return r < 0 ? r : store_io_real.stat_at(data, folder, name, ret);
}

static const struct store_io hitting = {
    .create = hit_create,
    .write = hit_write,
    .sync = hit_sync,
    .chmod = hit_chmod,
    .link = hit_link,
    .unlink = hit_unlink,
    .rename = hit_rename,
    .mkdir = hit_mkdir,
    .stat = hit_stat,
    .stat_at = hit_stat_at,
};

/* In a child: open, commit 3, remove 1, close; ends at the @at-th call. True when it came to the end. */
static bool child_survives(struct fixture *f, int at)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct digest one = sample_key(1);
        calls_left = at;
        fault = 0;
        f->options.io = &hitting;
        fixture_open(f);
        (void)sample_commit(f, 3, N, NULL);
        (void)store_remove(f->store, &one, NULL);
        fixture_close(f);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void store__killed_at_every_call__starts_again_with_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    int at = 1;
    for (bool done = false; !done; at++) {
        run("rm -rf '%s'", f->cache);
        f->options.io = NULL;
        fixture_open(f);
        assert_int_equal(sample_commit(f, 1, N, NULL), 0);
        assert_int_equal(sample_commit(f, 2, N, NULL), 0);
        fixture_close(f);
        done = child_survives(f, at);
        const char *wrong = judge(f, 1u << 2);
        if (wrong)
            print_error("killed at call %d: %s\n", at, wrong);
        assert_null(wrong);
        fixture_open(f);
        assert_int_equal(count_files(f, "refs"), count_files(f, "records"));
        int r = sample_commit(f, 3, N, NULL);
        assert_true(r == 0 || r == QD_E_EXISTS);
        assert_true(sample_is_served(f, 3, N));
        fixture_close(f);
    }
    print_message("# killed at each of %d calls\n", at - 2);
    assert_true(at > 40);
}

/* One call of a commit fails: 1 is served, nothing is left in the way, and the work is not lost. */
static bool commit_with_fault(struct fixture *f, int at)
{
    struct digest key = sample_key(3);
    struct store_work *w = NULL;
    struct qd_error err = {0};
    assert_int_equal(store_work_open(f->store, &key, 1, &w, NULL), 0);
    assert_int_equal(sample_write(w, 3, N), 0);
    calls_left = at;
    int r = sample_commit_work(f, w, 3, N, &err);
    bool struck = calls_left < 0 || (fault_for_ever && calls_left == 1);
    calls_left = -1;
    if (r < 0) {
        assert_true(strlen(err.message) > 0);
        assert_int_equal(r, fault == ENOSPC ? QD_E_NO_SPACE : QD_E_IO);
        store_work_close(f->store, w);
        assert_true(sample_is_served(f, 1, N));
    }
    return struck;
}

static void store_commit__any_call_fails__leaves_the_store_as_it_was(void **state)
{
    struct fixture *f = *state;
    static const int faults[] = {ENOSPC, EIO};
    for (int way = 0; way < 4; way++) {
        bool struck = true;
        for (int at = 1; struck; at++) {
            run("rm -rf '%s'", f->cache);
            calls_left = -1;
            f->options.io = &hitting;
            fixture_open(f);
            assert_int_equal(sample_commit(f, 1, N, NULL), 0);
            fault = faults[way % 2];
            fault_for_ever = way >= 2;
            struck = commit_with_fault(f, at);
            if (!fault_for_ever && !sample_is_served(f, 3, N)) {
                assert_int_equal(count_files(f, "objects"), 4);
                assert_int_equal(count_files(f, "refs"), 1);
            }
            if (fault_for_ever) { /* what could not be taken back is swept by the next start */
                fixture_close(f);
                fixture_open(f);
            }
            int r = sample_commit(f, 3, N, NULL);
            assert_true(r == 0 || r == QD_E_EXISTS);
            fixture_close(f);
            assert_null(judge(f, 1u << 1 | 1u << 3));
        }
    }
}

#define CRASH_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CRASH_TEST(store_open__every_state_that_a_power_cut_may_leave__serves_what_was_acknowledged_and_nothing_else),
        CRASH_TEST(replayer__a_commit_that_does_not_sync__is_caught),
        CRASH_TEST(store__killed_at_every_call__starts_again_with_all_or_nothing),
        CRASH_TEST(store_commit__any_call_fails__leaves_the_store_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
