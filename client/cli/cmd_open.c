/* open: get an artifact, building it if need be; then tell about it, copy it, or run a command with it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"
#include "client/cli/progress.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static const struct column opened_facts[] = {
    {"key", "key", COLUMN_TEXT},           {"model", "model", COLUMN_TEXT},
    {"scheme", "scheme", COLUMN_TEXT},     {"recipe", "recipe", COLUMN_TEXT},
    {"layout", "layout", COLUMN_TEXT},     {"why", "why", COLUMN_TEXT},
    {"size", "bytes", COLUMN_BYTES},       {"tensors", "n_tensors", COLUMN_COUNT},
    {"digest", "digest", COLUMN_TEXT},     {"signed by", "signer", COLUMN_TEXT},
    {"SQNR", "sqnr_db", COLUMN_DB},        {"quantized again", "requantized", COLUMN_COUNT},
    {"written to", "output", COLUMN_TEXT}, {NULL, NULL, COLUMN_TEXT},
};

static int on_progress(const struct qd_progress *p, void *data)
{
    progress_show(data, p);
    return interrupted;
}

static json_t *json_of_artifact(const struct qd_artifact *a)
{
    const struct qd_artifact_info *i = qd_artifact_info(a);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "key", i->key, "model",
                     i->model, "scheme", i->scheme, "recipe", i->recipe, "layout", i->layout, "why", qd_artifact_why(a),
                     "features", i->features, "source", i->source, "digest", i->digest, "signer", i->signer, "bytes",
                     (json_int_t)i->bytes, "created", (json_int_t)i->created, "n_tensors",
                     (json_int_t)qd_artifact_n_tensors(a), "sqnr_db",
                     i->sqnr_db < 1e300 ? json_real(i->sqnr_db) : json_string("inf"));
}

/* Tensors whose source was quantized already: their first error is in no number here. */
static json_int_t count_requantized(const struct qd_artifact *a)
{
    json_int_t n = 0;
    for (size_t i = 0; i < qd_artifact_n_tensors(a); i++) {
        const struct qd_tensor *t = qd_artifact_tensor_at(a, i);
        n += t->type != t->source_type && qd_type_info(t->source_type)->kind == QD_KIND_BLOCK;
    }
    return n;
}

/* Payload file @i into @out, whole and on the disk. */
static int copy_file(const struct qd_artifact *a, uint32_t i, int out, const char *path, struct qd_error *err)
{
    uint64_t left;
    (void)qd_artifact_map(a, i, &left); /* for the size */
    loff_t from = 0;
    while (left) {
        ssize_t n = copy_file_range(qd_artifact_fd(a, i), &from, out, NULL, left, 0);
        if (n < 0 && errno == EINTR && !interrupted)
            continue;
        if (n <= 0 || interrupted)
            return err_sys(err, n < 0 ? errno : EINTR, "write '%s'", path);
        left -= (uint64_t)n;
    }
    return fsync(out) < 0 ? err_sys(err, errno, "write '%s'", path) : 0;
}

/* Copies payload file @i to @path: beside it first, then renamed, so that a stop leaves nothing half. */
static int copy_to(const struct qd_artifact *a, uint32_t i, const char *path, bool force, struct qd_error *err)
{
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.part", path) >= (int)sizeof tmp)
        return err_new(err, QD_E_LIMIT, "the path '%s' is too long", path);
    if (!force && access(path, F_OK) == 0) {
        (void)err_new(err, QD_E_EXISTS, "'%s' is already there", path);
        return err_hint(err, QD_E_EXISTS, "add --force to replace it");
    }
    CLEANUP(fd_close) int out = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (out < 0)
        return err_sys(err, errno, "create '%s'", tmp);
    int r = copy_file(a, i, out, path, err);
    if (r == 0 && rename(tmp, path) < 0)
        r = err_sys(err, errno, "write '%s'", path);
    if (r < 0)
        (void)unlink(tmp); /* the failure is already told */
    return r;
}

