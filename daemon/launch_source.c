#include "daemon/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/sent.h"
#include "daemon/stamp.h"
#include "quant/importance.h"
#include "quant/page_cache.h"
#include "quant/source.h"
#include "statistics/statistics.h"

/* What the importance matrix is called: no file of a model is, and whose it was is nobody's concern. */
#define IMATRIX_NAME "<imatrix>"
#define SENT_NAME    "<statistics>"

/* ---- hash, key ------------------------------------------------------------------------------------- */

static bool is_imatrix(const struct launch_file *f)
{
    return strcmp(f->role, IMPORTANCE_ROLE) == 0;
}

static bool is_sent(const struct launch_file *f)
{
    return strcmp(f->role, STATISTICS_ROLE) == 0;
}

static int hash_file(struct launch *l, struct launch_file *f, struct qd_error *err)
{
    struct stat after;
    bool cached = page_cache_has(f->fd, 0, (uint64_t)f->st.st_size);
    l->found_cached |= cached;
    l->hashed_cold |= !cached;
    int r =
        digest_file(f->fd, (uint64_t)f->st.st_size, l->n_threads, &f->digest, NULL, &l->cancel, &l->done_bytes, err);
    if (r < 0)
        return err_in(err, r, "'%s'", f->name);
    if (fstat(f->fd, &after) < 0)
        return err_sys(err, errno, "stat '%s'", f->name);
    struct file_stamp was = stamp_of(&f->st), is = stamp_of(&after);
    if (!stamp_equal(&was, &is))
        return err_new(err, QD_E_SOURCE_CHANGED, "'%s' was changed while it was hashed", f->name);
    (void)hint_put(l->d->hints, &f->st, &f->digest, NULL); /* a hint that is lost costs hashing */
    if (is_imatrix(f) && !digest_equal(&f->digest, &l->recipe.importance))
        return err_new(err, QD_E_SOURCE_CHANGED, "the importance matrix was changed since it was asked for");
    if (is_sent(f) && !digest_equal(&f->digest, &l->recipe.statistics))
        return err_new(err, QD_E_CORRUPT, "the statistics that were sent for the model are damaged");
    return 0;
}

/* The model's: an importance matrix, and statistics that were sent, are parts of the recipe, by their digests. */
static size_t list_files(const struct launch *l, struct source_file_id *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n_files; i++)
        if (l->files[i].fd >= 0 && !is_imatrix(&l->files[i]) && !is_sent(&l->files[i]))
            ret[n++] = (struct source_file_id){.role = l->files[i].role,
                                               .name = l->files[i].name,
                                               .bytes = (uint64_t)l->files[i].st.st_size,
                                               .digest = l->files[i].digest};
    return n;
}

static int make_key(struct launch *l, struct qd_error *err)
{
    CLEANUP(free) struct source_file_id *ids = calloc(l->n_files, sizeof *ids);
    if (!ids)
        return err_new(err, QD_E_NO_MEMORY, "source identity");
    char recipe[RECIPE_TEXT_MAX];
    recipe_text(&l->recipe, recipe);
    int r = source_identity(ids, list_files(l, ids), &l->source_id, err);
    return r < 0 ? r : artifact_key(&l->source_id, recipe, "portable", l->encoder_revision, &l->key, err);
}

static int hash_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    int r = 0;
    for (size_t i = 0; r == 0 && i < l->n_files; i++)
        if (l->files[i].fd >= 0)
            r = hash_file(l, &l->files[i], err);
    return r < 0 ? r : make_key(l, err);
}

static void remember_source(struct launch *l)
{
    CLEANUP(free) struct source_file_id *ids = calloc(l->n_files, sizeof *ids);
    if (ids && l->known)
        (void)known_put(l->known, &l->files[0].st, l->calibration, ids, list_files(l, ids),
                        NULL); /* forgotten: costs a probe */
}

static void step_key(struct launch *l)
{
    struct lease *lease = NULL;
    remember_source(l);
    if (l->plan_only) {
        launch_plan(l);
        return;
    }
    if (store_lookup(l->d->store, &l->key, &lease, NULL) == 0) {
        (void)lease_release(lease); /* returns NULL by convention */
        launch_finish(l);           /* it is there already */
        return;
    }
    if (!l->hooks.keyed(l->data, &l->key))
        l->cancel = 1;
    launch_go_on(l, launch_plan);
}

static void step_hash(struct launch *l)
{
    l->total_bytes = 0;
    for (size_t i = 0; i < l->n_files; i++)
        l->total_bytes += l->files[i].fd >= 0 ? (uint64_t)l->files[i].st.st_size : 0;
    l->hooks.state(l->data, JOB_HASHING);
    if (l->plan_only)
        launch_plan(l); /* no key is needed */
    else
        launch_on_pool(l, hash_on_pool, step_key, true);
}

