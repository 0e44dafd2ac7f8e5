/* models, plan: what there is, and what would become of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"
#include "client/cli/profile.h"
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
    {"for", "hardware", COLUMN_TEXT},
    {"scheme", "scheme", COLUMN_TEXT},
    {"why", "why", COLUMN_TEXT},
    {"layout", "layout", COLUMN_TEXT},
    {"why", "layout_why", COLUMN_TEXT},
    {"recipe", "recipe", COLUMN_TEXT},
    {"read", "source_bytes", COLUMN_BYTES},
    {"written", "file_bytes", COLUMN_BYTES},
    {"exactly", "file_bytes", COLUMN_COUNT},
    {"tensors", "n_tensors", COLUMN_COUNT},
    {NULL, NULL, COLUMN_TEXT},
};

struct plan_arguments {
    struct recipe_arguments recipe;
    const char *layout, *profile; /* NULL: auto, this machine */
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

/* What was asked for, as parameters of plan; an importance matrix has descriptor @fd. */
static int call_plan(struct cli *cli, const char *model, const struct plan_arguments *a, int fd, json_t **ret,
                     struct qd_error *err)
{
    const struct recipe_arguments *r = &a->recipe;
    char profile[PROFILE_TEXT_MAX] = "";
    int done = a->profile ? profile_read(a->profile, profile, err) : 0;
    if (done < 0)
        return done;
    const struct qd_param params[] = {
        {.key = "model", .kind = QD_PARAM_STR, .str = model},
        {.key = "scheme", .kind = QD_PARAM_STR, .str = r->scheme ? r->scheme : "auto"},
        {.key = "layout", .kind = QD_PARAM_STR, .str = a->layout ? a->layout : "auto"},
        {.key = "hardware", .kind = QD_PARAM_STR, .str = profile},
        {.key = "pure", .kind = QD_PARAM_BOOL, .u64 = r->pure},
        {.key = "leave_output", .kind = QD_PARAM_BOOL, .u64 = r->leave_output},
        {.key = "requantize", .kind = QD_PARAM_BOOL, .u64 = r->requantize},
        {.key = "output", .kind = QD_PARAM_STR, .str = r->output ? r->output : ""},
        {.key = "embedding", .kind = QD_PARAM_STR, .str = r->embedding ? r->embedding : ""},
        {.key = "rules", .kind = QD_PARAM_STR, .str = r->rules ? r->rules : ""},
        {.key = fd >= 0 ? "imatrix" : NULL, .kind = QD_PARAM_FD, .u64 = (uint64_t)fd},
        {0}};
    done = cli_call(cli, "plan", params, "tensors", ret, err);
    return done < 0 && a->profile ? err_in(err, done, "plan for '%s'", a->profile) : done;
}

static int run_plan(struct cli *cli, const char *model, const struct plan_arguments *a)
{
    const char *imatrix = a->recipe.imatrix;
    struct qd_error err;
    CLEANUP(fd_close) int fd = imatrix ? open(imatrix, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (imatrix && fd < 0) {
        (void)err_sys(&err, errno, "open '%s'", imatrix);
        return cli_fail(cli, &err);
    }
    json_t *answer;
    if (call_plan(cli, model, a, fd, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    print_table(json_object_get(answer, "tensors"), plan_columns, "no tensors");
    putchar('\n');
    print_facts(answer, plan_facts);
    json_decref(answer);
    return 0;
}

int cmd_plan(struct cli *cli, int argc, char **argv)
{
    struct plan_arguments args = {0};
    const struct cli_option options[] = {RECIPE_OPTIONS(&args.recipe),
                                         {"layout", 0, OPTION_TEXT, &args.layout},
                                         {"hw", 0, OPTION_TEXT, &args.profile},
                                         {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 1, 1, &first);
    if (status == 0)
        status = run_plan(cli, argv[first], &args);
    free(args.recipe.rules);
    return status;
}
