#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/catalog.h"
#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/pool.h"
#include "kernels/core/io.h"

enum { QUIET_MS = 60, N_HEARD = 256 };

/* A catalog over real folders in a real loop; time passes in run_for(). */
struct world {
    char folder[64];
    uv_loop_t loop;
    struct config config;
    struct config_root roots[2];
    struct daemon daemon;
    struct catalog *catalog;
    struct {
        char name[64];
        enum catalog_change change;
    } heard[N_HEARD];
    size_t n_heard;
    size_t n_found_removed; /* models that were still found while their removal was told */
};

static void on_change(const struct catalog_model *m, enum catalog_change change, void *data)
{
    struct world *w = data;
    assert_true(w->n_heard < N_HEARD);
    (void)snprintf(w->heard[w->n_heard].name, sizeof w->heard[0].name, "%s", m->name);
    w->heard[w->n_heard++].change = change;
    w->n_found_removed += change == MODEL_REMOVED && catalog_find(w->catalog, m->name);
}

static void stop_loop(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void run_for(struct world *w, unsigned ms)
{
    uv_timer_t timer;
    uv_update_time(&w->loop);
    assert_int_equal(uv_timer_init(&w->loop, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, stop_loop, ms, 0), 0);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(&w->loop, UV_RUN_NOWAIT);
}

/* Until the model has that state (or is gone, @state -1), at most 5 s. */
static const struct catalog_model *wait_state(struct world *w, const char *name, int state)
{
    for (int i = 0; i < 500; i++) {
        const struct catalog_model *m = catalog_find(w->catalog, name);
        if (state < 0 ? !m : m && (int)m->state == state)
            return m;
        run_for(w, 10);
    }
    fail_msg("'%s' never came to state %d", name, state);
    return NULL;
}

static void in_folder(const struct world *w, const char *name, char path[256])
{
    assert_true(snprintf(path, 256, "%s/%s", w->folder, name) < 256);
}

static void put(const struct world *w, const char *name, const char *text)
{
    char path[256];
    in_folder(w, name, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write_whole(fd, text, strlen(text)), 0);
    assert_int_equal(close(fd), 0);
}

static void make_folder(const struct world *w, const char *name)
{
    char path[256];
    in_folder(w, name, path);
    assert_int_equal(mkdir(path, 0755), 0);
}

static void move(const struct world *w, const char *from, const char *to)
{
    char a[256], b[256];
    in_folder(w, from, a);
    in_folder(w, to, b);
    assert_int_equal(rename(a, b), 0);
}

static size_t n_heard(const struct world *w, const char *name, enum catalog_change change)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_heard; i++)
        n += strcmp(w->heard[i].name, name) == 0 && w->heard[i].change == change;
    return n;
}

static void start(struct world *w)
{
    struct qd_error err;
    assert_int_equal(catalog_new(&w->daemon, on_change, w, &w->catalog, &err), 0);
    run_for(w, 30);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    log_open(2);
    strcpy(w->folder, "/tmp/quantd-catalog-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    make_folder(w, "a");
    make_folder(w, "b");
    for (size_t i = 0; i < 2; i++)
        assert_true(asprintf(&w->roots[i].path, "%s/%c", w->folder, (char)('a' + i)) > 0);
    w->config = (struct config){.roots = w->roots, .n_roots = 1, .quiet_ms = QUIET_MS};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->daemon = (struct daemon){.loop = &w->loop, .config = &w->config};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", w->folder);
    (void)catalog_free(w->catalog);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    int r = uv_loop_close(&w->loop);
    for (size_t i = 0; i < 2; i++)
        free(w->roots[i].path);
    free(w);
    return r | system(command);
}

static void catalog__file_at_start__is_ready_under_its_path_without_suffix(void **state)
{
    struct world *w = *state;
    make_folder(w, "a/llama");
    put(w, "a/llama/tiny.gguf", "GGUF");
    start(w);
    const struct catalog_model *m = wait_state(w, "llama/tiny", MODEL_READY);
    assert_int_equal(m->bytes, 4);
    assert_non_null(strstr(m->first_file, "/a/llama/tiny.gguf"));
    assert_int_equal(n_heard(w, "llama/tiny", MODEL_ADDED), 1);
}

static void catalog__file_old_enough_at_start__is_ready_at_the_first_scan(void **state)
{
    struct world *w = *state;
    put(w, "a/tiny.gguf", "GGUF");
    run_for(w, 2 * QUIET_MS);
    w->config.quiet_ms = QUIET_MS;
    start(w);
    assert_non_null(catalog_find(w->catalog, "tiny"));
    assert_int_equal(catalog_find(w->catalog, "tiny")->state, MODEL_READY);
}

static void catalog__file_made_later_in_a_new_nested_folder__is_found(void **state)
{
    struct world *w = *state;
    start(w);
    make_folder(w, "a/x");
    make_folder(w, "a/x/y");
    make_folder(w, "a/x/y/z");
    put(w, "a/x/y/z/m.gguf", "GGUF");
    (void)wait_state(w, "x/y/z/m", MODEL_READY);
}

static void catalog__writer_that_dribbles__is_not_ready_before_it_rests(void **state)
{
    struct world *w = *state;
    char path[256];
    in_folder(w, "a/m.gguf", path);
    start(w);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(write_whole(fd, "0123456789", 10), 0);
        run_for(w, QUIET_MS / 2);
        const struct catalog_model *m = catalog_find(w->catalog, "m");
        assert_true(!m || m->state == MODEL_SETTLING);
    }
    assert_int_equal(close(fd), 0);
    assert_int_equal(wait_state(w, "m", MODEL_READY)->bytes, 120);
    assert_int_equal(n_heard(w, "m", MODEL_ADDED), 1);
    assert_int_equal(n_heard(w, "m", MODEL_CHANGED), 0);
}

