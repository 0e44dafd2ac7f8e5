/* models, plan: what there is, and what would become of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

static const struct column model_columns[] = {
    {"MODEL", "name", COLUMN_TEXT},    {"STATE", "state", COLUMN_TEXT}, {"SIZE", "bytes", COLUMN_BYTES},
    {"FORMAT", "format", COLUMN_TEXT}, {"PATH", "path", COLUMN_TEXT},   {"PROBLEM", "problem", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column plan_columns[] = {
    {"TENSOR", "name", COLUMN_TEXT}, {"SHAPE", "shape", COLUMN_TEXT}, {"FROM", "from", COLUMN_TEXT},
    {"TO", "to", COLUMN_TEXT},       {"SIZE", "bytes", COLUMN_BYTES}, {"WHY", "reason", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column plan_facts[] = {
    {"scheme", "scheme", COLUMN_TEXT},       {"why", "why", COLUMN_TEXT},
    {"recipe", "recipe", COLUMN_TEXT},       {"read", "source_bytes", COLUMN_BYTES},
    {"written", "file_bytes", COLUMN_BYTES}, {"exactly", "file_bytes", COLUMN_COUNT},
    {"tensors", "n_tensors", COLUMN_COUNT},  {NULL, NULL, COLUMN_TEXT},
};

int cmd_models(struct cli *cli, int argc, char **argv)
{
    int first;
    int status = cli_parse(cli, argc, argv, NULL, 0, 0, &first);
    if (status)
        return status;
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "models", NULL, "models", &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    print_table(json_object_get(answer, "models"), model_columns,
                "No models. `quantctl status` lists the watched folders.");
    json_decref(answer);
    return 0;
}

int cmd_plan(struct cli *cli, int argc, char **argv)
{
    const char *scheme = "auto", *imatrix = NULL;
    bool pure = false;
    const struct cli_option options[] = {{"scheme", 's', OPTION_TEXT, &scheme},
                                         {"pure", 0, OPTION_FLAG, &pure},
                                         {"imatrix", 'i', OPTION_TEXT, &imatrix},
                                         {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 1, 1, &first);
    if (status)
        return status;
    struct qd_error err;
    CLEANUP(fd_close) int fd = imatrix ? open(imatrix, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (imatrix && fd < 0) {
        (void)err_sys(&err, errno, "open '%s'", imatrix);
        return cli_fail(cli, &err);
    }
    const struct qd_param params[] = {{.key = "model", .kind = QD_PARAM_STR, .str = argv[first]},
                                      {.key = "scheme", .kind = QD_PARAM_STR, .str = scheme},
                                      {.key = "pure", .kind = QD_PARAM_BOOL, .u64 = pure},
                                      {.key = imatrix ? "imatrix" : NULL, .kind = QD_PARAM_FD, .u64 = (uint64_t)fd},
                                      {0}};
    json_t *answer;
    if (cli_call(cli, "plan", params, "tensors", &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    print_table(json_object_get(answer, "tensors"), plan_columns, "no tensors");
    putchar('\n');
    print_facts(answer, plan_facts);
    json_decref(answer);
    return 0;
}
