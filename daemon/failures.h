/*
 * Failed jobs remembered across restarts, so that a model which cannot be quantized is not tried
 * again at once by a daemon that restarts: what failed, how often, why, and when it may be tried again.
 * A disposable file of text lines, written whole on each change. Loop thread.
 */
#ifndef QUANTD_DAEMON_FAILURES_H
#define QUANTD_DAEMON_FAILURES_H

#include <stdbool.h>

#include <quantd/layout.h>

#include "daemon/catalog.h"
#include "quant/recipe.h"

struct failure {
    const char *model; /* borrowed; NULL in what failures_get returns */
    struct recipe recipe;
    enum qd_layout layout;
    struct file_stamp stamp; /* of the source then: another one is another story */
    unsigned n_failures;
    uint64_t retry_at; /* seconds since 1970 */
    struct qd_error err;
};

struct failures;

/* Of another version of quantd: forgotten, it may do better. */
int failures_open(const char *path, struct failures **ret, struct qd_error *err);
struct failures *failures_close(struct failures *f);

void failures_put(struct failures *f, const struct failure *failure);
bool failures_get(const struct failures *f, const char *model, const struct recipe *recipe, enum qd_layout layout,
                  const struct file_stamp *stamp, struct failure *ret);

void failures_drop(struct failures *f, const char *model, const struct recipe *recipe, enum qd_layout layout);

/* Forgets those of @model whose source was another one than @stamp. */
void failures_drop_outdated(struct failures *f, const char *model, const struct file_stamp *stamp);
unsigned failures_clear(struct failures *f); /* how many */

#endif