/* ---- companions ---- */

static bool is_onnx(const struct launch *l)
{
    return strcmp(l->format, "onnx") == 0;
}

/*
 * A companion with other links is taken only from the owner of the first file: whoever may write
 * into the folder could else link somebody's secret there and have us read it (CVE-2024-27318 and kin). An ONNX model
 * names whatever file it likes: so it is only given what its owner, or everybody, may read.
 */
int launch_gather_one(const struct launch *l, struct launch_file *f, struct qd_error *err)
{
    if (l->folder_fd < 0 && f->required)
        return err_new(err, QD_E_UNSUPPORTED,
                       "the model needs '%s' beside it: open it by its path, not by a descriptor", f->name);
    if (l->folder_fd < 0)
        return 0;
    int r = open_beneath(l->folder_fd, f->name, &f->fd, err);
    if (r == 0 && f->fd < 0 && f->required)
        r = err_new(err, QD_E_NOT_FOUND, "the model needs '%s', which is not in its folder", f->name);
    if (r < 0 || f->fd < 0)
        return r;
    if (fstat(f->fd, &f->st) < 0)
        return err_sys(err, errno, "stat '%s'", f->name);
    if (!S_ISREG(f->st.st_mode))
        return err_new(err, QD_E_CORRUPT, "'%s' is not a regular file", f->name);
    if (f->st.st_nlink > 1 && f->st.st_uid != l->files[0].st.st_uid)
        return err_new(err, QD_E_DENIED, "'%s' is a link to somebody else's file", f->name);
    if (is_onnx(l) && f->st.st_uid != l->files[0].st.st_uid && !(f->st.st_mode & S_IROTH))
        return err_new(err, QD_E_DENIED, "'%s' is somebody else's file, whom alone it is for", f->name);
    return 0;
}

static int add_sent(struct launch *l, struct qd_error *err)
{
    struct launch_file *grown = realloc(l->files, (l->n_files + 1) * sizeof *grown);
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    l->files = grown;
    struct launch_file *f = &l->files[l->n_files++];
    *f = (struct launch_file){.role = strdup(STATISTICS_ROLE), .name = strdup(SENT_NAME), .required = true, .fd = -1};
    if (!f->role || !f->name)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    int r = sent_open_file(l->d->sent, &l->recipe.statistics, &f->fd, err);
    if (r == 0 && fstat(f->fd, &f->st) < 0)
        r = err_sys(err, errno, "stat the statistics");
    return r;
}

static int gather_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    int r = 0;
    for (size_t i = 1; r == 0 && i < l->n_files; i++)
        if (l->files[i].fd < 0)
            r = launch_gather_one(l, &l->files[i], err);
    if (r == 0 && is_onnx(l) && l->folder_fd >= 0)
        r = samples_gather(l, err);
    return r == 0 && is_onnx(l) && l->recipe.has_statistics ? add_sent(l, err) : r;
}

static void step_add(struct launch *l)
{
    launch_add(l, step_hash);
}

/* ---- probe ---------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

static const char *const roles[] = {"weights", "index", "config", "tokenizer", NULL};

/* A name beside the first file; of an ONNX model's data also in a folder beneath. The way there is open_beneath's. */
static bool is_companion_name(const struct launch *l, const char *name)
{
    const size_t n = strlen(name);
    if (n == 0 || n >= PATH_MAX || name[0] == '/' || name[n - 1] == '/')
        return false;
    for (const char *at = name; at; at = strchr(at, '/')) {
        at += *at == '/';
        const size_t part = strcspn(at, "/");
        if (part == 0 || part > NAME_MAX || strncmp(at, "..", part) == 0)
            return false;
    }
    return is_onnx(l) || !strchr(name, '/');
}

static int take_file(struct launch *l, const struct msg_w_file *w, struct qd_error *err)
{
    struct launch_file *f = &l->files[l->n_files];
    if (!is_one_of(w->role, roles) || !is_companion_name(l, w->name))
        return err_new(err, QD_E_PROTOCOL, "the worker asks for a file '%.64s' of role '%.16s'", w->name, w->role);
    for (size_t i = 0; i < l->n_files; i++)
        if (strcmp(l->files[i].name, w->name) == 0)
            return err_new(err, QD_E_PROTOCOL, "the worker asks for '%s' twice", w->name);
    *f = (struct launch_file){.role = strdup(w->role), .name = strdup(w->name), .required = w->required, .fd = -1};
    l->n_files++;
    return f->role && f->name ? 0 : err_new(err, QD_E_NO_MEMORY, "file list");
}

