/* ls, show, verify, rm, prune, pin, unpin: artifacts in the cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"

#define ARTIFACT_COLUMNS                                                                                    \
    {"KEY", "key", COLUMN_KEY}, {"MODEL", "model", COLUMN_TEXT}, {"SCHEME", "scheme", COLUMN_TEXT},         \
        {"LAYOUT", "layout", COLUMN_TEXT}, {"SIZE", "bytes", COLUMN_BYTES}, {"SQNR", "sqnr_db", COLUMN_DB}, \
        {"LAST USED", "last_used", COLUMN_TIME},                                                            \
    {                                                                                                       \
        "pinned", "pinned", COLUMN_FLAG                                                                     \
    }
static const struct column artifact_columns[] = {ARTIFACT_COLUMNS, {NULL, NULL, COLUMN_TEXT}};
/* Where two of one scheme are told apart by more than that. */
static const struct column artifact_columns_with_choices[] = {
    ARTIFACT_COLUMNS, {"CHOICES", "choices", COLUMN_TEXT}, {NULL, NULL, COLUMN_TEXT}};

static const struct column artifact_facts[] = {
    {"key", "key", COLUMN_TEXT},
    {"model", "model", COLUMN_TEXT},
    {"scheme", "scheme", COLUMN_TEXT},
    {"recipe", "recipe", COLUMN_TEXT},
    {"layout", "layout", COLUMN_TEXT},
    {"features", "features", COLUMN_TEXT},
    {"source", "source", COLUMN_TEXT},
    {"digest", "digest", COLUMN_TEXT},
    {"signed by", "signer", COLUMN_TEXT},
    {"size", "bytes", COLUMN_BYTES},
    {"created", "created", COLUMN_TIME},
    {"last used", "last_used", COLUMN_TIME},
    {"SQNR", "sqnr_db", COLUMN_DB},
    {"relative RMSE", "rel_rmse", COLUMN_SMALL},
    {"max abs error", "max_abs", COLUMN_SMALL},
    {"worst tensor", "worst", COLUMN_TEXT},
    {"its SQNR", "worst_sqnr_db", COLUMN_DB},
    {"quantized again", "requantized", COLUMN_COUNT},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column tensor_columns[] = {
    {"TENSOR", "name", COLUMN_TEXT},        {"SHAPE", "shape", COLUMN_TEXT},
    {"FROM", "from", COLUMN_TEXT},          {"TO", "to", COLUMN_TEXT},
    {"SIZE", "bytes", COLUMN_BYTES},        {"SQNR", "sqnr_db", COLUMN_DB},
    {"REL RMSE", "rel_rmse", COLUMN_SMALL}, {"MAX ABS", "max_abs", COLUMN_SMALL},
    {"WHY", "reason", COLUMN_TEXT},         {NULL, NULL, COLUMN_TEXT},
};

static const struct column error_columns[] = {
    {"VALUE", "name", COLUMN_TEXT}, {"OPERATOR", "op_type", COLUMN_TEXT},
    {"SQNR", "sqnr_db", COLUMN_DB}, {"COSINE", "cosine", COLUMN_SMALL},
    {NULL, NULL, COLUMN_TEXT},
};

static const struct column problem_columns[] = {
    {"DAMAGED", "what", COLUMN_TEXT},
    {"WHY", "reason", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

/* A recipe but for its scheme and what is as ever: "pure=1 imatrix=0123456789ab". @dst[@n], cut. */
static void choices_of(const char *recipe, char *dst, size_t n)
{
    enum { IMATRIX_SHOWN = 8 + 12 }; /* as many digits as a key */
    size_t at = 0;
    dst[0] = '\0';
    while (*recipe && at < n) {
        int word = (int)strcspn(recipe, " ");
        int shown = strncmp(recipe, "imatrix=", 8) == 0 ? IMATRIX_SHOWN : word;
        if (strncmp(recipe, "scheme=", 7) != 0 && strncmp(recipe, "pure=0", 6) != 0)
            at += (size_t)snprintf(dst + at, n - at, "%s%.*s", at ? " " : "", shown, recipe);
        recipe += word + (recipe[word] == ' ');
    }
}

/* Adds the choices to each row that has any; true where one has. */
static bool add_choices(json_t *rows)
{
    size_t i;
    json_t *row;
    bool any = false;
    json_array_foreach(rows, i, row)
    {
        char choices[96];
        const char *recipe = json_string_value(json_object_get(row, "recipe"));
        choices_of(recipe ? recipe : "", choices, sizeof choices);
        any |= choices[0] && json_object_set_new(row, "choices", json_string(choices)) == 0;
    }
    return any;
}

int cmd_ls(struct cli *cli, int argc, char **argv)
{
    const char *model = NULL;
    const struct cli_option options[] = {{"model", 'm', OPTION_TEXT, &model}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 0, &first);
    if (status)
        return status;
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "artifacts", NULL, "artifacts", &answer, &err) < 0)
        return cli_fail(cli, &err);
    json_t *rows = json_object_get(answer, "artifacts");
    for (size_t i = json_array_size(rows); model && i-- > 0;) {
        const char *name = json_string_value(json_object_get(json_array_get(rows, i), "model"));
        if (!name || strcmp(name, model) != 0)
            (void)json_array_remove(rows, i); /* the index is in range */
    }
    if (cli->json)
        return print_json(answer);
    print_table(rows, add_choices(rows) ? artifact_columns_with_choices : artifact_columns,
                "No artifacts yet. `quantctl open MODEL` builds one.");
    json_decref(answer);
    return 0;
}

/* SQNR of a tensor; exact ones are told as text and sort last. */
static double sqnr_of(const json_t *tensor)
{
    const json_t *v = json_object_get(tensor, "sqnr_db");
    return json_is_number(v) ? json_number_value(v) : 1e300;
}

static int by_sqnr(const void *a, const void *b)
{
    double x = sqnr_of(*(json_t *const *)a), y = sqnr_of(*(json_t *const *)b);
    return x < y ? -1 : x > y;
}

/* The @n worst of @tensors, worst first; the caller owns the array. */
static json_t *worst_tensors(const json_t *tensors, size_t n)
{
    size_t n_all = json_array_size(tensors);
    json_t **sorted = calloc(n_all + 1, sizeof(*sorted));
    json_t *worst = json_array();
    if (!sorted || !worst) {
        free(sorted);
        return worst;
    }
    for (size_t i = 0; i < n_all; i++)
        sorted[i] = json_array_get(tensors, i);
    qsort(sorted, n_all, sizeof(*sorted), by_sqnr);
    for (size_t i = 0; i < n_all && i < n; i++)
        (void)json_array_append(worst, sorted[i]); /* a short list at worst */
    free(sorted);
    return worst;
}

/* Tensors whose source was quantized already: their first error is in no number of the artifact's. */
static json_int_t count_requantized(const json_t *tensors)
{
    size_t i;
    json_t *t;
    json_int_t n = 0;
    json_array_foreach(tensors, i, t)
    {
        const char *from = json_string_value(json_object_get(t, "from")),
                   *to = json_string_value(json_object_get(t, "to"));
        int type = from ? qd_type_by_name(from) : -1;
        n += type >= 0 && to && strcmp(from, to) != 0 && qd_type_info((enum qd_type)type)->kind == QD_KIND_BLOCK;
    }
    return n;
}

/* Of an ONNX model: what int8 came to, and what the model computes beside its source. */
static void print_errors(const json_t *answer)
{
    const char *form = json_string_value(json_object_get(answer, "form")),
               *why = json_string_value(json_object_get(answer, "form_why"));
    const json_t *outputs = json_object_get(answer, "outputs"), *operators = json_object_get(answer, "operators");
    if (form && why && *why) {
        printf("\nint8 is ");
        print_text(form);
        printf(": ");
        print_text(why);
        putchar('\n');
    }
    if (json_array_size(outputs)) {
        printf("\noutputs beside the source's, over %" JSON_INTEGER_FORMAT " samples:\n",
               json_integer_value(json_object_get(answer, "samples")));
        print_table(outputs, error_columns, "");
    }
    if (json_array_size(operators)) {
        printf("\nresults of operators, the worst:\n");
        print_table(operators, error_columns, "");
    }
}

int cmd_show(struct cli *cli, int argc, char **argv)
{
    uint32_t n_worst = 0;
    const struct cli_option options[] = {{"worst", 'n', OPTION_COUNT, &n_worst}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 1, 1, &first);
    if (status)
        return status;
    const struct qd_param params[] = {{.key = "artifact", .kind = QD_PARAM_STR, .str = argv[first]}, {0}};
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "show", params, "tensors", &answer, &err) < 0)
        return cli_fail(cli, &err);
    json_int_t n_again = count_requantized(json_object_get(answer, "tensors"));
    if (n_again)
        (void)json_object_set_new(json_array_get(json_object_get(answer, "artifacts"), 0), "requantized",
                                  json_integer(n_again)); /* one line less at worst */
    if (n_worst)
        (void)json_object_set_new(
            answer, "tensors", worst_tensors(json_object_get(answer, "tensors"), n_worst)); /* the full list at worst */
    if (cli->json)
        return print_json(answer);
    print_facts(json_array_get(json_object_get(answer, "artifacts"), 0), artifact_facts);
    print_errors(answer);
    putchar('\n');
    print_table(json_object_get(answer, "tensors"), tensor_columns, "no tensors");
    json_decref(answer);
    return 0;
}

