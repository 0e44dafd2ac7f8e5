#include "daemon/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/watch.h"
#include "kernels/core/cleanup.h"

/* ---- names ---------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static bool is_ignored(const char *name)
{
    static const char *const suffixes[] = {".part", ".tmp", ".incomplete", ".crdownload", ".download", "~"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (ends_with(name, suffixes[i]))
            return true;
    return name[0] == '.' || name[0] == '\0';
}

static bool is_onnx(const char *name)
{
    return ends_with(name, ".onnx");
}

/* "model.onnx.data" of "model.onnx": @n is the length of the latter, 0 where @name is of no model by its name. */
static bool is_onnx_data(const char *name, size_t *ret_n)
{
    const char *at = strstr(name, ".onnx");
    *ret_n = at ? (size_t)(at - name) + strlen(".onnx") : 0;
    return at && at > name && (name[*ret_n] == '.' || name[*ret_n] == '_');
}

/* What a model weighs by. */
static bool is_weights(const char *name)
{
    size_t n;
    return ends_with(name, ".gguf") || ends_with(name, ".safetensors") || is_onnx(name) || is_onnx_data(name, &n);
}

/* One that is a model by itself, or the first file of one. */
static bool is_model(const char *name)
{
    size_t n;
    return is_weights(name) && !is_onnx_data(name, &n);
}

static bool is_of_model(const char *name)
{
    return !is_ignored(name) && (is_weights(name) || ends_with(name, ".json"));
}

bool scan_cares(const char *name)
{
    static const char *const samples[] = {".npy", ".npz", ".pb", ".png", ".jpg", ".jpeg", ".wav", "preprocess.ini"};
    bool is_sample = false;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
        is_sample = is_sample || ends_with(name, samples[i]);
    return is_of_model(name) || (is_sample && !is_ignored(name));
}

/* "<stem>-00002-of-00005.<suffix>": length of the stem, and both numbers; 0 for any other name. */
static size_t split_name(const char *name, unsigned *ret_part, unsigned *ret_parts)
{
    enum { TAIL = sizeof "-00001-of-00002" - 1 };
    const char *dot = strrchr(name, '.');
    if (!dot || dot - name <= TAIL)
        return 0;
    unsigned part, parts;
    int n = 0;
    if (sscanf(dot - TAIL, "-%5u-of-%5u%n", &part, &parts, &n) != 2 || n != TAIL || part < 1 || part > parts)
        return 0;
    *ret_part = part;
    *ret_parts = parts;
    return (size_t)(dot - TAIL - name);
}

/* ---- one folder ------------------------------------------------------------------------------- */

struct scan_file {
    char *name; /* owned until the folder is done */
    struct stat st;
    bool readable;
};

/* A folder of calibration data: of the model whose name begins alike. */
struct scan_samples {
    char *stem; /* owned */
    uint64_t print;
    struct timespec newest;
};

struct folder {
    struct scan_file *files; /* owned; those of models, sorted by name */
    size_t n_files;
    struct scan_samples *samples; /* owned */
    size_t n_samples, samples_room;
    const char *path; /* absolute */
};

struct walk {
    struct scan *scan;
    struct watch *watch;
    const char *root;    /* as configured */
    char real[PATH_MAX]; /* resolved */
    size_t n_files;
    size_t models_room, wds_room;
    bool no_memory;
};

static void folder_clear_cleanup(struct folder *f)
{
    for (size_t i = 0; i < f->n_files; i++)
        free(f->files[i].name);
    for (size_t i = 0; i < f->n_samples; i++)
        free(f->samples[i].stem);
    free(f->files);
    free(f->samples);
}

