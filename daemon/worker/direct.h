/*
 * A file from a file, without daemon, cache or key: quantd-worker --direct, --pack or --unpack IN OUT. The same code,
 * the same bytes.
 */
#ifndef QUANTD_WORKER_DIRECT_H
#define QUANTD_WORKER_DIRECT_H

#include "daemon/worker/direct_args.h"

/* @argv[0] is the program, the rest as behind the verb. Returns a sysexits(3) code. */
int direct_main(enum direct_verb verb, int argc, char **argv);

#endif