static void catalog__file_written_in_place__changes_and_raises_the_generation(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    uint64_t before = wait_state(w, "m", MODEL_READY)->generation;
    put(w, "a/m.gguf", "two");
    (void)wait_state(w, "m", MODEL_SETTLING);
    assert_true(wait_state(w, "m", MODEL_READY)->generation > before);
    assert_int_equal(n_heard(w, "m", MODEL_CHANGED), 1);
}

static void catalog__file_replaced_by_rename__changes(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    uint64_t ino = wait_state(w, "m", MODEL_READY)->stamp.ino;
    put(w, "a/.new", "two");
    move(w, "a/.new", "a/m.gguf");
    (void)wait_state(w, "m", MODEL_SETTLING);
    assert_true(wait_state(w, "m", MODEL_READY)->stamp.ino != ino);
}

static void catalog__file_renamed__leaves_and_comes(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    move(w, "a/m.gguf", "a/n.gguf");
    (void)wait_state(w, "n", MODEL_READY);
    assert_null(catalog_find(w->catalog, "m"));
    assert_int_equal(n_heard(w, "m", MODEL_REMOVED), 1);
}

static void catalog__folder_moved_within_the_root__its_models_follow_and_are_still_watched(void **state)
{
    struct world *w = *state;
    make_folder(w, "a/x");
    put(w, "a/x/m.gguf", "one");
    start(w);
    (void)wait_state(w, "x/m", MODEL_READY);
    move(w, "a/x", "a/y");
    (void)wait_state(w, "y/m", MODEL_READY);
    put(w, "a/y/m.gguf", "three");
    (void)wait_state(w, "y/m", MODEL_SETTLING);
}

static void catalog__folder_moved_out__is_watched_no_longer(void **state)
{
    struct world *w = *state;
    make_folder(w, "a/x");
    put(w, "a/x/m.gguf", "one");
    start(w);
    (void)wait_state(w, "x/m", MODEL_READY);
    move(w, "a/x", "x");
    (void)wait_state(w, "x/m", -1);
    run_for(w, 300);
    assert_false(catalog_busy(w->catalog));
    put(w, "x/m.gguf", "two");
    assert_false(catalog_busy(w->catalog));
}

static void catalog__file_deleted__is_removed(void **state)
{
    struct world *w = *state;
    char path[256];
    in_folder(w, "a/m.gguf", path);
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    assert_int_equal(unlink(path), 0);
    (void)wait_state(w, "m", -1);
    assert_int_equal(n_heard(w, "m", MODEL_REMOVED), 1);
}

static void catalog__root_not_there_at_start__is_found_when_it_comes(void **state)
{
    struct world *w = *state;
    move(w, "a", "elsewhere");
    put(w, "elsewhere/m.gguf", "one");
    start(w);
    assert_string_equal(catalog_root_at(w->catalog, 0).state, "missing");
    move(w, "elsewhere", "a");
    (void)wait_state(w, "m", MODEL_READY);
    assert_string_equal(catalog_root_at(w->catalog, 0).state, "watching");
    move(w, "a", "elsewhere");
    (void)wait_state(w, "m", -1);
    assert_string_equal(catalog_root_at(w->catalog, 0).state, "missing");
}

static void catalog__hidden_partial_and_foreign_files__are_no_models(void **state)
{
    struct world *w = *state;
    put(w, "a/.m.gguf", "x");
    put(w, "a/m.gguf.part", "x");
    put(w, "a/m.gguf.tmp", "x");
    put(w, "a/readme.txt", "x");
    put(w, "a/config.json", "{}");
    make_folder(w, "a/.git");
    put(w, "a/.git/m.gguf", "x");
    start(w);
    run_for(w, 3 * QUIET_MS);
    assert_int_equal(catalog_n(w->catalog), 0);
}

