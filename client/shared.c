#include "client/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kernels/core/checked.h"
#include "kernels/core/io.h"
#include "kernels/layout/packed.h"

enum { ARENA_BYTES_MAX = 1 << 30 }; /* a million tensors with names, views and index take less */

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *list;

/* ---- files ------------------------------------------------------------------------------------------ */

static int take_file(struct packet *p, size_t at, const struct manifest_file *m, struct shared_file *dst,
                     struct qd_error *err)
{
    struct stat st;
    if (fstat(p->fds[at], &st) < 0)
        return err_sys(err, errno, "stat %s", m->name);
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_CORRUPT, "%s is not a regular file", m->name);
    if ((uint64_t)st.st_size != m->bytes)
        return err_new(err, QD_E_CORRUPT, "%s has %lld bytes, its manifest says %llu", m->name, (long long)st.st_size,
                       (unsigned long long)m->bytes);
    *dst = (struct shared_file){.fd = packet_steal_fd(p, at), .dev = st.st_dev, .ino = st.st_ino};
    return 0;
}

static int map_file(struct shared_file *f, const struct manifest_file *m, struct qd_error *err)
{
    if (m->bytes == 0 || m->bytes > SIZE_MAX)
        return err_new(err, QD_E_CORRUPT, "%s of %llu bytes cannot be mapped", m->name, (unsigned long long)m->bytes);
    void *map = mmap(NULL, (size_t)m->bytes, PROT_READ, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED)
        return err_sys(err, errno, "map %s", m->name);
    f->map = map;
    return 0;
}

static void release_files(struct shared *s, size_t n_files)
{
    for (size_t i = 0; i < n_files; i++) {
        struct shared_file *f = &s->files[i];
        if (f->map)
            (void)munmap((void *)(uintptr_t)f->map, (size_t)s->manifest.files[i].bytes); /* a range that is ours */
        f->map = NULL;
        f->fd = fd_close(f->fd);
    }
}

/* Descriptors @at.. of @p become the first @n_files files of @s; payload is mapped, views point into it. */
static int take_files(struct shared *s, struct packet *p, size_t at, size_t n_files, struct qd_error *err)
{
    int r = 0;
    release_files(s, n_files);
    for (size_t i = 0; r == 0 && i < n_files; i++) {
        const struct manifest_file *m = &s->manifest.files[i];
        uint32_t first_shard = s->files[i].first_shard;
        r = take_file(p, at + i, m, &s->files[i], err);
        s->files[i].first_shard = first_shard;
        if (r == 0 && i < s->n_payload)
            r = map_file(&s->files[i], m, err);
    }
    return r;
}

static void point_views(struct shared *s)
{
    for (size_t i = 0; i < s->table.n; i++)
        s->views[i].data = (const uint8_t *)s->files[s->views[i].file].map + s->views[i].offset;
}