int cmd_verify(struct cli *cli, int argc, char **argv)
{
    bool no_rebuild = false;
    const struct cli_option options[] = {{"no-rebuild", 0, OPTION_FLAG, &no_rebuild}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 1, &first);
    if (status)
        return status;
    const struct qd_param params[] = {
        {.key = "no_rebuild", .kind = QD_PARAM_BOOL, .u64 = no_rebuild},
        {.key = argv[first] ? "artifact" : NULL, .kind = QD_PARAM_STR, .str = argv[first]},
        {0}};
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "verify", params, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    const json_t *problems = json_object_get(answer, "problems");
    status = json_array_size(problems) ? EX_DATAERR : 0;
    if (cli->json)
        return print_json(answer) ? EX_IOERR : status;
    char bytes[16];
    format_bytes((uint64_t)json_integer_value(json_object_get(answer, "bytes")), bytes);
    long long n_checked = (long long)json_integer_value(json_object_get(answer, "checked"));
    printf("%lld %s, %s read\n", n_checked, n_checked == 1 ? "artifact" : "artifacts", bytes);
    print_table(problems, problem_columns, "all of it is as signed");
    if (json_integer_value(json_object_get(answer, "rebuilding")))
        printf("%lld being rebuilt; `quantctl jobs` shows them\n",
               (long long)json_integer_value(json_object_get(answer, "rebuilding")));
    json_decref(answer);
    return status;
}

