/* quantd --user end to end: real models, real workers, real descriptors. */
#include "tests/integration/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "artifact/envelope.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

static int setup(void **state)
{
    *state = harness_serving_tiny("[jobs]\nthreads = 1\nleave_grace = 100ms\n");
    return 0;
}

static void open_ok(int fd, const char *model, const char *scheme, struct msg_opened *ret, struct packet *packet)
{
    struct qd_error err;
    if (harness_open(fd, model, scheme, ret, packet, &err) < 0)
        fail_msg("open %s %s: %s (%s)", model, scheme, err.message, err.hint);
}

static void refused(int fd, const struct msg_open *m, int code, const char *reason, const char *hint)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet packet = {0};
    struct qd_error err = {0};
    assert_int_equal(harness_call(fd, "open", MESSAGE(open, m), &in, &packet, &err), code);
    if (!strstr(err.message, reason) || !strstr(err.hint, hint))
        fail_msg("said '%s' (%s)", err.message, err.hint);
}

static void open__first_time__is_built_then_comes_from_the_cache(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet a = {0}, b = {0};
    struct msg_opened first, second;
    struct stat sa, sb;
    char magic[4];
    open_ok(fd, "tiny", "q8_0", &first, &a);
    open_ok(fd, "tiny", "q8_0", &second, &b);
    assert_true(first.built);
    assert_false(second.built);
    assert_int_equal(a.n_fds, first.n_files + 1);
    assert_int_equal(b.n_fds, a.n_fds);
    assert_int_equal(fstat(a.fds[1], &sa) | fstat(b.fds[1], &sb), 0);
    assert_int_equal(sa.st_ino, sb.st_ino);
    assert_int_equal(pread(a.fds[1], magic, 4, 0), 4);
    assert_memory_equal(magic, "GGUF", 4);
}

static void open__served_descriptors__cannot_be_written(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_opened m;
    open_ok(fd, "tiny", "q8_0", &m, &p);
    for (size_t i = 0; i < p.n_fds; i++) {
        assert_int_equal(write(p.fds[i], "x", 1), -1);
        assert_int_equal(ftruncate(p.fds[i], 0), -1);
    }
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", p.fds[0]);
    int again = open(path, O_RDWR); /* the envelope is sealed: even its owner cannot */
    if (again >= 0)
        assert_int_equal(write(again, "x", 1), -1);
    (void)fd_close(again);
}

static void open__while_it_builds__progress_comes_first(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    struct msg_open m = {.model = "tiny", .scheme = "q4_0"};
    unsigned n_progress = 0;
    harness_request(fd, 7, "open", MESSAGE(open, &m), NULL, 0);
    for (bool done = false; !done;) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        assert_true(harness_receive(fd, &in, &p));
        n_progress += in.kind == INCOMING_EVENT && strcmp(in.name, "progress") == 0;
        done = in.kind == INCOMING_REPLY;
        assert_false(in.failed);
    }
    assert_true(n_progress >= 2);
}

static void open__two_clients_ask_at_once__one_job_serves_both(void **state)
{
    CLEANUP(fd_close) int a = harness_hello(*state);
    CLEANUP(fd_close) int b = harness_hello(*state);
    struct msg_open m = {.model = "tiny", .scheme = "bf16"};
    harness_request(a, 1, "open", MESSAGE(open, &m), NULL, 0);
    harness_request(b, 2, "open", MESSAGE(open, &m), NULL, 0);
    const int fds[] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        for (bool done = false; !done;) {
            CLEANUP(incoming_clear) struct incoming in = {0};
            CLEANUP(packet_clear) struct packet p = {0};
            assert_true(harness_receive(fds[i], &in, &p));
            done = in.kind == INCOMING_REPLY;
            assert_false(in.failed);
        }
    }
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_artifact_list list;
    struct qd_error err;
    assert_int_equal(harness_call(a, "artifacts", MESSAGE(page, &(struct msg_page){0}), &in, &p, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(artifact_list, &list), &err), 0);
    assert_int_equal(list.artifacts_n, 1);
}

static void open__by_descriptor__needs_no_name(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(fd_close) int source = open(harness_path(h, "models/tiny.gguf"), O_RDONLY | O_CLOEXEC);
    struct msg_open m = {.by_fd = true, .scheme = "q8_0"};
    harness_request(fd, 5, "open", MESSAGE(open, &m), &source, 1);
    for (bool done = false; !done;) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        struct qd_error err = {0};
        assert_true(harness_receive(fd, &in, &p));
        done = in.kind == INCOMING_REPLY;
        if (in.failed)
            fail_msg("%s", (incoming_error(&in, &err), err.message));
        assert_true(!done || p.n_fds >= 2);
    }
}