int shared_read(const struct shared *s, size_t i, void **ret, struct qd_error *err)
{
    const struct manifest_file *m = &s->manifest.files[i];
    struct digest d;
    if (m->bytes > TABLE_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "%s of %llu bytes, at most %d", m->name, (unsigned long long)m->bytes,
                       TABLE_BYTES_MAX);
    CLEANUP(free) void *raw = malloc((size_t)m->bytes + 1);
    if (!raw)
        return err_new(err, QD_E_NO_MEMORY, "%s of %llu bytes", m->name, (unsigned long long)m->bytes);
    ssize_t n = pread_whole(s->files[i].fd, raw, (size_t)m->bytes, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read %s", m->name);
    int r = (uint64_t)n == m->bytes ? digest_of_bytes((struct bytes){raw, (size_t)n}, &d, err)
                                    : err_new(err, QD_E_CORRUPT, "%s ends at byte %zd", m->name, n);
    if (r < 0)
        return r;
    if (!digest_equal(&d, &m->digest))
        return err_hint(err, err_new(err, QD_E_CORRUPT, "%s does not have the digest that was signed", m->name),
                        "quantctl verify rebuilds damaged artifacts");
    *ret = steal(&raw);
    return 0;
}

/* ---- tensors ------------------------------------------------------------------------------------------ */

static uint32_t name_hash(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h;
}

static void view_of(const struct tensor_entry *t, enum qd_layout layout, struct qd_tensor *dst)
{
    _Static_assert((int)QD_DIMS_MAX == (int)TABLE_DIMS_MAX, "a view has room for every tensor");
    *dst = (struct qd_tensor){.name = t->name,
                              .type = t->type,
                              .source_type = t->source_type,
                              .n_dims = t->n_dims,
                              .bytes = t->bytes,
                              .offset = t->offset,
                              .file = t->file,
                              .reason = t->reason,
                              .sqnr_db = t->sqnr_db,
                              .rel_rmse = t->rel_rmse,
                              .max_abs = t->max_abs,
                              .layout = QD_LAYOUT_PORTABLE};
    if (tensor_packs(t, layout))
        dst->layout = layout;
    memcpy(dst->shape, t->shape, sizeof dst->shape);
}

/* Scales and zero points where they move with their codes (docs/formats/packed.md). */
static void pack_scales(const struct shared *s, enum qd_layout layout, const struct tensor_entry *t)
{
    const struct code_shape shape = tensor_codes(t);
    if (!tensor_packs(t, layout))
        return;
    if (codes_moves_scales(&shape))
        s->views[t->codes.scales].layout = layout;
    if (t->codes.zero_points && codes_moves_zeros(&shape))
        s->views[t->codes.zero_points - 1].layout = layout;
}

/* When all views are there. */
static int point_codes(const struct shared *s, enum qd_layout layout, struct qd_error *err)
{
    for (size_t i = 0; i < s->table.n; i++) {
        const struct tensor_entry *t = &s->table.tensors[i];
        if (!t->codes.n_cols)
            continue;
        struct qd_codes *c = arena_alloc(s->arena, 1, sizeof *c);
        if (!c)
            return err_new(err, QD_E_NO_MEMORY, "views of %zu tensors", s->table.n);
        *c = (struct qd_codes){.type = tensor_codes(t).type,
                               .order = t->codes.by_columns ? QD_ORDER_COLUMNS : QD_ORDER_ROWS,
                               .n_rows = t->codes.n_rows,
                               .n_cols = t->codes.n_cols,
                               .block = t->codes.block,
                               .scales = &s->views[t->codes.scales],
                               .zero_points = t->codes.zero_points ? &s->views[t->codes.zero_points - 1] : NULL};
        s->views[i].codes = c;
        pack_scales(s, layout, t);
    }
    return 0;
}

static int make_views(struct shared *s, struct qd_error *err)
{
    int layout = qd_layout_by_name(s->manifest.layout);
    if (layout < 0)
        return err_hint(
            err, err_new(err, QD_E_UNSUPPORTED, "layout '%s' is not known to this libquantd", s->manifest.layout),
            "the daemon is newer: ask for layout \"portable\", or update libquantd");
    uint32_t slots = 4;
    while (slots < 2 * s->table.n) /* at most TABLE_TENSORS_MAX: no overflow */
        slots *= 2;
    s->views = arena_alloc(s->arena, s->table.n, sizeof *s->views);
    s->index = arena_alloc(s->arena, slots, sizeof *s->index);
    if (!s->views || !s->index)
        return err_new(err, QD_E_NO_MEMORY, "views of %zu tensors", s->table.n);
    s->index_mask = slots - 1;
    for (uint32_t i = 0; i < s->table.n; i++) {
        view_of(&s->table.tensors[i], (enum qd_layout)layout, &s->views[i]);
        uint32_t at = name_hash(s->views[i].name) & s->index_mask;
        while (s->index[at])
            at = (at + 1) & s->index_mask;
        s->index[at] = i + 1;
    }
    return point_codes(s, (enum qd_layout)layout, err);
}

const struct qd_tensor *shared_tensor(const struct shared *s, const char *name)
{
    for (uint32_t at = name_hash(name) & s->index_mask; s->index[at]; at = (at + 1) & s->index_mask) {
        const struct qd_tensor *t = &s->views[s->index[at] - 1];
        if (strcmp(t->name, name) == 0)
            return t;
    }
    return NULL;
}

static int read_tensors(struct shared *s, struct qd_error *err)
{
    uint64_t payload_bytes[MANIFEST_FILES_MAX];
    for (size_t i = 0; i < s->n_payload; i++)
        payload_bytes[i] = s->manifest.files[i].bytes;
    const struct manifest_file *m = manifest_file(&s->manifest, MANIFEST_TENSORS);
    if (!m)
        return err_new(err, QD_E_CORRUPT, "the manifest names no table of tensors");
    CLEANUP(free) void *raw = NULL;
    int r = shared_read(s, (size_t)(m - s->manifest.files), &raw, err);
    if (r == 0)
        r = tensor_table_decode((struct bytes){raw, (size_t)m->bytes}, payload_bytes, s->n_payload, s->arena, &s->table,
                                err);
    return r < 0 ? r : make_views(s, err);
}

/* ---- the envelope ------------------------------------------------------------------------------------- */

static int read_envelope(int fd, struct buffer *dst, struct qd_error *err)
{
    uint8_t raw[ENVELOPE_BYTES_MAX + 1];
    ssize_t n = pread(fd, raw, sizeof raw, 0); /* one call: less than asked is the end of a regular file */
    if (n < 0)
        return err_sys(err, errno, "read the envelope");
    if (n > ENVELOPE_BYTES_MAX)
        return err_new(err, QD_E_CORRUPT, "the envelope is longer than %d bytes", ENVELOPE_BYTES_MAX);
    buffer_put(dst, raw, (size_t)n);
    return dst->failed ? err_new(err, QD_E_NO_MEMORY, "an envelope of %zd bytes", n) : 0;
}

static void fill_info(struct shared *s, const struct key_id *signer)
{
    const struct manifest *m = &s->manifest;
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->n_payload; i++)
        (void)checked_add(bytes, m->files[i].bytes, &bytes); /* all are mapped: the sum fits */
    digest_hex(&m->key, s->key);
    digest_hex(&m->source, s->source);
    digest_hex(&m->files[0].digest, s->digest);
    for (size_t i = 0; i < KEY_ID_BYTES; i++)
        (void)snprintf(s->signer + 2 * i, 3, "%02x", signer->bytes[i]);
    s->info = (struct qd_artifact_info){
        .key = s->key,
        .model = m->model,
        .scheme = m->scheme,
        .recipe = m->recipe,
        .layout = m->layout,
        .features = m->features,
        .source = s->source,
        .digest = s->digest,
        .signer = s->signer,
        .bytes = bytes,
        .created = m->created,
        .encoder_revision = m->encoder_revision,
        .n_files = s->n_payload,
        .sqnr_db = m->quality.sqnr_db,
        .rel_rmse = m->quality.rel_rmse,
        .max_abs = m->quality.max_abs,
        .worst = m->quality.worst,
        .worst_sqnr_db = m->quality.worst_sqnr_db,
    };
}

