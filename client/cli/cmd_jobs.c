/* jobs, cancel, watch: what happens now. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"

static const struct column job_columns[] = {
    {"JOB", "job", COLUMN_COUNT},
    {"MODEL", "model", COLUMN_TEXT},
    {"SCHEME", "scheme", COLUMN_TEXT},
    {"LAYOUT", "layout", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"CLASS", "class", COLUMN_TEXT},
    {"DONE", "done_bytes", COLUMN_BYTES},
    {"OF", "total_bytes", COLUMN_BYTES},
    {"WAITERS", "waiters", COLUMN_COUNT},
    {"RETRY AT", "retry_at", COLUMN_TIME},
    {"ERROR", "error", COLUMN_TEXT},
    {"NEXT STEP", "hint", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

static bool job_number(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || end == text || *end || v == 0 || v > UINT32_MAX)
        return false;
    *ret = v;
    return true;
}

static int retry_jobs(struct cli *cli, const char *number)
{
    struct qd_param params[2] = {{0}};
    if (number) {
        params[0] = (struct qd_param){.key = "job", .kind = QD_PARAM_U64};
        if (!job_number(number, &params[0].u64))
            return cli_misuse(cli, "jobs", "'%s' is no job number", number);
    }
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "retry", params, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    printf("%lld jobs may run again\n", (long long)json_integer_value(json_object_get(answer, "n")));
    json_decref(answer);
    return 0;
}

int cmd_jobs(struct cli *cli, int argc, char **argv)
{
    bool retry = false;
    const struct cli_option options[] = {{"retry", 0, OPTION_FLAG, &retry}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 1, &first);
    if (status)
        return status;
    if (retry)
        return retry_jobs(cli, argv[first]);
    if (argv[first])
        return cli_misuse(cli, "jobs", "'%s' needs --retry before it", argv[first]);
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "jobs", NULL, "jobs", &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    print_table(json_object_get(answer, "jobs"), job_columns, "No jobs.");
    json_decref(answer);
    return 0;
}

int cmd_cancel(struct cli *cli, int argc, char **argv)
{
    int first;
    int status = cli_parse(cli, argc, argv, NULL, 1, 1, &first);
    if (status)
        return status;
    struct qd_param params[] = {{.key = "job", .kind = QD_PARAM_U64}, {0}};
    if (!job_number(argv[first], &params[0].u64))
        return cli_misuse(cli, argv[0], "'%s' is no job number; `quantctl jobs` shows them", argv[first]);
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "cancel", params, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    json_decref(answer);
    if (cli->json)
        return print_json(json_pack("{s:I, s:s}", "job", (json_int_t)params[0].u64, "done", "cancelled"));
    if (!cli->quiet)
        printf("job %s: cancelled\n", argv[first]);
    return 0;
}

/* An event on one line: as JSON, or as "12:00:01 job_changed model=tiny state=ready". */
static int print_event(const char *event, const struct qd_value *params, void *data)
{
    const struct cli *cli = data;
    json_t *fields = json_of_value(params);
    if (cli->json) {
        json_t *line = json_pack("{s:s, s:o}", "event", event, "params", fields);
        char *text = line ? json_dumps(line, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
        if (text)
            puts(text);
        free(text);
        json_decref(line);
    } else {
        char clock[16] = "";
        time_t now = time(NULL);
        struct tm local;
        if (localtime_r(&now, &local))
            (void)strftime(clock, sizeof clock, "%H:%M:%S", &local); /* fits */
        printf("%s %s", clock, event);
        const char *key;
        json_t *value;
        json_object_foreach(fields, key, value)
        {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            printf(" %s=%s", key, text ? text : "");
            free(text);
        }
        putchar('\n');
        json_decref(fields);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int cmd_watch(struct cli *cli, int argc, char **argv)
{
    uint32_t seconds = 0;
    const struct cli_option options[] = {{"for", 0, OPTION_COUNT, &seconds}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 0, &first);
    if (status)
        return status;
    struct qd_error err;
    struct qd_client *client = cli_client(cli, &err);
    if (!client || qd_watch(client, seconds ? seconds * 1000 : 0, print_event, cli, &err) < 0)
        return cli_fail(cli, &err);
    return 0;
}
