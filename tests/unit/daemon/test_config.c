#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"
#include "kernels/core/io.h"

/* A private XDG world per test: <folder>/config/quantd/quantd.conf and its drop-ins. */
struct world {
    char folder[64];
    struct config *config;
    struct config_warning *warnings;
    size_t n_warnings;
    struct qd_error err;
};

static void put_file(const struct world *w, const char *name, const char *text)
{
    char path[256];
    assert_true(snprintf(path, sizeof path, "%s/config/quantd/%s", w->folder, name) < (int)sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write_whole(fd, text, strlen(text)), 0);
    assert_int_equal(close(fd), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    strcpy(w->folder, "/tmp/quantd-config-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    static const char *const variables[] = {"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"};
    static const char *const below[] = {"state", "cache", "run", "config"};
    char path[256];
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", w->folder, below[i]);
        assert_int_equal(setenv(variables[i], path, 1), 0);
    }
    static const char *const made[] = {"config", "config/quantd", "config/quantd/quantd.conf.d"};
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", w->folder, made[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", w->folder);
    (void)config_free(w->config);
    free(w->warnings);
    int r = system(command);
    free(w);
    return r;
}

static int load(struct world *w)
{
    return config_load(true, NULL, &w->config, &w->warnings, &w->n_warnings, &w->err);
}

static void refused(void **state, const char *text, const char *place, const char *reason)
{
    struct world *w = *state;
    put_file(w, "quantd.conf", text);
    assert_int_equal(load(w), QD_E_CONFIG);
    assert_non_null(strstr(w->err.message, place));
    assert_non_null(strstr(w->err.message, reason));
    assert_int_equal(qd_error_exit_code(w->err.code), 78);
}

static void config_load__no_file__gives_the_defaults(void **state)
{
    struct world *w = *state;
    assert_int_equal(load(w), 0);
    assert_int_equal(w->n_warnings, 0);
    assert_int_equal(w->config->quiet_ms, 1000);
    assert_int_equal(w->config->worker_memory, 256 << 20);
    assert_int_equal(w->config->backoff_max_s, 3600);
    assert_int_equal(w->config->fds_per_uid, 1024);
    assert_int_equal(w->config->log_level, 6);
    assert_true(w->config->sandbox);
    assert_int_equal(w->config->n_roots, 0);
    assert_int_equal(strncmp(w->config->socket_path, w->folder, strlen(w->folder)), 0);
    assert_non_null(strstr(w->config->socket_path, "/run/quantd/quantd.sock"));
}

static void config_load__every_kind_of_value__is_read(void **state)
{
    struct world *w = *state;
    put_file(w, "quantd.conf",
             "; a comment\n[daemon]\nlog_level = debug\nadmins = root 4242\ncpu = -avx512vnni, -i8mm\n[cache]\n  "
             "budget=20G\nscrub = 7d\n"
             "[jobs]\nsandbox=off\nleave_grace = 1500ms\n\n[root main]\npath=/srv/models/\nallow = all user:root, "
             "group:0\nrescan=5min\nwarm=q8_0\n");
    assert_int_equal(load(w), 0);
    struct config *c = w->config;
    assert_int_equal(c->log_level, 7);
    assert_int_equal(c->n_admin_uids, 2);
    assert_int_equal(c->admin_uids[1], 4242);
    assert_int_equal(c->cache_budget, 20ull << 30);
    assert_int_equal(c->scrub_h, 168);
    assert_int_equal(c->repack_h, 30 * 24);
    assert_string_equal(c->cpu, "-avx512vnni, -i8mm");
    assert_false(c->sandbox);
    assert_int_equal(c->leave_grace_ms, 1500);
    assert_int_equal(c->n_roots, 1);
    assert_string_equal(c->roots[0].path, "/srv/models");
    assert_true(c->roots[0].grant_all);
    assert_int_equal(c->roots[0].n_uids, 1);
    assert_int_equal(c->roots[0].n_gids, 1);
    assert_int_equal(c->roots[0].rescan_s, 300);
    assert_string_equal(c->roots[0].warm, "q8_0");
    assert_int_equal(w->n_warnings, 0);
}

static void config_load__unknown_key__is_a_warning_with_the_nearest(void **state)
{
    struct world *w = *state;
    put_file(w, "quantd.conf", "[cache]\nbudgett = 1G\n");
    assert_int_equal(load(w), 0);
    assert_int_equal(w->n_warnings, 1);
    assert_non_null(strstr(w->warnings[0].text, "quantd.conf:2"));
    assert_non_null(strstr(w->warnings[0].text, "'budget'"));
}

