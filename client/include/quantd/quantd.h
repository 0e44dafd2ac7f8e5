/*
 * quantd/quantd.h - quantized model weights, built on demand, shared by every process that maps them
 *
 *     struct qd_error err;
 *     struct qd_client *c;
 *     struct qd_artifact *a;
 *     if (qd_connect(NULL, &c, &err) < 0) ...
 *     struct qd_open_options o = {.model = "tiny", .scheme = "q8_0"};
 *     if (qd_open(c, &o, &a, &err) < 0) ...
 *     const struct qd_tensor *t = qd_artifact_tensor(a, "blk.0.attn_q.weight");
 *     ... t->data, t->bytes: read-only, shared, mapped ...
 *     qd_artifact_free(a); qd_client_free(c);
 *
 * Ownership: what a *_free function exists for is owned by the caller; every other pointer borrows
 * from the object it came from and lives as long. An artifact outlives its client and the daemon.
 * Threads: a qd_client is used by one thread at a time; qd_artifact and its views may be read from
 * any thread. qd_*_free once, when no other thread uses the object.
 * Errors: 0 or a negative enum qd_error_code; struct qd_error says what, where, why, and the next
 * step; NULL is allowed. Signals: SIGPIPE is never raised. fork: do not use a client in a child.
 */
#ifndef QUANTD_QUANTD_H
#define QUANTD_QUANTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>
#include <quantd/error.h>
#include <quantd/layout.h>
#include <quantd/matmul.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QD_API __attribute__((visibility("default")))
#else
#define QD_API
#endif

#define QD_VERSION_MAJOR 0
#define QD_VERSION_MINOR 1

/* ---- connection ------------------------------------------------------------------------- */

struct qd_client;

/*
 * Connects to @path, or, where NULL, to $QUANTD_SOCKET, else $XDG_RUNTIME_DIR/quantd/quantd.sock
 * when it exists, else /run/quantd/quantd.sock. Trusts the public key published beside the socket
 * (quantd.pub, owned by root or by the daemon's uid, not writable by others) and the *.pub of
 * /etc/quantd/trusted.d and $XDG_CONFIG_HOME/quantd/trusted.d; revoked.d beside them always wins.
 */
QD_API int qd_connect(const char *path, struct qd_client **ret, struct qd_error *err);
QD_API void qd_client_free(struct qd_client *c);

/*
 * The daemon restarted or the socket broke: calls reconnect by themselves and repeat what is safe to repeat; this does
 * it now.
 */
QD_API int qd_reconnect(struct qd_client *c, struct qd_error *err);

/* ---- opening artifacts -------------------------------------------------------------------- */

enum qd_verify {
    QD_VERIFY_SIGNATURE, /* envelope, tables and sizes (default) */
    QD_VERIFY_LAZY,      /* also each shard when qd_tensor_verify or qd_artifact_tensor first meets it */
    QD_VERIFY_FULL       /* also every byte, before the open returns */
};

struct qd_progress {
    const char *model;   /* catalog name */
    const char *scheme;  /* as resolved */
    const char *state;   /* "queued" "hashing" "planning" "calibrating" "running" "comparing" "sealing" "ready", or how
                            it ended: "failed" "cancelled" */
    const char *tensor;  /* being encoded, or ""; calibrating or comparing: "sample 3 of 20" */
    uint64_t done_bytes; /* of total_bytes, in the present state */
    uint64_t total_bytes;
    double bytes_per_s;  /* over the last second; 0 while unknown */
    double seconds_left; /* negative while unknown */
    const char *layout;  /* of what is being made: a packed artifact is made from the portable one */
};

/*
 * Return non-zero to stop waiting: the open then fails with QD_E_CANCELLED and the job goes on only while others wait
 * for it.
 */
typedef int qd_progress_fn(const struct qd_progress *p, void *data);

