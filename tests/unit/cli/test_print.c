#include "client/cli/print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "tests/test.h"

/* A word as argv holds it: getopt does not write to it. */
#define W(text) (char *)(uintptr_t)(text)

static int ran;

static int run_nothing(struct cli *cli, int argc, char **argv)
{
    (void)cli, (void)argc, (void)argv;
    return ++ran;
}

const struct command commands[] = {{"open", "MODEL", "test", run_nothing}, {NULL, NULL, NULL, NULL}};

static void format_bytes__edges_of_units__are_rounded_up_to_the_next(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},           {1023, "1023 B"},        {1024, "1.0 KiB"},
        {1048575, "1.0 MiB"}, {5ull << 30, "5.0 GiB"}, {UINT64_MAX, "16.0 EiB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[16];
        format_bytes(cases[i].bytes, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void cli_parse__words_and_options_mixed__sorts_them_and_keeps_a_command(void **state)
{
    (void)state;
    struct cli cli = {.program = "quantctl"};
    const char *scheme = NULL;
    uint64_t to = 0;
    bool pure = false;
    const struct cli_option options[] = {
        {"scheme", 's', OPTION_TEXT, &scheme}, {"to", 0, OPTION_SIZE, &to}, {"pure", 0, OPTION_FLAG, &pure}, {0}};
    char *argv[] = {W("open"),   W("tiny"), W("--scheme"), W("q8_0"),   W("--to"), W("2G"),
                    W("--json"), W("--"),   W("cat"),      W("--pure"), W("{}"),   NULL};
    int first;
    assert_int_equal(cli_parse(&cli, 11, argv, options, 1, -1, &first), 0);
    assert_string_equal(argv[first], "tiny");
    assert_string_equal(argv[first + 1], "cat");
    assert_string_equal(argv[first + 2], "--pure"); /* belongs to the command */
    assert_string_equal(argv[first + 3], "{}");
    assert_null(argv[first + 4]);
    assert_string_equal(scheme, "q8_0");
    assert_int_equal(to, 2ull << 30);
    assert_true(cli.json);
    assert_false(pure);
}

static void cli_parse__rules__are_lines_in_the_order_given(void **state)
{
    (void)state;
    struct cli cli = {.program = "quantctl"};
    struct recipe_arguments r = {0};
    const struct cli_option options[] = {RECIPE_OPTIONS(&r), {0}};
    char *argv[] = {W("plan"), W("--keep"),         W("a=b"),
                    W("tiny"), W("--tensor"),       W("ffn=q8_0"),
                    W("-s"),   W("Q4_K"),           W("--keep"),
                    W("c"),    W("--output-type"),  W("q6_k"),
                    W("-p"),   W("--leave-output"), W("--allow-requantize"),
                    NULL};
    int first;
    assert_int_equal(cli_parse(&cli, 15, argv, options, 1, 1, &first), 0);
    assert_string_equal(argv[first], "tiny");
    assert_string_equal(r.rules, "keep=a=b\ntensor=ffn=q8_0\nkeep=c\n");
    assert_string_equal(r.scheme, "Q4_K");
    assert_string_equal(r.output, "q6_k");
    assert_null(r.embedding);
    assert_true(r.pure && r.leave_output && r.requantize);
    free(r.rules);
}

/* Runs cli_parse with stderr put away; the code it returns. */
static int parse_quietly(char **argv, int argc, const struct cli_option *options, int n_min, int n_max)
{
    struct cli cli = {.program = "quantctl"};
    int first, saved = dup(2);
    assert_non_null(freopen("/dev/null", "w", stderr));
    int r = cli_parse(&cli, argc, argv, options, n_min, n_max, &first);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    return r;
}

static void cli_parse__misuse__is_exit_code_64(void **state)
{
    (void)state;
    uint64_t to;
    uint32_t n;
    const struct cli_option options[] = {{"to", 0, OPTION_SIZE, &to}, {"n", 'n', OPTION_COUNT, &n}, {0}};
    char *unknown[] = {W("open"), W("--nonsense"), NULL};
    char *no_value[] = {W("open"), W("--to"), NULL};
    char *bad_size[] = {W("open"), W("--to"), W("12Q"), NULL};
    char *huge[] = {W("open"), W("--to"), W("99999999999T"), NULL};
    char *negative[] = {W("open"), W("-n"), W("-1"), NULL};
    char *too_many[] = {W("open"), W("a"), W("b"), NULL};
    assert_int_equal(parse_quietly(unknown, 2, options, 0, 0), 64);
    assert_int_equal(parse_quietly(no_value, 2, options, 0, 0), 64);
    assert_int_equal(parse_quietly(bad_size, 3, options, 0, 0), 64);
    assert_int_equal(parse_quietly(huge, 3, options, 0, 0), 64);
    assert_int_equal(parse_quietly(negative, 3, options, 0, 0), 64);
    assert_int_equal(parse_quietly(too_many, 3, options, 0, 1), 64);
    assert_int_equal(parse_quietly(too_many, 1, options, 1, 1), 64);
}

static void print_table__control_bytes_in_a_name__never_reach_the_terminal(void **state)
{
    (void)state;
    static const struct column columns[] = {{"NAME", "name", COLUMN_TEXT}, {NULL, NULL, COLUMN_TEXT}};
    json_t *rows = json_pack("[{s:s}]", "name", "evil\x1b[2J\nname");
    char *text = NULL;
    size_t n = 0;
    fflush(stdout);
    int saved = dup(1);
    FILE *tmp = tmpfile();
    dup2(fileno(tmp), 1);
    print_table(rows, columns, "none");
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    rewind(tmp);
    assert_true(getdelim(&text, &n, '\0', tmp) > 0);
    assert_null(strchr(text, '\x1b'));
    assert_string_equal(text, "NAME\nevil?[2J?name\n");
    free(text);
    fclose(tmp);
    json_decref(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_bytes__edges_of_units__are_rounded_up_to_the_next),
        cmocka_unit_test(cli_parse__words_and_options_mixed__sorts_them_and_keeps_a_command),
        cmocka_unit_test(cli_parse__rules__are_lines_in_the_order_given),
        cmocka_unit_test(cli_parse__misuse__is_exit_code_64),
        cmocka_unit_test(print_table__control_bytes_in_a_name__never_reach_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
