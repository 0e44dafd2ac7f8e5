/* What the one-shot form was asked to do. */
#ifndef QUANTD_WORKER_DIRECT_ARGS_H
#define QUANTD_WORKER_DIRECT_ARGS_H

#include <quantd/layout.h>

#include "quant/recipe.h"

enum direct_verb { DIRECT_QUANTIZE, DIRECT_PACK, DIRECT_UNPACK };

struct direct_args {
    enum direct_verb verb;
    const char *in;
    const char *out;             /* NULL with --dry-run */
    const char *imatrix;         /* file of an importance matrix; NULL: none */
    struct recipe recipe;        /* as asked for: its scheme may be auto */
    const char *calibration;     /* folder of samples of an ONNX model's inputs; NULL: none was given */
    const char *statistics;      /* file of statistics for int8-static; NULL: none */
    const char *save_statistics; /* file that they are kept in; NULL: they are not */
    const char *layout;          /* to pack in, as asked for: may be "native" */
    bool force, dry_run, json, quiet, help;
    bool keep_cache; /* pages of the source that were not cached before stay, too */
    unsigned n_threads;
    uint64_t max_memory_bytes;
};

/* Reads @argv behind the program's name. A wrong option or value: QD_E_INVALID with what would be right. */
int direct_args_parse(enum direct_verb verb, int argc, char **argv, struct direct_args *ret, struct qd_error *err);

/* The verb as quantctl has it: "pack". */
const char *direct_verb_name(enum direct_verb verb);
const char *direct_usage(enum direct_verb verb);

#endif
