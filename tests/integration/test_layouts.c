/* quantd --user and packed layouts: what an open waits for, what it is served meanwhile, what a crash leaves behind. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/envelope.h"
#include "artifact/manifest.h"
#include "artifact/tables.h"
#include "cache/sign.h"
#include "cache/store.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/layout/packed.h"
#include "tests/integration/big_model.h"
#include "tests/integration/harness.h"

enum { N_KILLS = 12 };

static enum qd_layout native;

static const char *native_name(void)
{
    return qd_layout_info(native)->name;
}

static int setup(void **state)
{
    *state = harness_serving_tiny("[jobs]\nthreads = 1\nleave_grace = 100ms\nbackoff = 1s\n");
    return 0;
}

static int setup_big(void **state)
{
    struct harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_prepare(h, "[jobs]\nthreads = 2\nbackoff = 0\n");
    big_model_write(harness_path(h, "models/big.gguf"), 1);
    harness_start(h);
    harness_wait_model(h, "big", "ready");
    *state = h;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------- */

struct served {
    struct packet packet;
    bool built;
    char key[DIGEST_HEX_BYTES], layout[16], why[512];
};

static void served_clear_cleanup(struct served *s)
{
    packet_clear(&s->packet);
}

static int try_open(int fd, const struct msg_open *m, struct served *ret, struct qd_error *err)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    struct msg_opened opened;
    packet_clear(&ret->packet);
    int r = harness_call(fd, "open", MESSAGE(open, m), &in, &ret->packet, err);
    if (r < 0)
        return r;
    assert_int_equal(incoming_decode(&in, INTO(opened, &opened), err), 0);
    ret->built = opened.built;
    (void)snprintf(ret->key, sizeof ret->key, "%s", opened.key);
    (void)snprintf(ret->layout, sizeof ret->layout, "%s", opened.layout ? opened.layout : "");
    (void)snprintf(ret->why, sizeof ret->why, "%s", opened.why ? opened.why : "");
    return 0;
}

static void open_in(int fd, const char *model, const char *scheme, const char *layout, struct served *ret)
{
    struct qd_error err = {0};
    if (try_open(fd, &(struct msg_open){.model = model, .scheme = scheme, .layout = layout}, ret, &err) < 0)
        fail_msg("open %s %s %s: %s (%s)", model, scheme, layout ? layout : "portable", err.message, err.hint);
}

static void refused(int fd, const struct msg_open *m, int code, const char *reason, const char *hint)
{
    CLEANUP(served_clear) struct served s = {0};
    struct qd_error err = {0};
    assert_int_equal(try_open(fd, m, &s, &err), code);
    if (!strstr(err.message, reason) || !strstr(err.hint, hint))
        fail_msg("said '%s' (%s)", err.message, err.hint);
}

static void remove_artifact(int fd, const char *name)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet reply = {0};
    struct qd_error err = {0};
    struct msg_which which = {.artifact = name};
    int r = harness_call(fd, "remove", MESSAGE(which, &which), &in, &reply, &err);
    if (r < 0 && r != QD_E_NOT_FOUND)
        fail_msg("remove %s: %s (%s)", name, err.message, err.hint);
}

static size_t count_in_log(const struct harness *h, const char *text)
{
    char command[512];
    size_t n = 0;
    (void)snprintf(command, sizeof command, "grep -c -- '%s' %s", text, h->log);
    FILE *f = popen(command, "r");
    assert_int_equal(fscanf(f, "%zu", &n), 1);
    (void)pclose(f);
    return n;
}

/* ---- what was served -------------------------------------------------------------------------- */

/* An artifact as a client sees it. */
struct seen {
    struct arena *arena;
    struct manifest manifest;
    struct tensor_table table;
    const uint8_t *payload;
    uint64_t payload_bytes;
};

static void seen_clear_cleanup(struct seen *s)
{
    if (s->payload)
        (void)munmap((void *)(uintptr_t)s->payload, s->payload_bytes);
    (void)arena_free(s->arena);
}

static struct bytes read_all(struct arena *arena, int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *raw = arena_alloc(arena, (size_t)st.st_size + 1, 1);
    assert_non_null(raw);
    assert_int_equal(pread_whole(fd, raw, (size_t)st.st_size, 0), st.st_size);
    return (struct bytes){raw, (size_t)st.st_size};
}

