#include "daemon/background.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/handlers.h"
#include "daemon/log.h"
#include "kernels/core/cleanup.h"

struct background {
    struct job_waiter waiter;
    struct daemon *daemon;
    char *model; /* owned */
    enum scheme scheme;
};

static void on_background_done(struct job_waiter *w, const struct job_outcome *o)
{
    struct background *b = w->data;
    if (o->result < 0)
        log_line(LOG_AT_WARNING, "job", "background build failed%s%s", log_field("model", b->model),
                 log_field("reason", o->err->message));
    else if (o->built)
        serving_artifact_ready(b->daemon, &o->key, b->model, scheme_name(b->scheme));
    b->daemon->serving->n_openings--;
    free(b->model);
    free(b);
}

int build_in_background(struct daemon *d, const char *model, const struct recipe *recipe, struct qd_error *err)
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
    CLEANUP(free) struct background *b = calloc(1, sizeof *b);
    CLEANUP(free) char *copy = strdup(model);
    if (!b || !copy)
        return err_new(err, QD_E_NO_MEMORY, "background build");
    b->daemon = d;
    b->scheme = recipe->scheme;
    b->waiter = (struct job_waiter){.done = on_background_done, .data = b};
    struct job_request rq = {
        .model = m->name, .first_file = m->first_file, .source_fd = -1, .recipe = *recipe, .uid = geteuid()};
    int r = jobs_submit(d->jobs, &rq, &b->waiter, err);
    if (r < 0)
        return r;
    d->serving->n_openings++;
    b->model = steal(&copy);
    (void)steal(&b); /* on_background_done owns it */
    return 0;
}
