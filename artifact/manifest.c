#include "artifact/manifest.h"

#include <math.h>
#include <string.h>

#include "artifact/pack.h"

static const char *const role_names[MANIFEST_N_ROLES] = {
    [MANIFEST_PAYLOAD] = "payload",
    [MANIFEST_TENSORS] = "tensors",
    [MANIFEST_METADATA] = "metadata",
    [MANIFEST_SHARDS] = "shards",
};

/* How many fields: one byte each. */
struct field_counter {
#define MANIFEST_FIELD(kind, name, text) char name;
#include "artifact/manifest.def"
#undef MANIFEST_FIELD
};
enum { N_FIELDS = sizeof(struct field_counter) };

/* --- Rules that hold for encoding and decoding alike --- */

static bool text_is_fine(const char *text)
{
    return text && strnlen(text, MANIFEST_TEXT_MAX + 1) <= MANIFEST_TEXT_MAX;
}

/* Names are shown and may become file names: one path component, no control bytes. */
static bool file_name_is_fine(const char *name)
{
    if (!text_is_fine(name) || !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (const char *p = name; *p; p++)
        if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

static int check_files(const struct manifest *m, struct qd_error *err)
{
    if (m->n_files == 0 || m->n_files > MANIFEST_FILES_MAX)
        return err_new(err, QD_E_LIMIT, "manifest: %zu files, 1 to %d are allowed", m->n_files, MANIFEST_FILES_MAX);
    for (size_t i = 0; i < m->n_files; i++) {
        const struct manifest_file *f = &m->files[i];
        if ((unsigned)f->role >= MANIFEST_N_ROLES || !file_name_is_fine(f->name))
            return err_new(err, QD_E_CORRUPT, "manifest: file %zu has no proper role or name", i);
        if (i > 0 && (f->role < f[-1].role || (f->role == f[-1].role && f->role != MANIFEST_PAYLOAD)))
            return err_new(err, QD_E_CORRUPT, "manifest: file '%s' is out of order or doubled", f->name);
    }
    return m->files[0].role == MANIFEST_PAYLOAD ? 0 : err_new(err, QD_E_CORRUPT, "manifest: there is no payload");
}

static int check_manifest(const struct manifest *m, struct qd_error *err)
{
    const char *const texts[] = {m->model, m->scheme, m->recipe, m->layout, m->features, m->quality.worst};
    const struct quality *q = &m->quality;
    if (m->format != MANIFEST_FORMAT)
        return err_new(err, QD_E_UNSUPPORTED, "manifest: format %u, this version knows %d", m->format, MANIFEST_FORMAT);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!text_is_fine(texts[i]))
            return err_new(err, QD_E_LIMIT, "manifest: a text is missing or longer than %d bytes", MANIFEST_TEXT_MAX);
    if (isnan(q->sqnr_db) || isnan(q->rel_rmse) || isnan(q->max_abs) || isnan(q->worst_sqnr_db))
        return err_new(err, QD_E_INVALID, "manifest: the quality summary holds a NaN");
    return check_files(m, err);
}

/* --- Encoding: one function per kind of field --- */

static void encode_u32(struct buffer *b, const uint32_t *v)
{
    pack_u64(b, *v);
}

static void encode_u64(struct buffer *b, const uint64_t *v)
{
    pack_u64(b, *v);
}

static void encode_digest(struct buffer *b, const struct digest *v)
{
    pack_bin(b, (struct bytes){v->bytes, DIGEST_BYTES});
}

static void encode_text(struct buffer *b, const char *const *v)
{
    pack_text(b, *v);
}

static void encode_file(struct buffer *b, const struct manifest_file *f)
{
    pack_map(b, f->has_verity ? 5 : 4);
    pack_text(b, "role");
    pack_text(b, role_names[f->role]);
    pack_text(b, "name");
    pack_text(b, f->name);
    pack_text(b, "bytes");
    pack_u64(b, f->bytes);
    pack_text(b, "digest");
    encode_digest(b, &f->digest);
    if (f->has_verity) {
        pack_text(b, "verity");
        encode_digest(b, &f->verity);
    }
}

static void encode_files(struct buffer *b, const struct manifest *m)
{
    pack_array(b, (uint32_t)m->n_files);
    for (size_t i = 0; i < m->n_files; i++)
        encode_file(b, &m->files[i]);
}

static void encode_quality(struct buffer *b, const struct quality *q)
{
    pack_map(b, 6);
    pack_text(b, "n_tensors");
    pack_u64(b, q->n_tensors);
    pack_text(b, "sqnr_db");
    pack_f64(b, q->sqnr_db);
    pack_text(b, "rel_rmse");
    pack_f64(b, q->rel_rmse);
    pack_text(b, "max_abs");
    pack_f64(b, q->max_abs);
    pack_text(b, "worst");
    pack_text(b, q->worst);
    pack_text(b, "worst_sqnr_db");
    pack_f64(b, q->worst_sqnr_db);
}

/* Where a field lives: the files and their count are two members, so they get the whole manifest. */
#define PLACE_u32(m, name)     &(m)->name
#define PLACE_u64(m, name)     &(m)->name
#define PLACE_digest(m, name)  &(m)->name
#define PLACE_text(m, name)    &(m)->name
#define PLACE_files(m, name)   (m)
#define PLACE_quality(m, name) &(m)->name

int manifest_encode(const struct manifest *m, struct buffer *dst, struct qd_error *err)
{
    int r = check_manifest(m, err);
    if (r < 0)
        return r;
    size_t start = dst->n;
    pack_map(dst, N_FIELDS);
#define MANIFEST_FIELD(kind, name, text) \
    pack_text(dst, #name);               \
    encode_##kind(dst, PLACE_##kind(m, name));
#include "artifact/manifest.def"
#undef MANIFEST_FIELD
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "manifest of model '%s'", m->model);
    if (dst->n - start > MANIFEST_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "manifest of model '%s': %zu bytes, at most %d", m->model, dst->n - start,
                       MANIFEST_BYTES_MAX);
    return 0;
}

/* --- Decoding: failures show in the cursor; @arena keeps the texts --- */

static void decode_u32(struct cursor *c, struct arena *arena, uint32_t *ret)
{
    (void)arena;
    uint64_t v = unpack_u64(c);
    if (v > UINT32_MAX)
        c->failed = true;
    *ret = (uint32_t)v;
}

static void decode_u64(struct cursor *c, struct arena *arena, uint64_t *ret)
{
    (void)arena;
    *ret = unpack_u64(c);
}

static void decode_digest(struct cursor *c, struct arena *arena, struct digest *ret)
{
    (void)arena;
    unpack_raw(c, ret->bytes, DIGEST_BYTES);
}

static void decode_text(struct cursor *c, struct arena *arena, const char **ret)
{
    struct bytes text = unpack_str(c);
    if (text.n > MANIFEST_TEXT_MAX || (text.n && memchr(text.data, 0, text.n)))
        c->failed = true;
    *ret = c->failed ? NULL : arena_text(arena, text);
    if (!*ret)
        c->failed = true;
}

static void decode_role(struct cursor *c, enum manifest_role *ret)
{
    struct bytes text = unpack_str(c);
    for (unsigned role = 0; role < MANIFEST_N_ROLES; role++) {
        if (text.n == strlen(role_names[role]) && memcmp(text.data, role_names[role], text.n) == 0) {
            *ret = (enum manifest_role)role;
            return;
        }
    }
    c->failed = true;
}

static void decode_file(struct cursor *c, struct arena *arena, struct manifest_file *f)
{
    uint32_t n_pairs = unpack_map(c);
    f->has_verity = n_pairs == 5;
    if (n_pairs != 4 && n_pairs != 5)
        c->failed = true;
    unpack_key(c, "role");
    decode_role(c, &f->role);
    unpack_key(c, "name");
    decode_text(c, arena, &f->name);
    unpack_key(c, "bytes");
    f->bytes = unpack_u64(c);
    unpack_key(c, "digest");
    decode_digest(c, arena, &f->digest);
    if (f->has_verity) {
        unpack_key(c, "verity");
        decode_digest(c, arena, &f->verity);
    }
}

static void decode_files(struct cursor *c, struct arena *arena, struct manifest *m)
{
    uint32_t n = unpack_array(c);
    if (n > MANIFEST_FILES_MAX)
        c->failed = true;
    m->files = c->failed ? NULL : arena_alloc(arena, n, sizeof *m->files);
    if (!m->files)
        c->failed = true;
    for (m->n_files = 0; m->n_files < n && !c->failed; m->n_files++)
        decode_file(c, arena, &m->files[m->n_files]);
}

static void decode_quality(struct cursor *c, struct arena *arena, struct quality *q)
{
    if (unpack_map(c) != 6)
        c->failed = true;
    unpack_key(c, "n_tensors");
    q->n_tensors = unpack_u64(c);
    unpack_key(c, "sqnr_db");
    q->sqnr_db = unpack_f64(c);
    unpack_key(c, "rel_rmse");
    q->rel_rmse = unpack_f64(c);
    unpack_key(c, "max_abs");
    q->max_abs = unpack_f64(c);
    unpack_key(c, "worst");
    decode_text(c, arena, &q->worst);
    unpack_key(c, "worst_sqnr_db");
    q->worst_sqnr_db = unpack_f64(c);
}

/* The format number is looked at first, so that a newer manifest is told from a damaged one. */
static int check_format(struct cursor c, struct qd_error *err)
{
    (void)unpack_map(&c);
    unpack_key(&c, "format");
    uint64_t format = unpack_u64(&c);
    if (c.failed)
        return err_new(err, QD_E_CORRUPT, "manifest: it does not start with a format number");
    if (format != MANIFEST_FORMAT)
        return err_new(err, QD_E_UNSUPPORTED, "manifest: format %llu, this version knows %d",
                       (unsigned long long)format, MANIFEST_FORMAT);
    return 0;
}

int manifest_decode(struct bytes raw, struct arena *arena, struct manifest *ret, struct qd_error *err)
{
    if (raw.n > MANIFEST_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "manifest: %zu bytes, at most %d", raw.n, MANIFEST_BYTES_MAX);
    struct cursor at = cursor_over(raw), *c = &at;
    int r = check_format(at, err);
    if (r < 0)
        return r;
    struct manifest m = {0};
    if (unpack_map(c) != N_FIELDS)
        c->failed = true;
#define MANIFEST_FIELD(kind, name, text) \
    unpack_key(c, #name);                \
    decode_##kind(c, arena, PLACE_##kind(&m, name));
#include "artifact/manifest.def"
#undef MANIFEST_FIELD
    if (c->failed)
        return err_new(err, QD_E_CORRUPT, "manifest: malformed at byte %zu of %zu", raw.n - cursor_left(c), raw.n);
    if (cursor_left(c))
        return err_new(err, QD_E_CORRUPT, "manifest: %zu bytes too many at its end", cursor_left(c));
    r = check_manifest(&m, err);
    if (r == 0)
        *ret = m;
    return r;
}

const struct manifest_file *manifest_file(const struct manifest *m, enum manifest_role role)
{
    for (size_t i = 0; i < m->n_files; i++)
        if (m->files[i].role == role)
            return &m->files[i];
    return NULL;
}

int artifact_key(const struct digest *source, const char *recipe, const char *layout, uint32_t encoder_revision,
                 struct digest *ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    pack_map(&message, 4);
    pack_text(&message, "source");
    pack_bin(&message, (struct bytes){source->bytes, DIGEST_BYTES});
    pack_text(&message, "recipe");
    pack_text(&message, recipe);
    pack_text(&message, "layout");
    pack_text(&message, layout);
    pack_text(&message, "encoder_revision");
    pack_u64(&message, encoder_revision);
    if (message.failed)
        return err_new(err, QD_E_NO_MEMORY, "artifact key");
    return digest_message("artifact", buffer_span(&message), ret, err);
}