static void look_at(const struct served *s, struct seen *ret)
{
    struct envelope e;
    struct qd_error err;
    ret->arena = arena_new(64 << 20);
    assert_int_equal(envelope_decode(read_all(ret->arena, s->packet.fds[0]), &e, &err), 0);
    assert_int_equal(manifest_decode(e.manifest, ret->arena, &ret->manifest, &err), 0);
    const struct manifest *m = &ret->manifest;
    ret->payload_bytes = m->files[0].bytes;
    void *map = mmap(NULL, ret->payload_bytes, PROT_READ, MAP_SHARED, s->packet.fds[1], 0);
    assert_true(map != MAP_FAILED);
    ret->payload = map;
    const struct manifest_file *t = manifest_file(m, MANIFEST_TENSORS);
    assert_int_equal(tensor_table_decode(read_all(ret->arena, s->packet.fds[1 + (t - m->files)]), &ret->payload_bytes,
                                         1, ret->arena, &ret->table, &err),
                     0);
}

/* Row groups of @packed, unpacked, are the rows of @portable. */
static void assert_same_matrix(enum qd_layout layout, const struct tensor_entry *t, const uint8_t *packed,
                               const uint8_t *portable)
{
    uint64_t n_rows = t->shape[1], n_blocks = t->shape[0] / qd_type_info(t->type)->block_elements;
    uint64_t group_rows = qd_layout_info(layout)->rows, row_bytes = t->bytes / n_rows;
    uint8_t *rows = malloc(group_rows * row_bytes);
    for (uint64_t r = 0; r + group_rows <= n_rows; r += group_rows) {
        layout_unpack_group(ops_native(), layout, t->type, rows, packed + r * row_bytes, n_blocks);
        assert_memory_equal(rows, portable + r * row_bytes, group_rows * row_bytes);
    }
    uint64_t left = n_rows % group_rows * row_bytes;
    assert_memory_equal(packed + t->bytes - left, portable + t->bytes - left, left);
    free(rows);
}

static void assert_packed_from(const struct seen *packed, const struct seen *portable, enum qd_layout layout)
{
    unsigned n_packed = 0;
    assert_string_equal(packed->manifest.layout, qd_layout_info(layout)->name);
    assert_string_equal(packed->manifest.features, layout_features(layout));
    assert_string_equal(packed->manifest.recipe, portable->manifest.recipe);
    assert_true(packed->manifest.quality.sqnr_db == portable->manifest.quality.sqnr_db);
    assert_int_equal(packed->table.n, portable->table.n);
    for (size_t i = 0; i < packed->table.n; i++) {
        const struct tensor_entry *t = &packed->table.tensors[i], *from = &portable->table.tensors[i];
        const uint8_t *data = packed->payload + t->offset, *from_data = portable->payload + from->offset;
        assert_string_equal(t->name, from->name);
        assert_int_equal(t->bytes, from->bytes);
        if (layout_packs(layout, t->type, t->shape[1]))
            assert_same_matrix(layout, t, data, from_data);
        else
            assert_memory_equal(data, from_data, t->bytes);
        n_packed += layout_packs(layout, t->type, t->shape[1]);
    }
    assert_true(n_packed > 0);
}

/* ---- tests: the good way ------------------------------------------------------------------------- */

static void open__native__builds_both_and_comes_from_the_cache_next_time(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served a = {0}, b = {0}, c = {0};
    open_in(fd, "tiny", "q8_0", "native", &a);
    open_in(fd, "tiny", "q8_0", "native", &b);
    open_in(fd, "tiny", "q8_0", NULL, &c);
    assert_true(a.built);
    assert_false(b.built || c.built);
    assert_string_equal(a.layout, native_name());
    assert_string_equal(a.key, b.key);
    assert_string_equal(c.layout, "portable");
    assert_non_null(strstr(a.why, layout_features(native)));
    assert_null(strstr(c.why, "layout"));
}

static void open__each_layout_of_this_cpu__holds_the_bytes_of_the_portable_one(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    static const char *const schemes[] = {"q8_0", "q4_0", "q4_k_m"};
    for (size_t s = 0; s < 3; s++) {
        CLEANUP(served_clear) struct served portable = {0};
        CLEANUP(seen_clear) struct seen from = {0};
        open_in(fd, "tiny", schemes[s], NULL, &portable);
        look_at(&portable, &from);
        for (int l = QD_LAYOUT_PORTABLE + 1; l < QD_N_LAYOUTS; l++) {
            CLEANUP(served_clear) struct served packed = {0};
            CLEANUP(seen_clear) struct seen seen = {0};
            if (layout_needs((enum qd_layout)l) & ~cpu_features())
                continue;
            open_in(fd, "tiny", schemes[s], qd_layout_info((enum qd_layout)l)->name, &packed);
            look_at(&packed, &seen);
            assert_packed_from(&seen, &from, (enum qd_layout)l);
        }
    }
}