/* A verb that names one artifact and answers nothing: rm, pin, unpin. */
static int change_one(struct cli *cli, int argc, char **argv, const char *method, const char *done)
{
    int first;
    int status = cli_parse(cli, argc, argv, NULL, 1, 1, &first);
    if (status)
        return status;
    const struct qd_param params[] = {{.key = "artifact", .kind = QD_PARAM_STR, .str = argv[first]}, {0}};
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, method, params, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    json_decref(answer);
    if (cli->json)
        return print_json(json_pack("{s:s, s:s}", "artifact", argv[first], "done", done));
    if (!cli->quiet)
        printf("%s: %s\n", argv[first], done);
    return 0;
}

int cmd_rm(struct cli *cli, int argc, char **argv)
{
    return change_one(cli, argc, argv, "remove", "removed");
}

int cmd_pin(struct cli *cli, int argc, char **argv)
{
    bool pin = strcmp(argv[0], "pin") == 0;
    return change_one(cli, argc, argv, argv[0], pin ? "pinned" : "unpinned");
}

int cmd_prune(struct cli *cli, int argc, char **argv)
{
    uint64_t to = UINT64_MAX;
    bool all = false, dry_run = false;
    const struct cli_option options[] = {
        {"to", 0, OPTION_SIZE, &to}, {"all", 0, OPTION_FLAG, &all}, {"dry-run", 'n', OPTION_FLAG, &dry_run}, {0}};
    int first;
    int status = cli_parse(cli, argc, argv, options, 0, 0, &first);
    if (status)
        return status;
    const struct qd_param params[] = {{.key = "all", .kind = QD_PARAM_BOOL, .u64 = all},
                                      {.key = "dry_run", .kind = QD_PARAM_BOOL, .u64 = dry_run},
                                      {.key = to != UINT64_MAX ? "to_bytes" : NULL, .kind = QD_PARAM_U64, .u64 = to},
                                      {0}};
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "prune", params, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    char bytes[16];
    format_bytes((uint64_t)json_integer_value(json_object_get(answer, "bytes")), bytes);
    print_table(json_object_get(answer, "artifacts"), artifact_columns, "nothing to evict");
    printf("%s %lld artifacts, %s\n", dry_run ? "would evict" : "evicted",
           (long long)json_integer_value(json_object_get(answer, "removed")), bytes);
    json_decref(answer);
    return 0;
}
