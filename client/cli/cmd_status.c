/* status, rescan, hw: the daemon and its machine. */
#include <stdio.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"
#include "client/cli/profile.h"

static const struct column status_facts[] = {
    {"state", "state", COLUMN_TEXT},
    {"problem", "problem", COLUMN_TEXT},
    {"version", "version", COLUMN_TEXT},
    {"pid", "pid", COLUMN_COUNT},
    {"up (s)", "uptime_s", COLUMN_COUNT},
    {"cpu", "cpu", COLUMN_TEXT},
    {"hardware", "hardware", COLUMN_TEXT},
    {"cache", "cache", COLUMN_TEXT},
    {"in use", "cache_bytes", COLUMN_BYTES},
    {"budget", "cache_budget", COLUMN_LIMIT},
    {"artifacts", "artifacts", COLUMN_COUNT},
    {"models", "models", COLUMN_COUNT},
    {"running", "jobs_running", COLUMN_COUNT},
    {"queued", "jobs_queued", COLUMN_COUNT},
    {"clients", "clients", COLUMN_COUNT},
    {"key", "key_id", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column root_columns[] = {
    {"WATCHED FOLDER", "path", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"MODELS", "models", COLUMN_COUNT},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column hardware_facts[] = {
    {"cpu", "cpu", COLUMN_TEXT},
    {"features", "features", COLUMN_TEXT},
    {"detected", "detected", COLUMN_TEXT},
    {"before", "stored", COLUMN_TEXT},
    {"native", "layout", COLUMN_TEXT},
    {"cores", "cores", COLUMN_COUNT},
    {"memory", "memory_bytes", COLUMN_BYTES},
    {"sandbox", "sandbox", COLUMN_TEXT},
    {"fs-verity", "verity", COLUMN_FLAG},
    {NULL, NULL, COLUMN_TEXT},
};

/* A verb without arguments: one call, then JSON or facts. */
static int report(struct cli *cli, int argc, char **argv, const char *method, void (*show)(const json_t *answer))
{
    int first;
    int status = cli_parse(cli, argc, argv, NULL, 0, 0, &first);
    if (status)
        return status;
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, method, NULL, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    show(answer);
    json_decref(answer);
    return 0;
}

static void show_status(const json_t *answer)
{
    print_facts(answer, status_facts);
    putchar('\n');
    print_table(json_object_get(answer, "roots"), root_columns,
                "No folder is watched. Add one to quantd.conf: [root models], path = /folder");
}

static void show_rescan(const json_t *answer)
{
    printf("rescanning %lld folders\n", (long long)json_integer_value(json_object_get(answer, "n")));
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
    return report(cli, argc, argv, "status", show_status);
}

int cmd_hw(struct cli *cli, int argc, char **argv)
{
    const char *save = NULL;
    const struct cli_option options[] = {{"save", 0, OPTION_TEXT, &save}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 0, &first);
    if (status)
        return status;
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "hardware", NULL, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (save && profile_save(save, answer, &err) < 0) {
        json_decref(answer);
        return cli_fail(cli, &err);
    }
    if (cli->json)
        return print_json(answer);
    if (!save || !cli->quiet)
        print_facts(answer, hardware_facts);
    json_decref(answer);
    return 0;
}

int cmd_rescan(struct cli *cli, int argc, char **argv)
{
    return report(cli, argc, argv, "rescan", show_rescan);
}