static char *arena_printf(struct walk *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static char *arena_printf(struct walk *w, const char *fmt, ...)
{
    char text[PATH_MAX + 512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char *copy = n >= 0 && n < (int)sizeof text
                     ? arena_text(w->scan->arena, (struct bytes){(const uint8_t *)text, (size_t)n})
                     : NULL;
    if (!copy)
        w->no_memory = true;
    return copy;
}

/* Doubles an array in the heap; the arena gets the final copy. */
static bool grow(void *array_ptr, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 16;
    void *grown = reallocarray(*(void **)array_ptr, wanted, item_bytes);
    if (!grown)
        return false;
    *(void **)array_ptr = grown;
    *room = wanted;
    return true;
}

static uint64_t mix(uint64_t print, const void *data, size_t n_bytes)
{
    const uint8_t *p = data; /* FNV-1a: no adversary here, stamps are compared for change */
    for (size_t i = 0; i < n_bytes; i++)
        print = (print ^ p[i]) * 0x100000001b3ull;
    return print;
}

static struct file_stamp stamp_of(const struct stat *st)
{
    return (struct file_stamp){.dev = st->st_dev,
                               .ino = st->st_ino,
                               .bytes = (uint64_t)st->st_size,
                               .mtime = st->st_mtim,
                               .ctime = st->st_ctim};
}

static bool later(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static const uint64_t print_seed = 0xcbf29ce484222325ull;

static uint64_t print_file(uint64_t print, const char *name, const struct stat *st, bool readable)
{
    uint64_t facts[] = {st->st_dev,
                        st->st_ino,
                        (uint64_t)st->st_size,
                        (uint64_t)st->st_mtim.tv_sec,
                        (uint64_t)st->st_mtim.tv_nsec,
                        (uint64_t)st->st_ctim.tv_sec,
                        (uint64_t)st->st_ctim.tv_nsec,
                        readable};
    return mix(mix(print, name, strlen(name) + 1), facts, sizeof facts);
}

static void add_file_to_print(struct scan_model *m, const struct scan_file *f)
{
    m->print = print_file(m->print, f->name, &f->st, f->readable);
    if (later(f->st.st_ctim, m->newest))
        m->newest = f->st.st_ctim;
    if (is_weights(f->name))
        m->bytes += (uint64_t)f->st.st_size;
}

static const char *problem_of(struct walk *w, const struct scan_file *f)
{
    if (!S_ISREG(f->st.st_mode))
        return arena_printf(w, "'%s' is not a regular file", f->name);
    if (!f->readable)
        return arena_printf(w, "'%s' cannot be read by quantd: permission denied", f->name);
    return f->st.st_size == 0 ? arena_printf(w, "'%s' is empty", f->name) : NULL;
}

/* A model of the files for which @member says yes. @stem: last component of its name, NULL: the folder's own name. */
struct group {
    const char *stem;
    size_t n_stem;
    const char *suffix; /* of split parts; NULL: every file that matters (a model folder) */
    unsigned parts;     /* 1: a single file named by @first */
    size_t first;       /* index of the file a worker gets first */
};

static bool is_member(const struct group *g, const struct folder *d, size_t i)
{
    unsigned part = 0, parts = 0;
    const char *name = d->files[i].name;
    if (!g->suffix)
        return ends_with(name, ".safetensors") || ends_with(name, ".json");
    size_t n;
    const char *first = d->files[g->first].name;
    if (g->parts == 1)
        return i == g->first ||
               (is_onnx(first) && is_onnx_data(name, &n) && n == strlen(first) && strncmp(name, first, n) == 0);
    return ends_with(name, g->suffix) && split_name(name, &part, &parts) == g->n_stem && parts == g->parts &&
           strncmp(name, g->stem, g->n_stem) == 0;
}

static const char *model_name(struct walk *w, const struct folder *d, const struct group *g)
{
    const char *below = d->path + strlen(w->root);
    below += *below == '/';
    if (g->stem)
        return arena_printf(w, "%s%s%.*s", below, *below ? "/" : "", (int)g->n_stem, g->stem);
    if (*below)
        return arena_printf(w, "%s", below);
    const char *slash = strrchr(w->root, '/');
    return arena_printf(w, "%s", slash[1] ? slash + 1 : "root");
}

static void collect_members(struct walk *w, const struct folder *d, const struct group *g, struct scan_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_files; i++)
        n += is_member(g, d, i);
    const char **files = arena_alloc(w->scan->arena, n + 1, sizeof *files);
    if (!files) {
        w->no_memory = true;
        return;
    }
    m->files = files;
    unsigned n_parts = 0;
    for (size_t i = 0; i < d->n_files; i++) {
        if (!is_member(g, d, i))
            continue;
        const struct scan_file *f = &d->files[i];
        *files++ = arena_printf(w, "%s/%s", d->path, f->name);
        add_file_to_print(m, f);
        n_parts += is_weights(f->name);
        if (!m->problem && is_weights(f->name))
            m->bad = (m->problem = problem_of(w, f)) != NULL;
    }
    if (!m->problem && g->suffix && n_parts < g->parts)
        m->problem = arena_printf(w, "%u of %u parts are there", n_parts, g->parts);
}

static void add_samples(const struct folder *d, const struct group *g, struct scan_model *m)
{
    for (size_t i = 0; i < d->n_samples; i++) {
        const struct scan_samples *s = &d->samples[i];
        if (strlen(s->stem) != g->n_stem || strncmp(s->stem, g->stem, g->n_stem) != 0)
            continue;
        m->calibration = scan_calibration(s->print);
        m->print = mix(m->print, &s->print, sizeof s->print);
        if (later(s->newest, m->newest))
            m->newest = s->newest;
    }
}

static void add_model(struct walk *w, const struct folder *d, const struct group *g)
{
    struct scan *s = w->scan;
    if (!grow(&s->models, s->n_models, &w->models_room, sizeof *s->models)) {
        w->no_memory = true;
        return;
    }
    struct scan_model *m = &s->models[s->n_models];
    *m = (struct scan_model){.print = print_seed, .stamp = stamp_of(&d->files[g->first].st)};
    m->name = model_name(w, d, g);
    m->first_file = arena_printf(w, "%s/%s", d->path, d->files[g->first].name);
    m->path = g->suffix ? m->first_file : arena_printf(w, "%s", d->path);
    collect_members(w, d, g, m);
    if (is_onnx(m->first_file ? m->first_file : ""))
        add_samples(d, g, m);
    if (m->files && !m->problem && g->suffix && g->parts > 1 && strcmp(g->suffix, ".safetensors") == 0)
        m->problem = arena_printf(w, "model.safetensors.index.json is not there");
    if (!w->no_memory)
        s->n_models++;
}

static ptrdiff_t find_file(const struct folder *d, const char *name)
{
    for (size_t i = 0; i < d->n_files; i++)
        if (strcmp(d->files[i].name, name) == 0)
            return (ptrdiff_t)i;
    return -1;
}

/* The first of its split group in name order speaks for the group, whichever part it is. */
static bool is_first_of_split(const struct folder *d, size_t i, const struct group *g)
{
    for (size_t j = 0; j < i; j++)
        if (is_member(g, d, j))
            return false;
    return true;
}

static void add_file_models(struct walk *w, const struct folder *d, bool in_model_folder)
{
    for (size_t i = 0; i < d->n_files && !w->no_memory; i++) {
        const char *name = d->files[i].name, *dot = strrchr(name, '.');
        if (!is_model(name) || (in_model_folder && ends_with(name, ".safetensors")))
            continue;
        unsigned part = 1, parts = 1;
        size_t n_stem = is_onnx(name) ? 0 : split_name(name, &part, &parts);
        struct group g = {.stem = name,
                          .n_stem = n_stem && parts > 1 ? n_stem : (size_t)(dot - name),
                          .suffix = dot,
                          .parts = n_stem ? parts : 1,
                          .first = i};
        if (g.parts == 1 || is_first_of_split(d, i, &g))
            add_model(w, d, &g);
    }
}

static void add_models(struct walk *w, const struct folder *d)
{
    ptrdiff_t first = find_file(d, "model.safetensors");
    if (first < 0)
        first = find_file(d, "model.safetensors.index.json");
    if (first >= 0)
        add_model(w, d, &(struct group){.first = (size_t)first});
    add_file_models(w, d, first >= 0);
}

/* ---- the walk ---------------------------------------------------------------------------------- */

/* A symlink counts when it leads to something beneath the root: @st becomes that of its target. */
static bool leads_beneath(const struct walk *w, const char *folder, const char *name, struct stat *st)
{
    char path[PATH_MAX], real[PATH_MAX];
    size_t n = strlen(w->real);
    return snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path && realpath(path, real) &&
           strncmp(real, w->real, n) == 0 && (real[n] == '/' || n == 1) && stat(real, st) == 0;
}

static void take_file(struct walk *w, int fd, struct folder *d, size_t *room, const char *name, const struct stat *st)
{
    if (!grow(&d->files, d->n_files, room, sizeof *d->files)) {
        w->no_memory = true;
        return;
    }
    struct scan_file *f = &d->files[d->n_files];
    *f = (struct scan_file){.name = strdup(name), .st = *st};
    f->readable = faccessat(fd, name, R_OK, AT_EACCESS) == 0;
    if (!f->name)
        w->no_memory = true;
    else
        d->n_files++;
}

static void remember_wd(struct walk *w, int folder_fd)
{
    struct scan *s = w->scan;
    int wd = w->watch ? watch_add(w->watch, folder_fd) : -ENOENT;
    if (wd < 0 || !grow(&s->wds, s->n_wds, &w->wds_room, sizeof *s->wds))
        s->unwatched |= w->watch != NULL;
    else
        s->wds[s->n_wds++] = wd;
}

static int by_file_name(const void *a, const void *b)
{
    return strcmp(((const struct scan_file *)a)->name, ((const struct scan_file *)b)->name);
}

static void walk_folder(struct walk *w, int fd, const char *path, unsigned depth);

static void walk_below(struct walk *w, int fd, const char *path, const char *name, unsigned depth)
{
    char below[PATH_MAX];
    if (depth + 1 >= SCAN_DEPTH_MAX || snprintf(below, sizeof below, "%s/%s", path, name) >= (int)sizeof below) {
        w->scan->cut = true;
        return;
    }
    int child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child >= 0)
        walk_folder(w, child, below, depth + 1);
}

/* ---- calibration data ---- */

enum { SAMPLES_DEPTH = 2 /* a folder for each input */ };

/* A sum of prints does not hang on the order of a folder. */
uint64_t scan_print_sample(uint64_t print, const char *name, const struct stat *st, unsigned depth)
{
    return is_ignored(name) ? print : print + print_file(print_seed + depth, name, st, true);
}

uint64_t scan_calibration(uint64_t print)
{
    return print ? print : 1;
}

/* Takes @fd. */
static void print_samples(struct walk *w, int fd, struct scan_samples *s, unsigned depth)
{
    remember_wd(w, fd);
    DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)fd_close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir)) && ++w->n_files <= SCAN_FILES_MAX;) {
        struct stat st;
        if (is_ignored(e->d_name) || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        s->print = scan_print_sample(s->print, e->d_name, &st, depth);
        if (later(st.st_ctim, s->newest))
            s->newest = st.st_ctim;
        int child = S_ISDIR(st.st_mode) && depth < SAMPLES_DEPTH
                        ? openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                        : -1;
        if (child >= 0)
            print_samples(w, child, s, depth + 1);
    }
    (void)closedir(dir); /* only read */
}

