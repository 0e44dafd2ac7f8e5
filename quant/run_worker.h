/*
 * What one thread of a run does with one unit: read, digest, encode, measure, write, note.
 * Internal to plan_run.
 */
#ifndef QUANTD_QUANT_RUN_WORKER_H
#define QUANTD_QUANT_RUN_WORKER_H

#include <pthread.h>

#include "quant/journal.h"
#include "quant/run.h"
#include "quant/run_layout.h"

/*
 * Elements encoded at a time: source, decoded and measured values stay in a 32 KiB first-level
 * cache (2 x 8 KiB of f32, 4 KiB of f16, 2 KiB of blocks).
 */
enum { CHUNK_ELEMENTS = 2048, OUT_BYTES = 1 << 20 };

/* Shared by all threads of a run. */
struct run {
    struct source *source;
    const struct plan *plan;
    const struct run_options *options;
    struct layout layout;
    bool witness;
    struct digest *leaves; /* [n_units] */
    uint8_t *done;         /* [n_units], by the journal */
    _Atomic uint8_t *cold; /* [n_units]: not in the page cache before we came */
    _Atomic uint64_t next; /* unit to be taken */
    _Atomic uint64_t done_bytes;
    uint64_t total_bytes;

    pthread_mutex_t lock; /* of what follows */
    struct journal journal;
    _Atomic uint64_t failed_at; /* place of the first failure in file order; UINT64_MAX: none */
    struct qd_error error;      /* of that place */

    pthread_mutex_t seam_lock; /* of the bytes of seams: that they are there */

    pthread_mutex_t progress_lock;
    uint64_t progress_ms; /* when progress was told last */
};

/* Owned by one thread. */
struct worker {
    struct run *run;
    uint8_t *memory;  /* owned: chunks, the end of what was read before the granule, the granule, the output */
    uint8_t *granule; /* @before bytes of the granules before lie in front */
    size_t before;    /* at least the largest cell */
    uint8_t *out;
    size_t out_bytes;                /* OUT_BYTES, or more where a group of rows is larger */
    uint64_t dirty_begin, dirty_end; /* of the output: written by this thread and not yet on its way to the disk */
    float *x, *y;                    /* [CHUNK_ELEMENTS] */
    struct leaf_hasher *hasher;      /* NULL without witness */
    struct qd_error error;
};

int worker_init(struct worker *w, struct run *run, struct qd_error *err);
void worker_clear(struct worker *w);

/* Takes units until there are none, or the run stops. Failures are recorded in the run. */
void worker_loop(struct worker *w);

/* Puts what the journal says of a unit where the unit itself would have: false where the record does not make sense. */
int unit_restore(struct worker *w, const struct unit *u, struct bytes body, struct qd_error *err);

/* Encodes cells [first, end) of @t from @src to their places in the output; *sum receives the error. */
int cells_write(struct worker *w, const struct job_tensor *t, uint64_t first, uint64_t end, const uint8_t *src,
                struct error_total *sum, struct qd_error *err);

#endif