/* Zero-initialise; unset fields have their defaults. */
struct qd_open_options {
    const char *model;        /* catalog name; or NULL with source_fd */
    const char *scheme;       /* default "auto" */
    const char *layout;       /* "portable" (default); "native": what this CPU computes with best; "auto": that, and
                                 until it is made the portable one; or a name */
    bool pure;                /* one type for every matrix that its rows allow */
    bool no_build;            /* only what is in the cache: a miss is QD_E_NOT_FOUND */
    bool strict;              /* the daemon checks every byte before it answers */
    enum qd_verify verify;    /* what this process checks itself */
    uint32_t wait_ms;         /* 0: for ever */
    bool use_source_fd;       /* open the caller's own file: source_fd below */
    int source_fd;            /* a readable regular file, borrowed; any user may pass one of its own */
    qd_progress_fn *progress; /* called from the thread that called qd_open; may be NULL */
    void *progress_data;
    const char
        *imatrix; /* file of an importance matrix (llama-imatrix) that errors are weighed by; opened here and now,
                            so any user may give one of its own; NULL: none */
    const char *output_type;    /* of the output matrix, such as "q8_0"; NULL: as the scheme has it */
    const char *embedding_type; /* of the token embedding; NULL: as the scheme has it */
    const char
        *tensor_rules;     /* a line each, the first that matches holds: "tensor=REGEX=TYPE", or "keep=REGEX" for what
                                   stays as it is; POSIX extended, matched anywhere in a tensor's name; of ONNX
                                   models also "method=M", "bits=N", "block=N", "asymmetric=1"; NULL: none */
    bool leave_output;     /* the output matrix stays as it is */
    bool allow_requantize; /* quantize again what is quantized: one error is added to another */
};

struct qd_artifact;

/* Blocks until the artifact is mapped, building it if need be. */
QD_API int qd_open(struct qd_client *c, const struct qd_open_options *o, struct qd_artifact **ret,
                   struct qd_error *err);

/*
 * The same without blocking. After qd_open_start poll qd_client_fd() for reading, then call
 * qd_open_step: 1 when *ret is the artifact, 0 when there is more to wait for (progress
 * callbacks happen inside), negative on failure. qd_open_cancel gives up. One request at a time
 * on a client that is used this way.
 */
struct qd_open_request;
QD_API int qd_client_fd(const struct qd_client *c);
QD_API int qd_open_start(struct qd_client *c, const struct qd_open_options *o, struct qd_open_request **ret,
                         struct qd_error *err);
QD_API int qd_open_step(struct qd_open_request *r, struct qd_artifact **ret, struct qd_error *err);
QD_API void qd_open_cancel(struct qd_open_request *r); /* frees; also after an answer */

/* Unmaps. Views and pointers into it are invalid afterwards. */
QD_API void qd_artifact_free(struct qd_artifact *a);

/* ---- views ------------------------------------------------------------------------------- */

enum { QD_DIMS_MAX = 8 };

struct qd_tensor;

/*
 * What a tensor of codes alone is, a weight of an ONNX model: a matrix whose scales, and perhaps zero points, are
 * tensors of their own (struct qd_matrix, matmul.h). The codes' type may be u8 of two codes of 4 bits each.
 */
struct qd_codes {
    enum qd_type type; /* i8, i4 or u4 */
    enum qd_order order;
    uint64_t n_rows, n_cols;
    uint64_t block;                      /* elements of a row with a scale; 0: all of it */
    const struct qd_tensor *scales;      /* borrowed, of the same artifact */
    const struct qd_tensor *zero_points; /* NULL: none */
};

struct qd_tensor {
    const char *name;
    enum qd_type type;
    enum qd_type source_type;
    uint32_t n_dims;
    uint64_t shape[QD_DIMS_MAX]; /* elements; shape[0] is the contiguous row */
    uint64_t bytes;
    uint64_t offset; /* bytes from the start of payload file @file */
    uint32_t file;
    const void *data;   /* read-only mapping, page-aligned; of an ONNX model's tensors below 1 KiB at any byte */
    const char *reason; /* why this type */
    double sqnr_db;     /* against the source; +inf where exact */
    double rel_rmse;
    double max_abs;
    enum qd_layout layout;        /* how the bytes of each of its matrices are ordered: the artifact's, or portable */
    const struct qd_codes *codes; /* NULL where it is no weight of codes alone; borrows the artifact */
};

QD_API size_t qd_artifact_n_tensors(const struct qd_artifact *a);
QD_API const struct qd_tensor *qd_artifact_tensor_at(const struct qd_artifact *a, size_t i); /* NULL beyond the last */
QD_API const struct qd_tensor *qd_artifact_tensor(const struct qd_artifact *a,
                                                  const char *name); /* NULL where there is none */

/*
 * Matrix @i of a tensor of two to four dimensions, as qd_matmul and its like take it: shape[0] inputs, shape[1]
 * outputs; of a tensor of experts the matrix of expert @i, in the order of memory. Of codes alone the one that t->codes
 * says, whatever their dimensions (of a convolution: a row for each channel that it makes). Borrows the tensors' data.
 * QD_E_INVALID: it has no such matrix; QD_E_NOT_FOUND: @t is NULL, as qd_artifact_tensor answers where there is none.
 */
