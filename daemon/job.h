/*
 * Jobs: from a request to a committed, signed artifact. One job per key however many ask (single
 * flight); queued by class; a background job that an interactive request joins is promoted. The way
 * of a job is the table job_next in job.c, with one writer (job_set_state).
 *
 *     QUEUED -> PROBING -> HASHING -> PLANNING -> RUNNING -> SEALING -> READY     from a source
 *     QUEUED -> PLANNING -> RUNNING -> SEALING -> READY                           from a portable artifact
 *     PLANNING -> CALIBRATING -> RUNNING -> COMPARING -> SEALING                  of an ONNX model with samples
 *          (any, until SEALING) -> FAILED | CANCELLED | PAUSED (last waiter left; journal kept)
 *
 * A job makes a portable artifact of a source, or a packed one of a portable artifact; the latter needs neither probe
 * nor hash. A failed job is remembered with back-off until the source, the recipe or the engine changes.
 */
#ifndef QUANTD_DAEMON_JOB_H
#define QUANTD_DAEMON_JOB_H

#include <quantd/layout.h>

#include "artifact/digest.h"
#include "daemon/catalog.h"
#include "quant/recipe.h"

enum job_state {
    JOB_QUEUED,
    JOB_PROBING,
    JOB_HASHING,
    JOB_PLANNING,
    JOB_CALIBRATING,
    JOB_RUNNING,
    JOB_COMPARING,
    JOB_SEALING,
    JOB_READY,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_PAUSED,
    JOB_STATES
};

struct job_request {
    const char *model;              /* catalog name, or "fd" */
    const char *first_file;         /* absolute path; NULL with source_fd */
    int source_fd;                  /* -1, or a descriptor that the job takes when it is submitted */
    int imatrix_fd;                 /* looked at where the recipe is weighted; taken as @source_fd is */
    const struct file_stamp *stamp; /* the first file as it was when rights were judged, borrowed; NULL: as it is */
    uint64_t calibration;           /* of the catalog's model */
    struct recipe recipe;           /* resolved */
    enum qd_layout layout;          /* a packed one is made from the artifact @portable, not from a source */
    struct digest portable;         /* key; where packed */
    bool interactive;
    bool plan_only; /* stop after PLANNING and give the plan */
    uid_t uid;      /* who asks: quota of jobs, right to cancel */
};

struct job_progress {
    uint32_t job;
    const char *model, *scheme, *layout, *tensor;
    enum job_state state;
    uint64_t done_bytes, total_bytes;
    double bytes_per_s, seconds_left;
};

struct job_plan {
    uint64_t file_bytes, source_bytes;
    uint32_t n_tensors;
    int table_fd; /* borrowed memfd of w_planned */
};

struct job_outcome {
    int result;                  /* 0 or negative */
    const struct qd_error *err;  /* when negative */
    struct digest key;           /* when 0 and not plan_only */
    bool built;                  /* false: it was in the store after all */
    bool nothing_to_pack;        /* no tensor is packed in that layout: @key is that of the portable artifact */
    const struct job_plan *plan; /* for plan_only */
};

/* Lives in the requester until @done was called or job_leave. */
struct job_waiter {
    void (*progress)(struct job_waiter *w, const struct job_progress *p); /* may be NULL */
    void (*done)(struct job_waiter *w, const struct job_outcome *o); /* exactly once, never from inside jobs_submit */
    void *data;
    struct job *job; /* the jobs part's own */
    struct job_waiter *next;
};

struct jobs;
int jobs_new(struct daemon *d, struct jobs **ret, struct qd_error *err);

/*
 * Stops: no new jobs; running workers get @grace_ms to finish a unit, then are killed; journals stay. @stopped is
 * called on the loop when none is left. Every waiter gets an answer before.
 */
void jobs_stop(struct jobs *j, unsigned grace_ms, void (*stopped)(void *data), void *data);
struct jobs *jobs_free(struct jobs *j);

/*
 * Joins the job of the same source, recipe and layout or makes one. Back-off, quota or stop: an error at once;
 * QD_E_SOURCE_CHANGED: another stamp.
 */
int jobs_submit(struct jobs *j, const struct job_request *r, struct job_waiter *w, struct qd_error *err);

/* The waiter goes; when it was the last, a grace period, then the job pauses with its journal kept. */
void job_leave(struct jobs *j, struct job_waiter *w);

/*
 * The key of a request whose source digests are remembered for unchanged stamps (cache/hints):
 * 1 and @ret_key, or 0 when it takes work to know. Fast: a few stats; loop thread.
 */
int jobs_known_key(struct jobs *j, const struct job_request *r, struct digest *ret_key);

/* Was the identity of the source of this first file known once, whatever is beside its first file by now? */
bool jobs_knew_source(const struct jobs *j, const struct file_stamp *first);

/* Is the artifact @portable being packed, to be packed, or in back-off? */
bool jobs_packing(const struct jobs *j, const struct digest *portable, enum qd_layout layout);

/* The identity of a model's source as it is now, if it is remembered. As fast. */
bool jobs_known_source(struct jobs *j, const struct catalog_model *m, struct digest *ret);

/* A model changed: end the back-off of its failed jobs; cancel running ones whose source is gone. */
void jobs_model_changed(struct jobs *j, const char *model);

int jobs_cancel(struct jobs *j, uint32_t number, uid_t uid, bool admin, struct qd_error *err);
unsigned jobs_retry(struct jobs *j, uint32_t number); /* 0: all; how many */

struct job_view {
    struct job_progress progress;
    bool interactive;
    uint32_t n_waiters;
    uid_t uid;
    const struct qd_error *err; /* of a failed one */
    uint64_t retry_at;          /* seconds since 1970 */
};
size_t jobs_n(const struct jobs *j);
struct job_view jobs_at(const struct jobs *j, size_t i);
unsigned jobs_running(const struct jobs *j);
unsigned jobs_queued(const struct jobs *j);
const char *job_state_name(enum job_state s);

/* Hears every change of state, for subscribers and the log. */
void jobs_set_listener(struct jobs *j, void (*changed)(const struct job_view *v, void *data), void *data);

#endif
