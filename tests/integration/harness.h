/*
 * Harness: a private quantd --user in a temporary folder with XDG folders of its own, and a raw
 * client of its protocol. Every step asserts; nothing of the machine outside the folder is touched.
 *
 *     struct harness h;
 *     harness_prepare(&h, "[jobs]\nthreads = 1\n");
 *     harness_copy_model(&h, "tiny-kjv.gguf", "tiny.gguf");
 *     harness_start(&h);
 *     int fd = harness_hello(&h);
 *     ...
 *     assert_int_equal(harness_stop(&h), 0);
 *     harness_remove(&h);
 */
#ifndef QUANTD_TESTS_HARNESS_H
#define QUANTD_TESTS_HARNESS_H

#include "tests/test.h"

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/codec.h"
#include "ipc/conn.h"
#include "ipc/messages.h"

enum { HARNESS_WAIT_MS = 20000, HARNESS_ENV_MAX = 8 };

struct harness {
    char folder[64];
    char models[96]; /* watched as [root models] */
    char socket[128];
    char log[96];                     /* what the daemon says */
    pid_t pid;                        /* 0: not running */
    const char *env[HARNESS_ENV_MAX]; /* "NAME=value" for the daemon; NULL where unused */
    uid_t uid;                        /* runs as this user when the test is root and it is not 0 */
    int listen_fd;                    /* handed over as descriptor 3 with LISTEN_FDS=1, when above 0 */
};

/* Makes the folder and quantd.conf; @config is put behind the defaults, may be NULL. */
void harness_prepare(struct harness *h, const char *config);
void harness_start(struct harness *h);  /* until it is ready */
void harness_launch(struct harness *h); /* without waiting */
int harness_stop(struct harness *h);    /* SIGTERM; its exit status, or 128 + signal */
int harness_wait(struct harness *h);    /* for its end */
void harness_kill(struct harness *h);   /* SIGKILL */
void harness_remove(struct harness *h); /* kills what still runs */

/* For setup and teardown: a daemon configured by @config that serves the shipped model as "tiny"; never NULL. */
struct harness *harness_serving_tiny(const char *config);
int harness_teardown(void **state); /* stops it, where it runs, frees it; its exit status */

/* Absolute path of @name below the harness's folder. Static storage, four at a time. */
const char *harness_path(const struct harness *h, const char *name);

/* Puts a model of the source tree's models/ (or `path` where it is absolute) into the watched folder. */
void harness_copy_model(const struct harness *h, const char *name, const char *as);
void harness_write(const char *path, const void *data, size_t n);

/* Waits until the log holds @text; fails the test otherwise. */
void harness_wait_log(const struct harness *h, const char *text);
bool harness_log_has(const struct harness *h, const char *text);

/* ---- raw client ---- */
int harness_connect(const struct harness *h);
int harness_hello(const struct harness *h); /* connected and greeted */

void harness_request(int fd, uint32_t id, const char *method, enum message type, const void *params, const int *fds,
                     size_t n_fds);

/* The next message, at most HARNESS_WAIT_MS; false when the daemon closed. The caller clears both. */
bool harness_receive(int fd, struct incoming *in, struct packet *packet);

/* A request and its reply; events in between are counted and dropped. 0, or the error's code with @err filled. */
int harness_call(int fd, const char *method, enum message type, const void *params, struct incoming *in,
                 struct packet *packet, struct qd_error *err);

/* open by name: 0 with @packet holding the descriptors, or the code. */
int harness_open(int fd, const char *model, const char *scheme, struct msg_opened *ret, struct packet *packet,
                 struct qd_error *err);

/* Calls `models` until the model has that state. */
void harness_wait_model(const struct harness *h, const char *name, const char *state);

unsigned harness_n_fds(const struct harness *h); /* of the daemon */
unsigned long harness_rss_kib(const struct harness *h);

#endif
