/*
 * plan_run: source + plan -> bytes at planned offsets.
 *
 * The unit of work is one shard (16 MiB, aligned) of one source file, so that what is read can be
 * digested in the same pass: a thread reads the shard granule by granule, digests it, and encodes
 * the pieces of tensors in it. A block that straddles two shards is encoded by whichever of the
 * two threads finishes second (a "seam"). Memory per thread is a constant; the bytes do not depend
 * on the number of threads, and neither do the error sums: they are kept per piece and folded in
 * file order.
 *
 * Finished units are noted in a journal (docs/formats/journal.md), so that a killed run continues.
 */
#ifndef QUANTD_QUANT_RUN_H
#define QUANTD_QUANT_RUN_H

#include "kernels/kernels.h"
#include "quant/plan.h"

/*
 * What a run costs in memory: a thread (its granule, output and chunk), and everything of it that threads share, up to
 * a 1 TB source.
 */
enum { RUN_THREAD_BYTES = 2304 << 10, RUN_BASE_BYTES = 16 << 20 };

/* What a run may take. */
struct run_ceiling {
    uint64_t bytes;
    uint64_t stack_bytes; /* of a thread, where stacks count */
    const char *name;     /* for the error: "--max-memory" */
};

/*
 * *ret: as many of @asked threads (at least 1) as fit beside what the model's header takes. Not even one: QD_E_LIMIT
 * with numbers.
 */
int run_fit_threads(const struct model *m, const struct plan *p, const struct run_ceiling *c, unsigned asked,
                    unsigned *ret, struct qd_error *err);

struct run_progress {
    uint64_t done_bytes; /* of the source, headers included */
    uint64_t total_bytes;
    const char *tensor; /* one being encoded now; borrows the plan */
};

/* What becomes of the source's pages once they are read. */
enum run_cache {
    RUN_CACHE_AS_FOUND, /* those that were not cached before are dropped, the others stay */
    RUN_CACHE_KEEP,
    RUN_CACHE_DROP,
};

struct run_options {
    const struct ops *ops;
    enum run_cache cache;
    unsigned n_threads;      /* >= 1 */
    int out_fd;              /* preallocated and written by pwrite */
    int journal_fd;          /* -1: none */
    const char *journal_tag; /* what a journal must say to be continued (key, boot id); "" without journal */
    void (*progress)(const struct run_progress *p,
                     void *data); /* from one thread at a time, at most every 100 ms; may be NULL */
    void *progress_data;
    const _Atomic int *cancel; /* non-zero: stop soon with QD_E_CANCELLED; may be NULL */
};

struct run_result {
    struct arena *arena;         /* owned */
    struct tensor_table tensors; /* with quality, in output order */
    struct quality_sums {
        uint64_t n_tensors; /* that were encoded; copies are exact */
        double sqnr_db, rel_rmse, max_abs, worst_sqnr_db;
        const char *worst;
    } quality;
    struct source_file_id *witness; /* per source file; NULL when the source has no witness */
    size_t n_witness;
    uint64_t resumed_bytes; /* source bytes that the journal spared us */
};

/*
 * NaN or Inf in a tensor that is to be encoded: QD_E_UNSUPPORTED by name and index. Disk full: QD_E_NO_SPACE, before
 * work where posix_fallocate can tell.
 */
int plan_run(struct source *s, const struct plan *p, const struct run_options *o, struct run_result **ret,
             struct qd_error *err);
struct run_result *run_result_free(struct run_result *r);
DEFINE_CLEANUP(run_result_free, struct run_result *)

#endif