static void open__by_descriptor_of_no_file__is_refused(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    int pipes[2], write_only;
    assert_int_equal(pipe(pipes), 0);
    write_only = open(harness_path(*state, "models/tiny.gguf"), O_WRONLY | O_CLOEXEC);
    const int bad[] = {pipes[0], write_only};
    static const int codes[] = {QD_E_INVALID, QD_E_DENIED};
    struct msg_open m = {.by_fd = true, .scheme = "q8_0"};
    for (size_t i = 0; i < 2; i++) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        struct qd_error err = {0};
        harness_request(fd, 5, "open", MESSAGE(open, &m), &bad[i], 1);
        assert_true(harness_receive(fd, &in, &p));
        assert_int_equal(incoming_error(&in, &err), codes[i]);
    }
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    (void)close(write_only);
}

static void open__mistakes__are_answered_with_the_next_step(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    refused(fd, &(struct msg_open){.model = "tinny", .scheme = "q8_0"}, QD_E_NOT_FOUND, "no model 'tinny'", "'tiny'");
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_O"}, QD_E_INVALID, "q8_O", "q8_0");
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "f16", .no_build = true}, QD_E_NOT_FOUND,
            "not in the cache", "no_build");
    refused(fd, &(struct msg_open){.model = "tiny", .layout = "odd"}, QD_E_INVALID, "layout 'odd'", "native");
    refused(fd, &(struct msg_open){.scheme = "f16"}, QD_E_INVALID, "neither", "");
}

static void open__name_that_is_just_being_written__waits_for_it(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_opened m;
    harness_copy_model(h, "tiny-kjv.gguf", "late.gguf");
    open_ok(fd, "late", "q8_0", &m, &p); /* no wait for "ready" in between */
}

static void open__file_that_is_no_model__says_why_and_is_bad_in_the_catalog(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    harness_write(harness_path(h, "models/pickle.gguf"), "\x80\x02}q\x01X\x05", 8);
    harness_wait_model(h, "pickle", "ready");
    refused(fd, &(struct msg_open){.model = "pickle", .scheme = "q8_0"}, QD_E_UNSUPPORTED, "pickle", "");
    harness_wait_model(h, "pickle", "bad");
}

