#include "tests/unit/cache/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/tables.h"
#include "kernels/core/io.h"
#include "tests/test.h"

void run(const char *fmt, ...)
{
    char command[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    assert_int_equal(system(command), 0);
}

void fixture_init(struct fixture *f, const char *where)
{
    char state[80];
    memset(f, 0, sizeof *f);
    (void)snprintf(f->folder, sizeof f->folder, "%s/quantd-store-XXXXXX", where);
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(state, sizeof state, "%s/state", f->folder);
    (void)snprintf(f->cache, sizeof f->cache, "%s/cache", f->folder);
    assert_int_equal(mkdir(state, 0700), 0);
    assert_int_equal(signing_key_load_or_create(state, NULL, &f->key, NULL, NULL), 0);
}

struct keyring *fixture_keyring(const struct fixture *f)
{
    struct keyring *k = keyring_new();
    assert_non_null(k);
    assert_int_equal(keyring_trust(k, signing_key_public(f->key), NULL), 0);
    return k;
}

int fixture_try_open(struct fixture *f, struct qd_error *err)
{
    struct store_options o = f->options;
    o.folder = f->cache;
    o.keyring = fixture_keyring(f);
    int r = store_open(&o, &f->store, &f->report, err);
    if (r < 0)
        keyring_free(o.keyring);
    return r;
}

void fixture_open(struct fixture *f)
{
    struct qd_error err = {0};
    int r = fixture_try_open(f, &err);
    if (r < 0)
        print_error("%s\n", err.message);
    assert_int_equal(r, 0);
}

void fixture_close(struct fixture *f)
{
    f->store = store_close(f->store);
}

void fixture_clear(struct fixture *f)
{
    fixture_close(f);
    f->key = signing_key_free(f->key);
    run("rm -rf '%s'", f->folder);
}

struct digest sample_key(unsigned number)
{
    struct digest d;
    assert_int_equal(digest_message("test", (struct bytes){(const uint8_t *)&number, sizeof number}, &d, NULL), 0);
    return d;
}

void sample_payload(unsigned number, size_t n, struct buffer *dst)
{
    uint32_t x = number * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        buffer_put_u8(dst, (uint8_t)(x >> 24));
    }
}

/* Four bytes of the payload are the one tensor. */
static void sample_tables(unsigned number, struct buffer *tensors, struct buffer *metadata)
{
    struct tensor_entry t = {.name = "w", .n_dims = 1, .shape = {1}, .bytes = 4, .reason = "as is"};
    t.type = t.source_type = QD_TYPE_F32;
    assert_int_equal(tensor_table_encode(&(struct tensor_table){&t, 1}, tensors, NULL), 0);
    uint8_t even = (uint8_t)(number % 2); /* artifacts of the same parity share their metadata object */
    struct meta_entry e = {"even", {META_U8, META_U8, 1, &even}};
    assert_int_equal(meta_table_encode(&(struct meta_table){&e, 1}, metadata, NULL), 0);
}

int sample_write(struct store_work *w, unsigned number, size_t n)
{
    CLEANUP(buffer_clear) struct buffer payload = {0};
    sample_payload(number, n, &payload);
    return pwrite_whole(w->part_fds[0], payload.data, n, 0);
}

int sample_commit_work(struct fixture *f, struct store_work *w, unsigned number, size_t n, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer tensors = {0};
    CLEANUP(buffer_clear) struct buffer metadata = {0};
    char model[32];
    (void)snprintf(model, sizeof model, "model-%u", number);
    struct manifest m = {.model = model,
                         .scheme = "q8_0",
                         .recipe = "scheme=q8_0 pure=0",
                         .layout = "portable",
                         .features = "",
                         .encoder_revision = 1,
                         .quality = {.worst = ""}};
    sample_tables(number, &tensors, &metadata);
    struct store_commit c = {.manifest = &m,
                             .parts = {{"model.gguf", n}},
                             .tensors = buffer_span(&tensors),
                             .metadata = buffer_span(&metadata),
                             .key = f->key,
                             .n_threads = 1};
    return store_commit(f->store, w, &c, err);
}

int sample_commit(struct fixture *f, unsigned number, size_t n, struct qd_error *err)
{
    struct digest key = sample_key(number);
    struct store_work *w = NULL;
    int r = store_work_open(f->store, &key, 1, &w, err);
    if (r < 0)
        return r;
    r = sample_write(w, number, n);
    r = r < 0 ? err_sys(err, -r, "write the payload") : sample_commit_work(f, w, number, n, err);
    if (r < 0)
        (void)store_work_discard(f->store, w);
    return r;
}

static bool file_is(int fd, const struct manifest_file *f)
{
    struct digest d;
    return digest_file(fd, f->bytes, 1, &d, NULL, NULL, NULL, NULL) == 0 && digest_equal(&d, &f->digest);
}

bool sample_is_served(struct fixture *f, unsigned number, size_t n)
{
    struct digest key = sample_key(number);
    struct lease *l = NULL;
    if (store_lookup(f->store, &key, &l, NULL) < 0)
        return false;
    CLEANUP(buffer_clear) struct buffer payload = {0};
    CLEANUP(buffer_clear) struct buffer now = {0};
    sample_payload(number, n, &payload);
    buffer_put_zeros(&now, n + 1);
    bool same = pread_whole(l->fds[0], now.data, n + 1, 0) == (ssize_t)n && memcmp(now.data, payload.data, n) == 0;
    for (size_t i = 0; i < l->n_fds; i++)
        same &= file_is(l->fds[i], &l->manifest->files[i]);
    lease_release(l);
    return same;
}

void object_path(struct fixture *f, unsigned number, size_t i, char dst[256])
{
    struct digest key = sample_key(number);
    struct lease *l = NULL;
    assert_int_equal(store_lookup(f->store, &key, &l, NULL), 0);
    char hex[DIGEST_HEX_BYTES];
    digest_hex(&l->manifest->files[i].digest, hex);
    (void)snprintf(dst, 256, "%s/objects/%.2s/%s", f->cache, hex, hex + 2);
    lease_release(l);
}

int count_files(const struct fixture *f, const char *below)
{
    char command[256];
    (void)snprintf(command, sizeof command, "find '%s/%s' -type f | wc -l", f->cache, below);
    FILE *p = popen(command, "re");
    int n = -1;
    assert_non_null(p);
    assert_int_equal(fscanf(p, "%d", &n), 1);
    assert_int_equal(pclose(p), 0);
    return n;
}