/* True for "MODEL.calib" beside "MODEL.onnx": it is no folder to look for models in. */
static bool take_samples(struct walk *w, int fd, struct folder *d, const char *name)
{
    char model[NAME_MAX + 1];
    struct stat st;
    if (!ends_with(name, ".calib"))
        return false;
    const int n = (int)(strlen(name) - strlen(".calib"));
    if (snprintf(model, sizeof model, "%.*s.onnx", n, name) >= (int)sizeof model || fstatat(fd, model, &st, 0) < 0)
        return false;
    int folder = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return true;
    struct scan_samples s = {.stem = strndup(name, (size_t)n)};
    print_samples(w, folder, &s, 1);
    if (s.stem && grow(&d->samples, d->n_samples, &d->samples_room, sizeof *d->samples)) {
        d->samples[d->n_samples++] = s;
        return true;
    }
    free(s.stem);
    w->no_memory = true;
    return true;
}

static void take_entry(struct walk *w, int fd, struct folder *d, size_t *room, const char *name, unsigned depth)
{
    struct stat st;
    if (is_ignored(name) || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (S_ISDIR(st.st_mode) && take_samples(w, fd, d, name))
        return;
    if (S_ISDIR(st.st_mode))
        walk_below(w, fd, d->path, name, depth);
    else if (is_of_model(name) &&
             (!S_ISLNK(st.st_mode) || (leads_beneath(w, d->path, name, &st) && !S_ISDIR(st.st_mode))))
        take_file(w, fd, d, room, name, &st);
}

/* Takes @fd. */
static void walk_folder(struct walk *w, int fd, const char *path, unsigned depth)
{
    CLEANUP(folder_clear) struct folder d = {.path = path};
    size_t room = 0;
    remember_wd(w, fd);
    DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)fd_close(fd);
        return;
    }
    for (struct dirent *e; !w->no_memory && (e = readdir(dir));) {
        if (++w->n_files > SCAN_FILES_MAX) {
            w->scan->cut = true;
            break;
        }
        take_entry(w, fd, &d, &room, e->d_name, depth);
    }
    if (d.n_files)
        qsort(d.files, d.n_files, sizeof *d.files, by_file_name);
    if (!w->no_memory)
        add_models(w, &d);
    (void)closedir(dir); /* only read */
}