static void open__source_replaced__gets_the_new_content(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet a = {0}, b = {0};
    struct msg_opened first, second;
    struct stat sa, sb;
    open_ok(fd, "tiny", "q8_0", &first, &a);
    int file = open(harness_path(h, "models/tiny.gguf"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(lseek(file, -64, SEEK_END) < 0, 0);
    assert_int_equal(write(file, "\x01\x02\x03\x04", 4), 4);
    assert_int_equal(close(file), 0);
    open_ok(fd, "tiny", "q8_0", &second, &b);
    assert_true(second.built);
    assert_int_equal(fstat(a.fds[1], &sa) | fstat(b.fds[1], &sb), 0);
    assert_int_not_equal(sa.st_ino, sb.st_ino);
}

static void flip_byte(const struct packet *p, size_t i)
{
    char path[64], real[512], byte;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", p->fds[i]);
    ssize_t n = readlink(path, real, sizeof real - 1);
    assert_true(n > 0);
    real[n] = '\0';
    assert_int_equal(chmod(real, 0644), 0);
    int fd = open(real, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 5000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
    assert_int_equal(close(fd), 0);
}

static void open__artifact_was_damaged__is_built_again(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet a = {0}, b = {0};
    struct msg_opened m;
    open_ok(fd, "tiny", "q8_0", &m, &a);
    flip_byte(&a, 1);
    open_ok(fd, "tiny", "q8_0", &m, &b);
    assert_true(m.built);
    assert_true(harness_log_has(h, "damaged artifact"));
}

static void verify__damaged_artifact__is_reported_and_built_again(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet a = {0}, p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_opened m;
    struct msg_verified v;
    struct qd_error err;
    open_ok(fd, "tiny", "q8_0", &m, &a);
    flip_byte(&a, 1);
    assert_int_equal(harness_call(fd, "verify", MESSAGE(verify, &(struct msg_verify){0}), &in, &p, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(verified, &v), &err), 0);
    assert_int_equal(v.checked, 1);
    assert_int_equal(v.problems_n, 1);
    assert_int_equal(v.rebuilding, 1);
    assert_non_null(strstr(v.problems[0].what, "tiny:q8_0"));
    harness_wait_log(h, "artifact ready");
}

/* An open that tells the daemon which envelope the caller has. */
static void open_having(int fd, struct bytes have, struct msg_opened *ret, struct packet *packet)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_open params = {.model = "tiny", .scheme = "q8_0", .have = have};
    struct qd_error err;
    assert_int_equal(harness_call(fd, "open", MESSAGE(open, &params), &in, packet, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(opened, ret), &err), 0);
}

static void open__by_one_who_has_the_envelope__brings_the_payload_alone(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet all = {0}, payload = {0}, other = {0};
    uint8_t raw[ENVELOPE_BYTES_MAX];
    struct digest print;
    struct msg_opened m;
    struct stat first, again;
    open_ok(fd, "tiny", "q8_0", &m, &all);
    ssize_t n = pread_whole(all.fds[0], raw, sizeof raw, 0);
    assert_true(n > 0);
    assert_int_equal(envelope_print((struct bytes){raw, (size_t)n}, &print, NULL), 0);

    open_having(fd, (struct bytes){print.bytes, DIGEST_BYTES}, &m, &payload);
    assert_true(m.payload_only);
    assert_int_equal(payload.n_fds, 1);
    assert_int_equal(fstat(all.fds[1], &first), 0);
    assert_int_equal(fstat(payload.fds[0], &again), 0);
    assert_int_equal(first.st_ino, again.st_ino);

    print.bytes[0] ^= 1;
    open_having(fd, (struct bytes){print.bytes, DIGEST_BYTES}, &m, &other);
    assert_false(m.payload_only);
    assert_int_equal(other.n_fds, all.n_fds);
}

static void open__in_strict_mode__checks_and_answers(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet a = {0}, p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_opened m;
    struct qd_error err;
    open_ok(fd, "tiny", "q8_0", &m, &a);
    struct msg_open strict = {.model = "tiny", .scheme = "q8_0", .strict = true};
    assert_int_equal(harness_call(fd, "open", MESSAGE(open, &strict), &in, &p, &err), 0);
    assert_true(p.n_fds >= 2);
}

static void plan__before_anything_is_built__tells_every_tensor(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0}, more = {0};
    struct msg_planned m;
    struct qd_error err = {0};
    struct msg_plan ask = {.model = "tiny", .scheme = "q4_0"};
    if (harness_call(fd, "plan", MESSAGE(plan, &ask), &in, &p, &err) < 0)
        fail_msg("plan: %s", err.message);
    assert_int_equal(incoming_decode(&in, INTO(planned, &m), &err), 0);
    assert_string_equal(m.scheme, "q4_0");
    assert_true(m.n_tensors > 10 && m.tensors_n == m.n_tensors);
    ask.has_from = true;
    ask.from = m.n_tensors - 1;
    assert_int_equal(harness_call(fd, "plan", MESSAGE(plan, &ask), &more, &p, &err), 0);
    assert_int_equal(incoming_decode(&more, INTO(planned, &m), &err), 0);
    assert_int_equal(m.tensors_n, 1);
}

static void show__artifact__has_tensors_with_quality(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet a = {0}, p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0}, missing = {0};
    struct msg_opened opened;
    struct msg_shown m;
    struct qd_error err = {0};
    open_ok(fd, "tiny", "q8_0", &opened, &a);
    struct msg_show ask = {.artifact = "tiny:q8_0"};
    if (harness_call(fd, "show", MESSAGE(show, &ask), &in, &p, &err) < 0)
        fail_msg("show: %s", err.message);
    assert_int_equal(incoming_decode(&in, INTO(shown, &m), &err), 0);
    assert_int_equal(m.artifacts_n, 1);
    assert_string_equal(m.artifacts[0].model, "tiny");
    assert_true(m.n_tensors > 10 && m.tensors_n == m.n_tensors);
    ask.artifact = "tiny:q4_0";
    assert_int_equal(harness_call(fd, "show", MESSAGE(show, &ask), &missing, &p, &err), QD_E_NOT_FOUND);
}

static int simple(int fd, const char *method, const char *artifact)
{
    CLEANUP(packet_clear) struct packet p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct qd_error err;
    struct msg_which m = {.artifact = artifact};
    return harness_call(fd, method, MESSAGE(which, &m), &in, &p, &err);
}

static uint32_t pruned(int fd)
{
    CLEANUP(packet_clear) struct packet p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct qd_error err;
    struct msg_pruned m;
    assert_int_equal(harness_call(fd, "prune", MESSAGE(prune, &(struct msg_prune){.all = true}), &in, &p, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(pruned, &m), &err), 0);
    return m.removed;
}

static void pinned_artifact__survives_prune_until_unpinned(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(packet_clear) struct packet a = {0};
    struct msg_opened opened;
    open_ok(fd, "tiny", "q8_0", &opened, &a);
    packet_reset(&a);
    assert_int_equal(simple(fd, "pin", "tiny:q8_0"), 0);
    assert_int_equal(pruned(fd), 0);
    assert_int_equal(simple(fd, "remove", "tiny:q8_0"), QD_E_BUSY);
    assert_int_equal(simple(fd, "unpin", "tiny:q8_0"), 0);
    assert_int_equal(pruned(fd), 1);
    assert_int_equal(simple(fd, "remove", "tiny:q8_0"), QD_E_NOT_FOUND);
}

