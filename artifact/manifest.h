/*
 * The manifest of an artifact: what it is made from, how, and the digest of every file. Small
 * canonical msgpack; signed as a whole (artifact/envelope.h). docs/formats/manifest.md.
 * Encoding is canonical: fixed key order, shortest forms; decode then encode gives the same bytes.
 */
#ifndef QUANTD_ARTIFACT_MANIFEST_H
#define QUANTD_ARTIFACT_MANIFEST_H

#include "artifact/digest.h"
#include "artifact/source_id.h"
#include "kernels/core/arena.h"

enum {
    MANIFEST_FORMAT = 1,
    MANIFEST_FILES_MAX = 64,
    MANIFEST_BYTES_MAX = 48 << 10, /* an envelope fits one packet of 64 KiB */
    MANIFEST_TEXT_MAX = 4096       /* any one string */
};

enum manifest_role { MANIFEST_PAYLOAD, MANIFEST_TENSORS, MANIFEST_METADATA, MANIFEST_SHARDS, MANIFEST_N_ROLES };

struct manifest_file {
    enum manifest_role role;
    const char *name; /* "model.gguf", "tensors", "metadata", "shards" */
    uint64_t bytes;
    struct digest digest;
    bool has_verity;
    struct digest verity; /* fs-verity's sha256 measurement, where the kernel made one */
};

/* Over all tensors whose type changed; the worst tensor by name. */
struct quality {
    uint64_t n_tensors; /* quantized ones */
    double sqnr_db;     /* of all their elements together */
    double rel_rmse;
    double max_abs;
    const char *worst; /* lowest SQNR; "" where none was quantized */
    double worst_sqnr_db;
};

struct manifest {
    uint32_t format; /* MANIFEST_FORMAT */
    struct digest key;
    const char *model;    /* catalog name */
    const char *scheme;   /* as resolved, never "auto" */
    const char *recipe;   /* canonical text of the recipe */
    const char *layout;   /* "portable" */
    const char *features; /* CPU features needed to use it; "" for portable */
    uint32_t encoder_revision;
    struct digest source;        /* identity of the source list */
    struct manifest_file *files; /* [n_files], payload first; of a decoded one in its arena */
    size_t n_files;
    struct quality quality;
    uint64_t created; /* seconds since 1970, UTC */
};

int manifest_encode(const struct manifest *m, struct buffer *dst, struct qd_error *err);

/* Strings are copied into @arena. Anything malformed, unknown version or beyond a limit is an error that says what. */
int manifest_decode(struct bytes raw, struct arena *arena, struct manifest *ret, struct qd_error *err);

/* The first file with @role, NULL where there is none. */
const struct manifest_file *manifest_file(const struct manifest *m, enum manifest_role role);

/* Key = digest of canonical msgpack {source, recipe, layout, encoder_revision}. */
int artifact_key(const struct digest *source, const char *recipe, const char *layout, uint32_t encoder_revision,
                 struct digest *ret, struct qd_error *err);

#endif