static void config_load__unknown_section__is_a_warning_with_the_nearest(void **state)
{
    struct world *w = *state;
    put_file(w, "quantd.conf", "[chache]\nbudget = 1G\n");
    assert_int_equal(load(w), 0);
    assert_int_equal(w->n_warnings, 1);
    assert_non_null(strstr(w->warnings[0].text, "'cache'"));
    assert_int_equal(w->config->cache_budget, 0);
}

static void config_load__bad_size__says_file_and_line(void **state)
{
    refused(state, "[cache]\n\nbudget = 20 parsecs\n", "quantd.conf:3", "bytes such as");
}

static void config_load__size_beyond_64_bits__is_refused(void **state)
{
    refused(state, "[cache]\nbudget = 99999999999T\n", "quantd.conf:2", "bytes such as");
}

static void config_load__duration_without_unit__is_refused(void **state)
{
    refused(state, "[watch]\nquiet = 5\n", "quantd.conf:2", "duration");
}

static void config_load__unknown_user__is_refused(void **state)
{
    refused(state, "[root r]\npath=/x\nallow=user:no-such-user-here\n", "quantd.conf:3", "user:NAME");
}

static void config_load__unknown_scheme_to_warm__is_refused(void **state)
{
    refused(state, "[root r]\npath=/x\nwarm=q9_9\n", "quantd.conf:3", "scheme");
}

static void config_load__relative_root__is_refused(void **state)
{
    refused(state, "[root r]\npath=models\n", "quantd.conf:2", "absolute");
}

static void config_load__root_without_path__says_where_it_stands(void **state)
{
    refused(state, "[jobs]\nthreads=1\n[root r]\nallow=all\n", "quantd.conf:4", "no path");
}

static void config_load__line_that_is_nothing__says_file_and_line(void **state)
{
    refused(state, "[jobs]\nthreads=1\nwhat is this\n", "quantd.conf:3", "neither");
}

static void config_load__line_too_long__says_file_and_line(void **state)
{
    char text[600] = "[root r]\npath=/";
    memset(text + strlen(text), 'x', 500);
    refused(state, text, "quantd.conf:2", "longer");
}

static void config_load__dropins__win_in_name_order(void **state)
{
    struct world *w = *state;
    put_file(w, "quantd.conf", "[jobs]\nthreads = 1\nat_once = 1\n");
    put_file(w, "quantd.conf.d/20-b.conf", "[jobs]\nthreads = 3\n[root a]\npath=/b\n");
    put_file(w, "quantd.conf.d/10-a.conf", "[jobs]\nthreads = 2\n[root a]\npath=/a\nallow=all\n");
    put_file(w, "quantd.conf.d/30-c.conf~", "[jobs]\nthreads = nonsense\n");
    assert_int_equal(load(w), 0);
    assert_int_equal(w->config->threads, 3);
    assert_int_equal(w->config->jobs_max, 1);
    assert_int_equal(w->config->n_roots, 1);
    assert_string_equal(w->config->roots[0].path, "/b");
    assert_true(w->config->roots[0].grant_all);
}

static void config_load__extra_file_missing__is_refused(void **state)
{
    struct world *w = *state;
    assert_int_equal(config_load(true, "/no/such/file.conf", &w->config, &w->warnings, &w->n_warnings, &w->err),
                     QD_E_CONFIG);
    assert_non_null(strstr(w->err.message, "/no/such/file.conf"));
}

static void config_load__no_runtime_folder__says_which_variable(void **state)
{
    struct world *w = *state;
    assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
    assert_int_equal(load(w), QD_E_CONFIG);
    assert_non_null(strstr(w->err.message, "XDG_RUNTIME_DIR"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(config_load__no_file__gives_the_defaults),
        T(config_load__every_kind_of_value__is_read),
        T(config_load__unknown_key__is_a_warning_with_the_nearest),
        T(config_load__unknown_section__is_a_warning_with_the_nearest),
        T(config_load__bad_size__says_file_and_line),
        T(config_load__size_beyond_64_bits__is_refused),
        T(config_load__duration_without_unit__is_refused),
        T(config_load__unknown_user__is_refused),
        T(config_load__unknown_scheme_to_warm__is_refused),
        T(config_load__relative_root__is_refused),
        T(config_load__root_without_path__says_where_it_stands),
        T(config_load__line_that_is_nothing__says_file_and_line),
        T(config_load__line_too_long__says_file_and_line),
        T(config_load__dropins__win_in_name_order),
        T(config_load__extra_file_missing__is_refused),
        T(config_load__no_runtime_folder__says_which_variable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