static void open__two_clients_for_native__one_job_packs_for_both(void **state)
{
    CLEANUP(fd_close) int a = harness_hello(*state);
    CLEANUP(fd_close) int b = harness_hello(*state);
    char packed[64];
    struct msg_open m = {.model = "tiny", .scheme = "q4_0", .layout = "native"};
    harness_request(a, 1, "open", MESSAGE(open, &m), NULL, 0);
    harness_request(b, 2, "open", MESSAGE(open, &m), NULL, 0);
    const int fds[] = {a, b};
    for (size_t i = 0; i < 2; i++)
        for (bool done = false; !done;) {
            CLEANUP(incoming_clear) struct incoming in = {0};
            CLEANUP(packet_clear) struct packet p = {0};
            assert_true(harness_receive(fds[i], &in, &p));
            done = in.kind == INCOMING_REPLY;
            assert_false(in.failed);
        }
    (void)snprintf(packed, sizeof packed, "job: running.*layout=%s", native_name());
    assert_int_equal(count_in_log(*state, packed), 1);
    assert_int_equal(count_in_log(*state, "job: running"), 2);
}

static void open__auto__is_served_portable_at_once_and_packed_later(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(served_clear) struct served s = {0};
    char ready[64];
    open_in(fd, "tiny", "q8_0", "auto", &s);
    assert_string_equal(s.layout, "portable");
    assert_non_null(strstr(s.why, "for now"));
    (void)snprintf(ready, sizeof ready, "artifact ready model=tiny scheme=q8_0 layout=%s", native_name());
    harness_wait_log(h, ready);
    open_in(fd, "tiny", "q8_0", "auto", &s);
    assert_string_equal(s.layout, native_name());
    assert_false(s.built);
    assert_int_equal(count_in_log(h, "job: running"), 2);
}

/* The loop of a client that wants the best there is; the one job that it causes is not asked for again and again. */
static void open__auto_again_and_again_while_it_is_packed__costs_one_job(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(served_clear) struct served s = {0};
    unsigned n = 0;
    do
        open_in(fd, "big", "q8_0", "auto", &s);
    while (strcmp(s.layout, "portable") == 0 && ++n < 1000000);
    print_message("# %u times portable\n", n);
    assert_string_equal(s.layout, native_name());
    assert_int_equal(count_in_log(h, "job: queued"), 2);
}

static void open__nothing_to_pack__is_served_portable_and_says_so(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served s = {0};
    for (unsigned i = 0; i < 3; i++) {
        open_in(fd, "tiny", "f16", "native", &s);
        assert_string_equal(s.layout, "portable");
        assert_non_null(strstr(s.why, "no tensor of it is packed"));
    }
    assert_int_equal(count_in_log(*state, "job: queued"), 2); /* found out once */
}

static void open__strict_and_packed__checks_and_answers(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served s = {0};
    struct qd_error err = {0};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(
            try_open(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_0", .layout = "native", .strict = true}, &s,
                     &err),
            0);
        assert_string_equal(s.layout, native_name());
    }
}

static void artifacts__of_one_scheme__are_told_apart_by_layout(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served s = {0};
    char name[32];
    open_in(fd, "tiny", "q8_0", "native", &s);
    (void)snprintf(name, sizeof name, "tiny:q8_0:%s", native_name());
    remove_artifact(fd, name);
    open_in(fd, "tiny", "q8_0", NULL, &s);
    assert_false(s.built);
    open_in(fd, "tiny", "q8_0", "native", &s);
    assert_true(s.built);
    remove_artifact(fd, "tiny:q8_0");
    open_in(fd, "tiny", "q8_0", "native", &s);
    assert_false(s.built);
}

/* ---- tests: another quantd ------------------------------------------------------------------------------ */

static struct store *open_store(const struct harness *h, struct signing_key **ret_key)
{
    struct store *store = NULL;
    struct qd_error err = {0};
    struct store_options o = {.folder = harness_path(h, "cache/quantd"), .keyring = keyring_new()};
    assert_int_equal(signing_key_load_or_create(harness_path(h, "state/quantd"), NULL, ret_key, NULL, &err), 0);
    assert_int_equal(keyring_trust(o.keyring, signing_key_public(*ret_key), &err), 0);
    if (store_open(&o, &store, NULL, &err) < 0)
        fail_msg("%s", err.message);
    return store;
}

