/* quantctl: the table of verbs. */
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "client/cli/cli.h"
#include "kernels/core/error.h"

#ifndef QUANTD_VERSION
#define QUANTD_VERSION "unknown"
#endif

const struct command commands[] = {
    {"status", "", "how the daemon is", cmd_status},
    {"models", "", "models in the watched folders", cmd_models},
    {"ls", "[--model NAME]", "artifacts in the cache", cmd_ls},
    {"show", "ARTIFACT [--worst N]", "one artifact, its tensors and their error", cmd_show},
    {"open", "MODEL | --file FILE " RECIPE_USAGE " [-o FILE] [-- COMMAND {} ...]",
     "build an artifact if need be, and map, copy or run with it", cmd_open},
    {"plan", "MODEL " RECIPE_USAGE " [--layout L] [--hw PROFILE]",
     "what an open would build, here or on another machine, exact to the byte, and why", cmd_plan},
    {"verify", "[ARTIFACT] [--no-rebuild]", "read and check every byte", cmd_verify},
    {"rm", "ARTIFACT", "remove an artifact", cmd_rm},
    {"prune", "[--to SIZE] [--all] [--dry-run]", "evict the least recently used artifacts", cmd_prune},
    {"pin", "ARTIFACT", "never evict it", cmd_pin},
    {"unpin", "ARTIFACT", "let it be evicted again", cmd_pin},
    {"jobs", "[--retry [JOB]]", "what is being built, and what failed", cmd_jobs},
    {"cancel", "JOB", "cancel a job", cmd_cancel},
    {"watch", "[--for SECONDS]", "print events as they come", cmd_watch},
    {"rescan", "", "look at the watched folders and the hardware again", cmd_rescan},
    {"hw", "[--save PROFILE]", "what this CPU has and what is used of it", cmd_hw},
    {"key", "[show | trust FILE.pub | revoke FILE.pub]", "the signing key, and which keys are trusted", cmd_key},
    {"quantize", "IN -o OUT " RECIPE_USAGE " [--threads N] [--force]", "quantize one file, without a daemon",
     cmd_quantize},
    {"pack", "IN -o OUT [--layout L] [--threads N] [--force]", "lay out one GGUF file for a CPU, without a daemon",
     cmd_pack},
    {"unpack", "IN -o OUT [--threads N] [--force]", "the portable file of a packed one", cmd_unpack},
    {NULL, NULL, NULL, NULL},
};

static void print_help(FILE *f)
{
    fputs("usage: quantctl [--socket PATH] [--json] VERB [ARGUMENTS]\n\n", f);
    for (const struct command *c = commands; c->name; c++)
        fprintf(f, "  %-9s %s\n", c->name, c->summary);
    fputs(
        "\nARTIFACT is a key, a unique prefix of one, or MODEL:SCHEME[:LAYOUT]. `quantctl VERB --help` tells a verb's "
        "arguments;\n"
        "every verb takes --json, --quiet and --socket PATH. Manual: quantctl(1).\n",
        f);
}

static int print_verb_help(const struct command *c)
{
    printf("usage: quantctl %s %s\n\n%s. Manual: quantctl(1).\n", c->name, c->usage, c->summary);
    return 0;
}

static int unknown_verb(const char *verb)
{
    const char *names[sizeof commands / sizeof commands[0]];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        names[i] = commands[i].name; /* the last is NULL */
    const char *near = nearest_name(verb, names);
    fprintf(stderr, "quantctl: '%s' is no verb; %s%s%s`quantctl --help` lists them\n", verb,
            near ? "did you mean '" : "", near ? near : "", near ? "'? " : "");
    return EX_USAGE;
}

static const struct command *command_named(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static int run_verb(struct cli *cli, int argc, char **argv)
{
    const struct command *c = command_named(argv[0]);
    if (!c)
        return unknown_verb(argv[0]);
    /* the worker explains each of its options */
    bool own_help = c->run == cmd_quantize || c->run == cmd_pack || c->run == cmd_unpack;
    for (int i = 1; i < argc && !own_help && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return print_verb_help(c);
    int status = c->run(cli, argc, argv);
    qd_client_free(cli->client);
    return status;
}

int main(int argc, char **argv)
{
    struct cli cli = {.program = "quantctl"};
    (void)setlocale(LC_TIME, ""); /* dates for people; numbers stay as C writes them */
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(stdout);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            puts("quantctl " QUANTD_VERSION);
            return 0;
        }
        if (strcmp(argv[i], "--json") == 0) {
            cli.json = true;
        } else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc) {
            cli.socket = argv[++i];
        } else {
            fprintf(stderr, "quantctl: '%s' is no option here; `quantctl --help` tells more\n", argv[i]);
            return EX_USAGE;
        }
    }
    if (i >= argc) {
        print_help(stderr);
        return EX_USAGE;
    }
    int status = run_verb(&cli, argc - i, argv + i);
    if (fflush(stdout) != 0 || ferror(stdout))
        return status ? status : EX_IOERR;
    return status;
}
