/*
 * Handlers: a function per method of protocol.def, in handle_*.c by what they are about. Each
 * answers at once, or hangs a struct pending into the peer and answers later. What they keep
 * between requests is struct serving. hello comes first; methods that change what others use are for admins.
 */
#ifndef QUANTD_DAEMON_HANDLERS_H
#define QUANTD_DAEMON_HANDLERS_H

#include "artifact/digest.h"
#include "artifact/manifest.h"
#include "daemon/catalog.h"
#include "daemon/hardware.h"
#include "daemon/job.h"
#include "daemon/layouts.h"
#include "daemon/peer.h"
#include "ipc/handler.h"
#include "quant/policy.h"

enum {
    ENVELOPES_KEPT = 128, /* memfds of envelopes served lately: an open then makes none */
    PLANS_KEPT = 4,       /* plans whose pages may still be asked for */
    TOUCH_INTERVAL_MS = 60000
};

struct opening;

struct kept_envelope {
    struct digest key;
    struct buffer content; /* owned; the envelope's bytes */
    struct digest print;   /* of them */
    int fd;                /* owned; sealed memfd; -1: empty slot */
    uint64_t used;
};

struct kept_plan {
    char *model;         /* owned; NULL: empty slot */
    uint64_t generation; /* of the model */
    struct recipe recipe;
    int table_fd; /* owned */
    uint64_t file_bytes, source_bytes;
    uint32_t n_tensors;
    uint64_t used;
};

struct serving {
    struct daemon *daemon;
    struct hardware hardware;
    uint64_t started_ms;
    struct kept_envelope envelopes[ENVELOPES_KEPT];
    struct kept_plan plans[PLANS_KEPT];
    uint64_t clock;          /* of `used` */
    uint64_t touched_ms;     /* when last-use times were written */
    struct opening *waiting; /* for the catalog */
    _Atomic int stopping;    /* ends verification on the pool */
    struct unpacked_memo unpacked;
    struct digest announced;    /* the artifact last said to be ready: many may have waited for it */
    unsigned n_openings, n_ops; /* alive; 0 when all is quiet */
};

int serving_new(struct daemon *d, struct qd_error *err); /* sets d->serving; looks at the hardware */
struct serving *serving_free(struct serving *s);

/* Serves one request: as request_serve. */
int handlers_serve(struct peer *p, struct packet *packet, struct buffer *ret_reply, struct qd_error *err);

#define HANDLER_OWNER struct peer
METHODS(HANDLER_DECLARE)

/* ---- events that the parts cause ---- */
void serving_model_changed(struct serving *s, const struct catalog_model *m, enum catalog_change change);
void serving_job_changed(const struct job_view *v, void *data); /* @data: struct daemon */
void serving_artifact_changed(struct daemon *d, const struct digest *key, const char *model, const char *scheme,
                              const char *layout, const char *change); /* NULL: not known */
void serving_artifact_ready(struct daemon *d, const struct digest *key, const char *model, const char *scheme,
                            enum qd_layout layout); /* said once, however many waited */
void serving_nothing_to_pack(struct daemon *d, const struct digest *portable, enum qd_layout layout);
void serving_scanned(void *data); /* struct daemon: the catalog looked again; openings that wait for it go on */

/* Looks at the hardware; where it changed, all who listen are told and layouts follow. Blocks as hardware_look does. */
int serving_look_at_hardware(struct daemon *d, struct qd_error *err);

/* The daemon stops: openings that wait for the catalog are answered, checks on the pool end. */
void serving_stop(struct serving *s);

/* ---- shared by the handle_*.c ---- */

/* The caller may know of this model's artifacts and jobs: admins, and who may open the model. */
bool may_see(const struct peer *p, const char *model);

/* May @p know of this artifact? Its model must be one that @p may read, and still of the content that it was made from.
 */
bool may_see_artifact(const struct peer *p, const struct manifest *artifact);

/*
 * The model that a request names, ready or not. QD_E_NOT_FOUND with the nearest name that the caller may see,
 * QD_E_DENIED.
 */
int find_model(struct peer *p, const char *name, const struct catalog_model **ret, struct qd_error *err);

/* QD_E_DENIED unless the caller is an admin. */
int need_admin(const struct peer *p, const char *what, struct qd_error *err);

/* What open and plan say of a recipe, in the words of their messages; NULL: not said. */
struct recipe_words {
    const char *scheme, *output, *embedding, *rules;
    bool pure, leave_output, requantize;
};
#define RECIPE_WORDS(m)                                                                                 \
    (struct recipe_words)                                                                               \
    {                                                                                                   \
        .scheme = (m)->scheme, .output = (m)->output, .embedding = (m)->embedding, .rules = (m)->rules, \
        .pure = (m)->pure, .leave_output = (m)->leave_output, .requantize = (m)->requantize             \
    }
int recipe_of_words(const struct recipe_words *w, struct recipe *ret, struct qd_error *err);

/* What this machine and a model of @model_bytes are to policy; @name: of the model's first file, or its path. */
struct policy_facts policy_facts_here(const struct daemon *d, const char *name, uint64_t model_bytes);

/* The envelope with its print and a sealed memfd of it, borrowed from the kept ones. */
int envelope_keep(struct serving *s, const struct digest *key, struct bytes envelope, const struct kept_envelope **ret,
                  struct qd_error *err);

/*
 * An artifact by key, unique prefix or MODEL:SCHEME[:LAYOUT] among those the caller may see.
 */
int find_artifact(struct peer *p, const char *text, struct digest *ret_key, struct qd_error *err);

/* Writes last-use times now and then: on the pool, only after use, never by a timer. */
void touch_now_and_then(struct serving *s);

#endif