QD_API int qd_tensor_matrix(const struct qd_tensor *t, uint64_t i, struct qd_matrix *ret, struct qd_error *err);

/* Checks the shards that hold this tensor against the signed shard list (once each). */
QD_API int qd_tensor_verify(struct qd_artifact *a, const struct qd_tensor *t, struct qd_error *err);

/* Checks every byte of every file now. */
QD_API int qd_artifact_verify(struct qd_artifact *a, struct qd_error *err);

struct qd_artifact_info {
    const char *key; /* 64 hex digits */
    const char *model;
    const char *scheme; /* as resolved */
    const char *recipe; /* canonical text */
    const char *layout;
    const char *features; /* CPU features needed */
    const char *source;   /* identity of the source, 64 hex digits */
    const char *digest;   /* of payload file 0, 64 hex digits */
    const char *signer;   /* key id, 16 hex digits */
    uint64_t bytes;       /* payload files together */
    uint64_t created;     /* seconds since 1970 */
    uint32_t encoder_revision;
    uint32_t n_files; /* payload files */
    double sqnr_db;   /* over all quantized tensors */
    double rel_rmse;
    double max_abs;
    const char *worst; /* tensor of lowest SQNR, or "" */
    double worst_sqnr_db;
};

QD_API const struct qd_artifact_info *qd_artifact_info(const struct qd_artifact *a);

/*
 * Why this scheme and this layout, in the daemon's words, for people. info->layout may be another than was asked for: a
 * model with nothing to pack is served portable, and with "auto" so is one whose packed artifact is still being made.
 */
QD_API const char *qd_artifact_why(const struct qd_artifact *a);

/* Payload file @i: its read-only descriptor (borrowed; other runtimes open /proc/self/fd/N), mapping and size. */
QD_API int qd_artifact_fd(const struct qd_artifact *a, uint32_t i);
QD_API const void *qd_artifact_map(const struct qd_artifact *a, uint32_t i, uint64_t *ret_bytes);
QD_API const char *qd_artifact_file_name(const struct qd_artifact *a, uint32_t i);

/* ---- model metadata (GGUF keys, tokenizer included; of ONNX models docs/formats/onnx-quantized.md) ---------- */

/* The tables are checked against the manifest at the first call. QD_E_NOT_FOUND where the key is none, QD_E_INVALID
   where the type differs. Strings end with a NUL that @ret_bytes (may be NULL) does not count; a file's string may hold
   other NULs. */
QD_API int qd_meta_string(struct qd_artifact *a, const char *key, const char **ret, size_t *ret_bytes,
                          struct qd_error *err);
QD_API int qd_meta_u64(struct qd_artifact *a, const char *key, uint64_t *ret,
                       struct qd_error *err); /* any integer or bool that fits */
QD_API int qd_meta_f64(struct qd_artifact *a, const char *key, double *ret, struct qd_error *err); /* any number */
QD_API int qd_meta_count(struct qd_artifact *a, const char *key, size_t *ret_items,
                         struct qd_error *err); /* items of an array, 1 for a scalar */
QD_API int qd_meta_item_string(struct qd_artifact *a, const char *key, size_t i, const char **ret, size_t *ret_bytes,
                               struct qd_error *err);
QD_API int qd_meta_item_u64(struct qd_artifact *a, const char *key, size_t i, uint64_t *ret, struct qd_error *err);
QD_API int qd_meta_item_i64(struct qd_artifact *a, const char *key, size_t i, int64_t *ret, struct qd_error *err);
QD_API int qd_meta_item_f64(struct qd_artifact *a, const char *key, size_t i, double *ret, struct qd_error *err);
QD_API const char *qd_meta_key_at(struct qd_artifact *a, size_t i); /* NULL beyond the last */
QD_API const char *
qd_meta_type_name(struct qd_artifact *a,
                  const char *key); /* "u32" "string" "array of f32" ..., NULL where the key is none */

/* ---- calibration data from an app -------------------------------------------------------------- */

/*
 * An app that runs an ONNX model with its own runtime, on the data that it really meets, can tell quantd what the
 * model's values are like: extremes and histograms, never the data. int8-static and int8 then choose the ranges of
 * activations by them, together with samples beside the model where there are some. What is asked for are the float32
 * inputs of Conv, ConvTranspose, MatMul and Gemm, by the names that the values have in the graph; others are not looked
 * at. Call once for each value and sample. Memory: 33 KiB a value. One thread at a time.
 */