static int make_files(struct shared *s, struct qd_error *err)
{
    s->files = arena_alloc(s->arena, s->manifest.n_files, sizeof *s->files);
    if (!s->files)
        return err_new(err, QD_E_NO_MEMORY, "%zu files", s->manifest.n_files);
    for (size_t i = 0; i < s->manifest.n_files; i++)
        s->files[i].fd = -1;
    return 0;
}

/* The payload files come first; where the shards of each begin. */
static int count_payload(struct shared *s, struct qd_error *err)
{
    uint64_t shards = 0;
    while (s->n_payload < s->manifest.n_files && s->manifest.files[s->n_payload].role == MANIFEST_PAYLOAD) {
        s->files[s->n_payload].first_shard = (uint32_t)shards;
        if (!checked_add(shards, shard_count(s->manifest.files[s->n_payload].bytes), &shards) || shards > UINT32_MAX)
            return err_new(err, QD_E_CORRUPT, "the manifest's payload is beyond all size");
        s->n_payload++;
    }
    if (s->n_payload == 0)
        return err_new(err, QD_E_CORRUPT, "the manifest names no payload");
    s->n_leaves = (uint32_t)shards;
    return 0;
}

static struct shared *shared_free(struct shared *s)
{
    if (!s)
        return NULL;
    if (s->files)
        release_files(s, s->manifest.n_files);
    buffer_clear(&s->envelope);
    (void)arena_free(s->arena);
    (void)arena_free(s->meta_arena);
    free(s->meta_raw);
    free(s->leaves);
    free(s->verified);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(shared_free, struct shared *)

static struct shared *shared_new(void)
{
    struct shared *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return NULL;
    }
    s->n_users = 1;
    return s;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static int open_first(const struct envelope *e, const char *key, struct packet *p, struct shared *s,
                      struct qd_error *err)
{
    char shown[DIGEST_HEX_BYTES];
    s->arena = arena_new(ARENA_BYTES_MAX);
    if (!s->arena)
        return err_new(err, QD_E_NO_MEMORY, "artifact");
    int r = manifest_decode(e->manifest, s->arena, &s->manifest, err);
    if (r < 0)
        return r;
    digest_hex(&s->manifest.key, shown);
    if (strcmp(shown, key) != 0)
        return err_new(err, QD_E_CORRUPT, "the manifest is of artifact %s", shown);
    if (p->n_fds != 1 + s->manifest.n_files)
        return err_new(err, QD_E_PROTOCOL, "%zu descriptors for %zu files", p->n_fds - 1, s->manifest.n_files);
    r = make_files(s, err);
    if (r == 0)
        r = count_payload(s, err);
    if (r == 0)
        r = take_files(s, p, 1, s->manifest.n_files, err);
    if (r == 0)
        r = read_tensors(s, err);
    if (r < 0)
        return r;
    point_views(s);
    fill_info(s, &e->key_id);
    return 0;
}

/*
 * Do the descriptors @at.. of @p show the very payload that @s has mapped? The other files are not looked at: the
 * tables in memory were checked against the manifest, and the descriptors that @s holds stay in use.
 */
static bool is_same_payload(const struct shared *s, const struct packet *p, size_t at)
{
    for (size_t i = 0; i < s->n_payload; i++) {
        struct stat st;
        if (fstat(p->fds[at + i], &st) < 0 || st.st_dev != s->files[i].dev || st.st_ino != s->files[i].ino ||
            (uint64_t)st.st_size != s->manifest.files[i].bytes)
            return false;
    }
    return true;
}

static bool is_same_envelope(const struct shared *s, struct bytes raw)
{
    return s->envelope.n == raw.n && memcmp(s->envelope.data, raw.data, raw.n) == 0;
}

/*
 * Another user of @s, whose first @n_files came as descriptors @at.. of @p; an idle one gets them back. The caller
 * holds the lock.
 */
static bool use_again(struct shared *s, struct packet *p, size_t at, size_t n_files)
{
    if (s->n_users > 0) {
        if (!is_same_payload(s, p, at))
            return false;
    } else {
        if (take_files(s, p, at, n_files, NULL) < 0) {
            release_files(s, s->n_payload);
            return false;
        }
        point_views(s);
    }
    s->n_users++;
    return true;
}

/* A reference to what is known of the same artifact and files. NULL: nothing. */
static struct shared *find_known(struct bytes raw, struct packet *p)
{
    for (struct shared *s = list; s; s = s->next)
        if (is_same_envelope(s, raw) && p->n_fds == 1 + s->manifest.n_files && use_again(s, p, 1, s->manifest.n_files))
            return s;
    return NULL;
}

static void insert(struct shared *s)
{
    (void)pthread_mutex_lock(&list_lock); /* fails only where it was never made */
    s->next = list;
    list = s;
    (void)pthread_mutex_unlock(&list_lock);
}

/* @s, a reference that is taken, if it is still trusted and of @key. */
static int trust_again(struct trust *trust, const struct envelope *e, const char *key, struct shared *again,
                       uint64_t known, struct shared **ret, struct qd_error *err)
{
    CLEANUP(shared_put) struct shared *s = again;
    uint64_t serial = 0;
    if (strcmp(s->key, key) != 0)
        return err_new(err, QD_E_CORRUPT, "the manifest is of artifact %s", s->key);
    int r = trust_verify(trust, e, known, &serial, err);
    if (r < 0)
        return r;
    if (serial != known) {
        (void)pthread_mutex_lock(&list_lock);
        s->serial = serial;
        (void)pthread_mutex_unlock(&list_lock);
    }
    *ret = steal(&s);
    return 0;
}

/* 1: it was known and is *ret; 0: it was not. */
static int open_known(struct trust *trust, const struct envelope *e, struct bytes raw, const char *key,
                      struct packet *p, struct shared **ret, struct qd_error *err)
{
    (void)pthread_mutex_lock(&list_lock);
    struct shared *s = find_known(raw, p);
    uint64_t known = s ? s->serial : 0;
    (void)pthread_mutex_unlock(&list_lock);
    if (!s)
        return 0;
    int r = trust_again(trust, e, key, s, known, ret, err);
    return r < 0 ? r : 1;
}

int shared_open_again(struct trust *trust, const char *key, struct packet *p, struct shared *hint, struct shared **ret,
                      struct qd_error *err)
{
    struct envelope e;
    (void)pthread_mutex_lock(&list_lock);
    bool used = p->n_fds == hint->n_payload && use_again(hint, p, 0, hint->n_payload);
    uint64_t known = hint->serial;
    (void)pthread_mutex_unlock(&list_lock);
    (void)shared_drop_hint(hint);
    if (!used)
        return err_new(err, QD_E_CORRUPT, "the files that came are not those of the envelope%s",
                       p->cut ? ": this process has no descriptor free" : "");
    int r = envelope_decode(buffer_span(&hint->envelope), &e, err); /* @hint lives: we are one of its users */
    if (r == 0)
        return trust_again(trust, &e, key, hint, known, ret, err);
    (void)shared_put(hint);
    return r;
}

/* What a request says of a scheme or a layout, and what an artifact has: may they be the same? */
static bool may_be(const char *asked, const char *has)
{
    return strcmp(asked, "auto") == 0 || strcmp(asked, "native") == 0 || strcmp(asked, has) == 0;
}

static bool is_named(const struct shared *s, const char *model, const char *scheme, const char *layout)
{
    return model && strcmp(s->manifest.model, model) == 0 && may_be(scheme ? scheme : "auto", s->manifest.scheme) &&
           may_be(layout ? layout : "portable", s->manifest.layout);
}

struct shared *shared_hint(const char *model, const char *scheme, const char *layout)
{
    (void)pthread_mutex_lock(&list_lock);
    struct shared *s = list;
    while (s && !is_named(s, model, scheme, layout))
        s = s->next;
    if (s && !s->has_print)
        s->has_print = envelope_print(buffer_span(&s->envelope), &s->print, NULL) == 0;
    if (s && !s->has_print)
        s = NULL;
    if (s)
        s->n_hints++;
    (void)pthread_mutex_unlock(&list_lock);
    return s;
}

int shared_open(struct trust *trust, const char *key, struct packet *p, struct shared **ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct envelope e;
    if (p->n_fds < 2)
        return err_new(err, QD_E_PROTOCOL, "the answer came without descriptors%s",
                       p->cut ? ": this process has none free" : "");
    int r = read_envelope(p->fds[0], &raw, err);
    if (r == 0)
        r = envelope_decode(buffer_span(&raw), &e, err);
    if (r == 0)
        r = open_known(trust, &e, buffer_span(&raw), key, p, ret, err);
    if (r != 0)
        return r < 0 ? r : 0;

    CLEANUP(shared_free) struct shared *s = shared_new();
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "artifact");
    r = trust_verify(trust, &e, 0, &s->serial, err);
    if (r == 0)
        r = open_first(&e, key, p, s, err);
    if (r < 0)
        return r;
    s->envelope = raw;
    raw = (struct buffer){0};
    insert(s);
    *ret = steal(&s);
    return 0;
}