static void catalog__folder_with_model_safetensors__is_one_model(void **state)
{
    struct world *w = *state;
    make_folder(w, "a/bert");
    put(w, "a/bert/model.safetensors", "12345");
    put(w, "a/bert/config.json", "{}");
    start(w);
    const struct catalog_model *m = wait_state(w, "bert", MODEL_READY);
    assert_int_equal(m->bytes, 5);
    assert_int_equal(catalog_n(w->catalog), 1);
    uint64_t before = m->generation;
    put(w, "a/bert/config.json", "{\"a\":1}");
    (void)wait_state(w, "bert", MODEL_SETTLING);
    assert_true(wait_state(w, "bert", MODEL_READY)->generation > before);
}

static void catalog__split_parts__are_one_model_once_all_are_there(void **state)
{
    struct world *w = *state;
    put(w, "a/big-00002-of-00002.gguf", "22");
    start(w);
    run_for(w, 3 * QUIET_MS);
    assert_int_equal(catalog_find(w->catalog, "big")->state, MODEL_SETTLING);
    assert_non_null(strstr(catalog_find(w->catalog, "big")->problem, "1 of 2"));
    put(w, "a/big-00001-of-00002.gguf", "1");
    const struct catalog_model *m = wait_state(w, "big", MODEL_READY);
    assert_int_equal(m->bytes, 3);
    assert_non_null(strstr(m->first_file, "00001-of"));
    assert_int_equal(catalog_n(w->catalog), 1);
}

static void catalog__empty_file_and_fifo__are_bad_and_say_so(void **state)
{
    struct world *w = *state;
    char path[256];
    in_folder(w, "a/pipe.gguf", path);
    put(w, "a/empty.gguf", "");
    assert_int_equal(mkfifo(path, 0644), 0);
    start(w);
    assert_non_null(strstr(wait_state(w, "empty", MODEL_BAD)->problem, "empty"));
    assert_non_null(strstr(wait_state(w, "pipe", MODEL_BAD)->problem, "regular"));
}

static void catalog__symlinks__are_followed_beneath_the_root_only(void **state)
{
    struct world *w = *state;
    char path[256], target[256];
    make_folder(w, "a/blobs");
    put(w, "a/blobs/0123abcd", "GGUF");
    put(w, "secret.gguf", "GGUF");
    in_folder(w, "a/in.gguf", path);
    assert_int_equal(symlink("blobs/0123abcd", path), 0);
    in_folder(w, "a/out.gguf", path);
    in_folder(w, "secret.gguf", target);
    assert_int_equal(symlink(target, path), 0);
    in_folder(w, "a/loop", path);
    assert_int_equal(symlink(".", path), 0);
    start(w);
    (void)wait_state(w, "in", MODEL_READY);
    assert_null(catalog_find(w->catalog, "out"));
    assert_int_equal(catalog_n(w->catalog), 1);
}

static void catalog__same_name_in_two_roots__the_later_one_is_called_after_its_root(void **state)
{
    struct world *w = *state;
    w->config.n_roots = 2;
    put(w, "a/m.gguf", "in a");
    put(w, "b/m.gguf", "in the other");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    (void)wait_state(w, "b/m", MODEL_READY);
    assert_int_equal(catalog_n(w->catalog), 2);
}

static void catalog__reload_without_the_root__removes_its_models(void **state)
{
    struct world *w = *state;
    struct qd_error err;
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    w->config.n_roots = 0;
    assert_int_equal(catalog_reload(w->catalog, &err), 0);
    assert_null(catalog_find(w->catalog, "m"));
    assert_int_equal(n_heard(w, "m", MODEL_REMOVED), 1);
    w->config.n_roots = 1;
    assert_int_equal(catalog_reload(w->catalog, &err), 0);
    (void)wait_state(w, "m", MODEL_READY);
}

/* A listener that looks a name up, as rights do, must not meet models of a root that was freed a moment ago. */
static void catalog__reload_without_two_roots__finds_nothing_of_them_while_it_tells(void **state)
{
    struct world *w = *state;
    struct qd_error err;
    w->config.n_roots = 2;
    put(w, "a/m.gguf", "one");
    put(w, "b/n.gguf", "two");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    (void)wait_state(w, "n", MODEL_READY);
    w->config.n_roots = 0;
    assert_int_equal(catalog_reload(w->catalog, &err), 0);
    assert_int_equal(n_heard(w, "m", MODEL_REMOVED) + n_heard(w, "n", MODEL_REMOVED), 2);
    assert_int_equal(w->n_found_removed, 0);
}