/* Watches the nearest folder above a root that is not there, so that its coming is heard. */
static void watch_parent(struct walk *w, const char *root)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s", root);
    for (char *slash; (slash = strrchr(path, '/')) != NULL;) {
        slash[slash == path] = '\0';
        CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            remember_wd(w, fd);
            return;
        }
        if (strcmp(path, "/") == 0)
            return;
    }
}

static int open_root(struct walk *w)
{
    for (int tries = 0; tries < 3; tries++) { /* it may come between the look and the watch */
        int fd = open(w->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && realpath(w->root, w->real))
            return fd;
        int why = errno;
        (void)fd_close(fd);
        (void)snprintf(w->scan->problem, sizeof w->scan->problem, "cannot be read: %s", strerror(why));
        watch_parent(w, w->root);
    }
    return -1;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct scan_model *)a)->path, ((const struct scan_model *)b)->path);
}

static int by_number(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int scan_root(const char *root, struct watch *watch, struct scan **ret, struct qd_error *err)
{
    CLEANUP(scan_free) struct scan *s = calloc(1, sizeof *s);
    if (!s || !(s->arena = arena_new(SCAN_ARENA_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "scan of '%s'", root);

    struct walk w = {.scan = s, .watch = watch, .root = root};
    int fd = open_root(&w);
    if (fd >= 0) {
        s->problem[0] = '\0';
        walk_folder(&w, fd, root, 0);
    }
    s->missing = fd < 0;
    if (w.no_memory)
        return err_new(err, QD_E_NO_MEMORY, "scan of '%s'", root);
    if (s->cut)
        (void)snprintf(s->problem, sizeof s->problem,
                       "more than %d files or deeper than %d folders: not all was looked at", SCAN_FILES_MAX,
                       SCAN_DEPTH_MAX);
    if (s->n_models)
        qsort(s->models, s->n_models, sizeof *s->models, by_path);
    if (s->n_wds)
        qsort(s->wds, s->n_wds, sizeof *s->wds, by_number);
    *ret = steal(&s);
    return 0;
}

struct scan *scan_free(struct scan *s)
{
    if (!s)
        return NULL;
    free(s->models);
    free(s->wds);
    (void)arena_free(s->arena);
    free(s);
    return NULL;
}
