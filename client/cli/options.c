/* Options of a verb, and how misuse and failure are said. */
#include "client/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { OPTIONS_MAX = 32 };

static const struct command *find_command(const char *verb)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, verb) == 0)
            return c;
    return NULL;
}

int cli_misuse(const struct cli *cli, const char *verb, const char *fmt, ...)
{
    va_list args;
    fprintf(stderr, "%s %s: ", cli->program, verb);
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args); /* stderr is the last place to complain */
    va_end(args);
    const struct command *c = find_command(verb);
    fprintf(stderr, "\nusage: %s %s %s\n", cli->program, verb, c ? c->usage : "");
    return EX_USAGE;
}

int cli_fail(const struct cli *cli, const struct qd_error *err)
{
    if (cli->json) {
        json_t *e = json_pack("{s:{s:s, s:s, s:s}}", "error", "code", qd_error_name(err->code), "message", err->message,
                              "hint", err->hint);
        if (e) {
            (void)json_dumpf(e, stdout, JSON_INDENT(2) | JSON_SORT_KEYS); /* the exit code tells as well */
            putchar('\n');
        }
        json_decref(e);
    }
    fprintf(stderr, "%s: %s\n", cli->program, err->message);
    if (err->hint[0])
        fprintf(stderr, "%s: hint: %s\n", cli->program, err->hint);
    return qd_error_exit_code(err->code);
}

static bool parse_size(const char *text, uint64_t *ret)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *text == '-')
        return false;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (*end && !unit)
        return false;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    end += unit != NULL;
    if (strcmp(end, "") != 0 && strcasecmp(end, "iB") != 0 && strcasecmp(end, "B") != 0)
        return false;
    if (shift && v >> (64 - shift))
        return false;
    *ret = v << shift;
    return true;
}

/* Adds "NAME=@text" and a newline to the text at @target. */
static bool add_line(const char *name, const char *text, char **target)
{
    char *longer;
    if (asprintf(&longer, "%s%s=%s\n", *target ? *target : "", name, text) < 0)
        return false;
    free(*target);
    *target = longer;
    return true;
}

/* False where @text is no value of that kind. */
static bool set_option(const struct cli_option *o, const char *text)
{
    uint64_t v;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->target = true;
        return true;
    case OPTION_TEXT:
        *(const char **)o->target = text;
        return true;
    case OPTION_SIZE:
        return parse_size(text, o->target);
    case OPTION_COUNT:
        if (!parse_size(text, &v) || v > UINT32_MAX)
            return false;
        *(uint32_t *)o->target = (uint32_t)v;
        return true;
    case OPTION_LINE:
        return add_line(o->name, text, o->target);
    case OPTION_MARK:
        return add_line(o->name, "1", o->target);
    }
    return false;
}

static bool is_flag(const struct cli_option *o)
{
    return o->kind == OPTION_FLAG || o->kind == OPTION_MARK;
}

/* getopt_long's two tables from ours; +: stop at the first word, so that a command after it keeps its options. */
static size_t build_getopt(const struct cli_option *options, struct option *longs, char *shorts)
{
    size_t n = 0;
    *shorts++ = '+';
    *shorts++ = ':';
    for (; options[n].name && n + 1 < OPTIONS_MAX; n++) {
        longs[n] = (struct option){options[n].name, is_flag(&options[n]) ? no_argument : required_argument, NULL,
                                   256 + (int)n};
        if (options[n].letter) {
            *shorts++ = options[n].letter;
            if (!is_flag(&options[n]))
                *shorts++ = ':';
        }
    }
    longs[n] = (struct option){0};
    *shorts = '\0';
    return n;
}

static const struct cli_option *option_of(const struct cli_option *options, size_t n, int c)
{
    if (c >= 256 && (size_t)(c - 256) < n)
        return &options[c - 256];
    for (size_t i = 0; i < n; i++)
        if (options[i].letter && options[i].letter == c)
            return &options[i];
    return NULL;
}

/* One round of getopt from optind on: 0, or an exit code. */
static int parse_options(struct cli *cli, int argc, char **argv, const struct cli_option *options)
{
    struct option longs[OPTIONS_MAX];
    char shorts[2 * OPTIONS_MAX + 3];
    size_t n = build_getopt(options, longs, shorts);
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const struct cli_option *o = option_of(options, n, c);
        if (!o)
            return cli_misuse(cli, argv[0], c == ':' ? "%s needs a value" : "%s is no option of this verb",
                              argv[optind - 1]);
        if (!set_option(o, optarg))
            return cli_misuse(cli, argv[0], "--%s: '%s' is no %s", o->name, optarg,
                              o->kind == OPTION_SIZE ? "size (such as 500M or 20G)" : "number");
    }
    return 0;
}

/*
 * Words and options may be mixed; everything after "--" stays as it is. Words are moved to the
 * front of argv[1..], in order.
 */
int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options, int n_min, int n_max,
              int *ret_first)
{
    static const struct cli_option none[] = {{0}};
    struct cli_option all[OPTIONS_MAX] = {{"json", 0, OPTION_FLAG, &cli->json},
                                          {"quiet", 'q', OPTION_FLAG, &cli->quiet},
                                          {"socket", 0, OPTION_TEXT, &cli->socket}};
    size_t n_all = 3;
    for (const struct cli_option *o = options ? options : none; o->name && n_all + 1 < OPTIONS_MAX; o++)
        all[n_all++] = *o;
    int n_words = 0;
    optind = 1;
    while (optind < argc) {
        int before = optind;
        int r = parse_options(cli, argc, argv, all);
        if (r)
            return r;
        bool ended = optind > before && strcmp(argv[optind - 1], "--") == 0;
        while (ended && optind < argc)
            argv[1 + n_words++] = argv[optind++];
        if (optind < argc)
            argv[1 + n_words++] = argv[optind++];
    }
    if (n_words < n_min)
        return cli_misuse(cli, argv[0], "an argument is missing");
    if (n_max >= 0 && n_words > n_max)
        return cli_misuse(cli, argv[0], "'%s' is one argument too many", argv[1 + n_max]);
    argv[1 + n_words] = NULL;
    *ret_first = 1;
    return 0;
}