static struct bytes file_of(const struct lease *l, enum manifest_role role, struct arena *arena)
{
    const struct manifest_file *f = manifest_file(l->manifest, role);
    assert_non_null(f);
    return read_all(arena, l->fds[f - l->manifest->files]);
}

/* The artifact @hex becomes one that a quantd made which calls its layout @layout. The daemon does not run. */
static void rename_layout(const struct harness *h, const char *hex, const char *layout)
{
    struct signing_key *key = NULL;
    struct store *store = open_store(h, &key);
    struct arena *arena = arena_new(64 << 20);
    struct digest old;
    struct lease *l = NULL;
    struct store_work *w = NULL;
    struct qd_error err = {0};
    assert_true(digest_parse(hex, &old));
    assert_int_equal(store_lookup(store, &old, &l, &err), 0);
    struct manifest m = *l->manifest;
    m.layout = layout;
    assert_int_equal(artifact_key(&m.source, m.recipe, layout, m.encoder_revision, &m.key, &err), 0);
    assert_int_equal(store_work_open(store, &m.key, 1, &w, &err), 0);
    const struct bytes payload = read_all(arena, l->fds[0]);
    assert_int_equal(pwrite_whole(w->part_fds[0], payload.data, payload.n, 0), 0);
    const struct store_commit c = {.manifest = &m,
                                   .parts = {{m.files[0].name, payload.n}},
                                   .tensors = file_of(l, MANIFEST_TENSORS, arena),
                                   .metadata = file_of(l, MANIFEST_METADATA, arena),
                                   .key = key,
                                   .n_threads = 1};
    if (store_commit(store, w, &c, &err) < 0)
        fail_msg("%s", err.message);
    (void)lease_release(l);
    assert_int_equal(store_remove(store, &old, &err), 0);
    (void)store_close(store);
    (void)signing_key_free(key);
    (void)arena_free(arena);
}

/* As when quantd was updated: what the other one packed is packed anew, and then makes room. */
static void start__layout_that_another_quantd_named__is_packed_anew_and_collected(void **state)
{
    struct harness *h = *state;
    CLEANUP(served_clear) struct served s = {0};
    char key[DIGEST_HEX_BYTES], ready[96];
    int fd = harness_hello(h);
    open_in(fd, "tiny", "q8_0", "native", &s);
    (void)snprintf(key, sizeof key, "%s", s.key);
    packet_clear(&s.packet);
    (void)close(fd);
    assert_int_equal(harness_stop(h), 0);
    rename_layout(h, key, "r16k4");
    harness_start(h);
    (void)snprintf(ready, sizeof ready, "artifact ready model=tiny scheme=q8_0 layout=%s", native_name());
    harness_wait_log(h, "artifact evicted model=tiny scheme=q8_0 layout=r16k4 key=");
    assert_int_equal(count_in_log(h, ready), 1);
    assert_int_equal(count_in_log(h, "artifact superseded model=tiny scheme=q8_0 layout=r16k4 key="), 1);
    fd = harness_hello(h);
    open_in(fd, "tiny", "q8_0", "native", &s);
    assert_false(s.built);
    assert_string_equal(s.key, key);
    (void)close(fd);
}

/* ---- tests: refusals -------------------------------------------------------------------------------- */

static void open__layout_that_cannot_be__is_refused_with_the_next_step(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served s = {0};
    const char *foreign = native == QD_LAYOUT_R4K4P128 || native == QD_LAYOUT_R4K8P128 ? "r16k4p128" : "r4k8p128";
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_0", .layout = "r8k"}, QD_E_INVALID, "'r8k'",
            "'r8k4p128'");
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_0", .layout = foreign}, QD_E_UNSUPPORTED, "needs",
            native_name());
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_0", .layout = "native", .no_build = true},
            QD_E_NOT_FOUND, native_name(), "no_build");
    open_in(fd, "tiny", "q8_0", NULL, &s);
    refused(fd, &(struct msg_open){.model = "tiny", .scheme = "q8_0", .layout = "native", .no_build = true},
            QD_E_NOT_FOUND, native_name(), "no_build");
}