/* What was read of the files that are gone now. */
static void forget_marks(struct shared *s)
{
    free(steal(&s->verified));
    s->meta_arena = arena_free(s->meta_arena);
    free(steal(&s->meta_raw));
    s->meta_loaded = false;
}

/* Forgets all idle ones but the newest; the caller holds the lock. */
static struct shared *unlink_stale(void)
{
    struct shared *stale = NULL, **at = &list;
    for (unsigned n_idle = 0; *at;) {
        struct shared *s = *at;
        if (s->n_users == 0 && s->n_hints == 0 && ++n_idle > SHARED_IDLE_MAX) {
            *at = s->next;
            s->next = stale;
            stale = s;
        } else {
            at = &s->next;
        }
    }
    return stale;
}

static void free_all(struct shared *stale)
{
    for (struct shared *next; stale; stale = next) {
        next = stale->next;
        (void)shared_free(stale);
    }
}

struct shared *shared_put(struct shared *s)
{
    struct shared *stale = NULL;
    if (!s)
        return NULL;
    (void)pthread_mutex_lock(&list_lock);
    if (--s->n_users == 0) {
        release_files(s, s->n_payload);
        forget_marks(s);
        stale = unlink_stale();
    }
    (void)pthread_mutex_unlock(&list_lock);
    free_all(stale);
    return NULL;
}

struct shared *shared_drop_hint(struct shared *hint)
{
    if (!hint)
        return NULL;
    (void)pthread_mutex_lock(&list_lock);
    hint->n_hints--;
    struct shared *stale = unlink_stale();
    (void)pthread_mutex_unlock(&list_lock);
    free_all(stale);
    return NULL;
}
