/*
 * What the files of a launch share (launcher.h is the contract): its state, and the steps that do not care where the
 * weights come from. launch_source.c begins with the files of a model, launch_packing.c with a portable artifact.
 */
#ifndef QUANTD_DAEMON_LAUNCH_H
#define QUANTD_DAEMON_LAUNCH_H

#include "artifact/tables.h"
#include "cache/store.h"
#include "daemon/launcher.h"
#include "daemon/pool.h"
#include "daemon/workerproc.h"

enum {
    STEP_STALL_MS = 120 * 1000, /* a header of 100 MB from a slow disk, with much to spare */
    WORST_NAME_MAX = TABLE_NAME_MAX,
};

struct launch_file {
    char *role, *name; /* owned */
    bool required;
    int fd; /* owned; -1: missing, and allowed to be */
    struct stat st;
    struct digest digest;
};

struct launch;
typedef void step_fn(struct launch *l);

struct launch {
    struct daemon *d;
    struct launch_hooks hooks;
    void *data;
    char *model, *first_path, *boot_id; /* owned; first_path NULL: by descriptor */
    struct known *known;
    struct file_stamp stamp;
    struct recipe recipe;
    uint32_t encoder_revision;
    enum qd_layout layout;
    struct digest portable; /* what is packed; where @layout is a packed one */
    struct lease *lease;    /* owned; on it */
    bool idle, plan_only;
    uint64_t memory_bytes, keep_free; /* of the configuration, which may be another by the time the pool asks */
    unsigned n_threads;
    bool found_cached, hashed_cold; /* files of the source that were, or were not, in the page cache before we came */

    struct workerproc *worker; /* NULL: none, or reaped */
    step_fn *next;             /* after the pool's or the worker's answer */
    pool_work *pool_run;
    step_fn *pool_next;
    void (*on_reply)(struct launch *l, struct incoming *in, struct packet *p);
    step_fn *added;  /* when the worker has all files */
    unsigned n_busy; /* pool work under way: 0 or 1 */
    _Atomic int cancel;
    _Atomic uint64_t done_bytes;
    uint64_t total_bytes;
    uv_timer_t ticker; /* progress of pool steps */
    bool committing;

    int folder_fd;             /* owned; -1: by descriptor */
    int imatrix_fd;            /* owned; -1: none, or among the files already */
    struct launch_file *files; /* owned; [0] is the first */
    size_t n_files, n_added;
    char format[16];
    uint64_t calibration; /* tells one content of MODEL.calib from another: of the files that are taken, or older */
    struct digest source_id, key;
    struct job_plan plan;
    struct store_part parts[STORE_PARTS_MAX]; /* of what is planned */
    size_t n_parts;
    int plan_fd;                      /* owned */
    struct store_work *work;          /* owned */
    char *tensors_raw, *metadata_raw; /* owned; copies of the worker's tables */
    size_t tensors_bytes, metadata_bytes;
    struct quality quality;
    char worst[WORST_NAME_MAX];
    bool planning; /* the worker is asked for the plan */
    bool built, discard;
    bool nothing_to_pack; /* @key is that of the portable artifact */
    bool examined;        /* the portable artifact, after a failure */

    int result; /* first failure */
    struct qd_error err;
    bool ending;
};

/* ---- the way on, and the way out ---- */

/* Remembers the first failure; what follows from it is noise. */
void launch_fail(struct launch *l, int result, const struct qd_error *err);

/* Every answer ends here: the next step, or the way out. */
void launch_go_on(struct launch *l, step_fn *step);

/* Reaps the worker, waits for the pool, lets go of the work files; comes here again after each. */
void launch_finish(struct launch *l);

void launch_on_pool(struct launch *l, pool_work *run, step_fn *next, bool with_progress);
void launch_ask(struct launch *l, const char *method, enum message type, const void *params, const int *fds,
                size_t n_fds, unsigned stall_ms, void (*on_reply)(struct launch *, struct incoming *, struct packet *));

/* ---- steps ---- */

/* Starts the worker and has it look at the first file. */
void launch_probe(struct launch *l, void (*on_reply)(struct launch *, struct incoming *, struct packet *));

/* Hands over the files behind the first one, then goes on with @next. */
void launch_add(struct launch *l, step_fn *next);

/* plan, prepare, run, commit. */
void launch_plan(struct launch *l);

/* launch_source.c: the first steps of a launch from the files of a model. */
void launch_begin_source(struct launch *l);

/* Pool. Opens the file @f of the launch, beneath the model's folder. */
int launch_gather_one(const struct launch *l, struct launch_file *f, struct qd_error *err);

/*
 * Pool. launch_samples.c: calibration data beside an ONNX model become files of the launch, and @calibration is theirs:
 * the catalog may be behind the folder, and a list that is remembered by an older print is never found again.
 */
int samples_gather(struct launch *l, struct qd_error *err);

/* How many there are, their bytes and identity; *@ret is not set where there are none. */
int samples_identity(const struct launch *l, size_t *ret_n, uint64_t *ret_bytes, struct digest *ret,
                     struct qd_error *err);

/* launch_packing.c: the first steps of a launch from a portable artifact. */
void launch_begin_packing(struct launch *l);

/* Pool. The tables that the worker handed over say of the packed artifact what those of the portable one say. */
int packing_check_tables(const struct launch *l, struct qd_error *err);

/*
 * After a failure: is it what was to be packed that is damaged? Then it is in quarantine, the failure is QD_E_CORRUPT,
 * and who asks again has it built anew. True: the pool looks, and launch_finish comes again.
 */
bool packing_examine(struct launch *l);

#endif
