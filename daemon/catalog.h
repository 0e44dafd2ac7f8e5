/*
 * The catalog of models: what the watched folders hold. Events of the file system are only hints;
 * a model is ready when its files have been quiet for the configured time with a stable stat.
 *
 * A model is a *.gguf file (of split files, the first part), a *.safetensors file, an *.onnx file, or a folder
 * that holds model.safetensors or model.safetensors.index.json (daemon/scan.h). Its name is its path below the
 * root without the suffix ("llama/tiny" for <root>/llama/tiny.gguf) and without the number of a split part; where two
 * roots give the same name, the later one is called "<root's last component>/<name>"; still a clash: the first keeps it
 * and the other is bad, and says so.
 */
#ifndef QUANTD_DAEMON_CATALOG_H
#define QUANTD_DAEMON_CATALOG_H

#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/daemon.h"
#include "kernels/core/error.h"

enum model_state { MODEL_SETTLING, MODEL_READY, MODEL_BAD };

/* What tells one content of a file from another without reading it. */
struct file_stamp {
    uint64_t dev, ino, bytes;
    struct timespec mtime, ctime;
};

struct catalog_model {
    const char *name;
    const char *path;         /* absolute: the file, or the folder */
    const char *first_file;   /* absolute: the file a worker is given first */
    const char *const *files; /* absolute, NULL-terminated: all that look like its own */
    const char *root;         /* absolute: the watched folder it was found in */
    const char *format;       /* after a probe; "" before */
    enum model_state state;
    const char *problem;     /* for MODEL_BAD */
    uint64_t bytes;          /* of all files that look like its weights */
    struct file_stamp stamp; /* of the first file */
    uint64_t generation;     /* rises whenever any of its files changed */
    uint64_t calibration;    /* tells one content of its calibration data from another; 0: there are none */
};

struct catalog;
enum catalog_change { MODEL_ADDED, MODEL_CHANGED, MODEL_REMOVED, MODEL_TURNED_BAD };
typedef void catalog_listener(const struct catalog_model *m, enum catalog_change change, void *data);

/* Starts watching the roots of @d->config; scans on the pool; @listener hears every change. */
int catalog_new(struct daemon *d, catalog_listener *listener, void *data, struct catalog **ret, struct qd_error *err);
struct catalog *catalog_free(struct catalog *c);

/* Applies the roots of a reloaded configuration. */
int catalog_reload(struct catalog *c, struct qd_error *err);

/* @scanned is called on the loop after every scan, whether or not it changed anything. One listener. */
void catalog_on_scanned(struct catalog *c, void (*scanned)(void *data), void *data);

/* True while a scan is under way or due: what is not found now may be found then. Hears the events in the queue first.
 */
bool catalog_busy(struct catalog *c);

/* Scans all roots again (overflow, SIGHUP, `rescan`); returns how many roots. */
unsigned catalog_rescan(struct catalog *c);

/* @m turned out to be behind its files: its root is looked at again soon. */
void catalog_look_again(struct catalog *c, const struct catalog_model *m);

/* NULL where there is none. The pointer is valid until control returns to the loop. */
const struct catalog_model *catalog_find(const struct catalog *c, const char *name);
size_t catalog_n(const struct catalog *c);
const struct catalog_model *catalog_at(const struct catalog *c, size_t i); /* sorted by name */

/* The known name nearest to @name, for an error's hint; NULL where none is near. */
const char *catalog_nearest(const struct catalog *c, const char *name);

/* A worker found out the format, or that the file is no model. */
void catalog_note(struct catalog *c, const char *name, const char *format, const char *problem);

struct catalog_root {
    const char *path;
    const char *state; /* "watching" "polling" "missing" */
    unsigned n_models;
    bool scanned; /* looked at once */
};
size_t catalog_n_roots(const struct catalog *c);
struct catalog_root catalog_root_at(const struct catalog *c, size_t i);

#endif
