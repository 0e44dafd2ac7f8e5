/*
 * What the verbs of quantctl share: global options, the connection, calls that collect pages.
 * A verb returns an exit code of sysexits(3); cli_fail prints an error once and gives its code.
 */
#ifndef QUANTD_CLI_H
#define QUANTD_CLI_H

#include <jansson.h>

#include <quantd/quantd.h>

struct cli {
    const char *program;
    const char *socket; /* NULL: libquantd's search order */
    bool json;
    bool quiet;
    struct qd_client *client; /* owned; made by cli_client */
};

struct command {
    const char *name;
    const char *usage;                                  /* arguments, one line */
    const char *summary;                                /* one line */
    int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the verb */
};

/* The verbs, ended by a NULL name; main.c. */
extern const struct command commands[];

/* An option of a verb: getopt_long's, with the value's target. */
enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_SIZE, OPTION_COUNT, OPTION_LINE, OPTION_MARK };
struct cli_option {
    const char *name;
    char letter; /* 0: none */
    enum option_kind kind;
    void *target; /* bool *, const char **, uint64_t * (bytes, with K M G T), uint32_t *, char ** (owned; NAME=VALUE and
                     a newline are added; of a mark NAME=1) */
};

/* What open and plan say of a recipe. */
struct recipe_arguments {
    const char *scheme, *output, *embedding, *imatrix;
    bool pure, leave_output, requantize;
    char *rules; /* owned */
};

/* Their options, in a list of struct cli_option. */
#define RECIPE_OPTIONS(r)                                                                                          \
    {"scheme", 's', OPTION_TEXT, &(r)->scheme}, {"pure", 'p', OPTION_FLAG, &(r)->pure},                            \
        {"imatrix", 'i', OPTION_TEXT, &(r)->imatrix}, {"output-type", 0, OPTION_TEXT, &(r)->output},               \
        {"embedding-type", 0, OPTION_TEXT, &(r)->embedding}, {"leave-output", 0, OPTION_FLAG, &(r)->leave_output}, \
        {"allow-requantize", 0, OPTION_FLAG, &(r)->requantize}, {"tensor", 0, OPTION_LINE, &(r)->rules},           \
        {"method", 0, OPTION_LINE, &(r)->rules}, {"bits", 0, OPTION_LINE, &(r)->rules},                            \
        {"block", 0, OPTION_LINE, &(r)->rules}, {"asymmetric", 0, OPTION_MARK, &(r)->rules},                       \
    {                                                                                                              \
        "keep", 0, OPTION_LINE, &(r)->rules                                                                        \
    }
#define RECIPE_USAGE                                                                                    \
    "[--scheme S] [--pure] [--imatrix FILE] [--tensor REGEX=TYPE] [--keep REGEX] [--output-type TYPE] " \
    "[--embedding-type TYPE] [--leave-output] [--allow-requantize] [--method M] [--bits N] [--block N] [--asymmetric]"

/*
 * Parses @options (ended by a NULL name) and checks that between @n_min and @n_max words are left;
 * they follow at argv[*ret_first]. 0, or an exit code after saying what is wrong.
 */
int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options, int n_min, int n_max,
              int *ret_first);

/* The connection, made at first use. NULL after an error was put into @err. */
struct qd_client *cli_client(struct cli *cli, struct qd_error *err);

/* Prints "quantctl: message" and the hint (as JSON with --json); returns the exit code. */
int cli_fail(const struct cli *cli, const struct qd_error *err);

/* Prints a usage error and the verb's usage; returns EX_USAGE. */
int cli_misuse(const struct cli *cli, const char *verb, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A call answered as JSON. With @list, pages are collected until there are no more. The caller owns *ret. */
int cli_call(struct cli *cli, const char *method, const struct qd_param *params, const char *list, json_t **ret,
             struct qd_error *err);

/* The tree of an answer as JSON (owned by the caller). */
json_t *json_of_value(const struct qd_value *v);

/* The verbs of each noun; main.c lists them. */
int cmd_status(struct cli *cli, int argc, char **argv);
int cmd_rescan(struct cli *cli, int argc, char **argv);
int cmd_hw(struct cli *cli, int argc, char **argv);
int cmd_models(struct cli *cli, int argc, char **argv);
int cmd_ls(struct cli *cli, int argc, char **argv);
int cmd_show(struct cli *cli, int argc, char **argv);
int cmd_open(struct cli *cli, int argc, char **argv);
int cmd_plan(struct cli *cli, int argc, char **argv);
int cmd_verify(struct cli *cli, int argc, char **argv);
int cmd_rm(struct cli *cli, int argc, char **argv);
int cmd_prune(struct cli *cli, int argc, char **argv);
int cmd_pin(struct cli *cli, int argc, char **argv);
int cmd_jobs(struct cli *cli, int argc, char **argv);
int cmd_cancel(struct cli *cli, int argc, char **argv);
int cmd_watch(struct cli *cli, int argc, char **argv);
int cmd_key(struct cli *cli, int argc, char **argv);
int cmd_quantize(struct cli *cli, int argc, char **argv);
int cmd_pack(struct cli *cli, int argc, char **argv);
int cmd_unpack(struct cli *cli, int argc, char **argv);

#endif