static void open__auto_that_may_not_build__is_served_what_is_there_and_causes_no_job(void **state)
{
    CLEANUP(fd_close) int fd = harness_hello(*state);
    CLEANUP(served_clear) struct served s = {0};
    struct qd_error err = {0};
    const struct msg_open m = {.model = "tiny", .scheme = "q8_0", .layout = "auto", .no_build = true};
    assert_int_equal(try_open(fd, &m, &s, &err), QD_E_NOT_FOUND);
    open_in(fd, "tiny", "q8_0", NULL, &s);
    assert_int_equal(try_open(fd, &m, &s, &err), 0);
    assert_string_equal(s.layout, "portable");
    assert_int_equal(count_in_log(*state, "job: queued"), 1);
    open_in(fd, "tiny", "q8_0", "native", &s);
    assert_int_equal(try_open(fd, &m, &s, &err), 0);
    assert_string_equal(s.layout, native_name());
}

/* ---- tests: deaths ------------------------------------------------------------------------------------- */

static pid_t worker_of(const struct harness *h)
{
    char path[64], text[64] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)h->pid, (int)h->pid);
    FILE *f = fopen(path, "re");
    if (f && !fgets(text, sizeof text, f))
        text[0] = '\0';
    if (f)
        (void)fclose(f);
    return (pid_t)atoi(text);
}

/* The payload's digest is that of the first call. */
static void assert_same_bytes(const struct served *s)
{
    static struct digest first;
    struct digest d, none = {{0}};
    struct stat st;
    assert_int_equal(fstat(s->packet.fds[1], &st), 0);
    assert_int_equal(digest_file(s->packet.fds[1], (uint64_t)st.st_size, 2, &d, NULL, NULL, NULL, NULL), 0);
    if (digest_equal(&first, &none))
        first = d;
    assert_memory_equal(&d, &first, sizeof d);
}

static void packing__worker_killed_anywhere__next_open_gives_the_same_bytes(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(served_clear) struct served s = {0};
    const struct msg_open m = {.model = "big", .scheme = "q8_0", .layout = native_name()};
    char name[32];
    uint32_t seed = 5;
    unsigned n_hit = 0;
    (void)snprintf(name, sizeof name, "big:q8_0:%s", native_name());
    open_in(fd, "big", "q8_0", native_name(), &s);
    assert_same_bytes(&s);
    for (unsigned i = 0; i < N_KILLS; i++) {
        struct qd_error err = {0};
        remove_artifact(fd, name);
        harness_request(fd, 50 + i, "open", MESSAGE(open, &m), NULL, 0);
        pid_t worker = 0;
        for (unsigned n = 0; n < 1000 && (worker = worker_of(h)) == 0; n++)
            (void)usleep(200);
        (void)usleep(1000 * (big_model_random(&seed) % 40));
        n_hit += worker > 0 && kill(worker, SIGKILL) == 0;
        int r = try_open(fd, &m, &s, &err); /* joins, is refused for a while, or is a new one */
        if (r < 0 && r != QD_E_WORKER_DIED)
            fail_msg("%s (%s)", err.message, err.hint);
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet p = {0};
        (void)harness_call(fd, "retry", MESSAGE(retry, &(struct msg_retry){0}), &in, &p, &err);
        open_in(fd, "big", "q8_0", native_name(), &s);
        assert_same_bytes(&s);
    }
    print_message("# %u of %d workers killed\n", n_hit, N_KILLS);
    assert_true(n_hit > N_KILLS / 4);
}

static void packing__daemon_killed_anywhere__next_open_gives_the_same_bytes(void **state)
{
    struct harness *h = *state;
    const struct msg_open m = {.model = "big", .scheme = "q8_0", .layout = native_name()};
    char name[32];
    uint32_t seed = 6;
    (void)snprintf(name, sizeof name, "big:q8_0:%s", native_name());
    for (unsigned i = 0; i < N_KILLS; i++) {
        CLEANUP(fd_close) int fd = harness_hello(h);
        CLEANUP(served_clear) struct served s = {0};
        open_in(fd, "big", "q8_0", native_name(), &s);
        assert_same_bytes(&s);
        remove_artifact(fd, name);
        harness_request(fd, 99, "open", MESSAGE(open, &m), NULL, 0);
        (void)usleep(1000 * (big_model_random(&seed) % 100));
        harness_kill(h);
        harness_start(h);
        harness_wait_model(h, "big", "ready");
    }
}

