/*
 * quantize, pack, unpack: the one-shot forms, without daemon or cache. They are `quantd-worker --direct`, `--pack` and
 * `--unpack` under names that people find; the same code makes the same bytes.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "kernels/core/error.h"

#ifndef QUANTD_WORKER_PATH
#define QUANTD_WORKER_PATH "/usr/libexec/quantd-worker"
#endif

/* Where the worker is: $QUANTD_WORKER, the installed place, or beside us in a build tree. */
static int find_worker(char dst[PATH_MAX])
{
    const char *named = getenv("QUANTD_WORKER");
    char self[PATH_MAX];
    if (named && *named)
        return snprintf(dst, PATH_MAX, "%s", named) < PATH_MAX && access(dst, X_OK) == 0 ? 0 : -1;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        if (snprintf(dst, PATH_MAX, "%s/../../daemon/worker/quantd-worker", dirname(self)) < PATH_MAX &&
            access(dst, X_OK) == 0)
            return 0;
    }
    return snprintf(dst, PATH_MAX, "%s", QUANTD_WORKER_PATH) < PATH_MAX && access(dst, X_OK) == 0 ? 0 : -1;
}

/* Becomes the worker, which explains its options itself. Returns only on failure. */
static int become_worker(struct cli *cli, const char *form, int argc, char **argv)
{
    char worker[PATH_MAX];
    struct qd_error err;
    if (find_worker(worker) < 0) {
        (void)err_new(&err, QD_E_NOT_FOUND, "quantd-worker is neither at $QUANTD_WORKER nor at " QUANTD_WORKER_PATH);
        (void)err_hint(&err, QD_E_NOT_FOUND, "install quantd whole, or set QUANTD_WORKER to the worker's path");
        return cli_fail(cli, &err);
    }
    char **args = calloc((size_t)argc + 4, sizeof *args);
    if (!args)
        return EX_OSERR;
    int n = 0;
    args[n++] = worker;
    args[n++] = (char *)(uintptr_t)form; /* execv changes nothing */
    if (cli->json)
        args[n++] = (char *)"--json";
    for (int i = 1; i < argc; i++)
        args[n++] = argv[i];
    (void)execv(worker, args); /* returns only on failure */
    (void)err_sys(&err, errno, "start '%s'", worker);
    free(args);
    return cli_fail(cli, &err);
}

int cmd_quantize(struct cli *cli, int argc, char **argv)
{
    return become_worker(cli, "--direct", argc, argv);
}

int cmd_pack(struct cli *cli, int argc, char **argv)
{
    return become_worker(cli, "--pack", argc, argv);
}

int cmd_unpack(struct cli *cli, int argc, char **argv)
{
    return become_worker(cli, "--unpack", argc, argv);
}
