/* What --direct was asked to do. */
#ifndef QUANTD_WORKER_DIRECT_ARGS_H
#define QUANTD_WORKER_DIRECT_ARGS_H

#include "quant/recipe.h"

struct direct_args {
    const char *in;
    const char *out;      /* NULL with --dry-run */
    const char *imatrix;  /* file of an importance matrix; NULL: none */
    struct recipe recipe; /* as asked for: its scheme may be auto */
    bool force, dry_run, json, quiet, help;
    bool keep_cache; /* pages of the source that were not cached before stay, too */
    unsigned n_threads;
    uint64_t max_memory_bytes;
};

/* Reads @argv behind the program's name. A wrong option or value: QD_E_INVALID with what would be right. */
int direct_args_parse(int argc, char **argv, struct direct_args *ret, struct qd_error *err);

extern const char direct_usage[];

#endif
