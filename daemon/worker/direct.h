/* quantd-worker --direct IN OUT: a file from a file, without daemon, cache or key. The same code, the same bytes. */
#ifndef QUANTD_WORKER_DIRECT_H
#define QUANTD_WORKER_DIRECT_H

/* @argv[0] is the program, the rest as behind --direct. Returns a sysexits(3) code. */
int direct_main(int argc, char **argv);

#endif
