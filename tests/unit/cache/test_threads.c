/* The store under several threads at once; the build with -Db_sanitize=thread is what judges it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/test.h"
#include "tests/unit/cache/fixture.h"

enum { N = 3000, ARTIFACTS = 6, ROUNDS = 40 };

struct crowd {
    struct fixture *f;
    atomic_int stop;
    atomic_int n_served;
    atomic_int n_wrong;
};

/* Looks up, reads, releases: what is served is always whole. */
static void *reader(void *data)
{
    struct crowd *c = data;
    for (unsigned i = 0; !atomic_load(&c->stop); i++) {
        struct digest key = sample_key(i % ARTIFACTS), d;
        struct lease *l = NULL;
        if (store_lookup(c->f->store, &key, &l, NULL) < 0)
            continue;
        lease_release(lease_ref(l));
        const struct manifest_file *f = &l->manifest->files[0];
        if (digest_file(l->fds[0], f->bytes, 1, &d, NULL, NULL, NULL, NULL) < 0 || !digest_equal(&d, &f->digest))
            atomic_fetch_add(&c->n_wrong, 1);
        lease_release(l);
        atomic_fetch_add(&c->n_served, 1);
    }
    return NULL;
}

static int look(const struct store_entry *e, void *data)
{
    *(uint64_t *)data += e->bytes;
    return 0;
}

/* Verifies, lists, touches, changes the keyring. */
static void *keeper(void *data)
{
    struct crowd *c = data;
    for (unsigned i = 0; !atomic_load(&c->stop); i++) {
        struct digest key = sample_key(i % ARTIFACTS);
        struct store_verify v;
        struct store_usage u;
        uint64_t bytes = 0;
        int r = store_verify(c->f->store, &key, NULL, NULL, &v, NULL);
        if (r < 0 && r != QD_E_NOT_FOUND)
            atomic_fetch_add(&c->n_wrong, 1);
        (void)store_list(c->f->store, look, &bytes);
        (void)store_usage(c->f->store, &u, NULL);
        store_touch(c->f->store);
        (void)store_set_keyring(c->f->store, fixture_keyring(c->f), NULL);
    }
    return NULL;
}

static void store__readers_keepers_and_commits_at_once__serve_whole_artifacts_only(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    f.options.max_open = 2;
    fixture_open(&f);
    struct crowd c = {.f = &f};
    pthread_t threads[3];
    assert_int_equal(pthread_create(&threads[0], NULL, reader, &c), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, reader, &c), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, keeper, &c), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct digest key = sample_key(i % ARTIFACTS);
        struct store_gc gc;
        int r = sample_commit(&f, i % ARTIFACTS, N, NULL);
        assert_true(r == 0 || r == QD_E_EXISTS);
        if (i % 3 == 2)
            (void)store_remove(f.store, &key, NULL);
        if (i % 7 == 6)
            (void)store_gc(f.store, 2 * N, &gc, NULL);
    }
    atomic_store(&c.stop, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(c.n_wrong, 0);
    assert_true(c.n_served > 0);
    fixture_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store__readers_keepers_and_commits_at_once__serve_whole_artifacts_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