/* Several files know each other by their names: they go into a folder, the first one last. */
static int copy_into(const struct qd_artifact *a, const char *folder, bool force, struct qd_error *err)
{
    int r = 0;
    if (mkdir(folder, 0777) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make the folder '%s'", folder);
    for (uint32_t i = qd_artifact_info(a)->n_files; i-- > 0 && r == 0;) {
        char path[PATH_MAX];
        const char *slash = folder[0] && folder[strlen(folder) - 1] == '/' ? "" : "/";
        if (snprintf(path, sizeof path, "%s%s%s", folder, slash, qd_artifact_file_name(a, i)) >= (int)sizeof path)
            return err_new(err, QD_E_LIMIT, "the path '%s' is too long", folder);
        r = copy_to(a, i, path, force, err);
    }
    return r;
}

static int copy_out(const struct qd_artifact *a, const char *path, bool force, struct qd_error *err)
{
    struct stat st;
    const bool is_folder = stat(path, &st) == 0 ? S_ISDIR(st.st_mode) : path[0] && path[strlen(path) - 1] == '/';
    if (is_folder)
        return copy_into(a, path, force, err);
    if (qd_artifact_info(a)->n_files == 1)
        return copy_to(a, 0, path, force, err);
    (void)err_new(err, QD_E_INVALID, "the artifact has %u files, '%s' is one", qd_artifact_info(a)->n_files, path);
    return err_hint(err, QD_E_INVALID, "give a folder for them: --output %s/", path);
}

enum { PATHS_MAX = 8, PATH_BYTES = 32 };

/* "{}" is the path of payload file 0, "{1}" of file 1; NULL for another word. */
static const char *path_of_word(const char *word, char paths[PATHS_MAX][PATH_BYTES], uint32_t n_paths)
{
    if (strcmp(word, "{}") == 0)
        return paths[0];
    const bool numbered = word[0] == '{' && word[1] >= '0' && word[1] <= '9' && strcmp(word + 2, "}") == 0;
    return numbered && (uint32_t)(word[1] - '0') < n_paths ? paths[word[1] - '0'] : NULL;
}

/*
 * Replaces this process by the command; "{}" in it becomes the artifact's path, which needs no right but the open
 * descriptor.
 */
static int run_with(struct cli *cli, const struct qd_artifact *a, char **command)
{
    static char paths[PATHS_MAX][PATH_BYTES];
    struct qd_error err;
    uint32_t n = qd_artifact_info(a)->n_files;
    n = n < PATHS_MAX ? n : PATHS_MAX;
    for (uint32_t i = 0; i < n; i++) {
        int fd = dup(qd_artifact_fd(a, i)); /* a duplicate is inherited: no close-on-exec */
        if (fd < 0) {
            (void)err_sys(&err, errno, "descriptor for '%s'", command[0]);
            return cli_fail(cli, &err);
        }
        (void)snprintf(paths[i], PATH_BYTES, "/proc/self/fd/%d", fd); /* fits */
    }
    for (char **word = command; *word; word++) {
        const char *path = path_of_word(*word, paths, n);
        if (path)
            *word = (char *)(uintptr_t)path; /* one of ours */
    }
    (void)fflush(stdout);
    (void)execvp(command[0], command); /* returns only on failure */
    (void)err_sys(&err, errno, "start '%s'", command[0]);
    return cli_fail(cli, &err);
}

static int print_opened(struct cli *cli, const struct qd_artifact *a, const char *output)
{
    json_t *facts = json_of_artifact(a);
    if (count_requantized(a))
        (void)json_object_set_new(facts, "requantized",
                                  json_integer(count_requantized(a))); /* one line less at worst */
    if (output)
        (void)json_object_set_new(facts, "output", json_string(output)); /* one line less at worst */
    if (cli->json)
        return print_json(facts);
    if (!cli->quiet)
        print_facts(facts, opened_facts);
    json_decref(facts);
    return 0;
}

static int verify_level(const char *name, enum qd_verify *ret)
{
    static const char *const names[] = {
        [QD_VERIFY_SIGNATURE] = "signature", [QD_VERIFY_LAZY] = "lazy", [QD_VERIFY_FULL] = "full"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum qd_verify)i;
            return 0;
        }
    return -1;
}

struct open_arguments {
    struct qd_open_options options;
    struct recipe_arguments recipe;
    const char *file, *output, *verify;
    bool force;
    uint32_t wait_s;
};

static void set_recipe(struct qd_open_options *o, const struct recipe_arguments *r)
{
    o->scheme = r->scheme;
    o->pure = r->pure;
    o->imatrix = r->imatrix;
    o->output_type = r->output;
    o->embedding_type = r->embedding;
    o->tensor_rules = r->rules;
    o->leave_output = r->leave_output;
    o->allow_requantize = r->requantize;
}

