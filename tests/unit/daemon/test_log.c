#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"

/* Stderr goes to a file for the length of one call. */
static char captured[8192];
static int saved_stderr;
static FILE *capture;

static void capture_start(void)
{
    capture = tmpfile();
    assert_non_null(capture);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(dup2(fileno(capture), STDERR_FILENO) >= 0);
}

static void capture_stop(void)
{
    ssize_t n = pread(fileno(capture), captured, sizeof captured - 1, 0);
    captured[n > 0 ? n : 0] = '\0';
    assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
    (void)close(saved_stderr);
    (void)fclose(capture);
}

static void log_line__fields__are_quoted_where_they_must(void **state)
{
    (void)state;
    log_open(LOG_AT_INFO);
    capture_start();
    log_line(LOG_AT_INFO, "job", "ready%s%s%s", log_field("model", "tiny"), log_field("path", "/a b\"c"),
             log_field("none", ""));
    capture_stop();
    assert_string_equal(captured, "job: ready model=tiny path=\"/a b\\\"c\" none=\"\"\n");
}

static void log_line__control_bytes__never_reach_the_terminal(void **state)
{
    (void)state;
    log_open(LOG_AT_INFO);
    capture_start();
    log_line(LOG_AT_INFO, "watch", "%s", log_field("name", "a\033[31m\nb"));
    capture_stop();
    assert_null(strchr(captured, '\033'));
    assert_int_equal(strcspn(captured, "\n"), strlen(captured) - 1);
}

static void log_line__above_the_level__is_silent(void **state)
{
    (void)state;
    log_open(LOG_AT_WARNING);
    capture_start();
    log_line(LOG_AT_INFO, "x", "quiet");
    log_line(LOG_AT_ERROR, "x", "loud");
    capture_stop();
    assert_string_equal(captured, "x: loud\n");
}

static void log_open__stderr_is_the_journal__lines_carry_their_level(void **state)
{
    (void)state;
    capture_start();
    struct stat st;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    char stream[64];
    (void)snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
    log_open(LOG_AT_INFO);
    log_line(LOG_AT_NOTICE, "x", "hello");
    capture_stop();
    assert_string_equal(captured, "<5>x: hello\n");

    assert_int_equal(setenv("JOURNAL_STREAM", "1:1", 1), 0);
    log_open(LOG_AT_INFO);
    capture_start();
    log_line(LOG_AT_NOTICE, "x", "hello");
    capture_stop();
    assert_string_equal(captured, "x: hello\n");
}

static void log_line__value_longer_than_the_line__is_cut_and_ended(void **state)
{
    (void)state;
    char *value = malloc(10000);
    assert_non_null(value);
    memset(value, ' ', 9999);
    value[9999] = '\0';
    log_open(LOG_AT_INFO);
    capture_start();
    log_line(LOG_AT_INFO, "x", "%s%s", log_field("v", value), value);
    capture_stop();
    free(value);
    assert_true(strlen(captured) < 2200);
    assert_int_equal(captured[strlen(captured) - 1], '\n');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_line__fields__are_quoted_where_they_must),
        cmocka_unit_test(log_line__control_bytes__never_reach_the_terminal),
        cmocka_unit_test(log_line__above_the_level__is_silent),
        cmocka_unit_test(log_open__stderr_is_the_journal__lines_carry_their_level),
        cmocka_unit_test(log_line__value_longer_than_the_line__is_cut_and_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
