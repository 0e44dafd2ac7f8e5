#include "daemon/background.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/store.h"
#include "daemon/handlers.h"
#include "daemon/log.h"
#include "kernels/core/cleanup.h"

struct background {
    struct job_waiter waiter;
    struct daemon *daemon;
    char *model; /* owned */
    struct recipe recipe;
    enum qd_layout layout;  /* wanted in the end */
    struct digest portable; /* of a job that packs */
};

static struct background *background_free(struct background *b)
{
    if (!b)
        return NULL;
    b->daemon->serving->n_openings--;
    free(b->model);
    free(b);
    return NULL;
}
DEFINE_CLEANUP(background_free, struct background *)

static struct background *background_new(struct daemon *d, const char *model, const struct recipe *recipe,
                                         enum qd_layout layout)
{
    struct background *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    *b = (struct background){.daemon = d, .model = strdup(model), .recipe = *recipe, .layout = layout};
    b->waiter.data = b;
    d->serving->n_openings++;
    return b->model ? b : background_free(b);
}

static void log_failure(const struct background *b, const struct qd_error *err)
{
    log_line(LOG_AT_WARNING, "job", "background build failed%s%s", log_field("model", b->model),
             log_field("reason", err->message));
}

/* ---- packing ------------------------------------------------------------------------------------ */

static void on_packed(struct job_waiter *w, const struct job_outcome *o)
{
    struct background *b = w->data;
    struct daemon *d = b->daemon;
    struct qd_error err;
    if (o->result == QD_E_CORRUPT || o->result == QD_E_NOT_FOUND) { /* what was to be packed is gone: both again */
        if (o->result == QD_E_CORRUPT)
            serving_artifact_changed(d, &b->portable, b->model, scheme_name(b->recipe.scheme),
                                     qd_layout_info(QD_LAYOUT_PORTABLE)->name, "damaged");
        if (build_in_background(d, b->model, &b->recipe, b->layout, &err) < 0)
            log_failure(b, &err);
    } else if (o->result < 0) {
        log_failure(b, o->err);
    } else if (o->nothing_to_pack) {
        serving_nothing_to_pack(d, &b->portable, b->layout);
    } else if (o->built) {
        serving_artifact_ready(d, &o->key, b->model, scheme_name(b->recipe.scheme), b->layout);
    }
    (void)background_free(b); /* returns NULL by convention */
}

void pack_in_background(struct daemon *d, const struct manifest *portable, enum qd_layout layout)
{
    struct recipe recipe;
    struct qd_error err;
    if (layout == QD_LAYOUT_PORTABLE || d->serving->stopping || !d->key ||
        unpacked_get(&d->serving->unpacked, &portable->key, layout) || jobs_packing(d->jobs, &portable->key, layout) ||
        recipe_parse(portable->recipe, &recipe, &err) < 0)
        return;
    CLEANUP(background_free) struct background *b = background_new(d, portable->model, &recipe, layout);
    if (!b)
        return; /* who asks next tries again */
    b->portable = portable->key;
    b->waiter.done = on_packed;
    const struct job_request rq = {.model = b->model,
                                   .source_fd = -1,
                                   .imatrix_fd = -1,
                                   .recipe = recipe,
                                   .layout = layout,
                                   .portable = portable->key,
                                   .uid = geteuid()};
    if (jobs_submit(d->jobs, &rq, &b->waiter, &err) == 0)
        (void)steal(&b); /* on_packed owns it */
    else
        log_line(LOG_AT_DEBUG, "job", "not packed now%s%s", log_field("model", portable->model),
                 log_field("reason", err.message)); /* in back-off of an earlier life, or we stop */
}

/* ---- from a source -------------------------------------------------------------------------------- */

static void pack_what_was_built(const struct background *b, const struct digest *portable)
{
    CLEANUP(lease_release) struct lease *lease = NULL;
    if (store_lookup(b->daemon->store, portable, &lease, NULL) == 0)
        pack_in_background(b->daemon, lease->manifest, b->layout);
}

static void on_built(struct job_waiter *w, const struct job_outcome *o)
{
    struct background *b = w->data;
    if (o->result < 0)
        log_failure(b, o->err);
    else if (o->built)
        serving_artifact_ready(b->daemon, &o->key, b->model, scheme_name(b->recipe.scheme), QD_LAYOUT_PORTABLE);
    if (o->result == 0)
        pack_what_was_built(b, &o->key);
    (void)background_free(b); /* returns NULL by convention */
}

int build_in_background(struct daemon *d, const char *model, const struct recipe *recipe, enum qd_layout layout,
                        struct qd_error *err)
{
    if (d->serving->stopping) /* the catalog may be gone */
        return err_new(err, QD_E_UNAVAILABLE, "the daemon is stopping");
    if (recipe->weighted) {
        int r = err_new(err, QD_E_UNSUPPORTED, "'%s' is weighted by an importance matrix, which only a request brings",
                        model);
        return err_hint(err, r, "open it again with its importance matrix");
    }
    const struct catalog_model *m = catalog_find(d->catalog, model);
    if (!m || m->state != MODEL_READY)
        return err_new(err, QD_E_NOT_FOUND, "no model '%s'", model);
    CLEANUP(background_free) struct background *b = background_new(d, model, recipe, layout);
    if (!b)
        return err_new(err, QD_E_NO_MEMORY, "background build");
    b->waiter.done = on_built;
    const struct job_request rq = {.model = m->name,
                                   .first_file = m->first_file,
                                   .source_fd = -1,
                                   .imatrix_fd = -1,
                                   .recipe = *recipe,
                                   .uid = geteuid()};
    int r = jobs_submit(d->jobs, &rq, &b->waiter, err);
    if (r == 0)
        (void)steal(&b); /* on_built owns it */
    return r;
}

int make_in_background(struct daemon *d, const struct artifact_origin *o, enum qd_layout layout, struct qd_error *err)
{
    CLEANUP(lease_release) struct lease *lease = NULL;
    struct recipe recipe;
    struct digest portable;
    int r = recipe_parse(o->recipe, &recipe, err);
    if (r == 0)
        r = artifact_key(&o->source, o->recipe, qd_layout_info(QD_LAYOUT_PORTABLE)->name, o->encoder_revision,
                         &portable, err);
    if (r < 0)
        return r;
    if (layout == QD_LAYOUT_PORTABLE || store_lookup(d->store, &portable, &lease, NULL) < 0)
        return build_in_background(d, o->model, &recipe, layout, err);
    pack_in_background(d, lease->manifest, layout);
    return 0;
}