/* The artifact, with progress on stderr. */
static int open_artifact(struct cli *cli, struct open_arguments *args, struct qd_artifact **ret, struct qd_error *err)
{
    struct progress_view view;
    CLEANUP(fd_close) int source = -1;
    struct qd_client *client = cli_client(cli, err);
    if (!client)
        return err->code;
    if (args->file) {
        source = open(args->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (source < 0)
            return err_sys(err, errno, "open '%s'", args->file);
        args->options.use_source_fd = true;
        args->options.source_fd = source;
    }
    set_recipe(&args->options, &args->recipe);
    progress_begin(&view, cli->quiet);
    args->options.progress = on_progress;
    args->options.progress_data = &view;
    args->options.wait_ms = args->wait_s * 1000;
    int r = qd_open(client, &args->options, ret, err);
    progress_end(&view);
    return r;
}

/* The word before a command is "--": without it a scheme or a second model would be started as a program. */
static bool has_dashes(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--") == 0)
            return true;
    return false;
}

/* A file's path, or MODEL:SCHEME[:LAYOUT], where a model's name belongs: the next step is another option. */
static void hint_option(const char *model, struct qd_error *err)
{
    if (err->code != QD_E_NOT_FOUND || !model)
        return;
    const char *end = model + strlen(model), *colon = strrchr(model, ':'), *layout = NULL;
    if (colon && qd_layout_by_name(colon + 1) >= 0) {
        layout = colon + 1;
        end = colon;
        colon = memrchr(model, ':', (size_t)(end - model));
    }
    if (strchr(model, '/') && access(model, R_OK) == 0)
        (void)err_hint(err, err->code, "'%s' is a file: quantctl open --file %s", model, model);
    else if (colon && colon > model && colon + 1 < end)
        (void)err_hint(err, err->code, "quantctl open %.*s --scheme %.*s%s%s", (int)(colon - model), model,
                       (int)(end - colon - 1), colon + 1, layout ? " --layout " : "", layout ? layout : "");
}

/* Opens, and does with the artifact what was asked for; @command: the words of one, ended by NULL. */
static int open_and_use(struct cli *cli, struct open_arguments *args, char **command)
{
    struct sigaction act = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &act, NULL); /* without it an interrupt only ends us sooner */
    struct qd_error err;
    struct qd_artifact *artifact;
    int status;
    if (open_artifact(cli, args, &artifact, &err) < 0) {
        hint_option(args->options.model, &err);
        return cli_fail(cli, &err);
    }
    if (args->output && copy_out(artifact, args->output, args->force, &err) < 0)
        status = cli_fail(cli, &err);
    else if (*command)
        status = run_with(cli, artifact, command);
    else
        status = print_opened(cli, artifact, args->output);
    qd_artifact_free(artifact);
    return status;
}

/* @words: behind the options, ended by NULL. */
static int check_and_open(struct cli *cli, const char *verb, struct open_arguments *args, char **words, bool may_run)
{
    if (!args->file && !*words)
        return cli_misuse(cli, verb, "name a model, or a file with --file");
    if (verify_level(args->verify, &args->options.verify) < 0)
        return cli_misuse(cli, verb, "--verify: '%s' is none of signature, lazy, full", args->verify);
    if (!args->file)
        args->options.model = *words++;
    if (*words && !may_run)
        return cli_misuse(cli, verb,
                          "'%s' is one argument too many: a scheme is given by --scheme, a command follows --", *words);
    return open_and_use(cli, args, words);
}

int cmd_open(struct cli *cli, int argc, char **argv)
{
    bool may_run = has_dashes(argc, argv); /* cli_parse moves the words */
    struct open_arguments args = {.verify = "signature"};
    const struct cli_option options[] = {RECIPE_OPTIONS(&args.recipe),
                                         {"layout", 0, OPTION_TEXT, &args.options.layout},
                                         {"no-build", 0, OPTION_FLAG, &args.options.no_build},
                                         {"strict", 0, OPTION_FLAG, &args.options.strict},
                                         {"verify", 0, OPTION_TEXT, &args.verify},
                                         {"wait", 0, OPTION_COUNT, &args.wait_s},
                                         {"file", 'f', OPTION_TEXT, &args.file},
                                         {"output", 'o', OPTION_TEXT, &args.output},
                                         {"force", 0, OPTION_FLAG, &args.force},
                                         {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, -1, &first);
    if (status == 0)
        status = check_and_open(cli, argv[0], &args, argv + first, may_run);
    free(args.recipe.rules);
    return status;
}