/* It came with the request, and stands behind the model's own files. */
static int add_imatrix(struct launch *l, struct qd_error *err)
{
    struct stat st;
    if (l->imatrix_fd < 0)
        return 0;
    if (fstat(l->imatrix_fd, &st) < 0)
        return err_sys(err, errno, "stat the importance matrix");
    struct launch_file *f = &l->files[l->n_files];
    *f = (struct launch_file){
        .role = strdup(IMPORTANCE_ROLE), .name = strdup(IMATRIX_NAME), .required = true, .fd = -1, .st = st};
    l->n_files++;
    if (!f->role || !f->name)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    f->fd = steal_fd(&l->imatrix_fd);
    return 0;
}

static int take_probe(struct launch *l, struct incoming *in, struct qd_error *err)
{
    static const char *const formats[] = {"gguf", "safetensors", "onnx", NULL};
    struct msg_w_probed probed;
    int r = incoming_decode(in, INTO(w_probed, &probed), err);
    if (r < 0)
        return r;
    if (!is_one_of(probed.format, formats) || !is_one_of(probed.role, roles) || probed.files_n >= SOURCE_FILES_MAX)
        return err_new(err, QD_E_PROTOCOL, "the worker found format '%.16s' with %zu companions", probed.format,
                       probed.files_n);
    (void)snprintf(l->format, sizeof l->format, "%s", probed.format);                    /* one of the above: fits */
    struct launch_file *grown = realloc(l->files, (probed.files_n + 2) * sizeof *grown); /* the imatrix, too */
    if (!grown)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    l->files = grown;
    free(l->files[0].role);
    l->files[0].role = strdup(probed.role);
    if (!l->files[0].role)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    for (size_t i = 0; r == 0 && i < probed.files_n; i++)
        r = take_file(l, &probed.files[i], err);
    return r < 0 ? r : add_imatrix(l, err);
}

static void on_probe_reply(struct launch *l, struct incoming *in, struct packet *p)
{
    struct qd_error err;
    (void)p;
    int r = in->failed ? incoming_error(in, &err) : take_probe(l, in, &err);
    if (l->first_path && l->d->catalog && (r == 0 || (in->failed && (r == QD_E_UNSUPPORTED || r == QD_E_CORRUPT))))
        catalog_note(l->d->catalog, l->model, r == 0 ? l->format : "", r == 0 ? NULL : err.message);
    if (r < 0) {
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    launch_on_pool(l, gather_on_pool, step_add, false);
}

/* ---- open ------------------------------------------------------------------------------------------------------ */

static int open_folder(struct launch *l, struct qd_error *err)
{
    const char *slash = strrchr(l->first_path, '/');
    CLEANUP(free)
    char *folder =
        slash ? strndup(l->first_path, slash == l->first_path ? 1 : (size_t)(slash - l->first_path)) : strdup(".");
    if (!folder)
        return err_new(err, QD_E_NO_MEMORY, "folder");
    l->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return l->folder_fd < 0 ? err_sys(err, errno, "open '%s'", folder) : 0;
}

static int open_first(struct launch *l, struct launch_file *f, struct qd_error *err)
{
    int r = open_folder(l, err);
    if (r < 0)
        return r;
    f->fd = open(l->first_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a fifo must not hold us */
    return f->fd < 0 ? err_sys(err, errno, "open '%s'", l->first_path) : 0;
}

static int open_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    struct launch_file *f = &l->files[0];
    int r = l->first_path ? open_first(l, f, err) : 0;
    if (r < 0)
        return r;
    if (fstat(f->fd, &f->st) < 0)
        return err_sys(err, errno, "stat '%s'", f->name);
    if (!S_ISREG(f->st.st_mode))
        return err_new(err, QD_E_CORRUPT, "'%s' is not a regular file", f->name);
    struct file_stamp is = stamp_of(&f->st);
    if (!stamp_equal(&is, &l->stamp))
        return err_new(err, QD_E_SOURCE_CHANGED, "'%s' was changed since it was asked for", f->name);
    int flags = l->first_path ? 0 : fcntl(f->fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY)
        return err_new(err, QD_E_DENIED, "the descriptor is not open for reading");
    return 0;
}

static void step_probe(struct launch *l)
{
    launch_probe(l, on_probe_reply);
}

void launch_begin_source(struct launch *l)
{
    l->hooks.state(l->data, JOB_PROBING);
    launch_on_pool(l, open_on_pool, step_probe, false);
}
