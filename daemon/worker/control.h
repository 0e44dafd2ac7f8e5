/*
 * quantd-worker --control: the worker's side of the conversation with quantd (ipc/protocol.def,
 * WORKER_METHODS). Descriptor 3 is the control socket; everything else arrives through it. The
 * door (sandbox.h) is closed before the first packet is read. The worker ends when quantd closes
 * the socket; when quantd shuts its side while a run goes on, the run stops at the next unit and
 * the journal keeps what is done.
 */
#ifndef QUANTD_DAEMON_WORKER_CONTROL_H
#define QUANTD_DAEMON_WORKER_CONTROL_H

enum { CONTROL_FD = 3 };

/* @argv[0] is the program, then options: --memory BYTES, --idle, --no-sandbox. Returns the exit code. */
int control_main(int argc, char **argv);

#endif