static void packing__cancelled__tells_its_waiter_and_the_next_open_goes_on(void **state)
{
    struct harness *h = *state;
    CLEANUP(fd_close) int fd = harness_hello(h);
    CLEANUP(fd_close) int other = harness_hello(h);
    CLEANUP(served_clear) struct served s = {0};
    const struct msg_open m = {.model = "big", .scheme = "q8_0", .layout = native_name()};
    open_in(fd, "big", "q8_0", NULL, &s);
    harness_request(fd, 7, "open", MESSAGE(open, &m), NULL, 0);
    harness_wait_log(h, "job: planning job=2");
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet p = {0};
    struct qd_error err = {0};
    int cancelled = harness_call(other, "cancel", MESSAGE(cancel, &(struct msg_cancel){.job = 2}), &in, &p, &err);
    for (bool done = false; !done;) {
        CLEANUP(incoming_clear) struct incoming answer = {0};
        CLEANUP(packet_clear) struct packet with = {0};
        assert_true(harness_receive(fd, &answer, &with));
        done = answer.kind == INCOMING_REPLY;
        if (done && cancelled == 0)
            assert_int_equal(incoming_error(&answer, &err), QD_E_CANCELLED);
    }
    open_in(fd, "big", "q8_0", native_name(), &s);
    assert_same_bytes(&s);
}

/* ---- tests: damage --------------------------------------------------------------------------------------- */

/* The file of the store that a served descriptor shows. */
static void path_of(int fd, char dst[512])
{
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, dst, 511);
    assert_true(n > 0);
    dst[n] = '\0';
}

/*
 * A page that is dirty already is written to without a trace in mtime or ctime: only who reads the bytes can tell. The
 * daemon that starts behind the chmod hashes the file once, finds it good, and takes the new stamp.
 */
static void packing__portable_artifact_damaged_without_a_trace__is_built_anew_and_packed(void **state)
{
    struct harness *h = *state;
    int fd = harness_hello(h);
    CLEANUP(served_clear) struct served s = {0};
    char path[512];
    open_in(fd, "tiny", "q8_0", NULL, &s);
    path_of(s.packet.fds[1], path);
    packet_clear(&s.packet);
    (void)close(fd);
    assert_int_equal(harness_stop(h), 0);
    assert_int_equal(chmod(path, 0600), 0);
    CLEANUP(fd_close) int file = open(path, O_RDWR | O_CLOEXEC);
    uint8_t *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(map != MAP_FAILED);
    volatile uint8_t *byte = map + (1 << 20) - 100;
    *byte = *byte;
    harness_start(h);
    harness_wait_model(h, "tiny", "ready");
    *byte ^= 1;
    fd = harness_hello(h);
    open_in(fd, "tiny", "q8_0", "native", &s);
    assert_string_equal(s.layout, native_name());
    harness_wait_log(h, "artifact damaged model=tiny scheme=q8_0 layout=portable");
    CLEANUP(served_clear) struct served portable = {0};
    CLEANUP(seen_clear) struct seen packed = {0}, from = {0};
    open_in(fd, "tiny", "q8_0", NULL, &portable);
    look_at(&s, &packed);
    look_at(&portable, &from);
    assert_packed_from(&packed, &from, native);
    (void)munmap(map, 1 << 20);
    (void)close(fd);
}

#define T(name)     cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
#define T_BIG(name) cmocka_unit_test_setup_teardown(name, setup_big, harness_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(open__native__builds_both_and_comes_from_the_cache_next_time),
        T(open__each_layout_of_this_cpu__holds_the_bytes_of_the_portable_one),
        T(open__two_clients_for_native__one_job_packs_for_both),
        T(open__auto__is_served_portable_at_once_and_packed_later),
        T_BIG(open__auto_again_and_again_while_it_is_packed__costs_one_job),
        T(open__nothing_to_pack__is_served_portable_and_says_so),
        T(open__strict_and_packed__checks_and_answers),
        T(artifacts__of_one_scheme__are_told_apart_by_layout),
        T(start__layout_that_another_quantd_named__is_packed_anew_and_collected),
        T(open__layout_that_cannot_be__is_refused_with_the_next_step),
        T(open__auto_that_may_not_build__is_served_what_is_there_and_causes_no_job),
        T_BIG(packing__worker_killed_anywhere__next_open_gives_the_same_bytes),
        T_BIG(packing__daemon_killed_anywhere__next_open_gives_the_same_bytes),
        T_BIG(packing__cancelled__tells_its_waiter_and_the_next_open_goes_on),
        T(packing__portable_artifact_damaged_without_a_trace__is_built_anew_and_packed),
    };
    native = layout_native(cpu_features());
    if (native == QD_LAYOUT_PORTABLE) {
        print_message("1..0 # SKIP no vector kernels on this CPU, so nothing is packed\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