static void subscriber__hears_of_models_jobs_and_artifacts(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int listener = harness_hello(h);
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet a = {0}, p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct qd_error err;
    struct msg_opened opened;
    assert_int_equal(
        harness_call(listener, "subscribe", MESSAGE(subscribe, &(struct msg_subscribe){.jobs = true}), &in, &p, &err),
        0);
    open_ok(fd, "tiny", "q8_0", &opened, &a);
    assert_int_equal(unlink(harness_path(h, "models/tiny.gguf")), 0);
    bool job = false, artifact = false, model = false;
    while (!job || !artifact || !model) {
        CLEANUP(incoming_clear) struct incoming event = {0};
        CLEANUP(packet_clear) struct packet packet = {0};
        assert_true(harness_receive(listener, &event, &packet));
        job |= strcmp(event.name, "job_changed") == 0;
        artifact |= strcmp(event.name, "artifact_changed") == 0;
        model |= strcmp(event.name, "model_changed") == 0;
    }
}

static void client_vanishes_while_it_waits__the_next_one_is_served(void **state)
{
    struct harness *h = *state;
    struct msg_open m = {.model = "tiny", .scheme = "f16"};
    for (int i = 0; i < 10; i++) {
        int gone = harness_hello(h);
        harness_request(gone, 1, "open", MESSAGE(open, &m), NULL, 0);
        (void)close(gone);
    }
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(packet_clear) struct packet p = {0};
    struct msg_opened opened;
    open_ok(fd, "tiny", "f16", &opened, &p);
}

static void restart__what_was_built__is_served_from_the_cache(void **state)
{
    struct harness *h = *state;
    CLEANUP(packet_clear) struct packet a = {0}, b = {0};
    struct msg_opened m;
    int fd = harness_hello(h);
    open_ok(fd, "tiny", "q8_0", &m, &a);
    (void)close(fd);
    harness_kill(h);
    harness_start(h);
    fd = harness_hello(h);
    open_ok(fd, "tiny", "q8_0", &m, &b);
    assert_false(m.built);
    (void)close(fd);
}

static void damaged_key__signing_stops_and_the_cache_is_served_on(void **state)
{
    struct harness *h = *state;
    CLEANUP(packet_clear) struct packet a = {0}, b = {0}, p = {0};
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_opened m;
    struct msg_status_report report;
    struct qd_error err;
    int fd = harness_hello(h);
    open_ok(fd, "tiny", "q8_0", &m, &a);
    (void)close(fd);
    assert_int_equal(harness_stop(h), 0);
    int key = open(harness_path(h, "state/quantd/quantd.key"), O_RDWR | O_CLOEXEC);
    char byte; /* flipped, not set: a set one is right once in a while */
    assert_int_equal(pread(key, &byte, 1, 40), 1);
    byte ^= 1;
    assert_int_equal(pwrite(key, &byte, 1, 40), 1);
    assert_int_equal(close(key), 0);
    harness_start(h);
    harness_wait_model(h, "tiny", "ready");
    fd = harness_hello(h);
    assert_int_equal(harness_call(fd, "status", MESSAGE(nothing, &(struct msg_nothing){}), &in, &p, &err), 0);
    assert_int_equal(incoming_decode(&in, INTO(status_report, &report), &err), 0);
    assert_string_equal(report.state, "signing-stopped");
    open_ok(fd, "tiny", "q8_0", &m, &b);
    assert_false(m.built);
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q4_0"}, QD_E_UNAVAILABLE, "signing is stopped",
            "status");
    (void)close(fd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        T(open__first_time__is_built_then_comes_from_the_cache),
        T(open__served_descriptors__cannot_be_written),
        T(open__while_it_builds__progress_comes_first),
        T(open__two_clients_ask_at_once__one_job_serves_both),
        T(open__by_descriptor__needs_no_name),
        T(open__by_descriptor_of_no_file__is_refused),
        T(open__mistakes__are_answered_with_the_next_step),
        T(open__name_that_is_just_being_written__waits_for_it),
        T(open__file_that_is_no_model__says_why_and_is_bad_in_the_catalog),
        T(open__source_replaced__gets_the_new_content),
        T(open__artifact_was_damaged__is_built_again),
        T(open__by_one_who_has_the_envelope__brings_the_payload_alone),
        T(open__in_strict_mode__checks_and_answers),
        T(verify__damaged_artifact__is_reported_and_built_again),
        T(plan__before_anything_is_built__tells_every_tensor),
        T(show__artifact__has_tensors_with_quality),
        T(pinned_artifact__survives_prune_until_unpinned),
        T(subscriber__hears_of_models_jobs_and_artifacts),
        T(client_vanishes_while_it_waits__the_next_one_is_served),
        T(restart__what_was_built__is_served_from_the_cache),
        T(damaged_key__signing_stops_and_the_cache_is_served_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
