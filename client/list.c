/* The typed lists: all pages of models and artifacts, copied into one arena; and the watch. */
#include <string.h>
#include <time.h>

#include "client/client.h"
#include "kernels/core/arena.h"

enum { LIST_ARENA_BYTES = 256 << 20, LIST_TOTAL_MAX = 1 << 20 };

struct qd_list {
    struct arena *arena; /* owned; texts */
    size_t n, capacity;
    struct qd_model_info *models;       /* owned; or */
    struct qd_artifact_info *artifacts; /* owned */
};

void qd_list_free(struct qd_list *l)
{
    if (!l)
        return;
    (void)arena_free(l->arena);
    free(l->models);
    free(l->artifacts);
    free(l);
}

static inline void qd_list_free_cleanup(struct qd_list **l)
{
    qd_list_free(*l);
}

static const char *keep(struct qd_list *l, const char *text)
{
    if (!text)
        return "";
    return arena_text(l->arena, (struct bytes){(const uint8_t *)text, strlen(text)});
}

/* The array of @item_bytes at *@items with room for @more; false when memory or patience is out. */
static bool grow(struct qd_list *l, void **items, size_t item_bytes, size_t more)
{
    if (l->n + more > LIST_TOTAL_MAX)
        return false;
    void *grown = realloc(*items, (l->n + more + 1) * item_bytes);
    if (grown)
        *items = grown;
    return grown != NULL;
}

static bool add_models(struct qd_list *l, const struct msg_model_list *page)
{
    void *items = l->models;
    bool grown = grow(l, &items, sizeof *l->models, page->models_n);
    l->models = items;
    if (!grown)
        return false;
    for (size_t i = 0; i < page->models_n; i++) {
        const struct msg_model *m = &page->models[i];
        struct qd_model_info info = {.name = keep(l, m->name),
                                     .path = keep(l, m->path),
                                     .format = keep(l, m->format),
                                     .state = keep(l, m->state),
                                     .problem = keep(l, m->problem),
                                     .bytes = m->bytes};
        if (!info.name || !info.path || !info.format || !info.state || !info.problem)
            return false;
        l->models[l->n++] = info;
    }
    return true;
}

static struct qd_artifact_info artifact_info(struct qd_list *l, const struct msg_artifact *m)
{
    return (struct qd_artifact_info){
        .key = keep(l, m->key),
        .model = keep(l, m->model),
        .scheme = keep(l, m->scheme),
        .recipe = keep(l, m->recipe),
        .layout = keep(l, m->layout),
        .features = keep(l, m->features),
        .source = keep(l, m->source),
        .digest = keep(l, m->digest),
        .signer = keep(l, m->signer),
        .bytes = m->bytes,
        .created = m->created,
        .encoder_revision = m->encoder_revision,
        .n_files = m->n_files,
        .sqnr_db = m->sqnr_db,
        .rel_rmse = m->rel_rmse,
        .max_abs = m->max_abs,
        .worst = keep(l, m->worst),
        .worst_sqnr_db = m->worst_sqnr_db,
    };
}

static bool add_artifacts(struct qd_list *l, const struct msg_artifact_list *page)
{
    void *items = l->artifacts;
    bool grown = grow(l, &items, sizeof *l->artifacts, page->artifacts_n);
    l->artifacts = items;
    if (!grown)
        return false;
    for (size_t i = 0; i < page->artifacts_n; i++) {
        struct qd_artifact_info info = artifact_info(l, &page->artifacts[i]);
        if (!info.key || !info.model || !info.scheme || !info.recipe || !info.layout || !info.features ||
            !info.source || !info.digest || !info.signer || !info.worst)
            return false;
        l->artifacts[l->n++] = info;
    }
    return true;
}

/* One page from *@from on; moves *@from to the next, 0 at the end. */
static int read_page(struct qd_client *c, const char *method, struct qd_list *l, uint32_t *from, struct qd_error *err)
{
    struct msg_page params = {.has_from = *from > 0, .from = *from};
    struct call call = {.method = method, .type = MSG_page, .params = &params};
    CLEANUP(incoming_clear) struct incoming in = {0};
    union any_message page;
    bool is_models = strcmp(method, "models") == 0;
    int r = call_run(c, &call, NULL, NULL, &in, err);
    if (r == 0)
        r = is_models ? incoming_decode(&in, INTO(model_list, &page.model_list), err)
                      : incoming_decode(&in, INTO(artifact_list, &page.artifact_list), err);
    if (r < 0)
        return r;
    if (!(is_models ? add_models(l, &page.model_list) : add_artifacts(l, &page.artifact_list)))
        return err_new(err, QD_E_NO_MEMORY, "list of %s", method);
    uint32_t next = is_models ? page.model_list.next : page.artifact_list.next;
    if (next > 0 && next <= *from)
        return err_new(err, QD_E_PROTOCOL, "the list of %s goes in circles", method);
    *from = next;
    return 0;
}

static int read_list(struct qd_client *c, const char *method, struct qd_list **ret, struct qd_error *err)
{
    CLEANUP(qd_list_free) struct qd_list *l = calloc(1, sizeof *l);
    if (!l || !(l->arena = arena_new(LIST_ARENA_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "list of %s", method);
    uint32_t from = 0;
    do {
        int r = read_page(c, method, l, &from, err);
        if (r < 0)
            return r;
    } while (from > 0);
    *ret = steal(&l);
    return 0;
}

int qd_models(struct qd_client *c, struct qd_list **ret, struct qd_error *err)
{
    return read_list(c, "models", ret, err);
}

int qd_artifacts(struct qd_client *c, struct qd_list **ret, struct qd_error *err)
{
    return read_list(c, "artifacts", ret, err);
}

size_t qd_list_n(const struct qd_list *l)
{
    return l->n;
}

const struct qd_model_info *qd_list_model(const struct qd_list *l, size_t i)
{
    return l->models && i < l->n ? &l->models[i] : NULL;
}

const struct qd_artifact_info *qd_list_artifact(const struct qd_list *l, size_t i)
{
    return l->artifacts && i < l->n ? &l->artifacts[i] : NULL;
}

/* ---- watch ----------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1: the time is up. */
static int watch_one(struct qd_client *c, int64_t until, qd_event_fn *event, void *data, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    int64_t left = until ? until - now_ms() : -1;
    if (until && left <= 0)
        return 1;
    int r = client_receive(c, left > INT32_MAX ? INT32_MAX : (int)left, &in, err);
    if (r < 0)
        return r;
    if (r == 1 && in.kind == INCOMING_EVENT)
        return event_deliver(&in, event, data, err);
    return r == 1 && in.failed ? incoming_error(&in, err) : 0;
}

int qd_watch(struct qd_client *c, uint32_t for_ms, qd_event_fn *event, void *data, struct qd_error *err)
{
    struct msg_subscribe params = {.jobs = true};
    struct call call = {.method = "subscribe", .type = MSG_subscribe, .params = &params};
    int64_t until = for_ms ? now_ms() + for_ms : 0;
    int r = call_send(c, &call, err);
    while (r == 0) {
        r = watch_one(c, until, event, data, err);
        if (r == QD_E_UNAVAILABLE && c->fd < 0) {
            call.n_sent = 0; /* a watch may outlive any number of daemons */
            r = call_again(c, &call, r, err);
        }
    }
    client_disconnect(c); /* ends the subscription */
    return r == QD_E_CANCELLED || r > 0 ? 0 : r;
}