struct qd_statistics;
QD_API int qd_statistics_new(struct qd_statistics **ret, struct qd_error *err);
QD_API void qd_statistics_free(struct qd_statistics *s);

/* All @n elements of the value @name in one sample. NaN or infinity: QD_E_INVALID, and nothing is added. */
QD_API int qd_statistics_add(struct qd_statistics *s, const char *name, const float *x, uint64_t n,
                             struct qd_error *err);

/*
 * The same where only the least and the greatest of the @n elements are known: methods min-max and average can then be
 * asked for. Of one value either elements or ranges.
 */
QD_API int qd_statistics_add_range(struct qd_statistics *s, const char *name, uint64_t n, float low, float high,
                                   struct qd_error *err);

/*
 * Sends all that was added since qd_statistics_new. It replaces what was sent for @model (catalog name) before, is kept
 * over restarts, and counts until the model's file changes. QD_E_DENIED: neither the file's owner nor an admin.
 */
QD_API int qd_statistics_send(struct qd_client *c, const char *model, const struct qd_statistics *s,
                              struct qd_error *err);

/* ---- asking and administering ------------------------------------------------------------- */

/*
 * Everything else the daemon answers is asked by method name with parameters and answered as a
 * small JSON-like tree, so that tools need no struct per message. docs/protocol.md lists methods.
 * qd_call blocks; events that belong to the request are given to @event (may be NULL) as they come.
 */
struct qd_value; /* immutable tree: nil, bool, integer, number, string, array, map */

struct qd_param {
    const char *key; /* NULL ends the list */
    enum { QD_PARAM_STR, QD_PARAM_U64, QD_PARAM_BOOL, QD_PARAM_FD } kind;
    const char *str;
    uint64_t u64; /* also 0 or 1 for a bool, and a descriptor (borrowed) that goes with the request, two at most */
};

typedef int qd_event_fn(const char *event, const struct qd_value *params, void *data); /* non-zero: stop */

QD_API int qd_call(struct qd_client *c, const char *method, const struct qd_param *params, qd_event_fn *event,
                   void *data, struct qd_value **ret, struct qd_error *err);
QD_API void qd_value_free(struct qd_value *v);

/*
 * Subscribes, and gives events of the catalog, the store, the jobs and the hardware (docs/protocol.md) to @event until
 * it returns non-zero, @for_ms have passed (0: never), or the connection ends and cannot be made again.
 */
QD_API int qd_watch(struct qd_client *c, uint32_t for_ms, qd_event_fn *event, void *data, struct qd_error *err);

enum qd_value_kind { QD_NIL, QD_BOOL, QD_INT, QD_UINT, QD_NUMBER, QD_STRING, QD_ARRAY, QD_MAP };
QD_API enum qd_value_kind qd_value_kind(const struct qd_value *v); /* QD_NIL for NULL */
QD_API size_t qd_value_n(const struct qd_value *v);                /* items of an array or map */
QD_API const struct qd_value *qd_value_at(const struct qd_value *v, size_t i);
QD_API const char *qd_value_key_at(const struct qd_value *v, size_t i);
QD_API const struct qd_value *qd_value_get(const struct qd_value *map, const char *key); /* NULL where there is none */
QD_API const char *qd_value_str(const struct qd_value *v);                               /* "" where it is no string */
QD_API uint64_t qd_value_u64(const struct qd_value *v); /* 0 where it is no non-negative integer */
QD_API int64_t qd_value_i64(const struct qd_value *v);
QD_API double qd_value_f64(const struct qd_value *v);
QD_API bool qd_value_bool(const struct qd_value *v);

/* The two lists apps want, typed. Free with qd_list_free. */
struct qd_list;
struct qd_model_info {
    const char *name;
    const char *path;
    const char *format;  /* "gguf" "safetensors" "onnx" or "" before it was read */
    const char *state;   /* "settling" "ready" "bad" */
    const char *problem; /* why it is bad, or "" */
    uint64_t bytes;
};
QD_API int qd_models(struct qd_client *c, struct qd_list **ret, struct qd_error *err);
QD_API size_t qd_list_n(const struct qd_list *l);
QD_API const struct qd_model_info *qd_list_model(const struct qd_list *l, size_t i);
QD_API int qd_artifacts(struct qd_client *c, struct qd_list **ret, struct qd_error *err);
QD_API const struct qd_artifact_info *qd_list_artifact(const struct qd_list *l, size_t i);
QD_API void qd_list_free(struct qd_list *l);

#ifdef __cplusplus
}
#endif
#endif