static void catalog__refused_by_two_workers__keeps_the_first_reason(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    catalog_note(w->catalog, "m", "", "wrong magic");
    catalog_note(w->catalog, "m", "",
                 "the same, said at such length that it lies elsewhere in memory than what was said first");
    assert_string_equal(catalog_find(w->catalog, "m")->problem, "wrong magic");
}

static void catalog__worker_refused_it__is_bad_until_the_file_changes(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    catalog_note(w->catalog, "m", "gguf", "wrong magic");
    assert_string_equal(wait_state(w, "m", MODEL_BAD)->problem, "wrong magic");
    assert_string_equal(catalog_find(w->catalog, "m")->format, "gguf");
    (void)catalog_rescan(w->catalog);
    run_for(w, 300);
    assert_int_equal(catalog_find(w->catalog, "m")->state, MODEL_BAD);
    put(w, "a/m.gguf", "better");
    (void)wait_state(w, "m", MODEL_READY);
}

static void catalog__more_events_than_the_queue_holds__nothing_is_missed(void **state)
{
    struct world *w = *state;
    char path[256];
    start(w);
    in_folder(w, "a/noise.gguf", path);
    for (int i = 0; i < 9000; i++) { /* two events each; the queue holds 16384 */
        int fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_true(fd >= 0);
        assert_int_equal(close(fd), 0);
        assert_int_equal(unlink(path), 0);
    }
    put(w, "a/m.gguf", "late");
    (void)wait_state(w, "m", MODEL_READY);
    assert_null(catalog_find(w->catalog, "noise"));
}

static void catalog__replaced_a_thousand_times__ends_with_the_last(void **state)
{
    struct world *w = *state;
    start(w);
    for (int i = 0; i < 1000; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%d", i);
        put(w, "a/.new", text);
        move(w, "a/.new", "a/m.gguf");
        if (i % 100 == 0)
            run_for(w, 5);
    }
    assert_int_equal(wait_state(w, "m", MODEL_READY)->bytes, 3);
    assert_int_equal(n_heard(w, "m", MODEL_ADDED), 1);
}

static void catalog__nothing_settles__the_loop_has_no_timer(void **state)
{
    struct world *w = *state;
    put(w, "a/m.gguf", "one");
    start(w);
    (void)wait_state(w, "m", MODEL_READY);
    run_for(w, 300);
    assert_int_equal(uv_backend_timeout(&w->loop), -1);
}

static void catalog__nearest__suggests(void **state)
{
    struct world *w = *state;
    put(w, "a/stories260K.gguf", "one");
    start(w);
    (void)wait_state(w, "stories260K", MODEL_READY);
    assert_string_equal(catalog_nearest(w->catalog, "stories260"), "stories260K");
    assert_null(catalog_nearest(w->catalog, "quite-another"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(catalog__file_at_start__is_ready_under_its_path_without_suffix),
        T(catalog__file_old_enough_at_start__is_ready_at_the_first_scan),
        T(catalog__file_made_later_in_a_new_nested_folder__is_found),
        T(catalog__writer_that_dribbles__is_not_ready_before_it_rests),
        T(catalog__file_written_in_place__changes_and_raises_the_generation),
        T(catalog__file_replaced_by_rename__changes),
        T(catalog__file_renamed__leaves_and_comes),
        T(catalog__folder_moved_within_the_root__its_models_follow_and_are_still_watched),
        T(catalog__folder_moved_out__is_watched_no_longer),
        T(catalog__file_deleted__is_removed),
        T(catalog__root_not_there_at_start__is_found_when_it_comes),
        T(catalog__hidden_partial_and_foreign_files__are_no_models),
        T(catalog__folder_with_model_safetensors__is_one_model),
        T(catalog__split_parts__are_one_model_once_all_are_there),
        T(catalog__empty_file_and_fifo__are_bad_and_say_so),
        T(catalog__symlinks__are_followed_beneath_the_root_only),
        T(catalog__same_name_in_two_roots__the_later_one_is_called_after_its_root),
        T(catalog__reload_without_the_root__removes_its_models),
        T(catalog__reload_without_two_roots__finds_nothing_of_them_while_it_tells),
        T(catalog__refused_by_two_workers__keeps_the_first_reason),
        T(catalog__worker_refused_it__is_bad_until_the_file_changes),
        T(catalog__more_events_than_the_queue_holds__nothing_is_missed),
        T(catalog__replaced_a_thousand_times__ends_with_the_last),
        T(catalog__nothing_settles__the_loop_has_no_timer),
        T(catalog__nearest__suggests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
